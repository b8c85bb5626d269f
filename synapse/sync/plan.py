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
            else:
                _add_pending(ctx, membership)
        if ctx.filter.room.include_leave:
            matches = ctx.filter.room.room_matches
            gone = [m for m in rooms.values() if _is_gone(m) and matches(m.room_id)]
            _add_left(ctx, gone, await self._steps(ctx, gone), since=None)

    async def incremental(self, ctx: SyncContext, rooms: Rooms, since: StreamToken, now: StreamToken) -> None:
        """The rooms in which something happened between `since` and `now`."""
        changed = self._recent.changed_rooms(since.events)
        candidates: Iterable[str] = ctx.joined if changed is None else ctx.joined.intersection(changed)
        if ctx.full_state:
            candidates = ctx.joined
        for room_id in candidates:
            _add(ctx, rooms[room_id], after=since.events, full=ctx.full_state)
        if ctx.ignores_anew:  # invites that were held back are told, and the others once more
            for membership in rooms.values():
                if membership.stream <= since.events and ctx.filter.room.room_matches(membership.room_id):
                    _add_pending(ctx, membership)
        await self._own_changes(ctx, rooms, since)

    async def _own_changes(self, ctx: SyncContext, rooms: Rooms, since: StreamToken) -> None:
        moved: list[RoomMembership] = []
        for membership in reversed(rooms.values()):  # the latest first
            if membership.stream <= since.events:
                break
            matches = ctx.filter.room.room_matches(membership.room_id)
            (moved if matches else ctx.hidden_moves).append(membership)
        if not moved:
            return
        joined = [m for m in moved if m.membership == Membership.JOIN]
        gone = [m for m in moved if _is_gone(m)]
        steps = await self._steps(ctx, joined + gone)
        for membership in moved:
            _add_pending(ctx, membership)
        for membership in joined:
            if not _was_joined(steps, membership.room_id, since.events):
                _add(ctx, membership, after=None)
        _add_left(ctx, gone, steps, since)

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


def _add(ctx: SyncContext, membership: RoomMembership, after: int | None, full: bool = False) -> None:
    access = Access(membership.stream, None)
    ctx.windows[membership.room_id] = RoomWindow(
        membership.room_id, after, ctx.now.events, access, full=full and after is not None
    )


def _add_left(
    ctx: SyncContext, gone: list[RoomMembership], steps: Mapping[str, list[Step]], since: StreamToken | None
) -> None:
    for membership in gone:
        room_id = membership.room_id
        access = last_access(steps.get(room_id, ()))
        after: int | None = None
        if since is not None and _was_joined(steps, room_id, since.events):
            after = since.events
            ctx.room(room_id)  # also where no event tells of it: the joining was overruled by what happened elsewhere
        elif access.joined is None and membership.sender in ctx.ignored:
            continue
        elif since is not None and (access.joined or 0) <= since.events:
            # Out of the room all the time: an invite was declined, a ban lifted. The news are about the user alone.
            after, access = since.events, Access(None, membership.stream)
        ctx.windows[room_id] = RoomWindow(room_id, after, membership.stream, access, left=True)


def _is_gone(membership: RoomMembership) -> bool:
    return membership.membership in _GONE and not membership.forgotten


def _add_pending(ctx: SyncContext, membership: RoomMembership) -> None:
    """An invite or a knock; nothing else."""
    if membership.membership not in _PENDING or membership.sender in ctx.ignored:
        return
    if membership.membership != Membership.INVITE or not ctx.ignores_invites:
        ctx.pending.append(membership)
