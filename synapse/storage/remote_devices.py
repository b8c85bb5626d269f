"""The devices of other servers' users as they are kept here, with their keys: lists, and how far each is to be trusted.

A list is complete as of the stream id with which it was fetched, and of the updates since (`handlers.edus.gaps` says
which those are). One with a gap is marked as stale until it is fetched anew, so that every process knows. Keys of the
users as such, and signatures, are with those of this server's users (`cross_signing`), since these sign them.

Changes are written in the main process, at positions of the stream `device_lists`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from synapse.storage.cross_signing import CrossSigningKey, Signature, take_in_keys
from synapse.storage.devices import record_change
from synapse.storage.published_keys import DeviceKeys, PublishedKeys, read_signing_keys

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class ListRow(NamedTuple):
    """A row of `remote_device_lists`; see `handlers.edus.gaps.Kept`."""

    base_id: int
    applied: tuple[int, ...]
    stale: bool


class Device(NamedTuple):
    """A device; `json` None: it has published no keys."""

    device_id: str
    json: str | None
    display_name: str | None


class Keys(NamedTuple):
    """Keys of a user as such, and the user's own signatures of them."""

    keys: list[CrossSigningKey]
    signatures: list[Signature]


class Applied(NamedTuple):
    """What becomes of a list by an update: the row, None where it stays as it is; the device, None where it goes.

    Of a list that is stale then, the device is not kept.
    """

    row: ListRow | None
    device: Device | None = None


class Kept(NamedTuple):
    """What is kept of a server's users: how many lists, and bytes of keys in these."""

    lists: int
    size: int


class Fetched(NamedTuple):
    """A list as its server gave it."""

    stream_id: int
    devices: list[Device]
    signing: Keys


class Known(NamedTuple):
    """What is kept of several users: those who have a list, those of them whose list is stale, and the keys."""

    users: set[str]
    stale: set[str]
    published: PublishedKeys


class RemoteDeviceStore:
    """Reads anywhere, writes in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def known(self, user_ids: list[str], viewer: str) -> Known:
        """Keys of those of the users of whom there are any, as the viewer may see them. Three statements at most."""
        if not user_ids:
            return Known(set(), set(), PublishedKeys(set(), [], [], []))
        return await self._db.snapshot("remote_devices.known", _known, user_ids, viewer)

    async def signatures_by(self, viewer: str, user_ids: list[str]) -> list[Signature]:
        """What a user of this server has signed of the keys of these users."""
        return await self._db.read("remote_devices.signatures_by", _signatures_by, viewer, user_ids)

    async def apply(
        self, user_id: str, device_id: str, judge: Callable[[ListRow | None], Applied], max_devices: int, stream_id: int
    ) -> bool:
        """Applies an update as `judge` (which may be called again) has it. True if it was applied: what has changed may
        be something that is not told, such as the name of a device.

        A new device beyond `max_devices` is not taken in.
        """
        return await self._db.write("remote_devices.apply", _apply, user_id, device_id, judge, max_devices, stream_id)

    async def replace(self, user_id: str, fetched: Fetched, stream_id: int) -> bool:
        """Keeps a list in place of what there was. True if keys have changed, or may have meanwhile."""
        return await self._db.write("remote_devices.replace", _replace, user_id, fetched, stream_id)

    async def take_in(self, user_id: str, signing: Keys, stream_id: int) -> bool:
        """Keeps keys of a user who has a list. True if they, or their signatures, are new; or it is not known."""
        return await self._db.write("remote_devices.take_in", _take_in, user_id, signing, stream_id)

    async def remember(self, keys: Mapping[str, Keys]) -> None:
        """Keeps keys of users who have no list, so that users of this server can sign them."""
        if keys:
            await self._db.write("remote_devices.remember", _remember, keys)

    async def kept_of(self, server: str) -> Kept:
        """What is kept of a server's users. It reads all of their rows."""
        return await self._db.read("remote_devices.kept_of", _kept_of, server)

    async def failed(self, user_id: str, retry_ts: Callable[[int], int]) -> int:
        """The list could not be fetched: it is stale, and to be tried again at `retry_ts(failures)`, in milliseconds.
        Returns how often it has failed by now.
        """
        return await self._db.write("remote_devices.failed", _failed, user_id, retry_ts)

    async def due(self, now: int, limit: int) -> list[str]:
        """Users whose stale lists are to be tried again now."""
        return await self._db.read("remote_devices.due", _due, now, limit)

    async def hasten(self, servers: Collection[str], now: int) -> None:
        """The stale lists of these servers' users are due."""
        await self._db.write_idempotent("remote_devices.hasten", _hasten, list(servers), now)

    async def changed(self, user_id: str, stream_id: int) -> None:
        """Writes to the stream that the user's keys may be others."""
        await self._db.write("remote_devices.changed", record_change, user_id, [], stream_id)

    async def listed(self, user_ids: list[str]) -> list[str]:
        """Those of the users who have a list."""
        return await self._db.read("remote_devices.listed", _listed, user_ids)

    async def listed_in(self, room_id: str) -> list[str]:
        """Those who are, or were, members of a room and have a list."""
        return await self._db.read("remote_devices.listed_in", _listed_in, room_id)

    async def forget(self, user_ids: Sequence[str], stream_ids: Sequence[int]) -> dict[int, str]:
        """Drops lists, and writes to the stream that the users' keys may be others; whose is at which position. What
        this server's users have signed of these users' keys stays, as do those keys.
        """
        return await self._db.write("remote_devices.forget", _forget, user_ids, stream_ids)


def _known(txn: Transaction, user_ids: list[str], viewer: str) -> Known:
    txn.execute(
        """
        SELECT l.user_id, l.stale, d.device_id, d.key_json, d.display_name FROM remote_device_lists l
        LEFT JOIN remote_devices d ON d.user_id = l.user_id AND d.key_json IS NOT NULL
        WHERE l.user_id = ANY(%s) AND l.base_id >= 0
        """,
        (user_ids,),
    )
    found = txn.rows()
    users, stale = {row[0] for row in found}, {row[0] for row in found if row[1]}
    devices = [DeviceKeys(row[0], *row[2:]) for row in found if row[2] is not None]
    keys, signatures = read_signing_keys(txn, list(users), viewer)
    return Known(users, stale, PublishedKeys(users, devices, keys, signatures))


def _signatures_by(txn: Transaction, viewer: str, user_ids: list[str]) -> list[Signature]:
    txn.execute(
        """
        SELECT target_user_id, target_id, signer_user_id, key_id, signature FROM key_signatures
        WHERE target_user_id = ANY(%s) AND signer_user_id = %s
        """,
        (user_ids, viewer),
    )
    return [Signature(*row) for row in txn.rows()]


def _row(txn: Transaction, user_id: str) -> ListRow | None:
    txn.execute("SELECT base_id, applied_ids, stale FROM remote_device_lists WHERE user_id = %s FOR UPDATE", (user_id,))
    row = txn.one_or_none()
    return None if row is None else ListRow(row[0], tuple(row[1]), row[2])


def _apply(
    txn: Transaction,
    user_id: str,
    device_id: str,
    judge: Callable[[ListRow | None], Applied],
    max_devices: int,
    stream_id: int,
) -> bool:
    row, device = judge(_row(txn, user_id))
    if row is None:
        return False
    txn.later(
        """
        INSERT INTO remote_device_lists (user_id, base_id, applied_ids, stale) VALUES (%s, %s, %s, %s)
        ON CONFLICT (user_id) DO UPDATE
        SET base_id = EXCLUDED.base_id, applied_ids = EXCLUDED.applied_ids, stale = EXCLUDED.stale
        """,
        (user_id, row.base_id, list(row.applied), row.stale),
    )
    if row.stale:
        # The list is fetched, and its users are told then, if it has any keys. Those that are gone will not be in it,
        # and may be known, since strangers' keys are shown and not kept.
        is_gone = device is None and row.base_id < 0
        if is_gone:
            record_change(txn, user_id, [device_id], stream_id)
        return is_gone
    if device is None:
        txn.later("DELETE FROM remote_devices WHERE user_id = %s AND device_id = %s", (user_id, device_id))
    else:
        txn.later(
            """
            INSERT INTO remote_devices (user_id, device_id, key_json, display_name)
            SELECT %(user)s, %(device)s, %(json)s, %(name)s
            WHERE (SELECT COUNT(*) FROM remote_devices WHERE user_id = %(user)s AND device_id <> %(device)s) < %(max)s
            ON CONFLICT (user_id, device_id) DO UPDATE
            SET key_json = EXCLUDED.key_json, display_name = EXCLUDED.display_name
            """,
            {
                "user": user_id,
                "device": device_id,
                "max": max_devices,
                "json": device.json,
                "name": device.display_name,
            },
        )
    record_change(txn, user_id, [device_id], stream_id)
    return True


def _replace(txn: Transaction, user_id: str, fetched: Fetched, stream_id: int) -> bool:
    txn.execute(
        """
        WITH before AS (
            SELECT stale AND (base_id >= 0 OR failures > 0) AS doubtful FROM remote_device_lists WHERE user_id = %s
        )
        INSERT INTO remote_device_lists AS l (user_id, base_id, stale) VALUES (%s, %s, false)
        ON CONFLICT (user_id) DO UPDATE SET base_id = EXCLUDED.base_id, applied_ids = '{}', stale = false, failures = 0
        RETURNING (SELECT doubtful FROM before)
        """,
        (user_id, user_id, fetched.stream_id),
    )
    was_doubtful = bool(txn.one()[0])
    txn.execute("DELETE FROM remote_devices WHERE user_id = %s RETURNING device_id, key_json, display_name", (user_id,))
    before = {Device(*row) for row in txn.rows()}
    txn.values(
        "INSERT INTO remote_devices (user_id, device_id, key_json, display_name) VALUES %s",
        [(user_id, *device) for device in fetched.devices],
        later=True,
    )
    keys_changed = take_in_keys(txn, user_id, *fetched.signing, whole=True)
    # Of a list that was stale, clients may know more than is kept, such as what came and went again. Devices without
    # keys are nothing that they see.
    changed = was_doubtful or keys_changed or _with_keys(before) != _with_keys(fetched.devices)
    if changed:
        record_change(txn, user_id, [], stream_id)
    return changed


def _with_keys(devices: Iterable[Device]) -> set[Device]:
    return {device for device in devices if device.json is not None}


def _take_in(txn: Transaction, user_id: str, signing: Keys, stream_id: int) -> bool:
    txn.execute("SELECT FROM remote_device_lists WHERE user_id = %s FOR UPDATE", (user_id,))
    is_listed = txn.one_or_none() is not None
    changed = not is_listed or take_in_keys(txn, user_id, *signing, whole=False)
    if changed:
        record_change(txn, user_id, [], stream_id)
    return changed


def _remember(txn: Transaction, keys: Mapping[str, Keys]) -> None:
    listed = _listed(txn, list(keys))
    for user_id, each in keys.items():
        if user_id not in listed:
            take_in_keys(txn, user_id, *each, whole=True)


def _failed(txn: Transaction, user_id: str, retry_ts: Callable[[int], int]) -> int:
    txn.execute("SELECT failures FROM remote_device_lists WHERE user_id = %s FOR UPDATE", (user_id,))
    row = txn.one_or_none()
    failures = 1 if row is None else int(row[0]) + 1
    txn.execute(
        """
        INSERT INTO remote_device_lists (user_id, base_id, stale, failures, retry_ts) VALUES (%s, -1, true, %s, %s)
        ON CONFLICT (user_id) DO UPDATE
        SET stale = true, failures = EXCLUDED.failures, retry_ts = EXCLUDED.retry_ts
        """,
        (user_id, failures, retry_ts(failures)),
    )
    return failures


def _kept_of(txn: Transaction, server: str) -> Kept:
    txn.execute(
        """
        SELECT count(DISTINCT l.user_id), coalesce(sum(octet_length(d.key_json)), 0)
        FROM remote_device_lists l LEFT JOIN remote_devices d ON d.user_id = l.user_id
        WHERE substr(l.user_id, strpos(l.user_id, ':') + 1) = %s
        """,
        (server,),
    )
    lists, size = txn.one()
    return Kept(lists, int(size))


def _due(txn: Transaction, now: int, limit: int) -> list[str]:
    txn.execute(
        "SELECT user_id FROM remote_device_lists WHERE stale AND retry_ts <= %s ORDER BY retry_ts LIMIT %s",
        (now, limit),
    )
    return [user_id for (user_id,) in txn.rows()]


def _hasten(txn: Transaction, servers: list[str], now: int) -> None:
    txn.execute(
        """
        UPDATE remote_device_lists SET retry_ts = %s
        WHERE stale AND retry_ts > %s AND substr(user_id, strpos(user_id, ':') + 1) = ANY(%s)
        """,
        (now, now, servers),
    )


def _listed(txn: Transaction, user_ids: list[str]) -> list[str]:
    txn.execute("SELECT user_id FROM remote_device_lists WHERE user_id = ANY(%s)", (user_ids,))
    return [user_id for (user_id,) in txn.rows()]


def _listed_in(txn: Transaction, room_id: str) -> list[str]:
    txn.execute(
        """
        SELECT l.user_id FROM current_state c JOIN remote_device_lists l ON l.user_id = c.state_key
        WHERE c.room_id = %s AND c.type = 'm.room.member'
        """,
        (room_id,),
    )
    return [user_id for (user_id,) in txn.rows()]


def _forget(txn: Transaction, user_ids: Sequence[str], stream_ids: Sequence[int]) -> dict[int, str]:
    users = {"users": list(user_ids)}
    txn.later("DELETE FROM remote_device_lists WHERE user_id = ANY(%(users)s)", users)
    txn.later("DELETE FROM remote_devices WHERE user_id = ANY(%(users)s)", users)
    txn.later("DELETE FROM key_signatures WHERE signer_user_id = ANY(%(users)s)", users)
    txn.later(
        """
        DELETE FROM cross_signing_keys k WHERE user_id = ANY(%(users)s) AND NOT EXISTS (
            SELECT FROM key_signatures s WHERE s.target_user_id = k.user_id AND s.target_id = k.public_key
        )
        """,
        users,
    )
    told = dict(zip(stream_ids, user_ids, strict=True))
    txn.values(
        "INSERT INTO device_lists_stream (stream_id, user_id, device_ids) VALUES %s",
        [(stream_id, user_id, []) for stream_id, user_id in told.items()],
        later=True,
    )
    return told
