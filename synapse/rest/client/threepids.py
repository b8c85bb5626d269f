"""Endpoints for the addresses of an account. Client-server API, "Adding Account Administrative Contact Information"."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from synapse.api.errors import missing_param
from synapse.api.threepids import canonical
from synapse.handlers.identity_bindings import IdentityBindings
from synapse.handlers.threepids import Threepids
from synapse.handlers.ui_auth import Operation, UiAuth
from synapse.http.body import convert
from synapse.http.server import Request, serves


class Session(msgspec.Struct, frozen=True):
    """The session of validation that proves an address."""

    sid: str
    client_secret: str


class Credentials(msgspec.Struct, frozen=True):
    """The same as `Session`, from when it could have been an identity server's; which one is of no interest."""

    sid: str
    client_secret: str
    id_server: str
    id_access_token: str


class OldAdd(msgspec.Struct, frozen=True):
    """The body of `POST /account/3pid`; very old clients name the credentials otherwise."""

    three_pid_creds: Credentials | None = None
    threePidCreds: Credentials | None = None


class Bind(msgspec.Struct, frozen=True):
    """The body of `/account/3pid/bind`: a session of the identity server."""

    id_server: str
    id_access_token: str
    sid: str
    client_secret: str


class Named(msgspec.Struct, frozen=True):
    """An address, and the identity server that is meant, where one is."""

    medium: Literal["email", "msisdn"]
    address: str
    id_server: str | None = None


class ThreepidEndpoints:
    """`/account/3pid` and what is below it, but for `…/requestToken`."""

    def __init__(self, threepids: Threepids, bindings: IdentityBindings, ui_auth: UiAuth) -> None:
        self._threepids = threepids
        self._bindings = bindings
        self._ui_auth = ui_auth

    @serves("threepids")
    async def of_user(self, request: Request) -> dict[str, Any]:
        return {"threepids": await self._threepids.of_user(request.user.user_id)}

    @serves("threepids_add_old")
    async def add_old(self, request: Request) -> dict[str, Any]:
        """Deprecated: the same as `/add`, without the question who it is."""
        body = request.body_as(OldAdd)
        session = body.three_pid_creds or body.threePidCreds
        if session is None:
            raise missing_param("three_pid_creds")
        await self._threepids.add(request.user.user_id, session.sid, session.client_secret)
        return {}

    @serves("threepids_add")
    async def add(self, request: Request) -> dict[str, Any]:
        body = request.json_object()
        user_id = request.user.user_id
        operation = Operation("POST", "threepids_add", "add an address to the account", user_id)
        flows = await self._ui_auth.own_flows(user_id)
        if "auth" not in body:
            # Whatever is wrong is said before the client is sent through the stages.
            session = convert(body, Session)
            await self._threepids.check(session.sid, session.client_secret)
        session = convert((await self._ui_auth.check(operation, body, flows, request)).body, Session)
        await self._threepids.add(user_id, session.sid, session.client_secret)
        return {}

    @serves("threepids_bind")
    async def bind(self, request: Request) -> dict[str, Any]:
        wish = request.body_as(Bind)
        user_id = request.user.user_id
        await self._bindings.bind(user_id, wish.id_server, wish.id_access_token, wish.sid, wish.client_secret)
        return {}

    @serves("threepids_delete")
    async def delete(self, request: Request) -> dict[str, Any]:
        named = request.body_as(Named)
        address = canonical(named.medium, named.address)
        done = await self._threepids.remove(request.user.user_id, named.medium, address, named.id_server)
        return unbind_result(done)

    @serves("threepids_unbind")
    async def unbind(self, request: Request) -> dict[str, Any]:
        named = request.body_as(Named)
        address = canonical(named.medium, named.address)
        return unbind_result(await self._bindings.unbind(request.user.user_id, named.medium, address, named.id_server))


def unbind_result(done: bool) -> dict[str, Any]:
    """Whether identity servers tell of an address no more, as several operations answer it."""
    return {"id_server_unbind_result": "success" if done else "no-support"}
