"""`GET /events`: how clients followed what happens before there was /sync.

One list of everything: new events of all joined rooms, who types, receipts, account data and tags, presence, invites.
Or of one room alone, also for those who look in from outside. In the order of arrival; where there is more than one
answer holds, the next one goes on from there.

Client-server API, "Syncing" (deprecated endpoints) and "Room previews".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from synapse.api.constants import Membership
from synapse.api.filters import Filter
from synapse.handlers.presence import PresenceReading
from synapse.handlers.visibility import RoomDoor
from synapse.storage.past_state import PastStateStore
from synapse.storage.timeline import TimelineRow, TimelineStore
from synapse.storage.user_rooms import RoomMembership, Step, UserRoomStore
from synapse.sync.breath import Breath
from synapse.sync.context import Section, SyncContext
from synapse.sync.forms import Annotator, Forms
from synapse.sync.handler import Present
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.memberships import Memberships, Rooms
from synapse.sync.plan import last_access
from synapse.sync.recent import RecentEvents
from synapse.sync.tokens import StreamToken
from synapse.sync.visibility import Access, VisibilityFilter
from synapse.util.clock import Clock

DEFAULT_TIMEOUT: Final = 30_000
MAX_TIMEOUT: Final = 600_000
LIMIT: Final = 100
_CATCH_UP: Final = 5.0
_EVERYTHING: Final = Filter()


_GONE: Final = frozenset({Membership.LEAVE, Membership.BAN})


class Question(NamedTuple):
    """What a client asks for: all that happens after `since` (None: from now on), or what happens in `room_id`.

    `wait` is in milliseconds, `limit` the number of room events that an answer holds at most.
    """

    user_id: str
    device_id: str | None
    since: StreamToken | None = None
    wait: int = 0
    room_id: str | None = None
    limit: int = LIMIT


class Scope(NamedTuple):
    """What is followed: rooms, those of them in which things go on, and the user's memberships.

    The latter are None where it is one room that is followed, and not all that concerns the user.
    """

    rooms: dict[str, Access]
    present: frozenset[str]
    memberships: Rooms | None


class EventStream:
    """Follows the streams.

    :param sections: those of /sync that tell of what passes in rooms, and of account data.
    :param presence_section: that of /sync; None where presence is switched off.
    :param presence: the same for a single room.
    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        present: Present,
        memberships: Memberships,
        user_rooms: UserRoomStore,
        door: RoomDoor,
        timeline: TimelineStore,
        states: PastStateStore,
        recent: RecentEvents,
        visibility: VisibilityFilter,
        annotator: Annotator,
        ignored: IgnoredUsers,
        sections: Sequence[Section],
        presence_section: Section | None,
        presence: PresenceReading,
        clock: Clock,
    ) -> None:
        self._present = present
        self._memberships = memberships
        self._user_rooms = user_rooms
        self._door = door
        self._timeline = timeline
        self._states = states
        self._recent = recent
        self._visibility = visibility
        self._annotator = annotator
        self._ignored = ignored
        self._sections = sections
        self._presence_section = presence_section
        self._presence = presence
        self._clock = clock

    async def follow(self, question: Question) -> bytes:
        """What is new, after waiting for it if need be. Raises 403 for a room that is closed to the user."""
        start = question.since or self._present.token()
        if not self._present.token().covers(start):
            await self._present.recognise(start, _CATCH_UP)
        deadline = self._clock.seconds() + question.wait / 1000
        position = start
        while True:
            now = self._present.token()
            position = position.at_most(now)
            scope = await self._scope(question, position.events)
            chunk, end = await self._chunk(question, scope, position, now)
            left = deadline - self._clock.seconds()
            done = bool(chunk) or left <= 0
            if not done and self._present.token() == now:
                done = not await self._present.wait(question.user_id, frozenset(scope.rooms), left)
            if done:
                return orjson.dumps({"start": str(start), "end": str(end), "chunk": chunk})
            position = end

    async def _scope(self, question: Question, after: int) -> Scope:
        """The one room that was asked for; or all that are joined, and those left since, up to the leaving."""
        room_id = question.room_id
        if room_id is not None:
            standing = await self._door.standing(question.user_id, room_id)
            present = frozenset({room_id}) if standing.access.until is None else frozenset[str]()
            return Scope({room_id: standing.access}, present, None)
        rooms, joined = await self._memberships.of(question.user_id)
        access = {room_id: Access(rooms[room_id].stream, None) for room_id in joined}
        access.update(await self._left(question.user_id, rooms, after))
        return Scope(access, joined, rooms)

    async def _left(self, user_id: str, rooms: Rooms, after: int) -> dict[str, Access]:
        left = [m.room_id for m in rooms.values() if m.membership in _GONE and m.stream > after and not m.forgotten]
        steps: dict[str, list[Step]] = {room_id: [] for room_id in left}
        for step in await self._user_rooms.steps(user_id, left):
            steps[step.room_id].append(step)
        return {room_id: last_access(went) for room_id, went in steps.items()}

    async def _chunk(
        self, question: Question, scope: Scope, since: StreamToken, now: StreamToken
    ) -> tuple[list[Any], StreamToken]:
        rows = await self._new_rows(scope.rooms, since.events, now.events, question.limit)
        if len(rows) > question.limit:
            rows = rows[: question.limit]
            now = now._replace(events=rows[-1].stream)
        user_id, device_id = question.user_id, question.device_id
        ignored, _, ignores_invites = await self._ignored.dated(user_id)
        by_room: dict[str, list[TimelineRow]] = {}
        for row in rows:
            by_room.setdefault(row.room_id, []).append(row)
        visible = await self._visibility.visible(by_room, scope.rooms, user_id, ignored)
        seen = sorted((s for room in visible.values() for s in room), key=lambda s: s.row.stream)
        notes = await self._annotator.notes([row for row, _ in seen], user_id, device_id)
        forms = Forms(int(self._clock.seconds() * 1000), room_ids=True, old=True)
        chunk: list[Any] = [orjson.Fragment(forms.form(row, notes, membership)) for row, membership in seen]
        if scope.memberships is not None and not ignores_invites:
            chunk += await self._invites(scope.memberships, since.events, now.events, ignored, forms)
        breath, rooms = Breath(self._clock), scope.present
        ctx = SyncContext(user_id, device_id, _EVERYTHING, since, now, now, forms, rooms, rooms, ignored, breath)
        return chunk + await self._passing(ctx, scope, since, now), now

    async def _passing(self, ctx: SyncContext, scope: Scope, since: StreamToken, now: StreamToken) -> list[Any]:
        """What is no event of a room; with a room's id where it belongs to one."""
        for section in self._sections:
            await section.incremental(ctx, since, now)
        told: list[Any] = []
        for room_id, room in ctx.rooms.items():
            told += [event | {"room_id": room_id} for event in (*room.ephemeral, *room.account_data)]
        presence: list[dict[str, Any]] = []
        if scope.memberships is None:
            for room_id in scope.present:
                changed = await self._presence.changed_in(room_id, since.presence, now.presence)
                presence += [event for event in changed if event["sender"] not in ctx.ignored]
        else:
            told += ctx.body.get("account_data", {"events": []})["events"]
            if self._presence_section is not None:
                await self._presence_section.incremental(ctx, since, now)
            presence += ctx.body.get("presence", {"events": []})["events"]
        return told + [with_user_id(event) for event in presence]

    async def _new_rows(self, rooms: dict[str, Access], after: int, until: int, limit: int) -> list[TimelineRow]:
        changed = self._recent.changed_rooms(after)
        wanted = list(rooms) if changed is None else [room_id for room_id in changed if room_id in rooms]
        return await self._timeline.since(wanted, after, until, limit + 1)

    async def _invites(
        self, rooms: Rooms, after: int, until: int, ignored: frozenset[str], forms: Forms
    ) -> list[orjson.Fragment]:
        """Invites since, which are events of rooms that the user is not in."""
        new: list[RoomMembership] = [
            m for m in rooms.values() if m.membership == Membership.INVITE and after < m.stream <= until
        ]
        found = await self._states.events([m.event_id for m in new if m.sender not in ignored])
        return forms.forms(found.values(), await self._annotator.versions(found.values()))


def with_user_id(event: dict[str, Any]) -> dict[str, Any]:
    """An m.presence event as the clients of the time expect it: it names its user in the content, too."""
    return event | {"content": {**event["content"], "user_id": event["sender"]}}
