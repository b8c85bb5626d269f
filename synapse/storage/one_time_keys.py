"""One-time and fallback keys: adding, counting, and giving them out.

Keys are kept as the JSON text that was given, with sorted keys so that equal keys are equal texts. That a one-time key
is given out once only is promised here: by the statement that deletes it, and because a key that has been given out is
remembered for a day, in which a client that got no answer may send it again. Formats are the handler's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


MAX_WAITING: Final = 1_000
"""One-time keys that a device may have; clients are content with a hundred."""


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


class KeysLeft(NamedTuple):
    """What a device has: one-time keys by algorithm, the algorithms of unused fallback keys, and a digest of the
    identity keys that it has published (`storage.device_keys.digest`; None: none).
    """

    one_time: dict[str, int]
    fallback: list[str]
    identity: str | None


class KeyConflict(Exception):
    """A one-time key of that id exists with other content; the argument is `algorithm:key_id`."""


class TooManyKeys(Exception):
    """The device would have more than `MAX_WAITING` one-time keys."""


class NoSuchDevice(Exception):
    """The device has been deleted."""


class OneTimeKeyStore:
    """Reads and writes keys, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, user_id: str, device_id: str, one_time: list[Key], fallback: list[Key], now: int) -> bool:
        """Adds what is new; False if nothing is. Raises `KeyConflict`, `TooManyKeys`, `NoSuchDevice`."""
        return await self._db.write("one_time_keys.add", add, user_id, device_id, one_time, fallback, now)

    async def left(self, user_id: str, device_id: str) -> KeysLeft:
        """In one statement."""
        return await self._db.read("one_time_keys.left", _left, user_id, device_id)

    async def claim(self, wanted: list[Wanted], now: int) -> list[Claimed]:
        """Takes one one-time key for each, or the fallback key where there is none; what has neither is missing.

        One statement for one-time keys and one for fallback keys, however many are wanted.
        """
        return await self._db.write("one_time_keys.claim", _claim, wanted, now) if wanted else []

    async def forget_claimed(self, before: int) -> None:
        """Drops the memory of keys given out before that time (milliseconds)."""
        await self._db.write("one_time_keys.forget_claimed", _forget_claimed, before)


def lock_device(txn: Transaction, user_id: str, device_id: str) -> None:
    """Has the transaction fail, and tried again, that deletes the device at the same time, or adds keys to it.

    Raises `NoSuchDevice`.
    """
    # Not FOR UPDATE: who waits for a lock goes on with what it saw before, and would leave keys without a device.
    txn.execute(
        "UPDATE devices SET device_id = device_id WHERE user_id = %s AND device_id = %s RETURNING true",
        (user_id, device_id),
    )
    if txn.one_or_none() is None:
        raise NoSuchDevice(device_id)


def add(txn: Transaction, user_id: str, device_id: str, one_time: list[Key], fallback: list[Key], now: int) -> bool:
    """See `OneTimeKeyStore.add`; for stores that do it within a transaction of their own."""
    lock_device(txn, user_id, device_id)
    changed = bool(one_time) and _add_one_time(txn, user_id, device_id, one_time, now)
    if fallback:
        txn.values(
            """
            INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key_json) VALUES %s
            ON CONFLICT (user_id, device_id, algorithm) DO UPDATE
            SET key_id = EXCLUDED.key_id, key_json = EXCLUDED.key_json, used = false
            WHERE fallback_keys.key_json <> EXCLUDED.key_json OR fallback_keys.key_id <> EXCLUDED.key_id
            RETURNING true
            """,
            [(user_id, device_id, *key) for key in fallback],
        )
        changed = txn.one_or_none() is not None or changed
    return changed


def _add_one_time(txn: Transaction, user_id: str, device_id: str, keys: list[Key], now: int) -> bool:
    """A client that lost our answer sends its keys again: the same key is not an error, another under its id is."""
    device = {"user": user_id, "device": device_id, "ids": [key.key_id for key in keys]}
    txn.execute(
        """
        SELECT algorithm, key_id, key_json, NULL FROM one_time_keys
        WHERE user_id = %(user)s AND device_id = %(device)s AND key_id = ANY(%(ids)s)
        UNION ALL
        SELECT algorithm, key_id, NULL, key_hash FROM claimed_keys
        WHERE user_id = %(user)s AND device_id = %(device)s AND key_id = ANY(%(ids)s)
        """,
        device,
    )
    waiting: dict[tuple[str, str], str] = {}
    given_out: set[tuple[str, str, bytes]] = set()
    for algorithm, key_id, json, key_hash in txn.rows():
        if key_hash is None:
            waiting[algorithm, key_id] = json
        else:
            given_out.add((algorithm, key_id, bytes(key_hash)))
    fresh = []
    for key in keys:
        known = waiting.get((key.algorithm, key.key_id))
        if known is None and (key.algorithm, key.key_id, sha256(key.json)) not in given_out:
            fresh.append(key)
        elif known is not None and known != key.json:
            raise KeyConflict(f"{key.algorithm}:{key.key_id}")
    if fresh:
        _insert_one_time(txn, user_id, device_id, fresh, now)
    return bool(fresh)


def _insert_one_time(txn: Transaction, user_id: str, device_id: str, keys: list[Key], now: int) -> None:
    # Keys of a later upload get a later time, whatever the clock says: it is their order.
    txn.execute(
        "SELECT COUNT(*), COALESCE(MAX(uploaded_ts), 0) FROM one_time_keys WHERE user_id = %s AND device_id = %s",
        (user_id, device_id),
    )
    count, latest = txn.one()
    if count + len(keys) > MAX_WAITING:
        raise TooManyKeys
    txn.values(
        "INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key_json, uploaded_ts) VALUES %s",
        [(user_id, device_id, *key, max(now, latest + 1)) for key in keys],
        later=True,
    )


def sha256(text: str) -> bytes:
    import hashlib

    return hashlib.sha256(text.encode()).digest()


def _left(txn: Transaction, user_id: str, device_id: str) -> KeysLeft:
    txn.execute(
        """
        SELECT 'one-time', algorithm, COUNT(*) FROM one_time_keys
        WHERE user_id = %(user)s AND device_id = %(device)s GROUP BY algorithm
        UNION ALL
        SELECT 'fallback', algorithm, 1 FROM fallback_keys
        WHERE user_id = %(user)s AND device_id = %(device)s AND NOT used
        UNION ALL
        SELECT 'identity', encode(sha256(convert_to(key_json, 'UTF8')), 'hex'), 1 FROM device_keys
        WHERE user_id = %(user)s AND device_id = %(device)s
        """,
        {"user": user_id, "device": device_id},
    )
    found: dict[str, dict[str, int]] = {"one-time": {}, "fallback": {}, "identity": {}}
    for kind, name, count in txn.rows():
        found[kind][name] = count
    return KeysLeft(found["one-time"], sorted(found["fallback"]), next(iter(found["identity"]), None))


def _claim(txn: Transaction, wanted: list[Wanted], now: int) -> list[Claimed]:
    # Each statement sees what is there when it comes to it: in a snapshot, a key that another has taken meanwhile
    # would be an error instead of a reason to take the next one.
    txn.see_the_latest()
    claimed = _take_one_time(txn, wanted, now)
    had = {key[:3] for key in claimed}
    rest = [want for want in wanted if tuple(want) not in had]
    return claimed + _use_fallback(txn, rest) if rest else claimed


def _take_one_time(txn: Transaction, wanted: list[Wanted], now: int) -> list[Claimed]:
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
        ), taken AS (
            DELETE FROM one_time_keys t USING picked p
            WHERE (t.user_id, t.device_id, t.algorithm, t.key_id) = (p.user_id, p.device_id, p.algorithm, p.key_id)
            RETURNING t.user_id, t.device_id, t.algorithm, t.key_id, t.key_json
        ), remembered AS (
            INSERT INTO claimed_keys (user_id, device_id, algorithm, key_id, key_hash, claimed_ts)
            SELECT user_id, device_id, algorithm, key_id, sha256(convert_to(key_json, 'UTF8')), %s FROM taken
            ON CONFLICT (user_id, device_id, algorithm, key_id) DO UPDATE
            SET key_hash = EXCLUDED.key_hash, claimed_ts = EXCLUDED.claimed_ts
        )
        SELECT * FROM taken
        """,
        [*(list(column) for column in zip(*wanted, strict=True)), now],
    )
    return [Claimed(*row) for row in txn.rows()]


def _use_fallback(txn: Transaction, wanted: list[Wanted]) -> list[Claimed]:
    # Locked in order, so that two who claim the same keys do not wait for each other.
    txn.execute(
        """
        UPDATE fallback_keys f SET used = true FROM (
            SELECT k.user_id, k.device_id, k.algorithm
            FROM fallback_keys k JOIN unnest(%s, %s, %s) AS w (user_id, device_id, algorithm)
                ON (k.user_id, k.device_id, k.algorithm) = (w.user_id, w.device_id, w.algorithm)
            ORDER BY 1, 2, 3 FOR UPDATE OF k
        ) AS locked
        WHERE (f.user_id, f.device_id, f.algorithm) = (locked.user_id, locked.device_id, locked.algorithm)
        RETURNING f.user_id, f.device_id, f.algorithm, f.key_id, f.key_json
        """,
        [list(column) for column in zip(*wanted, strict=True)],
    )
    return [Claimed(*row) for row in txn.rows()]


def _forget_claimed(txn: Transaction, before: int) -> None:
    txn.execute("DELETE FROM claimed_keys WHERE claimed_ts < %s", (before,))
