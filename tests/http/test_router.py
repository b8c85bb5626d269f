"""The router: who may ask, what they get, and what is told of it afterwards. No sockets."""

from __future__ import annotations

import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import orjson
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from synapse.api.errors import MatrixError, limit_exceeded, unknown, unknown_token
from synapse.api.routes import Auth, find
from synapse.http.answers import error_answer
from synapse.http.router import accepts_gzip, access_token
from synapse.http.server import (
    Answer,
    Drain,
    RawJson,
    RawRequest,
    Request,
    Requester,
    Router,
    serves,
)
from synapse.logging.context import RequestContext, current_request
from synapse.metrics import table

T = TypeVar("T")
C = "/_matrix/client/v3"
USERS = {
    "alice": Requester("@alice:x", "A"),
    "guest": Requester("@guest:x", "G", is_guest=True),
    "admin": Requester("@admin:x", "R", is_admin=True),
}
Behaviour = Callable[[Request], Awaitable[Any]]


class Tokens:
    async def authenticate(self, token: str, request: Request) -> Requester:
        if token not in USERS:
            raise unknown_token()
        return USERS[token]

    def app_service(self, token: str) -> Requester | None:
        return None

    async def while_valid(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        return await work


class Limits:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def check(self, limit: str, key: str) -> None:
        self.seen.append((limit, key))
        if len(self.seen) > 1:
            raise limit_exceeded(1500)


async def _who(request: Request, **params: str) -> dict[str, Any]:
    return {"user": request.requester.user_id if request.requester else None, **params}


def _router(name: str, handler: Any = _who, **changes: Any) -> Router:
    router = Router(Drain(Clock()), Tokens(), changes.pop("limits", None))
    router.mount(replace(find(name), **changes), handler)
    return router


def _answer(router: Router, raw: RawRequest) -> Answer:
    found: list[Any] = []
    Deferred.fromCoroutine(router.handle(raw)).addBoth(found.append)
    assert found, "the request has no answer yet"
    if isinstance(found[0], Failure):
        found[0].raiseException()
    assert isinstance(found[0], Answer)
    return found[0]


def _get(router: Router, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
    answer = _answer(router, RawRequest(method, path, {k.replace("_", "-"): v for k, v in headers.items()}))
    return answer.code, orjson.loads(answer.body)


# -- who asks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "query", "token"),
    [
        ("Bearer abc", "", "abc"),
        ("bearer  abc ", "", "abc"),
        (None, "?access_token=abc%2Fd", "abc/d"),
        ("Bearer abc", "?access_token=other", "abc"),
        ("Basic abc", "", None),
        ("Bearer", "", None),
        ("Bearer ", "?access_token=", None),
        (None, "?other=access_token", None),
        (None, "", None),
    ],
)
def test_the_token_is_found(header: str | None, query: str, token: str | None) -> None:
    raw = RawRequest("GET", "/x" + query, {"authorization": header} if header is not None else {})
    assert access_token(Request(raw)) == token


@pytest.mark.parametrize(
    ("auth", "guests", "token", "expected"),
    [
        (Auth.USER, False, "alice", "@alice:x"),
        (Auth.USER, False, None, (401, "M_MISSING_TOKEN")),
        (Auth.USER, False, "stranger", (401, "M_UNKNOWN_TOKEN")),
        (Auth.USER, False, "guest", (403, "M_GUEST_ACCESS_FORBIDDEN")),
        (Auth.USER, True, "guest", "@guest:x"),
        (Auth.OPTIONAL, False, "alice", "@alice:x"),
        (Auth.OPTIONAL, False, None, None),
        (Auth.OPTIONAL, False, "stranger", (401, "M_UNKNOWN_TOKEN")),
        (Auth.ADMIN, False, "admin", "@admin:x"),
        (Auth.ADMIN, False, "alice", (403, "M_FORBIDDEN")),
        (Auth.NONE, False, "stranger", None),
    ],
)
def test_endpoints_take_whose_word_they_say(auth: Auth, guests: bool, token: str | None, expected: Any) -> None:
    router = _router("whoami", auth=auth, guests=guests)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    code, body = _get(router, f"{C}/account/whoami", **headers)
    if isinstance(expected, tuple):
        assert (code, body["errcode"]) == expected
    else:
        assert (code, body["user"]) == (200, expected)


def test_what_no_router_can_check_is_not_mounted() -> None:
    with pytest.raises(ValueError, match="whoami"):
        _router("whoami", auth=Auth.SECRET)


def test_servers_are_known_by_their_signatures() -> None:
    class Servers:
        async def origin_of(self, request: Request) -> str:
            if request.headers.get("authorization") != "X-Matrix good":
                raise MatrixError(401, "M_UNAUTHORIZED", "Not signed.")
            return "elsewhere.example"

        @asynccontextmanager
        async def turn(self, origin: str) -> AsyncIterator[None]:
            turns.append(origin)
            yield
            turns.append("end")

    async def answer(request: Request) -> dict[str, Any]:
        return {"origin": request.origin, "user": request.requester and request.requester.user_id}

    turns: list[str] = []
    limits = Limits()
    router = Router(Drain(Clock()), Tokens(), limits, Servers())
    router.mount(replace(find("whoami"), auth=Auth.SERVER, ratelimit="rc_x"), answer)
    expected = (200, {"origin": "elsewhere.example", "user": None})
    assert _get(router, f"{C}/account/whoami", authorization="X-Matrix good") == expected
    assert limits.seen == [("rc_x", "elsewhere.example")]
    assert turns == ["elsewhere.example", "end"]
    assert _get(router, f"{C}/account/whoami", authorization="Bearer alice")[0] == 401


def test_limits_hold_users_or_addresses() -> None:
    limits = Limits()
    router = _router("register_available", limits=limits)
    assert _get(router, f"{C}/register/available")[0] == 200
    answer = _answer(router, RawRequest("GET", f"{C}/register/available", client_ip="10.0.0.7"))
    assert limits.seen == [("rc_registration", "127.0.0.1"), ("rc_registration", "10.0.0.7")]
    assert answer.code == 429
    assert orjson.loads(answer.body)["retry_after_ms"] == 1500
    assert ("Retry-After", "2") in answer.headers
    limits.seen.clear()
    _get(_router("whoami", limits=limits, ratelimit="rc_x"), f"{C}/account/whoami", authorization="Bearer alice")
    assert limits.seen == [("rc_x", "@alice:x")]


# -- what they get ---------------------------------------------------------------------------------------------------


class _Struct(msgspec.Struct):
    a: int


def _returning(result: Any) -> Behaviour:
    async def handler(request: Request) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    return handler


@pytest.mark.parametrize(
    ("result", "code", "body"),
    [
        ({"a": "ä"}, 200, '{"a":"ä"}'.encode()),
        ([1, 2], 200, b"[1,2]"),
        (_Struct(1), 200, b'{"a":1}'),
        ({"raw": msgspec.Raw(b'{"b": 2}')}, 200, b'{"raw":{"b": 2}}'),
        (RawJson(b'{ "a": 1 }'), 200, b'{ "a": 1 }'),
        (Answer(201, b"x", content_type="text/plain"), 201, b"x"),
    ],
)
def test_whatever_a_handler_returns_becomes_an_answer(result: Any, code: int, body: bytes) -> None:
    answer = _answer(_router("versions", _returning(result)), RawRequest("GET", "/_matrix/client/versions"))
    assert (answer.code, answer.body) == (code, body)


def test_errors_are_told_in_the_words_of_the_spec() -> None:
    router = _router("versions", _returning(MatrixError(418, "M_X", "No.", extra=1)))
    assert _get(router, "/_matrix/client/versions") == (418, {"errcode": "M_X", "error": "No.", "extra": 1})
    code, body = _get(router, "/nowhere")
    assert (code, body["errcode"]) == (404, "M_UNRECOGNIZED")
    answer = _answer(router, RawRequest("POST", "/_matrix/client/versions"))
    assert answer.code == 405
    assert ("Allow", "GET, HEAD, OPTIONS") in answer.headers


@pytest.mark.parametrize("result", [RuntimeError("secret detail"), object(), {1: object()}])
def test_faults_are_ours_and_their_details_stay_here(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    code, body = _get(_router("versions", _returning(result)), "/_matrix/client/versions")
    assert (code, body["errcode"]) == (500, "M_UNKNOWN")
    assert "secret" not in body["error"]
    fault = next(record for record in caplog.records if record.exc_info)
    request_id = body["error"].rpartition("request ")[2].rstrip(").")
    assert request_id.startswith("GET-")
    assert getattr(fault, "request", request_id) == request_id


def test_exceptions_of_lower_layers_are_translated() -> None:
    router = _router("versions", _returning(LookupError("gone")))
    router.translate(LookupError, lambda e: unknown(f"Later: {e}.", 503))
    assert _get(router, "/_matrix/client/versions") == (
        503,
        {"errcode": "M_UNKNOWN", "error": "Later: gone."},
    )


def test_preflights_run_no_logic() -> None:
    router = _router("whoami", _returning(RuntimeError()))
    for path in (f"{C}/account/whoami", "/nowhere"):
        answer = _answer(router, RawRequest("OPTIONS", path))
        assert (answer.code, answer.body) == (204, b"")


def test_retry_after_is_rounded_up() -> None:
    assert error_answer(limit_exceeded(1)).headers == (("Retry-After", "1"),)
    assert error_answer(limit_exceeded(2000)).headers == (("Retry-After", "2"),)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, gzip;q=1.0", True),
        ("GZIP ; q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
    ],
)
def test_compression_is_negotiated(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


def test_long_answers_are_compressed_for_those_who_want_it() -> None:
    router = _router("versions", _returning({"x": "y" * 5000}))
    raw = RawRequest("GET", "/_matrix/client/versions", {"accept-encoding": "gzip"}, compress=True)
    answer = _answer(router, raw)
    assert ("Content-Encoding", "gzip") in answer.headers
    assert ("Vary", "Accept-Encoding") in answer.headers
    assert orjson.loads(gzip.decompress(answer.body)) == {"x": "y" * 5000}
    plain = _answer(router, RawRequest("GET", "/_matrix/client/versions", {}, compress=True))
    assert plain.headers == (("Vary", "Accept-Encoding"),)
    off = _answer(router, RawRequest("GET", "/_matrix/client/versions", {"accept-encoding": "gzip"}))
    assert off.headers == ()


# -- mounting --------------------------------------------------------------------------------------------------------


class _Subject:
    @serves("versions")
    async def versions(self, request: Request) -> dict[str, str]:
        return {"served": request.name}

    @serves("media_config", "media_config_authenticated")
    async def config(self, request: Request) -> dict[str, str]:
        return {"served": request.name}


def test_a_class_serves_what_its_methods_say() -> None:
    router = Router(Drain(Clock()), Tokens())
    router.mount_object(_Subject(), only={"versions", "media_config"})
    assert set(router.routes.endpoints) == {"versions", "media_config"}
    assert _get(router, "/_matrix/client/versions")[1] == {"served": "versions"}
    body = _get(router, "/_matrix/media/v3/config", authorization="Bearer alice")[1]
    assert body == {"served": "media_config"}


def test_a_prefix_and_a_fallback_get_the_whole_request() -> None:
    async def echo(request: Request) -> dict[str, str]:
        request.name = "renamed"
        return {"path": request.path}

    router = _router("versions")
    router.mount_prefix("/_synapse/replication/", "replication", "replication", echo)
    router.mount_fallback(echo)
    assert _get(router, "/_synapse/replication/a/b?c") == (200, {"path": "/_synapse/replication/a/b"})
    assert _get(router, "/else", "PUT") == (200, {"path": "/else"})
    assert table.HTTP_REQUESTS.child("renamed", "PUT", "200").value >= 1


# -- what is told ----------------------------------------------------------------------------------------------------


def test_requests_are_counted_and_logged_with_their_costs(caplog: pytest.LogCaptureFixture) -> None:
    async def costly(request: Request) -> dict[str, str]:
        context = current_request.get()
        assert context is not None
        context.db_statements += 3
        context.db_seconds += 0.25
        sum(range(20_000))
        return {}

    for metric in (
        table.HTTP_REQUESTS,
        table.HTTP_DB_STATEMENTS,
        table.HTTP_DB_SECONDS,
        table.HTTP_CPU,
        table.HTTP_SECONDS,
    ):
        metric.clear()
    caplog.set_level(logging.INFO, "synapse.access.http")
    router = _router("whoami", costly)
    headers = {"authorization": "Bearer alice", "user-agent": "nio/1"}
    _answer(router, RawRequest("GET", f"{C}/account/whoami?access_token=hidden", headers, client_ip="10.1.2.3"))
    assert table.HTTP_REQUESTS.child("whoami", "GET", "200").value == 1
    assert table.HTTP_DB_STATEMENTS.child("whoami").value == 3
    assert table.HTTP_DB_SECONDS.child("whoami").value == 0.25
    assert table.HTTP_CPU.child("whoami").value > 0
    assert sum(table.HTTP_SECONDS.child("whoami").counts) == 1
    line = next(r.getMessage() for r in caplog.records if r.name == "synapse.access.http")
    assert line.startswith("10.1.2.3 - {@alice:x} GET ")
    assert "db 3 in 0.250s" in line
    assert '"nio/1"' in line
    assert "-> 200 2B" in line
    assert "hidden" not in line


def test_a_line_has_the_level_that_its_handler_says(caplog: pytest.LogCaptureFixture) -> None:
    async def quiet(request: Request) -> dict[str, str]:
        request.log_level = logging.DEBUG
        return {}

    router = _router("versions", quiet)
    for level in (logging.INFO, logging.DEBUG):
        caplog.set_level(level, "synapse.access.http")
        _get(router, "/_matrix/client/versions")
        assert [r.levelname for r in caplog.records] == ["DEBUG"] * (level == logging.DEBUG)


def test_invented_methods_make_no_series() -> None:
    table.HTTP_REQUESTS.clear()
    _get(_router("versions"), "/_matrix/client/versions", "BREW")
    assert [labels for labels, _ in table.HTTP_REQUESTS.children()] == [("unknown", "OTHER", "405")]


def test_cpu_counts_each_step_of_a_handler_and_no_wait() -> None:
    waiting: Deferred[int] = Deferred()

    async def steps(request: Request) -> dict[str, int]:
        return {"got": await waiting}

    table.HTTP_CPU.clear()
    found: list[Answer] = []
    router = _router("versions", steps)
    Deferred.fromCoroutine(router.handle(RawRequest("GET", "/_matrix/client/versions"))).addCallback(found.append)
    sum(range(2_000_000))  # somebody else's work
    waiting.callback(5)
    assert found[0].body == b'{"got":5}'
    assert table.HTTP_CPU.child("versions").value < 0.01


def test_errors_of_what_a_handler_waits_for_reach_it() -> None:
    waiting: Deferred[int] = Deferred()

    async def steps(request: Request) -> dict[str, str]:
        try:
            await waiting
        except LookupError as e:
            return {"caught": str(e.args[0])}
        return {}

    found: list[Answer] = []
    router = _router("versions", steps)
    Deferred.fromCoroutine(router.handle(RawRequest("GET", "/_matrix/client/versions"))).addCallback(found.append)
    waiting.errback(LookupError("x"))
    assert found[0].body == b'{"caught":"x"}'


def test_each_request_has_its_own_context() -> None:
    seen: list[RequestContext | None] = []
    gate: Deferred[None] = Deferred()

    async def look(request: Request) -> dict[str, str]:
        seen.append(current_request.get())
        await gate
        seen.append(current_request.get())
        return {}

    router = _router("versions", look)
    pending = [Deferred.fromCoroutine(router.handle(RawRequest("GET", "/_matrix/client/versions"))) for _ in range(2)]
    gate.callback(None)
    assert seen[0] is not None
    assert seen[0] is not seen[1]
    assert {id(seen[0]), id(seen[1])} == {id(seen[2]), id(seen[3])}
    assert current_request.get() is None
    assert all(d.called for d in pending)


def test_a_cancelled_request_is_counted_and_over() -> None:
    table.HTTP_REQUESTS.clear()
    router = _router("versions", lambda request: Deferred())
    pending = Deferred.fromCoroutine(router.handle(RawRequest("GET", "/_matrix/client/versions")))
    assert router.drain.in_flight == 1
    found: list[Failure] = []
    pending.addErrback(found.append)
    pending.cancel()
    assert isinstance(found[0].value, CancelledError)
    assert router.drain.in_flight == 0
    assert table.HTTP_REQUESTS.child("versions", "GET", "499").value == 1


# -- leaving ---------------------------------------------------------------------------------------------------------


def _fail() -> None:
    raise LookupError


def test_leaving_wakes_those_who_wait_and_waits_for_the_rest() -> None:
    clock = Clock()
    drain = Drain(clock)
    woken: list[str] = []
    drain.on_begin(lambda: woken.append("early"))
    drain.on_begin(_fail)  # keeps nobody from being woken
    drain.on_begin(lambda: woken.append("after"))
    drain.entered()
    drain.entered()
    drain.begin()
    drain.begin()
    drain.on_begin(lambda: woken.append("late"))
    assert woken == ["early", "after", "late"]
    results: list[bool] = []
    Deferred.fromCoroutine(drain.idle(10)).addCallback(results.append)
    drain.left()
    assert not results
    drain.left()
    assert results == [True]
    assert not clock.getDelayedCalls()
    Deferred.fromCoroutine(drain.idle(10)).addCallback(results.append)
    assert results == [True, True]


def test_leaving_does_not_wait_forever() -> None:
    clock = Clock()
    drain = Drain(clock)
    drain.entered()
    results: list[bool] = []
    Deferred.fromCoroutine(drain.idle(10)).addCallback(results.append)
    clock.advance(10)
    assert results == [False]
    drain.left()


def test_the_first_request_in_flight_is_told_of() -> None:
    drain = Drain(Clock())
    told: list[int] = []
    drain.on_work = lambda: told.append(drain.in_flight)
    drain.entered()
    drain.entered()
    drain.left()
    drain.left()
    assert told == [1]
    drain.on_work = _fail  # keeps no request from being answered
    drain.entered()
    assert drain.in_flight == 1
