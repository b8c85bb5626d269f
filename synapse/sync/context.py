"""What one sync is about: who asks, from when to when, for which rooms; and the answer as it grows.

The sections of `synapse.sync.sections` each read a `SyncContext` and write their part of the answer into it. The
answer holds events as finished bytes (`orjson.Fragment`), so writing it out copies and does not encode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from synapse.api.filters import Filter
from synapse.storage.past_state import Delta
from synapse.storage.user_rooms import RoomMembership
from synapse.sync.breath import Breath
from synapse.sync.forms import Forms
from synapse.sync.tokens import StreamToken
from synapse.sync.visibility import Access, Seen

Fragments = list[orjson.Fragment]


@dataclass(slots=True)
class RoomWindow:
    """The stretch of one room that is to be told.

    `after` is None where the client does not know the room: then everything is told as it was at `until`. `full` asks
    for the full state although the timeline goes on from `after`. `left` rooms stand in their own part of the answer.
    """

    room_id: str
    after: int | None
    until: int
    access: Access
    left: bool = False
    full: bool = False

    @property
    def whole(self) -> bool:
        """Whether the full state is to be told."""
        return self.after is None or self.full


@dataclass(slots=True)
class Timeline:
    """What the timeline section found for a room; `start` is the position just before its first event."""

    seen: list[Seen]
    limited: bool
    start: int


@dataclass(slots=True)
class RoomAnswer:
    """A joined or left room in the answer. What is None is left out."""

    summary: dict[str, Any] | None = None
    state: Fragments = field(default_factory=list)
    timeline: Fragments = field(default_factory=list)
    limited: bool = False
    prev_batch: str | None = None
    ephemeral: list[Any] = field(default_factory=list)
    account_data: list[Any] = field(default_factory=list)
    unread: dict[str, int] | None = None
    unread_threads: dict[str, dict[str, int]] | None = None


@dataclass(slots=True)
class SyncContext:
    """One sync on its way.

    `since` is None for a first sync. `now` is the token up to which everything is told; sections that cannot tell all
    at once lower their field of `next`, which becomes `next_batch`.
    """

    user_id: str
    device_id: str | None
    filter: Filter
    since: StreamToken | None
    now: StreamToken
    next: StreamToken
    forms: Forms
    joined: frozenset[str]  # rooms in which the user is and which the filter lets through
    all_joined: frozenset[str]  # the others as well
    ignored: frozenset[str]
    breath: Breath
    ignores_anew: bool = False  # the list of ignored users changed since
    ignores_invites: bool = False
    full_state: bool = False
    state_after: bool = False
    state_name: str = "state"  # the key of either form of the state in the answer
    windows: dict[str, RoomWindow] = field(default_factory=dict)
    timelines: dict[str, Timeline] = field(default_factory=dict)
    deltas: dict[str, list[Delta]] = field(default_factory=dict)  # of the windows with `after`
    hidden_deltas: list[Delta] = field(default_factory=list)  # of joined rooms that the filter leaves out
    hidden_moves: list[RoomMembership] = field(default_factory=list)  # the user's own, in such rooms
    read_rooms: set[str] = field(default_factory=set)  # where the user's own receipts changed
    introduced: dict[str, list[str]] = field(default_factory=dict)  # members told of, by room, if loaded lazily
    rooms: dict[str, RoomAnswer] = field(default_factory=dict)
    pending: list[RoomMembership] = field(default_factory=list)  # invites and knocks to tell of
    invited: dict[str, Any] = field(default_factory=dict)
    knocked: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)  # the other parts, by their names in the answer
    always: dict[str, Any] = field(default_factory=dict)  # parts that are there also when there is no news

    def room(self, room_id: str) -> RoomAnswer:
        """The room's part of the answer, new where it has none yet."""
        room = self.rooms.get(room_id)
        if room is None:
            room = self.rooms[room_id] = RoomAnswer()
        return room

    def new_rooms(self) -> list[str]:
        """Joined rooms that the client does not know yet."""
        return [w.room_id for w in self.windows.values() if w.after is None and not w.left]

    def known_rooms(self) -> Iterable[str]:
        """Joined rooms of which the client wants to know what is new."""
        new = set(self.new_rooms())
        return self.joined - new if new else self.joined

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that a client would want to be woken for."""
        return not (self.rooms or self.invited or self.knocked or self.body)


class Section(Protocol):
    """Provides one part of the answer. A section asks the database once at most, however many rooms there are."""

    async def initial(self, ctx: SyncContext) -> None:
        """For a client that knows nothing yet."""

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        """For one that knows everything up to `since`; rooms new to it (`ctx.new_rooms`) are told in full."""
