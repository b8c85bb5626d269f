"""Events whose transactions were answered before it was known what becomes of them: none is lost, whoever dies."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.events.event import Event
from synapse.federation.errors import BadAnswer, Unreachable
from synapse.federation.receiving import transactions, unfinished
from synapse.federation.receiving.unfinished import TakingUp, Unfinished
from synapse.storage.errors import DatabaseUnavailable
from synapse.storage.pool import PoolSettings
from synapse.storage.unfinished_pdus import FIRST_PAUSE_MS
from tests.federation.memory_room import MemoryRoom
from tests.federation.peers import Peer
from tests.federation.test_transactions import EVE, Way, held, way
from tests.federation.visitor import Visitor, visit
from tests.rest.people import person
from tests.support.deferreds import started
from tests.support.homeserver import TestServer, cluster, homeserver
from tests.support.reactor import HeldReactor, real_reactor

HELD = unfinished.HELD_MS / 1000


def taking_up(into: Way) -> TakingUp:
    """A main process with the same room and table."""
    clock: Any = into.room.clock
    rooms: Any = into
    pdus: Any = into.pdus
    return TakingUp(pdus, rooms, lambda: into.entrance, Unfinished(pdus, clock, into.now), clock, into.now)


def dead(into: Way) -> None:
    """Whoever has worked on events says nothing of them any more."""
    into.unfinished._held.clear()


def slow(into: Way) -> Deferred[None]:
    into.pipeline._write, release = held(into.room)
    return release


async def answered_and_dead(into: Way, *events: Event) -> Deferred[None]:
    """Whoever works on the events dies once they have been answered; what lets the work go on, were they alive."""
    release = slow(into)
    answer = started(into.send(*events))
    into.room.clock.advance(transactions.ANSWER_WITHIN)
    await answer
    dead(into)
    return release


@pytest_twisted.ensureDeferred
async def test_nothing_is_written_down_of_what_is_done_in_time() -> None:
    into = way()
    await into.send(into.room.make(sender=EVE.user()), {**into.room.make(sender=EVE.user()).raw, "depth": "x"})
    assert into.pdus.calls == 0


@pytest_twisted.ensureDeferred
async def test_what_outlasts_the_answer_is_written_down_until_it_is_done() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    release = slow(into)
    answer = started(into.send(event))
    into.room.clock.advance(transactions.ANSWER_WITHIN)
    assert (await answer)[event.event_id].keys() == {"error"}
    assert into.pdus.ids == [event.event_id]
    for _ in range(10):  # as long as somebody works on it, it is left to them
        into.room.clock.advance(unfinished.HOLD_SECONDS)
        await taking_up(into).round()
    assert not into.room.writes
    release.callback(None)
    assert into.written == [event]
    assert into.pdus.ids == []
    into.room.clock.advance(unfinished.HOLD_SECONDS)
    assert into.room.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_what_a_process_worked_on_when_it_died_is_taken_up() -> None:
    into = way()
    events = into.room.chain(3, EVE.user())
    release = await answered_and_dead(into, *events)
    main = taking_up(into)
    into.room.clock.advance(HELD - 1)
    await main.round()
    assert len(into.pdus.ids) == 3
    assert not into.room.writes
    release.callback(None)  # were it alive after all, its late word does no harm
    written = list(into.written)
    into.room.clock.advance(1)
    await main.round()
    assert into.written[: len(written)] == written
    assert {event.event_id for event in into.written} == {event.event_id for event in events}
    assert into.pdus.ids == []


@pytest_twisted.ensureDeferred
async def test_who_takes_up_may_die_too() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    release = await answered_and_dead(into, event)
    into.room.clock.advance(HELD)
    first = taking_up(into)
    under_way = started(first.round())
    first._unfinished._held.clear()
    into.room.clock.advance(HELD - 1)
    await taking_up(into).round()
    assert not into.room.writes
    write = into.room.write
    into.pipeline._write = write
    into.room.clock.advance(1)
    await taking_up(into).round()
    assert into.written == [event]
    assert into.pdus.ids == []
    release.callback(None)
    await under_way


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_fetched_just_now_is_looked_at_again_at_growing_intervals() -> None:
    into = way()
    first, second = into.room.chain(2, EVE.user())
    away = True

    def before(latest: Any) -> list[Any]:
        if away:
            raise Unreachable(EVE.name, "It is away.")
        return [first.raw]

    into.room.elsewhere.before = before
    assert (await into.send(second))[second.event_id].keys() == {"error"}
    assert into.pdus.ids == [second.event_id]
    main = taking_up(into)
    for attempt, pause in enumerate((1, 2, 4), 1):
        into.room.clock.advance(pause * FIRST_PAUSE_MS / 1000 - 1)
        await main.round()
        assert into.pdus.attempts == {(EVE.name, second.event_id): attempt}
        into.room.clock.advance(1)
        await main.round()
        assert into.pdus.attempts == {(EVE.name, second.event_id): attempt + 1}
        assert not into.written
    away = False
    into.room.clock.advance(8 * FIRST_PAUSE_MS / 1000)
    await main.round()
    assert into.written == [first, second]
    assert into.pdus.ids == []


@pytest_twisted.ensureDeferred
async def test_an_event_of_a_server_whose_keys_cannot_be_had_is_looked_at_again() -> None:
    into = Way(MemoryRoom("11", EVE, Peer("new.test")))
    keys = into.checks._keyring.keys
    key = keys.pop("new.test")
    event, wrong = into.room.make(sender="@eve:new.test"), into.room.make(sender=EVE.user())
    forged = {**wrong.raw, "signatures": {EVE.name: {"ed25519:1": "A" * 86}}}
    answer = await into.send(event, forged)
    assert [answer[each.event_id].keys() for each in (event, wrong)] == [{"error"}] * 2
    assert into.pdus.ids == [event.event_id]
    keys["new.test"] = key
    into.room.clock.advance(FIRST_PAUSE_MS / 1000)
    await taking_up(into).round()
    assert into.written == [event]
    assert into.pdus.ids == []


@pytest.mark.parametrize("answers", [lambda latest: [], None])
@pytest_twisted.ensureDeferred
async def test_what_is_final_is_not_looked_at_again(answers: Any) -> None:
    into = way()

    def nonsense(*_: Any) -> Any:
        raise BadAnswer(EVE.name, "Nonsense.")

    into.room.elsewhere.before = answers or nonsense
    into.room.elsewhere.state_ids_at = nonsense
    event = into.room.make(sender=EVE.user(), prev=["$gone"])
    into.kept_out.add("out.test")
    assert (await into.send(event))[event.event_id].keys() == {"error"}
    assert (await into.send(event, origin="out.test"))[event.event_id].keys() == {"error"}
    assert into.pdus.calls == 0


@pytest_twisted.ensureDeferred
async def test_where_nothing_can_be_written_down_nothing_is_acknowledged() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    release = slow(into)
    answer = started(into.send(event))
    into.pdus.problem = DatabaseUnavailable("Away.")
    into.room.clock.advance(transactions.ANSWER_WITHIN)
    with pytest.raises(DatabaseUnavailable):
        await answer
    assert not into.answers
    release.callback(None)
    assert into.written == [event]


@pytest.mark.parametrize("fails", [False, True])
@pytest_twisted.ensureDeferred
async def test_work_that_ends_while_it_is_written_down(fails: bool) -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    release = slow(into)
    answer = started(into.send(event))
    into.pdus.wait = Deferred()
    into.room.clock.advance(transactions.ANSWER_WITHIN)
    if fails:
        release.errback(DatabaseUnavailable("Away."))
    else:
        release.callback(None)
    assert not answer.called
    into.pdus.wait.callback(None)
    into.pdus.wait = None
    await answer
    assert into.pdus.ids == ([event.event_id] if fails else [])
    into.room.clock.advance(HELD)
    into.pipeline._write = into.room.write
    await taking_up(into).round()
    assert into.written == [event]
    assert into.pdus.ids == []


@pytest_twisted.ensureDeferred
async def test_what_is_of_no_use_any_more_is_let_go() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    await answered_and_dead(into, event)
    into.room.clock.advance(HELD)
    into.room.room_id = "!elsewhere:here.test"  # which this server has left
    await taking_up(into).round()
    assert into.pdus.ids == []
    assert not into.written


@pytest_twisted.ensureDeferred
async def test_one_servers_slow_room_does_not_keep_others_waiting() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    release = await answered_and_dead(into, event)
    into.room.clock.advance(HELD)
    main = taking_up(into)
    first = started(main.round())
    into.room.clock.advance(unfinished.ROUND_SECONDS)
    await first
    assert main._busy == {EVE.name: 1}
    other = into.room.make(sender=EVE.user(), content={"n": 2})
    into.pipeline._write = into.room.write
    away = started(into.send(other, origin="other.test"))
    await away
    await main.round()
    release.callback(None)
    assert main._busy == {}
    assert {each.event_id for each in into.written} == {event.event_id, other.event_id}


# -- several processes -------------------------------------------------------------------------------------------------


def clock_of_its_own() -> HeldReactor:
    """For a process that dies: its timers are not heard of again. It begins a while ago."""
    clock = HeldReactor()
    clock.advance(real_reactor().seconds() - 2 * transactions.ANSWER_WITHIN)
    return clock


async def answered_late(eve: Visitor, event: Event, server: TestServer, clock: Clock) -> dict[str, Any]:
    """What a server, whose clock that is, says of an event while it waits for an answer of Eve's."""
    eve.wait, asked, answer = Deferred(), Deferred[None](), eve.answer

    async def asks(*args: Any) -> Any:
        asked.callback(None)
        return await answer(*args)

    eve.answer = asks  # type: ignore[method-assign]
    said = started(eve.send(event, to=server))
    await asked
    clock.advance(transactions.ANSWER_WITHIN)
    eve.answer = answer  # type: ignore[method-assign]
    return await said


async def rows(server: TestServer) -> list[tuple[str, str]]:
    def read(txn: Any) -> list[tuple[str, str]]:
        txn.execute("SELECT origin, event_id FROM unfinished_pdus ORDER BY 1, 2")
        return [(origin, event_id) for origin, event_id in txn.rows()]

    found: list[tuple[str, str]] = await server.hs.database.read("rows", read)
    return found


@pytest.mark.parametrize("another", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_event_outlives_the_reader_that_has_acknowledged_it(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """And is there once, though `another` reader gets to it, by the event that comes after it."""
    monkeypatch.setattr(unfinished, "HELD_MS", 0)
    async with cluster(database_settings, "generic_worker") as processes:
        main, two = processes.main, processes["generic_worker"]
        processes._reactor = mortal = clock_of_its_own()
        one = await processes.add_worker("federation_reader")
        alice = await person(main, "alice")
        room = await alice.room()
        eve = await visit(main, "evil.test", one, two)
        await eve.join(room)
        *events, last = await eve.chain(room, 4)
        eve.before = lambda latest: events[:2]
        answer = await answered_late(eve, events[2], one, mortal)
        assert "looked at later" in answer[events[2].event_id]["error"]
        assert await rows(main) == [("evil.test", events[2].event_id)]
        await processes.workers.pop("federation_reader").stop()
        eve.wait = None
        if another:
            eve.before = lambda latest: events
            assert await eve.send(last, to=two) == {last.event_id: {}}
        await main.hs.receiving.taking_up.round()
        assert await rows(main) == []
        timeline = (await alice.get("/sync"))["rooms"]["join"][room]["timeline"]["events"]
        expected = [event.event_id for event in (*events, last)[: 3 + another]]
        assert [each["event_id"] for each in timeline if each["type"] == "m.room.message"] == expected


@pytest_twisted.ensureDeferred
async def test_an_event_outlives_the_whole_server(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "HELD_MS", 0)
    mortal = clock_of_its_own()
    async with homeserver(database_settings, mortal) as server:
        alice = await person(server, "alice")
        room = await alice.room()
        eve = await visit(server)
        await eve.join(room)
        events = await eve.chain(room, 2)
        await answered_late(eve, events[1], server, mortal)
    async with homeserver(database_settings) as server:
        again = await visit(server, key=eve.key)
        again.before = lambda latest: events[:1]
        await server.hs.receiving.taking_up.round()
        assert await rows(server) == []
        found = await server.hs.rooms.events.get_many([event.event_id for event in events])
        assert len(found) == 2
