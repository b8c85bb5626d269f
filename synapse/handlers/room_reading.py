"""Reading a room: its state, its members, single events. As it is for members, as it was for those who have left.

Answers are bytes of JSON, assembled from stored events. Client-server API, "Getting events for a room".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import MatrixError, forbidden, invalid_param, not_found
from synapse.handlers.visibility import RoomDoor
from synapse.storage.past_state import PastStateStore
from synapse.storage.timeline import TimelineRow, TimelineStore
from synapse.storage.user_rooms import UserRoomStore
from synapse.sync.forms import Annotator, Forms, content_of
from synapse.sync.ignored import NOBODY, IgnoredUsers
from synapse.sync.memberships import Memberships
from synapse.sync.state_at import entry_at, state_at
from synapse.sync.tokens import RoomToken
from synapse.sync.visibility import Access, Seen, VisibilityFilter
from synapse.util.clock import Clock

_MEMBERS: Final = (EventTypes.MEMBER,)


class RoomReading:
    """Reads rooms, in any process.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        door: RoomDoor,
        memberships: Memberships,
        user_rooms: UserRoomStore,
        states: PastStateStore,
        timeline: TimelineStore,
        annotator: Annotator,
        visibility: VisibilityFilter,
        ignored: IgnoredUsers,
        clock: Clock,
    ) -> None:
        self._door = door
        self._memberships = memberships
        self._user_rooms = user_rooms
        self._states = states
        self._timeline = timeline
        self._annotator = annotator
        self._visibility = visibility
        self._ignored = ignored
        self._clock = clock

    async def state(self, user_id: str, room_id: str) -> bytes:
        """All of the state: `GET /rooms/{roomId}/state`. Raises 403."""
        standing = await self._door.state_standing(user_id, room_id)
        state = await state_at(self._states, room_id, standing.access.until)
        return orjson.dumps(await self._written(state.values()))

    async def state_entry(self, user_id: str, room_id: str, event_type: str, state_key: str, whole: bool) -> bytes:
        """One entry of the state: its content, or the `whole` event. Raises 403, 404."""
        standing = await self._door.state_standing(user_id, room_id)
        row = await entry_at(self._states, (room_id, event_type, state_key), standing.access.until)
        if row is None:
            raise not_found("The room has no such state.")
        if whole:
            return orjson.dumps((await self._written([row]))[0])
        return content_of(row, await self._annotator.versions([row]))

    async def members(
        self,
        user_id: str,
        room_id: str,
        at: RoomToken | None = None,
        membership: str | None = None,
        not_membership: str | None = None,
    ) -> bytes:
        """`GET /rooms/{roomId}/members`. Raises 403, 400 M_INVALID_PARAM."""
        for name, value in (("membership", membership), ("not_membership", not_membership)):
            if value is not None and value not in Membership.ALL:
                raise invalid_param(f"'{name}' must be one of {', '.join(sorted(Membership.ALL))}.")
        standing = await self._door.state_standing(user_id, room_id)
        position = standing.access.until
        if at is not None:
            position = at.stream if position is None else min(at.stream, position)
        rows = list((await state_at(self._states, room_id, position, types=_MEMBERS)).values())
        if membership is not None or not_membership is not None:
            rows = [row for row in rows if _passes(row, membership, not_membership)]
        return orjson.dumps({"chunk": await self._written(rows)})

    async def joined_members(self, user_ids: Iterable[str], room_id: str) -> bytes:
        """`GET /rooms/{roomId}/joined_members`, for whoever speaks for one of these users. Raises 403."""
        for user_id in user_ids:
            if room_id in (await self._memberships.of(user_id)).joined:
                break
        else:
            raise forbidden("You are not in this room.")
        joined = {
            member: {
                name: value
                for name, value in (("display_name", display_name), ("avatar_url", avatar_url))
                if value is not None
            }
            for member, display_name, avatar_url in await self._user_rooms.joined_members(room_id)
        }
        return orjson.dumps({"joined": joined})

    async def any_event(self, user_id: str, device_id: str | None, event_id: str) -> bytes:
        """`GET /events/{eventId}`, in the form of that time. Raises 404 also for what the user may not see."""
        found = await self._timeline.get([event_id])
        room_id = found[event_id].room_id if event_id in found else ""
        return await self.event(user_id, device_id, room_id, event_id, old=True)

    async def event(
        self, user_id: str, device_id: str | None, room_id: str, event_id: str, *, old: bool = False
    ) -> bytes:
        """`GET /rooms/{roomId}/event/{eventId}`. Raises 404 also for what the user may not see."""
        try:
            access = (await self._door.standing(user_id, room_id)).access
        except MatrixError:  # 403: whether the event exists is not for them to know
            raise no_event() from None
        row, membership = await self.seen_event(user_id, room_id, event_id, access)
        notes = await self._annotator.notes([row], user_id, device_id, {room_id: access})
        return self._forms(old=old).form(row, notes, membership)

    async def seen_event(
        self, user_id: str, room_id: str, event_id: str, access: Access, *, though_ignored: bool = False
    ) -> Seen:
        """The event, and the user's membership then. Raises 404 where there is none that the user may see.

        Messages of those whom the user ignores are there only for those who ask for what relates to them.
        """
        row = (await self._timeline.get([event_id])).get(event_id)
        if row is not None and row.room_id == room_id:
            ignored = NOBODY if though_ignored else await self._ignored.of(user_id)
            seen = await self._visibility.visible({room_id: [row]}, {room_id: access}, user_id, ignored)
            if seen[room_id]:
                return seen[room_id][0]
        raise no_event()

    async def _written(self, rows: Iterable[TimelineRow]) -> list[orjson.Fragment]:
        rows = list(rows)
        return self._forms().forms(rows, await self._annotator.versions(rows))

    def _forms(self, *, old: bool = False) -> Forms:
        return Forms(int(self._clock.seconds() * 1000), room_ids=True, old=old)


def no_event() -> MatrixError:
    """The same answer for what is not there and for what is not to be seen."""
    return not_found("There is no such event in this room, or you may not see it.")


def _passes(row: TimelineRow, membership: str | None, not_membership: str | None) -> bool:
    """Where both are given, one of them is enough."""
    value = orjson.loads(row.json)["content"].get("membership")
    return (membership is not None and value == membership) or (not_membership is not None and value != not_membership)
