"""Who is online: kept by the main process from who syncs where, who does something, and what people say of
themselves.

A user is as present as the most present of their devices. Somebody who is online but has done nothing for a while is
idle (`unavailable`); somebody whose devices have stopped syncing is gone (`offline`). Only changes are written, so a
room full of people who do nothing costs nothing. Times are those of the clock; a restart takes up what the table says
and gives everybody a moment to come back.

Client-server API, "Presence".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.internet.defer import Deferred

from synapse.api.constants import Presence
from synapse.api.identifiers import domain_of
from synapse.handlers.presence_calls import SET, SHOW, SetPresence
from synapse.replication.event_rows import EventRow, Row
from synapse.storage.errors import DatabaseClosed
from synapse.storage.presence import PresenceState
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.handlers.positions import StreamWriter
    from synapse.handlers.syncing_users import SyncingDevice
    from synapse.replication.calls import MainProcess
    from synapse.storage.presence import PresenceStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

SYNC_GRACE: Final = 30.0
"""Seconds after the last sync until a device is gone."""
IDLE_AFTER: Final = 5 * 60.0
"""Seconds without activity until an online user is idle."""
CURRENTLY_ACTIVE: Final = 60.0
"""Seconds after an activity during which a user counts as currently active."""
_SWEEP: Final = 5.0
_MAX_NOTED: Final = 10_000

_RANK: Final = {Presence.OFFLINE: 0, Presence.UNAVAILABLE: 1, Presence.ONLINE: 2}


class _Word(NamedTuple):
    """In a user's devices: what this one has said that the user is, which is believed even if it never syncs."""

    device_id: str | None


@dataclass(slots=True)
class _Device:
    presence: str
    until: float | None  # None while it syncs; else when it is gone


@dataclass(slots=True)
class _User:
    """What is known of a user who is not offline."""

    state: PresenceState
    last_active: float
    said: str | None = None  # what the user said last; until they sync or do something
    knows_status: bool = False  # else the status message in the table holds
    devices: dict[object, _Device] = field(default_factory=dict)


@dataclass(slots=True)
class _Change:
    """A state that is to be written, and who waits for that."""

    state: PresenceState
    keep_status: bool
    is_note: bool = False  # only when somebody who is offline was active last, which others are not told
    waiting: list[Deferred[None]] = field(default_factory=list)


class PresenceKeeper:
    """Keeps presence; for the main process.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self, store: PresenceStore, stream: StreamWriter, main: MainProcess, clock: Clock, server_name: str
    ) -> None:
        self._store = store
        self._stream = stream
        self._clock = clock
        self._server_name = server_name
        self._users: dict[str, _User] = {}
        self._noted: dict[str, float] = {}  # when those who are offline were last noted to be active
        self._dirty: dict[str, _Change] = {}
        self._writing = False
        self._sweeping = False
        main.expose(SET, self._set)
        main.expose(SHOW, self._show)

    async def start(self) -> None:
        """Takes up what the last main process left."""
        until = self._clock.seconds() + SYNC_GRACE
        for state in await self._store.not_offline():
            if domain_of(state.user_id) != self._server_name:
                continue  # other servers' users are kept elsewhere (`edus.presence`)
            user = _User(state, state.last_active_ts / 1000, knows_status=True)
            user = self._users.setdefault(state.user_id, user)
            user.devices.setdefault(None, _Device(state.state, until))
        self._keep_sweeping()

    def device_syncs(self, process: str, device: SyncingDevice, presence: str, there: bool) -> None:
        """A device began to sync on a process, or has stopped to."""
        user = self._user(device.user_id)
        key = (process, device.device_id)
        if there:
            if presence == Presence.ONLINE:
                user.said = None
                if user.state.state == Presence.OFFLINE:
                    user.last_active = self._clock.seconds()
            elif user.devices.pop(_Word(device.device_id), None) and user.said == Presence.ONLINE:
                user.said = None  # it was online, and says now that it is idle
            user.devices[key] = _Device(presence, None)
        elif key in user.devices:
            user.devices[key].until = self._clock.seconds() + SYNC_GRACE
        self._settle(device.user_id, user)

    def process_gone(self, process: str) -> None:
        """Nothing will be heard of the devices that synced there, until they sync elsewhere."""
        until = self._clock.seconds() + SYNC_GRACE
        for user in self._users.values():
            for key, device in user.devices.items():
                if isinstance(key, tuple) and key[0] == process and device.until is None:
                    device.until = until

    def active(self, user_id: str) -> None:
        """The user did something, such as sending a message. Who does so without syncing stays offline."""
        user = self._users.get(user_id)
        if user is not None:
            user.last_active = self._clock.seconds()
            if user.said == Presence.UNAVAILABLE:
                user.said = None
            self._settle(user_id, user)
        elif domain_of(user_id) == self._server_name:
            self._note(user_id)

    def _note(self, user_id: str) -> None:
        """Has written when somebody who is offline was active last, now and then."""
        now = self._clock.seconds()
        if now - self._noted.get(user_id, 0.0) >= CURRENTLY_ACTIVE:
            if len(self._noted) >= _MAX_NOTED:
                self._noted = {each: at for each, at in self._noted.items() if now - at < CURRENTLY_ACTIVE}
            self._noted[user_id] = now
            state = PresenceState(user_id, Presence.OFFLINE, None, int(now * 1000), False)
            self._dirty.setdefault(user_id, _Change(state, True, is_note=True))
            self._begin_to_write()

    def learn(self, rows: Iterable[Row]) -> None:
        """Rows of the events stream: who sends something is active."""
        for row in rows:
            if isinstance(row, EventRow):
                self.active(row.sender)

    async def _set(self, setting: SetPresence) -> None:
        user = self._user(setting.user_id)
        now = self._clock.seconds()
        user.said = setting.presence
        if setting.presence == Presence.ONLINE:
            user.last_active = now
        # Who only ever says so, without syncing, is believed for as long as somebody idle.
        user.devices[_Word(setting.device_id)] = _Device(setting.presence, now + IDLE_AFTER)
        user.knows_status = True
        state = user.state._replace(status_msg=setting.status_msg)
        written: Deferred[None] = Deferred()
        if self._settle(setting.user_id, user, state, written):
            await written  # who has said so may read it

    async def _show(self, user_id: str) -> None:
        user, now = self._users.get(user_id), self._clock.seconds()
        if user is None:
            self._noted[user_id] = now
            self._change(PresenceState(user_id, Presence.OFFLINE, None, int(now * 1000), False), True, None)
            return
        user.last_active = now
        if not self._settle(user_id, user):
            user.state = user.state._replace(last_active_ts=int(user.last_active * 1000))
            self._change(user.state, not user.knows_status, None)

    def last_active_ts(self, user_id: str) -> int | None:
        """Milliseconds; None for who has done nothing lately. The table knows it only as of the last change."""
        user = self._users.get(user_id)
        seconds = self._noted.get(user_id) if user is None else user.last_active
        return None if seconds is None else int(seconds * 1000)

    # ------------------------------------------------------------------------------------------------------------

    def _user(self, user_id: str) -> _User:
        user = self._users.get(user_id)
        if user is None:
            state = PresenceState(user_id, Presence.OFFLINE, None, int(self._clock.seconds() * 1000), False)
            user = self._users[user_id] = _User(state, self._clock.seconds())
        self._keep_sweeping()
        return user

    def _settle(
        self, user_id: str, user: _User, state: PresenceState | None = None, written: Deferred[None] | None = None
    ) -> bool:
        """Works out how present the user is; True if that changed and is being written, which calls `written` back."""
        now = self._clock.seconds()
        user.devices = {k: d for k, d in user.devices.items() if d.until is None or d.until > now}
        presence = max((d.presence for d in user.devices.values()), key=_RANK.__getitem__, default=Presence.OFFLINE)
        if user.said is not None and user.devices:
            presence = user.said
        if presence == Presence.ONLINE and now - user.last_active >= IDLE_AFTER:
            presence = Presence.UNAVAILABLE
        active = presence == Presence.ONLINE and now - user.last_active < CURRENTLY_ACTIVE
        state = (state or user.state)._replace(state=presence, currently_active=active)
        changed = state != user.state
        if changed:
            user.state = state._replace(last_active_ts=int(user.last_active * 1000))
            self._change(user.state, not user.knows_status, written)
        if presence == Presence.OFFLINE and not user.devices:
            self._users.pop(user_id, None)
        return changed

    def _change(self, state: PresenceState, keep_status: bool, written: Deferred[None] | None) -> None:
        """Has a state written, instead of an earlier one that still is to be."""
        change = self._dirty.get(state.user_id)
        if change is None:
            change = self._dirty[state.user_id] = _Change(state, keep_status)
        else:
            change.state, change.keep_status, change.is_note = state, keep_status, False
        if written is not None:
            change.waiting.append(written)
        self._begin_to_write()

    def _begin_to_write(self) -> None:
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write())

    def _keep_sweeping(self) -> None:
        if self._users and not self._sweeping:
            self._sweeping = True
            self._clock.callLater(_SWEEP, self._sweep)

    def _sweep(self) -> None:
        for user_id, user in list(self._users.items()):
            self._settle(user_id, user)
        self._sweeping = False
        self._keep_sweeping()

    async def _write(self) -> None:
        """Writes what changed, one after another; what changes meanwhile comes at the end."""
        try:
            while self._dirty:
                user_id = next(iter(self._dirty))
                change = self._dirty.pop(user_id)
                try:
                    await self._write_one(change)
                except DatabaseClosed:
                    return  # this process is ending, and the next one finds out anew who is there
                except Exception as error:
                    log_failure(logger, error, "The presence of %s could not be written", user_id)
                for waiting in change.waiting:
                    waiting.callback(None)
        finally:
            self._writing = False

    async def _write_one(self, change: _Change) -> None:
        if change.is_note:
            await self._store.note(change.state.user_id, change.state.last_active_ts)
        else:
            await self._append(change.state, change.keep_status)

    async def _append(self, state: PresenceState, keep_status: bool) -> None:
        await self._stream.append(
            lambda position: self._store.put(state, position, keep_status), lambda _: [state.user_id]
        )
