"""Which rooms a sync is about: fills the windows of a context from where the user stands and stood.

A first sync tells of every room. An incremental one tells of the joined rooms in which something happened, and of
those where the user's own membership changed: newly joined rooms in full, as the client knows nothing of them; rooms
left since, up to the moment of leaving; new invites and knocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from synapse.api.constants import Membership
from synapse.storage.user_rooms import RoomMembership, Step, UserRoomStore
from synapse.sync.context import RoomWindow, SyncContext
from synapse.sync.memberships import Rooms
from synapse.sync.recent import RecentEvents
from synapse.sync.tokens import StreamToken
from synapse.sync.visibility import Access

_GONE = frozenset({Membership.LEAVE, Membership.BAN})
_PENDING = frozenset({Membership.INVITE, Membership.KNOCK})


class Planner:
    """Asks the database only where the user's own membership changed."""

    def __init__(self, store: UserRoomStore, recent: RecentEvents) -> None:
        self._store = store
        self._recent = recent

    async def initial(self, ctx: SyncContext, rooms: Rooms) -> None:
        """Every room; left ones only if the filter wants them."""
        for membership in rooms.values():
            if not ctx.filter.room.room_matches(membership.room_id):
                continue
            if membership.membership == Membership.JOIN:
                _add(ctx, membership, after=None)
            elif membership.membership in _PENDING:
                _add_pending(ctx, membership)
        if ctx.filter.room.include_leave:
            gone = [m for m in rooms.values() if m.membership in _GONE and not m.forgotten]
            await self._add_left(ctx, gone, since=None)

    async def incremental(self, ctx: SyncContext, rooms: Rooms, since: StreamToken, now: StreamToken) -> None:
        """The rooms in which something happened between `since` and `now`."""
        changed = self._recent.changed_rooms(since.events)
        candidates: Iterable[str] = ctx.joined if changed is None else ctx.joined.intersection(changed)
        if ctx.full_state:
            candidates = ctx.joined
        for room_id in candidates:
            _add(ctx, rooms[room_id], after=since.events, full=ctx.full_state)
        await self._own_changes(ctx, rooms, since)

    async def _own_changes(self, ctx: SyncContext, rooms: Rooms, since: StreamToken) -> None:
        moved: list[RoomMembership] = []
        for membership in reversed(rooms.values()):  # the latest first
            if membership.stream <= since.events:
                break
            if ctx.filter.room.room_matches(membership.room_id):
                moved.append(membership)
        if not moved:
            return
        pending = [membership for membership in moved if membership.membership in _PENDING]
        for membership in pending:
            _add_pending(ctx, membership)
        steps = await self._steps(ctx, [m for m in moved if m.membership == Membership.JOIN])
        for membership in moved:
            if membership.membership == Membership.JOIN and not _was_joined(steps, membership.room_id, since.events):
                _add(ctx, membership, after=None)
        gone = [m for m in moved if m.membership in _GONE and not m.forgotten]
        await self._add_left(ctx, gone, since)

    async def _add_left(self, ctx: SyncContext, gone: list[RoomMembership], since: StreamToken | None) -> None:
        gone = [m for m in gone if ctx.filter.room.room_matches(m.room_id)]
        steps = await self._steps(ctx, gone)
        for membership in gone:
            room_id = membership.room_id
            access = last_access(steps.get(room_id, ()))
            after: int | None = None
            if since is not None and _was_joined(steps, room_id, since.events):
                after = since.events
            elif access.joined is None and _was_ignored(ctx, membership):
                continue
            ctx.windows[room_id] = RoomWindow(room_id, after, membership.stream, access, left=True)

    async def _steps(self, ctx: SyncContext, memberships: list[RoomMembership]) -> dict[str, list[Step]]:
        by_room: dict[str, list[Step]] = {}
        for step in await self._store.steps(ctx.user_id, [m.room_id for m in memberships]):
            by_room.setdefault(step.room_id, []).append(step)
        return by_room


def last_access(steps: Iterable[Step]) -> Access:
    """How far somebody may look who is not joined any more, given how their membership went, oldest first.

    What they could see until they left stays visible to them; who was never joined sees the events about themselves.
    """
    joined: int | None = None
    left: int | None = None
    last = 0
    before = Membership.LEAVE
    for step in steps:
        if step.membership == Membership.JOIN and before != Membership.JOIN:
            joined, left = step.stream, None
        elif step.membership != Membership.JOIN and before == Membership.JOIN:
            left = step.stream
        before = step.membership
        last = step.stream
    return Access(joined, last if left is None else left)


def _was_joined(steps: Mapping[str, list[Step]], room_id: str, since: int) -> bool:
    """Whether the user was joined at `since`, so that the client knows the room as it was then.

    One who left and came back in the meantime goes on from there like everybody else.
    """
    before = Membership.LEAVE
    for step in steps.get(room_id, ()):
        if step.stream > since:
            break
        before = step.membership
    return before == Membership.JOIN


def _was_ignored(ctx: SyncContext, membership: RoomMembership) -> bool:
    return membership.sender in ctx.ignored


def _add(ctx: SyncContext, membership: RoomMembership, after: int | None, full: bool = False) -> None:
    access = Access(membership.stream, None)
    ctx.windows[membership.room_id] = RoomWindow(
        membership.room_id, after, ctx.now.events, access, full=full and after is not None
    )


def _add_pending(ctx: SyncContext, membership: RoomMembership) -> None:
    if membership.sender not in ctx.ignored:
        ctx.pending.append(membership)
