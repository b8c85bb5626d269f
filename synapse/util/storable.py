"""Whether a decoded JSON value can be stored: PostgreSQL has no NUL characters, and encoders give up on deep nesting.

Both questions are answered level by level, so that no value exhausts the stack.
"""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 100


def problem_of(value: Any) -> str | None:
    """Half a sentence that says why the value cannot be stored ("it contains …"), None if it can."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str) and "\x00" in item:
                return "it contains a NUL character"
        if not below:
            return None
        level = below
    return f"it is nested more than {MAX_DEPTH} levels deep"


def is_too_deep(value: Any) -> bool:
    """Whether the value is nested more than `MAX_DEPTH` levels deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            below
            for item in level
            if isinstance(item, dict | list)
            for below in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True
