"""Drives endpoints as a listener would, without sockets: requests by known or unknown tokens, answers as JSON.

Every answer must be as the specification describes it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import orjson
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError, unauthorized, unknown_token
from synapse.http.drain import Drain
from synapse.http.server import Answer, FileAnswer, RawRequest, Request, Requester, Router
from tests.spec import answers

T = TypeVar("T")


class Reply(NamedTuple):
    """An answer: status, headers by lower-case name, and the bytes of its body."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def errcode(self) -> str:
        return str(self.json.get("errcode"))


class Tokens:
    """Stands in for the authenticator: each token is its user's id, `admin` the administrator."""

    def __init__(self) -> None:
        self.devices: dict[str, str] = {}

    async def authenticate(self, token: str, request: Request) -> Requester:
        if not token.startswith("@"):
            raise unknown_token()
        return Requester(token, self.devices.get(token, "DEVICE"), 1, is_admin=token.startswith("@admin:"))

    def app_service(self, token: str) -> Requester | None:
        return None

    async def while_valid(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        return await work


class Servers:
    """Stands in for the check of other servers' signatures: who asks is named in the header `x-origin`."""

    async def origin_of(self, request: Request) -> str:
        origin = request.headers.get("x-origin")
        if origin is None:
            raise unauthorized("The request is not signed.")
        return origin

    def turn(self, origin: str) -> AbstractAsyncContextManager[None]:
        return nullcontext()


class Body:
    """A streamed body, in pieces."""

    def __init__(self, pieces: list[bytes], announced: bool = True) -> None:
        self._pieces = pieces
        self._allowed: int | None = None
        self.length = sum(map(len, pieces)) if announced else None

    def limit(self, length: int) -> None:
        self._allowed = length
        if self.length is not None and self.length > length:
            raise MatrixError(413, "M_TOO_LARGE", "announced too much")

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


class Driver:
    """A router with the given endpoint objects, and somebody who calls it."""

    def __init__(self, *owners: object, authenticator: Any = None) -> None:
        self.router = Router(Drain(Clock()), authenticator or Tokens(), servers=Servers())
        for owner in owners:
            self.router.mount_object(owner)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str | None = None,
        origin: str | None = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        stream: Body | None = None,
    ) -> Reply:
        """`body`: bytes as they are, anything else as JSON. `user`: the access token. `origin`: the server that asks.

        A list in the query stands for a parameter that is repeated.
        """
        headers = {**(headers or {})}
        if origin is not None:
            headers["x-origin"] = origin
        if user is not None:
            headers["authorization"] = f"Bearer {user}"
        target = path + ("?" + urlencode(query, doseq=True) if query else "")
        data = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        reply = _reply(await self.router.handle(RawRequest(method, target, headers, data, stream=stream)))
        answers.check(method, target, data, reply.code, reply.body)
        return reply


def _reply(answer: Answer) -> Reply:
    body = answer.body
    if isinstance(answer, FileAnswer):
        with answer.file as file:
            body = file.read(answer.length)
    headers = {name.lower(): value for name, value in answer.headers}
    if answer.content_type is not None:
        headers["content-type"] = answer.content_type
    return Reply(answer.code, headers, body)
