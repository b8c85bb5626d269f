"""JSON bodies: strict, bounded, and refused in sentences that name the field."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.errors import MatrixError
from synapse.http.body import MAX_DEPTH, decode, decode_as, decode_object


class Inner(msgspec.Struct):
    count: int


class Form(msgspec.Struct):
    name: str
    note: str | None = None
    inner: list[Inner] = msgspec.field(default_factory=list)
    kind: Literal["one", "two"] = "one"


def _error(body: bytes, kind: Any = None) -> MatrixError:
    with pytest.raises(MatrixError) as caught:
        decode_object(body) if kind is None else decode_as(body, kind)
    assert caught.value.code == 400
    assert caught.value.message.endswith(".")
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nothing",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": 01}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": 1} {}',
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a": [{"b": 1, "b": ":"}]}',
        b'{"x": ":", "a" : 1, "a" : 2}',
        b'{"a": {}, "a": {"b": ":"}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert _error(body).errcode == "M_NOT_JSON"


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"x"', b"true"])
def test_a_body_must_be_an_object(body: bytes) -> None:
    assert _error(body).errcode == "M_BAD_JSON"


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
def test_nesting_is_bounded(opening: bytes) -> None:
    closing = b"}" if opening[:1] == b"{" else b"]"
    for depth, fits in ((MAX_DEPTH - 1, True), (MAX_DEPTH, False), (1000, False)):
        body = b'{"x":' + opening * depth + b"1" + closing * depth + b"}"
        if fits:
            assert decode_object(body)
        else:
            assert _error(body).errcode == "M_BAD_JSON"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_json, st.booleans(), st.sampled_from([None, 2]))
def test_every_json_value_is_read(value: Any, ascii_only: bool, indent: int | None) -> None:
    assert decode(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


@given(st.dictionaries(st.text(), _json, min_size=1, max_size=4), st.data())
def test_a_repeated_key_is_always_noticed(value: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    body = json.dumps(value)[:-1] + f", {json.dumps(key)}: {json.dumps(data.draw(_json))}" + "}"
    assert _error(body.encode()).errcode == "M_NOT_JSON"


@pytest.mark.parametrize(
    ("body", "errcode", "word"),
    [
        (b"{}", "M_MISSING_PARAM", "'name'"),
        (b'{"name": 1}', "M_BAD_JSON", "'name' must be a string, not an integer"),
        (b'{"name": null}', "M_BAD_JSON", "'name' must be a string, not null"),
        (b'{"name": "x", "note": []}', "M_BAD_JSON", "'note' must be a string or null, not a list"),
        (b'{"name": "x", "inner": [{"count": "x"}]}', "M_BAD_JSON", "'inner[0].count' must be an integer"),
        (b'{"name": "x", "inner": [{}]}', "M_MISSING_PARAM", "'inner[0].count'"),
        (b'{"name": "x", "kind": "no"}', "M_BAD_JSON", "The field 'kind' cannot be 'no'."),
        (b'{"name": "x\\u0000"}', "M_BAD_JSON", "NUL"),
        (b"[]", "M_BAD_JSON", "object"),
    ],
)
def test_a_body_of_another_shape_is_refused_by_the_field(body: bytes, errcode: str, word: str) -> None:
    error = _error(body, Form)
    assert error.errcode == errcode
    assert word in error.message


def test_a_body_becomes_a_struct() -> None:
    form = decode_as(b'{"name": "n", "inner": [{"count": 2}], "other": {}}', Form)
    assert form == Form("n", None, [Inner(2)])


_VALUES = st.recursive(
    st.one_of(st.text(':\\" a\t', max_size=5), st.integers(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(':\\" a', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
_SPACES = st.sampled_from(["", " ", "\n", "\t", " \r\n"])


@given(_VALUES, _SPACES, _SPACES)
def test_colons_are_counted_wherever_they_are(value: Any, before: str, behind: str) -> None:
    """Nothing is taken for a repeated key that is none, and each that is one is found."""
    text = json.dumps({"k": value, "l": value}, separators=(f"{before},{behind}", f"{before}:{behind}"))
    assert decode(text.encode()) == {"k": value, "l": value}
    twice = text.replace('"l"', '"k"', 1) if text.count('"l"') == 1 else '{"k":":","k":1}'
    assert decode(json.dumps(value).encode()) == value
    with pytest.raises(MatrixError, match="same key twice"):
        decode(twice.encode())
