"""`GET /events`: how clients followed what happens before there was /sync.

One list of everything: new events of all joined rooms (or of one that everybody may look into), who types, receipts,
presence. In the order of arrival; where there is more than one answer holds, the next one goes on from there.

Client-server API, "Syncing" (deprecated endpoints) and "Room previews".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from synapse.api.constants import Membership
from synapse.api.filters import Filter
from synapse.handlers.visibility import RoomDoor
from synapse.storage.past_state import PastStateStore
from synapse.storage.timeline import TimelineRow, TimelineStore
from synapse.sync.breath import Breath
from synapse.sync.context import Section, SyncContext
from synapse.sync.forms import Annotator, Forms
from synapse.sync.handler import Present
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.memberships import Memberships
from synapse.sync.recent import RecentEvents
from synapse.sync.tokens import StreamToken
from synapse.sync.visibility import Access, VisibilityFilter
from synapse.util.clock import Clock

DEFAULT_TIMEOUT: Final = 30_000
MAX_TIMEOUT: Final = 600_000
LIMIT: Final = 100
_CATCH_UP: Final = 5.0
_EVERYTHING: Final = Filter()


class EventStream:
    """Follows the streams.

    :param sections: those of /sync that tell of what passes: receipts, typing, presence.
    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        present: Present,
        memberships: Memberships,
        door: RoomDoor,
        timeline: TimelineStore,
        states: PastStateStore,
        recent: RecentEvents,
        visibility: VisibilityFilter,
        annotator: Annotator,
        ignored: IgnoredUsers,
        sections: Sequence[Section],
        clock: Clock,
    ) -> None:
        self._present = present
        self._memberships = memberships
        self._door = door
        self._timeline = timeline
        self._states = states
        self._recent = recent
        self._visibility = visibility
        self._annotator = annotator
        self._ignored = ignored
        self._sections = sections
        self._clock = clock

    async def follow(
        self, user_id: str, device_id: str | None, since: StreamToken | None, milliseconds: int, room_id: str | None
    ) -> bytes:
        """What is new, after waiting for it if need be. Raises 403 for a room that is closed to the user."""
        start = since or self._present.token()
        if not self._present.token().covers(start):
            await self._present.catch_up(start, _CATCH_UP)
        deadline = self._clock.seconds() + milliseconds / 1000
        position = start
        while True:
            rooms = await self._rooms(user_id, room_id)
            now = self._present.token()
            position = position.at_most(now)
            chunk, end = await self._chunk(user_id, device_id, rooms, position, now)
            left = deadline - self._clock.seconds()
            done = bool(chunk) or left <= 0
            if not done and self._present.token() == now:
                done = not await self._present.wait(user_id, frozenset(rooms), left)
            if done:
                return orjson.dumps({"start": str(start), "end": str(end), "chunk": chunk})
            position = end

    async def _rooms(self, user_id: str, room_id: str | None) -> dict[str, Access]:
        """The rooms to follow: all that are joined, or the one that was asked for."""
        if room_id is not None:
            return {room_id: (await self._door.standing(user_id, room_id)).access}
        rooms, joined = await self._memberships.of(user_id)
        return {joined_id: Access(rooms[joined_id].stream, None) for joined_id in joined}

    async def _chunk(
        self, user_id: str, device_id: str | None, rooms: dict[str, Access], since: StreamToken, now: StreamToken
    ) -> tuple[list[Any], StreamToken]:
        rows = await self._new_rows(rooms, since.events, now.events)
        if len(rows) > LIMIT:
            rows = rows[:LIMIT]
            now = now._replace(events=rows[-1].stream)
        ignored = await self._ignored.of(user_id)
        by_room: dict[str, list[TimelineRow]] = {}
        for row in rows:
            by_room.setdefault(row.room_id, []).append(row)
        visible = await self._visibility.visible(by_room, rooms, user_id, ignored)
        seen = sorted((s for room in visible.values() for s in room), key=lambda s: s.row.stream)
        notes = await self._annotator.notes([row for row, _ in seen], user_id, device_id)
        forms = Forms(int(self._clock.seconds() * 1000), room_ids=True)
        chunk: list[Any] = [orjson.Fragment(forms.form(row, notes, membership)) for row, membership in seen]
        chunk += await self._invites(user_id, since.events, now.events, ignored, forms)
        ctx = SyncContext(
            user_id, device_id, _EVERYTHING, since, now, now, forms, frozenset(rooms), ignored, Breath(self._clock)
        )
        for section in self._sections:
            await section.incremental(ctx, since, now)
        chunk += [event | {"room_id": r} for r, room in ctx.rooms.items() for event in room.ephemeral]
        chunk += ctx.body.get("presence", {"events": []})["events"]
        return chunk, now

    async def _new_rows(self, rooms: dict[str, Access], after: int, until: int) -> list[TimelineRow]:
        changed = self._recent.changed_rooms(after)
        wanted = list(rooms) if changed is None else [room_id for room_id in changed if room_id in rooms]
        return await self._timeline.since(wanted, after, until, LIMIT + 1)

    async def _invites(
        self, user_id: str, after: int, until: int, ignored: frozenset[str], forms: Forms
    ) -> list[orjson.Fragment]:
        """Invites since, which are events of rooms that the user is not in."""
        rooms = (await self._memberships.of(user_id)).rooms.values()
        new = [m for m in rooms if m.membership == Membership.INVITE and after < m.stream <= until]
        found = await self._states.events([m.event_id for m in new if m.sender not in ignored])
        return forms.forms(found.values(), await self._annotator.versions(found.values()))
