"""The services of end-to-end encryption that are about users and not single devices: cross-signing, looking keys up.

A part of the composition root (`hs.encryption`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.handlers.cross_signing import CrossSigning
    from synapse.handlers.key_query import KeyQuery
    from synapse.handlers.key_signatures import KeySignatures
    from synapse.handlers.positions import StreamWriter
    from synapse.storage.cross_signing import CrossSigningStore


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    def stream_writer(self, name: str) -> StreamWriter: ...


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

        return KeySignatures(self.cross_signing_store, self._hs.stream_writer("device_lists"))

    @cached_property
    def key_query(self) -> KeyQuery:
        from synapse.handlers.key_query import KeyQuery
        from synapse.storage.published_keys import PublishedKeyStore

        return KeyQuery(PublishedKeyStore(self._hs.database), self._hs.config.server.server_name)
