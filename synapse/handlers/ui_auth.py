"""User-interactive authentication: a request that needs proof is answered 401 with ways to give it, and made again.

    values = await ui_auth.check(operation, body, flows)

returns the body (without `auth`) once one of the flows is complete, and raises `AuthenticationNeeded` before. Which
operations need it, and what they do then, is their own matter. A client that sends all that a flow needs with its first
request is let through without a session; otherwise the session is in the database: each step may come to any process.

Client-server API, "User-Interactive Authentication API".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, bad_json, forbidden, invalid_param, missing_param, unknown
from synapse.api.identifiers import random_letters
from synapse.storage.ui_auth import UiAuthSession
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.storage.ui_auth import UiAuthStore
    from synapse.util.clock import Clock

_SECRETS: Final = ("password", "new_password", "guest_access_token")
SESSION_LIFETIME_MS: Final = 24 * 3600 * 1000


class Operation(NamedTuple):
    """What the proof is for. A session is good for the one operation that it was begun for."""

    method: str
    endpoint: str  # its name in the route table: a client may change to another version of the path
    description: str
    user_id: str | None  # whose password counts; None where nobody is logged in yet


class AuthenticationNeeded(MatrixError):
    """401 with the flows that would do; with an errcode only where a step was tried and failed."""

    def __init__(self, session: UiAuthSession, flows: list[list[str]], failure: MatrixError | None) -> None:
        super().__init__(401, Codes.FORBIDDEN, "Additional authentication is needed.")
        self.fields = {"session": session.session_id, "flows": [{"stages": flow} for flow in flows], "params": {}}
        self.fields["completed"] = list(session.completed)
        if failure is not None:
            self.fields |= {"errcode": failure.errcode, "error": failure.message}

    def body(self) -> dict[str, Any]:
        return dict(self.fields)


class UiAuth:
    """Takes clients through the stages.

    :param check_password: checks the `auth` of a stage m.login.password for a user id; raises 403 M_FORBIDDEN.
    """

    def __init__(
        self,
        store: UiAuthStore,
        clock: Clock,
        check_password: Callable[[str, dict[str, Any]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._check_password = check_password

    async def check(self, operation: Operation, body: dict[str, Any], flows: list[list[str]]) -> dict[str, Any]:
        """The body to act on, without `auth`. Raises `AuthenticationNeeded`, or 400/403 for what cannot succeed."""
        body = dict(body)
        auth = body.pop("auth", None)
        if auth is None:
            raise AuthenticationNeeded(await self._begin(operation, body), flows, None)
        if not isinstance(auth, dict):
            raise bad_json("The key 'auth' must be an object.")
        session, body = await self._resume(operation, auth, body)
        return await self._step(operation, auth, session, body, flows)

    async def _step(
        self,
        operation: Operation,
        auth: dict[str, Any],
        session: UiAuthSession | None,
        body: dict[str, Any],
        flows: list[list[str]],
    ) -> dict[str, Any]:
        completed = {} if session is None else dict(session.completed)
        failure = None
        if "type" in auth:
            try:
                completed |= await self._try_stage(operation, auth, session, flows)
            except MatrixError as error:
                if error.code not in (401, 403):
                    raise
                failure = error
        if failure is None and any(set(flow) <= completed.keys() for flow in flows):
            return await self._finish(session, body)
        if session is None:
            session = await self._begin(operation, body)
            for stage, result in completed.items():
                await self._store.complete(session.session_id, stage, result)
        session.completed.update(completed)
        raise AuthenticationNeeded(session, flows, failure)

    async def _try_stage(
        self, operation: Operation, auth: dict[str, Any], session: UiAuthSession | None, flows: list[list[str]]
    ) -> dict[str, Any]:
        stage = auth["type"]
        if not isinstance(stage, str):
            raise bad_json("The key 'auth.type' must be a string.")
        if not any(stage in flow for flow in flows):
            raise unknown(f"The authentication type '{stage[:80]}' cannot be used here.")
        result: object = True
        if stage == LoginTypes.PASSWORD and operation.user_id is not None:
            await self._check_password(operation.user_id, auth)
            result = operation.user_id
        elif stage != LoginTypes.DUMMY:
            raise unknown(f"The authentication type '{stage[:80]}' is not supported.")
        if session is not None:
            await self._store.complete(session.session_id, stage, result)
        return {stage: result}

    async def _begin(self, operation: Operation, body: dict[str, Any]) -> UiAuthSession:
        """Passwords are not written down; that there was one is, so that the last request cannot leave it out."""
        if (problem := problem_of(body)) is not None:
            raise invalid_param(f"The request cannot be stored until it is completed: {problem}.")
        now = self._now()
        remembered = {key: value for key, value in body.items() if key not in _SECRETS}
        server_dict = {"secrets": [key for key in _SECRETS if key in body]}
        session = UiAuthSession(
            random_letters(24), now, remembered, operation.endpoint, operation.method, server_dict, completed={}
        )
        await self._store.create(session, operation.description, now - SESSION_LIFETIME_MS)
        return session

    async def _resume(
        self, operation: Operation, auth: dict[str, Any], body: dict[str, Any]
    ) -> tuple[UiAuthSession | None, dict[str, Any]]:
        session_id = auth.get("session")
        if session_id is None:
            if "type" not in auth:
                raise missing_param("auth.session")
            return None, body
        if not isinstance(session_id, str):
            raise bad_json("The key 'auth.session' must be a string.")
        session = None if "\x00" in session_id else await self._store.get(session_id)
        if session is None or session.created_ts < self._now() - SESSION_LIFETIME_MS:
            raise unknown("The session is not known, or it has expired; begin again without 'auth'.")
        if (session.method, session.uri) != (operation.method, operation.endpoint):
            raise forbidden("The session was begun for another operation.")
        return session, _same_request(session, body)

    async def _finish(self, session: UiAuthSession | None, body: dict[str, Any]) -> dict[str, Any]:
        if session is None:
            return body
        for key in session.server_dict.get("secrets", ()):
            if key not in body:
                raise missing_param(key)
        if not await self._store.delete(session.session_id):
            raise unknown("The session has been used already; begin again without 'auth'.")
        return body

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _same_request(session: UiAuthSession, body: dict[str, Any]) -> dict[str, Any]:
    """The request of the session's beginning: steps may leave parameters out, but not bring others."""
    for key, value in body.items():
        if key not in _SECRETS and session.client_dict.get(key, _ABSENT) != value:
            raise forbidden(f"The parameter '{key[:80]}' has changed since the session was begun.")
    return {**session.client_dict, **body}


_ABSENT: Final = object()
