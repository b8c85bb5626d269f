"""Endpoints for what passes: typing, read receipts and markers.

Client-server API, "Typing notifications", "Receipts", "Read and unread markers".
"""

from __future__ import annotations

from typing import Any

from synapse.api.identifiers import parse_room_id
from synapse.handlers.receipts import Receipts
from synapse.handlers.typing import Typing
from synapse.http.server import Request, serves


class EphemeralEndpoints:
    """`/rooms/{roomId}/typing`, `/receipt` and `/read_markers`."""

    def __init__(self, typing: Typing, receipts: Receipts) -> None:
        self._typing = typing
        self._receipts = receipts

    @serves("room_typing")
    async def typing(self, request: Request, room_id: str, user_id: str) -> dict[str, Any]:
        room_id = parse_room_id(room_id)
        await self._typing.receive(request.user.user_id, room_id, user_id, request.json_object())
        return {}

    @serves("room_receipt")
    async def receipt(self, request: Request, room_id: str, receipt_type: str, event_id: str) -> dict[str, Any]:
        body = request.json_object(allow_empty=True)
        await self._receipts.receive(request.user.user_id, parse_room_id(room_id), receipt_type, event_id, body)
        return {}

    @serves("room_read_markers")
    async def read_markers(self, request: Request, room_id: str) -> dict[str, Any]:
        await self._receipts.receive_markers(request.user.user_id, parse_room_id(room_id), request.json_object())
        return {}
