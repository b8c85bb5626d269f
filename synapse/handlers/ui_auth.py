"""User-interactive authentication: a request that needs proof is answered 401 with ways to give it, and made again.

    proven = await ui_auth.check(operation, body, flows, request)

gives the body (without `auth`) and what the stages proved once one of the flows is complete, and raises
`AuthenticationNeeded` before. Which operations need it, and what they do then, is their own matter; the stages are in
`synapse.handlers.ui_stages`. A client that sends all that a flow needs with its first request is let through without a
session; otherwise the session is in the database: each step may come to any process.

Client-server API, "User-Interactive Authentication API".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, bad_json, forbidden, invalid_param, missing_param, not_found, unknown
from synapse.api.identifiers import random_letters
from synapse.handlers.ui_stages.types import Attempt, IdentityStage, Operation, Stage
from synapse.storage.ui_auth import UiAuthSession
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse.handlers.passwords import Passwords
    from synapse.http.request import Request
    from synapse.storage.ui_auth import UiAuthStore
    from synapse.util.clock import Clock

__all__ = ("AuthenticationNeeded", "Flows", "Operation", "Proven", "UiAuth")

Flows = list[list[str]]

# Never written down. Of the password to be set the hash is; the others have to be sent again with the last request.
_SECRETS: Final = ("password", "new_password", "guest_access_token")
SESSION_LIFETIME_MS: Final = 24 * 3600 * 1000
_ABSENT: Final = object()


class Proven(NamedTuple):
    """The request to act on, without `auth`, and what the stages proved, by their kinds.

    `password_hash` is that of the password to be set (`operation.password`), which may be missing in the body: it was
    sent with an earlier step.
    """

    body: dict[str, Any]
    proofs: dict[str, Any]
    password_hash: str | None
    session_id: str | None = None  # of an operation that keeps its session


class AuthenticationNeeded(MatrixError):
    """401 with the flows that would do; with an errcode only where a step was tried and failed."""

    def __init__(
        self, session: UiAuthSession, flows: Flows, params: dict[str, Any], failure: MatrixError | None
    ) -> None:
        super().__init__(401, Codes.FORBIDDEN, "Additional authentication is needed.")
        self.fields = {"session": session.session_id, "flows": [{"stages": flow} for flow in flows], "params": params}
        self.fields["completed"] = list(session.completed)
        if failure is not None:
            self.fields |= {"errcode": failure.errcode, "error": failure.message}

    def body(self) -> dict[str, Any]:
        return dict(self.fields)


class UiAuth:
    """Takes clients through the stages.

    :param timeout_ms: for how long an authentication counts for what the same device does next; 0 for not at all.
    """

    def __init__(
        self, store: UiAuthStore, stages: Iterable[Stage], passwords: Passwords, clock: Clock, *, timeout_ms: int
    ) -> None:
        self._store = store
        self._stages = {stage.kind: stage for stage in stages}
        self._passwords = passwords
        self._clock = clock
        self._timeout = timeout_ms

    async def own_flows(self, user_id: str | None) -> Flows:
        """How the user proves to be the owner of the account; of None, how people do who are not logged in.

        Raises 403 for a user who has no way of doing that.
        """
        identities = [stage for stage in self._stages.values() if isinstance(stage, IdentityStage)]
        flows = [[stage.kind] for stage in identities if await stage.is_open_to(user_id)]
        if not flows:
            raise forbidden("You have neither a password nor a single sign-on, and so no way of proving who you are.")
        return flows

    async def check(self, operation: Operation, body: dict[str, Any], flows: Flows, request: Request) -> Proven:
        """What to act on. Raises `AuthenticationNeeded`, or 400, 403 for what cannot succeed."""
        body = dict(body)
        auth = body.pop("auth", None)
        if auth is None or auth == {}:  # some clients' way of asking what is needed
            if operation.reusable and await self._is_fresh(operation, request):
                return Proven(body, {}, await self._hash_of(operation, body))
            begun = await self._begin(operation, body, request)
            raise AuthenticationNeeded(begun, flows, self._params(flows), None)
        if not isinstance(auth, dict):
            raise bad_json("The key 'auth' must be an object.")
        session_id = _session_id(auth)
        session = None if session_id is None else await self.session(session_id)
        if session is not None:
            body = _same_request(operation, session, body)
        return await self._step(operation, auth, session, body, flows, request)

    async def session(self, session_id: str) -> UiAuthSession:
        """A session that is not over yet. Raises 400 M_UNKNOWN."""
        found = None if "\x00" in session_id else await self._store.get(session_id)
        if found is None or found.created_ts < self._now() - SESSION_LIFETIME_MS:
            raise unknown("The session is not known, or it has expired; begin again without 'auth'.")
        return found

    async def complete(self, session_id: str, kind: str, result: Any) -> None:
        """Notes what a stage proved elsewhere than in the API's call: on a page, say. Raises 400 M_UNKNOWN."""
        await self.session(session_id)
        await self._store.complete(session_id, kind, result, None)

    async def attempt(self, session: UiAuthSession, kind: str, auth: dict[str, Any], request: Request) -> None:
        """Passes a stage on a page, where nobody knows the operation's flows. Raises what the stage raises, 404."""
        stage = self._stages.get(kind)
        if stage is None:
            raise not_found(f"There is no authentication type '{kind[:80]}' here.")
        operation = Operation(session.method, session.uri, session.description, session.user_id)
        attempt = Attempt(operation, session.session_id, request.client_ip, request.user_agent)
        result = await stage.check(auth, attempt)
        await self._store.complete(session.session_id, kind, result, session.user_id)

    def params_of(self, kind: str) -> dict[str, Any] | None:
        """What has to be known to show a stage. Raises 404 M_NOT_FOUND where it is not used here."""
        stage = self._stages.get(kind)
        if stage is None:
            raise not_found(f"There is no authentication type '{kind[:80]}' here.")
        return stage.params()

    # -- steps -------------------------------------------------------------------------------------------------------

    async def _step(
        self,
        operation: Operation,
        auth: dict[str, Any],
        session: UiAuthSession | None,
        body: dict[str, Any],
        flows: Flows,
        request: Request,
    ) -> Proven:
        completed = {} if session is None else dict(session.completed)
        failure = None
        if "type" in auth:
            try:
                attempt = Attempt(operation, _session_id(auth), request.client_ip, request.user_agent)
                completed |= await self._try_stage(auth, attempt, completed, flows)
            except MatrixError as error:
                if error.code != 401:
                    raise
                failure = error
        if failure is None and any(set(flow) <= completed.keys() for flow in flows):
            self._check_proofs(operation, completed)
            password_hash = await self._finish(operation, session, body)
            await self._note_freshness(operation, request, completed)
            kept = session.session_id if session is not None and operation.keeps_session else None
            return Proven(body, completed, password_hash, kept)
        if session is not None:
            await self._grow(operation, session, body)
        else:
            session = await self._begin(operation, body, request)
            for stage, result in completed.items():
                await self._store.complete(session.session_id, stage, result, operation.user_id)
        session.completed.update(completed)
        raise AuthenticationNeeded(session, flows, self._params(flows), failure)

    async def _try_stage(
        self, auth: dict[str, Any], attempt: Attempt, completed: dict[str, Any], flows: Flows
    ) -> dict[str, Any]:
        kind = auth["type"]
        if not isinstance(kind, str):
            raise bad_json("The key 'auth.type' must be a string.")
        stage = self._stages.get(kind)
        mine = [flow for flow in flows if kind in flow]
        if stage is None or (not mine and not attempt.operation.takes_any):
            raise unknown(f"The authentication type '{kind[:80]}' cannot be used here.")
        if kind in completed:  # such stages cannot be retried; the answer is what it was
            return {}
        if mine and not any(completed.keys() >= set(flow[: flow.index(kind)]) for flow in mine):
            raise MatrixError(401, Codes.FORBIDDEN, "The stages of a flow must be completed in their order.")
        result = await stage.check(auth, attempt)
        if attempt.session_id is not None:
            await self._store.complete(attempt.session_id, kind, result, attempt.operation.user_id)
        return {kind: result}

    def _params(self, flows: Flows) -> dict[str, Any]:
        kinds = {kind for flow in flows for kind in flow}
        params = {kind: stage.params() for kind, stage in self._stages.items() if kind in kinds}
        return {kind: value for kind, value in params.items() if value is not None}

    def _check_proofs(self, operation: Operation, completed: dict[str, Any]) -> None:
        """Whoever came back from single sign-on may be another user. Raises 403."""
        if completed.get(LoginTypes.SSO, operation.user_id) != operation.user_id:
            raise forbidden("It was another user who was confirmed; begin again without 'auth'.")

    # -- sessions ----------------------------------------------------------------------------------------------------

    async def _begin(self, operation: Operation, body: dict[str, Any], request: Request) -> UiAuthSession:
        _check_storable(body)
        now = self._now()
        session = UiAuthSession(
            random_letters(24),
            now,
            _without_secrets(body),
            operation.endpoint,
            operation.method,
            {
                "secrets": [key for key in _SECRETS if key in body],
                "password_hash": await self._hash_of(operation, body),
                "client_ip": request.client_ip,
            },
            completed={},
            user_id=operation.user_id,
        )
        await self._store.create(session, operation.description, now - SESSION_LIFETIME_MS)
        return session

    async def _grow(self, operation: Operation, session: UiAuthSession, body: dict[str, Any]) -> None:
        """Keeps what a step has brought that was not there before, for the steps that leave it out."""
        client_dict = _without_secrets(body)
        server_dict = dict(session.server_dict)
        known = server_dict.get("secrets", ())
        server_dict["secrets"] = [key for key in _SECRETS if key in body or key in known]
        if server_dict.get("password_hash") is None:
            server_dict["password_hash"] = await self._hash_of(operation, body)
        if (client_dict, server_dict) == (session.client_dict, session.server_dict):
            return
        _check_storable(body)
        if not await self._store.grow(session, client_dict, server_dict):
            raise forbidden("Another step has changed the request meanwhile; ask again what is needed.")

    async def _finish(self, operation: Operation, session: UiAuthSession | None, body: dict[str, Any]) -> str | None:
        """Ends the session, which serves once; the hash of the password that the request is for."""
        if session is None:
            return await self._hash_of(operation, body)
        kept: str | None = session.server_dict.get("password_hash")
        for key in session.server_dict.get("secrets", ()):
            if key not in body and (kept is None or key != operation.password):
                raise missing_param(key)
        password = _password_in(operation, body)
        if kept is None:
            kept = await self._hash_of(operation, body)
        elif password is not None and not await self._passwords.matches(password, kept):
            raise forbidden("The password has changed since the session was begun.")
        if not operation.keeps_session and not await self._store.delete(session.session_id):
            raise used_already()
        return kept

    async def _hash_of(self, operation: Operation, body: dict[str, Any]) -> str | None:
        password = _password_in(operation, body)
        return None if password is None else await self._passwords.hash(password)

    # -- authentications that are fresh ------------------------------------------------------------------------------

    async def _is_fresh(self, operation: Operation, request: Request) -> bool:
        device = _device(operation, request)
        if not self._timeout or device is None:
            return False
        return await self._store.is_fresh(device, self._now() - self._timeout)

    async def _note_freshness(self, operation: Operation, request: Request, completed: dict[str, Any]) -> None:
        device = _device(operation, request)
        if not self._timeout or device is None:
            return
        if any(isinstance(self._stages.get(kind), IdentityStage) for kind in completed):
            await self._store.note_freshness(device, self._now(), self._now() - self._timeout)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def continues(body: dict[str, Any]) -> bool:
    """Whether a request goes on with a session. What is limited is how many are begun."""
    auth = body.get("auth")
    return isinstance(auth, dict) and isinstance(auth.get("session"), str)


def used_already() -> MatrixError:
    return unknown("The session has been used already; begin again without 'auth'.")


def _session_id(auth: dict[str, Any]) -> str | None:
    session_id = auth.get("session")
    if session_id is None and "type" not in auth:
        raise missing_param("auth.session")
    if session_id is not None and not isinstance(session_id, str):
        raise bad_json("The key 'auth.session' must be a string.")
    return session_id


def _same_request(operation: Operation, session: UiAuthSession, body: dict[str, Any]) -> dict[str, Any]:
    """The request of the session's beginning: steps may leave parameters out, but not change them.

    Nor may they bring others, unless nobody is logged in whom what they proved could be turned against: many clients
    ask with an empty request what is needed to register, before their users have chosen a name.
    """
    if (session.method, session.uri) != (operation.method, operation.endpoint):
        raise forbidden("The session was begun for another operation.")
    if session.user_id is not None and session.user_id != operation.user_id:
        raise forbidden("The session was begun by another user.")
    for key, value in body.items():
        if key in _SECRETS or (operation.user_id is None and key not in session.client_dict):
            continue
        if session.client_dict.get(key, _ABSENT) != value:
            raise forbidden(f"The parameter '{key[:80]}' has changed since the session was begun.")
    return {**session.client_dict, **body}


def _without_secrets(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in _SECRETS}


def _check_storable(body: dict[str, Any]) -> None:
    if (problem := problem_of(body)) is not None:
        raise invalid_param(f"The request cannot be stored until it is completed: {problem}.")


def _password_in(operation: Operation, body: dict[str, Any]) -> str | None:
    found = None if operation.password is None else body.get(operation.password)
    return found if isinstance(found, str) else None


def _device(operation: Operation, request: Request) -> tuple[str, str] | None:
    """User and device that ask, if they are who has to prove to be themselves."""
    requester = request.requester
    if requester is None or requester.device_id is None or requester.user_id != operation.user_id:
        return None
    return requester.user_id, requester.device_id
