"""Filters as SQL: so that the database looks for the last N events that pass, instead of handing over all of them."""

from __future__ import annotations

from synapse.api.filters import RoomEventFilter, TypePatterns
from synapse.storage.timeline import ALWAYS, Condition


def condition(event_filter: RoomEventFilter) -> Condition:
    """What `RoomEventFilter.matches` asks of an event; the rooms aside, which the caller chooses."""
    if event_filter.allows_all_events:
        return ALWAYS
    parts: list[str] = []
    params: list[object] = []
    for patterns, negation in ((event_filter.types, ""), (event_filter.not_types, "NOT ")):
        if patterns is not None:
            parts.append(f"{negation}(e.type = ANY(%s) OR e.type LIKE ANY(%s))")
            params += _lists(patterns)
    if event_filter.senders is not None:
        parts.append("e.sender = ANY(%s)")
        params.append(sorted(event_filter.senders))
    if event_filter.not_senders:
        parts.append("e.sender <> ALL(%s)")
        params.append(sorted(event_filter.not_senders))
    if event_filter.contains_url is not None:
        parts.append("e.contains_url" if event_filter.contains_url else "NOT e.contains_url")
    return Condition(" AND ".join(parts), tuple(params)) if parts else ALWAYS


def _lists(patterns: TypePatterns) -> tuple[list[str], list[str]]:
    """The exact types, and the patterns in LIKE's language."""
    exact = [pattern for pattern in patterns.patterns if "*" not in pattern]
    globs = [_like(pattern) for pattern in patterns.patterns if "*" in pattern]
    return exact, globs


def _like(pattern: str) -> str:
    for char in ("\\", "%", "_"):
        pattern = pattern.replace(char, "\\" + char)
    return pattern.replace("*", "%")
