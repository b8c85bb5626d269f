"""Whose keys a client that was away has to ask for again: what the syncs in between would have told it.

Client-server API, `GET /keys/changes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.api.constants import EventTypes, Membership

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
        """`changed`: new keys, or newly sharing an encrypted room; `left`: not sharing one any more."""
        rooms = await self._rooms_of(user_id, since.events)
        come, gone = await self._came_and_went(rooms, since, until)
        left = gone - await self._shared.sharing_encrypted(gone, rooms.joined)
        uploaded = await self._shared.changed_device_lists(user_id, since.device_lists, until.device_lists)
        changed = come | uploaded.private | await self._shared.sharing(uploaded.public, rooms.joined)
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

    async def _came_and_went(self, rooms: _Rooms, since: StreamToken, until: StreamToken) -> tuple[set[str], set[str]]:
        deltas = (
            await self._past.deltas(dict.fromkeys(rooms.stayed, since.events), until.events) if rooms.stayed else []
        )
        turns = await self._shared.turns(delta for delta in deltas if delta.type == EventTypes.MEMBER)
        come = {t.user_id for t in turns if t.after == Membership.JOIN != t.before}
        gone = {t.user_id for t in turns if t.before == Membership.JOIN != t.after}
        come |= await self._shared.members_of_encrypted(rooms.new)
        gone |= await self._shared.members_of_encrypted(rooms.left)
        return come, gone
