"""Connections whose other side leaves, stands still or does not speak HTTP, and those that we end ourselves."""

from __future__ import annotations

import io
from pathlib import Path

import orjson
import pytest

from synapse.http.answers import FileAnswer
from synapse.http.channel import HEAD_TIME, IDLE, STALLED
from synapse.http.server import Request
from synapse.metrics import table
from tests.http.channels import FILE, REGISTER, SEND, VERSIONS, Server, request, serve_file


@pytest.fixture
def server() -> Server:
    return Server()


# -- clients that leave, or stand still ------------------------------------------------------------------------------


def test_a_client_that_leaves_ends_its_long_poll(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(request("GET", FILE))
    assert server.drain.in_flight == 1
    server.hang_up()
    assert server.drain.in_flight == 0


def test_what_changes_something_goes_on_without_its_client(server: Server) -> None:
    server.serve("register", server.wait)
    server.receive(request("POST", REGISTER, body="{}"))
    server.hang_up()
    assert server.drain.in_flight == 1
    server.waiting[0].callback(FileAnswer(io.BytesIO(), "x/y", length=0))
    assert server.drain.in_flight == 0
    assert server.transport.value() == b""


def test_a_client_that_reads_nothing_is_sent_no_more(server: Server) -> None:
    server.transport.brake = 1
    server.receive(request("GET", VERSIONS) * 3)
    assert len(server.seen) == 1
    server.receive(request("GET", VERSIONS) * 2000)
    assert server.transport.producerState == "paused"
    server.transport.brake = None
    server.channel.resumeProducing()
    assert server.transport.producerState == "producing"
    assert len(server.seen) == 2003


def _minutes(server: Server, seconds: float) -> None:
    server.clock.pump([15.0] * int(seconds // 15 + 2))


def test_idle_connections_end(server: Server) -> None:
    server.receive(request("GET", VERSIONS))
    _minutes(server, IDLE - 45)
    assert not server.transport.disconnecting
    _minutes(server, 45)
    assert server.transport.disconnecting


def test_a_long_poll_is_not_idle(server: Server) -> None:
    server.serve("register_available", server.wait)
    server.receive(request("GET", FILE))
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
    server.receive(request("PUT", SEND, "Content-Length: 6"), "abc")
    _minutes(server, STALLED)
    assert server.answers()[0][0] == 408


def test_a_client_that_stops_reading_is_let_go(server: Server) -> None:
    file = serve_file(server, 300_000)
    server.transport.brake = 1
    server.receive(request("GET", FILE))
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
    server.receive(data, request("GET", VERSIONS))
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
    server.receive(request("GET", FILE))
    server.drain.begin()
    server.clock.advance(1)
    assert not server.transport.disconnecting
    server.waiting[0].callback({})
    assert server.answer()[1]["connection"] == "close"
    assert server.transport.disconnecting


def test_idle_connections_get_a_moment_of_grace(server: Server) -> None:
    server.receive(request("GET", VERSIONS))
    server.answers()
    server.drain.begin()
    server.clock.advance(0.1)
    assert not server.transport.disconnecting
    server.receive(request("GET", VERSIONS))
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
    server.receive(request("GET", VERSIONS, f"X-Forwarded-For: {header}", "X-Forwarded-Proto: https"))
    assert server.answer()[2]["from"] == address
    assert server.seen[0].raw.secure


def test_others_may_claim_what_they_like(server: Server) -> None:
    server.receive(request("GET", VERSIONS, "X-Forwarded-For: 203.0.113.5", "X-Forwarded-Proto: https"))
    assert server.answer()[2]["from"] == "192.0.2.9"
    assert not server.seen[0].raw.secure


def test_a_listener_compresses_the_resources_that_it_says(tmp_path: Path) -> None:
    for compressed, encoding in (({"client"}, "gzip"), ({"media"}, None), ((), None)):
        server = Server(compressed=compressed)

        async def long(request: Request) -> dict[str, str]:
            return {"x": "y" * 5000}

        server.serve("register_available", long)
        server.receive(request("GET", FILE, "Accept-Encoding: gzip"))
        assert server.answers()[0][1].get("content-encoding") == encoding
