"""Passing requests through to the main process, for workers that stand in front of it.

A `frontend_proxy` answers what it can by itself and hands on the rest, byte for byte, to the client listener that
`worker_main_http_uri` names: the request with its token, the answer with its status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.api.errors import Codes, MatrixError
from synapse.http.client import AnswerLate, ClientError, NotSent
from synapse.http.server import Answer

if TYPE_CHECKING:
    from synapse.http.client import ProcessClient
    from synapse.http.server import Request

TIMEOUT_SECONDS: Final = 60.0

# What concerns one connection only, and what is made anew on the way.
_NOT_PASSED: Final = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "upgrade"),
        *("transfer-encoding", "content-length", "host", "expect", "accept-encoding", "x-forwarded-for"),
    )
)
_ANSWERED: Final = frozenset({"retry-after", "location", "etag", "cache-control"})


class FrontendProxy:
    """The way to the main process's client listener."""

    def __init__(self, client: ProcessClient) -> None:
        self._client = client

    async def forward(self, request: Request) -> Answer:
        """The main process's answer to the same request. Raises 502 or 504 M_UNKNOWN if there is none."""
        headers = [(name, value) for name, value in request.headers.items() if name not in _NOT_PASSED]
        headers.append(("x-forwarded-for", request.client_ip))
        try:
            answer = await self._client.request(
                request.method,
                request.raw.target,
                request.body,
                tuple(headers),
                within=TIMEOUT_SECONDS,
                repeatable=request.method in ("GET", "PUT"),
            )
        except AnswerLate:
            raise _no_answer(504, "has not answered in time") from None
        except NotSent:
            raise _no_answer(502, "cannot be reached") from None
        except ClientError:
            raise _no_answer(502, "broke off its answer") from None
        kept = tuple((name.title(), value) for name, value in answer.headers.items() if name in _ANSWERED)
        return Answer(answer.code, answer.body, kept, answer.headers.get("content-type"))


def _no_answer(code: int, why: str) -> MatrixError:
    return MatrixError(code, Codes.UNKNOWN, f"The main process {why}; please try again.")
