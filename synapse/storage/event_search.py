"""The index of what people have written: words of messages, room names and topics, and the search through them.

Sending does not pay for it. New events are taken in from the events stream, many in one statement, when somebody
searches or once in a while (`synapse.handlers.search_index`); history that was fetched from other servers, once in a
while; events from before there was an index, by a background update. A redaction takes the words out again.

Words are cut by `synapse.util.words` and reduced to their stems by PostgreSQL's English dictionary, which leaves words
of other scripts as they are. Messages that are encrypted have no words, and rooms that are encrypted now are left out
of every search. Beside them, each entry holds its room's id as a word: so a search in a few rooms is
answered by the index alone, however often the words occur elsewhere. No word of a text begins with "!".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from synapse.api.constants import EventTypes
from synapse.storage.background_updates import Batch
from synapse.storage.stream_followers import follower_position, keep_follower_position
from synapse.storage.timeline import SHOWN, Condition, Window
from synapse.util.words import terms

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

UPDATE: Final = "event_search"
"""The background update that takes in what was there before the index."""
MAX_MATCHES: Final = 10_000
"""A search looks at this many matches at most, the newest."""
FEW_ROOMS: Final = 50
"""In so many rooms at most, the index looks for the rooms as well."""

TYPES: Final = {
    "content.body": EventTypes.MESSAGE,
    "content.name": EventTypes.NAME,
    "content.topic": EventTypes.TOPIC,
}
"""The keys that can be searched, and the type of event that each belongs to."""

MAX_TEXT: Final = 100_000
"""Characters that are indexed of one event; folding can make a text longer than an event may be."""

_FOLLOWER: Final = "event_search"
_HISTORY: Final = "event_search_history"  # its position counts downwards


class Place(NamedTuple):
    """A place in a list of results: that of the event of this position; `rank` where they are ordered by rank."""

    rank: float | None
    stream: int


class SearchQuery(NamedTuple):
    """What to look for: all of the `terms`, in events of these `types`, within the windows.

    `after` is the place in the list behind which results are wanted.
    """

    terms: Sequence[str]
    types: Sequence[str]
    windows: Sequence[Window]
    condition: Condition
    ignored: Sequence[str]
    by_rank: bool
    after: Place | None
    limit: int


class Match(NamedTuple):
    """An event that was found."""

    event_id: str
    rank: float
    stream: int


class Found(NamedTuple):
    """A page of results, how many there are in all, and the rooms and senders of those behind the page."""

    matches: list[Match]
    total: int
    later_rooms: frozenset[str]
    later_senders: frozenset[str]


class EventSearchStore:
    """Reads and writes the index."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def search(self, query: SearchQuery) -> Found:
        """One statement."""
        return await self._db.read("event_search.search", _search, query)

    async def same_stem(self, words: Sequence[str], wanted: Sequence[str]) -> list[str]:
        """Those of the words that are forms of a wanted one. One statement."""
        return await self._db.read("event_search.same_stem", _same_stem, list(words), " ".join(wanted))

    async def position(self) -> int:
        """How far the index follows the events stream."""
        return await self._db.read("event_search.position", follower_position, _FOLLOWER)

    async def follow(self, after: int, until: int, limit: int) -> int:
        """Takes in the next `limit` events after a position; returns how far it came."""
        return await self._db.write_idempotent("event_search.follow", _follow, after, until, limit)

    async def past(self) -> int:
        """How far the index has taken in history, downwards."""
        return -await self._db.read("event_search.past", follower_position, _HISTORY)

    async def look_back(self, before: int, until: int, limit: int) -> int:
        """Takes in the next `limit` events of history before a position; returns how far it came."""
        return await self._db.write_idempotent("event_search.look_back", _look_back, before, until, limit)


# -- texts -------------------------------------------------------------------------------------------------------------


class _Content(msgspec.Struct):
    body: Any = None
    name: Any = None
    topic: Any = None
    m_topic: Any = msgspec.field(name="m.topic", default=None)
    redacts: Any = None


class _Event(msgspec.Struct):
    content: _Content
    redacts: Any = None


_decode: Final = msgspec.json.Decoder(_Event).decode


def _texts(event_type: str, content: _Content) -> Iterable[object]:
    """What can be searched of an event; what is no text is passed over later."""
    if event_type == EventTypes.MESSAGE:
        return (content.body,)
    if event_type == EventTypes.NAME:
        return (content.name,)
    return (content.topic, *_plain_topics(content.m_topic))


def _plain_topics(topic: object) -> Iterable[object]:
    """The `text/plain` representations of `m.topic`."""
    parts = topic.get("m.text") if isinstance(topic, dict) else None
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("mimetype", "text/plain") == "text/plain":
            yield part.get("body")


def searched_text(event_type: str, json: str) -> str:
    """The text of an event that can be searched, one part a line; "" if there is none."""
    event = _parsed(json)
    if event is None:
        return ""
    return "\n".join(text for text in _texts(event_type, event.content) if isinstance(text, str))


def _parsed(json: str) -> _Event | None:
    """None for what cannot be read: one strange event must not hold up all that come after it."""
    try:
        return _decode(json)
    except (msgspec.DecodeError, RecursionError):
        return None


def _redacts(json: str) -> str | None:
    event = _parsed(json)
    if event is None:
        return None
    target = event.content.redacts if isinstance(event.content.redacts, str) else event.redacts
    return target if isinstance(target, str) else None


# -- writing -----------------------------------------------------------------------------------------------------------

_INDEXED: Final = list(TYPES.values())


def _put(txn: Transaction, rows: Iterable[tuple[int, str, str, str]]) -> None:
    """Takes in events: (position, room id, type, JSON)."""
    entries: list[tuple[int, str, str]] = []
    for stream, room_id, event_type, json in rows:
        words = terms(searched_text(event_type, json))
        if words:
            entries.append((stream, room_id, " ".join(words)[:MAX_TEXT]))
    txn.values(
        """
        INSERT INTO event_search (stream_ordering, room_id, words)
        SELECT v.stream, v.room_id, to_tsvector('english', v.text) || array_to_tsvector(ARRAY[v.room_id])
        FROM (VALUES %s) AS v (stream, room_id, text) ON CONFLICT (stream_ordering) DO NOTHING
        """,
        entries,
    )


def _follow(txn: Transaction, after: int, until: int, limit: int) -> int:
    txn.execute(
        f"""
        SELECT e.stream_ordering, e.room_id, e.type, e.json, e.redacted_by FROM events e
        WHERE e.stream_ordering > %s AND e.stream_ordering <= %s AND e.type = ANY(%s) AND {SHOWN}
        ORDER BY e.stream_ordering LIMIT %s
        """,
        (after, until, [*_INDEXED, EventTypes.REDACTION], limit),
    )
    reached = _take_in(txn, until, limit)
    keep_follower_position(txn, _FOLLOWER, reached)
    return reached


def _look_back(txn: Transaction, before: int, until: int, limit: int) -> int:
    txn.execute(
        f"""
        SELECT e.stream_ordering, e.room_id, e.type, e.json, e.redacted_by FROM events e
        WHERE e.stream_ordering < %s AND e.stream_ordering >= %s AND e.type = ANY(%s) AND {SHOWN}
        ORDER BY e.stream_ordering DESC LIMIT %s
        """,
        (before, until, [*_INDEXED, EventTypes.REDACTION], limit),
    )
    reached = _take_in(txn, until, limit)
    keep_follower_position(txn, _HISTORY, -reached)
    return reached


def _take_in(txn: Transaction, until: int, limit: int) -> int:
    """The events that were selected; how far they reach."""
    rows = txn.rows()
    reached = until if len(rows) < limit else int(rows[-1][0])
    _put(txn, [row[:4] for row in rows if row[2] != EventTypes.REDACTION and row[4] is None])
    redacted = [target for row in rows if row[2] == EventTypes.REDACTION and (target := _redacts(row[3])) is not None]
    if redacted:
        txn.execute(
            """
            DELETE FROM event_search s USING events e
            WHERE e.event_id = ANY(%s) AND e.redacted_by IS NOT NULL AND s.stream_ordering = e.stream_ordering
            """,
            ([target for target in redacted if "\x00" not in target],),
        )
    return reached


def fill(txn: Transaction, progress: dict[str, Any], size: int) -> Batch | None:
    """A batch of the background update: backwards, so that what is recent is found first."""
    txn.execute(
        f"""
        SELECT e.stream_ordering, e.room_id, e.type, e.json,
            e.type = ANY(%s) AND e.redacted_by IS NULL AND {SHOWN}
        FROM events e WHERE e.stream_ordering < %s ORDER BY e.stream_ordering DESC LIMIT %s
        """,
        (_INDEXED, progress.get("before", 2**62), size),
    )
    rows = txn.rows()
    if not rows:
        return None
    _put(txn, [row[:4] for row in rows if row[4]])
    return Batch({"before": rows[-1][0]}, len(rows))


# -- searching ---------------------------------------------------------------------------------------------------------


def _tsquery(wanted: Sequence[str]) -> tuple[str, list[object]]:
    """All of the terms, as SQL. Words that English leaves out (of, the, …) are left out here too; the query has no
    nodes where nothing remains."""
    return " && ".join(["phraseto_tsquery('english', %s)"] * len(wanted)), list(wanted)


def _in_rooms(windows: Sequence[Window]) -> tuple[str, list[object]]:
    rooms = {window.room_id for window in windows}
    if len(rooms) > FEW_ROOMS:
        return "", []
    quoted = " | ".join("'" + room.replace("\\", "\\\\").replace("'", "''") + "'" for room in sorted(rooms))
    return " && %s::tsquery", [quoted]


def _after(place: Place | None) -> tuple[str, list[object]]:
    if place is None:
        return "true", []
    if place.rank is None:
        return "m.stream_ordering < %s", [place.stream]
    return "(m.rank, m.stream_ordering) < (%s::real, %s)", [place.rank, place.stream]


def _search(txn: Transaction, query: SearchQuery) -> Found:
    tsquery, wanted = _tsquery(query.terms)
    in_rooms, rooms = _in_rooms(query.windows)
    behind, place = _after(query.after)
    order = "m.rank DESC, m.stream_ordering DESC" if query.by_rank else "m.stream_ordering DESC"
    txn.execute(
        f"""
        WITH matches AS MATERIALIZED (
            SELECT s.stream_ordering, e.event_id, e.room_id, e.sender, ts_rank(s.words, {tsquery}) AS rank
            FROM event_search s JOIN events e USING (stream_ordering)
            JOIN unnest(%s::text[], %s::bigint[], %s::bigint[]) AS w (room_id, after, until)
              ON w.room_id = s.room_id AND COALESCE(e.fills, s.stream_ordering) > w.after
                AND COALESCE(e.fills, s.stream_ordering) <= w.until
            WHERE numnode({tsquery}) > 0 AND s.words @@ ({tsquery}{in_rooms}) AND e.type = ANY(%s)
              AND e.redacted_by IS NULL AND {SHOWN}
              AND (e.state_key IS NOT NULL OR e.sender <> ALL(%s)) AND ({query.condition.sql})
              AND NOT EXISTS (
                SELECT 1 FROM room_stats r WHERE r.room_id = s.room_id AND r.encryption IS NOT NULL
              )
            ORDER BY s.stream_ordering DESC LIMIT {MAX_MATCHES}
        ), rest AS (
            SELECT m.*, row_number() OVER (ORDER BY {order}) AS place FROM matches m WHERE {behind}
        )
        SELECT
            ARRAY(SELECT event_id FROM rest WHERE place <= %s ORDER BY place),
            ARRAY(SELECT rank FROM rest WHERE place <= %s ORDER BY place),
            ARRAY(SELECT stream_ordering FROM rest WHERE place <= %s ORDER BY place),
            (SELECT count(*) FROM matches),
            ARRAY(SELECT DISTINCT room_id FROM rest WHERE place > %s),
            ARRAY(SELECT DISTINCT sender FROM rest WHERE place > %s)
        """,
        [
            *wanted,
            *map(list, zip(*query.windows, strict=True)),
            *wanted,
            *wanted,
            *rooms,
            list(query.types),
            list(query.ignored),
            *query.condition.params,
            *place,
            *[query.limit] * 5,
        ],
    )
    ids, ranks, streams, count, later_rooms, later_senders = txn.one()
    matches = [Match(*each) for each in zip(ids, ranks, streams, strict=True)]
    return Found(matches, count, frozenset(later_rooms), frozenset(later_senders))


def _same_stem(txn: Transaction, words: list[str], wanted: str) -> list[str]:
    txn.execute(
        """
        SELECT w.word FROM unnest(%s::text[]) AS w (word)
        WHERE tsvector_to_array(to_tsvector('english', w.word)) && tsvector_to_array(to_tsvector('english', %s))
        """,
        (words, wanted),
    )
    return [word for (word,) in txn.rows()]
