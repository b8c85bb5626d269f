"""Which servers an event is for: those in the room before it and those after it, as the rows of the events stream tell.

Rooms are remembered as they were at a position of the stream, from which the rows lead on, one after another; so an
event that is taken over late is for those servers that were in the room then, and not for those that are in it now.
Pure: what is not remembered is named by `unknown`, and given by `remember`.

Server access lists have no part in it: "Servers should still send events to denied servers if they are still residents
of the room" (Client-server API, "Server Access Control Lists (ACLs) for rooms").
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from sys import intern
from typing import Final, NamedTuple

from synapse.api.constants import EventTypes, Membership
from synapse.api.identifiers import domain_of
from synapse.replication.event_rows import EventRow, Row, StateRow, is_entry

MAX_ENTRIES: Final = 300_000
"""Servers that are remembered, counted for each room."""


class Audience(NamedTuple):
    """Servers that events are sent to, in order, without ourselves. `id` is the same for the same servers."""

    id: bytes
    servers: tuple[str, ...]


class Outgoing(NamedTuple):
    """An event that is for others, at its position."""

    position: int
    room_id: str
    event_id: str
    audience: Audience


NOBODY: Final = Audience(b"", ())


class _Room:
    __slots__ = ("audience", "counts")

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts
        self.audience: Audience | None = None


class RoomAudiences:
    """The servers in the rooms that events of ours were sent into lately.

    :param server_name: this server, which is never told anything.
    :param is_allowed: whether this server has to do with another.
    """

    def __init__(
        self, server_name: str, is_allowed: Callable[[str], bool] = lambda _: True, max_entries: int = MAX_ENTRIES
    ) -> None:
        self._server_name = server_name
        self._is_allowed = is_allowed
        self._max_entries = max_entries
        self._entries = 0
        self._rooms: OrderedDict[str, _Room] = OrderedDict()  # that was used last is the last

    def is_ours(self, user_id: str) -> bool:
        return domain_of(user_id) == self._server_name

    def is_sent(self, row: EventRow) -> bool:
        """Whether others are to be sent the event by this server."""
        return self.is_ours(row.sender) if row.relay is None else row.relay

    def are_for_nobody(self, rows: Iterable[tuple[int, Row]]) -> bool:
        """Whether it is remembered that none of these rows concerns another server, or changes who is in a room."""
        rooms = self._rooms
        for _, row in rows:
            if not isinstance(row, EventRow):
                return False
            room = rooms.get(row.room_id)
            if room is None or room.audience is not NOBODY:
                return False
            rooms.move_to_end(row.room_id)
        return True

    def unknown(self, rows: Iterable[tuple[int, Row]]) -> set[str]:
        """The rooms of events to be sent whose servers are to be given with `remember`, as they were before the first
        of these rows."""
        return {
            row.room_id
            for _, row in rows
            if isinstance(row, EventRow) and row.room_id not in self._rooms and self.is_sent(row)
        }

    def remember(self, rooms: Mapping[str, Mapping[str, int]]) -> None:
        """Rooms with their servers, and how many joined members each of these has."""
        for room_id, counts in rooms.items():
            self.forget(room_id)
            room = _Room({intern(server): count for server, count in counts.items()})
            self._rooms[room_id] = room
            self._entries += len(room.counts)

    def forget(self, room_id: str) -> None:
        room = self._rooms.pop(room_id, None)
        if room is not None:
            self._entries -= len(room.counts)

    def forget_all(self) -> None:
        self._rooms.clear()
        self._entries = 0

    def take(self, rows: Sequence[tuple[int, Row]]) -> list[Outgoing]:
        """Goes on with rows of the stream; which of their events are for whom. Rooms that were `unknown` are known.

        A room that this server enters is unknown behind the position of that, where the rows must end (`up_to_entry`).
        """
        outgoing: list[Outgoing] = []
        index = 0
        while index < len(rows):
            position, row = rows[index]
            changes: list[StateRow] = []
            index += 1
            while index < len(rows) and rows[index][0] == position and isinstance(change := rows[index][1], StateRow):
                changes.append(change)
                index += 1
            if isinstance(row, StateRow):
                self._change([row, *changes])
            else:
                found = self._event(row, changes)
                if found.servers:
                    outgoing.append(Outgoing(position, row.room_id, row.event_id, found))
        self._trim()
        return outgoing

    def _event(self, row: EventRow, changes: Sequence[StateRow]) -> Audience:
        room = self._rooms.get(row.room_id) if self.is_sent(row) else None
        if room is None:
            self._change(changes)
            return NOBODY
        self._rooms.move_to_end(row.room_id)
        before = self._audience(room)
        self._change(changes)
        after = self._audience(room)
        named = self._told(row, changes)
        brought_by = domain_of(row.sender) if row.relay and row.state_key == row.sender else None
        if before is after and (named is None or named in before.servers) and brought_by is None:
            return after
        servers = {*before.servers, *after.servers} | ({named} if named is not None else set())
        return audience_of(servers - {brought_by})  # a join, or the like, that its server asked this one to take

    def _told(self, row: EventRow, changes: Sequence[StateRow]) -> str | None:
        """The server of somebody who was invited, or had knocked, and is now turned away: it is told as well."""
        for change in changes:
            if (
                change.event_id == row.event_id
                and change.membership in (Membership.LEAVE, Membership.BAN)
                and change.prev_membership in (Membership.INVITE, Membership.KNOCK)
                and self._is_told(domain_of(change.state_key))
            ):
                return intern(domain_of(change.state_key))
        return None

    def _change(self, changes: Iterable[StateRow]) -> None:
        for change in changes:
            room = self._rooms.get(change.room_id)
            if is_entry(change):
                self.forget(change.room_id)
            elif room is not None and change.type == EventTypes.MEMBER:
                self._change_member(room, change)

    def _change_member(self, room: _Room, change: StateRow) -> None:
        difference = (change.membership == Membership.JOIN) - (change.prev_membership == Membership.JOIN)
        if not difference:
            return
        server = intern(domain_of(change.state_key))
        count = room.counts.get(server, 0) + difference
        if count > 0:
            if server not in room.counts:
                room.audience = None
                self._entries += 1
            room.counts[server] = count
        elif server in room.counts:
            del room.counts[server]
            room.audience = None
            self._entries -= 1

    def _audience(self, room: _Room) -> Audience:
        if room.audience is None:
            room.audience = audience_of(server for server in room.counts if self._is_told(server))
        return room.audience

    def _is_told(self, server: str) -> bool:
        return server != self._server_name and self._is_allowed(server)

    def _trim(self) -> None:
        while self._entries > self._max_entries and len(self._rooms) > 1:
            _, room = self._rooms.popitem(last=False)
            self._entries -= len(room.counts)


def up_to_entry(rows: Sequence[tuple[int, Row]]) -> int:
    """How many of the rows may be taken at once: up to the position at which this server first enters a room."""
    entered = next((position for position, row in rows if is_entry(row)), None)
    return len(rows) if entered is None else sum(position <= entered for position, _ in rows)


def audience_of(servers: Iterable[str]) -> Audience:
    """The audience that these servers are."""
    ordered = tuple(sorted(servers))
    if not ordered:
        return NOBODY
    return Audience(hashlib.sha256("\0".join(ordered).encode()).digest()[:16], ordered)
