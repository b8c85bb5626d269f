"""Accounts: who exists on this server, with which password hash and in which standing.

The table `users`, and the one transaction that makes a new account with all that belongs to it. Sessions are in
`access_tokens` and `devices`, names and pictures in `profiles`; passwords are hashed and checked by the handlers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from synapse.storage import arrivals, devices, external_ids, registration_proofs, user_directory
from synapse.storage.access_tokens import NewSession, insert_session
from synapse.storage.external_ids import ExternalId
from synapse.storage.registration_proofs import NO_PROOFS, Proofs

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class User:
    """A row of `users`. Times are milliseconds since the epoch."""

    user_id: str
    password_hash: str | None
    created_ts: int
    is_guest: bool
    admin: bool
    user_type: str | None
    app_service_id: str | None
    deactivated: bool
    locked: bool
    suspended: bool
    consent_version: str | None = None
    valid_until_ts: int | None = None


class NewUser(NamedTuple):
    """What an account is created with.

    `session` is the first device and token, where the user logs in at once; `identity` who the user is at an identity
    provider, where one vouched for them.
    """

    user_id: str
    password_hash: str | None
    created_ts: int
    display_name: str | None
    admin: bool = False
    user_type: str | None = None
    session: NewSession | None = None
    is_guest: bool = False
    proofs: Proofs = NO_PROOFS
    app_service_id: str | None = None
    identity: ExternalId | None = None
    arrives: bool = False  # whether there are rooms that the user is to join


class Made(NamedTuple):
    """What became of a new account: whose it is, and whether it was made now, with the session that it was to have.

    Otherwise the same session of interactive authentication has made it before, or the identity has it.
    """

    user_id: str
    now: bool


class Kept(NamedTuple):
    """The session that is not to end."""

    device_id: str | None
    token_id: int | None


class GuestToUpgrade(NamedTuple):
    """A guest who is to be a user like others, with the given session and no other. `now` in milliseconds."""

    user_id: str
    password_hash: str | None
    session: NewSession | None
    proofs: Proofs
    now: int
    arrives: bool = False  # whether there are rooms that the user is to join


_COLUMNS = (
    "user_id, password_hash, created_ts, is_guest, admin, user_type, app_service_id, deactivated, locked, suspended, "
    "consent_version, valid_until_ts"
)


class UserStore:
    """Reads and writes accounts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def erased(self, user_ids: Sequence[str]) -> set[str]:
        """Those of the users whose messages are erased."""
        return await self._db.read("users.erased", _erased, list(user_ids)) if user_ids else set()

    async def get(self, user_id: str) -> User | None:
        return await self._db.read("users.get", _get, user_id)

    async def exist(self, user_ids: list[str]) -> set[str]:
        """Those of `user_ids` that have an account here."""
        return await self._db.read("users.exist", _exist, user_ids) if user_ids else set()

    async def guests_among(self, user_ids: list[str]) -> set[str]:
        """Those of these users who are guests."""
        return await self._db.read("users.guests_among", _guests_among, user_ids) if user_ids else set()

    async def create(self, user: NewUser) -> Made | None:
        """Makes the account, its profile and its first session. None, and nothing done, if the name is taken.

        Raises what `registration_proofs` raises.
        """
        return await self._db.write("users.create", _create, user)

    async def upgrade_guest(self, guest: GuestToUpgrade) -> devices.Deleted | None:
        """Upgrades a guest; what went of devices and tokens. None, and nothing done, if there is no such guest.

        Raises what `registration_proofs` raises.
        """
        return await self._db.write("users.upgrade_guest", _upgrade_guest, guest)

    async def set_password_hash(self, user_id: str, password_hash: str) -> None:
        """Nothing is done where the account is deactivated."""
        await self._db.write_idempotent("users.set_password_hash", _set_password_hash, user_id, password_hash)

    async def set_password_and_log_out(
        self, user_id: str, password_hash: str, keep: Kept | None, stream_id: int
    ) -> devices.Deleted:
        """Sets the password and ends all sessions but one (None: all); what went. No login by the old password is left
        out, however late it comes. At a position of the stream `device_lists`."""
        return await self._db.write(
            "users.set_password_and_log_out", _set_password_and_log_out, user_id, password_hash, keep, stream_id
        )

    async def replace_password_hash(self, user_id: str, old: str, new: str) -> None:
        """Another hash of the same password; nothing is done where the user has another password by now."""
        await self._db.write("users.replace_password_hash", _replace_password_hash, user_id, old, new)


def _erased(txn: Transaction, user_ids: list[str]) -> set[str]:
    txn.execute("SELECT user_id FROM users WHERE user_id = ANY(%s) AND erased", (user_ids,))
    return {user_id for (user_id,) in txn.rows()}


def _get(txn: Transaction, user_id: str) -> User | None:
    txn.execute(f"SELECT {_COLUMNS} FROM users WHERE user_id = %s", (user_id,))
    row = txn.one_or_none()
    return None if row is None else User(*row)


def _exist(txn: Transaction, user_ids: list[str]) -> set[str]:
    txn.execute("SELECT user_id FROM users WHERE user_id = ANY(%s)", (user_ids,))
    return {user_id for (user_id,) in txn.rows()}


def _guests_among(txn: Transaction, user_ids: list[str]) -> set[str]:
    txn.execute("SELECT user_id FROM users WHERE user_id = ANY(%s) AND is_guest", (user_ids,))
    return {user_id for (user_id,) in txn.rows()}


def _create(txn: Transaction, user: NewUser) -> Made | None:
    earlier = registration_proofs.earlier_account(txn, user.proofs)
    if earlier is None and user.identity is not None:
        earlier = external_ids.owner(txn, user.identity)
    if earlier is not None:
        ours = earlier == user.user_id and user.session is not None and _is_ours(txn, user.session)
        return Made(earlier, ours)
    txn.execute(
        """
        WITH made AS (
            INSERT INTO users (user_id, password_hash, created_ts, admin, user_type, is_guest, app_service_id)
            VALUES (%s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (user_id) DO NOTHING RETURNING user_id
        )
        INSERT INTO profiles (user_id, display_name) SELECT user_id, %s FROM made
        ON CONFLICT (user_id) DO UPDATE SET display_name = EXCLUDED.display_name
        RETURNING user_id
        """,
        (
            user.user_id,
            user.password_hash,
            user.created_ts,
            user.admin,
            user.user_type,
            user.is_guest,
            user.app_service_id,
            user.display_name,
        ),
    )
    if txn.one_or_none() is None:
        return Made(user.user_id, True) if user.session is not None and _is_ours(txn, user.session) else None
    if user.identity is not None:
        external_ids.insert(txn, user.identity, user.user_id)
    registration_proofs.apply(txn, user.user_id, user.password_hash, user.proofs, user.created_ts)
    if user.arrives:
        arrivals.insert(txn, user.user_id)
    user_directory.put(txn, [user_directory.DirectoryUser(user.user_id, user.display_name, None)])
    if user.session is not None:
        insert_session(txn, user.session)
    return Made(user.user_id, True)


def _upgrade_guest(txn: Transaction, guest: GuestToUpgrade) -> devices.Deleted | None:
    user_id, session = guest.user_id, guest.session
    txn.execute(
        "UPDATE users SET is_guest = false, password_hash = %s WHERE user_id = %s AND is_guest RETURNING true",
        (guest.password_hash, user_id),
    )
    if txn.one_or_none() is None:
        return devices.Deleted([], []) if session is not None and _is_ours(txn, session) else None
    registration_proofs.apply(txn, user_id, guest.password_hash, guest.proofs, guest.now)
    if guest.arrives:
        arrivals.insert(txn, user_id)
    if session is None:
        return devices.delete(txn, user_id, None)
    gone = devices.delete_others(txn, user_id, session.device_id, None)
    return gone._replace(tokens=gone.tokens + insert_session(txn, session).tokens)


def _is_ours(txn: Transaction, session: NewSession) -> bool:
    """Whether the account was made by this very request, whose answer was lost: its random token is there."""
    txn.execute(
        "SELECT 1 FROM access_tokens WHERE token_hash = %s AND user_id = %s", (session.token_hash, session.user_id)
    )
    return txn.one_or_none() is not None


def _set_password_hash(txn: Transaction, user_id: str, password_hash: str) -> None:
    txn.execute("UPDATE users SET password_hash = %s WHERE user_id = %s AND NOT deactivated", (password_hash, user_id))


def _set_password_and_log_out(
    txn: Transaction, user_id: str, password_hash: str, keep: Kept | None, stream_id: int
) -> devices.Deleted:
    txn.see_the_latest()
    _set_password_hash(txn, user_id, password_hash)
    if keep is None:
        gone = devices.delete(txn, user_id, None)
    else:
        gone = devices.delete_others(txn, user_id, keep.device_id, keep.token_id)
    return devices.recorded(txn, user_id, gone, stream_id)


def _replace_password_hash(txn: Transaction, user_id: str, old: str, new: str) -> None:
    txn.execute("UPDATE users SET password_hash = %s WHERE user_id = %s AND password_hash = %s", (new, user_id, old))
