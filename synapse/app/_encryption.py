"""The services of end-to-end encryption that are about users and not single devices: cross-signing, looking keys up;
and messages between devices.

A part of the composition root (`hs.encryption`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from collections.abc import Collection

    from synapse.app._accounts import Accounts
    from synapse.handlers.cross_signing import CrossSigning
    from synapse.handlers.edus.asking import TheirKeys
    from synapse.handlers.key_query import KeyQuery
    from synapse.handlers.key_signatures import KeySignatures
    from synapse.handlers.positions import StreamWriter
    from synapse.handlers.to_device import ToDevice
    from synapse.http.ratelimit import RateLimits
    from synapse.storage.cross_signing import CrossSigningStore
    from synapse.util.repeating import Repeating

HOUR_SECONDS: Final = 3600.0


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def ratelimits(self) -> RateLimits: ...

    @property
    def their_keys(self) -> TheirKeys:
        """Keys of other servers' users."""

    def stream_writer(self, name: str) -> StreamWriter: ...

    async def ignorers(self, user_ids: Collection[str], sender: str) -> Collection[str]:
        """Those of the users who ignore the sender."""


class Encryption:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._clock = hs.reactor

    @cached_property
    def cross_signing_store(self) -> CrossSigningStore:
        from synapse.storage.cross_signing import CrossSigningStore

        return CrossSigningStore(self._hs.database)

    @cached_property
    def cross_signing(self) -> CrossSigning:
        """In the main process."""
        from synapse.handlers.cross_signing import CrossSigning

        return CrossSigning(self.cross_signing_store, self._hs.stream_writer("device_lists"), self._clock)

    @cached_property
    def key_signatures(self) -> KeySignatures:
        """In the main process."""
        from synapse.handlers.key_signatures import KeySignatures

        hs = self._hs
        stream, server_name = hs.stream_writer("device_lists"), hs.config.server.server_name
        return KeySignatures(self.cross_signing_store, stream, hs.their_keys, server_name)

    @cached_property
    def key_query(self) -> KeyQuery:
        from synapse.handlers.key_query import KeyQuery
        from synapse.storage.published_keys import PublishedKeyStore

        hs = self._hs
        return KeyQuery(PublishedKeyStore(hs.database), hs.their_keys, hs.config.server.server_name)

    @cached_property
    def to_device(self) -> ToDevice:
        from synapse.handlers.to_device import ToDevice

        hs = self._hs
        return ToDevice(
            hs.accounts.to_device_store,
            hs.stream_writer("to_device"),
            hs.main,
            hs.ignorers,
            hs.ratelimits,
            self._clock,
            hs.config.server.server_name,
        )

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main:
            return []
        return [Repeating(self._clock, HOUR_SECONDS, "Forgetting what devices did", self._forget_old)]

    async def _forget_old(self) -> None:
        await self.to_device.forget_old_txns()
        await self._hs.accounts.keys.forget_claimed()
        await self._hs.accounts.device_changes.forget_old()
