"""What happened in a room before this server came, or while it did not listen: fetched when somebody pages back to it.

Where history ends, events refer to others that are not here (backward extremities). Those are what is asked for, of the
servers in the room, one after another. A server that has little of it may be followed by one that has what came before.
A room is asked for once at a time. What nobody has is not asked for again for a while; what only could not be told just
now, for a shorter while, which ends when one of those servers comes back.

Server-server API, "Backfilling and retrieving missing events".
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred, TimeoutError

from synapse.events.event import Event
from synapse.federation.errors import BadAnswer, FederationError, Unreachable
from synapse.federation.hosts import by_size
from synapse.federation.receiving.faults import is_passing
from synapse.handlers.remote.candidates import MAX_NAMED, candidates
from synapse.handlers.remote.gaps import Told
from synapse.util.concurrency import Linearizer

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.federation.api import FederationApi
    from synapse.federation.destinations import Destinations
    from synapse.federation.hosts import RoomHosts
    from synapse.federation.receiving.checks import EventChecks
    from synapse.federation.receiving.pipeline import Pipeline
    from synapse.handlers.remote.gaps import Gaps
    from synapse.state.heads import RoomHeads
    from synapse.storage.awaited import AwaitedStore, Stretch
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

WITHIN: Final = 15.0
"""Seconds that a server has for its answer."""

ENOUGH: Final = 20
"""Who has told so many events has probably more; the next page asks it again. Of who has told less, others may know
what came before."""

QUIET: Final = 300.0
"""Seconds for which nobody is asked again for what nobody has."""

SOON: Final = 10.0
"""The same where a server could not be asked, or refused: it may be starting anew, or not have heard yet that this
server is in the room."""

SETTLING: Final = 1.0
"""Seconds in which the news of a server may still be that it did not answer just then."""

MAX_SILENT: Final = 500
"""So many ends of a room are remembered that nobody tells of."""


class Silence(NamedTuple):
    """An end of history of which nobody has told anything, `since` and `until` (seconds); `failed` are the servers that
    did not answer the question."""

    since: float
    until: float
    failed: frozenset[str]


class Backfiller:
    """Fetches history, in any process.

    :param silent: by room id the ends of which nobody tells anything.
    :param changed: by server name when (seconds) it was heard last that its standing is another.
    """

    def __init__(
        self,
        api: FederationApi,
        checks: EventChecks,
        pipeline: Pipeline,
        ends: AwaitedStore,
        gaps: Gaps,
        hosts: RoomHosts,
        heads: RoomHeads,
        standing: Destinations,
        server_name: str,
        silent: LruCache[str, dict[str, Silence]],
        changed: LruCache[str, float],
        clock: Clock,
    ) -> None:
        self._api = api
        self._checks = checks
        self._pipeline = pipeline
        self._ends = ends
        self._gaps = gaps
        self._hosts = hosts
        self._heads = heads
        self._standing = standing
        self._server_name = server_name
        self._silent = silent
        self._changed = changed
        self._clock = clock
        self._rooms: Linearizer[str] = Linearizer()

    async def fetch(self, room_id: str, stretch: Stretch) -> Told:
        """Has others tell what came before the events of the stretch; of its many ends, the nearest are asked for."""
        before = await self._missing(room_id, stretch)
        if not before:
            if not stretch.lowest and stretch.highest is None:
                self._gaps.forget(room_id)  # another process has fetched all of it
            return Told.WHOLE
        if not await self._wanted(room_id, before):
            return Told.NOTHING
        async with self._rooms.queue(room_id):
            missing = await self._missing(room_id, stretch)
            if missing != before:
                return Told.MORE  # whoever was before us in the queue has fetched some
            if await self._wanted(room_id, missing) and await self._fetch(room_id, stretch, missing):
                self._gaps.forget(room_id)
                return Told.MORE
            return Told.NOTHING

    async def untold(self, room_id: str, stretch: Stretch) -> int | None:
        """The depth of the nearest event of the stretch before which something is missing that others may tell."""
        found = await self._ends.missing(room_id, stretch, MAX_ENDS)
        wanted = await self._wanted(room_id, list(found))
        return found[wanted[0]] if wanted else None

    def heard(self, server: str | None) -> None:
        """The standing of a server is another, or (None) perhaps of all of them."""
        if server is None:
            self._silent.clear()
        else:
            self._changed.set(server, self._clock.seconds())

    async def _missing(self, room_id: str, stretch: Stretch) -> list[str]:
        """The nearest ends of history there."""
        return list(await self._ends.missing(room_id, stretch, MAX_ENDS))

    async def _wanted(self, room_id: str, missing: Sequence[str]) -> list[str]:
        """Those of the ends that are to be asked for now."""
        silent = self._silent.get(room_id) or {}
        kept = {end: silence for end, silence in silent.items() if self._holds(silence)}
        heard = {server for silence in kept.values() for server in self._heard_since(silence)}
        back = (
            set(await self._standing.ready(heard)) if heard else set()
        )  # news may be that it is left alone for longer
        ended = {end for end, silence in kept.items() if back.intersection(self._heard_since(silence))}
        return [end for end in missing if end not in kept or end in ended][:ENDS]

    def _holds(self, silence: Silence) -> bool:
        return silence.until > self._clock.seconds()

    def _heard_since(self, silence: Silence) -> Iterator[str]:
        """Those of the servers that failed whose standing has changed since."""
        for server in silence.failed:
            at = self._changed.peek(server)
            if at is not None and at > silence.since + SETTLING:
                yield server

    # -- asking ------------------------------------------------------------------------------------------------------

    async def _fetch(self, room_id: str, stretch: Stretch, missing: list[str]) -> bool:
        """Whether there is more here than before."""
        head = await self._heads.get(room_id)
        hosts = await self._hosts.joined(room_id)
        if head is None or self._server_name not in hosts:
            return False  # nobody would tell this server anything
        deadline = self._clock.seconds() + SECONDS
        servers = await self._servers(hosts)
        came, failed = False, set[str]()
        asked: dict[str, set[str]] = {}
        for server in servers:
            wanted = await self._wanted(room_id, missing)
            if not wanted:
                break
            if self._clock.seconds() >= deadline:
                failed.add(server)
            for end in wanted:
                asked.setdefault(end, set()).add(server)
            count = 0 if server in failed else await self._told(server, room_id, head.version, wanted)
            if count is None:
                failed.add(server)
            elif count:
                before, missing = missing, await self._missing(room_id, stretch)
                came = came or missing != before
                if missing != before and count >= ENOUGH:
                    break
        self._remember(room_id, [end for end in missing if len(asked.get(end, ())) == len(servers)], failed)
        return came

    async def _servers(self, hosts: Mapping[str, int]) -> list[str]:
        """Whom to ask: of those that answer the largest first, then the others."""
        names = by_size(hosts)[:MAX_NAMED]
        ready = set(await self._standing.ready(names))
        answering = [name for name in names if name in ready]
        return candidates(self._server_name, answering, names, limit=SERVERS)

    def _remember(self, room_id: str, ends: Sequence[str], failed: Collection[str]) -> None:
        """All have been asked for these ends, in vain."""
        if not ends:
            return
        now = self._clock.seconds()
        silence = Silence(now, now + (SOON if failed else QUIET), frozenset(failed))
        known = {end: each for end, each in (self._silent.get(room_id) or {}).items() if self._holds(each)}
        known.update(dict.fromkeys(ends, silence))
        self._silent.set(room_id, dict(list(known.items())[-MAX_SILENT:]))

    async def _told(self, server: str, room_id: str, version: RoomVersion, wanted: list[str]) -> int | None:
        """How many events the server has told that were kept; None where the question is still open."""
        try:
            return await self._ask(server, room_id, version, wanted)
        except Exception as error:
            if not isinstance(error, FederationError) and not is_passing(error):
                raise
            logger.info("%s does not tell the history of %s: %s", server, room_id, error)
            return None

    async def _ask(self, server: str, room_id: str, version: RoomVersion, wanted: list[str]) -> int:
        answer = Deferred.fromCoroutine(self._api.backfill(server, room_id, wanted, EVENTS))
        clock: Any = self._clock
        answer.addTimeout(WITHIN, clock)
        try:
            raws: Sequence[Any] = (await answer)[:EVENTS]
        except TimeoutError:
            raise Unreachable(server, f"{server} does not answer in time.", late=True) from None
        events = await self._checks.check_many(raws, version, room_id=room_id, is_history=True)
        told = leading_from(wanted, events)
        if not told:
            return 0
        with self._gaps.filling(room_id):
            problems = await self._pipeline.history(server, room_id, version, told)
        kept = sum(problems.get(event.event_id) is None for event in told)
        if not kept:
            raise BadAnswer(server, f"Nothing of it can be kept: {problems.get(told[0].event_id)}")
        return kept


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
