"""Rows of the events stream in memory: what they bring, what they take away, and how far back memory reaches."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.replication.event_rows import EventRow, StateRow
from synapse.replication.notifier import Notifier
from synapse.replication.streams import ReceiptRow
from synapse.storage.past_state import Delta
from synapse.storage.timeline import TimelineRow
from synapse.sync.changes import Changes
from synapse.sync.feed import SyncFeed, timeline_row
from synapse.sync.present import StreamPresent
from synapse.sync.recent import RecentEvents
from synapse.sync.tokens import StreamToken
from synapse.sync.typing import TypingRooms
from synapse.util.caches import Cache

ROOM = "!room:test"


class Holder:
    """Something with the cache that the feed invalidates."""

    def __init__(self, name: str) -> None:
        self.cache: Cache[Any, Any] = Cache(name, 10)
        self.histories = self.cache


def event(position: int, json: str = "{}", **values: Any) -> tuple[int, EventRow]:
    fields: dict[str, Any] = {
        "room_id": ROOM,
        "event_id": f"${position}",
        "depth": position,
        "type": "m.room.message",
        "state_key": None,
        "sender": "@a:test",
        "origin_server_ts": 17,
        "prev_event_ids": (),
        "state_group": 1,
        "contains_url": True,
        "redacts": None,
        "json": json,
    }
    return position, EventRow(**{**fields, **values})


def row(position: int, room_id: str = ROOM) -> TimelineRow:
    return TimelineRow(position, room_id, f"${position}", position, "t", None, "@a:test", 1, 1, None, False, "{}")


@pytest.fixture
def feed() -> tuple[SyncFeed, RecentEvents, Holder, Holder]:
    recent = RecentEvents()
    members, others = Holder("members"), Holder("others")
    made = SyncFeed(recent, Changes(), TypingRooms(), members, others, others, others.cache)  # type: ignore[arg-type]
    made.start_events(0)
    return made, recent, members, others


def test_an_event_row_becomes_a_timeline_row() -> None:
    made = timeline_row(*event(3))
    assert (made.stream, made.origin_server_ts, made.contains_url, made.redacted_by) == (3, 17, True, None)


def test_a_redaction_spoils_what_is_kept_of_its_target(feed: Any) -> None:
    made, recent, _, _ = feed
    made.events(3, [event(1), event(2), event(3, redacts="$1")])
    assert [bool(kept.json) for kept in recent.rows(ROOM, 0, 9)] == [False, True, True]


def test_memberships_and_visibility_are_forgotten_when_they_change(feed: Any) -> None:
    made, _, members, others = feed
    members.cache.set("@b:test", 1)
    made.events(1, [(1, StateRow(ROOM, "m.room.member", "@b:test", "$1", None))])
    assert "@b:test" not in members.cache
    members.cache.set("@b:test", 1)
    made.events(2, [event(2, type="m.room.member", state_key="@b:test")])
    assert "@b:test" not in members.cache
    others.cache.set(ROOM, 1)
    made.events(3, [(3, StateRow(ROOM, "m.room.history_visibility", "", "$1", None))])
    assert ROOM not in others.cache


def test_it_follows_the_streams_of_a_notifier() -> None:
    notifier = Notifier(Clock())
    notifier.start("receipts", 5)
    changes, typing, recent = Changes(), TypingRooms(), RecentEvents()
    members, others = Holder("members"), Holder("others")
    feed = SyncFeed(recent, changes, typing, members, others, others, others.cache)  # type: ignore[arg-type]
    feed.follow(notifier)
    assert list(changes.receipts([ROOM], 5)) == []
    assert list(changes.receipts([ROOM], 4)) == [ROOM]  # before it began to listen
    others.cache.set("@b:test", 1)
    notifier.on_advance("receipts", 6, [(6, ReceiptRow(ROOM, "@b:test"))])
    notifier.on_advance("account_data", 1, [(1, "@b:test")])
    notifier.on_advance("typing", 9, [(9, (ROOM, ["@b:test"]))])
    notifier.on_advance("events", 3, [event(3)])
    assert list(changes.receipts([ROOM, "!other"], 5)) == [ROOM]
    assert changes.account_data("@b:test", 0)
    assert not changes.account_data("@c:test", 0)
    assert "@b:test" not in others.cache
    assert typing.users(ROOM) == ("@b:test",)
    assert recent.changed_rooms(0) == [ROOM]
    present = StreamPresent(notifier, is_exact=True)
    assert present.token() == StreamToken(events=3, typing=9, receipts=6, account_data=1)
    notifier.start("events", 7)  # a gap
    assert recent.changed_rooms(6) is None
    assert recent.changed_rooms(7) == []


@pytest.mark.parametrize("is_main", [True, False])
def test_only_workers_wait_for_tokens_from_the_future(is_main: bool) -> None:
    clock = Clock()
    notifier = Notifier(clock)
    present = StreamPresent(notifier, is_exact=is_main)
    asked = Deferred.fromCoroutine(present.recognise(present.token()._replace(events=99), 5.0))
    assert asked.called is is_main
    clock.advance(5.0)
    assert asked.called


def test_recent_events_say_when_they_do_not_know() -> None:
    recent = RecentEvents(size=20)
    assert recent.changed_rooms(0) is None
    recent.start(10)
    assert recent.changed_rooms(10) == []
    assert recent.changed_rooms(9) is None
    for position in range(11, 31):
        recent.add_event(row(position, f"!{position % 2}:test"))
    assert set(recent.changed_rooms(28) or ()) == {"!1:test", "!0:test"}
    assert recent.changed_rooms(29) == ["!0:test"]
    recent.add_event(row(31))
    assert recent.complete_after == 12  # a tenth was forgotten
    assert recent.changed_rooms(11) is None
    assert [kept.stream for kept in recent.rows("!1:test", 12, 20)] == [13, 15, 17, 19]
    assert not recent.has_changed(["!0:test"], 30)
    assert recent.has_changed([ROOM], 30)


def test_positions_are_forgotten_as_a_whole() -> None:
    recent = RecentEvents(size=10)
    recent.start(0)
    for position in range(1, 6):
        recent.add_event(row(position))
        recent.add_delta(Delta(position, ROOM, "t", "", f"${position}", None))
    recent.add_event(row(6))
    assert recent.complete_after == 1
    assert [kept.stream for kept in recent.rows(ROOM, 1, 9)] == [2, 3, 4, 5, 6]
    assert [kept.stream for kept in recent.deltas(ROOM, 1, 3)] == [2, 3]


def test_typing_is_a_snapshot() -> None:
    typing = TypingRooms(size=2)
    typing.record("!a", 5, ["@x:test"])
    typing.record("!b", 6, ["@y:test"])
    assert typing.changed(5) == {"!b"}
    assert typing.users("!a") == ("@x:test",)
    typing.reset(7)
    assert typing.users("!a") == ()
    assert typing.changed(6) == {"!a", "!b"}
    typing.record("!c", 8, [])
    assert typing.changed(0) == {"!b", "!c"}
