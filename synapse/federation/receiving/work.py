"""What is known of a room's events while some that have come in are worked on: those that are stored, those that are
about to be, and how much more may be fetched for their sake.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, TimeoutError

from synapse.api.identifiers import create_id_of_room
from synapse.api.room_versions import RoomVersion
from synapse.events.event import Event
from synapse.federation.receiving.faults import Unfit
from synapse.storage.persist_events import Outlier, ReceivedEvent

if TYPE_CHECKING:
    from synapse.storage.events import EventsStore, StoredEvent
    from synapse.util.clock import Clock

T = TypeVar("T")

REQUESTS: Final = 60
"""Requests to other servers for the sake of one batch of events, at most."""

EVENTS: Final = 1_000
"""Predecessors that are fetched for it, at most."""

SECONDS: Final = 60.0
"""How long it may take."""


class Allowance:
    """How much may still be fetched for one batch. Running out raises `Unfit`: the event that needed more is not kept,
    and comes again when another event refers to it."""

    def __init__(
        self, clock: Clock, *, requests: int = REQUESTS, events: int = EVENTS, seconds: float = SECONDS
    ) -> None:
        self._clock = clock
        self._requests = requests
        self._events = events
        self._until = clock.seconds() + seconds

    @property
    def seconds_left(self) -> float:
        return self._until - self._clock.seconds()

    def request(self) -> None:
        """One more request is about to be made."""
        self._requests -= 1
        if self._requests < 0 or self.seconds_left <= 0:
            raise Unfit("Too much is missing before the event for this server to fetch it.")

    async def bounded(self, request: Coroutine[Any, Any, T]) -> T:
        """The answer to a request, which ends with the time."""
        answer = Deferred.fromCoroutine(request)
        clock: Any = self._clock
        answer.addTimeout(max(self.seconds_left, 1.0), clock)
        try:
            return await answer
        except TimeoutError:
            raise Unfit("What is missing before the event takes too long to fetch.") from None

    def fetched(self, events: int) -> None:
        """So many predecessors have come."""
        self._events -= events
        if self._events < 0:
            raise Unfit("Too many events are missing before this one for this server to fetch them.")


class Found(NamedTuple):
    """An event of the room that others may refer to."""

    event: Event
    rejected: str | None


class Work:
    """One batch of events of one room. `origin` is the server that sent them."""

    def __init__(
        self, origin: str, room_id: str, version: RoomVersion, reader: EventsStore, allowance: Allowance
    ) -> None:
        self.origin = origin
        self.room_id = room_id
        self.version = version
        self.allowance = allowance
        self.stored: dict[str, StoredEvent] = {}
        self.new: dict[str, ReceivedEvent] = {}
        """Not written yet, ancestors first."""
        self.outliers: dict[str, Outlier] = {}
        """Not written yet, in an order in which each comes after those that it cites."""
        self.told_by: str | None = None
        """The server that has told last what was missing."""
        self.others_know_nothing = False
        self.ends: Collection[str] = ()
        """The room's forward extremities, where they were looked at."""
        self.refused: dict[str, str] = {}
        """What the writer did not take, and why."""
        self.fell_short = False
        """Something could not be fetched for the event that is looked at, which may be there to fetch another time."""
        self._reader = reader
        self._asked: set[str] = set()

    @property
    def create_id(self) -> str | None:
        """The id of the create event, where the room is named by it."""
        return create_id_of_room(self.room_id) if self.version.room_id_from_create else None

    async def look_up(self, event_ids: Iterable[str]) -> None:
        """Learn of those events that are stored. One statement for all that were not asked for before, or none."""
        wanted = set(event_ids).difference(self._asked)
        if wanted:
            self._asked |= wanted
            self.stored.update(await self._reader.get_many(wanted))

    def recall(self, events: Collection[Event]) -> set[str]:
        """Learn of what memory has of what has to be known of events; the rest of it.

        Messages among them are not in the rest: hardly any is here already if what it refers to has been heard of and
        it has not, and the writer, who takes none twice, finds that out. State events are: others may cite them, and
        are judged by what became of them.
        """
        wanted = self.cited_by(events)
        found = self._reader.remembered(wanted)
        self._asked.update(found)
        self.stored.update(found)
        return wanted.difference(found, [event.event_id for event in events if not event.is_state()])

    def cited_by(self, events: Iterable[Event]) -> set[str]:
        """What has to be known to judge events: they, their predecessors and auth events, and the create event."""
        ids = {i for event in events for i in (event.event_id, *event.prev_event_ids, *event.auth_event_ids)}
        if self.create_id is not None:
            ids.add(self.create_id)
        return ids

    def has_place(self, event_id: str) -> bool:
        """Whether the event is in the room's graph here, so that the state after it is known."""
        if event_id in self.new or event_id in self.ends:
            return True
        stored = self.stored.get(event_id)
        return stored is not None and not stored.outlier and stored.event.room_id == self.room_id

    def check_rooms(self, event: Event) -> None:
        """Raises Unfit for an event that comes after one of another room."""
        for event_id in event.prev_event_ids:
            stored = self.stored.get(event_id)
            if stored is not None and stored.event.room_id != self.room_id:
                raise Unfit(f"The event comes after {event_id}, which belongs to another room.")

    def gaps(self, event: Event) -> list[str]:
        """The event's predecessors that are not in the room's graph here."""
        return [event_id for event_id in event.prev_event_ids if not self.has_place(event_id)]

    def find(self, event_id: str) -> Found | None:
        """An event, wherever it stands, whichever room it belongs to."""
        new = self.new.get(event_id)
        if new is not None:
            return Found(new.event, new.rejected)
        outlier = self.outliers.get(event_id)
        if outlier is not None:
            return Found(outlier.event, outlier.rejected)
        stored = self.stored.get(event_id)
        return None if stored is None else Found(stored.event, stored.rejected)

    async def written(self, event_ids: Collection[str]) -> None:
        """These have been handed to the writer: what became of them is read. One statement."""
        for event_id in event_ids:
            self.new.pop(event_id, None)
            self.outliers.pop(event_id, None)
        self._asked.difference_update(event_ids)
        await self.look_up(event_ids)
