"""What other servers are answered who ask for events of rooms that they are in, or have been in: single events, a
room's state at an event, what authorises an event, history.

Events are handed on as the bytes that were stored. Servers that ask for the state of a room at the same time, as ids,
share the work.

Server-server API, "Retrieving events", "Backfilling and retrieving missing events", "Retrieving event authorisation
information".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from typing import TYPE_CHECKING

import orjson

from synapse.api.errors import MatrixError, not_found
from synapse.federation.serving.history import MAX_STARTS
from synapse.federation.serving.long_answers import answer_of, array_of
from synapse.handlers.federation_door import not_in_room
from synapse.http.answers import Answer, RawJson

if TYPE_CHECKING:
    from synapse.federation.serving.history import HistoryWalk
    from synapse.federation.serving.visibility import ServerVisibility
    from synapse.handlers.federation_door import FederationDoor
    from synapse.storage.served_events import ServedEvent, ServedEventsStore
    from synapse.storage.state import StateStore
    from synapse.sync.shared import SharedWork
    from synapse.util.clock import Clock


class ServedEvents:
    """Answers in any process.

    Everything here raises 403 M_FORBIDDEN for servers that are kept out of the room, or have never been in it; and for
    those that have left it, where they ask about what came later. What they missed before, they may still ask for: of
    how its last user was put out, a server can only learn so.

    :param shared: makes an answer once for all who ask at the same time, and keeps none.
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

    async def event(self, origin: str, event_id: str) -> Answer:
        """`GET /event/{eventId}`: a transaction of one event; soft-failed ones too. Raises 404 M_NOT_FOUND."""
        event = await self._store.get(event_id)
        if event is None or event.rejected:
            raise _no_event()
        self._door.check_told(origin, await self._door.check_past(origin, event.room_id), event)
        return self._transaction(await self._visibility.copies(origin, [event]))

    async def event_auth(self, origin: str, room_id: str, event_id: str) -> Answer:
        """`GET /event_auth/{roomId}/{eventId}`: all that the event cites, and what that cites. Raises 404."""
        event = await self._event_in(origin, room_id, event_id)
        # Only of state events it is stored beside the event what they cite.
        cited = _auth_event_ids(event)
        chain = {*cited, *await self._store.auth_chain_ids(cited)}
        return await answer_of(self._object(auth_chain=chain), len(chain))

    # -- the state at an event ---------------------------------------------------------------------------------------

    async def state(self, origin: str, room_id: str, event_id: str) -> Answer:
        """`GET /state/{roomId}`: the state that the event found, and its auth chain, as events.

        Raises 404 M_NOT_FOUND for events that are not here, and those whose state is not known or was rejected.
        """
        state, chain = await self._state_and_chain(await self._group_before(origin, room_id, event_id))
        return await answer_of(self._object(auth_chain=chain, pdus=state), len(state) + len(chain))

    async def state_ids(self, origin: str, room_id: str, event_id: str) -> Answer:
        """`GET /state_ids/{roomId}`: the same as event ids."""
        group = await self._group_before(origin, room_id, event_id)
        return RawJson(await self._shared.do(group, lambda: self._state_ids(group)))

    async def _state_ids(self, group: int | None) -> bytes:
        state, chain = await self._state_and_chain(group)
        return orjson.dumps({"auth_chain_ids": chain, "pdu_ids": state})

    async def _state_and_chain(self, group: int | None) -> tuple[list[str], list[str]]:
        state = [] if group is None else await self._store.state_ids(group)
        return state, await self._store.auth_chain_ids(state)

    async def _group_before(self, origin: str, room_id: str, event_id: str) -> int | None:
        """The state before an event; None for that of a room's first."""
        event = await self._event_in(origin, room_id, event_id)
        if event.state_group is None:
            raise not_found("The state of the room at this event is not known here.")
        if event.state_key is None:
            return event.state_group
        return (await self._groups.places([event.state_group]))[event.state_group].prev_group

    # -- history -----------------------------------------------------------------------------------------------------

    async def backfill(self, origin: str, room_id: str, event_ids: Collection[str], limit: int) -> Answer:
        """`GET /backfill/{roomId}`: these events and what came before them, the latest first, as a transaction.

        What is not in the room is passed over; what the server may not see comes redacted.
        """
        starts = await self._starts(origin, room_id, event_ids)
        events = await self._walk.backfill(room_id, starts, limit)
        return self._transaction(await self._visibility.copies(origin, events))

    async def missing(
        self, origin: str, room_id: str, latest: Collection[str], earliest: Collection[str], limit: int, min_depth: int
    ) -> Answer:
        """`POST /get_missing_events/{roomId}`: what lies between these events, the oldest first."""
        starts = await self._starts(origin, room_id, latest)
        events = await self._walk.missing(room_id, starts, earliest, limit, min_depth)
        return RawJson(b'{"events":[%b]}' % b",".join(await self._visibility.copies(origin, events)))

    # ------------------------------------------------------------------------------------------------------------------

    async def _event_in(self, origin: str, room_id: str, event_id: str) -> ServedEvent:
        """An event of the room that the server may ask about."""
        departure = await self._door.check_past(origin, room_id)
        event = await self._store.get(event_id)
        if event is None or event.room_id != room_id or event.rejected:
            raise _no_event()
        self._door.check_told(origin, departure, event)
        return event

    async def _starts(self, origin: str, room_id: str, event_ids: Collection[str]) -> Collection[str]:
        """Those of the events from which the server may be told what came before. One statement for a server that has
        left the room; what came before an event that it knew of came before it left."""
        departure = await self._door.check_past(origin, room_id)
        if departure is None:
            return event_ids
        found = await self._store.many(list(event_ids)[:MAX_STARTS])
        starts = [i for i, event in found.items() if event.room_id == room_id and departure.comes_after(event)]
        if not starts:
            raise not_in_room(origin)
        return starts

    async def _object(self, **arrays: Collection[str]) -> AsyncIterator[bytes]:
        """A JSON object with arrays of events, which whoever is in the room needs to judge others, whatever it may see
        of them."""
        separator = b"{"
        for name, event_ids in arrays.items():
            yield b'%b"%b":[' % (separator, name.encode())
            async for piece in array_of(self._store, event_ids):
                yield piece
            yield b"]"
            separator = b","
        yield b"}"

    def _transaction(self, pdus: Iterable[bytes]) -> Answer:
        head = orjson.dumps({"origin": self._server_name, "origin_server_ts": int(self._clock.seconds() * 1000)})
        return RawJson(b'%b,"pdus":[%b]}' % (head[:-1], b",".join(pdus)))


def _auth_event_ids(event: ServedEvent) -> list[str]:
    cited = orjson.loads(event.json)["auth_events"]
    return [each if isinstance(each, str) else each[0] for each in cited]


def _no_event() -> MatrixError:
    return not_found("This server has no such event, or none that it could show.")
