"""`device_lists`: whose devices or keys changed, and with whom the user does not share an encrypted room any more.

`changed` are those whose keys changed and who share a room with the user (or are the user), and those who have come
to share an encrypted room with them; `left` those with whom no encrypted room is shared any longer. Filters of rooms
have no say in this.

Client-server API, "End-to-end encryption: Extensions to /sync".
"""

from __future__ import annotations

from collections.abc import Iterable

from synapse.api.constants import EventTypes, Membership
from synapse.storage.past_state import Delta
from synapse.storage.shared_rooms import SharedRoomStore
from synapse.sync.changes import Changes
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken


class DeviceListSection:
    """Comes after the timelines, which say whose membership changed. First syncs have no such part."""

    def __init__(self, shared: SharedRoomStore, changes: Changes) -> None:
        self._shared = shared
        self._changes = changes

    async def initial(self, ctx: SyncContext) -> None:
        pass

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        changed = await self._with_new_keys(ctx, since.device_lists, now.device_lists)
        come, gone = await self._came_and_went(ctx)
        changed |= come
        left = gone - await self._shared.sharing_encrypted(gone, ctx.all_joined)
        if changed or left:
            ctx.body["device_lists"] = {"changed": sorted(changed), "left": sorted(left - changed)}

    async def _with_new_keys(self, ctx: SyncContext, after: int, until: int) -> set[str]:
        if not self._changes.any_device_list(after):
            return set()
        users = await self._shared.changed_device_lists(ctx.user_id, after, until)
        others = users.public - {ctx.user_id}
        own = users.private | (users.public & {ctx.user_id})
        return own | await self._shared.sharing(others, ctx.all_joined)

    async def _came_and_went(self, ctx: SyncContext) -> tuple[set[str], set[str]]:
        """Who began and who ceased to share an encrypted room with the user."""
        come: set[str] = set()
        gone: set[str] = set()
        if not _is_moving(ctx):
            return come, gone
        members = [delta for delta in _deltas(ctx) if delta.type == EventTypes.MEMBER]
        for turn in await self._shared.turns(members):
            if turn.user_id == ctx.user_id:
                continue
            if turn.after == Membership.JOIN and turn.before != Membership.JOIN:
                come.add(turn.user_id)
            elif turn.before == Membership.JOIN and turn.after != Membership.JOIN:
                gone.add(turn.user_id)
        come |= await self._shared.members_of_encrypted(_rooms_to_know(ctx))
        gone |= await self._shared.members_of_encrypted(_rooms_left(ctx))
        return come - gone - {ctx.user_id}, gone - {ctx.user_id}


def _is_moving(ctx: SyncContext) -> bool:
    """Whether the state of a room changed, or the user's own rooms."""
    if ctx.hidden_deltas or ctx.hidden_moves or any(ctx.deltas.values()):
        return True
    return any(window.left or window.after is None for window in ctx.windows.values())


def _deltas(ctx: SyncContext) -> Iterable[Delta]:
    """Of the rooms in which the user was, and still is."""
    for room_id, deltas in ctx.deltas.items():
        if not ctx.windows[room_id].left:
            yield from deltas
    yield from ctx.hidden_deltas


def _rooms_to_know(ctx: SyncContext) -> set[str]:
    """Rooms that are new to the client, or in which encryption was switched on."""
    rooms = set(ctx.new_rooms())
    rooms.update(move.room_id for move in ctx.hidden_moves if move.membership == Membership.JOIN)
    rooms.update(delta.room_id for delta in _deltas(ctx) if delta.type == EventTypes.ENCRYPTION)
    return rooms


def _rooms_left(ctx: SyncContext) -> list[str]:
    rooms = [window.room_id for window in ctx.windows.values() if window.left]
    return rooms + [move.room_id for move in ctx.hidden_moves if move.membership in (Membership.LEAVE, Membership.BAN)]
