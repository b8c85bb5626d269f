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
    if event_filter.asks_for_relations:
        part, values = _related_by(event_filter.related_by_rel_types, event_filter.related_by_senders)
        parts.append(part)
        params += values
    return Condition(" AND ".join(parts), tuple(params)) if parts else ALWAYS


def _related_by(rel_types: frozenset[str] | None, senders: frozenset[str] | None) -> tuple[str, list[object]]:
    """That an event which clients see relates to `e`, in one of these ways, and is sent by one of these users."""
    sql = "c.relates_to = e.event_id AND c.room_id = e.room_id AND c.redacted_by IS NULL AND c.relation_type "
    sql += "IS NOT NULL" if rel_types is None else "= ANY(%s)"
    params: list[object] = [] if rel_types is None else [sorted(rel_types)]
    if senders is not None:
        sql += " AND c.sender = ANY(%s)"
        params.append(sorted(senders))
    shown = "NOT c.outlier AND NOT c.soft_failed AND c.rejected IS NULL"
    return f"EXISTS (SELECT 1 FROM events c WHERE {sql} AND {shown})", params


def _lists(patterns: TypePatterns) -> tuple[list[str], list[str]]:
    """The exact types, and the patterns in LIKE's language."""
    exact = [pattern for pattern in patterns.patterns if "*" not in pattern]
    globs = [_like(pattern) for pattern in patterns.patterns if "*" in pattern]
    return exact, globs


def _like(pattern: str) -> str:
    for char in ("\\", "%", "_"):
        pattern = pattern.replace(char, "\\" + char)
    return pattern.replace("*", "%")
