"""Globs: the examples of the specification, agreement with a naive matcher, and no blow-up."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.push import globs


@pytest.mark.parametrize(
    ("pattern", "text", "ok"),
    [
        ("lunc?*", "Lunch plans", True),
        ("lunc?*", "LUNCH", True),
        ("lunc?*", " lunch", False),
        ("lunc?*", "lunc", False),
        ("*", "", True),
        ("", "", True),
        ("", "x", False),
        ("m.notice", "M.Notice", True),
        ("m.notice", "mxnotice", False),
        ("a*b", "a\nb", True),
        ("a*b*", "ab", True),
        ("a**b", "ab", True),
        ("ab*bc", "abc", False),
        ("[a]", "a", False),
    ],
)
def test_whole(pattern: str, text: str, ok: bool) -> None:
    assert globs.whole(pattern)(text) is ok


@pytest.mark.parametrize(
    ("pattern", "text", "ok"),
    [
        ("ex*ple", "An example event.", True),
        ("ex*ple", "exple", True),
        ("ex*ple", "An exciting triple-whammy", True),
        ("ex*ple", "An xample", False),
        ("cake", "I like CAKE!", True),
        ("cake", "cakes", False),
        ("cake", "pancake", False),
        ("cake", "_cake", False),
        ("cake", "pancake cake", True),
        ("cake", "écake", True),
        ("cake*lie", "pancake is a cake of a lie", True),
        ("cake*lie", "lie cake", False),
        ("cake*lie", "cake lies", False),
        ("*", "", True),
        ("*ake", "pancake", True),
        ("*ake", "pancakes", False),
        ("cak*", "cakes", True),
        ("c?ke", "coke", True),
        ("", "x", False),
        ("", "", True),
    ],
)
def test_words(pattern: str, text: str, ok: bool) -> None:
    assert globs.words(pattern)(text) is ok


def naive(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and naive(pattern[1:], text[1:])


def naive_words(pattern: str, text: str) -> bool:
    def boundary(before: str, after: str) -> bool:
        return (not before or before[-1] in " -") and (not after or after[0] in " -")

    places = [(start, end) for start in range(len(text) + 1) for end in range(start, len(text) + 1)]
    return any(naive(pattern, text[s:e]) and boundary(text[:s], text[e:]) for s, e in places)


@given(st.text("ab*?", max_size=6), st.text("ab -", max_size=7))
def test_agree_with_a_naive_matcher(pattern: str, text: str) -> None:
    assert globs.whole(pattern)(text) is naive(pattern, text)
    assert globs.words(pattern)(text) is naive_words(pattern, text)


@pytest.mark.parametrize("pattern", ["a*" * 100 + "b", "*a" * 100 + "b", "a*b", "?*" * 50 + "b"])
@pytest.mark.parametrize("text", ["a" * 60_000, "a " * 30_000])
def test_nothing_is_slow(pattern: str, text: str) -> None:
    before = time.process_time()
    assert not globs.words(pattern)(text)
    assert not globs.whole(pattern)(text)
    assert time.process_time() - before < 1  # milliseconds in fact; it would be years if it were exponential
