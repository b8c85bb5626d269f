"""What other servers are answered who ask for events of rooms that they are in: single events, a room's state at an
event, what authorises an event, history.

Events are handed on as the bytes that were stored. The state of a large room is 10,000 events and more; servers that
ask for it at the same time share the work.

Server-server API, "Retrieving events", "Backfilling and retrieving missing events", "Retrieving event authorisation
information".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import orjson

from synapse.api.errors import MatrixError, not_found
from synapse.federation.serving.visibility import copy_of

if TYPE_CHECKING:
    from synapse.federation.serving.history import HistoryWalk
    from synapse.federation.serving.visibility import ServerVisibility
    from synapse.handlers.federation_door import FederationDoor
    from synapse.storage.served_events import ServedEvent, ServedEventsStore
    from synapse.storage.state import StateStore
    from synapse.sync.shared import SharedWork
    from synapse.util.clock import Clock


class ServedEvents:
    """Answers in any process. Every answer is the bytes of its body.

    Everything here raises 403 M_FORBIDDEN for servers that are not in the room or are kept out of it.

    :param shared: keeps no answer once it is made; it may be large.
    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        door: FederationDoor,
        store: ServedEventsStore,
        groups: StateStore,
        walk: HistoryWalk,
        visibility: ServerVisibility,
        shared: SharedWork[bytes],
        server_name: str,
        clock: Clock,
    ) -> None:
        self._door = door
        self._store = store
        self._groups = groups
        self._walk = walk
        self._visibility = visibility
        self._shared = shared
        self._server_name = server_name
        self._clock = clock

    # -- single events, and what authorises them ---------------------------------------------------------------------

    async def event(self, origin: str, event_id: str) -> bytes:
        """`GET /event/{eventId}`: a transaction of one event; soft-failed ones too. Raises 404 M_NOT_FOUND."""
        event = await self._store.get(event_id)
        if event is None or event.rejected:
            raise _no_event()
        await self._door.check(origin, event.room_id)
        return self._transaction(await self._visibility.copies(origin, [event]))

    async def event_auth(self, origin: str, room_id: str, event_id: str) -> bytes:
        """`GET /event_auth/{roomId}/{eventId}`: all that the event cites, and what that cites. Raises 404."""
        await self._door.check(origin, room_id)
        event = await self._event_in(room_id, event_id)
        return await self._shared.do(("event_auth", event_id), lambda: self._event_auth(event))

    async def _event_auth(self, event: ServedEvent) -> bytes:
        # Only of state events it is stored beside the event what they cite.
        cited = _auth_event_ids(event)
        chain = await self._store.auth_chain_ids(cited)
        return b'{"auth_chain":[%b]}' % b",".join(await self._copies({*cited, *chain}))

    # -- the state at an event ---------------------------------------------------------------------------------------

    async def state(self, origin: str, room_id: str, event_id: str) -> bytes:
        """`GET /state/{roomId}`: the state that the event found, and its auth chain, as events.

        Raises 404 M_NOT_FOUND for events that are not here, and those whose state is not known or was rejected.
        """
        group = await self._group_before(origin, room_id, event_id)
        return await self._shared.do(("state", group), lambda: self._state(group))

    async def _state(self, group: int | None) -> bytes:
        state, chain = await self._state_and_chain(group)
        events = await self._store.many({*state, *chain})
        parts = [b",".join([copy_of(events[i]) for i in ids if i in events]) for ids in (chain, state)]
        return b'{"auth_chain":[%b],"pdus":[%b]}' % tuple(parts)

    async def state_ids(self, origin: str, room_id: str, event_id: str) -> bytes:
        """`GET /state_ids/{roomId}`: the same as event ids."""
        group = await self._group_before(origin, room_id, event_id)
        return await self._shared.do(("state_ids", group), lambda: self._state_ids(group))

    async def _state_ids(self, group: int | None) -> bytes:
        state, chain = await self._state_and_chain(group)
        return orjson.dumps({"auth_chain_ids": chain, "pdu_ids": state})

    async def _state_and_chain(self, group: int | None) -> tuple[list[str], list[str]]:
        state = [] if group is None else await self._store.state_ids(group)
        return state, await self._store.auth_chain_ids(state)

    async def _group_before(self, origin: str, room_id: str, event_id: str) -> int | None:
        """The state before an event; None for that of a room's first."""
        await self._door.check(origin, room_id)
        event = await self._event_in(room_id, event_id)
        if event.state_group is None:
            raise not_found("The state of the room at this event is not known here.")
        if event.state_key is None:
            return event.state_group
        return (await self._groups.places([event.state_group]))[event.state_group].prev_group

    # -- history -----------------------------------------------------------------------------------------------------

    async def backfill(self, origin: str, room_id: str, event_ids: Collection[str], limit: int) -> bytes:
        """`GET /backfill/{roomId}`: these events and what came before them, the latest first, as a transaction.

        What is not in the room is passed over; what the server may not see comes redacted.
        """
        await self._door.check(origin, room_id)
        events = await self._walk.backfill(room_id, event_ids, limit)
        return self._transaction(await self._visibility.copies(origin, events))

    async def missing(
        self, origin: str, room_id: str, latest: Collection[str], earliest: Collection[str], limit: int, min_depth: int
    ) -> bytes:
        """`POST /get_missing_events/{roomId}`: what lies between these events, the oldest first."""
        await self._door.check(origin, room_id)
        events = await self._walk.missing(room_id, latest, earliest, limit, min_depth)
        return b'{"events":[%b]}' % b",".join(await self._visibility.copies(origin, events))

    # ------------------------------------------------------------------------------------------------------------------

    async def _event_in(self, room_id: str, event_id: str) -> ServedEvent:
        event = await self._store.get(event_id)
        if event is None or event.room_id != room_id or event.rejected:
            raise _no_event()
        return event

    async def _copies(self, event_ids: Iterable[str]) -> list[bytes]:
        """Events that whoever is in the room needs to judge others, whatever it may see of them."""
        return [copy_of(event) for event in (await self._store.many(set(event_ids))).values() if not event.rejected]

    def _transaction(self, pdus: Iterable[bytes]) -> bytes:
        head = orjson.dumps({"origin": self._server_name, "origin_server_ts": int(self._clock.seconds() * 1000)})
        return b'%b,"pdus":[%b]}' % (head[:-1], b",".join(pdus))


def _auth_event_ids(event: ServedEvent) -> list[str]:
    cited = orjson.loads(event.json)["auth_events"]
    return [each if isinstance(each, str) else each[0] for each in cited]


def _no_event() -> MatrixError:
    return not_found("This server has no such event, or none that it could show.")
