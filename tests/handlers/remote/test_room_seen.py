"""What a server says of a room when it lets somebody in: what is believed, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec
import orjson
import pytest
import pytest_twisted

from synapse.api.identifiers import domain_of
from synapse.api.room_versions import ROOM_VERSIONS, RoomVersion
from synapse.events.event import Event
from synapse.events.hashes import essential_bytes
from synapse.events.signing import SignatureError, required_signers, signatures_by, verify
from synapse.federation.answers import Pdus
from synapse.federation.errors import BadAnswer
from synapse.federation.receiving.checks import EventChecks
from synapse.federation.receiving.judging import judge_many
from synapse.handlers.event_creation import Signer
from synapse.handlers.remote.room_seen import MAX_FETCHED, RoomCheck, RoomSeen
from synapse.handlers.remote.templates import made_by
from tests.support.reactor import real_reactor
from tests.support.resident import Resident, key_of

OWN = "here.test"
SIGNER = Signer(OWN, key_of(OWN))
USER = f"@user:{OWN}"
MEMBER = ("m.room.member", "@member:other.test")


class Keys:
    """Knows everybody's."""

    async def verify_events(self, events: Sequence[Event], asked_by: str | None = None) -> Collection[str]:
        return {event.event_id for event in events if not _is_signed(event)}


def _is_signed(event: Event) -> bool:
    return all(_signed(event, server) for server in required_signers(event.raw, event.room_version))


def _signed(event: Event, server: str) -> bool:
    try:
        for signature in signatures_by(event.raw, server).values():
            verify(essential_bytes(event.raw, event.room_version), signature, key_of(server).verify_key)
            return True
    except SignatureError:
        pass
    return False


class Judge:
    async def auth_checked(self, events: Sequence[Event], version: RoomVersion) -> list[tuple[Event, str | None]]:
        create = next(event for event in events if event.type == "m.room.create")
        create_id = create.event_id if version.room_id_from_create else None
        return await judge_many(real_reactor(), events, create_id, lambda _: None)


async def at_once(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


class Case:
    """A room, its state and auth chain as it tells them, and a user who comes in."""

    def __init__(self, version: str = "12") -> None:
        self.resident = Resident("there.test", version)
        self.resident.join([MEMBER[1]])
        self.resident.set(self.resident.creator, "m.room.topic", {"topic": "t"})
        answer = self.resident.answer("GET", f"/_matrix/federation/v1/make_join/{self.resident.room_id}/{USER}")[1]
        self.join = made_by(
            "there.test",
            answer["event"],
            self.resident.version,
            room_id=self.resident.room_id,
            user_id=USER,
            content={"membership": "join"},
            signer=SIGNER,
            now=1,
        )
        self.state = [event.raw for event in self.resident.state.values()]
        chain = self.resident.chain([self.join, *self.resident.state.values()])
        self.chain = [event.raw for event in chain.values()]
        self.fetched: list[str] = []

    def at(self, event_type: str, state_key: str = "") -> int:
        """Where an entry is in the state that is told."""
        return next(i for i, raw in enumerate(self.state) if (raw["type"], raw["state_key"]) == (event_type, state_key))

    async def look(self, fetch: Callable[[str], Awaitable[Any]] | None = None) -> RoomSeen:
        async def nothing(event_id: str) -> Any:
            self.fetched.append(event_id)
            return None

        check = RoomCheck(EventChecks(Keys(), at_once), Judge())
        return await check.look("there.test", self.join, pdus(self.state), pdus(self.chain), fetch or nothing)

    async def refused(self) -> str:
        with pytest.raises(BadAnswer) as raised:
            await self.look()
        return raised.value.message


def pdus(raws: Sequence[Any]) -> Pdus:
    return Pdus([msgspec.Raw(orjson.dumps(raw)) for raw in raws])


@pytest.mark.parametrize("version", ROOM_VERSIONS)
@pytest_twisted.ensureDeferred
async def test_what_is_right_is_taken_whole(version: str) -> None:
    case = Case(version)
    seen = await case.look()
    assert seen.state == case.resident.state
    told = {event.event_id for event in case.resident.events.values()}
    assert {outlier.event.event_id for outlier in seen.outliers} == told
    assert not any(outlier.rejected for outlier in seen.outliers)
    before: set[str] = set()
    for outlier in seen.outliers:
        assert before.issuperset(outlier.event.auth_event_ids)
        before.add(outlier.event.event_id)


@pytest_twisted.ensureDeferred
async def test_a_room_without_create_event_is_none() -> None:
    case = Case("10")
    del case.state[case.at("m.room.create")]
    assert "m.room.create" in await case.refused()


@pytest_twisted.ensureDeferred
async def test_the_room_has_the_version_that_was_proposed() -> None:
    case = Case("10")
    other = Case("9")
    case.join = other.join
    case.state, case.chain = other.state, other.chain
    create = other.resident.state["m.room.create", ""].raw
    lie = {**create, "content": {**create["content"], "room_version": "10"}}
    case.state[case.at("m.room.create")] = lie
    assert await case.refused()  # the create event's hash is wrong now, so it says nothing of a version


@pytest.mark.parametrize("claimed", ["2", "of.their.own", None, 1, ["1"]])
@pytest_twisted.ensureDeferred
async def test_a_create_event_of_another_version_than_was_proposed_is_refused(claimed: Any) -> None:
    case = Case("1")
    content = {"creator": case.resident.creator, "room_version": claimed}
    create = case.resident.made(case.resident.creator, "m.room.create", content, "")
    case.state[case.at("m.room.create")] = create.raw
    assert "another version" in await case.refused()


@pytest_twisted.ensureDeferred
async def test_a_state_with_two_events_in_one_place_is_none() -> None:
    case = Case()
    case.state.append(case.resident.made(case.resident.creator, "m.room.topic", {"topic": "u"}, "").raw)
    assert "two events" in await case.refused()


@pytest_twisted.ensureDeferred
async def test_a_message_is_no_state() -> None:
    case = Case()
    case.state.append(case.resident.say(case.resident.creator, "hello").raw)
    assert "an event that is none" in await case.refused()


@pytest_twisted.ensureDeferred
async def test_events_of_another_room_are_left_out_and_do_not_make_this_one() -> None:
    case, other = Case("10"), Resident("other.test", "10")
    case.state.append(other.set(other.creator, "m.room.name", {"name": "not ours"}).raw)
    case.chain += [event.raw for event in other.events.values()]
    seen = await case.look()
    assert {event.room_id for event in seen.state.values()} == {case.resident.room_id}
    assert {outlier.event.room_id for outlier in seen.outliers} == {case.resident.room_id}
    case.state = [event.raw for event in other.state.values()]
    assert await case.refused()


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_an_event_that_is_not_signed_rightly_is_left_out_and_no_more(version: str) -> None:
    case = Case(version)
    place = case.at(*MEMBER)
    signatures = {domain_of(MEMBER[1]): {"ed25519:made_up": "A" * 86}}
    case.state[place] = {**case.state[place], "signatures": signatures}
    seen = await case.look()
    assert seen.state.keys() == case.resident.state.keys() - {MEMBER}


@pytest_twisted.ensureDeferred
async def test_an_event_whose_content_was_changed_comes_redacted() -> None:
    case = Case()
    place = case.at("m.room.topic")
    case.state[place] = {**case.state[place], "content": {"topic": "a lie"}}
    seen = await case.look()
    assert seen.state["m.room.topic", ""].content == {}


@pytest_twisted.ensureDeferred
async def test_state_that_its_own_auth_events_do_not_allow_is_kept_as_rejected_and_is_no_state() -> None:
    case = Case()
    topic = case.resident.made("@stranger:other.test", "m.room.name", {"name": "mine"}, "")
    case.state.append(topic.raw)
    seen = await case.look()
    assert ("m.room.name", "") not in seen.state
    assert [outlier.event for outlier in seen.outliers if outlier.rejected] == [topic]


@pytest.mark.parametrize("version", ["1", "10", "12"])
@pytest_twisted.ensureDeferred
async def test_auth_events_that_were_left_out_are_asked_for(version: str) -> None:
    case = Case(version)
    case.resident.set(case.resident.creator, "m.room.member", {"membership": "invite"}, "@invited:other.test")
    case.resident.join(["@invited:other.test"])
    case.state = [event.raw for event in case.resident.state.values()]

    async def fetch(event_id: str) -> Any:
        case.fetched.append(event_id)
        return case.resident.events[event_id].raw

    seen = await case.look(fetch)
    assert seen.state == case.resident.state
    assert len(case.fetched) == 1


@pytest_twisted.ensureDeferred
async def test_what_rests_on_events_that_cannot_be_had_is_left_out() -> None:
    case = Case()
    case.resident.set(case.resident.creator, "m.room.member", {"membership": "invite"}, "@invited:other.test")
    case.resident.join(["@invited:other.test"])
    case.state = [event.raw for event in case.resident.state.values()]
    seen = await case.look()
    assert seen.state.keys() == case.resident.state.keys() - {("m.room.member", "@invited:other.test")}
    assert len(case.fetched) == 1


@pytest_twisted.ensureDeferred
async def test_it_is_not_asked_without_end() -> None:
    case = Case()
    invented = [
        case.resident.made(f"@m{n}:other.test", "m.room.member", {"membership": "join"}, f"@m{n}:other.test")
        for n in range(MAX_FETCHED + 50)
    ]
    for number, event in enumerate(invented):
        raw = {**event.raw, "auth_events": [f"${number:043d}"]}
        case.state.append(raw)
    fetched: list[str] = []

    async def fetch(event_id: str) -> Any:
        fetched.append(event_id)
        return case.state[-1]  # another one than was asked for

    # The hashes are wrong by now, but auth_events survive the redaction; the signatures do not hold.
    class Trusting(Keys):
        async def verify_events(self, events: Sequence[Event], asked_by: str | None = None) -> Collection[str]:
            return ()

    check = RoomCheck(EventChecks(Trusting(), at_once), Judge())
    seen = await check.look("there.test", case.join, pdus(case.state), pdus(case.chain), fetch)
    assert seen.state == case.resident.state
    assert len(fetched) == len(set(fetched)) == MAX_FETCHED


@pytest_twisted.ensureDeferred
async def test_a_join_that_the_told_state_does_not_allow_is_refused() -> None:
    case = Case()
    case.resident.set(case.resident.creator, "m.room.member", {"membership": "ban"}, USER)
    case.state = [event.raw for event in case.resident.state.values()]
    assert "banned" in await case.refused()


@pytest_twisted.ensureDeferred
async def test_a_join_that_its_own_auth_events_do_not_allow_is_refused() -> None:
    case = Case()
    rule = case.resident.set(case.resident.creator, "m.room.join_rules", {"join_rule": "invite"})
    case.chain.append(rule.raw)
    template = case.resident.answer("GET", f"/_matrix/federation/v1/make_join/{case.resident.room_id}/{USER}")[1]
    case.join = made_by(
        "there.test",
        template["event"],
        case.resident.version,
        room_id=case.resident.room_id,
        user_id=USER,
        content={"membership": "join"},
        signer=SIGNER,
        now=1,
    )
    assert await case.refused()  # though the state that is told still has the public rule


@pytest_twisted.ensureDeferred
async def test_a_join_that_cites_what_nobody_has_is_refused() -> None:
    case = Case()
    case.chain = []
    del case.state[case.at("m.room.join_rules")]
    assert await case.refused()
