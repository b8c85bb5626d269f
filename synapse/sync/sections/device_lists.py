"""`device_lists`: whose devices or keys changed, and with whom the user does not share an encrypted room any more.

`changed` are those whose keys changed and who share a room with the user (or are the user), and those who have come
to share a room with them; `left` those with whom none is shared any longer (`synapse.sync.companions`). Filters of
rooms have no say in this.

Client-server API, "End-to-end encryption: Extensions to /sync".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from synapse.api.constants import EventTypes, Membership
from synapse.replication.streams import PrivateDeviceListRow
from synapse.storage.past_state import Delta
from synapse.storage.shared_rooms import SharedRoomStore
from synapse.sync.changes import Changes
from synapse.sync.companions import companions, lost
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken

if TYPE_CHECKING:
    from synapse.replication.contacts import RoomsOf


class DeviceListSection:
    """Comes after the timelines, which say whose membership changed. First syncs have no such part."""

    def __init__(self, shared: SharedRoomStore, rooms_of: RoomsOf, changes: Changes) -> None:
        self._shared = shared
        self._rooms_of = rooms_of
        self._changes = changes

    async def initial(self, ctx: SyncContext) -> None:
        pass

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        changed = await self._with_new_keys(ctx, since.device_lists, now.device_lists)
        left: set[str] = set()
        if _is_moving(ctx):
            members = [delta for delta in _deltas(ctx) if delta.type == EventTypes.MEMBER]
            moved = await companions(self._shared, members, _rooms_to_know(ctx), _rooms_left(ctx))
            moved.gone.pop(ctx.user_id, None)
            left = await lost(self._shared, moved.gone, ctx.all_joined)
            # Who has gone and come again may have changed their keys while nobody was told.
            changed |= moved.come - left
        told = {"changed": sorted(changed), "left": sorted(left - changed)}
        if lists := {name: users for name, users in told.items() if users}:
            ctx.body["device_lists"] = lists

    async def _with_new_keys(self, ctx: SyncContext, after: int, until: int) -> set[str]:
        """From memory where few have new keys: somebody on this server has, whenever anybody syncs."""
        rows = self._changes.device_lists(after, until)
        if rows is None or PrivateDeviceListRow(ctx.user_id) in rows:
            return await self._looked_up(ctx, after, until)
        users = {row for row in rows if isinstance(row, str)}
        others = users - {ctx.user_id}
        rooms = await self._rooms_of(others) if others else {}
        return users - {user_id for user_id in others if ctx.all_joined.isdisjoint(rooms.get(user_id, ()))}

    async def _looked_up(self, ctx: SyncContext, after: int, until: int) -> set[str]:
        users = await self._shared.changed_device_lists(ctx.user_id, after, until)
        others = users.public - {ctx.user_id}
        own = users.private | (users.public & {ctx.user_id})
        return own | await self._shared.sharing(others, ctx.all_joined)


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
