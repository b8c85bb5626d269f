"""`/_synapse/admin/v1/send_server_notice`: an administrator tells a user something in the name of the server."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.api.constants import EventTypes
from synapse.api.errors import invalid_param
from synapse.api.identifiers import parse_user_id
from synapse.handlers.server_notices import Notice, ServerNotices
from synapse.http.server import Request, serves


class SendNotice(msgspec.Struct, frozen=True, kw_only=True):
    """The body."""

    user_id: str
    content: dict[str, Any]
    type: str = EventTypes.MESSAGE
    state_key: str | None = None


class AdminServerNotices:
    """With a transaction id, the same request tells it once."""

    def __init__(self, notices: ServerNotices, server_name: str) -> None:
        self._notices = notices
        self._server_name = server_name

    @serves("admin_send_server_notice")
    async def send(self, request: Request) -> dict[str, Any]:
        return await self._send(request, None)

    @serves("admin_send_server_notice_once")
    async def send_once(self, request: Request, txn_id: str) -> dict[str, Any]:
        return await self._send(request, f"{request.user.user_id} {txn_id}")

    async def _send(self, request: Request, txn_id: str | None) -> dict[str, Any]:
        wish = request.body_as(SendNotice)
        if parse_user_id(wish.user_id).domain != self._server_name:
            raise invalid_param("Server notices can only be sent to users of this server.")
        notice = Notice(
            user_id=wish.user_id, content=wish.content, type=wish.type, state_key=wish.state_key, txn_id=txn_id
        )
        return {"event_id": await self._notices.send(notice)}
