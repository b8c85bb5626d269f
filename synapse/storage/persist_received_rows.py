"""The rows that received events consist of, besides those that they have in common with this server's own.

They have statements of their own, so that own events pay nothing for what only others' may be: late, refused, or here
already as an outlier. Part of the one transaction of `synapse.storage.persist_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.constants import RelationTypes

if TYPE_CHECKING:
    from synapse.storage.transaction import Transaction


class ReceivedRow(NamedTuple):
    """A row of `events`."""

    stream_ordering: int
    event_id: str
    room_id: str
    depth: int
    type: str
    state_key: str | None
    sender: str
    origin_server_ts: int
    received_ts: int
    state_group: int | None
    outlier: bool
    soft_failed: bool
    rejected: str | None
    redacted_by: str | None
    contains_url: bool
    relates_to: str | None
    relation_type: str | None
    replaces: str | None
    json: str
    relay: bool | None
    after_gap: bool
    fills: int | None


_NUMBERS: Final = ("stream_ordering", "depth", "origin_server_ts", "received_ts", "state_group", "fills")
_TRUTHS: Final = ("outlier", "soft_failed", "contains_url", "relay", "after_gap")
_TYPES: Final = dict.fromkeys(_NUMBERS, "bigint") | dict.fromkeys(_TRUTHS, "boolean")
_UNNEST: Final = ", ".join(f"%s::{_TYPES.get(name, 'text')}[]" for name in ReceivedRow._fields)
_COLUMNS: Final = ", ".join(ReceivedRow._fields)


def columns_of(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """The rows as arrays, one a column."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]


def write_received(txn: Transaction, rows: Sequence[ReceivedRow]) -> None:
    """Events that are not here yet."""
    if rows:
        txn.planned_later(_RECEIVED, columns_of(rows, len(ReceivedRow._fields)))


def write_arrived(txn: Transaction, rows: Sequence[ReceivedRow]) -> None:
    """Events that are here as outliers, and are no more."""
    if rows:
        txn.later(_ARRIVED, columns_of(rows, len(ReceivedRow._fields)))


def write_outliers(txn: Transaction, rows: Sequence[ReceivedRow]) -> None:
    """Events that are kept because others refer to them, unless they are here."""
    if rows:
        txn.later(_OUTLIERS, columns_of(rows, len(ReceivedRow._fields)))


# Who relates to an event may have come before it.
_IS_PARENT: Final = f"""
    EXISTS (
        SELECT FROM events c WHERE c.relates_to = n.event_id AND c.room_id = n.room_id AND c.relation_type IN
            ('{RelationTypes.REFERENCE}', '{RelationTypes.REPLACE}', '{RelationTypes.THREAD}')
    )
"""
_RECEIVED: Final = f"""
    INSERT INTO events ({_COLUMNS}, is_parent) SELECT {_COLUMNS}, {_IS_PARENT} FROM unnest({_UNNEST}) AS n ({_COLUMNS})
"""
_ARRIVED: Final = f"""
    UPDATE events e SET stream_ordering = n.stream_ordering, state_group = n.state_group, outlier = n.outlier,
        received_ts = n.received_ts, soft_failed = n.soft_failed, rejected = n.rejected,
        redacted_by = COALESCE(e.redacted_by, n.redacted_by), contains_url = n.contains_url, relates_to = n.relates_to,
        relation_type = n.relation_type, replaces = n.replaces, json = n.json, relay = n.relay,
        after_gap = n.after_gap, fills = n.fills, is_parent = {_IS_PARENT}
    FROM unnest({_UNNEST}) AS n ({_COLUMNS}) WHERE e.event_id = n.event_id AND e.outlier
"""
# A redaction may have come before them.
_OUTLIERS: Final = f"""
    INSERT INTO events ({_COLUMNS})
    SELECT {_COLUMNS.replace(" redacted_by,", " p.redaction_id,")}
    FROM unnest({_UNNEST}) AS n ({_COLUMNS})
    LEFT JOIN LATERAL (
        SELECT p.redaction_id FROM pending_redactions p WHERE (p.room_id, p.event_id) = (n.room_id, n.event_id)
            AND (p.server_name IS NULL OR p.server_name = substr(n.sender, strpos(n.sender, ':') + 1))
        ORDER BY p.stream_ordering LIMIT 1
    ) p ON true
    ON CONFLICT (event_id) DO NOTHING
"""


class Lack(NamedTuple):
    """An event that is referred to and is not here; depth and position are those of the gap (`awaited.Gap`)."""

    room_id: str
    event_id: str
    depth: int
    stream_ordering: int


class PendingRedaction(NamedTuple):
    """A redaction whose target is not here; `server_name` is whose events it may redact, None: everybody's."""

    room_id: str
    event_id: str
    redaction_id: str
    server_name: str | None
    stream_ordering: int


class Released(NamedTuple):
    """A redaction that was held back, and is shown from now on: where it stands, and whether something is missing just
    before it."""

    event_id: str
    stream_ordering: int
    after_gap: bool


def write_released(txn: Transaction, released: Sequence[Released]) -> None:
    """Redactions whose targets have come. They may have been written in the same transaction, before."""
    if released:
        txn.later(_RELEASED, columns_of(released, len(Released._fields)))


def write_closed(txn: Transaction, closed: Sequence[tuple[str, int]]) -> None:
    """Gaps (room, position) of which nothing is missing any more: what filled them has come with the stream."""
    if closed:
        txn.later(_CLOSED, columns_of(closed, 2))


def write_awaited(
    txn: Transaction, lacks: Sequence[Lack], pending: Sequence[PendingRedaction], come: Sequence[tuple[str, str]]
) -> None:
    """What rooms lack from now on, and what (room, event) has come."""
    once: dict[tuple[str, str], Lack] = {}
    for lack in lacks:
        other = once.get(lack[:2], lack)
        once[lack[:2]] = lack._replace(
            depth=max(lack.depth, other.depth), stream_ordering=min(lack.stream_ordering, other.stream_ordering)
        )
    txn.values(_LACKS, once.values(), later=True)
    txn.values(_PENDING, pending, later=True)
    if come:  # perhaps after what awaits it, in the same transaction
        rooms_and_events = columns_of(come, 2)
        for table in ("backward_extremities", "pending_redactions"):
            txn.later(_COME.format(table=table), rooms_and_events)


_RELEASED: Final = """
    UPDATE events e SET stream_ordering = r.stream_ordering, soft_failed = false, after_gap = r.after_gap
    FROM unnest(%s::text[], %s::bigint[], %s::boolean[]) AS r (event_id, stream_ordering, after_gap)
    WHERE e.event_id = r.event_id AND e.soft_failed
"""
# What came as history is in no timeline.
_CLOSED: Final = """
    UPDATE events e SET after_gap = false FROM unnest(%s::text[], %s::bigint[]) AS gap (room_id, position)
    WHERE e.stream_ordering = gap.position + 1 AND e.room_id = gap.room_id
        AND NOT EXISTS (SELECT FROM events h WHERE h.room_id = gap.room_id AND h.fills = gap.position)
"""
_COME: Final = """
    DELETE FROM {table} t USING unnest(%s::text[], %s::text[]) AS come (room_id, event_id)
    WHERE (t.room_id, t.event_id) = (come.room_id, come.event_id)
"""
_LACKS: Final = """
    INSERT INTO backward_extremities (room_id, event_id, depth, stream_ordering) VALUES %s
    ON CONFLICT (room_id, event_id) DO UPDATE SET depth = GREATEST(backward_extremities.depth, excluded.depth),
        stream_ordering = LEAST(backward_extremities.stream_ordering, excluded.stream_ordering)
"""
_PENDING: Final = """
    INSERT INTO pending_redactions (room_id, event_id, redaction_id, server_name, stream_ordering) VALUES %s
    ON CONFLICT DO NOTHING
"""
