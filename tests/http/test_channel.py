"""Connections: requests as bytes in, answers as bytes out."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from synapse.http.answers import Answer
from synapse.http.channel import LINGER, MAX_DISCARDED, MAX_PIPELINED
from synapse.http.server import Request
from synapse.http.upload import HIGH_WATER
from synapse.http.wire import parse_answer
from tests.http.channels import FILE, REGISTER, SEND, UPLOAD, VERSIONS, Server, request, serve_file


@pytest.fixture
def server() -> Server:
    return Server()


# -- the straight path -----------------------------------------------------------------------------------------------


def test_a_request_is_answered(server: Server) -> None:
    server.receive(request("PUT", SEND, body='{"a": 1}'))
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
    data = request("PUT", SEND, body='{"a": 1}') + request("GET", VERSIONS)
    for size in (1, 2, 7, 50):
        server = Server()
        server.receive(*(data[i : i + size] for i in range(0, len(data), size)))
        assert [code for code, _, _ in server.answers()] == [200, 200]
        assert [r.method for r in server.seen] == ["PUT", "GET"]


def test_chunks_are_put_together(server: Server) -> None:
    server.receive(request("PUT", SEND, "Transfer-Encoding: chunked"), "3\r\nabc\r\n", "2\r\nde\r\n0\r\n\r\n")
    assert server.answer()[2]["body"] == "abcde"


def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(request("GET", "/_matrix/client/v3/register/available") + request("GET", VERSIONS) * 2)
    assert server.answers() == []
    server.waiting[0].callback({"first": True})
    assert [body[:8] for _, _, body in server.answers()] == [b'{"first"', b'{"method', b'{"method']


def test_who_pipelines_too_much_is_held_up(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(request("GET", "/_matrix/client/v3/register/available"))
    one = request("GET", VERSIONS)
    server.receive(one * (MAX_PIPELINED // len(one) + 2))
    assert server.transport.producerState == "paused"
    server.waiting[0].callback({})
    assert server.transport.producerState == "producing"
    assert len(server.answers()) > 100


def test_head_gets_the_head(server: Server) -> None:
    server.receive(request("HEAD", VERSIONS), request("GET", VERSIONS))
    data = server.transport.value()
    first = data[: data.index(b"\r\n\r\n") + 4]
    assert int(parse_answer(first, to_head=True).headers["content-length"]) > 10
    assert data[len(first) :].startswith(b"HTTP/1.1 200 OK\r\n")


def test_preflights_are_answered_everywhere(server: Server) -> None:
    server.receive(request("OPTIONS", VERSIONS) + request("OPTIONS", "/nowhere"))
    for code, headers, body in server.answers():
        assert (code, body) == (204, b"")
        assert headers["access-control-allow-origin"] == "*"
        assert "content-length" not in headers


def test_an_old_client_gets_one_answer(server: Server) -> None:
    server.receive(request("GET", VERSIONS, version="1.0"))
    assert server.answer()[1]["connection"] == "close"
    assert server.transport.disconnecting


def test_empty_lines_before_a_request_are_ignored(server: Server) -> None:
    server.receive("\r\n" + request("GET", VERSIONS) + "\r\n" + request("GET", VERSIONS))
    assert len(server.answers()) == 2


def test_headers_of_handlers_cannot_split_an_answer(server: Server) -> None:
    async def evil(request: Request) -> Answer:
        return Answer(200, b"x", (("X", "a\r\nSet-Cookie: b"),))

    server.serve("register_available", evil)
    server.receive(request("GET", "/_matrix/client/v3/register/available"))
    code, headers, _ = server.answer()
    assert code == 500
    assert "set-cookie" not in headers


# -- bodies that are too large ---------------------------------------------------------------------------------------


def _limited(limit: int) -> Server:
    server = Server()
    server.serve("register", server._echo, max_body=limit)
    return server


def test_a_body_may_be_as_large_as_the_endpoint_says() -> None:
    server = _limited(10)
    server.receive(request("POST", REGISTER, body="x" * 10))
    assert server.answer()[0] == 200
    server.receive(request("POST", REGISTER, body="x" * 11))
    code, _, body = server.answer()
    assert (code, body["errcode"]) == (413, "M_TOO_LARGE")
    # It was not much, so the connection lives on.
    server.receive(request("POST", REGISTER, body="x"))
    assert server.answer()[0] == 200


def test_chunks_are_counted() -> None:
    server = _limited(10)
    server.receive(request("POST", REGISTER, "Transfer-Encoding: chunked"), "8\r\n" + "x" * 8 + "\r\n" * 1)
    server.receive("8\r\n" + "x" * 8 + "\r\n", "0\r\n\r\n", request("GET", VERSIONS))
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
    server.receive(request("POST", REGISTER, "Transfer-Encoding: chunked"))
    chunk = "10000\r\n" + "x" * 0x10000 + "\r\n"
    for _ in range(MAX_DISCARDED // 0x10000 + 2):
        server.receive(chunk)
    assert server.answer()[0] == 413
    assert server.transport.half_closed


def test_bodies_that_lead_nowhere_are_bounded_too(server: Server) -> None:
    server.receive(request("POST", "/nowhere", body="x" * 100), request("GET", VERSIONS))
    assert [code for code, _, _ in server.answers()] == [404, 200]
    server.receive(f"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n")
    assert server.answers()[0][0] == 404
    assert server.transport.half_closed


def test_who_asks_first_is_told_to_continue_or_not() -> None:
    server = _limited(10)
    server.receive(request("POST", REGISTER, "Expect: 100-continue", "Content-Length: 3"))
    assert server.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    server.receive("abc")
    assert server.answer()[2]["body"] == "abc"
    server.receive(request("POST", REGISTER, "Expect: 100-continue", "Content-Length: 11"))
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
    uploads.receive(request("POST", UPLOAD, "Content-Length: 6"), "abc")
    assert uploads.got == [b"abc"]
    uploads.receive("def" + request("GET", VERSIONS))
    assert [code for code, _, _ in uploads.answers()] == [200, 200]
    assert b"".join(uploads.got) == b"abcdef"
    uploads.receive(request("POST", UPLOAD))
    assert uploads.answer()[0] == 200


def test_a_slow_handler_holds_up_the_client(uploads: Uploads) -> None:
    uploads.gate = Deferred()
    size = HIGH_WATER + 100_000
    uploads.receive(request("POST", UPLOAD, f"Content-Length: {size}"), "x" * (HIGH_WATER + 1))
    assert uploads.transport.producerState == "paused"
    uploads.gate.callback(None)
    assert uploads.transport.producerState == "producing"
    uploads.receive("x" * (size - HIGH_WATER - 1))
    assert uploads.answer()[2] == {"length": size}


def test_an_upload_that_is_announced_as_too_large_is_refused_at_once(uploads: Uploads) -> None:
    uploads.limit = 10
    uploads.receive(request("POST", UPLOAD, "Expect: 100-continue", f"Content-Length: {10**9}"))
    assert uploads.transport.value().startswith(b"HTTP/1.1 413 ")
    assert uploads.transport.half_closed


def test_an_upload_is_told_to_continue_when_it_is_wanted(uploads: Uploads) -> None:
    uploads.gate = Deferred()
    uploads.receive(request("POST", UPLOAD, "Expect: 100-continue", "Content-Length: 3"))
    assert uploads.transport.value() == b""
    uploads.gate.callback(None)
    assert uploads.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    uploads.receive("abc")
    assert uploads.answer()[0] == 200


def test_an_upload_that_grows_too_large_is_refused(uploads: Uploads) -> None:
    uploads.limit = 10
    uploads.receive(request("POST", UPLOAD, "Transfer-Encoding: chunked"), "8\r\n" + "x" * 8 + "\r\n")
    assert uploads.answers() == []
    uploads.receive("8\r\n" + "x" * 8 + "\r\n")
    uploads.receive("3\r\nabc\r\n0\r\n\r\n" + request("GET", VERSIONS))
    assert [code for code, _, _ in uploads.answers()] == [413, 200]
    assert uploads.got == [b"x" * 8]


def test_the_rest_of_a_refused_upload_is_bounded(uploads: Uploads) -> None:
    uploads.limit = 10
    uploads.receive(request("POST", UPLOAD, "Transfer-Encoding: chunked"))
    for _ in range(MAX_DISCARDED // 0x10000 + 3):
        uploads.receive("10000\r\n" + "x" * 0x10000 + "\r\n")
    assert uploads.answers()[0][0] == 413
    assert uploads.transport.half_closed


def test_an_answer_before_the_body_waits_for_its_end(uploads: Uploads) -> None:
    async def refuse(request: Request, server_name: str, media_id: str) -> Answer:
        return Answer(403, b"{}")

    uploads.serve("media_upload_to", refuse)
    uploads.receive(request("PUT", UPLOAD + "/x/y", "Content-Length: 6"), "abc")
    assert uploads.answers() == []
    uploads.receive("def", request("GET", VERSIONS))
    assert [code for code, _, _ in uploads.answers()] == [403, 200]


def test_a_broken_upload_ends_its_handler(uploads: Uploads) -> None:
    uploads.receive(request("POST", UPLOAD, "Content-Length: 6"), "abc")
    uploads.hang_up()
    assert uploads.drain.in_flight == 0
    assert uploads.answers() == []


def test_malformed_chunks_end_an_upload_with_one_answer(uploads: Uploads) -> None:
    uploads.receive(request("POST", UPLOAD, "Transfer-Encoding: chunked"), "zz\r\n")
    assert [code for code, _, _ in uploads.answers()] == [400]
    assert uploads.drain.in_flight == 0


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_sent_in_pieces_as_the_client_reads(server: Server) -> None:
    file = serve_file(server, 300_000)
    server.transport.brake = 100_000
    server.receive(request("GET", FILE) + request("GET", VERSIONS))
    first = len(server.transport.value())
    assert 100_000 < first < 200_000
    server.transport.brake = None
    server.channel.resumeProducing()
    (sent, other) = server.answers()
    assert (sent[0], sent[1]["content-type"], sent[1]["x"], len(sent[2])) == (200, "image/png", "y", 300_000)
    assert other[0] == 200
    assert file.closed


def test_part_of_a_file_can_be_sent(server: Server) -> None:
    serve_file(server, 100, length=10)
    server.receive(request("GET", FILE))
    assert server.answers()[0][2] == b"f" * 10


def test_files_are_closed_whatever_happens(server: Server) -> None:
    file = serve_file(server, 300_000)
    server.transport.brake = 1
    server.receive(request("GET", FILE))
    server.hang_up()
    assert file.closed
    server = Server()
    file = serve_file(server, 10)
    server.receive(request("HEAD", FILE))
    assert file.closed


def test_a_file_that_shrank_ends_the_connection(server: Server) -> None:
    file = serve_file(server, 10, length=20)
    server.receive(request("GET", FILE))
    assert server.transport.aborted
    assert file.closed
