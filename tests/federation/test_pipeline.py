"""Events on their way into a room: what becomes of each, whatever else comes with it, and whatever is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from synapse.api.errors import MatrixError
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.event import Event
from synapse.federation.receiving import ancestors, gap_queues, gates, judging, work
from synapse.storage.errors import DatabaseUnavailable
from synapse.storage.persist_events import Kind, Received
from tests.federation.memory_room import Answer, MemoryRoom
from tests.federation.peers import Peer
from tests.support.deferreds import started

EVE, OTHER = Peer("evil.test"), Peer("other.test")
VERSIONS = list(ROOM_VERSIONS)


async def send(room: MemoryRoom, *events: Event, origin: str = EVE.name) -> dict[str, str | None]:
    return await room.pipeline().receive(origin, room.room_id, room.version, events)


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_events_that_follow_each_other_are_written_together(version: str) -> None:
    room = MemoryRoom(version, EVE)
    events = room.chain(5, EVE.user())
    results = await send(room, *reversed(events))
    assert results == dict.fromkeys((event.event_id for event in events), None)
    assert len(room.writes) == 1
    assert [each.event for each in room.writes[0].events] == events
    assert not room.elsewhere.asked
    assert room.told == [event.event_id for event in events]
    assert list(room.extremities) == [events[-1].event_id]


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_what_its_auth_events_do_not_allow_is_written_as_rejected(version: str) -> None:
    room = MemoryRoom(version, EVE)
    event = room.make("m.room.name", {"name": "Eve's"}, "", sender=EVE.user())
    after = room.make(sender=EVE.user(), prev=[event.event_id])
    before = dict(room.present)
    assert await send(room, event, after) == {event.event_id: None, after.event_id: None}
    first, second = room.writes[0].events
    assert first.rejected is not None
    assert not first.push
    assert second.rejected is None
    assert room.present == before


@pytest_twisted.ensureDeferred
async def test_what_comes_from_nowhere_or_elsewhere_is_not_kept() -> None:
    room, other = MemoryRoom("10", EVE), MemoryRoom("10", EVE)
    room.put(foreign := other.make(sender=EVE.user()), outlier=True)
    assert foreign.room_id == room.room_id  # of the same name in both; so a room of another name is made
    elsewhere = EVE.event(room.version, "!else:here.test")
    room.put(elsewhere, outlier=True)
    cases = [
        room.make(sender=EVE.user(), prev=[]),
        room.make("m.room.create", {"creator": EVE.user()}, "", sender=EVE.user(), prev=[]),
        room.make("m.room.create", {"creator": EVE.user()}, "", sender=EVE.user()),
        room.make(sender=EVE.user(), prev=[elsewhere.event_id]),
    ]
    good = room.make(sender=EVE.user())
    results = await send(room, *cases, good)
    assert [results[event.event_id] is None for event in [*cases, good]] == [False, False, False, False, True]
    assert [each.event for each in room.writes[0].events] == [good]


@pytest_twisted.ensureDeferred
async def test_auth_events_of_another_room_reject() -> None:
    room = MemoryRoom("10", EVE)
    elsewhere = EVE.event(
        room.version,
        "!else:here.test",
        type="m.room.member",
        state_key=EVE.user(),
        content={"membership": "join"},
    )
    room.put(elsewhere, outlier=True)
    auth_events = [i for key, i in room.present.items() if key[0] in ("m.room.create", "m.room.power_levels")]
    event = room.make(sender=EVE.user(), auth_events=[*auth_events, elsewhere.event_id])
    await send(room, event)
    assert "another room" in (room.writes[0].events[0].rejected or "")


@pytest_twisted.ensureDeferred
async def test_a_known_event_costs_nothing_and_an_outlier_is_no_place() -> None:
    room = MemoryRoom("11", EVE)
    known, event = room.chain(2, EVE.user())
    room.put(known)
    assert await send(room, known) == {known.event_id: None}
    assert not room.writes
    outlier = room.make(sender=EVE.user(), prev=[known.event_id], content={"body": "aside"})
    room.put(outlier, outlier=True)
    assert await send(room, outlier, event) == {outlier.event_id: None, event.event_id: None}
    assert {each.event for each in room.writes[0].events} == {outlier, event}


@pytest_twisted.ensureDeferred
async def test_of_events_that_memory_lacks_state_is_asked_for_and_messages_are_the_writers() -> None:
    room = MemoryRoom("11", EVE)
    message = room.make(sender=EVE.user())
    room.put(message)
    topic = room.make("m.room.topic", {"topic": "x"}, "", sender="@alice:here.test")
    room.put(topic, rejected="not allowed")
    room.forgotten = {message.event_id, topic.event_id}
    assert await send(room, topic) == {topic.event_id: None}
    assert not room.writes
    assert await send(room, message) == {message.event_id: None}
    assert [each.event for each in room.writes[0].events] == [message]


@pytest_twisted.ensureDeferred
async def test_what_a_policy_server_objects_to_is_soft_failed() -> None:
    room = MemoryRoom("12", EVE)
    alice = room.home.user("alice")
    room.put(room.make("m.room.policy", {"via": "policy.test"}, "", sender=alice))
    bad, good = room.make(sender=EVE.user()), room.make(sender=EVE.user(), content={"body": "good"})
    room.objections[bad.event_id] = "Spam."
    assert await send(room, bad, good) == {bad.event_id: None, good.event_id: None}
    assert [(each.soft_failed, bool(each.push)) for each in room.writes[0].events] == [("Spam.", False), (None, True)]


@pytest_twisted.ensureDeferred
async def test_an_event_that_cannot_be_looked_at_does_not_spoil_the_others() -> None:
    room = MemoryRoom("11", EVE)
    bad, good = room.make(sender=EVE.user()), room.make(sender=EVE.user(), content={"body": "good"})

    async def audience(event: Event, state: Any) -> Any:
        if event == bad:
            raise ValueError("a bug")
        return "main", ()

    room.audience = audience  # type: ignore[method-assign]
    results = await send(room, bad, good)
    assert (results[bad.event_id] is None, results[good.event_id]) == (False, None)
    assert [each.event for each in room.writes[0].events] == [good]


@pytest_twisted.ensureDeferred
async def test_what_this_server_cannot_do_just_now_is_raised() -> None:
    room = MemoryRoom("11", EVE)

    async def write(received: Received) -> Any:
        raise DatabaseUnavailable("Away.")

    room.write = write  # type: ignore[method-assign]
    with pytest.raises(DatabaseUnavailable):
        await send(room, room.make(sender=EVE.user()))


# -- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_missing_predecessors_are_fetched_in_rounds(version: str) -> None:
    room = MemoryRoom(version, EVE)
    events = room.chain(30, EVE.user())
    by_id = {event.event_id: event for event in events}

    def before(latest: Sequence[str]) -> Sequence[Any]:
        end = min(events.index(by_id[event_id]) for event_id in latest)
        return [event.raw for event in events[max(0, end - 10) : end]]

    room.elsewhere.before = before
    assert await send(room, events[-1]) == {events[-1].event_id: None}
    assert [each.event for written in room.writes for each in written.events] == events
    assert room.elsewhere.count("missing") == 3
    assert room.elsewhere.count("state_ids") == 0


@pytest_twisted.ensureDeferred
async def test_an_event_without_its_predecessors_is_not_kept() -> None:
    room = MemoryRoom("11", EVE)
    missing, event = room.chain(2, EVE.user())
    assert (await send(room, event))[event.event_id] is not None
    assert room.elsewhere.asked == [("missing", EVE.name, event.event_id)]
    assert not room.writes
    room.elsewhere.before = lambda latest: [missing.raw]
    assert await send(room, event) == {event.event_id: None}


@pytest_twisted.ensureDeferred
async def test_what_does_not_lead_to_the_event_is_not_stored() -> None:
    room = MemoryRoom("11", EVE)
    missing, event = room.chain(2, EVE.user())
    unrelated = room.chain(20, EVE.user("mallory"))
    room.elsewhere.before = lambda latest: [*[each.raw for each in unrelated], missing.raw]
    await send(room, event)
    assert [each.event for each in room.writes[0].events] == [missing, event]


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_a_gap_is_bridged_by_the_state_before_it(version: str) -> None:
    room = MemoryRoom(version, EVE, OTHER)
    alice = room.home.user("alice")
    rules = room.make("m.room.join_rules", {"join_rule": "invite"}, "", sender=alice, prev=["$gone:here.test"])
    gap, oldest, event = room.chain(3, EVE.user(), start=[rules.event_id])
    topic = room.make("m.room.member", {"membership": "join", "displayname": "O"}, OTHER.user(), sender=OTHER.user())
    state = {**room.present, topic.key: topic.event_id, rules.key: rules.event_id}
    room.elsewhere.give(topic, rules, gap)
    room.elsewhere.before = lambda latest: [oldest.raw]
    room.elsewhere.state_ids_at = lambda at: Answer(pdu_ids=list(state.values()), auth_chain_ids=[])
    assert await send(room, event) == {event.event_id: None}
    assert ("state_ids", EVE.name, gap.event_id) in room.elsewhere.asked
    found = [each for written in room.writes for each in written.events]
    assert [each.event for each in found] == [oldest, event]
    assert found[0].state_before == state
    outliers = [each.event for written in room.writes for each in written.outliers]
    assert set(outliers) == {topic, rules}


@pytest_twisted.ensureDeferred
async def test_a_made_up_power_level_is_no_part_of_the_state() -> None:
    room = MemoryRoom("10", EVE)
    levels = room.make("m.room.power_levels", {"users": {EVE.user(): 100}}, "", sender=EVE.user())
    gap, oldest, event = room.chain(3, EVE.user())
    present = room.present
    state = [i for key, i in present.items() if key[0] in ("m.room.create", "m.room.member")]
    room.elsewhere.give(levels, gap)
    room.elsewhere.before = lambda latest: [oldest.raw]
    room.elsewhere.state_ids_at = lambda at: Answer(pdu_ids=[*state, levels.event_id])
    await send(room, event)
    first = next(each for written in room.writes for each in written.events)
    assert ("m.room.power_levels", "") not in (first.state_before or {})
    assert room.stored[levels.event_id].rejected is not None


@pytest_twisted.ensureDeferred
async def test_a_large_state_is_fetched_whole_and_another_rooms_is_not() -> None:
    room = MemoryRoom("10", EVE)
    members = [
        room.make("m.room.member", {"membership": "join"}, EVE.user(f"u{n}"), sender=EVE.user(f"u{n}"))
        for n in range(ancestors.SINGLY + 5)
    ]
    foreign = EVE.event(room.version, "!else:here.test", type="m.room.name", state_key="", content={"name": "x"})
    gap, oldest, event = room.chain(3, EVE.user())
    room.elsewhere.give(*members, foreign, gap)
    room.elsewhere.before = lambda latest: [oldest.raw]
    ids = [*room.present.values(), *[each.event_id for each in members], foreign.event_id]
    room.elsewhere.state_ids_at = lambda at: Answer(pdu_ids=ids)
    await send(room, event)
    assert room.elsewhere.count("state") == 1
    assert room.elsewhere.count("event") == 1  # the gap
    assert foreign.event_id not in room.stored
    first = next(each for written in room.writes for each in written.events)
    assert len(first.state_before or {}) == len(room.present)


@pytest_twisted.ensureDeferred
async def test_missing_auth_events_are_fetched_with_what_they_cite() -> None:
    room = MemoryRoom("11", EVE)
    join = room.make("m.room.member", {"membership": "join"}, EVE.user("new"), sender=EVE.user("new"))
    renamed = room.make(
        "m.room.member",
        {"membership": "join", "displayname": "N"},
        EVE.user("new"),
        sender=EVE.user("new"),
        auth_events=[*[i for k, i in room.present.items() if k[0] != "m.room.member"], join.event_id],
    )
    auth_events = [i for k, i in room.present.items() if k[0] in ("m.room.create", "m.room.power_levels")]
    event = room.make(sender=EVE.user("new"), auth_events=[*auth_events, renamed.event_id])
    unrelated = room.make(sender=EVE.user(), content={"body": "x"})
    assert "cannot get" in ((await send(room, event))[event.event_id] or "")
    room.elsewhere.auth_chain_of = lambda event_id: [renamed.raw, join.raw, unrelated.raw]
    assert await send(room, event) == {event.event_id: None}
    assert [each.event for each in room.writes[0].outliers] == [join, renamed]
    assert room.writes[-1].events[0].rejected is None


# -- a server that would have this one work without end --------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_endless_history_is_not_fetched() -> None:
    room = MemoryRoom("11", EVE)
    heads = endless(room, 400)
    event = room.make(sender=EVE.user(), prev=[heads[-1].event_id])
    room.elsewhere.before = lambda latest: [
        each.raw for each in heads[max(0, place(heads, latest) - 20) : place(heads, latest)]
    ]
    results = await send(room, event)
    assert results[event.event_id] is not None
    assert room.elsewhere.count("missing") <= ancestors.ROUNDS
    assert len(room.elsewhere.asked) <= work.REQUESTS
    assert not [each for written in room.writes for each in written.events]


def endless(room: MemoryRoom, length: int) -> list[Event]:
    return room.chain(length, EVE.user(), start=["$never:here.test"])


def place(events: list[Event], latest: Sequence[str]) -> int:
    ids = [event.event_id for event in events]
    return min((ids.index(i) for i in latest if i in ids), default=len(events))


@pytest_twisted.ensureDeferred
async def test_requests_for_one_batch_are_bounded() -> None:
    room = MemoryRoom("11", EVE)
    events = [room.make(sender=EVE.user(), prev=[f"$never{n}"], content={"n": n}) for n in range(200)]
    results = await send(room, *events)
    assert None not in results.values()
    assert len(room.elsewhere.asked) <= work.REQUESTS
    assert not room.writes


@pytest_twisted.ensureDeferred
async def test_fetching_ends_when_its_time_is_up() -> None:
    room = MemoryRoom("11", EVE)
    events = [room.make(sender=EVE.user(), prev=[f"$never{n}"], content={"n": n}) for n in range(10)]

    def before(latest: Sequence[str]) -> Sequence[Any]:
        room.clock.advance(work.SECONDS / 2)
        return []

    room.elsewhere.before = before
    results = await send(room, *events)
    assert None not in results.values()
    assert len(room.elsewhere.asked) == 2


@pytest_twisted.ensureDeferred
async def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    room = MemoryRoom("11", EVE)
    event = room.make(sender=EVE.user(), prev=["$never"])

    async def never(*args: Any, **more: Any) -> Any:
        await Deferred()

    room.elsewhere.missing_events = never  # type: ignore[method-assign]
    result = started(send(room, event))
    room.clock.advance(work.SECONDS)
    assert "too long" in ((await result)[event.event_id] or "")


@pytest_twisted.ensureDeferred
async def test_whole_states_are_fetched_so_often_and_no_more() -> None:
    room = MemoryRoom("11", EVE)
    way = room.pipeline()
    auth_events = list(room.present.values())[:2]
    events = [room.make(sender=EVE.user(), auth_events=[*auth_events, f"$never{n}"]) for n in range(30)]
    await way.receive(EVE.name, room.room_id, room.version, events)
    assert room.elsewhere.count("event_auth") == gates.WHOLE.burst_count


@pytest_twisted.ensureDeferred
async def test_a_state_without_end_is_not_looked_at() -> None:
    room = MemoryRoom("11", EVE)
    gap, oldest, event = room.chain(3, EVE.user())
    room.elsewhere.before = lambda latest: [oldest.raw]
    ids = [f"${n}" for n in range(ancestors.MAX_STATE + 1)]
    room.elsewhere.state_ids_at = lambda at: Answer(pdu_ids=ids)
    assert (await send(room, event))[event.event_id] is not None
    room.elsewhere.state_ids_at = lambda at: Answer(pdu_ids=ids[: ancestors.SINGLY])  # which it does not have
    assert (await send(room, event))[event.event_id] is not None
    assert not [each for written in room.writes for each in written.events]
    assert gap.event_id not in room.stored


@pytest_twisted.ensureDeferred
async def test_what_lacks_something_waits_for_its_turn_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    room = MemoryRoom("11", EVE, OTHER)
    way = room.pipeline()
    missing, late = room.chain(2, EVE.user())
    after = room.make(sender=OTHER.user(), prev=[late.event_id])
    good = room.make(sender=OTHER.user())
    answer: Deferred[None] = Deferred()
    missing_events = room.elsewhere.missing_events

    async def slow(*args: Any, **more: Any) -> Any:
        await answer
        return await missing_events(*args, **more)

    room.elsewhere.missing_events = slow  # type: ignore[method-assign]
    room.elsewhere.before = lambda latest: [missing.raw] if late.event_id in latest else []
    first = started(way.receive(EVE.name, room.room_id, room.version, [late]))
    second = started(way.receive(OTHER.name, room.room_id, room.version, [after]))
    assert await way.receive(OTHER.name, room.room_id, room.version, [good]) == {good.event_id: None}
    assert not first.called
    monkeypatch.setattr(gap_queues, "MAX_WAITING", 2)
    third = room.make(sender=OTHER.user(), prev=["$never"])
    assert "wait" in ((await way.receive(OTHER.name, room.room_id, room.version, [third]))[third.event_id] or "")
    answer.callback(None)
    assert await first == {late.event_id: None}
    assert await second == {after.event_id: None}
    assert [each.event for written in room.writes for each in written.events] == [good, missing, late, after]
    assert room.elsewhere.count("missing") == 1  # the second found that nothing was missing any more


@pytest_twisted.ensureDeferred
async def test_a_server_with_gaps_that_nothing_fills_does_not_hold_others_up() -> None:
    room = MemoryRoom("11", EVE, OTHER)
    way = room.pipeline()
    stray = room.make(sender=EVE.user(), prev=["$never"])
    await way.receive(EVE.name, room.room_id, room.version, [stray])
    never: Deferred[None] = Deferred()
    missing, late = room.chain(2, OTHER.user())
    missing_events = room.elsewhere.missing_events

    async def slow(destination: str, *args: Any, **more: Any) -> Any:
        if destination == EVE.name:
            await never
        return await missing_events(destination, *args, **more)

    room.elsewhere.missing_events = slow  # type: ignore[method-assign]
    room.elsewhere.before = lambda latest: [missing.raw] if late.event_id in latest else []
    hanging = started(way.receive(EVE.name, room.room_id, room.version, [stray]))
    assert await way.receive(OTHER.name, room.room_id, room.version, [late]) == {late.event_id: None}
    assert not hanging.called
    never.callback(None)
    await hanging


# -- what is asked for -----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_event_that_is_asked_for_is_written_or_refused() -> None:
    room = MemoryRoom("10", EVE)
    way = room.pipeline()
    join = room.make("m.room.member", {"membership": "join"}, EVE.user("new"), sender=EVE.user("new"))
    done = await way.accept(EVE.name, join, relay=True)
    assert done.event_id == join.event_id
    assert room.writes[0].events[0].relay is True
    assert await way.accept(EVE.name, join) == done
    assert len(room.writes) == 1
    kick = room.make("m.room.member", {"membership": "ban"}, room.home.user("alice"), sender=EVE.user())
    stray = room.make(sender=EVE.user(), prev=["$never"])
    second = room.make("m.room.create", {}, "", sender=EVE.user(), prev=[])
    unknown = room.make(sender=EVE.user(), auth_events=["$never"])
    for event, code in ((kick, 403), (stray, 400), (second, 400), (unknown, 400)):
        with pytest.raises(MatrixError) as caught:
            await way.accept(EVE.name, event)
        assert caught.value.code == code
    assert len(room.writes) == 1
    assert not room.elsewhere.asked


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_history_comes_with_the_state_where_it_ends(version: str) -> None:
    room = MemoryRoom(version, EVE)
    oldest, middle, newest = events = room.chain(3, EVE.user(), start=["$gone:here.test"])
    room.elsewhere.state_ids_at = lambda at: Answer(pdu_ids=list(room.present.values()))
    results = await room.pipeline().history(EVE.name, room.room_id, room.version, [newest, middle, oldest])
    assert results == dict.fromkeys((event.event_id for event in events), None)
    written = room.writes[-1]
    assert written.kind is Kind.HISTORY
    assert [(each.event, each.state_before is not None) for each in written.events] == [
        (oldest, True),
        (middle, False),
        (newest, False),
    ]
    assert room.elsewhere.asked == [("state_ids", EVE.name, oldest.event_id)]
    assert not room.told


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_a_set_of_events_is_judged_by_itself(version: str) -> None:
    room = MemoryRoom(version, EVE)
    state = [each.event for each in room.stored.values()]
    bad = room.make("m.room.name", {"name": "Eve's"}, "", sender=EVE.user())
    citing = room.make("m.room.name", {"name": "x"}, "", sender=room.home.user("alice"), auth_events=["$never"])
    found = await room.pipeline().auth_checked([bad, citing, *reversed(state)], room.version)
    assert {event.event_id: reason is None for event, reason in found} == {
        **{event.event_id: True for event in state},
        bad.event_id: False,
    }
    seen: set[str] = set()
    for event, _reason in found:
        assert seen.issuperset(event.auth_event_ids)
        seen.add(event.event_id)


@pytest_twisted.ensureDeferred
async def test_others_have_their_turns_while_many_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    room = MemoryRoom("11", EVE)
    state = [each.event for each in room.stored.values()]
    monkeypatch.setattr(judging, "AT_ONCE", 2)
    judged = started(room.pipeline().auth_checked(state, room.version))
    assert not judged.called
    room.clock.advance(0)
    assert len(await judged) == len(state)
