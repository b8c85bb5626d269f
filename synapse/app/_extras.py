"""Services of accounts that stand by themselves: key backups.

A part of the composition root (`hs.extras`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.handlers.key_backup import KeyBackups


class Extras:
    """One lazily built attribute per service."""

    def __init__(self, hs: Base) -> None:
        self._hs = hs

    @cached_property
    def key_backups(self) -> KeyBackups:
        """In the main process."""
        from synapse.handlers.key_backup import KeyBackups
        from synapse.storage.key_backups import KeyBackupStore

        return KeyBackups(KeyBackupStore(self._hs.database))
