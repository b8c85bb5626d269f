"""What users have published of their keys, as others may see it: devices, cross-signing keys, signatures.

One moment's picture, so that signatures fit what they are of. Client-server API, "Key and signature security".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.storage.cross_signing import USER_SIGNING, CrossSigningKey, Signature

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class DeviceKeys(NamedTuple):
    """A device's published keys, and the name that its user gave it."""

    user_id: str
    device_id: str
    json: str
    display_name: str | None


class PublishedKeys(NamedTuple):
    """Keys of several users, those of them that there are, and the signatures of keys that one user may see."""

    users: set[str]
    devices: list[DeviceKeys]
    cross_signing: list[CrossSigningKey]
    signatures: list[Signature]


class PublishedKeyStore:
    """Reads, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_users(self, user_ids: list[str], viewer: str) -> PublishedKeys:
        """Three statements, whatever the number of users. User-signing keys are given as they are needed to tell
        which signatures are secret; they are shown to their owner alone.
        """
        if not user_ids:
            return PublishedKeys(set(), [], [], [])
        return await self._db.snapshot("published_keys.of_users", read_published_keys, user_ids, viewer)


def read_published_keys(txn: Transaction, user_ids: list[str], viewer: str) -> PublishedKeys:
    """See `PublishedKeyStore.of_users`; for stores that read it with other things. `viewer` "": anybody."""
    txn.execute(
        """
        SELECT u.user_id, k.device_id, k.key_json, k.display_name FROM users u LEFT JOIN (
            SELECT user_id, device_id, key_json, display_name FROM device_keys JOIN devices USING (user_id, device_id)
            WHERE user_id = ANY(%(users)s)
        ) AS k USING (user_id) WHERE u.user_id = ANY(%(users)s)
        """,
        {"users": user_ids},
    )
    found = txn.rows()
    users, devices = {row[0] for row in found}, [DeviceKeys(*row) for row in found if row[1] is not None]
    return PublishedKeys(users, devices, *read_signing_keys(txn, user_ids, viewer))


def read_signing_keys(
    txn: Transaction, user_ids: list[str], viewer: str
) -> tuple[list[CrossSigningKey], list[Signature]]:
    """The keys of users as such; and, of these and of their devices, the signatures that the viewer may see."""
    txn.execute(
        "SELECT user_id, usage, public_key, key_json FROM cross_signing_keys WHERE user_id = ANY(%s)", (user_ids,)
    )
    keys = [CrossSigningKey(*row) for row in txn.rows()]
    txn.execute(
        """
        SELECT target_user_id, target_id, signer_user_id, key_id, signature FROM key_signatures
        WHERE target_user_id = ANY(%s) AND (signer_user_id = target_user_id OR signer_user_id = %s)
        """,
        (user_ids, viewer),
    )
    return keys, [Signature(*row) for row in txn.rows()]


def secret_key_ids(keys: list[CrossSigningKey], viewer: str) -> set[tuple[str, str]]:
    """(user id, key id) of the keys whose signatures the viewer may not see."""
    return {
        (key.user_id, f"ed25519:{key.public_key}")
        for key in keys
        if key.usage == USER_SIGNING and key.user_id != viewer
    }
