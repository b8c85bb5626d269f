"""Endpoints that write events: sending, redacting, setting state, creating rooms. Client-server API, "Sending events
to a room", "Redactions", "Creation".
"""

from __future__ import annotations

from typing import Any

from synapse.api.constants import EventTypes
from synapse.handlers.event_creation import EventCreation
from synapse.handlers.membership import Memberships
from synapse.handlers.redaction import Redactions
from synapse.handlers.room_creation import RoomCreation
from synapse.handlers.room_plan import CreateRoom
from synapse.handlers.room_upgrade import RoomUpgrade, UpgradeRoom
from synapse.http.server import Request, serves


class RoomWriting:
    """`/rooms/{roomId}/send`, `/redact` and `/state`."""

    def __init__(self, creation: EventCreation, redactions: Redactions, memberships: Memberships) -> None:
        self._creation = creation
        self._redactions = redactions
        self._memberships = memberships

    @serves("room_send")
    async def send(self, request: Request, room_id: str, event_type: str, txn_id: str) -> dict[str, Any]:
        return await self._send(request, room_id, event_type, txn_id)

    @serves("room_send_once")
    async def send_once(self, request: Request, room_id: str, event_type: str) -> dict[str, Any]:
        return await self._send(request, room_id, event_type, None)

    async def _send(self, request: Request, room_id: str, event_type: str, txn_id: str | None) -> dict[str, Any]:
        content = request.json_object()
        if event_type == EventTypes.REDACTION:
            sent = await self._redactions.send(request.user, room_id, content, txn_id)
        else:
            sent = await self._creation.create(
                request.user, room_id, event_type, content, txn_id=txn_id, ts=request.int_arg("ts")
            )
        return {"event_id": sent.event_id}

    @serves("room_redact")
    async def redact(self, request: Request, room_id: str, event_id: str, txn_id: str) -> dict[str, Any]:
        return await self._redact(request, room_id, event_id, txn_id)

    @serves("room_redact_once")
    async def redact_once(self, request: Request, room_id: str, event_id: str) -> dict[str, Any]:
        return await self._redact(request, room_id, event_id, None)

    async def _redact(self, request: Request, room_id: str, event_id: str, txn_id: str | None) -> dict[str, Any]:
        content = request.json_object(allow_empty=True)
        return {"event_id": (await self._redactions.redact(request.user, room_id, event_id, content, txn_id)).event_id}

    @serves("room_state_set")
    async def set_state(self, request: Request, room_id: str, event_type: str, state_key: str = "") -> dict[str, Any]:
        content = request.json_object()
        if event_type == EventTypes.MEMBER:
            return {"event_id": await self._memberships.put_state(request.user, room_id, state_key, content)}
        ts = request.int_arg("ts")
        sent = await self._creation.create(request.user, room_id, event_type, content, state_key=state_key, ts=ts)
        return {"event_id": sent.event_id}


class RoomCreate:
    """`/createRoom`, and `/rooms/{roomId}/upgrade`."""

    def __init__(self, rooms: RoomCreation, upgrades: RoomUpgrade) -> None:
        self._rooms = rooms
        self._upgrades = upgrades

    @serves("room_create")
    async def create(self, request: Request) -> dict[str, Any]:
        created = await self._rooms.create(request.user, request.body_as(CreateRoom))
        answer = {"room_id": created.room_id}
        return answer if created.room_alias is None else {**answer, "room_alias": created.room_alias}

    @serves("room_upgrade")
    async def upgrade(self, request: Request, room_id: str) -> dict[str, Any]:
        return {"replacement_room": await self._upgrades.upgrade(request.user, room_id, request.body_as(UpgradeRoom))}
