"""The table `unfinished_pdus` in memory, for tests of what works on events; how it is kept in bounds is the real one's
matter."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twisted.internet.defer import Deferred

from synapse.storage.unfinished_pdus import FIRST_PAUSE_MS, UnfinishedPdu


class MemoryPdus:
    """The rows, by origin and event id; `due` and `attempts` likewise. `calls` counts statements."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], UnfinishedPdu] = {}
        self.due: dict[tuple[str, str], int] = {}
        self.attempts: dict[tuple[str, str], int] = {}
        self.calls = 0
        self.problem: Exception | None = None
        self.wait: Deferred[None] | None = None  # what writing a row takes

    @property
    def ids(self) -> list[str]:
        return sorted(event_id for _, event_id in self.rows)

    async def keep(self, pdus: Sequence[UnfinishedPdu], retry_at: Sequence[int], now: int) -> None:
        await self._called()
        for pdu, due in zip(pdus, retry_at, strict=True):
            key = (pdu.origin, pdu.event_id)
            self.rows.setdefault(key, pdu)
            self.attempts.setdefault(key, 1)
            self.due[key] = max(due, self.due.get(key, 0))

    async def hold(self, events: Sequence[tuple[str, str]], retry_at: int) -> None:
        await self._called()
        self.due.update({key: retry_at for key in events if key in self.rows})

    async def settle(self, origin: str, done: Collection[str], again: Collection[str], now: int) -> None:
        await self._called()
        for event_id in done:
            self.rows.pop((origin, event_id), None)
        for event_id in again:
            key = (origin, event_id)
            self.due[key] = now + FIRST_PAUSE_MS * 2 ** (self.attempts[key] - 1)

    async def take(self, now: int, retry_at: int, rooms: int, busy: Collection[str]) -> list[UnfinishedPdu]:
        await self._called()
        found = [key for key in self.rows if self.due[key] <= now and key[0] not in busy]
        for key in found:
            self.attempts[key] += 1
            self.due[key] = retry_at
        return [self.rows[key] for key in found]

    async def forget(self, now: int) -> list[tuple[str, str]]:
        return []

    async def _called(self) -> None:
        self.calls += 1
        if self.wait is not None:
            await self.wait
        if self.problem is not None:
            raise self.problem
