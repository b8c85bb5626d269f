"""Who is syncing on this process, told to whoever keeps presence: the main process itself, or over replication.

Long polls follow one another; a device counts as syncing until it has not asked for a while, so that presence hears
of it when it comes and when it goes, and not with each request.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple

from synapse.api.constants import Presence
from synapse.util.clock import Clock

LINGER: Final = 10.0
"""Seconds after its last sync until a device is reported as gone."""


class SyncingDevice(NamedTuple):
    """A device that syncs; the same user may have several."""

    user_id: str
    device_id: str | None


Announce = Callable[[SyncingDevice, str, bool], None]
"""(device, presence, whether it is there)."""


class _Seen:
    __slots__ = ("last", "open", "presence")

    def __init__(self, presence: str) -> None:
        self.presence = presence
        self.open = 0
        self.last = 0.0


class SyncingUsers:
    """Counts open syncs. `announce` is None where presence is switched off, and then nothing is kept."""

    def __init__(self, announce: Announce | None, clock: Clock) -> None:
        self._announce = announce
        self._clock = clock
        self._devices: dict[SyncingDevice, _Seen] = {}
        self._sweeping = False

    def syncing(self, user_id: str, device_id: str | None, presence: str) -> Syncing:
        """A context for the time of one sync; `presence` is what the client wants to be seen as."""
        return Syncing(self, SyncingDevice(user_id, device_id), presence)

    def present(self) -> dict[SyncingDevice, str]:
        """Everybody who syncs here, and as what; for telling anew after a connection was lost."""
        return {device: seen.presence for device, seen in self._devices.items()}

    def begin(self, device: SyncingDevice, presence: str) -> None:
        if self._announce is None or presence == Presence.OFFLINE:
            return
        seen = self._devices.get(device)
        if seen is None or seen.presence != presence:
            if seen is None:
                seen = self._devices[device] = _Seen(presence)
            seen.presence = presence
            self._announce(device, presence, True)
        seen.open += 1
        if not self._sweeping:
            self._sweeping = True
            self._clock.callLater(LINGER / 2, self._sweep)

    def end(self, device: SyncingDevice, presence: str) -> None:
        seen = self._devices.get(device)
        if seen is not None and presence != Presence.OFFLINE:
            seen.open = max(0, seen.open - 1)
            seen.last = self._clock.seconds()

    def _sweep(self) -> None:
        limit = self._clock.seconds() - LINGER
        for device, seen in list(self._devices.items()):
            if not seen.open and seen.last <= limit:
                del self._devices[device]
                if self._announce is not None:
                    self._announce(device, seen.presence, False)
        self._sweeping = bool(self._devices)
        if self._sweeping:
            self._clock.callLater(LINGER / 2, self._sweep)


class Syncing:
    """The time of one sync."""

    __slots__ = ("_device", "_presence", "_users")

    def __init__(self, users: SyncingUsers, device: SyncingDevice, presence: str) -> None:
        self._users = users
        self._device = device
        self._presence = presence

    def __enter__(self) -> None:
        self._users.begin(self._device, self._presence)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._users.end(self._device, self._presence)
