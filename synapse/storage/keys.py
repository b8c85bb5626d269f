"""Keys for end-to-end encryption: identity keys of devices, one-time and fallback keys, and who changed theirs when.

Keys are kept as the JSON text that was given, with sorted keys so that equal keys are equal texts. That a one-time key
is given out once only is promised here, by the statement that deletes it. Formats are the handler's matter. How keys
are shown is `published_keys`' matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse.storage.database import Database, Transaction


class Key(NamedTuple):
    """A one-time or fallback key; `json` is the key itself: a JSON string or object."""

    algorithm: str
    key_id: str
    json: str


class Wanted(NamedTuple):
    """One key to claim."""

    user_id: str
    device_id: str
    algorithm: str


class Claimed(NamedTuple):
    """A key given out."""

    user_id: str
    device_id: str
    algorithm: str
    key_id: str
    json: str


class KeyConflict(Exception):
    """A one-time key of that id exists with other content; the argument is `algorithm:key_id`."""


class KeyStore:
    """Reads and writes keys; changed device keys carry a stream position and are written in the main process only."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def device_keys(self, user_id: str, device_id: str) -> str | None:
        """The keys that the device has published, as JSON text."""
        return await self._db.read("keys.device_keys", _device_keys, user_id, device_id)

    async def put_device_keys(self, user_id: str, device_id: str, json: str, now: int, stream_id: int) -> None:
        await self._db.write("keys.put_device_keys", put_device_keys, user_id, device_id, json, now, stream_id)

    async def add_keys(
        self, user_id: str, device_id: str, one_time: list[Key], fallback: list[Key], now: int
    ) -> dict[str, int]:
        """Adds what is new and returns how many one-time keys there are of each algorithm; raises `KeyConflict`."""
        return await self._db.write("keys.add_keys", add_keys, user_id, device_id, one_time, fallback, now)

    async def counts(self, user_id: str, device_id: str) -> dict[str, int]:
        """How many one-time keys wait, by algorithm."""
        return await self._db.read("keys.counts", _counts, user_id, device_id)

    async def unused_fallback(self, user_id: str, device_id: str) -> list[str]:
        """Algorithms of fallback keys that nobody has been given yet."""
        return await self._db.read("keys.unused_fallback", _unused_fallback, user_id, device_id)

    async def claim(self, wanted: list[Wanted]) -> list[Claimed]:
        """Takes one one-time key for each, or the fallback key where there is none; what has neither is missing."""
        return await self._db.write("keys.claim", _claim, wanted) if wanted else []

    async def record_change(self, user_id: str, device_id: str | None, stream_id: int) -> None:
        """Writes that this device (None: several) got another name, or went away with its keys."""
        await self._db.write("keys.record_change", _record_change, user_id, device_id, stream_id)

    async def changed_users(self, user_ids: Iterable[str], after: int, until: int) -> set[str]:
        """Those of `user_ids` whose devices changed at a position `after` < p ≤ `until`."""
        return await self._db.read("keys.changed_users", _changed_users, list(user_ids), after, until)


def _device_keys(txn: Transaction, user_id: str, device_id: str) -> str | None:
    txn.execute("SELECT key_json FROM device_keys WHERE user_id = %s AND device_id = %s", (user_id, device_id))
    row = txn.one_or_none()
    return None if row is None else row[0]


def put_device_keys(txn: Transaction, user_id: str, device_id: str, json: str, now: int, stream_id: int) -> None:
    """See `KeyStore.put_device_keys`; for stores that do it within a transaction of their own."""
    # Signatures of other keys, and by them, go with those.
    txn.execute(
        """
        WITH old AS (
            SELECT FROM device_keys WHERE user_id = %(u)s AND device_id = %(d)s
            AND key_json::jsonb - 'signatures' <> %(json)s::jsonb - 'signatures'
        ), signatures AS (
            DELETE FROM key_signatures WHERE target_user_id = %(u)s AND EXISTS (SELECT FROM old)
            AND (target_id = %(d)s OR (signer_user_id = %(u)s AND key_id = 'ed25519:' || %(d)s))
        ), keys AS (
            INSERT INTO device_keys (user_id, device_id, key_json, uploaded_ts)
            VALUES (%(u)s, %(d)s, %(json)s, %(now)s)
            ON CONFLICT (user_id, device_id) DO UPDATE
            SET key_json = EXCLUDED.key_json, uploaded_ts = EXCLUDED.uploaded_ts
        )
        INSERT INTO device_lists_stream (stream_id, user_id, device_id) VALUES (%(stream)s, %(u)s, %(d)s)
        """,
        {"u": user_id, "d": device_id, "json": json, "now": now, "stream": stream_id},
    )


def _record_change(txn: Transaction, user_id: str, device_id: str | None, stream_id: int) -> None:
    txn.execute(
        "INSERT INTO device_lists_stream (stream_id, user_id, device_id) VALUES (%s, %s, %s)",
        (stream_id, user_id, device_id),
    )


def add_keys(
    txn: Transaction, user_id: str, device_id: str, one_time: list[Key], fallback: list[Key], now: int
) -> dict[str, int]:
    """See `KeyStore.add_keys`; for stores that do it within a transaction of their own."""
    if one_time:
        _add_one_time(txn, user_id, device_id, one_time, now)
    if fallback:
        txn.values(
            """
            INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key_json) VALUES %s
            ON CONFLICT (user_id, device_id, algorithm) DO UPDATE
            SET key_id = EXCLUDED.key_id, key_json = EXCLUDED.key_json, used = false
            WHERE fallback_keys.key_json <> EXCLUDED.key_json OR fallback_keys.key_id <> EXCLUDED.key_id
            """,
            [(user_id, device_id, *key) for key in fallback],
        )
    return _counts(txn, user_id, device_id)


def _add_one_time(txn: Transaction, user_id: str, device_id: str, keys: list[Key], now: int) -> None:
    """A client that lost our answer sends its keys again: the same key is not an error, another under its id is."""
    txn.execute(
        """
        SELECT algorithm, key_id, key_json FROM one_time_keys
        WHERE user_id = %s AND device_id = %s AND key_id = ANY(%s)
        """,
        (user_id, device_id, [key.key_id for key in keys]),
    )
    known = {(algorithm, key_id): json for algorithm, key_id, json in txn.rows()}
    for algorithm, key_id, json in keys:
        if known.get((algorithm, key_id), json) != json:
            raise KeyConflict(f"{algorithm}:{key_id}")
    fresh = [(user_id, device_id, *key, now) for key in keys if (key.algorithm, key.key_id) not in known]
    if fresh:
        txn.values(
            """
            INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key_json, uploaded_ts) VALUES %s
            ON CONFLICT DO NOTHING
            """,
            fresh,
        )


def _counts(txn: Transaction, user_id: str, device_id: str) -> dict[str, int]:
    txn.execute(
        "SELECT algorithm, COUNT(*) FROM one_time_keys WHERE user_id = %s AND device_id = %s GROUP BY algorithm",
        (user_id, device_id),
    )
    return dict(txn.rows())


def _unused_fallback(txn: Transaction, user_id: str, device_id: str) -> list[str]:
    txn.execute(
        "SELECT algorithm FROM fallback_keys WHERE user_id = %s AND device_id = %s AND NOT used ORDER BY algorithm",
        (user_id, device_id),
    )
    return [algorithm for (algorithm,) in txn.rows()]


def _claim(txn: Transaction, wanted: list[Wanted]) -> list[Claimed]:
    claimed = _take_one_time(txn, wanted)
    had = {key[:3] for key in claimed}
    rest = [want for want in wanted if tuple(want) not in had]
    return claimed + _use_fallback(txn, rest) if rest else claimed


def _take_one_time(txn: Transaction, wanted: list[Wanted]) -> list[Claimed]:
    # SKIP LOCKED: whoever claims at the same moment gets the next key instead of waiting for this one.
    txn.execute(
        """
        WITH picked AS MATERIALIZED (
            SELECT k.* FROM unnest(%s, %s, %s) AS w (user_id, device_id, algorithm)
            CROSS JOIN LATERAL (
                SELECT o.user_id, o.device_id, o.algorithm, o.key_id FROM one_time_keys o
                WHERE o.user_id = w.user_id AND o.device_id = w.device_id AND o.algorithm = w.algorithm
                ORDER BY o.uploaded_ts, o.key_id LIMIT 1 FOR UPDATE SKIP LOCKED
            ) k
        )
        DELETE FROM one_time_keys t USING picked p
        WHERE (t.user_id, t.device_id, t.algorithm, t.key_id) = (p.user_id, p.device_id, p.algorithm, p.key_id)
        RETURNING t.user_id, t.device_id, t.algorithm, t.key_id, t.key_json
        """,
        [list(column) for column in zip(*wanted, strict=True)],
    )
    return [Claimed(*row) for row in txn.rows()]


def _use_fallback(txn: Transaction, wanted: list[Wanted]) -> list[Claimed]:
    txn.execute(
        """
        UPDATE fallback_keys f SET used = true FROM unnest(%s, %s, %s) AS w (user_id, device_id, algorithm)
        WHERE (f.user_id, f.device_id, f.algorithm) = (w.user_id, w.device_id, w.algorithm)
        RETURNING f.user_id, f.device_id, f.algorithm, f.key_id, f.key_json
        """,
        [list(column) for column in zip(*wanted, strict=True)],
    )
    return [Claimed(*row) for row in txn.rows()]


def _changed_users(txn: Transaction, user_ids: list[str], after: int, until: int) -> set[str]:
    txn.execute(
        """
        SELECT DISTINCT user_id FROM device_lists_stream
        WHERE user_id = ANY(%s) AND stream_id > %s AND stream_id <= %s
        """,
        (user_ids, after, until),
    )
    return {user_id for (user_id,) in txn.rows()}
