"""New rooms: their first events are built one after another, each allowed by the state that those before it make, and
written together or not at all.

What the events are to be is for others to say: `handlers.room_creation` and `handlers.room_upgrade`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import Membership
from synapse.api.errors import AuthError, Codes, MatrixError, invalid_param
from synapse.api.identifiers import new_room_id
from synapse.api.room_versions import EventFormat, RoomVersion
from synapse.events import auth
from synapse.events.builder import build
from synapse.events.event import Event, StateKey
from synapse.events.hashes import reference_hash
from synapse.events.power_levels import PowerLevels
from synapse.handlers.event_content import check_content
from synapse.push.bulk import Members
from synapse.storage.persist_events import NewEvent, NewRoom, Outcome, Replaced, Request

if TYPE_CHECKING:
    from synapse.handlers.event_creation import Signer
    from synapse.push.bulk import BulkPush

MAX_EVENTS: Final = 500
"""Events that one request may make: each costs a signature and a row in ten tables."""


class RoomBuilder:
    """The first events of a room in the making."""

    def __init__(self, signer: Signer, now: int, version: RoomVersion, creator: str, limit: int = MAX_EVENTS) -> None:
        self.version = version
        self._limit = limit
        self.creator = creator
        self.events: list[Event] = []
        self.state: dict[StateKey, Event] = {}
        self._signer = signer
        self._now = now
        self._room_id = None if version.room_id_from_create else new_room_id(signer.server_name)

    @property
    def room_id(self) -> str:
        """The room's id; in some versions, there is none before the create event."""
        if self._room_id is None:
            raise RuntimeError("this room is named by its create event, which is not there yet")
        return self._room_id

    def add(self, event_type: str, state_key: str, content: dict[str, Any]) -> Event:
        """The next event. Raises 400 M_INVALID_ROOM_STATE where the state before does not allow it, M_BAD_JSON and its
        kin for content that means nothing, M_INVALID_PARAM for one too many."""
        if len(self.events) >= self._limit:
            raise invalid_param(f"A room may begin with {self._limit} invitations and state events at most.")
        check_content(event_type, state_key, content, self.version)
        event = self._build(event_type, state_key, content)
        try:
            auth.check(event, self.state)
        except AuthError as error:
            sentence = f"The room cannot begin with this {event_type}: {error.message}"
            raise MatrixError(400, Codes.INVALID_ROOM_STATE, sentence) from error
        self._room_id = event.room_id
        self.state[event.key] = event
        self.events.append(event)
        return event

    def _build(self, event_type: str, state_key: str, content: dict[str, Any]) -> Event:
        version = self.version
        cited = auth.cited_types_for(version, event_type, self.creator, state_key, content)
        auth_events = [self.state[wanted] for wanted in cited if wanted in self.state]
        hashes = None
        if version.event_format is EventFormat.V1:
            hashes = {e.event_id: reference_hash(e.raw, version) for e in (*auth_events, *self.events[-1:])}
        return build(
            version,
            room_id=self._room_id,
            sender=self.creator,
            type=event_type,
            content=content,
            prev_events=[event.event_id for event in self.events[-1:]],
            auth_events=[event.event_id for event in auth_events],
            depth=len(self.events) + 1,
            origin_server_ts=self._now,
            server_name=self._signer.server_name,
            signing_key=self._signer.key,
            state_key=state_key,
            reference_hashes=hashes,
        )


class NewRooms:
    """Begins and writes new rooms, in any process.

    :param writer, caught_up, now: as for `EventCreation`.
    """

    def __init__(
        self,
        signer: Signer,
        push: BulkPush,
        writer: Callable[[Request], Awaitable[Outcome]],
        caught_up: Callable[[int], Awaitable[None]],
        now: Callable[[], int],
    ) -> None:
        self._signer = signer
        self._push = push
        self._writer = writer
        self._caught_up = caught_up
        self._now = now
        self._newest = 0

    def begin(self, version: RoomVersion, creator: str, limit: int = MAX_EVENTS) -> RoomBuilder:
        """A room without events, which may begin with so many."""
        # Where rooms are named by their create events, two that somebody makes in one millisecond would be the same.
        self._newest = max(self._now(), self._newest + 1)
        return RoomBuilder(self._signer, self._newest, version, creator, limit)

    async def write(self, builder: RoomBuilder, room: NewRoom) -> None:
        """Write the room; returns when it is known in this process. Raises 400 M_ROOM_IN_USE for a taken alias."""
        outcome = await self._writer(Request(builder.room_id, await self._with_push(builder), room=room))
        await self._caught_up(outcome.position)

    async def _with_push(self, builder: RoomBuilder) -> list[NewEvent]:
        """The events with whom they concern: nobody but the creator is in the room, so only invitations do."""
        levels = PowerLevels.of_state(builder.state, builder.version)
        result: list[NewEvent] = []
        seen: dict[StateKey, Event] = {}
        for event in builder.events:
            old = seen.get(event.key)
            replaces = Replaced(None) if old is None else Replaced(old.event_id, old.membership)
            seen[event.key] = event
            if event.membership == Membership.INVITE:
                _thread, push = await self._push.evaluate(event, Members({event.sender: None}, 1), levels)
                result.append(NewEvent(event, push=tuple(push), replaces=replaces))
            else:
                result.append(NewEvent(event, replaces=replaces))
        return result
