"""What is remembered of events, and of rooms' ends, while the database is being asked for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest
from twisted.internet.defer import Deferred

from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.event import Event
from synapse.state.heads import RoomHeads
from synapse.storage.events import EventsStore, StoredEvent
from synapse.storage.extremities import Extremity, HeadRow
from synapse.util.caches import LruCache
from tests.support.deferreds import started


class Answers:
    """In the place of the database: whatever is read waits for the test."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Any]] = []

    async def read(self, _name: str, _fn: Any, *_args: Any) -> Any:
        self.asked.append(Deferred())
        return await self.asked[-1]

    async def head(self, room_id: str) -> Any:
        return await self.read("head", None, room_id)


def stored(redacted_by: str | None = None) -> StoredEvent:
    raw = {"type": "m.room.message", "room_id": "!r:test", "sender": "@a:test", "content": {"body": "secret"}}
    rest = {"auth_events": [], "prev_events": [], "depth": 1, "hashes": {}, "signatures": {}, "origin_server_ts": 1}
    event = Event.from_json(orjson.dumps({**raw, **rest}), ROOM_VERSIONS["10"], event_id="$e")
    return StoredEvent(event, 1, 1, redacted_by=redacted_by)


def learn_redaction(store: EventsStore) -> None:
    store.learn_redaction("$e", "$redaction")


@pytest.mark.parametrize("is_remembered", [False, True])
@pytest.mark.parametrize("happens", [learn_redaction, EventsStore.forget_all])
def test_what_was_read_before_a_redaction_is_not_remembered(
    is_remembered: bool, happens: Callable[[EventsStore], None]
) -> None:
    database = Answers()
    store = EventsStore(cast(Any, database), LruCache("events", 10))
    reading = started(store.guarded(database.read("some", None), iter))
    if is_remembered:
        store.learn(stored())
    happens(store)
    database.asked.pop().callback([stored()])
    assert reading.called
    asking = started(store.get("$e"))
    if database.asked:
        database.asked.pop().callback([stored("$redaction")])
    found = cast(StoredEvent, asking.result)
    assert found.redacted_by == "$redaction"
    assert found.shown.content == {}


def row(event_id: str, position: int) -> HeadRow:
    return HeadRow("!r:test", "10", {event_id: Extremity(position, 1)}, 1, 1, position, position, 1)


def test_a_rooms_end_that_was_read_before_rows_were_missed_is_read_again() -> None:
    database = Answers()
    heads = RoomHeads(cast(Any, database), LruCache("heads", 10))
    asking = started(heads.get("!r:test"))
    heads.forget_all()
    database.asked.pop().callback(row("$old", 1))
    assert not asking.called
    database.asked.pop().callback(row("$new", 2))
    assert list(cast(Any, asking.result).extremities) == ["$new"]
