"""Access tokens: whose they are, and making and revoking them together with their devices.

Only the SHA-256 of a token is stored, so that a copy of the database lets nobody in. What a token looks like and which
answers a bad one gets is `synapse.handlers.auth`'s matter, and so is the cache in front of `lookup`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from synapse.api.standing import Standing
from synapse.storage import refresh_tokens
from synapse.storage.new_devices import insert_device
from synapse.storage.refresh_tokens import NewRefreshToken

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """What a token stands for, and the standing of its user."""

    token_id: int
    user_id: str
    device_id: str | None
    expires_ts: int | None
    unused_refresh_token: int | None  # the one that it was given out with, while neither of them has been used
    app_service_id: str | None  # of the application service that acts for the user
    is_guest: bool
    admin: bool
    deactivated: bool
    standing: Standing


class ProviderSession(NamedTuple):
    """A session at an identity provider; those that came of it here end with it (`synapse.storage.sso_devices`)."""

    auth_provider: str
    session: str


class NewSession(NamedTuple):
    """A token to be stored, and the device that it belongs to (None: a token without a device)."""

    user_id: str
    token_hash: bytes
    device_id: str | None
    device_name: str | None
    created_ts: int
    expires_ts: int | None = None
    refresh: NewRefreshToken | None = None
    provider_session: ProviderSession | None = None  # that it came of


class Login(NamedTuple):
    """What storing a session did: whether the device is new, and the tokens that it had before (now revoked)."""

    new_device: bool
    tokens: list[bytes]


# Of what happens to one device at the same time, one begins anew and sees what the other did: a lock alone would not
# show it the tokens that the other made.
_TOUCH_DEVICE = "UPDATE devices SET created_ts = created_ts WHERE user_id = %s AND device_id = %s"


class AccessTokenStore:
    """Reads and writes access tokens. Every method that revokes returns the hashes of the tokens that are gone."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def lookup(self, token_hash: bytes) -> TokenOwner | None:
        return await self._db.read("access_tokens.lookup", _lookup, token_hash)

    async def login(self, session: NewSession, password_hash: str | None = None) -> Login | None:
        """Stores a token, making its device if it is new; the device's earlier tokens are revoked.

        None, and nothing done, if the user is gone or deactivated, or has another password than the one that was
        checked. Raises `DeviceIdTaken`.
        """
        return await self._db.write("access_tokens.login", _login, session, password_hash)

    async def assert_identity(
        self, token_hash: bytes, user_id: str, device_id: str | None, app_service_id: str, now: int
    ) -> bool:
        """Stores what stands for an application service that acts as a user; False where there is no such device."""
        return await self._db.write(
            "access_tokens.assert_identity", _assert_identity, token_hash, user_id, device_id, app_service_id, now
        )

    async def revoke_deviceless(self, token_id: int) -> list[bytes]:
        """Revokes one token that has no device; those that have one go with it (`DeviceStore.delete`)."""
        return await self._db.write("access_tokens.revoke", _revoke, token_id)

    async def forget_expired(self, before: int) -> None:
        """Drops tokens without a device that expired before that time (milliseconds). Those of devices stay, so that
        their clients hear that the device is still there."""
        await self._db.write("access_tokens.forget_expired", _forget_expired, before)


def _login(txn: Transaction, session: NewSession, password_hash: str | None) -> Login | None:
    # Whoever ends the sessions of a user for good changes this row, and waits for the lock, or has this begin anew.
    txn.execute(
        "SELECT FROM users WHERE user_id = %s AND NOT deactivated AND password_hash IS NOT DISTINCT FROM"
        " COALESCE(%s, password_hash) FOR SHARE",
        (session.user_id, password_hash),
    )
    return None if txn.one_or_none() is None else insert_session(txn, session)


def insert_session(txn: Transaction, session: NewSession) -> Login:
    """Writes device and token; for stores that do it within a transaction of their own."""
    new_device, revoked = False, []
    if session.device_id is not None:
        name, now = session.device_name, session.created_ts
        new_device = insert_device(txn, session.user_id, session.device_id, name, now)
        if not new_device:
            revoked = _revoke_of_device(txn, session.user_id, session.device_id)
        if session.provider_session is not None:
            txn.later(
                "INSERT INTO sso_devices (user_id, device_id, auth_provider, provider_session) VALUES (%s, %s, %s, %s)",
                (session.user_id, session.device_id, *session.provider_session),
            )
    _insert_tokens(txn, session)
    return Login(new_device, revoked)


def _insert_tokens(txn: Transaction, session: NewSession) -> None:
    token = (session.token_hash, session.user_id, session.device_id, session.created_ts, session.expires_ts)
    if session.refresh is None:
        txn.later(
            "INSERT INTO access_tokens (token_hash, user_id, device_id, created_ts, expires_ts)"
            " VALUES (%s, %s, %s, %s, %s)",
            token,
        )
        return
    txn.later(
        """
        WITH made AS (
            INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_ts, session_expires_ts)
            VALUES (%s, %s, %s, %s, %s) RETURNING id
        )
        INSERT INTO access_tokens (token_hash, user_id, device_id, created_ts, expires_ts, refresh_token_id)
        SELECT %s, %s, %s, %s, %s, id FROM made
        """,
        (
            *(session.refresh.token_hash, session.user_id, session.device_id),
            *(session.refresh.expires_ts, session.refresh.session_expires_ts),
            *token,
        ),
    )


def _lookup(txn: Transaction, token_hash: bytes) -> TokenOwner | None:
    txn.execute(
        """
        SELECT t.id, t.user_id, t.device_id, t.expires_ts, r.id, t.app_service_id, u.is_guest, u.admin, u.deactivated,
            u.locked, u.suspended, u.created_ts, u.user_type, u.consent_version, u.valid_until_ts
        FROM access_tokens t JOIN users u USING (user_id)
        LEFT JOIN refresh_tokens r ON r.id = t.refresh_token_id AND NOT r.used
        WHERE t.token_hash = %s
        """,
        (token_hash,),
    )
    row = txn.one_or_none()
    return None if row is None else TokenOwner(*(*row[:9], Standing(*row[9:])))


def _assert_identity(
    txn: Transaction, token_hash: bytes, user_id: str, device_id: str | None, app_service_id: str, now: int
) -> bool:
    if device_id is not None:
        txn.execute(f"{_TOUCH_DEVICE} RETURNING true", (user_id, device_id))
        if txn.one_or_none() is None:
            return False
    txn.execute(
        """
        INSERT INTO access_tokens (token_hash, user_id, device_id, app_service_id, created_ts)
        VALUES (%s, %s, %s, %s, %s) ON CONFLICT (token_hash) DO NOTHING
        """,
        (token_hash, user_id, device_id, app_service_id, now),
    )
    return True


def _revoke_of_device(txn: Transaction, user_id: str, device_id: str) -> list[bytes]:
    txn.later(_TOUCH_DEVICE, (user_id, device_id))
    refresh_tokens.delete_of_devices(txn, user_id, [device_id])
    # What was proven in the session before, or by whom it was vouched for, is not so of this one.
    txn.later("DELETE FROM fresh_authentications WHERE user_id = %s AND device_id = %s", (user_id, device_id))
    txn.later("DELETE FROM sso_devices WHERE user_id = %s AND device_id = %s", (user_id, device_id))
    txn.execute(
        "DELETE FROM access_tokens WHERE user_id = %s AND device_id = %s RETURNING token_hash", (user_id, device_id)
    )
    return hashes(txn)


def _revoke(txn: Transaction, token_id: int) -> list[bytes]:
    txn.execute(_without_device("id = %s"), (token_id,))
    return hashes(txn)


def _without_device(condition: str) -> str:
    """Deletes tokens that have no device, and the pushers that were made with them; returns the tokens' hashes."""
    return f"""
        WITH gone AS (
            DELETE FROM access_tokens WHERE device_id IS NULL AND {condition} RETURNING id, user_id, token_hash
        ), pushers_gone AS (
            DELETE FROM pushers USING gone WHERE pushers.user_id = gone.user_id AND pushers.token_id = gone.id
        )
        SELECT token_hash FROM gone
    """


def hashes_of(txn: Transaction, user_id: str) -> list[bytes]:
    """All tokens of a user, so that what is cached of them can be forgotten.

    For transactions that `see_the_latest`, and have changed the row of the user: a login is before that or after it.
    """
    txn.execute("SELECT token_hash FROM access_tokens WHERE user_id = %s", (user_id,))
    return hashes(txn)


def hashes(txn: Transaction) -> list[bytes]:
    """The token hashes that the statement returned; psycopg2 hands bytea out as memoryview."""
    return [bytes(token_hash) for (token_hash,) in txn.rows()]


def _forget_expired(txn: Transaction, before: int) -> None:
    txn.execute(_without_device("expires_ts < %s"), (before,))
