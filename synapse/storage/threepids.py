"""Third-party identifiers of users: who has proved to have which e-mail address or phone number, and on which identity
servers addresses were bound to whom.

Addresses come in the form of `synapse.api.threepids.canonical`; nothing here changes them.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from synapse.storage import threepid_sessions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse.storage.database import Database, Transaction


class Threepid(NamedTuple):
    """An address that somebody has proved to have. Times are milliseconds since the epoch."""

    medium: str
    address: str
    validated_ts: int
    added_ts: int


class Binding(NamedTuple):
    """An address that an identity server was told to be a user's."""

    medium: str
    address: str
    id_server: str


class Adding(Enum):
    """What came of adding an address: `TAKEN` where it is another user's, `USED_UP` where the proof counts no more."""

    ADDED = "added"
    TAKEN = "taken"
    USED_UP = "used up"


class ThreepidStore:
    """Reads and writes addresses, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def owner(self, medium: str, address: str) -> str | None:
        """The user who has added the address to the account."""
        return await self._db.read("threepids.owner", _owner, medium, address)

    async def of_user(self, user_id: str) -> list[Threepid]:
        """What the user has added, oldest first."""
        return await self._db.read("threepids.of_user", _of_user, user_id)

    async def add(self, user_id: str, medium: str, address: str, validated_ts: int, added_ts: int) -> bool:
        """Adds an address; one that the user has already is validated anew.

        False, and nothing done, where it is another user's, or the account does not exist (any more).
        """
        return await self._db.write_idempotent(
            "threepids.add", _add, user_id, Threepid(medium, address, validated_ts, added_ts)
        )

    async def add_proved(self, user_id: str, threepid: Threepid, session_id: str) -> Adding:
        """Adds an address that a session of validation has proved, which is used up by that."""
        return await self._db.write_idempotent("threepids.add_proved", _add_proved, user_id, threepid, session_id)

    async def remove(self, user_id: str, medium: str, address: str) -> bool:
        """Takes an address away from the user; False where it is not theirs."""
        return await self._db.write("threepids.remove", _remove, user_id, medium, address)

    # -- identity servers ----------------------------------------------------------------------------------------------

    async def bound(self, user_id: str, binding: Binding) -> None:
        """An identity server has been told that the address is the user's."""
        await self._db.write_idempotent("threepids.bound", _bound, user_id, binding)

    async def unbound(self, user_id: str, binding: Binding) -> None:
        """It does not say so any more."""
        await self._db.write_idempotent("threepids.unbound", _unbound, user_id, binding)

    async def bindings(self, user_id: str) -> list[Binding]:
        """Where the user's addresses are bound, as far as it went through this server."""
        return await self._db.read("threepids.bindings", _bindings, user_id)


def insert(txn: Transaction, user_id: str, threepids: Iterable[Threepid]) -> bool:
    """Adds addresses to an account that is there, for stores that do so within a transaction of their own.

    False at the first that is another user's: such a transaction is to be given up.
    """
    return all(_put(txn, user_id, threepid) for threepid in threepids)


def _owner(txn: Transaction, medium: str, address: str) -> str | None:
    txn.execute("SELECT user_id FROM user_threepids WHERE medium = %s AND address = %s", (medium, address))
    row = txn.one_or_none()
    return None if row is None else row[0]


def _of_user(txn: Transaction, user_id: str) -> list[Threepid]:
    txn.execute(
        """
        SELECT medium, address, validated_ts, added_ts FROM user_threepids
        WHERE user_id = %s ORDER BY added_ts, medium, address
        """,
        (user_id,),
    )
    return [Threepid(*row) for row in txn.rows()]


def _add(txn: Transaction, user_id: str, threepid: Threepid) -> bool:
    # The lock keeps the account from being deactivated at the same time, which would leave the address to nobody.
    txn.execute("SELECT 1 FROM users WHERE user_id = %s AND NOT deactivated FOR SHARE", (user_id,))
    return txn.one_or_none() is not None and _put(txn, user_id, threepid)


def _add_proved(txn: Transaction, user_id: str, threepid: Threepid, session_id: str) -> Adding:
    if not threepid_sessions.use(txn, [session_id]):
        # By this very request, perhaps, whose COMMIT got no answer.
        return Adding.ADDED if threepid in _of_user(txn, user_id) else Adding.USED_UP
    return Adding.ADDED if _add(txn, user_id, threepid) else Adding.TAKEN


def _put(txn: Transaction, user_id: str, threepid: Threepid) -> bool:
    txn.execute(
        """
        INSERT INTO user_threepids (user_id, medium, address, validated_ts, added_ts) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (medium, address) DO UPDATE SET validated_ts = EXCLUDED.validated_ts
        WHERE user_threepids.user_id = EXCLUDED.user_id RETURNING true
        """,
        (user_id, *threepid),
    )
    return txn.one_or_none() is not None


def _remove(txn: Transaction, user_id: str, medium: str, address: str) -> bool:
    txn.execute(
        "DELETE FROM user_threepids WHERE user_id = %s AND medium = %s AND address = %s RETURNING true",
        (user_id, medium, address),
    )
    return txn.one_or_none() is not None


def _bound(txn: Transaction, user_id: str, binding: Binding) -> None:
    txn.execute(
        """
        INSERT INTO bound_threepids (user_id, medium, address, id_server) VALUES (%s, %s, %s, %s)
        ON CONFLICT DO NOTHING
        """,
        (user_id, *binding),
    )


def _unbound(txn: Transaction, user_id: str, binding: Binding) -> None:
    txn.execute(
        "DELETE FROM bound_threepids WHERE user_id = %s AND medium = %s AND address = %s AND id_server = %s",
        (user_id, *binding),
    )


def _bindings(txn: Transaction, user_id: str) -> list[Binding]:
    txn.execute(
        "SELECT medium, address, id_server FROM bound_threepids WHERE user_id = %s ORDER BY medium, address, id_server",
        (user_id,),
    )
    return [Binding(*row) for row in txn.rows()]
