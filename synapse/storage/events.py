"""Events by their id, with what is known of them here; a bounded cache in front, since the same few decide over and
over what may happen in a room. Timelines are read by `synapse.storage.timeline`; events are written by
`synapse.storage.persist`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from synapse.api.room_versions import room_version
from synapse.events.event import Event, StateKey

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction
    from synapse.util.caches import LruCache

T = TypeVar("T")


class StoredEvent:
    """An event and what this server knows of it.

    `state_group` names the state after the event (None of outliers); `redacted_by` is the id of the redaction in force;
    `rejected` says why, where the event was rejected.
    """

    __slots__ = (
        "_shown",
        "event",
        "outlier",
        "redacted_by",
        "rejected",
        "soft_failed",
        "state_group",
        "stream_ordering",
    )

    def __init__(
        self,
        event: Event,
        stream_ordering: int,
        state_group: int | None,
        *,
        soft_failed: bool = False,
        rejected: str | None = None,
        outlier: bool = False,
        redacted_by: str | None = None,
    ) -> None:
        self.event = event
        self.stream_ordering = stream_ordering
        self.state_group = state_group
        self.soft_failed = soft_failed
        self.rejected = rejected
        self.outlier = outlier
        self.redacted_by = redacted_by
        self._shown: Event | None = None

    @property
    def shown(self) -> Event:
        """The event as anybody may see it: redacted, if a redaction is in force."""
        if self.redacted_by is None:
            return self.event
        if self._shown is None:
            self._shown = self.event.redacted()
        return self._shown

    def with_redaction(self, redacted_by: str) -> StoredEvent:
        """The same, redacted; the first redaction stays in force."""
        if self.redacted_by is not None:
            return self
        return StoredEvent(
            self.event,
            self.stream_ordering,
            self.state_group,
            soft_failed=self.soft_failed,
            rejected=self.rejected,
            outlier=self.outlier,
            redacted_by=redacted_by,
        )

    def __repr__(self) -> str:
        return f"<StoredEvent {self.event!r} at {self.stream_ordering}>"


COLUMNS = (
    "e.event_id, e.json, e.stream_ordering, e.state_group, e.soft_failed, e.rejected, e.outlier, "
    "e.redacted_by, r.room_version"
)
"""What `from_row` reads; `e` is events, `r` is rooms."""


def from_row(row: tuple[Any, ...]) -> StoredEvent:
    """A StoredEvent of a row of `COLUMNS`."""
    event_id, json, stream_ordering, state_group, soft_failed, rejected, outlier, redacted_by, version = row
    return StoredEvent(
        Event.from_json(json, room_version(version), event_id=event_id),
        stream_ordering,
        state_group,
        soft_failed=soft_failed,
        rejected=rejected,
        outlier=outlier,
        redacted_by=redacted_by,
    )


class Mark(NamedTuple):
    """What is known of a stored event, the event aside."""

    stream_ordering: int
    outlier: bool
    rejected: str | None


class EventsStore:
    """Reads events, in any process. What `learn` is told by the events stream needs not be read."""

    def __init__(self, db: Database, cache: LruCache[str, StoredEvent]) -> None:
        self._db = db
        self._cache = cache
        self._reading = 0
        self._missed = 0  # how often something may have changed of which nobody told
        self._redacted_meanwhile: dict[str, str] = {}
        self._changed_meanwhile: set[str] = set()

    async def get(self, event_id: str) -> StoredEvent | None:
        """The event, if this server has it."""
        found = self._cache.get(event_id)
        return found if found is not None else (await self.get_many([event_id])).get(event_id)

    async def get_many(self, event_ids: Collection[str]) -> dict[str, StoredEvent]:
        """Those of the events that this server has, by id. One statement for all that are not cached, else none."""
        found: dict[str, StoredEvent] = {}
        missing: list[str] = []
        for event_id in event_ids:
            cached = self._cache.get(event_id)
            if cached is None:
                missing.append(event_id)
            else:
                found[event_id] = cached
        if missing:
            _rows, events = await self.guarded(self._db.read("events.get", _get, missing), iter)
            found.update((stored.event.event_id, stored) for stored in events)
        return found

    def remembered(self, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """Those of the events that memory has, by id. No statement."""
        found = {event_id: self._cache.get(event_id) for event_id in event_ids}
        return {event_id: stored for event_id, stored in found.items() if stored is not None}

    async def guarded(
        self, reading: Awaitable[T], events_in: Callable[[T], Iterable[StoredEvent]]
    ) -> tuple[T, list[StoredEvent]]:
        """What a statement under way finds, and the events in it, which are remembered for the next time.

        A redaction may be announced while the statement runs, which saw the event before it: the events know of it.
        """
        self._reading += 1
        missed = self._missed
        try:
            found = await reading
            late = self._redacted_meanwhile
            known = [
                s.with_redaction(late[s.event.event_id]) if s.event.event_id in late else s for s in events_in(found)
            ]
            for stored in known:
                if missed == self._missed and stored.event.event_id not in self._changed_meanwhile:
                    self._cache.set(stored.event.event_id, stored)
        finally:
            self._reading -= 1
            if not self._reading:
                self._redacted_meanwhile.clear()
                self._changed_meanwhile.clear()
        return found, known

    async def with_auth_chains(self, event_ids: Collection[str]) -> dict[str, StoredEvent]:
        """The events and all in their auth chains. One statement, and one for those that are not cached."""
        return await self.get_many(await self._db.read("events.auth_chains", _auth_chains, list(event_ids)))

    async def in_auth_chains(self, event_ids: Collection[str], candidates: Collection[str]) -> set[str]:
        """Those of the candidates that are in the auth chain of any of the events. One statement."""
        return await self._db.read("events.in_auth_chains", _in_auth_chains, list(event_ids), list(candidates))

    async def citing(self, event_ids: Collection[str], limit: int) -> dict[str, dict[str, StateKey]]:
        """The state events that cite each of the events as an auth event, `limit` of each at most, with their keys.

        One statement.
        """
        return await self._db.read("events.citing", _citing, list(event_ids), limit)

    async def state_groups(self, event_ids: Collection[str]) -> dict[str, int]:
        """The state after each of the events that are here and no outliers. One statement, or none."""
        for event_id in event_ids:
            self.has_arrived(event_id)  # of one that was an outlier when it was read, the database knows more
        stored = await self.get_many(event_ids)
        return {event_id: s.state_group for event_id, s in stored.items() if s.state_group is not None}

    async def marks(self, event_ids: Collection[str]) -> dict[str, Mark]:
        """What is known of those of the events that are stored, without the events. One statement, past the cache."""
        return await self._db.read("events.marks", _marks, list(event_ids)) if event_ids else {}

    async def group_near(self, room_id: str, depth: int) -> int | None:
        """The state after an event that is as deep as this, or a little deeper. One statement."""
        return await self._db.read("events.group_near", _group_near, room_id, depth)

    async def odd_ones(self, room_id: str, event_ids: Collection[str]) -> dict[str, str | None]:
        """Those of the events that are not here, or not this room's (None), and rejected ones (why). One statement."""
        return await self._db.read("events.odd_ones", _odd_ones, room_id, list(event_ids))

    def forget(self, event_ids: Iterable[str]) -> None:
        """Drop what is remembered of events, since it is not true any more."""
        for event_id in event_ids:
            self._cache.pop(event_id)
            if self._reading:
                self._changed_meanwhile.add(event_id)

    def forget_all(self) -> None:
        """Drop everything: something may have changed of which nobody has told."""
        self._cache.clear()
        self._missed += 1

    def has_arrived(self, event_id: str) -> None:
        """The event is announced: if it was an outlier, or held back, it is so no more."""
        cached = self._cache.peek(event_id)
        if cached is not None and (cached.outlier or cached.soft_failed):
            self._cache.pop(event_id)
        if self._reading:
            self._changed_meanwhile.add(event_id)

    def learn(self, stored: StoredEvent) -> None:
        """Take in a new event that is likely to be asked for."""
        self._cache.set(stored.event.event_id, stored)

    def learn_redaction(self, event_id: str, redacted_by: str) -> None:
        """Take note that a redaction has come into force."""
        cached = self._cache.get(event_id)
        if cached is not None:
            self._cache.set(event_id, cached.with_redaction(redacted_by))
        if self._reading:  # whoever reads may have seen it before, also where it is remembered
            self._redacted_meanwhile[event_id] = redacted_by


def _get(txn: Transaction, event_ids: list[str]) -> list[StoredEvent]:
    txn.planned(f"SELECT {COLUMNS} FROM events e JOIN rooms r USING (room_id) WHERE e.event_id = ANY(%s)", (event_ids,))
    return [from_row(row) for row in txn.rows()]


def _marks(txn: Transaction, event_ids: list[str]) -> dict[str, Mark]:
    txn.execute(
        "SELECT event_id, stream_ordering, outlier, rejected FROM events WHERE event_id = ANY(%s)", (event_ids,)
    )
    return {event_id: Mark(*rest) for event_id, *rest in txn.rows()}


def _group_near(txn: Transaction, room_id: str, depth: int) -> int | None:
    txn.execute(
        """
        SELECT state_group FROM events WHERE room_id = %s AND depth >= %s AND NOT outlier AND state_group IS NOT NULL
        ORDER BY depth, stream_ordering LIMIT 1
        """,
        (room_id, depth),
    )
    row = txn.one_or_none()
    return None if row is None else row[0]


def _odd_ones(txn: Transaction, room_id: str, event_ids: list[str]) -> dict[str, str | None]:
    txn.execute(
        """
        SELECT wanted.event_id, e.rejected FROM unnest(%s::text[]) AS wanted (event_id)
        LEFT JOIN events e ON e.event_id = wanted.event_id AND e.room_id = %s
        WHERE e.event_id IS NULL OR e.rejected IS NOT NULL
        """,
        (event_ids, room_id),
    )
    return dict(txn.rows())


# A lateral subquery with an OFFSET has the index looked into once an event. The planner, who takes chains for much
# longer than they are, would read whole tables instead.
_CHAINS = """
    WITH RECURSIVE chain (event_id) AS (
        SELECT unnest(%s::text[])
        UNION
        SELECT a.auth_event_id FROM chain c
        CROSS JOIN LATERAL (SELECT auth_event_id FROM event_auth WHERE event_id = c.event_id OFFSET 0) a
    )
"""


def _auth_chains(txn: Transaction, event_ids: list[str]) -> list[str]:
    txn.execute(f"{_CHAINS} SELECT event_id FROM chain", (event_ids,))
    return [event_id for (event_id,) in txn.rows()]


def _in_auth_chains(txn: Transaction, event_ids: list[str], candidates: list[str]) -> set[str]:
    cited = "SELECT auth_event_id FROM event_auth WHERE event_id = ANY(%s)"
    txn.execute(
        _CHAINS.replace("SELECT unnest(%s::text[])", cited) + "SELECT event_id FROM chain WHERE event_id = ANY(%s)",
        (event_ids, candidates),
    )
    return {event_id for (event_id,) in txn.rows()}


def _citing(txn: Transaction, event_ids: list[str], limit: int) -> dict[str, dict[str, StateKey]]:
    txn.execute(
        """
        SELECT c.event_id, e.event_id, e.type, e.state_key FROM unnest(%s::text[]) AS c (event_id)
        CROSS JOIN LATERAL (SELECT a.event_id FROM event_auth a WHERE a.auth_event_id = c.event_id LIMIT %s) a
        JOIN events e ON e.event_id = a.event_id
        """,
        (event_ids, limit),
    )
    found: dict[str, dict[str, StateKey]] = {}
    for cited, event_id, event_type, state_key in txn.rows():
        found.setdefault(cited, {})[event_id] = (event_type, state_key)
    return found
