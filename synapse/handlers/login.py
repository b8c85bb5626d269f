"""Logging in, whichever the way: the kinds of login that this server takes, and the session that each ends with.

Client-server API, "Login".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from synapse.api.errors import bad_json, missing_param, unknown
from synapse.handlers.new_sessions import AccountChanged, DeviceRequest
from synapse.http.body import convert

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse.handlers.login_kinds import LoginKind
    from synapse.handlers.new_sessions import LoggedIn, NewSessions
    from synapse.http.request import Request


class LoginBody(DeviceRequest, frozen=True, kw_only=True):
    """What bodies of all kinds have."""

    refresh_token: bool = False  # whether the client can use one


class Login:
    """Takes a login to the kind that it is of.

    :param kinds: in the order in which `GET /login` tells them.
    :param well_known: what clients are told of this server once they have logged in, as in /.well-known/matrix/client;
        None where it is not known under which URL they reach it.
    """

    def __init__(self, kinds: Iterable[LoginKind], sessions: NewSessions, well_known: dict[str, Any] | None) -> None:
        self._well_known = well_known
        self._kinds = {kind.kind: kind for kind in kinds}
        self._sessions = sessions

    def flows(self) -> list[dict[str, Any]]:
        """Client-server API, `GET /login`."""
        return [flow for kind in self._kinds.values() if (flow := kind.flow()) is not None]

    async def login(self, body: dict[str, Any], request: Request) -> LoggedIn:
        """Client-server API, `POST /login`. Raises 403 M_FORBIDDEN, M_USER_DEACTIVATED; 400; 429."""
        name = body.get("type")
        if not isinstance(name, str):
            raise missing_param("type") if name is None else bad_json("The key 'type' must be a string.")
        kind = self._kinds.get(name)
        if kind is None:
            raise unknown(f"The login type '{name[:80]}' is not offered here; ask GET /login for those that are.")
        wanted = convert(body, LoginBody)
        try:
            session = await self._begin(kind, body, wanted, request)
        except AccountChanged:
            # Perhaps the same password has been hashed anew by another login; if it is another one, this now says so.
            session = await self._begin(kind, body, wanted, request)
        return msgspec.structs.replace(session, well_known=self._well_known)

    async def _begin(self, kind: LoginKind, body: dict[str, Any], wanted: LoginBody, request: Request) -> LoggedIn:
        proof = await kind.user_of(body, request)
        return await self._sessions.begin(proof.user_id, wanted, refresh=wanted.refresh_token, proof=proof)
