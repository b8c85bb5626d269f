"""Endpoints that tell a client what it finds here: capabilities, TURN servers, third-party identifiers."""

from __future__ import annotations

from typing import Any

from synapse.handlers.capabilities import capabilities
from synapse.handlers.turn import Turn
from synapse.http.server import Request, serves


class Capabilities:
    """`/capabilities`."""

    def __init__(
        self, default_room_version: str, change_password: bool, fixed_fields: frozenset[str], login_token: bool
    ) -> None:
        self._default_room_version = default_room_version
        self._change_password = change_password
        self._fixed_fields = fixed_fields
        self._login_token = login_token

    @serves("capabilities")
    async def capabilities(self, request: Request) -> dict[str, Any]:
        version, user = self._default_room_version, request.user
        marks = {"is_guest": user.is_guest, "is_admin": user.is_admin}
        return capabilities(version, self._change_password, self._fixed_fields, self._login_token, **marks)


class AccountServices:
    """`/voip/turnServer` and `/account/3pid`."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @serves("turn_server")
    async def turn_server(self, request: Request) -> dict[str, Any]:
        return self._turn.credentials(request.user.user_id, request.user.is_guest)

    @serves("threepids")
    async def threepids(self, request: Request) -> dict[str, Any]:
        """Nobody has any: there is no way to add one on this server (`m.3pid_changes` says so)."""
        return {"threepids": []}
