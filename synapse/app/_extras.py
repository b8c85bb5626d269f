"""Services of accounts that stand by themselves: key backups, dehydrated devices, OpenID tokens.

A part of the composition root (`hs.extras`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base, in_thread

if TYPE_CHECKING:
    from synapse.app._accounts import Accounts
    from synapse.handlers.dehydrated_devices import DehydratedDevices
    from synapse.handlers.key_backup import KeyBackups
    from synapse.handlers.openid import OpenId
    from synapse.handlers.positions import StreamWriter
    from synapse.util.repeating import Repeating

HOUR_SECONDS = 3600.0


class Foundation(Base, Protocol):
    """What these services stand on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    def stream_writer(self, name: str) -> StreamWriter:
        """The writing end of a stream; in a worker, one that refuses."""


class Extras:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs

    @cached_property
    def key_backups(self) -> KeyBackups:
        """In the main process."""
        from synapse.handlers.key_backup import KeyBackups
        from synapse.storage.key_backups import KeyBackupStore

        return KeyBackups(KeyBackupStore(self._hs.database), in_thread)

    @cached_property
    def dehydrated_devices(self) -> DehydratedDevices:
        """In the main process."""
        from synapse.handlers.dehydrated_devices import DehydratedDevices
        from synapse.storage.dehydrated_devices import DehydratedDeviceStore

        hs, accounts = self._hs, self._hs.accounts
        return DehydratedDevices(
            DehydratedDeviceStore(hs.database),
            accounts.to_device_store,
            accounts.devices,
            accounts.device_changes,
            accounts.authenticator,
            hs.stream_writer("device_lists"),
            hs.reactor,
        )

    @cached_property
    def openid(self) -> OpenId:
        from synapse.handlers.openid import OpenId
        from synapse.storage.openid import OpenIdStore

        hs = self._hs
        return OpenId(OpenIdStore(hs.database), hs.reactor, hs.config.server.server_name)

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main:
            return []
        return [Repeating(self._hs.reactor, HOUR_SECONDS, "Forgetting old OpenID tokens", self.openid.forget_old)]
