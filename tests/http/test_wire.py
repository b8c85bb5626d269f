"""HTTP/1.1 on the wire: what is understood, what is refused, and that it never matters how the bytes were cut."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.http.wire import (
    MAX_HEAD,
    MAX_HEADERS,
    Body,
    ChunkedBody,
    EndlessBody,
    LengthBody,
    WireError,
    encode_head,
    end_of_head,
    parse_answer,
    parse_request,
    status_line,
)


def _request(*lines: str, host: bool = True) -> bytes:
    return "\r\n".join((*lines, *(["Host: x"] if host else []), "", "")).encode("latin-1")


def _fed(body: Body, data: bytes, cuts: list[int] | None = None) -> tuple[bytes, bytes | None]:
    """The payload of a body that arrives cut in pieces, and what follows it."""
    payload, edges = b"", sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    for start, end in pairwise(edges):
        part, rest = body.feed(data[start:end])
        payload += part
        if rest is not None:
            return payload, rest + data[end:]
    return payload, None


# -- requests --------------------------------------------------------------------------------------------------------


def test_a_request_is_taken_apart() -> None:
    head = parse_request(
        _request("PUT /a%2Fb?c=d HTTP/1.1", "X-One:  two\t", "ACCEPT: a", "accept: b", "Content-Length: 12")
    )
    assert (head.method, head.target, head.length, head.keep_alive) == ("PUT", "/a%2Fb?c=d", 12, True)
    assert head.headers == {"x-one": "two", "accept": "a, b", "content-length": "12", "host": "x"}


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (("GET / HTTP/1.1",), True),
        (("GET / HTTP/1.1", "Connection: close"), False),
        (("GET / HTTP/1.1", "Connection: Upgrade, Close"), False),
        (("GET / HTTP/1.1", "Connection: keep-alive"), True),
        (("GET / HTTP/1.0",), False),
        (("GET / HTTP/1.0", "Connection: keep-alive"), False),
    ],
)
def test_a_connection_is_kept_where_the_client_can(lines: tuple[str, ...], keep_alive: bool) -> None:
    assert parse_request(_request(*lines)).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a?b", "/a?b"),
        ("http://host:80/a?b", "/a?b"),
        ("HTTPS://host", "/"),
        ("http://host?b", "/?b"),
        ("*", "*"),
    ],
)
def test_targets_lose_scheme_and_host(target: str, path: str) -> None:
    assert parse_request(_request(f"GET {target} HTTP/1.1")).target == path


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("GET / HTTP/2.0",), "version"),
        (("GET /",), "request_line"),
        (("GET  / HTTP/1.1",), "request_line"),
        (("get / HTTP/1.1",), "request_line"),
        (("GET /a b HTTP/1.1",), "request_line"),
        (("GET / HTTP/1.1 ",), "request_line"),
        (("GET /\x7f HTTP/1.1",), "request_line"),
        (("\x16\x03\x01",), "request_line"),
        (("GET / HTTP/1.1", "no colon"), "header"),
        (("GET / HTTP/1.1", "Name : value"), "header"),
        (("GET / HTTP/1.1", "A: b", " folded"), "header"),
        (("GET / HTTP/1.1", ": empty"), "header"),
        (("GET / HTTP/1.1", "A: b\nEvil: c"), "header"),
        (("GET / HTTP/1.1", "A: b\rc"), "header"),
        (("GET / HTTP/1.1", "A: \x00"), "header"),
        (("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 1"), "repeated"),
        (("POST / HTTP/1.1", "Host: y"), "repeated"),
        (("POST / HTTP/1.1", "Content-Type: a", "Content-Type: b"), "repeated"),
        (("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), "repeated"),
        (("POST / HTTP/1.1", "Content-Length: +1"), "length"),
        (("POST / HTTP/1.1", "Content-Length: 1, 1"), "length"),
        (("POST / HTTP/1.1", "Content-Length: 0x1"), "length"),
        (("POST / HTTP/1.1", "Content-Length: -1"), "length"),
        (("POST / HTTP/1.1", "Content-Length: "), "length"),
        (("POST / HTTP/1.1", "Content-Length: \xb2"), "length"),
        (("POST / HTTP/1.1", f"Content-Length: {'9' * 19}"), "length"),
        (("POST / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"), "length"),
        (("POST / HTTP/1.0", "Transfer-Encoding: chunked"), "length"),
        (("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"), "coding"),
        (("POST / HTTP/1.1", "Transfer-Encoding: \x0bchunked"), "header"),
        (("GET / HTTP/1.1", *[f"H{i}: x" for i in range(MAX_HEADERS)]), "headers"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_request(_request(*lines))
    assert caught.value.reason == reason
    assert caught.value.status in (400, 431, 501, 505)


def test_a_request_without_host_is_refused_unless_it_is_old() -> None:
    with pytest.raises(WireError, match="Host"):
        parse_request(_request("GET / HTTP/1.1", host=False))
    assert parse_request(_request("GET / HTTP/1.0", host=False)).method == "GET"


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    for parse in (parse_request, parse_answer):
        try:
            parse(data + b"\r\n\r\n")
        except WireError:
            continue


# -- heads -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 40))
def test_the_end_of_a_head_is_found_however_it_is_cut(cut: int) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody"
    first = data[:cut]
    found = end_of_head(first)
    if found < 0:
        found = end_of_head(data, len(first))
    assert data[found:] == b"body"


def test_a_head_may_not_grow_without_end() -> None:
    assert end_of_head(b"x" * MAX_HEAD) == -1
    for data in (b"x" * (MAX_HEAD + 1), b"x" * (MAX_HEAD + 1) + b"\r\n\r\n"):
        with pytest.raises(WireError) as caught:
            end_of_head(data)
        assert caught.value.status == 431


def test_heads_cannot_be_split_by_values() -> None:
    assert encode_head("A", [("B", "c")]) == b"A\r\nB: c\r\n\r\n"
    for name, value in (("B", "c\r\nEvil: 1"), ("B\r\nEvil", "c"), ("B", "c\n"), ("B", "\0")):
        with pytest.raises(ValueError, match="control character"):
            encode_head("A", [(name, value)])
    assert status_line(404) == "HTTP/1.1 404 Not Found"
    assert status_line(499).startswith("HTTP/1.1 499 ")


# -- bodies ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=50), st.binary(max_size=20), st.lists(st.integers(0, 100)))
def test_a_body_of_a_length_ends_there(payload: bytes, rest: bytes, cuts: list[int]) -> None:
    if payload:
        assert _fed(LengthBody(len(payload)), payload + rest, cuts) == (payload, rest)


def _chunked(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x;name=value\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\nTrailer: x\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=30)), st.binary(max_size=20), st.lists(st.integers(0, 300)))
def test_a_body_in_chunks_is_put_together(chunks: list[bytes], rest: bytes, cuts: list[int]) -> None:
    assert _fed(ChunkedBody(), _chunked(chunks) + rest, cuts) == (b"".join(chunks), rest)


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1))
def test_a_body_in_chunks_arrives_byte_by_byte(chunks: list[bytes]) -> None:
    data = _chunked(chunks)
    assert _fed(ChunkedBody(), data, list(range(len(data)))) == (b"".join(chunks), b"")


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1 1\r\na",
        b"1\r\nab\r\n",
        b"1\nab\r\n",
        b"1" * 16 + b"\r\n",
        b"1;" + b"x" * 300,
        b"0\r\n" + b"T: x\r\n" * 2000,
        b"0\r\n" + b"x" * 9000,
    ],
)
def test_malformed_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        _fed(ChunkedBody(), data)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_no_bytes_break_the_chunks(data: bytes, cuts: list[int]) -> None:
    try:
        _fed(ChunkedBody(), data, cuts)
    except WireError as e:
        assert e.status == 400  # noqa: PT017  # it may also be well-formed


# -- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_taken_apart() -> None:
    head = parse_answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX: y\r\n\r\n")
    assert (head.status, head.headers["x"], head.keep_alive) == (404, "y", True)
    assert isinstance(head.body, LengthBody)
    assert parse_answer(b"HTTP/1.1 200\r\n\r\n").status == 200


@pytest.mark.parametrize(
    ("head", "to_head", "body", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", False, ChunkedBody, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", False, EndlessBody, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", False, LengthBody, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, LengthBody, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", False, LengthBody, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", True, LengthBody, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n", True, LengthBody, False),
    ],
)
def test_an_answer_says_where_it_ends(head: bytes, to_head: bool, body: type, keep_alive: bool) -> None:
    answer = parse_answer(head, to_head=to_head)
    assert type(answer.body) is body
    assert answer.keep_alive is keep_alive
    if to_head or answer.status in (204, 304):
        assert isinstance(answer.body, LengthBody)
        assert answer.body.remaining == 0


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(WireError, match="first line"):
        parse_answer(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def test_many_small_chunks_cost_no_more_than_they_weigh() -> None:
    data = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
    began = time.process_time()
    assert len(_fed(ChunkedBody(), data)[0]) == 100_000
    # Cutting off the front at each chunk takes a hundred times as long.
    assert time.process_time() - began < 2
