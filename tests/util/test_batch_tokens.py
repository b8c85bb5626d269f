"""Tokens of pages: what was packed comes out again, and nothing else does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.util.batch_tokens import pack, unpack

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=50)


@given(TEXTS, st.integers(-(2**62), 2**62), st.booleans(), st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_packed_comes_out_again(text: str, number: int, flag: bool, maybe: float | None) -> None:
    token = pack(text, number, flag, maybe)
    assert token.isascii()
    assert "=" not in token
    assert unpack(token, str, int, bool, (float, type(None))) == [text, number, flag, maybe]


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_anything_else_is_no_token(text: str) -> None:
    assert unpack(text, str, int, str, str) is None


@pytest.mark.parametrize(
    ("token", "kinds"),
    [
        (pack(True), (int,)),
        (pack(1), (bool,)),
        (pack(1), (str,)),
        (pack(1.0), (int,)),
        (pack(1, 2), (int,)),
        (pack("a\x00"), (str,)),
        (pack(2**63), (int,)),
        (pack("a" * 3000), (str,)),
        (base64.urlsafe_b64encode(b'{"0": 1}').decode(), (int,)),
        (base64.urlsafe_b64encode(b"1").decode(), (int,)),
    ],
)
def test_values_of_other_kinds_are_refused(token: str, kinds: tuple[type, ...]) -> None:
    assert unpack(token, *kinds) is None
