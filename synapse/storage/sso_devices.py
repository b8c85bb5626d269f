"""Which devices came of which session at an identity provider, so that they end with it: the table `sso_devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class SsoDeviceStore:
    """Reads and writes it, in any process. Devices that are deleted take their rows with them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def note(self, user_id: str, device_id: str, provider: str, session: str) -> None:
        """The device has been logged in by this session, whatever it was logged in by before."""
        await self._db.write_idempotent("sso_devices.note", _note, user_id, device_id, provider, session)

    async def end(self, provider: str, session: str) -> list[tuple[str, str]]:
        """Users and devices of the session. Login tokens that came of it are void from now on."""
        return await self._db.write("sso_devices.end", _end, provider, session)


def _note(txn: Transaction, user_id: str, device_id: str, provider: str, session: str) -> None:
    txn.execute(
        """
        INSERT INTO sso_devices (user_id, device_id, auth_provider, provider_session) VALUES (%s, %s, %s, %s)
        ON CONFLICT (user_id, device_id) DO UPDATE
        SET auth_provider = EXCLUDED.auth_provider, provider_session = EXCLUDED.provider_session
        """,
        (user_id, device_id, provider, session),
    )


def _end(txn: Transaction, provider: str, session: str) -> list[tuple[str, str]]:
    which = (provider, session)
    txn.later("DELETE FROM login_tokens WHERE auth_provider = %s AND provider_session = %s", which)
    txn.execute("SELECT user_id, device_id FROM sso_devices WHERE auth_provider = %s AND provider_session = %s", which)
    return [(user_id, device_id) for user_id, device_id in txn.rows()]
