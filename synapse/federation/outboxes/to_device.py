"""The outbox of messages between devices. Server-server API, "Send-to-device messaging"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from synapse.api.constants import EduTypes
from synapse.federation.outboxes import PendingEdu, Wake

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.storage.to_device_outbox import ToDeviceOutboxStore


class ToDeviceOutbox:
    """Reads what the main process has written, wherever the sender is."""

    def __init__(self, store: ToDeviceOutboxStore, notifier: Notifier) -> None:
        self._store = store
        self._wake: Wake | None = None
        notifier.subscribe("to_device", self._learn)

    async def begin(self, wake: Wake) -> None:
        """From now on, `wake` hears of what is new."""
        self._wake = wake

    def end(self) -> None:
        """Nobody sends any more."""
        self._wake = None

    async def destinations(self) -> set[str]:
        """The servers for which there is something."""
        return await self._store.destinations()

    async def pending(self, destination: str, limit: int) -> list[PendingEdu]:
        """Their marks are message ids."""
        waiting = await self._store.waiting(destination, limit)
        return [PendingEdu(EduTypes.DIRECT_TO_DEVICE, orjson.loads(each.content), each.message_id) for each in waiting]

    async def sent(self, destination: str, marks: Sequence[str]) -> None:
        """The server has these; they are deleted."""
        await self._store.delete(destination, marks)

    def _learn(self, _position: int, rows: Rows) -> None:
        # Users begin with "@": those are for devices of this server.
        if self._wake is not None and (servers := {row for _, row in rows if not row.startswith("@")}):
            self._wake(servers)
