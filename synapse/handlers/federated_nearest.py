"""The event nearest to a moment, where it lies in a part of a room's history that is not here: other servers in the
room are asked for it, and it is fetched.

Server-server API, "Retrieving events": `GET /timestamp_to_event/{roomId}`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from synapse.api.identifiers import is_event_id
from synapse.federation.errors import FederationError
from synapse.federation.hosts import by_size
from synapse.handlers.remote.candidates import candidates

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.federation.api import FederationApi
    from synapse.federation.hosts import RoomHosts
    from synapse.federation.receiving.checks import EventChecks
    from synapse.federation.receiving.pipeline import Pipeline
    from synapse.state.heads import RoomHeads
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

SERVERS: Final = 3
"""So many servers are asked."""
SECONDS: Final = 10.0
"""After so long, no further server is asked: somebody waits for the answer."""


class FederatedNearest:
    """Asks, in any process.

    :param checks: of events that others send; made when they are needed, as is `history`.
    """

    def __init__(
        self,
        api: FederationApi,
        hosts: RoomHosts,
        heads: RoomHeads,
        checks: Callable[[], EventChecks],
        history: Callable[[], Pipeline],
        server_name: str,
        clock: Clock,
    ) -> None:
        self._api = api
        self._hosts = hosts
        self._heads = heads
        self._checks = checks
        self._history = history
        self._server_name = server_name
        self._clock = clock

    async def fetch(self, room_id: str, timestamp: int, limit: int | None, *, backwards: bool) -> str | None:
        """Has the event nearest to `timestamp` fetched, in this direction, if one is nearer than `limit` (None: than
        any); its id."""
        head = await self._heads.get(room_id)
        if head is None:
            return None
        deadline = self._clock.seconds() + SECONDS
        for server in candidates(self._server_name, by_size(await self._hosts.joined(room_id)), limit=SERVERS):
            if self._clock.seconds() >= deadline:
                break
            try:
                event_id = await self._nearest(server, room_id, timestamp, limit, backwards)
                if event_id is not None and await self._take_in(server, room_id, head.version, event_id):
                    return event_id
            except FederationError as error:
                logger.info("%s knows no event of %s at that time: %s", server, room_id, error.message)
        return None

    async def _nearest(
        self, server: str, room_id: str, timestamp: int, limit: int | None, backwards: bool
    ) -> str | None:
        """The event that the server names, if it says that it is nearer."""
        found = await self._api.timestamp_to_event(server, room_id, timestamp, "b" if backwards else "f")
        at = found.origin_server_ts
        nearer = at <= timestamp and (limit is None or at > limit)
        if not backwards:
            nearer = at >= timestamp and (limit is None or at < limit)
        return found.event_id if nearer and is_event_id(found.event_id) else None

    async def _take_in(self, server: str, room_id: str, version: RoomVersion, event_id: str) -> bool:
        """Has the event here; whether it is."""
        raw = await self._api.event(server, event_id)
        events = await self._checks().check_many([raw], version, room_id=room_id)
        if [event.event_id for event in events] != [event_id]:
            return False
        return (await self._history().history(server, room_id, version, events)).get(event_id) is None
