"""Taking an account out of use: one transaction, and the list of those who have yet to leave their rooms.

The row in `users` stays, so that nobody ever gets the name again. What others have of the user (events, receipts,
media) stays as well; what was the user's own goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.storage import cross_signing, devices

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction
    from synapse.storage.devices import Deleted

# What is of no use without somebody who logs in.
_OWN: Final = (
    *("account_data", "push_rules", "filters", "user_directory"),
    *("user_threepids", "bound_threepids"),
    *("server_notice_rooms", "monthly_active_users", "account_renewals"),
    *("ui_auth_sessions", "fresh_authentications", "arriving_users"),
    *("key_backups", "key_backup_sessions", "openid_tokens"),
)
# What tells who it was, and where from; kept of those who do not ask for erasure, as it may have to be looked up.
_PERSONAL: Final = ("profiles", "user_ips", "user_external_ids")


class DeactivationStore:
    """Writes in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def deactivate(self, user_id: str, erase: bool, stream_id: int) -> Deleted | None:
        """Nobody can log in any more, and the user is listed among the departing; what went of devices and tokens.

        None, and nothing done, if there is no such account. Who is deactivated already may still be erased.
        What others could see of devices and keys is gone at a position of the stream `device_lists`.
        """
        return await self._db.write("deactivation.deactivate", _deactivate, user_id, erase, stream_id)

    async def departing(self) -> list[str]:
        """Those who have yet to leave their rooms."""
        return await self._db.read("deactivation.departing", _departing)

    async def departed(self, user_id: str) -> None:
        """The user has left all rooms that let them."""
        await self._db.write_idempotent("deactivation.departed", _departed, user_id)


def _deactivate(txn: Transaction, user_id: str, erase: bool, stream_id: int) -> Deleted | None:
    # Whoever adds something to the account at the same time has locked its row, which is waited for here.
    txn.see_the_latest()
    txn.execute(
        """
        UPDATE users SET deactivated = true, erased = erased OR %s, password_hash = NULL
        WHERE user_id = %s RETURNING true
        """,
        (erase, user_id),
    )
    if txn.one_or_none() is None:
        return None
    for table in (*_OWN, *(_PERSONAL if erase else ())):
        txn.later(f"DELETE FROM {table} WHERE user_id = %s", (user_id,))
    had_keys = cross_signing.delete(txn, user_id)
    txn.later("INSERT INTO departing_users (user_id) VALUES (%s) ON CONFLICT DO NOTHING", (user_id,))
    gone = devices.delete(txn, user_id, None)._replace(had_cross_signing=had_keys)
    if gone.device_ids or had_keys:
        devices.record_change(txn, user_id, gone.device_ids, stream_id)
    return gone


def _departing(txn: Transaction) -> list[str]:
    txn.execute("SELECT user_id FROM departing_users ORDER BY user_id")
    return [user_id for (user_id,) in txn.rows()]


def _departed(txn: Transaction, user_id: str) -> None:
    txn.execute("DELETE FROM departing_users WHERE user_id = %s", (user_id,))
