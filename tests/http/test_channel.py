"""Connections: requests as bytes in, answers as bytes out, and what happens when somebody does not behave."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from synapse.api.routes import Auth, find
from synapse.http.answers import Answer, FileAnswer
from synapse.http.channel import HEAD_TIME, IDLE, LINGER, MAX_DISCARDED, MAX_PIPELINED, STALLED
from synapse.http.server import Drain, Request, Router
from synapse.http.site import Site
from synapse.http.upload import HIGH_WATER
from synapse.http.wire import parse_answer
from synapse.metrics import table

VERSIONS = "/_matrix/client/versions"
SEND = "/_matrix/client/v3/rooms/!r:x/send/m.x/1"
UPLOAD = "/_matrix/media/v3/upload"


class Transport(StringTransport):
    """Remembers what was done to it; `brake` stands in for a client that reads nothing."""

    def __init__(self) -> None:
        cast(Any, super()).__init__(peerAddress=IPv4Address("TCP", "192.0.2.9", 1))
        self.half_closed = False
        self.aborted = False
        self.brake: int | None = None

    def write(self, data: bytes) -> None:
        cast(Any, super()).write(data)
        if self.brake is not None and len(self.io.getvalue()) > self.brake and self.producer is not None:
            self.producer.pauseProducing()

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, on: bool) -> None:
        pass


class Server:
    """A site with a few endpoints, and one connection to it."""

    def __init__(self, **site: Any) -> None:
        self.clock = Clock()
        self.drain = Drain(self.clock)
        self.router = Router(self.drain)
        self.seen: list[Request] = []
        self.waiting: list[Deferred[Any]] = []
        self.site = Site(self.router, self.clock, {"client", "media"}, **site)
        self.serve("versions", self._echo)
        self.serve("room_send", self._echo)
        self.connect()

    def serve(self, name: str, handler: Any, **changes: Any) -> None:
        self.router.mount(replace(find(name), auth=Auth.NONE, ratelimit=None, **changes), handler)

    async def _echo(self, request: Request, **params: str) -> dict[str, Any]:
        self.seen.append(request)
        return {"method": request.method, "body": request.body.decode(), "from": request.client_ip}

    async def wait(self, request: Request, **params: str) -> Any:
        self.seen.append(request)
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return await waiting

    def connect(self) -> None:
        self.transport: Any = Transport()
        self.channel = cast(Any, self.site.buildProtocol(None))
        self.channel.makeConnection(self.transport)

    def receive(self, *data: bytes | str) -> None:
        for piece in data:
            self.channel.dataReceived(piece.encode("latin-1") if isinstance(piece, str) else piece)

    def hang_up(self) -> None:
        self.channel.connectionLost(cast(Any, Failure)(ConnectionDone()))

    def answers(self, *, to_head: bool = False) -> list[tuple[int, dict[str, str], bytes]]:
        """The answers so far, which must be complete."""
        data, found = self.transport.value(), []
        self.transport.clear()
        while data:
            head_end = data.index(b"\r\n\r\n") + 4
            head = parse_answer(data[:head_end], to_head=to_head)
            if head.status == 100:
                data = data[head_end:]
                continue
            body, rest = head.body.feed(data[head_end:])
            assert rest is not None
            found.append((head.status, head.headers, body))
            data = rest
        return found

    def answer(self) -> tuple[int, dict[str, str], Any]:
        (only,) = self.answers()
        return only[0], only[1], orjson.loads(only[2])


def _request(method: str, path: str, *headers: str, body: str = "", version: str = "1.1") -> str:
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: x", *headers, *length, "", body))


@pytest.fixture
def server() -> Server:
    return Server()


# -- the straight path -----------------------------------------------------------------------------------------------


def test_a_request_is_answered(server: Server) -> None:
    server.receive(_request("PUT", SEND, body='{"a": 1}'))
    code, headers, body = server.answer()
    assert (code, body) == (200, {"method": "PUT", "body": '{"a": 1}', "from": "192.0.2.9"})
    assert headers["content-type"] == "application/json"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, DELETE, OPTIONS"
    assert headers["access-control-allow-headers"] == "X-Requested-With, Content-Type, Authorization, Date"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["date"].endswith("GMT")
    assert "connection" not in headers
    assert not server.transport.disconnecting


def test_it_does_not_matter_how_the_bytes_are_cut() -> None:
    data = _request("PUT", SEND, body='{"a": 1}') + _request("GET", VERSIONS)
    for size in (1, 2, 7, 50):
        server = Server()
        server.receive(*(data[i : i + size] for i in range(0, len(data), size)))
        assert [code for code, _, _ in server.answers()] == [200, 200]
        assert [r.method for r in server.seen] == ["PUT", "GET"]


def test_chunks_are_put_together(server: Server) -> None:
    server.receive(_request("PUT", SEND, "Transfer-Encoding: chunked"), "3\r\nabc\r\n", "2\r\nde\r\n0\r\n\r\n")
    assert server.answer()[2]["body"] == "abcde"


def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(_request("GET", "/_matrix/client/v3/register/available") + _request("GET", VERSIONS) * 2)
    assert server.answers() == []
    server.waiting[0].callback({"first": True})
    assert [body[:8] for _, _, body in server.answers()] == [b'{"first"', b'{"method', b'{"method']


def test_who_pipelines_too_much_is_held_up(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(_request("GET", "/_matrix/client/v3/register/available"))
    request = _request("GET", VERSIONS)
    server.receive(request * (MAX_PIPELINED // len(request) + 2))
    assert server.transport.producerState == "paused"
    server.waiting[0].callback({})
    assert server.transport.producerState == "producing"
    assert len(server.answers()) > 100


def test_head_gets_the_head(server: Server) -> None:
    server.receive(_request("HEAD", VERSIONS), _request("GET", VERSIONS))
    data = server.transport.value()
    first = data[: data.index(b"\r\n\r\n") + 4]
    assert int(parse_answer(first, to_head=True).headers["content-length"]) > 10
    assert data[len(first) :].startswith(b"HTTP/1.1 200 OK\r\n")


def test_preflights_are_answered_everywhere(server: Server) -> None:
    server.receive(_request("OPTIONS", VERSIONS) + _request("OPTIONS", "/nowhere"))
    for code, headers, body in server.answers():
        assert (code, body) == (204, b"")
        assert headers["access-control-allow-origin"] == "*"
        assert "content-length" not in headers


def test_an_old_client_gets_one_answer(server: Server) -> None:
    server.receive(_request("GET", VERSIONS, version="1.0"))
    assert server.answer()[1]["connection"] == "close"
    assert server.transport.disconnecting


def test_empty_lines_before_a_request_are_ignored(server: Server) -> None:
    server.receive("\r\n" + _request("GET", VERSIONS) + "\r\n" + _request("GET", VERSIONS))
    assert len(server.answers()) == 2


def test_headers_of_handlers_cannot_split_an_answer(server: Server) -> None:
    async def evil(request: Request) -> Answer:
        return Answer(200, b"x", (("X", "a\r\nSet-Cookie: b"),))

    server.serve("register_available", evil)
    server.receive(_request("GET", "/_matrix/client/v3/register/available"))
    code, headers, _ = server.answer()
    assert code == 500
    assert "set-cookie" not in headers


# -- bodies that are too large ---------------------------------------------------------------------------------------


def _limited(limit: int) -> Server:
    server = Server()
    server.serve("register", server._echo, max_body=limit)
    return server


REGISTER = "/_matrix/client/v3/register"


def test_a_body_may_be_as_large_as_the_endpoint_says() -> None:
    server = _limited(10)
    server.receive(_request("POST", REGISTER, body="x" * 10))
    assert server.answer()[0] == 200
    server.receive(_request("POST", REGISTER, body="x" * 11))
    code, _, body = server.answer()
    assert (code, body["errcode"]) == (413, "M_TOO_LARGE")
    # It was not much, so the connection lives on.
    server.receive(_request("POST", REGISTER, body="x"))
    assert server.answer()[0] == 200


def test_chunks_are_counted() -> None:
    server = _limited(10)
    server.receive(_request("POST", REGISTER, "Transfer-Encoding: chunked"), "8\r\n" + "x" * 8 + "\r\n" * 1)
    server.receive("8\r\n" + "x" * 8 + "\r\n", "0\r\n\r\n", _request("GET", VERSIONS))
    assert [code for code, _, _ in server.answers()] == [413, 200]
    assert len(server.seen) == 1


def test_a_body_that_is_far_too_large_is_not_waited_for() -> None:
    server = _limited(10)
    server.receive(f"POST {REGISTER} HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_DISCARDED + 11}\r\n\r\n", "xxx")
    code, headers, body = server.answer()
    assert (code, body["errcode"], headers["connection"]) == (413, "M_TOO_LARGE", "close")
    assert server.transport.half_closed
    server.receive("x" * 1000)  # goes nowhere
    assert not server.transport.aborted
    server.clock.advance(LINGER)
    assert server.transport.aborted


def test_endless_chunks_are_cut_off() -> None:
    server = _limited(10)
    server.receive(_request("POST", REGISTER, "Transfer-Encoding: chunked"))
    chunk = "10000\r\n" + "x" * 0x10000 + "\r\n"
    for _ in range(MAX_DISCARDED // 0x10000 + 2):
        server.receive(chunk)
    assert server.answer()[0] == 413
    assert server.transport.half_closed


def test_bodies_that_lead_nowhere_are_bounded_too(server: Server) -> None:
    server.receive(_request("POST", "/nowhere", body="x" * 100), _request("GET", VERSIONS))
    assert [code for code, _, _ in server.answers()] == [404, 200]
    server.receive(f"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n")
    assert server.answers()[0][0] == 404
    assert server.transport.half_closed


def test_who_asks_first_is_told_to_continue_or_not() -> None:
    server = _limited(10)
    server.receive(_request("POST", REGISTER, "Expect: 100-continue", "Content-Length: 3"))
    assert server.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    server.receive("abc")
    assert server.answer()[2]["body"] == "abc"
    server.receive(_request("POST", REGISTER, "Expect: 100-continue", "Content-Length: 11"))
    assert server.transport.value().startswith(b"HTTP/1.1 413 ")
    assert server.transport.half_closed


# -- bodies that are read as they come -------------------------------------------------------------------------------


class Uploads(Server):
    def __init__(self) -> None:
        super().__init__()
        self.got: list[bytes] = []
        self.gate: Deferred[None] | None = None
        self.limit: int | None = None
        self.serve("media_upload", self.upload)

    async def upload(self, request: Request) -> dict[str, int]:
        self.seen.append(request)
        if self.gate is not None:
            await self.gate
        if self.limit is not None:
            request.stream.limit(self.limit)
        while piece := await request.stream.read():
            self.got.append(piece)
        return {"length": sum(map(len, self.got))}


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


def test_an_upload_is_read_as_it_comes(uploads: Uploads) -> None:
    uploads.receive(_request("POST", UPLOAD, "Content-Length: 6"), "abc")
    assert uploads.got == [b"abc"]
    uploads.receive("def" + _request("GET", VERSIONS))
    assert [code for code, _, _ in uploads.answers()] == [200, 200]
    assert b"".join(uploads.got) == b"abcdef"
    uploads.receive(_request("POST", UPLOAD))
    assert uploads.answer()[0] == 200


def test_a_slow_handler_holds_up_the_client(uploads: Uploads) -> None:
    uploads.gate = Deferred()
    size = HIGH_WATER + 100_000
    uploads.receive(_request("POST", UPLOAD, f"Content-Length: {size}"), "x" * (HIGH_WATER + 1))
    assert uploads.transport.producerState == "paused"
    uploads.gate.callback(None)
    assert uploads.transport.producerState == "producing"
    uploads.receive("x" * (size - HIGH_WATER - 1))
    assert uploads.answer()[2] == {"length": size}


def test_an_upload_that_is_announced_as_too_large_is_refused_at_once(uploads: Uploads) -> None:
    uploads.limit = 10
    uploads.receive(_request("POST", UPLOAD, "Expect: 100-continue", f"Content-Length: {10**9}"))
    assert uploads.transport.value().startswith(b"HTTP/1.1 413 ")
    assert uploads.transport.half_closed


def test_an_upload_is_told_to_continue_when_it_is_wanted(uploads: Uploads) -> None:
    uploads.gate = Deferred()
    uploads.receive(_request("POST", UPLOAD, "Expect: 100-continue", "Content-Length: 3"))
    assert uploads.transport.value() == b""
    uploads.gate.callback(None)
    assert uploads.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    uploads.receive("abc")
    assert uploads.answer()[0] == 200


def test_an_upload_that_grows_too_large_is_refused(uploads: Uploads) -> None:
    uploads.limit = 10
    uploads.receive(_request("POST", UPLOAD, "Transfer-Encoding: chunked"), "8\r\n" + "x" * 8 + "\r\n")
    assert uploads.answers() == []
    uploads.receive("8\r\n" + "x" * 8 + "\r\n")
    uploads.receive("3\r\nabc\r\n0\r\n\r\n" + _request("GET", VERSIONS))
    assert [code for code, _, _ in uploads.answers()] == [413, 200]
    assert uploads.got == [b"x" * 8]


def test_the_rest_of_a_refused_upload_is_bounded(uploads: Uploads) -> None:
    uploads.limit = 10
    uploads.receive(_request("POST", UPLOAD, "Transfer-Encoding: chunked"))
    for _ in range(MAX_DISCARDED // 0x10000 + 3):
        uploads.receive("10000\r\n" + "x" * 0x10000 + "\r\n")
    assert uploads.answers()[0][0] == 413
    assert uploads.transport.half_closed


def test_an_answer_before_the_body_waits_for_its_end(uploads: Uploads) -> None:
    async def refuse(request: Request, server_name: str, media_id: str) -> Answer:
        return Answer(403, b"{}")

    uploads.serve("media_upload_to", refuse)
    uploads.receive(_request("PUT", UPLOAD + "/x/y", "Content-Length: 6"), "abc")
    assert uploads.answers() == []
    uploads.receive("def", _request("GET", VERSIONS))
    assert [code for code, _, _ in uploads.answers()] == [403, 200]


def test_a_broken_upload_ends_its_handler(uploads: Uploads) -> None:
    uploads.receive(_request("POST", UPLOAD, "Content-Length: 6"), "abc")
    uploads.hang_up()
    assert uploads.drain.in_flight == 0
    assert uploads.answers() == []


def test_malformed_chunks_end_an_upload_with_one_answer(uploads: Uploads) -> None:
    uploads.receive(_request("POST", UPLOAD, "Transfer-Encoding: chunked"), "zz\r\n")
    assert [code for code, _, _ in uploads.answers()] == [400]
    assert uploads.drain.in_flight == 0


# -- files -----------------------------------------------------------------------------------------------------------


def _serve_file(server: Server, size: int, **options: Any) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the answer closes it
    file.write(b"f" * size)
    file.seek(0)

    async def send(request: Request) -> FileAnswer:
        return FileAnswer(file, "image/png", (("X", "y"),), **options)

    server.serve("register_available", send)
    return file


FILE = "/_matrix/client/v3/register/available"


def test_a_file_is_sent_in_pieces_as_the_client_reads(server: Server) -> None:
    file = _serve_file(server, 300_000)
    server.transport.brake = 100_000
    server.receive(_request("GET", FILE) + _request("GET", VERSIONS))
    first = len(server.transport.value())
    assert 100_000 < first < 200_000
    server.transport.brake = None
    server.channel.resumeProducing()
    (sent, other) = server.answers()
    assert (sent[0], sent[1]["content-type"], sent[1]["x"], len(sent[2])) == (200, "image/png", "y", 300_000)
    assert other[0] == 200
    assert file.closed


def test_part_of_a_file_can_be_sent(server: Server) -> None:
    _serve_file(server, 100, length=10)
    server.receive(_request("GET", FILE))
    assert server.answers()[0][2] == b"f" * 10


def test_files_are_closed_whatever_happens(server: Server) -> None:
    file = _serve_file(server, 300_000)
    server.transport.brake = 1
    server.receive(_request("GET", FILE))
    server.hang_up()
    assert file.closed
    server = Server()
    file = _serve_file(server, 10)
    server.receive(_request("HEAD", FILE))
    assert file.closed


def test_a_file_that_shrank_ends_the_connection(server: Server) -> None:
    file = _serve_file(server, 10, length=20)
    server.receive(_request("GET", FILE))
    assert server.transport.aborted
    assert file.closed


# -- clients that leave, or stand still ------------------------------------------------------------------------------


def test_a_client_that_leaves_ends_its_long_poll(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(_request("GET", FILE))
    assert server.drain.in_flight == 1
    server.hang_up()
    assert server.drain.in_flight == 0


def test_what_changes_something_goes_on_without_its_client(server: Server) -> None:
    server.serve("register", server.wait)
    server.receive(_request("POST", REGISTER, body="{}"))
    server.hang_up()
    assert server.drain.in_flight == 1
    server.waiting[0].callback(FileAnswer(io.BytesIO(), "x/y", length=0))
    assert server.drain.in_flight == 0
    assert server.transport.value() == b""


def test_a_client_that_reads_nothing_is_sent_no_more(server: Server) -> None:
    server.transport.brake = 1
    server.receive(_request("GET", VERSIONS) * 3)
    assert len(server.seen) == 1
    server.receive(_request("GET", VERSIONS) * 2000)
    assert server.transport.producerState == "paused"
    server.transport.brake = None
    server.channel.resumeProducing()
    assert server.transport.producerState == "producing"
    assert len(server.seen) == 2003


def _minutes(server: Server, seconds: float) -> None:
    server.clock.pump([15.0] * int(seconds // 15 + 2))


def test_idle_connections_end(server: Server) -> None:
    server.receive(_request("GET", VERSIONS))
    _minutes(server, IDLE - 45)
    assert not server.transport.disconnecting
    _minutes(server, 45)
    assert server.transport.disconnecting


def test_a_long_poll_is_not_idle(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(_request("GET", FILE))
    _minutes(server, 600)
    assert not server.transport.disconnecting
    server.waiting[0].callback({})
    assert server.answer()[0] == 200


def test_a_head_must_come_in_time(server: Server) -> None:
    for _ in range(int(HEAD_TIME)):
        server.receive("GET / HTTP/1.1\r\n"[:1] if not server.transport.value() else "")
        server.clock.advance(2)
    assert server.answers()[0][0] == 408
    assert server.transport.half_closed


def test_a_body_must_not_stand_still(server: Server) -> None:
    server.receive(_request("PUT", SEND, "Content-Length: 6"), "abc")
    _minutes(server, STALLED)
    assert server.answers()[0][0] == 408


def test_a_client_that_stops_reading_is_let_go(server: Server) -> None:
    file = _serve_file(server, 300_000)
    server.transport.brake = 1
    server.receive(_request("GET", FILE))
    _minutes(server, STALLED)
    assert server.transport.aborted
    server.hang_up()
    assert file.closed


def test_an_empty_site_does_not_keep_the_process_awake(server: Server) -> None:
    server.hang_up()
    _minutes(server, 60)
    assert not server.clock.getDelayedCalls()


# -- what is not HTTP ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        ("SSH-2.0-x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("x" * 40_000, 431),
    ],
)
def test_what_is_no_http_is_told_so_and_ends(server: Server, data: str, code: int) -> None:
    server.receive(data, _request("GET", VERSIONS))
    ((got, headers, body),) = server.answers()
    assert (got, headers["connection"]) == (code, "close")
    assert orjson.loads(body)["errcode"] == "M_UNKNOWN"
    assert server.seen == []


def test_malformed_connections_are_counted(server: Server) -> None:
    table.HTTP_MALFORMED.clear()
    server.receive("nonsense\r\n\r\n")
    assert [labels for labels, _ in table.HTTP_MALFORMED.children()] == [("request_line",)]


# -- leaving ---------------------------------------------------------------------------------------------------------


def test_who_leaves_answers_what_comes_and_closes(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(_request("GET", FILE))
    server.drain.begin()
    server.clock.advance(1)
    assert not server.transport.disconnecting
    server.waiting[0].callback({})
    assert server.answer()[1]["connection"] == "close"
    assert server.transport.disconnecting


def test_idle_connections_get_a_moment_of_grace(server: Server) -> None:
    server.receive(_request("GET", VERSIONS))
    server.answers()
    server.drain.begin()
    server.clock.advance(0.1)
    assert not server.transport.disconnecting
    server.receive(_request("GET", VERSIONS))
    assert server.answer()[1]["connection"] == "close"
    other = Server()
    other.drain.begin()
    other.clock.advance(1)
    assert other.transport.disconnecting


# -- where requests come from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("198.51.100.1, 203.0.113.5", "203.0.113.5"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("203.0.113.5:4711", "203.0.113.5"),
        ("unknown", "192.0.2.9"),
        ("", "192.0.2.9"),
        ("203.0.113.5, ", "192.0.2.9"),
    ],
)
def test_a_trusted_proxy_says_who_the_client_is(header: str, address: str) -> None:
    server = Server(x_forwarded=True)
    server.receive(_request("GET", VERSIONS, f"X-Forwarded-For: {header}", "X-Forwarded-Proto: https"))
    assert server.answer()[2]["from"] == address
    assert server.seen[0].raw.secure


def test_others_may_claim_what_they_like(server: Server) -> None:
    server.receive(_request("GET", VERSIONS, "X-Forwarded-For: 203.0.113.5", "X-Forwarded-Proto: https"))
    assert server.answer()[2]["from"] == "192.0.2.9"
    assert not server.seen[0].raw.secure


def test_a_listener_compresses_the_resources_that_it_says(tmp_path: Path) -> None:
    for compressed, encoding in (({"client"}, "gzip"), ({"media"}, None), ((), None)):
        server = Server(compressed=compressed)

        async def long(request: Request) -> dict[str, str]:
            return {"x": "y" * 5000}

        server.serve("register_available", long)
        server.receive(_request("GET", FILE, "Accept-Encoding: gzip"))
        assert server.answers()[0][1].get("content-encoding") == encoding
