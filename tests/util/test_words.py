"""Texts cut into words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.util.words import fold, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("foo.py of alice_smith", ["foo", "py", "of", "alice", "smith"]),
        ("\u0160mith STRASSE stra\u00dfe", ["smith", "strasse", "strasse"]),
        ("\uff21\uff22", ["ab"]),
        ("\u65e5\u672c\u8a9e", ["\u65e5 \u672c \u8a9e"]),
        ("abc\u65e5\u672cdef", ["abc", "\u65e5 \u672c", "def"]),
        ("", []),
        ("\u2026!?\x00", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@given(st.text())
def test_words_are_words_of_their_own(text: str) -> None:
    """So that a text and a question about it are cut alike."""
    for term in terms(text):
        assert terms(term.replace(" ", "")) == [term]
        assert "'" not in term
        assert "!" not in term


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)
