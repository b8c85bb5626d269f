"""What happened in a room before this server came, or while it did not listen: fetched when somebody pages back to it.

Where history ends, events refer to others that are not here (backward extremities). Those are what is asked for, of the
servers in the room, one after another until one tells something new. A room is asked for once at a time, and where
nobody tells anything, not again for a while.

Server-server API, "Backfilling and retrieving missing events".
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from synapse.events.event import Event
from synapse.federation.errors import FederationError
from synapse.handlers.remote.candidates import by_size, candidates
from synapse.util.concurrency import Linearizer

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.federation.api import FederationApi
    from synapse.federation.hosts import RoomHosts
    from synapse.handlers.remote.gaps import Ends, Gaps
    from synapse.handlers.remote.room_seen import Checks
    from synapse.state.heads import RoomHeads
    from synapse.util.caches import LruCache
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

EVENTS: Final = 100
"""So many are asked for at once."""

ENDS: Final = 5
"""From so many ends of history at once."""

MAX_ENDS: Final = 100
"""Of so many ends, the nearest are chosen."""

SERVERS: Final = 5
"""So many servers are asked before it is given up."""

SECONDS: Final = 20.0
"""After so long, no further server is asked: somebody waits for a page."""

QUIET: Final = 300.0
"""Seconds for which nobody is asked again for what nobody has told."""


class History(Protocol):
    """Takes in what came before; see `synapse.federation.receiving.pipeline`."""

    async def history(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> dict[str, str | None]:
        """For each event id why it is not kept, or None."""


class Backfiller:
    """Fetches history, in any process.

    :param silent: the ends for which nobody had anything, by room id, and since when (seconds).
    """

    def __init__(
        self,
        api: FederationApi,
        checks: Checks,
        history: History,
        ends: Ends,
        gaps: Gaps,
        hosts: RoomHosts,
        heads: RoomHeads,
        server_name: str,
        silent: LruCache[str, tuple[frozenset[str], float]],
        clock: Clock,
    ) -> None:
        self._api = api
        self._checks = checks
        self._history = history
        self._ends = ends
        self._gaps = gaps
        self._hosts = hosts
        self._heads = heads
        self._server_name = server_name
        self._silent = silent
        self._clock = clock
        self._rooms: Linearizer[str] = Linearizer()

    async def fetch(self, room_id: str, depth: int) -> bool:
        """Has others tell what came before the events at that depth of the room (and after it, where more is missing
        there). Whether there is more here than before."""
        before = await self._wanted(room_id, depth)
        if not before or self._is_silent(room_id, before):
            return False
        async with self._rooms.queue(room_id):
            wanted = await self._wanted(room_id, depth)
            if wanted != before:
                return True  # whoever was before us in the queue has fetched some
            if self._is_silent(room_id, wanted):
                return False
            if await self._fetch(room_id, wanted):
                self._gaps.forget(room_id)
                if await self._wanted(room_id, depth) != wanted:
                    return True
            self._silent.set(room_id, (frozenset(wanted), self._clock.seconds()))
            return False

    async def _wanted(self, room_id: str, depth: int) -> list[str]:
        """The nearest ends of history at that depth and after it."""
        found = await self._ends.backwards(room_id, depth, MAX_ENDS)
        return sorted(found, key=lambda event_id: (found[event_id], event_id))[:ENDS]

    def _is_silent(self, room_id: str, wanted: Collection[str]) -> bool:
        silent = self._silent.get(room_id)
        return silent is not None and silent[0].issuperset(wanted) and silent[1] + QUIET > self._clock.seconds()

    async def _fetch(self, room_id: str, wanted: list[str]) -> bool:
        """Whether a server has told something that was kept."""
        head = await self._heads.get(room_id)
        if head is None:
            return False
        deadline = self._clock.seconds() + SECONDS
        hosts = await self._hosts.joined(room_id)
        if self._server_name not in hosts:
            return False  # nobody would tell this server anything
        for server in candidates(self._server_name, by_size(hosts), limit=SERVERS):
            try:
                if await self._ask(server, room_id, head.version, wanted):
                    return True
            except FederationError as error:
                logger.info("%s does not tell the history of %s: %s", server, room_id, error.message)
            if self._clock.seconds() >= deadline:
                break
        return False

    async def _ask(self, server: str, room_id: str, version: RoomVersion, wanted: list[str]) -> bool:
        raws: Sequence[Any] = (await self._api.backfill(server, room_id, wanted, EVENTS))[:EVENTS]
        events = await self._checks.check_many(raws, version, room_id=room_id, is_history=True)
        told = leading_from(wanted, events)
        if not told:
            return False
        problems = await self._history.history(server, room_id, version, told)
        return any(problems.get(event.event_id) is None for event in told)


def leading_from(wanted: Collection[str], events: Sequence[Event]) -> list[Event]:
    """Those of the events that are wanted, or come before them, in their order: all else was not asked for."""
    by_id = {event.event_id: event for event in events}
    reached: set[str] = set()
    pending = [event_id for event_id in wanted if event_id in by_id]
    while pending:
        event_id = pending.pop()
        if event_id not in reached:
            reached.add(event_id)
            pending += [before for before in by_id[event_id].prev_event_ids if before in by_id]
    return [event for event in events if event.event_id in reached]
