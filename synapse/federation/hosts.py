"""`RoomHosts`: which servers are in a room, known without asking the database.

The servers of a room are read once and then kept true by the events stream (`learn`). In a worker, what is remembered
may lag behind the main process for the moment that a row takes to arrive; `is_joined` asks the database before it says
no.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.identifiers import domain_of
from synapse.replication.event_rows import Row, StateRow, is_beginning, is_entry
from synapse.storage.room_hosts import HostCounts

if TYPE_CHECKING:
    from synapse.storage.room_hosts import Departure, RoomHostsStore
    from synapse.util.caches import Cache

ROOMS: Final = 5_000


class RoomHosts:
    """Answers in any process.

    :param rooms: counts by room id.
    """

    def __init__(self, store: RoomHostsStore, rooms: Cache[str, HostCounts]) -> None:
        self._store = store
        self._rooms = rooms

    async def joined(self, room_id: str) -> Mapping[str, int]:
        """The servers that are in a room, this one too, each with how many joined members it has.

        What is returned never changes. No statement when warm, else one.
        """
        return (await self.joined_many([room_id])).get(room_id, {})

    async def joined_many(self, room_ids: Collection[str]) -> dict[str, Mapping[str, int]]:
        """The same of many rooms; one statement for all that are not known."""
        found = await self._rooms.fetch_many(room_ids, self._load)
        return {room_id: room.counts for room_id, room in found.items()}

    async def is_joined(self, server_name: str, room_id: str) -> bool:
        """Whether a server is in the room. No statement where it is known to be; one before the answer is no."""
        if server_name in await self.joined(room_id):
            return True
        return await self._store.is_joined(server_name, room_id)

    async def departure(self, server_name: str, room_id: str) -> Departure | None:
        """How a server that is not in the room left it; None where it never was in it. One statement."""
        return await self._store.departure(server_name, room_id)

    async def _load(self, room_ids: list[str]) -> dict[str, HostCounts]:
        return await self._store.joined(room_ids)

    # -- fed by the events stream ----------------------------------------------------------------------------------

    def learn(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Rows of the events stream with their positions, as they come."""
        for position, row in rows:
            if isinstance(row, StateRow) and row.type == EventTypes.MEMBER:
                self._learn_member(position, row)
            elif is_entry(row):
                self.forget(row.room_id)
            elif is_beginning(row):
                self._rooms.invalidate(row.room_id)  # also what is being read
                self._rooms.set(row.room_id, HostCounts({}, position))

    def forget(self, room_id: str) -> None:
        """Drop what is known about a room, and what is being read."""
        self._rooms.invalidate(room_id)

    def forget_all(self) -> None:
        """Drop everything: rows of the stream may have been missed."""
        self._rooms.clear()

    def _learn_member(self, position: int, row: StateRow) -> None:
        room = self._rooms.peek(row.room_id)
        known = _says(row.event_id, row.membership) and _says(row.prev_event_id, row.prev_membership)
        change = (row.membership == Membership.JOIN) - (row.prev_membership == Membership.JOIN)
        if known and not change:
            return
        server_name = domain_of(row.state_key)
        if room is None or not known:
            self._rooms.invalidate(row.room_id)
        elif position > room.position:
            # Others may be looking at the counts as they were.
            counts = {**room.counts, server_name: room.counts.get(server_name, 0) + change}
            if counts[server_name] <= 0:
                del counts[server_name]
            self._rooms.set(row.room_id, HostCounts(counts, room.position))


def by_size(hosts: Mapping[str, int]) -> list[str]:
    """The servers in a room, those with most members first."""
    return sorted(hosts, key=lambda name: (-hosts[name], name))


def _says(event_id: str | None, membership: str | None) -> bool:
    """Whether the row tells the membership that this event is about."""
    return event_id is None or membership is not None
