"""One at a time per room: within a process, events that change a room's state are built and written one after another,
so that they need not be built again. Between processes the writer of events keeps order; this only saves work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import DeferredLock


class RoomLocks:
    """Locks by room id, which exist while somebody holds or waits for them. First come, first served."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[DeferredLock, int]] = {}

    @asynccontextmanager
    async def held(self, room_id: str) -> AsyncIterator[None]:
        """Waits for the room's lock and holds it within the block."""
        lock, users = self._locks.get(room_id) or (DeferredLock(), 0)
        self._locks[room_id] = (lock, users + 1)
        try:
            await lock.acquire()
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, users = self._locks[room_id]
            if users == 1:
                del self._locks[room_id]
            else:
                self._locks[room_id] = (lock, users - 1)
