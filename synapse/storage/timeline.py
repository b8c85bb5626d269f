"""Reading room timelines: the last events of many rooms at once, pages of one room, the surroundings of an event.

Everything here comes in as few statements as the question allows, however many rooms it concerns. What is found is
rows with the event's JSON as stored; nothing is parsed. Events that clients never see (outliers, rejected and
soft-failed ones) are left out here, whether a user may see the others is decided elsewhere.

Two orders: that of arrival (`stream`), in which sync tells what is new, and that of history (`depth`, then `stream`),
in which rooms are paged through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

OLDEST = -(2**62)
NEWEST = 2**62


class TimelineRow(NamedTuple):
    """An event as it stands in a room's timeline; `json` is the federation form, canonical.

    `replaces` is the state event whose place it took; `is_parent` says whether others may relate to it in a way that
    is aggregated; `after_gap`, that what was just before it in the room is not here. Readers that care for none of
    them leave them out.
    """

    stream: int
    room_id: str
    event_id: str
    depth: int
    type: str
    state_key: str | None
    sender: str
    origin_server_ts: int
    state_group: int | None
    redacted_by: str | None
    contains_url: bool
    json: str
    replaces: str | None = None
    is_parent: bool = False
    after_gap: bool = False


class Window(NamedTuple):
    """A stretch of one room's timeline in the order of arrival: `after` < stream ≤ `until`."""

    room_id: str
    after: int
    until: int


class Condition(NamedTuple):
    """An SQL condition over `e`, the events table, and its parameters."""

    sql: str
    params: tuple[object, ...]


ALWAYS = Condition("true", ())


class Page(NamedTuple):
    """What to read of a room in the order of history.

    Backwards: events at or before (`depth`, `stream`), newest first; forwards: events after it, oldest first.
    `after` < stream ≤ `until` bounds them by arrival, and what has filled a gap counts as arrived where the gap was;
    `end` is a point (depth, stream) of history not to go beyond.
    """

    room_id: str
    backwards: bool
    depth: int
    stream: int
    after: int
    until: int
    end: tuple[int, int] | None
    limit: int


class Annotation(NamedTuple):
    """What else is known of an event, by its id: see `TimelineStore.annotations`."""

    kind: str  # "prev", "because" or "txn"
    event_id: str  # of the replaced state event itself where `kind` is "prev"
    text: str | None  # id of the redaction, transaction id
    json: str | None  # of the replaced event or the redaction
    redacted: bool  # that event is itself redacted


COLUMNS = (
    "e.stream_ordering, e.room_id, e.event_id, e.depth, e.type, e.state_key, e.sender, e.origin_server_ts, "
    "e.state_group, e.redacted_by, e.contains_url, e.json, e.replaces, e.is_parent, e.after_gap"
)
"""The columns of `e`, the events table, that make a `TimelineRow`."""

SHOWN = "NOT e.outlier AND NOT e.soft_failed AND e.rejected IS NULL"
"""That clients see `e` at all."""


class TimelineStore:
    """Reads events in the order of timelines, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def last(
        self, windows: Sequence[Window], limit: int, condition: Condition = ALWAYS
    ) -> dict[str, list[TimelineRow]]:
        """Of each window its last `limit` events that meet the condition, oldest first. One statement.

        Rooms without such events are missing. A room may have one window only.
        """
        return await self._db.read("timeline.last", _last, windows, limit, condition) if windows and limit else {}

    async def page(self, page: Page, condition: Condition = ALWAYS) -> list[TimelineRow]:
        """Events of one room in the order of history. One statement."""
        return await self._db.read("timeline.page", _page, page, condition)

    async def by_time(
        self, room_id: str, place: tuple[int, int], until: int, limit: int, *, backwards: bool
    ) -> list[TimelineRow]:
        """Events of one room in the order of their timestamps, from `place` on: (timestamp, position), not included.

        None that arrived after the position `until`. One statement.
        """
        return await self._db.read("timeline.by_time", _by_time, room_id, place, until, limit, backwards)

    async def since(self, room_ids: Sequence[str], after: int, until: int, limit: int) -> list[TimelineRow]:
        """The first `limit` events of all these rooms together, `after` < stream ≤ `until`, in order. One statement."""
        if not room_ids:
            return []
        return await self._db.read("timeline.since", _since, list(room_ids), after, until, limit)

    async def get(self, event_ids: Sequence[str]) -> dict[str, TimelineRow]:
        """Those of the events that clients may be shown at all, by id. One statement."""
        return await self._db.read("timeline.get", _get, list(event_ids)) if event_ids else {}

    async def turns(self, positions: Sequence[int]) -> list[TimelineRow]:
        """Memberships that stand at these positions, also in rooms that this server takes no part in. One statement."""
        return await self._db.read("timeline.turns", _turns, list(positions)) if positions else []

    async def annotations(self, rows: Sequence[TimelineRow], user_id: str, device_id: str | None) -> list[Annotation]:
        """What `unsigned` tells of these events besides their age. One statement, or none where there is nothing to
        tell.

        `prev`: a state event that one of these replaced; `because`: the redaction in force; `txn`: the transaction id,
        only of events that this very device has sent.
        """
        replaced = [row.replaces for row in rows if row.replaces is not None and row.redacted_by is None]
        redacted = [row.event_id for row in rows if row.redacted_by is not None]
        # State is sent without a transaction id.
        own = [r.event_id for r in rows if r.sender == user_id and r.state_key is None] if device_id is not None else []
        if not (replaced or redacted or own):
            return []
        return await self._db.read("timeline.annotations", _annotations, replaced, redacted, own, user_id, device_id)

    async def published(self, room_ids: Sequence[str]) -> set[str]:
        """Those of the rooms that stand in the room directory."""
        return await self._db.read("timeline.published", _published, list(room_ids)) if room_ids else set()

    async def room_versions(self, room_ids: Sequence[str]) -> dict[str, str]:
        """The version of each room that the server knows."""
        return await self._db.read("timeline.room_versions", _room_versions, list(room_ids))


def _last(
    txn: Transaction, windows: Sequence[Window], limit: int, condition: Condition
) -> dict[str, list[TimelineRow]]:
    rooms, after, until = zip(*windows, strict=True)
    _ask(txn, condition)(
        f"""
        SELECT {COLUMNS} FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS w (room_id, after, until)
        CROSS JOIN LATERAL (
            SELECT * FROM events e
            WHERE e.room_id = w.room_id AND e.stream_ordering > w.after AND e.stream_ordering <= w.until
              AND {SHOWN} AND ({condition.sql})
            ORDER BY e.stream_ordering DESC LIMIT %s
        ) e
        """,
        (list(rooms), list(after), list(until), *condition.params, limit),
    )
    found: dict[str, list[TimelineRow]] = {}
    for row in map(TimelineRow._make, txn.rows()):
        found.setdefault(row.room_id, []).append(row)
    for rows in found.values():
        rows.reverse()
    return found


def _page(txn: Transaction, page: Page, condition: Condition) -> list[TimelineRow]:
    of_page, order = _but_after(page)
    sql = f"SELECT {COLUMNS} FROM events e WHERE {of_page.sql} AND ({condition.sql})"
    params = (*of_page.params, *condition.params)
    if page.after != OLDEST:
        # There is an index for either kind of arrival, and none for both.
        early = f"{sql} AND e.stream_ordering <= %s AND e.fills > %s {order}"
        sql = f"({sql} AND e.stream_ordering > %s {order}) UNION ALL ({early})"
        params = (*params, page.after, page.limit, *params, page.after, page.after, page.limit)
        order = order.replace("e.", "")
    # Between two bounds there may be a little or nearly all of the room: no one plan is good for both.
    is_bounded = page.end is not None or page.after != OLDEST
    (txn.execute if is_bounded else _ask(txn, condition))(f"{sql} {order}", (*params, page.limit))
    return [TimelineRow._make(row) for row in txn.rows()]


def _ask(txn: Transaction, condition: Condition) -> Callable[[str, tuple[object, ...]], None]:
    """How to run a statement with this condition: of conditions that clients choose, there are too many to plan."""
    return txn.planned if condition is ALWAYS else txn.execute


def in_page(page: Page) -> tuple[Condition, str]:
    """That `e` is in the page, and in which order the page is (its parameter is the limit)."""
    (sql, params), order = _but_after(page)
    if page.after != OLDEST:
        sql, params = f"{sql} AND (e.stream_ordering > %s OR e.fills > %s)", (*params, page.after, page.after)
    return Condition(sql, params), order


def _but_after(page: Page) -> tuple[Condition, str]:
    """The same, but for the bound `after`."""
    order, compare, stop = ("DESC", "<=", ">") if page.backwards else ("ASC", ">", "<=")
    sql = f"e.room_id = %s AND (e.depth, e.stream_ordering) {compare} (%s, %s) AND e.stream_ordering <= %s AND {SHOWN}"
    sql = f"{sql} AND (e.fills IS NULL OR e.fills <= %s)"
    params: tuple[object, ...] = (page.room_id, page.depth, page.stream, page.until, page.until)
    # Bounds that bind nothing are left out: they make the database believe that little lies between them.
    if page.end is not None:
        sql, params = f"{sql} AND (e.depth, e.stream_ordering) {stop} (%s, %s)", (*params, *page.end)
    condition = Condition(sql, params)
    return condition, f"ORDER BY e.depth {order}, e.stream_ordering {order} LIMIT %s"


def _by_time(
    txn: Transaction, room_id: str, place: tuple[int, int], until: int, limit: int, backwards: bool
) -> list[TimelineRow]:
    order, compare = ("DESC", "<") if backwards else ("ASC", ">")
    txn.execute(
        f"""
        SELECT {COLUMNS} FROM events e
        WHERE e.room_id = %s AND (e.origin_server_ts, e.stream_ordering) {compare} (%s, %s)
          AND e.stream_ordering <= %s AND {SHOWN}
        ORDER BY e.origin_server_ts {order}, e.stream_ordering {order} LIMIT %s
        """,
        (room_id, *place, until, limit),
    )
    return [TimelineRow._make(row) for row in txn.rows()]


def _since(txn: Transaction, room_ids: list[str], after: int, until: int, limit: int) -> list[TimelineRow]:
    txn.execute(
        f"""
        SELECT {COLUMNS} FROM unnest(%s::text[]) AS r (room_id) CROSS JOIN LATERAL (
            SELECT * FROM events e
            WHERE e.room_id = r.room_id AND e.stream_ordering > %s AND e.stream_ordering <= %s AND {SHOWN}
            ORDER BY e.stream_ordering LIMIT %s
        ) e ORDER BY e.stream_ordering LIMIT %s
        """,
        (room_ids, after, until, limit, limit),
    )
    return [TimelineRow._make(row) for row in txn.rows()]


def _get(txn: Transaction, event_ids: list[str]) -> dict[str, TimelineRow]:
    txn.planned(f"SELECT {COLUMNS} FROM events e WHERE e.event_id = ANY(%s) AND {SHOWN}", (event_ids,))
    return {row.event_id: row for row in map(TimelineRow._make, txn.rows())}


def _turns(txn: Transaction, positions: list[int]) -> list[TimelineRow]:
    txn.planned(
        f"SELECT {COLUMNS} FROM events e WHERE e.stream_ordering = ANY(%s) AND e.type = 'm.room.member'", (positions,)
    )
    return [TimelineRow._make(row) for row in txn.rows()]


_PREV = """
    SELECT 'prev', p.event_id, NULL, p.json, p.redacted_by IS NOT NULL FROM events p WHERE p.event_id = ANY(%s)
"""
_BECAUSE = """
    SELECT 'because', e.event_id, e.redacted_by, r.json, r.redacted_by IS NOT NULL
    FROM events e JOIN events r ON r.event_id = e.redacted_by WHERE e.event_id = ANY(%s)
"""
# Who asks is compared in a way that no index knows: a device may have sent far more than these events.
_TXN = """
    SELECT 'txn', t.event_id, t.txn_id, NULL, false FROM event_txns t
    WHERE t.event_id = ANY(%s) AND (t.user_id, t.device_id) IS NOT DISTINCT FROM (%s, %s)
"""


def _annotations(
    txn: Transaction,
    replaced: list[str],
    redacted: list[str],
    own: list[str],
    user_id: str,
    device_id: str | None,
) -> list[Annotation]:
    parts: list[str] = []
    params: list[object] = []
    if replaced:
        parts.append(_PREV)
        params.append(replaced)
    if redacted:
        parts.append(_BECAUSE)
        params.append(redacted)
    if own:
        parts.append(_TXN)
        params += (own, user_id, device_id)
    txn.planned(" UNION ALL ".join(parts), tuple(params))
    return [Annotation._make(row) for row in txn.rows()]


def _published(txn: Transaction, room_ids: list[str]) -> set[str]:
    txn.execute("SELECT room_id FROM rooms WHERE room_id = ANY(%s) AND is_public", (room_ids,))
    return {room_id for (room_id,) in txn.rows()}


def _room_versions(txn: Transaction, room_ids: list[str]) -> dict[str, str]:
    txn.execute("SELECT room_id, room_version FROM rooms WHERE room_id = ANY(%s)", (room_ids,))
    return dict(txn.rows())
