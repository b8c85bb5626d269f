"""Whose keys a client that was away has to ask for again: what the syncs in between would have told it.

Client-server API, `GET /keys/changes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.api.constants import EventTypes, Membership
from synapse.sync.companions import Companions, companions, lost

if TYPE_CHECKING:
    from synapse.storage.past_state import PastStateStore
    from synapse.storage.shared_rooms import SharedRoomStore
    from synapse.storage.user_rooms import UserRoomStore
    from synapse.sync.tokens import StreamToken


class _Rooms(NamedTuple):
    """A user's rooms: those joined all the time, those come to since, and those left since."""

    stayed: list[str]
    new: list[str]
    left: list[str]

    @property
    def joined(self) -> list[str]:
        return self.stayed + self.new


class KeyChanges:
    """Compares two points in time. A handful of statements, whatever the number of rooms."""

    def __init__(self, rooms: UserRoomStore, past: PastStateStore, shared: SharedRoomStore) -> None:
        self._rooms = rooms
        self._past = past
        self._shared = shared

    async def between(self, user_id: str, since: StreamToken, until: StreamToken) -> dict[str, list[str]]:
        """Who has new keys or newly shares a room (`changed`), who shares none any more (`left`)."""
        rooms = await self._rooms_of(user_id, since.events)
        moved = await self._moved(rooms, since, until)
        left = await lost(self._shared, moved.gone, rooms.joined)
        uploaded = await self._shared.changed_device_lists(user_id, since.device_lists, until.device_lists)
        changed = moved.come | uploaded.private | await self._shared.sharing(uploaded.public, rooms.joined)
        if user_id in uploaded.public:
            changed.add(user_id)
        return {"changed": sorted(changed - left), "left": sorted(left - {user_id})}

    async def _rooms_of(self, user_id: str, then: int) -> _Rooms:
        now = {m.room_id: m for m in await self._rooms.of_user(user_id)}
        moved = [m.room_id for m in now.values() if m.stream > then]
        before: dict[str, str] = {}
        for step in await self._rooms.steps(user_id, moved):
            if step.stream <= then:
                before[step.room_id] = step.membership
        rooms = _Rooms([], [], [])
        for room_id, membership in now.items():
            is_in = membership.membership == Membership.JOIN
            was_in = is_in if membership.stream <= then else before.get(room_id) == Membership.JOIN
            if is_in or was_in:
                (rooms.left if not is_in else rooms.stayed if was_in else rooms.new).append(room_id)
        return rooms

    async def _moved(self, rooms: _Rooms, since: StreamToken, until: StreamToken) -> Companions:
        deltas = (
            await self._past.deltas(dict.fromkeys(rooms.stayed, since.events), until.events) if rooms.stayed else []
        )
        members = [delta for delta in deltas if delta.type == EventTypes.MEMBER]
        return await companions(self._shared, members, rooms.new, rooms.left)
