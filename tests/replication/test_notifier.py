"""Who is woken by what, in which order, and what waiting costs."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.replication.event_rows import EventRow, StateRow
from synapse.replication.notifier import Notifier
from synapse.replication.streams import ReceiptRow
from synapse.util.concurrency import spawn

ROOMS = frozenset({"!a", "!b"})


def event(room_id: str, kind: str = "m.room.message", state_key: str | None = None) -> EventRow:
    return EventRow(room_id, "$e", 1, kind, state_key, "@s:x", 0, (), None, False, None, "")


def result(waiting: Deferred[bool]) -> bool | None:
    return waiting.result if waiting.called else None  # type: ignore[return-value]  # a bool where it has one


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notifier(clock: Clock) -> Notifier:
    return Notifier(clock)


@pytest.mark.parametrize(
    ("stream", "row", "woken"),
    [
        ("events", event("!a"), True),
        ("events", event("!z"), False),
        ("events", StateRow("!a", "m.room.name", "", "$e", None), True),
        ("events", event("!z", "m.room.member", "@u:x"), True),
        ("events", event("!z", "m.room.member", "@other:x"), False),
        ("typing", ("!b", ["@o:x"]), True),
        ("typing", ("!z", ["@o:x"]), False),
        ("receipts", ReceiptRow("!b", "@o:x"), True),
        ("account_data", "@u:x", True),
        ("account_data", "@other:x", False),
        ("push_rules", "@u:x", True),
        ("to_device", "@u:x", True),
        ("device_lists", "@u:x", True),
        ("presence", "@u:x", True),
        ("caches", ("c", None), False),
    ],
)
def test_only_those_concerned_are_woken(notifier: Notifier, clock: Clock, stream: str, row: Any, woken: bool) -> None:
    waiting = spawn(notifier.wait("@u:x", ROOMS, 30))
    notifier.on_advance(stream, 1, [(1, row)])
    clock.advance(0)
    assert result(waiting) == (True if woken else None)
    clock.advance(30)
    assert result(waiting) == woken
    assert notifier.waiting == 0
    assert not clock.getDelayedCalls()


@ensureDeferred
async def test_contacts_are_woken_by_presence_and_devices(clock: Clock) -> None:
    async def contacts(user_ids: set[str]) -> list[str]:
        return ["!b"] if "@friend:x" in user_ids else []

    notifier = Notifier(clock, contacts)
    waiting = spawn(notifier.wait("@u:x", ROOMS, 30))
    notifier.on_advance("presence", 1, [(1, "@stranger:x")])
    clock.advance(0)
    assert result(waiting) is None
    notifier.on_advance("device_lists", 1, [(1, "@friend:x")])
    clock.advance(0)
    assert await waiting


def test_caches_hear_first_and_the_writer_is_not_held_up(notifier: Notifier, clock: Clock) -> None:
    log: list[str] = []
    notifier.subscribe("receipts", lambda position, rows: log.append(f"cache at {notifier.position('receipts')}"))
    waiting = spawn(notifier.wait("@u:x", ROOMS, 30))
    waiting.addCallback(lambda _: log.append(f"woken at {notifier.position('receipts')}"))
    notifier.on_advance("receipts", 5, [(5, ReceiptRow("!a", "@o:x"))])
    log.append("the writer goes on")
    clock.advance(0)
    assert log == ["cache at 0", "the writer goes on", "woken at 5"]


def test_a_listener_that_fails_keeps_nobody_from_hearing(notifier: Notifier, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []
    notifier.subscribe("receipts", lambda position, rows: 1 // 0)  # type: ignore[arg-type,return-value]  # it fails
    notifier.subscribe("receipts", lambda position, rows: heard.append(position))
    notifier.on_advance("receipts", 5, [])
    assert heard == [5]
    assert "A listener to the stream receipts failed" in caplog.text


def test_many_rows_wake_once(notifier: Notifier, clock: Clock) -> None:
    woken = 0

    async def poll() -> None:
        nonlocal woken
        while await notifier.wait("@u:x", ROOMS, 30):
            woken += 1

    spawn(poll())
    for position in range(100):
        notifier.on_advance("events", position, [(position, event("!a"))])
    clock.advance(0)
    assert woken == 1


def test_two_devices_with_other_rooms_are_both_woken(notifier: Notifier, clock: Clock) -> None:
    first = spawn(notifier.wait("@u:x", frozenset({"!a"}), 30))
    second = spawn(notifier.wait("@u:x", frozenset({"!b"}), 30))
    notifier.wake(rooms=["!a"])
    clock.advance(0)
    assert (result(first), result(second)) == (True, True)


def test_rooms_that_were_left_wake_no_more(notifier: Notifier, clock: Clock) -> None:
    spawn(notifier.wait("@u:x", ROOMS, 1))
    clock.advance(1)
    waiting = spawn(notifier.wait("@u:x", frozenset({"!a"}), 30))
    notifier.wake(rooms=["!b"])
    clock.advance(0)
    assert result(waiting) is None
    assert set(notifier._waiting._by_room) == {"!a"}


def test_who_goes_away_leaves_nothing_behind(notifier: Notifier, clock: Clock) -> None:
    waiting = spawn(notifier.wait("@u:x", ROOMS, 30))
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    assert notifier.waiting == 0
    assert not clock.getDelayedCalls()


def test_interests_are_bounded(notifier: Notifier, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse.replication.notifier.KEPT_INTERESTS", 5)
    for number in range(50):
        spawn(notifier.wait(f"@u{number}:x", frozenset({f"!{number}"}), 1))
        clock.advance(1)
    assert len(notifier._waiting._by_room) <= 6


def test_leaving_answers_everybody(notifier: Notifier, clock: Clock) -> None:
    waiting = [spawn(notifier.wait("@u:x", ROOMS, 30)), spawn(notifier.wait_until("events", 5))]
    notifier.leave()
    assert [result(each) for each in waiting] == [False, False]
    assert result(spawn(notifier.wait("@u:x", ROOMS, 30))) is False
    assert not clock.getDelayedCalls()


def test_one_sees_ones_own_write(notifier: Notifier, clock: Clock) -> None:
    assert result(spawn(notifier.wait_until("events", 0))) is True
    waiting, late = spawn(notifier.wait_until("events", 5, 2)), spawn(notifier.wait_until("events", 9, 2))
    notifier.on_advance("events", 4, [])
    assert result(waiting) is None
    notifier.on_advance("events", 6, [])
    assert result(waiting) is True
    clock.advance(2)
    assert result(late) is False


def test_one_waits_for_the_streams_that_are_listened_to(notifier: Notifier, clock: Clock) -> None:
    for stream in ("events", "caches"):
        notifier.subscribe(stream, lambda position, rows: None)
    notifier.start("caches", 7)
    early, waiting = spawn(notifier.wait_until_started(1)), spawn(notifier.wait_until_started(3))
    clock.advance(2)
    assert result(early) is False
    assert not waiting.called
    notifier.start("events", 0)
    assert result(waiting) is True
    assert result(spawn(notifier.wait_until_started(0))) is True


def test_a_stream_that_starts_anew_tells_so(notifier: Notifier) -> None:
    started: list[int] = []
    notifier.subscribe("caches", lambda position, rows: None, started.append)
    notifier.start("caches", 7)
    assert (started, notifier.position("caches")) == ([7], 7)
    notifier.subscribe("caches", lambda position, rows: None, lambda position: started.append(-position))
    assert started == [7, -7], "who comes later is told where the stream is"


def test_unknown_streams_are_refused(notifier: Notifier) -> None:
    with pytest.raises(ValueError, match="no stream"):
        notifier.subscribe("event", lambda position, rows: None)
