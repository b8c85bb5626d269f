"""Duties that nobody performs: the configuration hands them to a worker, and no such worker runs.

Nothing else would tell the administrator: what is to be sent waits in the database, and requests are answered.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from synapse.replication.leases import key_of

logger = logging.getLogger(__name__)

PAUSE: Final = 60.0
"""Seconds between two looks. A duty that is vacant at two of them is not just changing hands."""


class Locks(Protocol):
    """See `synapse.storage.locks`."""

    async def held(self, keys: Collection[int]) -> set[int]: ...


class Vacancies:
    """Looks after the leases of duties.

    :param remedies: by duty, what an administrator can do who reads that nobody performs it.
    """

    def __init__(self, locks: Locks, remedies: Mapping[str, str]) -> None:
        self._locks = locks
        self._remedies = remedies
        self._seen: set[str] = set()
        self._told: set[str] = set()

    async def look(self) -> None:
        """Log a warning of what is vacant for the second time, and once more when that has ended."""
        held = await self._locks.held([key_of(name) for name in self._remedies])
        vacant = {name for name in self._remedies if key_of(name) not in held}
        for name in sorted(vacant & self._seen - self._told):
            logger.warning("No process performs the duty '%s': %s", name, self._remedies[name])
        for name in sorted(self._told - vacant):
            logger.info("A process performs the duty '%s' now", name)
        self._told = (self._told | self._seen) & vacant
        self._seen = vacant
