"""Account data: what clients keep on the server for a user, globally or for one room.

The content is stored as the text that was given. Stream positions come from the caller, which is the main process;
tags and the fully-read marker are account data of a room like any other here. What is deleted leaves an empty object
behind, which those are told who knew it; to all others it does not exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse.storage.database import Database, Transaction


class AccountDatum(NamedTuple):
    """One piece of account data; `room_id` is "" for global data, `content` the JSON text of an object."""

    room_id: str
    type: str
    content: str


class TooManyTags(Exception):
    """A room has as many tags as it may have."""


class AccountDataStore:
    """Reads account data anywhere; writes in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, user_id: str, room_id: str, data_type: str) -> str | None:
        """The content as JSON text; `room_id` "" for global data."""
        return await self._db.read("account_data.get", _get, user_id, room_id, data_type)

    async def dated(self, user_ids: Sequence[str], data_types: Sequence[str]) -> dict[str, dict[str, tuple[str, int]]]:
        """Users' global data of these types, with the position at which it was set; what never was is missing."""
        return await self._db.read("account_data.dated", _dated, user_ids, data_types)

    async def of_user(self, user_id: str) -> list[AccountDatum]:
        """All that the user has, global and of rooms."""
        return await self._db.read("account_data.of_user", _changed, user_id, 0, None)

    async def changed(self, user_id: str, after: int, until: int) -> list[AccountDatum]:
        """What was set at the positions `after` < p ≤ `until`, in order of position."""
        return await self._db.read("account_data.changed", _changed, user_id, after, until)

    async def max_stream_id(self) -> int:
        return await self._db.read("account_data.max_stream_id", _max_stream_id)

    async def put(self, user_id: str, datum: AccountDatum, stream_id: int) -> None:
        await self._db.write_idempotent("account_data.put", put, user_id, datum, stream_id)

    async def delete(self, user_id: str, room_id: str, data_type: str, stream_id: int) -> bool:
        """False, and nothing done, if there is no such account data."""
        return await self._db.write_idempotent("account_data.delete", _delete, user_id, room_id, data_type, stream_id)

    async def put_tag(
        self, user_id: str, room_id: str, tag: str, content: str | None, limit: int, stream_id: int
    ) -> bool:
        """Sets one tag of a room, or takes it away (None); False if that changes nothing.

        Raises `TooManyTags` for one more than `limit`.
        """
        return await self._db.write("account_data.put_tag", _put_tag, user_id, room_id, tag, content, limit, stream_id)


def _get(txn: Transaction, user_id: str, room_id: str, data_type: str) -> str | None:
    txn.execute(
        "SELECT content FROM account_data WHERE user_id = %s AND room_id = %s AND type = %s AND NOT deleted",
        (user_id, room_id, data_type),
    )
    row = txn.one_or_none()
    return None if row is None else row[0]


def _dated(
    txn: Transaction, user_ids: Sequence[str], data_types: Sequence[str]
) -> dict[str, dict[str, tuple[str, int]]]:
    txn.execute(
        """
        SELECT user_id, type, content, stream_id FROM account_data
        WHERE user_id = ANY(%s) AND room_id = '' AND type = ANY(%s)
        """,
        (list(user_ids), list(data_types)),
    )
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for user_id, data_type, content, stream_id in txn.rows():
        found.setdefault(user_id, {})[data_type] = (content, stream_id)
    return found


def blocks_invites(content: str) -> bool:
    """Whether the content of a user's m.invite_permission_config blocks all invitations: client-server API, "Invite
    permission". Whatever it says otherwise means as usual."""
    return bool(orjson.loads(content).get("default_action") == "block")


def ignored_users(content: str, user_id: str) -> frozenset[str]:
    """Whom the content of a user's m.ignored_user_list names: client-server API, "Ignoring Users".

    Clients may store anything; and ignoring oneself would hide one's own messages.
    """
    ignored = orjson.loads(content).get("ignored_users")
    return frozenset(ignored) - {user_id} if isinstance(ignored, dict) else frozenset()


def _changed(txn: Transaction, user_id: str, after: int, until: int | None) -> list[AccountDatum]:
    txn.planned(
        """
        SELECT room_id, type, content FROM account_data
        WHERE user_id = %s AND stream_id > %s AND (%s::bigint IS NULL AND NOT deleted OR stream_id <= %s)
        ORDER BY stream_id
        """,
        (user_id, after, until, until),
    )
    return [AccountDatum(*row) for row in txn.rows()]


def _max_stream_id(txn: Transaction) -> int:
    txn.execute("SELECT COALESCE(MAX(stream_id), 0) FROM account_data")
    return int(txn.one()[0])


def put(txn: Transaction, user_id: str, datum: AccountDatum, stream_id: int) -> None:
    """Writes one datum; for stores that do it within a transaction of their own."""
    txn.execute(
        """
        INSERT INTO account_data (user_id, room_id, type, content, stream_id) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (user_id, room_id, type)
        DO UPDATE SET content = EXCLUDED.content, stream_id = EXCLUDED.stream_id, deleted = false
        """,
        (user_id, datum.room_id, datum.type, datum.content, stream_id),
    )


def _delete(txn: Transaction, user_id: str, room_id: str, data_type: str, stream_id: int) -> bool:
    txn.execute(
        """
        UPDATE account_data SET content = '{}', deleted = true, stream_id = %s
        WHERE user_id = %s AND room_id = %s AND type = %s AND NOT deleted RETURNING true
        """,
        (stream_id, user_id, room_id, data_type),
    )
    return txn.one_or_none() is not None


def _put_tag(
    txn: Transaction, user_id: str, room_id: str, tag: str, content: str | None, limit: int, stream_id: int
) -> bool:
    # Of two changes at the same time one sees the other: both write the row, so one of them is done again.
    before = _get(txn, user_id, room_id, "m.tag")
    tags = {} if before is None else orjson.loads(before).get("tags")
    tags = tags if isinstance(tags, dict) else {}
    after = {name: value for name, value in tags.items() if name != tag}
    if content is not None:
        if len(after) >= limit:
            raise TooManyTags
        after[tag] = orjson.loads(content)
    if after == tags:
        return False
    put(txn, user_id, AccountDatum(room_id, "m.tag", orjson.dumps({"tags": after}).decode()), stream_id)
    return True
