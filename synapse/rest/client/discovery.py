"""Endpoints that tell a client what it finds here: capabilities, TURN servers."""

from __future__ import annotations

from typing import Any

from synapse.handlers.capabilities import capabilities
from synapse.handlers.turn import Turn
from synapse.http.server import Request, serves


class Capabilities:
    """`/capabilities`."""

    def __init__(
        self,
        default_room_version: str,
        change_password: bool,
        fixed_fields: frozenset[str],
        login_token: bool,
        threepids: bool,
    ) -> None:
        self._default_room_version = default_room_version
        self._change_password = change_password
        self._fixed_fields = fixed_fields
        self._login_token = login_token
        self._threepids = threepids

    @serves("capabilities")
    async def capabilities(self, request: Request) -> dict[str, Any]:
        version, user = self._default_room_version, request.user
        marks = {"is_guest": user.is_guest, "is_admin": user.is_admin}
        # Who logs in at an authorization server manages the account there ("Account management").
        here = not user.via_oauth
        ways = (here and self._login_token, here and self._threepids)
        return capabilities(version, here and self._change_password, self._fixed_fields, *ways, **marks)


class AccountServices:
    """`/voip/turnServer`."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @serves("turn_server")
    async def turn_server(self, request: Request) -> dict[str, Any]:
        return self._turn.credentials(request.user.user_id, request.user.is_guest)
