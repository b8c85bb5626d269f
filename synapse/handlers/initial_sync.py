"""`GET /initialSync` and `GET /rooms/{roomId}/initialSync`: how clients began before there was /sync.

The first is a first sync in another shape. The second reads one room, also for those who have left it or look in from
outside. Client-server API, "Syncing" (deprecated endpoints) and "Getting events for a room".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import orjson

from synapse.api.constants import AccountDataTypes, Membership
from synapse.api.filters import Filter, TypePatterns
from synapse.handlers.event_stream import with_user_id
from synapse.handlers.pagination import PageRequest, Pagination
from synapse.handlers.presence import PresenceReading
from synapse.handlers.visibility import RoomDoor, Standing
from synapse.storage.account_data import AccountDataStore
from synapse.storage.past_state import PastStateStore
from synapse.storage.receipts import ReceiptStore
from synapse.storage.timeline import TimelineRow, TimelineStore
from synapse.storage.user_rooms import RoomMembership
from synapse.sync.context import RoomAnswer, SyncContext
from synapse.sync.forms import Annotator, Forms
from synapse.sync.handler import Present, SyncHandler, SyncRequest
from synapse.sync.memberships import Memberships
from synapse.sync.sections.receipts import contents
from synapse.sync.state_at import state_at
from synapse.sync.tokens import RoomToken
from synapse.util.clock import Clock

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 100


class InitialSync:
    """Reads everything, or one room.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        syncs: SyncHandler,
        present: Present,
        memberships: Memberships,
        door: RoomDoor,
        pagination: Pagination,
        timeline: TimelineStore,
        states: PastStateStore,
        receipts: ReceiptStore,
        account_data: AccountDataStore,
        presence: PresenceReading,
        annotator: Annotator,
        clock: Clock,
    ) -> None:
        self._syncs = syncs
        self._present = present
        self._memberships = memberships
        self._door = door
        self._pagination = pagination
        self._timeline = timeline
        self._states = states
        self._receipts = receipts
        self._account_data = account_data
        self._presence = presence
        self._annotator = annotator
        self._clock = clock

    async def everything(self, user_id: str, device_id: str | None, limit: int, archived: bool) -> bytes:
        """`GET /initialSync`."""
        question = SyncRequest(user_id, device_id, _filter(limit, archived), state_after=True, old=True)
        ctx = await self._syncs.context(question, None)
        public = await self._timeline.published(list(ctx.rooms))
        known = (await self._memberships.of(user_id)).rooms
        rooms = [_room(ctx, known[room_id], room, room_id in public) for room_id, room in ctx.rooms.items()]
        rooms += await self._pending(ctx)
        ephemeral = [event | {"room_id": r} for r, room in ctx.rooms.items() for event in room.ephemeral]
        presence = await self._presence.with_own(user_id, ctx.body.get("presence", {"events": []})["events"])
        return orjson.dumps(
            {
                "end": str(ctx.next),
                "rooms": rooms,
                "presence": [with_user_id(event) for event in presence],
                "account_data": ctx.body.get("account_data", {"events": []})["events"],
                "receipts": [event for event in ephemeral if event["type"] == "m.receipt"],
            }
        )

    async def room(self, user_id: str, device_id: str | None, room_id: str, limit: int) -> bytes:
        """`GET /rooms/{roomId}/initialSync`. Raises 403.

        Who has left gets the room as it was then, without what passes now.
        """
        standing = await self._door.state_standing(user_id, room_id)
        until = standing.access.until
        now = self._present.token()
        point = RoomToken(None, now.events if until is None else until)
        forms = Forms(int(self._clock.seconds() * 1000), room_ids=True, old=True)
        rows, chunk = await self._messages(
            PageRequest(user_id, device_id, room_id, True, point, limit=limit), standing, forms
        )
        first = RoomToken(None, point.stream) if not rows else RoomToken(rows[-1].depth, rows[-1].stream - 1)
        state = list((await state_at(self._states, room_id, until)).values())
        data = [datum for datum in await self._account_data.of_user(user_id) if datum.room_id == room_id]
        answer: dict[str, Any] = {
            "room_id": room_id,
            "membership": standing.membership or Membership.LEAVE,
            "messages": {"chunk": chunk, "start": str(first), "end": str(now) if until is None else str(point)},
            "state": forms.forms(state, await self._annotator.versions(state)),
            "visibility": "public" if await self._timeline.published([room_id]) else "private",
            "account_data": [{"type": d.type, "content": orjson.Fragment(d.content)} for d in data],
            "presence": [],
            "receipts": [],
        }
        if until is None:
            presence = await self._presence.of_members(room_id, now.presence)
            answer["presence"] = [with_user_id(event) for event in presence]
            receipts = await self._receipts.of_rooms([room_id], user_id, now.receipts)
            told = contents(receipts)
            answer["receipts"] = [{"type": "m.receipt", "room_id": room_id, "content": each} for each in told]
        return orjson.dumps(answer)

    async def _messages(
        self, request: PageRequest, standing: Standing, forms: Forms
    ) -> tuple[list[TimelineRow], list[orjson.Fragment]]:
        """The last rows of the room, newest first, and those of them that the user may see as events, oldest first."""
        assert request.start is not None, "a page of the last messages starts at a point"
        rows, _ = await self._pagination.page(request, request.start, request.start.stream)
        seen = await self._pagination.seen(request.user_id, request.room_id, rows[::-1], standing.access)
        notes = await self._annotator.notes([row for row, _ in seen], request.user_id, request.device_id)
        return rows, [orjson.Fragment(forms.form(row, notes, membership)) for row, membership in seen]

    async def _pending(self, ctx: SyncContext) -> list[dict[str, Any]]:
        """Rooms that the user is invited to, with the invite itself."""
        invites = await self._states.events([m.event_id for m in ctx.pending if m.room_id in ctx.invited])
        notes = await self._annotator.versions(invites.values())
        return [
            {
                "room_id": row.room_id,
                "membership": Membership.INVITE,
                "inviter": row.sender,
                "invite": orjson.Fragment(ctx.forms.form(row, notes)),
            }
            for row in invites.values()
        ]


def _filter(limit: int, archived: bool) -> Filter:
    plain = Filter()
    timeline = replace(plain.room.timeline, limit=limit)
    # What "the user has created": push rules were never part of this, and have endpoints of their own.
    account_data = replace(plain.account_data, not_types=TypePatterns([AccountDataTypes.PUSH_RULES]))
    room = replace(plain.room, timeline=timeline, include_leave=archived)
    return replace(plain, room=room, account_data=account_data)


def _room(ctx: SyncContext, standing: RoomMembership, room: RoomAnswer, is_public: bool) -> dict[str, Any]:
    window = ctx.windows[standing.room_id]
    messages: dict[str, Any] = {"chunk": room.timeline, "end": str(RoomToken(None, window.until))}
    if room.prev_batch is not None:
        messages["start"] = room.prev_batch
    return {
        "room_id": standing.room_id,
        "membership": standing.membership if window.left else Membership.JOIN,
        "messages": messages,
        "state": room.state,
        "visibility": "public" if is_public else "private",
        "account_data": room.account_data,
    }
