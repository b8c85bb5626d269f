"""Fetching what happened before: from whom, how often, and what of it is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.api.constants import MAX_PREV_EVENTS
from synapse.api.room_versions import RoomVersion
from synapse.events.builder import seal
from synapse.events.event import Event
from synapse.federation.answers import Pdus
from synapse.federation.errors import Refused, Unreachable
from synapse.federation.receiving.checks import EventChecks
from synapse.handlers.remote.backfill import ENDS, QUIET, SERVERS, SOON, WITHIN, Backfiller
from synapse.handlers.remote.gaps import Gaps, Told
from synapse.replication.event_rows import EventRow
from synapse.storage.awaited import Stretch
from synapse.util.caches import Cache, LruCache
from tests.handlers.remote.test_room_seen import Keys, at_once, pdus
from tests.support.deferreds import started
from tests.support.resident import Resident, key_of

OWN = "here.test"


class Head:
    def __init__(self, version: RoomVersion) -> None:
        self.version = version


class Case:
    """A room of which this server has the last message alone; several servers are in it."""

    def __init__(self, messages: int = 30, servers: Sequence[str] = ("there.test",)) -> None:
        self.resident = Resident("there.test")
        for number in range(messages):
            self.resident.say(self.resident.creator, f"message {number}")
        self.here = {self.resident.ends[0]: self.resident.events[self.resident.ends[0]]}
        self.servers = servers
        self.asked: list[tuple[str, list[str]]] = []
        self.answers: dict[str, Callable[[], Pdus]] = {}
        self.unkept: set[str] = set()
        self.left_alone: set[str] = set()
        self.clock = Clock()
        self.waiting: Deferred[None] | None = None
        self.written: Callable[[], None] = lambda: None
        self.gaps = Gaps(self, Cache("gaps", 10))
        self.backfiller = Backfiller(
            self,
            EventChecks(Keys(), at_once),
            self,
            self,
            self.gaps,
            self,
            self,
            self,
            OWN,
            LruCache("silent", 10),
            LruCache("changed", 10),
            self.clock,
        )

    # -- what it stands on ---------------------------------------------------------------------------------------------

    async def backfill(self, server: str, room_id: str, event_ids: Sequence[str], limit: int) -> Pdus:
        self.asked.append((server, list(event_ids)))
        if self.waiting is not None:
            await self.waiting
        if server in self.answers:
            return self.answers[server]()
        args = "&".join(f"v={event_id.replace('$', '%24')}" for event_id in event_ids)
        answer = self.resident.answer("GET", f"/_matrix/federation/v1/backfill/{room_id}?{args}&limit={limit}")[1]
        return pdus(answer["pdus"])

    async def history(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> dict[str, str | None]:
        assert (room_id, version) == (self.resident.room_id, self.resident.version)
        kept = {e.event_id: e for e in events if e.event_id not in self.unkept}
        self.here.update(kept)
        self.written()
        return {event.event_id: None if event.event_id in kept else "not kept" for event in events}

    async def missing(self, room_id: str, stretch: Stretch, limit: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for event in self.here.values():
            for before in event.prev_event_ids:
                if before not in self.here and stretch.lowest <= event.depth <= (stretch.highest or event.depth):
                    found[before] = max(event.depth, found.get(before, 0))
        nearest = sorted(found.items(), key=lambda item: item[1], reverse=stretch.backwards)
        return dict(nearest[:limit])

    async def joined(self, room_id: str) -> Mapping[str, int]:
        return {OWN: 1, **{server: 100 - n for n, server in enumerate(self.servers)}}

    async def get(self, room_id: str) -> Head:
        return Head(self.resident.version)

    async def ready(self, destinations: Iterable[str]) -> list[str]:
        return [name for name in destinations if name not in self.left_alone]

    async def told(self, lowest: int = 0, highest: int | None = None) -> Told:
        return await self.backfiller.fetch(self.resident.room_id, Stretch(lowest, highest, backwards=False))

    async def fetch(self, depth: int = 0) -> bool:
        return await self.told(depth) is Told.MORE

    def has(self, server: str, *events: Event) -> None:
        """The server has these events of the room alone."""
        self.answers[server] = lambda: pdus([event.raw for event in events])


def away(server: str) -> Callable[[], Pdus]:
    def fail() -> Pdus:
        raise Unreachable(server, f"{server} is away")

    return fail


@pytest_twisted.ensureDeferred
async def test_history_comes_to_its_beginning() -> None:
    case = Case(messages=250)
    while await case.fetch():
        pass
    assert case.here.keys() == case.resident.events.keys()
    assert len(case.asked) == 3
    assert not await case.fetch()
    assert len(case.asked) == 3  # there is nothing left to ask for


@pytest_twisted.ensureDeferred
async def test_who_has_read_while_something_came_is_told_that_it_may_be_lacking() -> None:
    case = Case()
    room_id, read_before = case.resident.room_id, case.gaps.filled
    seen: list[tuple[bool, int]] = []
    # What has been written can be read at once, also before the one who had it fetched learns that it has been.
    case.written = lambda: seen.append((case.gaps.may_lack(room_id, case.gaps.filled), case.gaps.filled))
    assert await case.fetch()
    assert seen == [(True, read_before)]
    assert case.gaps.may_lack(room_id, read_before)
    assert not case.gaps.may_lack(room_id, case.gaps.filled)


@pytest_twisted.ensureDeferred
async def test_gaps_that_lie_further_back_are_not_asked_for() -> None:
    case = Case()
    depth = max(event.depth for event in case.here.values())
    assert not await case.fetch(depth + 1)
    assert case.asked == []
    assert await case.fetch(depth)


@pytest_twisted.ensureDeferred
async def test_the_next_server_is_asked_where_one_is_away_or_has_nothing_new() -> None:
    case = Case(servers=["away.test", "empty.test", "there.test", "never.test"])
    case.answers = {"away.test": away("away.test"), "empty.test": lambda: Pdus()}
    assert await case.fetch()
    assert [server for server, _ in case.asked] == ["away.test", "empty.test", "there.test"]


@pytest_twisted.ensureDeferred
async def test_where_nobody_has_anything_it_is_not_asked_again_for_a_while() -> None:
    case = Case(servers=[f"s{n}.test" for n in range(20)])
    for server in case.servers:
        case.has(server)
    for _ in range(5):
        assert await case.told() is Told.NOTHING
    assert len(case.asked) == SERVERS
    case.clock.advance(SOON + 1)
    assert await case.told() is Told.NOTHING
    assert len(case.asked) == SERVERS
    case.clock.advance(QUIET)
    assert await case.told() is Told.NOTHING
    assert len(case.asked) == 2 * SERVERS


@pytest.mark.parametrize("error", [Unreachable("a.test", "away"), Refused("a.test", 403, "M_FORBIDDEN", "no", {})])
@pytest_twisted.ensureDeferred
async def test_who_could_not_tell_is_asked_again_soon(error: Exception) -> None:
    case = Case(servers=["a.test", "b.test"])

    def fail() -> Pdus:
        raise error

    case.answers["a.test"] = fail
    case.has("b.test")
    for _ in range(3):
        assert await case.told() is Told.NOTHING
    assert len(case.asked) == 2
    del case.answers["a.test"]
    case.clock.advance(SOON + 1)
    assert await case.told() is Told.MORE


@pytest_twisted.ensureDeferred
async def test_who_comes_back_is_asked_at_once() -> None:
    case = Case(servers=["a.test", "b.test"])
    case.answers["a.test"] = away("a.test")
    case.has("b.test")
    assert await case.told() is Told.NOTHING
    case.clock.advance(2)
    del case.answers["a.test"]
    case.backfiller.heard("b.test")  # it has answered: what it says is known
    assert await case.told() is Told.NOTHING
    case.backfiller.heard("a.test")
    assert await case.told() is Told.MORE


@pytest_twisted.ensureDeferred
async def test_who_does_not_answer_in_time_is_not_waited_for() -> None:
    case = Case(servers=["slow.test", "there.test"])
    case.waiting = Deferred()
    fetching = started(case.told())
    case.waiting, slow = None, case.waiting
    case.clock.advance(WITHIN + 1)
    assert await fetching is Told.MORE
    assert [server for server, _ in case.asked] == ["slow.test", "there.test"]
    assert slow.called  # it was cancelled


@pytest_twisted.ensureDeferred
async def test_servers_that_are_left_alone_come_last() -> None:
    case = Case(servers=[f"s{n}.test" for n in range(20)])
    case.left_alone = set(case.servers[:10])
    for server in case.servers:
        case.has(server)
    await case.told()
    assert [server for server, _ in case.asked] == case.servers[10 : 10 + SERVERS]


@pytest_twisted.ensureDeferred
async def test_what_came_before_the_part_that_one_has_is_asked_of_the_next() -> None:
    case = Case(messages=60, servers=["part.test", "there.test", "never.test"])
    *_, part, _last = sorted(case.resident.events.values(), key=lambda event: event.depth)
    case.has("part.test", part)
    assert await case.told() is Told.MORE
    assert [server for server, _ in case.asked] == ["part.test", "there.test"]
    assert case.here.keys() == case.resident.events.keys()


@pytest_twisted.ensureDeferred
async def test_ends_that_nobody_knows_do_not_stand_in_the_way_of_others() -> None:
    case = Case(messages=60)
    by_depth = sorted(case.resident.events.values(), key=lambda event: event.depth)
    case.here = {event.event_id: event for event in by_depth[10::4]}  # gaps all over
    last = by_depth[9 + 4 * ENDS]
    known = [event for event in by_depth if event.depth >= last.depth]
    case.has("there.test", *reversed(known))
    assert await case.told() is Told.NOTHING
    assert await case.told() is Told.MORE
    assert last.event_id in case.here


@pytest_twisted.ensureDeferred
async def test_only_the_ends_of_a_stretch_are_asked_for() -> None:
    case = Case(messages=60)
    by_depth = sorted(case.resident.events.values(), key=lambda event: event.depth)
    case.here = {event.event_id: event for event in by_depth[10::4]}
    assert await case.told(by_depth[15].depth, by_depth[18].depth) is Told.MORE
    assert case.asked == [("there.test", [by_depth[17].event_id])]
    assert await case.told(by_depth[15].depth, by_depth[18].depth) is Told.WHOLE


@pytest_twisted.ensureDeferred
async def test_what_another_process_has_fetched_is_found_out() -> None:
    case = Case()
    assert await case.gaps.any_in(case.resident.room_id)
    case.here = dict(case.resident.events)
    assert await case.told() is Told.WHOLE
    assert not await case.gaps.any_in(case.resident.room_id)


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_that_was_not_asked_for() -> None:
    case = Case()
    other = Resident("other.test")
    stray = case.resident.made(case.resident.creator, "m.room.message", {"body": "beside"})
    before = dict(case.here)
    case.answers["there.test"] = lambda: pdus(
        [stray.raw, *(event.raw for event in other.events.values()), {}, {"a": 1}]
    )
    assert not await case.fetch()
    assert case.here == before


@pytest_twisted.ensureDeferred
async def test_what_is_not_kept_is_no_progress() -> None:
    case = Case(servers=["there.test", "there.test"])
    case.unkept = set(case.resident.events)
    assert not await case.fetch()
    assert not await case.fetch()
    assert len(case.asked) == 1


@pytest_twisted.ensureDeferred
async def test_a_server_that_answers_with_a_flood_is_heard_for_so_long_only() -> None:
    case = Case(messages=400)
    flood = [event.raw for event in sorted(case.resident.events.values(), key=lambda event: -event.depth)]
    case.answers["there.test"] = lambda: pdus(flood)
    assert await case.fetch()
    assert len(case.here) <= 101


@pytest_twisted.ensureDeferred
async def test_those_who_ask_at_the_same_time_share_what_comes() -> None:
    case = Case()
    case.waiting = Deferred()
    first, second = started(case.fetch()), started(case.fetch())
    assert len(case.asked) == 1
    case.waiting.callback(None)
    assert await first
    assert await second
    assert len(case.asked) == 1


@pytest_twisted.ensureDeferred
async def test_the_nearest_ends_are_asked_for_first() -> None:
    case = Case(messages=60)
    by_depth = sorted(case.resident.events.values(), key=lambda event: event.depth)
    case.here = {event.event_id: event for event in by_depth[10::4]}  # gaps all over
    lowest = by_depth[18].depth
    room_id = case.resident.room_id
    await case.fetch(lowest)
    wanted = case.asked[0][1]
    assert len(wanted) == ENDS
    assert wanted[0] == by_depth[17].event_id
    top = max(case.here.values(), key=lambda event: event.depth)
    assert await case.backfiller.untold(room_id, Stretch(lowest)) == top.depth
    await case.backfiller.fetch(room_id, Stretch(lowest))
    assert case.asked[1][1][0] == top.prev_event_ids[0]
    case.here = {event.event_id: event for event in by_depth}
    assert await case.backfiller.untold(room_id, Stretch(lowest)) is None


def gap(room_id: str, after_gap: bool) -> EventRow:
    event_id, sender = "$e", "@u:there.test"
    return EventRow(
        room_id, event_id, 1, "m.room.message", None, sender, 1, (), None, False, None, "", after_gap=after_gap
    )


@pytest_twisted.ensureDeferred
async def test_which_rooms_lack_something_is_remembered_and_heard_of() -> None:
    case = Case()
    asked: list[str] = []
    missing = case.missing

    async def counted(room_id: str, stretch: Stretch, limit: int) -> dict[str, int]:
        asked.append(room_id)
        return await missing(room_id, stretch, limit) if room_id == case.resident.room_id else {}

    case.missing = counted  # type: ignore[method-assign]
    for _ in range(3):
        assert await case.gaps.any_in(case.resident.room_id)
        assert not await case.gaps.any_in("!whole")
    assert asked == [case.resident.room_id, "!whole"]
    case.gaps.learn([(1, gap("!whole", False))])
    assert not await case.gaps.any_in("!whole")
    assert len(asked) == 2
    case.gaps.learn([(2, gap("!whole", True))])
    await case.gaps.any_in("!whole")
    assert len(asked) == 3
    while await case.fetch():
        pass
    assert not await case.gaps.any_in(case.resident.room_id)


@pytest_twisted.ensureDeferred
async def test_events_of_the_past_may_refer_to_more_than_new_ones() -> None:
    case = Case(messages=0)
    resident = case.resident
    root = resident.ends[0]
    for number in range(MAX_PREV_EVENTS + 5):
        resident.ends = [root]
        resident.say(resident.creator, f"branch {number}")
    branches = [event_id for event_id, event in resident.events.items() if event.prev_event_ids == (root,)]
    resident.ends = branches[:1]
    many = {**resident.made(resident.creator, "m.room.message", {"body": "joins them"}).raw, "prev_events": branches}
    where = resident.version
    joins = resident.add(seal(many, where, "there.test", key_of("there.test")))
    last = resident.say(resident.creator, "last")
    case.here = {last.event_id: last}
    assert await case.fetch()
    assert joins.event_id in case.here
