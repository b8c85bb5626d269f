"""The outbox of messages between devices. Server-server API, "Send-to-device messaging"."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import orjson

from synapse.api.constants import EduTypes
from synapse.federation.outboxes import Waiting, Wake, encoded

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.storage.to_device_outbox import ToDeviceOutboxStore


class ToDeviceOutbox:
    """Reads what the main process has written, wherever the sender is."""

    most: Final = 50
    """EDUs in one transaction: each may have 64 KiB."""

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

    async def waiting(self, destinations: Collection[str]) -> dict[str, list[Waiting]]:
        """What comes next for each server, in order. Marks are message ids. One statement."""
        found: dict[str, list[Waiting]] = {}
        for each in await self._store.waiting(destinations, self.most):
            edu = encoded(EduTypes.DIRECT_TO_DEVICE, orjson.loads(each.content))
            found.setdefault(each.destination, []).append(Waiting(edu, each.message_id))
        return found

    async def sent(self, marks: Mapping[str, Sequence[str]]) -> None:
        """These servers have these; they are deleted. One statement."""
        await self._store.delete([(server, message_id) for server, each in marks.items() for message_id in each])

    def _learn(self, _position: int, rows: Rows) -> None:
        # Users begin with "@": those are for devices of this server.
        if self._wake is not None and (servers := {row for _, row in rows if not row.startswith("@")}):
            self._wake(servers)
