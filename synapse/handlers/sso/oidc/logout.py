"""Logging out at the provider logs out here: the devices that came of the session there.

OpenID Connect Back-Channel Logout 1.0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from synapse.api.errors import invalid_param
from synapse.handlers.sso.types import SsoRefused
from synapse.storage.external_ids import ExternalId

if TYPE_CHECKING:
    from synapse.handlers.devices import Devices
    from synapse.handlers.sso.oidc.provider import OidcProvider
    from synapse.storage.external_ids import ExternalIdStore
    from synapse.storage.sso_devices import SsoDeviceStore

logger = logging.getLogger(__name__)


class BackChannelLogout:
    """Ends the sessions that providers say have ended. In the main process.

    :param providers: those that may say so.
    """

    def __init__(
        self,
        providers: Iterable[OidcProvider],
        sessions: SsoDeviceStore,
        identities: ExternalIdStore,
        devices: Devices,
    ) -> None:
        self._providers = [provider for provider in providers if provider.logs_out]
        self._sessions = sessions
        self._identities = identities
        self._devices = devices

    async def log_out(self, token: str) -> None:
        """Raises 400 M_INVALID_PARAM for a logout token that is none of any provider's."""
        for provider in self._providers:
            try:
                ended = await provider.logged_out(token)
            except SsoRefused as refused:
                logger.warning("A logout token of %s is not believed: %s", provider.id, refused)
                continue
            if ended is not None:
                await self._end(provider.id, *ended)
                return
        raise invalid_param("The 'logout_token' is not known to be of an identity provider of this server.")

    async def _end(self, provider_id: str, session: str, subject: str | None) -> None:
        owner = None if subject is None else await self._identities.owner(ExternalId(provider_id, subject))
        for user_id, device_id in await self._sessions.end(provider_id, session):
            if subject is not None and user_id != owner:
                logger.warning("%s ends a session of another user than %s; %s stays", provider_id, owner, device_id)
                continue
            logger.info("%s is logged out of %s, as %s says", user_id, device_id, provider_id)
            await self._devices.delete(user_id, [device_id])
