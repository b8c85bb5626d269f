"""Unread counts from memory: what has come is added, what makes them wrong is heard, also while they are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import pytest_twisted
from msgspec.structs import replace

from synapse.replication.event_rows import HIGHLIGHTS, NOTIFIES, EventRow
from synapse.replication.streams import ReceiptRow
from synapse.storage.unread import MAIN, Unread
from synapse.sync.unread import Counted, UnreadCounts
from synapse.util.caches import LruCache

BOB, ROOM = "@bob:x", "!r:x"


class Store:
    """Unread events by position and thread, of one user in one room."""

    def __init__(self) -> None:
        self.unread: dict[int, str] = {}
        self.asked: list[int] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def counts(self, user_id: str, after: Mapping[str, int], until: int) -> list[Unread]:
        if not after:
            return []
        self.asked.append(after[ROOM])
        found: dict[str, list[int]] = {}
        for at, thread in self.unread.items():
            if after[ROOM] < at <= until:
                found.setdefault(thread, []).append(at)
        self.meanwhile()
        return [Unread(ROOM, thread, len(found[thread]), 0, max(found[thread])) for thread in sorted(found)]


class Counting:
    def __init__(self) -> None:
        self.store = Store()
        self.cache: LruCache[tuple[str, str], Counted] = LruCache("unread_counts", 10)
        self.counts = UnreadCounts(self.store, self.cache)  # type: ignore[arg-type]  # as much of a store as is needed

    async def at(self, until: int) -> dict[str, int]:
        found = await self.counts.of(BOB, [ROOM], until)
        return {each.thread_id: each.notifications for each in found[ROOM]}


def event(sender: str, state_key: str | None = None) -> tuple[int, EventRow]:
    return 9, EventRow(ROOM, "$e", 1, "m.room.message", state_key, sender, 0, (), 1, False, None, "")


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest_twisted.ensureDeferred
async def test_only_what_is_new_is_counted(counting: Counting) -> None:
    counting.store.unread = {1: MAIN, 2: MAIN, 3: "$thread"}
    assert await counting.at(3) == {MAIN: 2, "$thread": 1}
    counting.store.unread |= {5: MAIN, 6: "$other"}
    assert await counting.at(6) == {MAIN: 3, "$thread": 1, "$other": 1}
    assert await counting.at(6) == {MAIN: 3, "$thread": 1, "$other": 1}
    assert counting.store.asked == [0, 3, 6]


@pytest_twisted.ensureDeferred
async def test_an_earlier_position_is_counted_by_itself(counting: Counting) -> None:
    counting.store.unread = {1: MAIN, 5: MAIN}
    assert await counting.at(5) == {MAIN: 2}
    assert await counting.at(3) == {MAIN: 1}
    assert await counting.at(5) == {MAIN: 2}
    assert counting.store.asked == [0, 0, 5]


def read(counting: Counting) -> None:
    counting.counts.receipts(7, [(7, ReceiptRow(ROOM, BOB))])


def speak(counting: Counting) -> None:
    counting.counts.events(9, [event(BOB)])


def be_thrown_out(counting: Counting) -> None:
    counting.counts.events(9, [event("@admin:x", BOB)])


@pytest.mark.parametrize("happens", [read, speak, be_thrown_out])
@pytest_twisted.ensureDeferred
async def test_what_was_read_counts_no_more(counting: Counting, happens: Callable[[Counting], None]) -> None:
    counting.store.unread = {1: MAIN, 2: MAIN}
    assert await counting.at(2) == {MAIN: 2}
    counting.store.unread = {}
    happens(counting)
    assert await counting.at(9) == {}


@pytest_twisted.ensureDeferred
async def test_what_is_read_while_it_is_counted_is_not_remembered(counting: Counting) -> None:
    counting.store.unread = {1: MAIN}
    counting.store.meanwhile = lambda: read(counting)
    assert await counting.at(1) == {MAIN: 1}
    counting.store.unread, counting.store.meanwhile = {}, lambda: None
    assert await counting.at(7) == {}


@pytest_twisted.ensureDeferred
async def test_others_change_nothing(counting: Counting) -> None:
    counting.store.unread = {1: MAIN}
    await counting.at(1)
    counting.counts.events(9, [event("@alice:x")])
    counting.counts.receipts(9, [(9, ReceiptRow(ROOM, "@alice:x")), (9, ReceiptRow("!other:x", BOB))])
    assert await counting.at(9) == {MAIN: 1}
    assert counting.store.asked == [0, 1]


def told(position: int, *users: tuple[str, int], thread: str = MAIN, known: bool = True) -> tuple[int, EventRow]:
    """An event of somebody else that the stream brings, for whom it counts."""
    unread = users if known else None
    row = EventRow(ROOM, f"${position}", 1, "m.room.message", None, "@a:x", 0, (), 1, False, None, "", None, unread)
    return position, replace(row, thread_id=thread)


@pytest_twisted.ensureDeferred
async def test_what_the_stream_tells_is_counted_without_asking(counting: Counting) -> None:
    counting.counts.start(0)
    counting.store.unread = {1: MAIN}
    assert await counting.at(1) == {MAIN: 1}
    counting.counts.events(3, [told(2, (BOB, NOTIFIES)), told(3, (BOB, NOTIFIES), thread="$t"), told(4, ("@c:x", 3))])
    assert await counting.at(2) == {MAIN: 2}
    assert await counting.at(4) == {MAIN: 2, "$t": 1}
    assert counting.store.asked == [0]
    found = (await counting.counts.of(BOB, [ROOM], 4))[ROOM]
    assert {each.thread_id: each.last for each in found} == {MAIN: 2, "$t": 3}
    # An event of which the stream does not say it is asked for, with all that came after it.
    counting.store.unread |= {2: MAIN, 3: "$t", 5: MAIN, 6: MAIN}
    counting.counts.events(6, [told(5, known=False), told(6, (BOB, NOTIFIES))])
    assert await counting.at(6) == {MAIN: 4, "$t": 1}
    assert counting.store.asked == [0, 4]


@pytest_twisted.ensureDeferred
async def test_what_the_stream_told_before_one_has_read_does_not_count(counting: Counting) -> None:
    counting.counts.start(0)
    counting.store.unread = {1: MAIN}
    assert await counting.at(1) == {MAIN: 1}
    counting.counts.events(2, [told(2, (BOB, NOTIFIES))])
    counting.store.unread = {}
    counting.counts.receipts(1, [(1, ReceiptRow(ROOM, BOB))])
    assert await counting.at(2) == {}
    counting.counts.events(3, [told(3, (BOB, NOTIFIES | HIGHLIGHTS))])
    assert await counting.at(3) == {MAIN: 1}
    counting.counts.start(3)  # the stream begins anew: what came before is not in memory
    counting.store.unread = {3: MAIN}
    assert await counting.at(3) == {MAIN: 1}
    assert counting.store.asked == [0, 0, 0]


@pytest_twisted.ensureDeferred
async def test_memory_of_the_stream_is_bounded(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse.sync.unread._NEWS", 3)
    counting = Counting()
    counting.counts.start(0)
    counting.store.unread = {1: MAIN}
    assert await counting.at(1) == {MAIN: 1}
    counting.counts.events(5, [told(position, (BOB, NOTIFIES)) for position in range(2, 6)])
    counting.store.unread |= dict.fromkeys(range(2, 6), MAIN)
    assert await counting.at(5) == {MAIN: 5}
    assert counting.store.asked == [0, 1]
