"""Which user of this server somebody is whom an identity provider vouches for: the table `user_external_ids`.

An identity belongs to one user; a user may have several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class ExternalId(NamedTuple):
    """Somebody as a provider knows them."""

    auth_provider: str
    external_id: str


class ExternalIdStore:
    """Reads and writes them, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def owner(self, identity: ExternalId) -> str | None:
        """The user that it belongs to."""
        return await self._db.read("external_ids.owner", owner, identity)

    async def of_user(self, user_id: str) -> list[ExternalId]:
        return await self._db.read("external_ids.of_user", _of_user, user_id)

    async def add(self, identity: ExternalId, user_id: str) -> bool:
        """False, and nothing done, if it belongs to another user."""
        return await self._db.write_idempotent("external_ids.add", insert, identity, user_id)

    async def remove(self, identity: ExternalId, user_id: str) -> bool:
        """False if it was not the user's."""
        return await self._db.write_idempotent("external_ids.remove", _remove, identity, user_id)


def owner(txn: Transaction, identity: ExternalId) -> str | None:
    """For stores that ask within a transaction of their own."""
    txn.execute("SELECT user_id FROM user_external_ids WHERE auth_provider = %s AND external_id = %s", identity)
    row = txn.one_or_none()
    return None if row is None else row[0]


def _of_user(txn: Transaction, user_id: str) -> list[ExternalId]:
    txn.execute(
        """
        SELECT auth_provider, external_id FROM user_external_ids WHERE user_id = %s ORDER BY auth_provider, external_id
        """,
        (user_id,),
    )
    return [ExternalId(*row) for row in txn.rows()]


def insert(txn: Transaction, identity: ExternalId, user_id: str) -> bool:
    """For stores that do it within a transaction of their own: False if it belongs to another user."""
    txn.execute(
        """
        INSERT INTO user_external_ids AS kept (auth_provider, external_id, user_id) VALUES (%s, %s, %s)
        ON CONFLICT (auth_provider, external_id) DO UPDATE SET user_id = kept.user_id
        RETURNING user_id
        """,
        (*identity, user_id),
    )
    return bool(txn.one()[0] == user_id)


def _remove(txn: Transaction, identity: ExternalId, user_id: str) -> bool:
    txn.execute(
        "DELETE FROM user_external_ids WHERE auth_provider = %s AND external_id = %s AND user_id = %s",
        (*identity, user_id),
    )
    return txn.affected == 1
