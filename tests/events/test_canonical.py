"""Canonical JSON: the vectors of the appendices, the two encoders against each other, and what is refused."""

from __future__ import annotations

from typing import Any

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.errors import MatrixError
from synapse.events import canonical

VECTORS = [
    ("{}", "{}"),
    ('{\n    "one": 1,\n    "two": "Two"\n}', '{"one":1,"two":"Two"}'),
    ('{"b":"2","a":"1"}', '{"a":"1","b":"2"}'),
    (
        '{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",'
        '"three_pids": [{"medium": "email", "address": "john.doe@example.org"},'
        '{"medium": "msisdn", "address": "123456789"}]}}}',
        '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":'
        '[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},'
        '"success":true}}',
    ),
    ('{"a": "日本語"}', '{"a":"日本語"}'),
    ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
    ('{"a": "\\u65E5"}', '{"a":"日"}'),
    ('{"a": null}', '{"a":null}'),
    ('{"a": -0}', '{"a":0}'),
]


@pytest.mark.parametrize(("text", "expected"), VECTORS)
def test_vectors(text: str, expected: str) -> None:
    value = canonical.parse(text)
    canonical.check(value)
    assert canonical.encode(value) == expected.encode()
    assert canonical.encode_lenient(canonical.parse_lenient(text)) == expected.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_both_encoders_write_the_same(value: Any) -> None:
    canonical.check(value)
    encoded = canonical.encode(value)
    assert encoded == canonicaljson.encode_canonical_json(value)
    assert canonical.parse(encoded) == canonical.parse_lenient(encoded) == value


@pytest.mark.parametrize("code", [*range(0x20), 0x22, 0x5C, 0x7F, 0x2028, 0xFFFF, 0x10FFFF])
def test_both_encoders_escape_the_same(code: int) -> None:
    assert canonical.encode(chr(code)) == canonicaljson.encode_canonical_json(chr(code))


@pytest.mark.parametrize(
    "text", ["1.5", "1.0", "1e10", "[0.1]", '{"a":{"b":[1e3]}}', "9007199254740992", "-9007199254740992", str(2**70)]
)
def test_numbers_that_are_refused_since_v6(text: str) -> None:
    with pytest.raises(MatrixError, match="M_BAD_JSON"):
        canonical.check(canonical.parse(text))


def test_limits_are_allowed() -> None:
    canonical.check([2**53 - 1, -(2**53) + 1, True, None])


def test_old_rooms_keep_their_numbers() -> None:
    text = f'{{"a":{2**70},"b":1.5,"c":-{10**30}}}'
    assert canonical.encode_lenient(canonical.parse_lenient(text)).decode() == text


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1" * 500])
def test_numbers_that_no_room_takes(text: str) -> None:
    with pytest.raises(MatrixError, match="M_BAD_JSON"):
        canonical.parse_lenient(text)


@pytest.mark.parametrize("text", ["", "{", "nul", '"\\ud800"', b"\xff"])
def test_not_json(text: str | bytes) -> None:
    with pytest.raises(MatrixError, match="M_NOT_JSON"):
        canonical.parse(text)


@pytest.mark.parametrize("depth", [canonical.MAX_NESTING + 1, 10_000])
def test_nesting_is_bounded(depth: int) -> None:
    value: Any = []
    for _ in range(depth - 1):
        value = {"a": value} if depth % 2 else [value]
    for check in (canonical.check, canonical.check_nesting):
        with pytest.raises(MatrixError, match="M_BAD_JSON"):
            check(value)


def test_deepest_nesting_can_be_written() -> None:
    value: Any = []
    for _ in range(canonical.MAX_NESTING - 1):
        value = [value]
    canonical.check(value)
    canonical.check_nesting(value)
    assert canonical.encode({"event": {"content": value}})


def test_deep_text_is_refused_by_either_parser() -> None:
    for parse in (canonical.parse, canonical.parse_lenient):
        with pytest.raises(MatrixError, match="M_NOT_JSON"):
            parse("[" * 100_000)


def test_lone_surrogates_have_no_canonical_form() -> None:
    with pytest.raises(MatrixError, match="M_BAD_JSON"):
        canonical.encode_lenient("\ud800")


def test_nesting_that_no_encoder_writes() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(MatrixError, match="M_BAD_JSON"):
        canonical.encode_lenient(value)
