"""Which server has signed a request: X-Matrix, as the router wants it.

Server-server API, "Request Authentication".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.errors import MatrixError, forbidden, invalid_param, not_json, unauthorized
from synapse.api.identifiers import is_server_name
from synapse.events import canonical
from synapse.events.signing import SUPPORTED_ALGORITHM, SignatureError
from synapse.federation.x_matrix import Credentials, parse

if TYPE_CHECKING:
    from synapse.federation.destinations import Destinations
    from synapse.federation.keyring import KeyRing
    from synapse.http.request import Request
    from synapse.util.clock import Clock

_IN_THREAD: Final = 64 << 10  # bytes of a body from which on it is read elsewhere


class RequestSignatures:
    """A `ServerAuthenticator` of the router.

    :param is_allowed: whether this server has to do with that other one at all.
    :param heard_from: is told of each server that has proved to be there.
    :param in_thread: runs a function on another thread.
    """

    def __init__(
        self,
        server_name: str,
        keyring: KeyRing,
        is_allowed: Callable[[str], bool],
        destinations: Destinations,
        in_thread: Callable[..., Awaitable[Any]],
        clock: Clock,
    ) -> None:
        self._server_name = server_name
        self._keyring = keyring
        self._is_allowed = is_allowed
        self._destinations = destinations
        self._in_thread = in_thread
        self._clock = clock

    async def origin_of(self, request: Request) -> str:
        """The server that has signed the request for this one.

        Raises MatrixError: 401 M_UNAUTHORIZED where it is not signed, not rightly, or for another server; 403
        M_FORBIDDEN where this server does not federate with that one; 400 M_INVALID_PARAM for an origin that is no
        server name, M_NOT_JSON for a body that is no JSON.
        """
        credentials = parse(request.headers.get("authorization"))
        origin = credentials.origin
        if not is_server_name(origin):
            raise invalid_param("The 'origin' of the Authorization header is not a server name.")
        if origin == self._server_name:
            raise unauthorized(f"{origin} is this server itself.")
        if credentials.destination is not None and credentials.destination != self._server_name:
            raise unauthorized(f"The request is signed for another server than {self._server_name}.")
        if not self._is_allowed(origin):
            raise forbidden(f"This server does not federate with {origin}.")
        await self._verify(request, credentials)
        self._destinations.heard_from(origin)
        return origin

    async def _verify(self, request: Request, credentials: Credentials) -> None:
        signatures = {
            key_id: text for key_id, text in credentials.signatures.items() if key_id.startswith(SUPPORTED_ALGORITHM)
        }
        if not signatures:
            raise unauthorized("The request is signed with an algorithm that this server does not know.")
        body = request.body
        if len(body) < _IN_THREAD:
            message = _signed(request.method, request.raw.target, credentials, body)
        else:
            message = await self._in_thread(_signed, request.method, request.raw.target, credentials, body)
        now = int(self._clock.seconds() * 1000)
        try:
            await self._keyring.verify_message(credentials.origin, message, signatures, now)
        except SignatureError as error:
            raise unauthorized(f"The signature of {credentials.origin} could not be verified: {error}") from None


def _signed(method: str, target: str, credentials: Credentials, body: bytes) -> bytes:
    """The bytes that the signature is over. Raises MatrixError."""
    signed: dict[str, Any] = {"method": method, "uri": target, "origin": credentials.origin}
    if credentials.destination is not None:
        signed["destination"] = credentials.destination
    if body:
        signed["content"] = _content(body)
    try:
        canonical.check(signed)
    except MatrixError:
        # Floats, or integers beyond those of canonical JSON, whose digits the fast parser may have lost.
        if body:
            signed["content"] = canonical.parse_lenient(body)
        return canonical.encode_lenient(signed)
    return canonical.encode(signed)


def _content(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise not_json(f"The body of the request is not valid JSON: {error.msg}.") from None
