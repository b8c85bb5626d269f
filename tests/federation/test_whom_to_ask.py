"""Who is asked for what is missing before an event: whoever has sent it, and others where that one does not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import pytest_twisted

from synapse.federation.receiving import ancestors
from synapse.federation.receiving.faults import Later
from tests.federation.memory_room import Answer, MemoryRoom
from tests.federation.peers import Peer

EVE, MALLORY = Peer("eve.test"), Peer("mallory.test")
OTHERS = [Peer(f"other{number}.test") for number in range(ancestors.OTHERS + 2)]


class Town(MemoryRoom):
    """A room with many servers, of which the later ones are larger."""

    def __init__(self) -> None:
        super().__init__("11", EVE, MALLORY, *OTHERS)
        self.known: dict[str, Any] = {}
        self.elsewhere.before = self._before

    async def hosts(self, room_id: str) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.peers)}

    async def ready(self, servers: Sequence[str]) -> Sequence[str]:
        return [server for server in reversed(servers) if server != LEFT_ALONE]

    def _before(self, latest: Sequence[str]) -> Sequence[Any]:
        """Who is asked knows the events that it was given."""
        return self.known.get(self.elsewhere.asked[-1][1], [])

    @property
    def whom(self) -> list[tuple[str, str]]:
        return [(kind, server) for kind, server, *_ in self.elsewhere.asked]


LEFT_ALONE, *LARGEST = [peer.name for peer in OTHERS[: -ancestors.OTHERS - 2 : -1]]


@pytest_twisted.ensureDeferred
async def test_others_are_asked_where_the_origin_and_the_senders_server_do_not_tell() -> None:
    room = Town()
    missing, event = room.chain(2, EVE.user())
    room.known[LARGEST[-1]] = [missing.raw]
    room.elsewhere.away = {MALLORY.name, LARGEST[0]}
    result = await room.pipeline().receive(MALLORY.name, room.room_id, room.version, [event])
    assert result == {event.event_id: None}
    assert room.whom == [("missing", name) for name in (MALLORY.name, EVE.name, *LARGEST)]


@pytest_twisted.ensureDeferred
async def test_nobody_else_is_asked_where_the_origin_tells() -> None:
    room = Town()
    missing, event = room.chain(2, EVE.user())
    room.known[MALLORY.name] = [missing.raw]
    await room.pipeline().receive(MALLORY.name, room.room_id, room.version, [event])
    assert room.whom == [("missing", MALLORY.name)]


@pytest_twisted.ensureDeferred
async def test_who_has_told_something_is_asked_first_for_the_rest() -> None:
    room = Town()
    gap, oldest, event = room.chain(3, EVE.user())
    room.known[LARGEST[0]] = [oldest.raw]
    room.elsewhere.away = {EVE.name}
    room.elsewhere.give(gap)
    room.elsewhere.state_ids_at = lambda at: Answer(pdu_ids=list(room.present.values()))
    result = await room.pipeline().receive(EVE.name, room.room_id, room.version, [event])
    assert result == {event.event_id: None}
    told = [(kind, name) for kind, name in room.whom if name != EVE.name]
    assert told[0] == ("missing", LARGEST[0])
    assert told[-2:] == [("state_ids", LARGEST[0]), ("event", LARGEST[0])]


@pytest_twisted.ensureDeferred
async def test_others_are_asked_in_vain_once_a_batch() -> None:
    room = Town()
    events = [room.make(sender=EVE.user(), prev=[f"$never{n}"], content={"n": n}) for n in range(10)]
    result = await room.pipeline().receive(EVE.name, room.room_id, room.version, events)
    assert None not in result.values()
    assert [name for _, name in room.whom].count(EVE.name) == len(events)
    assert [name for _, name in room.whom if name != EVE.name] == LARGEST


@pytest.mark.parametrize("membership", ["leave", "ban", "invite"])
@pytest_twisted.ensureDeferred
async def test_what_puts_a_user_of_ours_out_is_looked_at_again_though_nobody_tells_what_was_before(
    membership: str,
) -> None:
    """Others may not have heard of it yet; and nobody sends this server what comes after it."""
    room = Town()
    for user_id, is_kept in ((room.home.user("bob"), membership != "invite"), (EVE.user("bob"), False)):
        content = {"membership": membership}
        event = room.make("m.room.member", content, user_id, sender=EVE.user(), prev=["$never"])
        result = await room.pipeline().receive(EVE.name, room.room_id, room.version, [event])
        assert isinstance(result[event.event_id], Later) is is_kept


@pytest_twisted.ensureDeferred
async def test_what_one_event_lacks_does_not_have_others_looked_at_again() -> None:
    room = Town()
    room.elsewhere.away = set(room.peers)
    stray = room.make(sender=EVE.user(), prev=["$never"])
    second = room.make("m.room.create", {}, "", sender=EVE.user(), prev=[stray.event_id])
    results = await room.pipeline().receive(EVE.name, room.room_id, room.version, [stray, second])
    assert [type(results[event.event_id]) for event in (stray, second)] == [Later, str]
