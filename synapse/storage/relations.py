"""How an event relates to another one (`m.relates_to`): what is kept of it beside the event, and questions about it.

Client-server API, "Forming relationships between events".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from synapse.api.constants import EventTypes, RelationTypes
from synapse.storage.timeline import COLUMNS, SHOWN, Page, TimelineRow, in_page

if TYPE_CHECKING:
    from synapse.events.event import Event
    from synapse.storage.database import Database, Transaction

AGGREGATED: Final = frozenset({RelationTypes.REFERENCE, RelationTypes.REPLACE, RelationTypes.THREAD})
"""The relations that parents are shown with: client-server API, "Aggregations of child events"."""


class Relation(NamedTuple):
    """`event_id` is the event related to; `rel_type` is None for a rich reply, which has no type."""

    event_id: str
    rel_type: str | None
    key: str | None = None


class Related(NamedTuple):
    """Which events to look for: those that relate to `event_id`, if need be through others, `depth` relations away at
    most; each relation and each event of these types, where they are given.
    """

    event_id: str
    rel_type: str | None = None
    event_type: str | None = None
    depth: int = 1


def relation_of(content: Mapping[str, Any]) -> Relation | None:
    """The relation that an event's content declares, if it is a well-formed one."""
    relates_to = content.get("m.relates_to")
    if not isinstance(relates_to, dict):
        return None
    event_id, rel_type, key = relates_to.get("event_id"), relates_to.get("rel_type"), relates_to.get("key")
    if isinstance(event_id, str) and isinstance(rel_type, str):
        return _checked(Relation(event_id, rel_type, key if isinstance(key, str) else None))
    reply = relates_to.get("m.in_reply_to")
    replied = reply.get("event_id") if isinstance(reply, dict) else None
    return _checked(Relation(replied, None)) if isinstance(replied, str) else None


def relation_kept_of(event: Event) -> Relation | None:
    """The relation that is kept beside the event: none of an edit that says nothing new, which is to be ignored.

    What the edit of an encrypted event says, no server can read. Client-server API, "Validity of replacement events".
    """
    relation = relation_of(event.content)
    if relation is None or relation.rel_type != RelationTypes.REPLACE:
        return relation
    if event.state_key is not None:
        return None
    is_readable = event.type != EventTypes.ENCRYPTED
    return None if is_readable and not isinstance(event.content.get("m.new_content"), dict) else relation


def _checked(relation: Relation) -> Relation | None:
    # Foreign servers may send anything; what no event can be named or PostgreSQL cannot hold is no relation.
    texts = relation.event_id, relation.rel_type or "", relation.key or ""
    fine = len(relation.event_id) <= 255 and len(relation.rel_type or "") <= 255
    return relation if fine and not any("\x00" in text for text in texts) else None


class RelationsStore:
    """Asks for relations, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def has_annotation(self, sender: str, event_type: str, event_id: str, key: str) -> bool:
        """Whether `sender` has annotated the event with this very key already, and not taken it back. One statement."""
        return await self._db.read("relations.has_annotation", _has_annotation, sender, event_type, event_id, key)

    async def related(self, page: Page, wanted: Related) -> list[TimelineRow]:
        """The part of a page of history that relates to an event; redacted events relate to nothing. One statement."""
        return await self._db.read("relations.related", _related, page, wanted)


def _related(txn: Transaction, page: Page, wanted: Related) -> list[TimelineRow]:
    of_page, order = in_page(page)
    kind = f"e.redacted_by IS NULL AND e.room_id = %s AND {SHOWN}"
    params: list[object] = [page.room_id]
    for column, value in (("relation_type", wanted.rel_type), ("type", wanted.event_type)):
        kind += f" AND e.{column} IS NOT NULL" if value is None else f" AND e.{column} = %s"
        params += [] if value is None else [value]
    if wanted.depth == 1:
        sql = f"SELECT {COLUMNS} FROM events e WHERE e.relates_to = %s AND {kind} AND {of_page.sql} {order}"
        txn.execute(sql, (wanted.event_id, *params, *of_page.params, page.limit))
    else:
        # Within LATERAL, so that they are looked for by event: never are all relations compared with all events.
        kept = "e.event_id, e.depth, e.stream_ordering, e.room_id, e.fills, e.outlier, e.soft_failed, e.rejected"
        sql = f"""
            WITH RECURSIVE related AS (
                SELECT 1 AS level, {kept} FROM events e WHERE e.relates_to = %s AND {kind}
                UNION SELECT r.level + 1, e.* FROM related r CROSS JOIN LATERAL (
                    SELECT {kept} FROM events e WHERE e.relates_to = r.event_id AND {kind} OFFSET 0
                ) e WHERE r.level < %s
            ), page AS (SELECT e.event_id FROM related e WHERE {of_page.sql} {order})
            SELECT {COLUMNS} FROM page CROSS JOIN LATERAL (
                SELECT * FROM events e WHERE e.event_id = page.event_id
            ) e {order}
        """
        params = [wanted.event_id, *params, *params, wanted.depth, *of_page.params, page.limit, page.limit]
        txn.execute(sql, tuple(params))
    return [TimelineRow._make(row) for row in txn.rows()]


def _has_annotation(txn: Transaction, sender: str, event_type: str, event_id: str, key: str) -> bool:
    # Of JSON that holds NUL, the database reads nothing.
    txn.execute(
        """
        SELECT json FROM events WHERE relates_to = %s AND relation_type = %s AND sender = %s AND type = %s
            AND redacted_by IS NULL
        """,
        (event_id, RelationTypes.ANNOTATION, sender, event_type),
    )
    return any(_key_of(json) == key for (json,) in txn.rows())


def _key_of(json: str) -> str | None:
    relation = relation_of(orjson.loads(json)["content"])
    return None if relation is None else relation.key
