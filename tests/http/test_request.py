"""What handlers read from a request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from synapse.api.errors import MatrixError
from synapse.http.request import MAX_QUERY_FIELDS, RawRequest, Request
from synapse.http.upload import BytesBody
from tests.support.deferreds import started


def _request(query: str = "", body: bytes = b"") -> Request:
    return Request(RawRequest("GET", "/x" + ("?" + query if query else ""), {"user-agent": "ua"}, body))


def _refused(call: Any, errcode: str, word: str) -> None:
    with pytest.raises(MatrixError) as caught:
        call()
    assert caught.value.errcode == errcode
    assert word in caught.value.message


def test_parameters_are_read() -> None:
    request = _request("a=1&a=2&b=&c=%C3%A4+x&d")
    assert request.query == {"a": ["1", "2"], "b": [""], "c": ["ä x"], "d": [""]}
    assert (request.arg("a"), request.args("a")) == ("1", ["1", "2"])
    assert (request.arg("z"), request.arg("z", "y"), request.args("z")) == (None, "y", [])
    assert request.required_arg("b") == ""
    assert _request().query == {}
    assert _request("a=ä".encode().decode("latin-1")).arg("a") == "ä"
    _refused(lambda: request.required_arg("z"), "M_MISSING_PARAM", "'z'")


@pytest.mark.parametrize("query", ["a=%FF", "a=\xff", "a=%00", "&".join("a=1" for _ in range(MAX_QUERY_FIELDS + 1))])
def test_bad_queries_are_refused(query: str) -> None:
    _refused(lambda: _request(query).query, "M_INVALID_PARAM", "query")


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("0", 0), ("999", 100), ("007", 7)])
def test_numbers_are_read(text: str, value: int) -> None:
    assert _request(f"n={text}").int_arg("n", 1, maximum=100) == value


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "--1", "+1", "1_0", "-", "%D9%A1", "1" * 30, "5-", "1-1", " 1"])
def test_other_numbers_are_refused(text: str) -> None:
    _refused(lambda: _request(f"n={text}").int_arg("n", 1), "M_INVALID_PARAM", "'n'")


def test_numbers_have_defaults_and_minima() -> None:
    assert _request().int_arg("n", 7) == 7
    assert _request().int_arg("n") is None
    assert _request("n=-5").int_arg("n", minimum=-10) == -5
    _refused(lambda: _request("n=0").int_arg("n", minimum=1), "M_INVALID_PARAM", "at least 1")
    _refused(lambda: _request(f"n={10**18}").int_arg("n"), "M_INVALID_PARAM", "18 digits")


def test_truth_is_true_or_false() -> None:
    assert _request("b=true").bool_arg("b")
    assert not _request("b=false").bool_arg("b", True)
    assert _request().bool_arg("b", True)
    _refused(lambda: _request("b=1").bool_arg("b"), "M_INVALID_PARAM", "'b'")


def test_choices_are_named() -> None:
    assert _request("dir=f").choice_arg("dir", ("f", "b")) == "f"
    assert _request().choice_arg("dir", ("f", "b"), "b") == "b"
    _refused(lambda: _request("dir=x").choice_arg("dir", ("f", "b")), "M_INVALID_PARAM", "f, b")
    _refused(lambda: _request().choice_arg("dir", ("f", "b")), "M_MISSING_PARAM", "'dir'")


class _Optional(msgspec.Struct):
    reason: str = ""


def test_no_body_is_nothing_where_that_is_allowed() -> None:
    assert _request().json_object(allow_empty=True) == {}
    assert _request().body_as(_Optional, allow_empty=True).reason == ""
    assert _request(body=b'{"reason": "x"}').body_as(_Optional).reason == "x"
    assert _request(body=b'{"x": 1}').json_object() == {"x": 1}
    _refused(lambda: _request().json_object(), "M_NOT_JSON", "empty")
    _refused(lambda: _request().body_as(_Optional), "M_NOT_JSON", "empty")


def test_the_rest_of_a_request() -> None:
    request = _request("a=b")
    assert (request.method, request.path, request.user_agent, request.client_ip) == ("GET", "/x", "ua", "127.0.0.1")
    assert request.name == "unknown"
    with pytest.raises(RuntimeError):
        _ = request.user


def test_a_body_that_is_there_can_be_streamed_too() -> None:
    stream = _request(body=b"abc").stream
    assert stream.length == 3
    found: list[bytes] = []
    for _ in range(2):
        started(stream.read()).addCallback(found.append)
    assert found == [b"abc", b""]
    _refused(lambda: BytesBody(b"abc").limit(2), "M_TOO_LARGE", "2 bytes")
