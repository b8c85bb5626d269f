"""Which devices came of which session at an identity provider, so that they end with it: the table `sso_devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class SsoDeviceStore:
    """Reads it, in any process. It is written with the session (`access_tokens`); devices take their rows with them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def end(self, provider: str, session: str) -> list[tuple[str, str]]:
        """Users and devices of the session. Login tokens that came of it are void from now on."""
        return await self._db.write("sso_devices.end", _end, provider, session)


def _end(txn: Transaction, provider: str, session: str) -> list[tuple[str, str]]:
    which = (provider, session)
    txn.later("DELETE FROM login_tokens WHERE auth_provider = %s AND provider_session = %s", which)
    txn.execute("SELECT user_id, device_id FROM sso_devices WHERE auth_provider = %s AND provider_session = %s", which)
    return [(user_id, device_id) for user_id, device_id in txn.rows()]
