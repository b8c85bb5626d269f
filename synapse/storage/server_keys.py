"""The signing keys of other servers, with the answers that they were published in. Times are milliseconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

MAX_KEYS: Final = 100
"""How many keys of a server are kept: those that were good last."""


MAX_STRANGERS: Final = 100_000
"""Servers in no room of ours whose keys are kept: those whose keys were needed last."""


class StoredKey(NamedTuple):
    """A key, and until when what it has signed is to be believed.

    `is_old`: its server signs with it no more. `answer` is the JSON that published it, as its server has signed it,
    `answer_until` what that says of its validity, and `answer_ts` when it was given; None for old keys, which no answer
    of their own has published.
    """

    verify_key: bytes
    good_until: int
    is_old: bool = False
    answer: str | None = None
    answer_until: int = 0
    answer_ts: int = 0


class ToldKey(NamedTuple):
    """That an answer has published a key: until when it says to be valid, when it was given, and how many bytes it has.

    Keys of one server for which these are the same come from the same answer.
    """

    until: int
    ts: int
    size: int


class ServerKeysStore:
    """Reads and writes the table `server_keys`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get_many(self, servers: Sequence[str]) -> dict[str, dict[str, StoredKey]]:
        """The keys of servers by their ids; {} for servers that have none. The answers are left out."""
        return await self._db.read("server_keys.get", _get, servers)

    async def told(self, servers: Collection[str]) -> dict[str, dict[str, ToldKey]]:
        """What there is in answers: keys of servers, by their ids."""
        return await self._db.read("server_keys.told", _told, list(servers)) if servers else {}

    async def answers(self, keys: Sequence[tuple[str, str]]) -> list[str]:
        """The answers that published keys, given by server and id, in their order: JSON as its server has signed it."""
        return await self._db.read("server_keys.answers", _answers, keys) if keys else []

    async def store(self, server: str, keys: Mapping[str, StoredKey], now: int) -> None:
        """Stores keys in place of those of the same ids."""
        await self._db.write_idempotent("server_keys.store", _store, server, keys, now)

    async def used(self, servers: Sequence[str], now: int) -> None:
        """Keeps servers' keys from being forgotten."""
        await self._db.write_idempotent("server_keys.used", _used, servers, now)

    async def forget_unused(self, before: int) -> None:
        """Forgets the keys that nobody has needed since `before`, and those of servers in no room of ours where these
        are too many."""
        await self._db.write_idempotent("server_keys.forget", _forget, before)


def _get(txn: Transaction, servers: Sequence[str]) -> dict[str, dict[str, StoredKey]]:
    txn.execute(
        "SELECT server_name, key_id, verify_key, good_until, is_old FROM server_keys WHERE server_name = ANY(%s)",
        (list(servers),),
    )
    found: dict[str, dict[str, StoredKey]] = {server: {} for server in servers}
    for server, key_id, verify_key, good_until, is_old in txn.rows():
        found[server][key_id] = StoredKey(bytes(verify_key), good_until, is_old)
    return found


def _told(txn: Transaction, servers: list[str]) -> dict[str, dict[str, ToldKey]]:
    txn.execute(
        """
        SELECT server_name, key_id, answer_until, answer_ts, octet_length(answer) FROM server_keys
        WHERE server_name = ANY(%s) AND answer IS NOT NULL
        """,
        (servers,),
    )
    found: dict[str, dict[str, ToldKey]] = {server: {} for server in servers}
    for server, key_id, *told in txn.rows():
        found[server][key_id] = ToldKey(*told)
    return found


def _answers(txn: Transaction, keys: Sequence[tuple[str, str]]) -> list[str]:
    txn.execute(
        """
        SELECT k.answer FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS wanted (server_name, key_id, place)
        JOIN server_keys k USING (server_name, key_id) WHERE k.answer IS NOT NULL ORDER BY wanted.place
        """,
        ([server for server, _ in keys], [key_id for _, key_id in keys]),
    )
    return [answer for (answer,) in txn.rows()]


def _store(txn: Transaction, server: str, keys: Mapping[str, StoredKey], now: int) -> None:
    # In one order, so that two processes that store the same do not wait for each other.
    for key_id, key in sorted(keys.items()):
        txn.execute(
            """
            INSERT INTO server_keys
                (server_name, key_id, verify_key, good_until, is_old, answer, answer_until, answer_ts, used_ts)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (server_name, key_id) DO UPDATE SET
                verify_key = EXCLUDED.verify_key, good_until = EXCLUDED.good_until, is_old = EXCLUDED.is_old,
                answer = coalesce(EXCLUDED.answer, server_keys.answer),
                answer_until = CASE WHEN EXCLUDED.answer IS NULL THEN server_keys.answer_until
                    ELSE EXCLUDED.answer_until END,
                answer_ts = CASE WHEN EXCLUDED.answer IS NULL THEN server_keys.answer_ts
                    ELSE EXCLUDED.answer_ts END,
                used_ts = EXCLUDED.used_ts
            """,
            (server, key_id, *key, now),
        )
    txn.execute(
        """
        DELETE FROM server_keys WHERE server_name = %s AND key_id IN (
            SELECT key_id FROM server_keys WHERE server_name = %s ORDER BY good_until DESC, key_id OFFSET %s
        )
        """,
        (server, server, MAX_KEYS),
    )


def _used(txn: Transaction, servers: Sequence[str], now: int) -> None:
    txn.execute("UPDATE server_keys SET used_ts = %s WHERE server_name = ANY(%s)", (now, list(servers)))


def _forget(txn: Transaction, before: int) -> None:
    txn.execute("DELETE FROM server_keys WHERE used_ts < %s", (before,))
    txn.execute(
        """
        DELETE FROM server_keys WHERE server_name IN (
            SELECT server_name FROM server_keys k WHERE NOT EXISTS (
                SELECT FROM current_state c WHERE c.type = 'm.room.member' AND c.membership = 'join'
                    AND substr(c.state_key, strpos(c.state_key, ':') + 1) = k.server_name
            )
            GROUP BY server_name ORDER BY max(used_ts) DESC, server_name OFFSET %s
        )
        """,
        (MAX_STRANGERS,),
    )
