"""Glob patterns of push rules as regular expressions that no text and no pattern can make slow.

A pattern with several `*` would, translated plainly, try all ways of dividing the text among them. Taking the first
place where each part fits is always as good as any later one, so every part but the last is matched once and for all
(an atomic group), and the time is bounded by the length of the text times that of the longest part.

Appendices, "Glob-style matching"; client-server API, "Push notifications", `event_match`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_NOT_AFTER_WORD: Final = r"(?<!(?-i:[A-Za-z0-9_]))"
_NOT_BEFORE_WORD: Final = r"(?!(?-i:[A-Za-z0-9_]))"

Matcher = Callable[[str], bool]


def whole(pattern: str) -> Matcher:
    """Whether the pattern matches the whole text, in whatever case."""
    if "*" not in pattern and "?" not in pattern:
        wanted = pattern.lower()
        return lambda text: text.lower() == wanted
    first, *rest = _parts(pattern)
    if not rest:
        return _compile(first + r"\Z")
    *middle, last = rest
    end = f".*{last}\\Z" if last else ""
    return _compile(first + "".join(f"(?>.*?{part})" for part in middle) + end)


def words(pattern: str) -> Matcher:
    """Whether the pattern matches any part of the text that starts and ends at word boundaries, in whatever case."""
    first, *rest = _parts(pattern)
    start = f"(?>.*?{_NOT_AFTER_WORD}{first})" if first else ""
    if not rest:
        return _compile(f".*?{_NOT_AFTER_WORD}{first}{_NOT_BEFORE_WORD}")
    *middle, last = rest
    end = f".*?{last}{_NOT_BEFORE_WORD}" if last else ""
    return _compile(start + "".join(f"(?>.*?{part})" for part in middle) + end)


def _parts(pattern: str) -> list[str]:
    """What stands between the stars, as expressions; empty parts in the middle (`**`) mean nothing."""
    first, *rest = pattern.split("*")
    kept = [first, *(part for part in rest[:-1] if part), *rest[-1:]]
    return ["".join("." if char == "?" else re.escape(char) for char in part) for part in kept]


def _compile(expression: str) -> Matcher:
    matcher = re.compile(expression, re.IGNORECASE | re.DOTALL).match
    return lambda text: matcher(text) is not None
