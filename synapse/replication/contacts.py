"""Which rooms a user is in, for waking up those who share one, and for telling them: presence and device lists concern
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.replication.event_rows import StateRow, is_entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.storage.database import Database
    from synapse.storage.transaction import Transaction
    from synapse.util.caches import Cache

    RoomsOf = Callable[[Collection[str]], Awaitable[Mapping[str, Collection[str]]]]
    """The rooms that users are joined to now, from memory where it can be: `RoomsOfUsers.each`."""


class RoomsOfUsers:
    """Answers from a cache, which the events stream keeps right.

    :param cache: tuples of room ids by user id.
    """

    def __init__(self, db: Database, cache: Cache[str, tuple[str, ...]]) -> None:
        self._db = db
        self._cache = cache
        self._notifier: Notifier | None = None

    def follow(self, notifier: Notifier) -> None:
        """Listens to the events stream, from the first question on."""
        self._notifier = notifier

    async def __call__(self, user_ids: set[str]) -> set[str]:
        """The rooms that any of the users is joined to."""
        return {room_id for rooms in (await self.each(user_ids)).values() for room_id in rooms}

    async def each(self, user_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
        """The rooms that each of the users is joined to; one statement, if they are not all known."""
        if self._notifier is not None:
            self._notifier.subscribe("events", self._on_events, lambda position: self._cache.clear())
            self._notifier = None
        return await self._cache.fetch_many(user_ids, self._load)

    async def _load(self, user_ids: list[str]) -> dict[str, tuple[str, ...]]:
        return await self._db.read("contacts.rooms_of", _rooms_of, user_ids)

    def _on_events(self, position: int, rows: Rows) -> None:
        for _, row in rows:
            if isinstance(row, StateRow) and row.type == "m.room.member":
                self._cache.invalidate(row.state_key)
            elif is_entry(row):
                self._cache.clear()  # of whoever is in that room


def _rooms_of(txn: Transaction, user_ids: list[str]) -> dict[str, tuple[str, ...]]:
    txn.execute(
        """
        SELECT state_key, array_agg(room_id) FROM current_state
        WHERE type = 'm.room.member' AND membership = 'join' AND state_key = ANY(%s) GROUP BY state_key
        """,
        (user_ids,),
    )
    found = {user_id: tuple(room_ids) for user_id, room_ids in txn.rows()}
    return {user_id: found.get(user_id, ()) for user_id in user_ids}
