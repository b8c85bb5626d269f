"""From where and when devices were last seen: remembered for a moment, and written in batches.

A request costs a look into a table in memory. The main process writes what it and the workers have gathered,
every few seconds; workers hand theirs over on the replication connection. What a crash loses is those seconds.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from synapse.storage.user_ips import Seen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.http.request import Requester
    from synapse.util.clock import Clock

FRESH_MS: Final = 120_000
"""A sighting of the same device, address and agent is not news for so long."""

FLUSH_SECONDS: Final = 5.0
"""How often a process hands over what it has gathered. No device is news more often than `FRESH_MS` says."""

MAX_WAITING: Final = 20_000
MAX_FRESH: Final = 20
"""With how many addresses and agents a device is news within `FRESH_MS`; clients choose their agents themselves."""

MAX_AGENT: Final = 300  # characters


class UserIps:
    """Gathers sightings.

    :param deliver: takes a batch: writes it (main process) or sends it there (workers).
    :param app_services: whether it also gathers what application services do for their users.
    """

    def __init__(
        self, deliver: Callable[[list[Seen]], Awaitable[None]], clock: Clock, *, app_services: bool = False
    ) -> None:
        self._deliver = deliver
        self._app_services = app_services
        self._clock = clock
        self._told: dict[tuple[str, str, str, str], int] = {}
        self._fresh: Counter[tuple[str, str]] = Counter()  # of each device, how many of those
        self._waiting: dict[tuple[str, str, str, str], int] = {}

    def note(self, requester: Requester, ip: str, user_agent: str) -> None:
        """A device was seen just now."""
        if requester.app_service is not None and not self._app_services:
            return
        now = int(self._clock.seconds() * 1000)
        key = (requester.user_id, requester.device_id or "", ip, _storable(user_agent))
        told = self._told.get(key)
        if told is not None and told + FRESH_MS > now:
            return
        if len(self._waiting) >= MAX_WAITING or self._fresh[key[:2]] >= MAX_FRESH:
            return
        self._told[key] = self._waiting[key] = now
        self._fresh[key[:2]] += told is None

    def add(self, sightings: list[Seen]) -> None:
        """Sightings that a worker has handed over."""
        for user_id, device_id, ip, agent, at in sightings:
            key = (user_id, device_id, ip, agent)
            # Workers hand over each in its time: the last word need not be the latest.
            self._waiting[key] = max(at, self._waiting.get(key, 0))

    async def flush(self) -> None:
        """Delivers what waits. If that fails, it waits for the next time."""
        batch = [Seen(*key, at) for key, at in self._waiting.items()]
        self._waiting = {}
        self._forget_old()
        if not batch:
            return
        try:
            await self._deliver(batch)
        except Exception:
            self.add(batch)
            raise

    def _forget_old(self) -> None:
        oldest = int(self._clock.seconds() * 1000) - FRESH_MS
        self._told = {key: at for key, at in self._told.items() if at > oldest}
        self._fresh = Counter(key[:2] for key in self._told)


def _storable(agent: str) -> str:
    return agent.replace("\x00", "")[:MAX_AGENT]
