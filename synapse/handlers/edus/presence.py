"""The presence of other servers' users, as those tell it: checked by any process, kept by the main process.

Only users who share a room with somebody here are kept. Who was not heard of for half an hour is taken to be offline:
their server says so more often if they are not. What changes nothing is not written.

Server-server API, "Presence".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from synapse.api.constants import MAX_INT, Presence
from synapse.api.errors import MatrixError, invalid_param, too_large
from synapse.api.identifiers import domain_of
from synapse.handlers.edus.parsing import own_user
from synapse.handlers.presence_calls import MAX_STATUS
from synapse.replication.calls import Call
from synapse.storage.errors import DatabaseClosed
from synapse.storage.presence import PresenceState
from synapse.util.caches import LruCache
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.handlers.edus.speakers import Speakers
    from synapse.handlers.positions import StreamWriter
    from synapse.replication.calls import MainProcess
    from synapse.storage.presence import PresenceStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_PUSHED: Final = 1_000
"""States in one EDU."""
SILENT_AFTER: Final = 30 * 60.0
"""Seconds without word of a user after which they are offline."""
SWEEP_SECONDS: Final = 60.0
_MOVES: Final = 60_000  # milliseconds by which somebody has to have been active later for that to be written
_REMEMBERED: Final = 20_000
_TOGETHER: Final = 500  # states that are written in one statement

RECEIVE: Final = Call("presence.receive", list[PresenceState], type(None))


class FarPresence:
    """Takes m.presence.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(self, speakers: Speakers, main: MainProcess, clock: Clock, *, enabled: bool) -> None:
        self._speakers = speakers
        self._main = main
        self._clock = clock
        self._enabled = enabled

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """States that are not well-formed, or not the server's to tell, are dropped one by one. Raises 400, 413."""
        if not self._enabled:
            return
        push = content.get("push")
        if not isinstance(push, list):
            raise invalid_param("'push' must be a list.")
        if len(push) > MAX_PUSHED:
            raise too_large(f"An EDU may hold the presence of {MAX_PUSHED} users at most.")
        now = int(self._clock.seconds() * 1000)
        states = {state.user_id: state for each in push if (state := _state(origin, each, now)) is not None}
        known = await self._speakers.sharing(states)
        if known:
            await self._main(RECEIVE, [state for state in states.values() if state.user_id in known])


def _state(origin: str, given: object, now: int) -> PresenceState | None:
    if not isinstance(given, Mapping):
        return None
    try:
        user_id = own_user(origin, given)
    except MatrixError:
        return None
    presence, ago, status = given.get("presence"), given.get("last_active_ago", 0), given.get("status_msg")
    if not isinstance(presence, str) or presence not in Presence.ALL:
        return None
    if type(ago) is not int or not 0 <= ago <= MAX_INT:
        return None
    status = status[:MAX_STATUS] if isinstance(status, str) and status and "\x00" not in status else None
    active = presence == Presence.ONLINE and given.get("currently_active") is True
    return PresenceState(user_id, presence, status, max(0, now - ago), active)


class FarPresenceKeeper:
    """Keeps what was told; for the main process.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self, store: PresenceStore, stream: StreamWriter, main: MainProcess, clock: Clock, server_name: str
    ) -> None:
        self._store = store
        self._stream = stream
        self._clock = clock
        self._server_name = server_name
        self._heard: dict[str, float] = {}  # when those who are not offline were last heard of
        self._known: LruCache[str, PresenceState] = LruCache("far_presence", _REMEMBERED)
        self._dirty: dict[str, PresenceState] = {}
        self._writing = False
        main.expose(RECEIVE, self._receive)

    async def start(self) -> None:
        """Takes up what the last main process left. Everybody has a while to be heard of."""
        now = self._clock.seconds()
        for state in await self._store.not_offline():
            if domain_of(state.user_id) != self._server_name:
                self._heard.setdefault(state.user_id, now)
                self._known.set(state.user_id, state)

    async def sweep(self) -> None:
        """Takes those to be offline who were not heard of for long; to be called every `SWEEP_SECONDS`."""
        until = self._clock.seconds() - SILENT_AFTER
        for user_id in [user_id for user_id, at in self._heard.items() if at < until]:
            known = self._known.get(user_id)
            last = known.last_active_ts if known is not None else int(self._heard[user_id] * 1000)
            self._take(PresenceState(user_id, Presence.OFFLINE, None, last, False))

    async def _receive(self, states: list[PresenceState]) -> None:
        for state in states:
            self._take(state)

    def _take(self, state: PresenceState) -> None:
        if state.state == Presence.OFFLINE:
            self._heard.pop(state.user_id, None)
        else:
            self._heard[state.user_id] = self._clock.seconds()
        known = self._known.get(state.user_id)
        if known is not None and not _differ(known, state):
            return
        self._known.set(state.user_id, state)
        self._dirty[state.user_id] = state
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write())

    async def _write(self) -> None:
        """Writes what changed; what changes meanwhile is written together, next."""
        try:
            while self._dirty:
                states = list(islice(self._dirty.values(), _TOGETHER))
                for state in states:
                    del self._dirty[state.user_id]
                try:
                    await self._append(states)
                except DatabaseClosed:
                    return
                except Exception as error:
                    for state in states:
                        self._known.invalidate(state.user_id)
                    log_failure(logger, error, "The presence of %d users could not be written", len(states))
        finally:
            self._writing = False

    async def _append(self, states: Sequence[PresenceState]) -> None:
        await self._stream.append_many(
            len(states),
            lambda positions: self._store.put_many(states, positions),
            lambda written: {position: [user_id] for position, user_id in written.items()},
        )


def _differ(known: PresenceState, state: PresenceState) -> bool:
    """Whether it is worth telling: being active a moment later is not."""
    if known._replace(last_active_ts=0) != state._replace(last_active_ts=0):
        return True
    return abs(state.last_active_ts - known.last_active_ts) >= _MOVES
