"""Rooms that this server is not in, as others tell of them who are: for summaries, and for spaces.

What another server tells is what users of this one could know of the room; whether a certain user may is decided here.
Answers are kept for some minutes.

Server-server API, "Spaces".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import TimeoutError

from synapse.api.constants import MAX_INT, EventTypes, RoomTypes
from synapse.api.errors import MatrixError
from synapse.api.identifiers import is_user_id
from synapse.federation.errors import BadAnswer
from synapse.handlers.remote.candidates import candidates
from synapse.handlers.remote.search import Search
from synapse.handlers.space_tree import Child, child_of
from synapse.handlers.told_rooms import encoded, summarised_room
from synapse.util.concurrency import gather, spawn

if TYPE_CHECKING:
    from synapse.federation.answers import Hierarchy
    from synapse.federation.api import FederationApi
    from synapse.storage.rooms import KnownRoom
    from synapse.sync.shared import SharedWork
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

KEEP_SECONDS: Final = 300.0
KEPT: Final = 300
"""Answers that are remembered for so long; none that is larger than MAX_KEPT."""
MAX_KEPT: Final = 64 * 1024  # bytes of children's content
MAX_CHILDREN: Final = 1_000
MAX_CONTENT: Final = 10_000  # bytes of the content of one child event
MAX_ASKED: Final = 50
"""Rooms that others are asked about for one page of a space."""
SERVERS: Final = 3
"""Servers that are asked about one room."""
SECONDS: Final = 10.0
"""For one page, or one summary. What has not been told by then is left out."""


class ToldRoom(NamedTuple):
    """A room, its children if it is a space, what is told of those, and which of them nobody here can know of."""

    room: KnownRoom
    children: list[Child]
    below: dict[str, KnownRoom]
    closed: frozenset[str]

    @property
    def size(self) -> int:
        """About how much there is of it."""
        return sum(len(child.content) for child in self.children) + 100 * len(self.below)


class ToldChild(NamedTuple):
    """An m.space.child event as another server tells it."""

    state_key: str
    sender: str
    origin_server_ts: int
    type: str = EventTypes.SPACE_CHILD


class FederatedSpaces:
    """Asks, in any process.

    :param shared: keeps answers for some minutes.
    """

    def __init__(self, api: FederationApi, shared: SharedWork[ToldRoom], server_name: str, clock: Clock) -> None:
        self._api = api
        self._shared = shared
        self._server_name = server_name
        self._clock = clock

    async def room(self, room_id: str, servers: Sequence[str]) -> ToldRoom | None:
        """A single room; None where none of the servers tells of it in time."""
        return (await self.look(False).at({room_id: servers})).get(room_id)

    def look(self, suggested_only: bool) -> Look:
        """Looks at many rooms within the time of one."""
        return Look(self, suggested_only, self._clock.seconds() + SECONDS)

    async def ask(self, room_id: str, servers: Sequence[str], suggested_only: bool, until: float) -> ToldRoom | None:
        """What the first of the servers tells that tells something before that time."""
        seconds = until - self._clock.seconds()
        some = candidates(self._server_name, servers, limit=SERVERS)
        if not some or seconds <= 0:
            return None

        async def find() -> ToldRoom:
            search = Search(self._clock, seconds)
            return await search.first(some, lambda server: self._ask(server, room_id, suggested_only))

        asking = spawn(self._shared.do((room_id, suggested_only), find))
        clock: Any = self._clock
        asking.addTimeout(seconds, clock)
        try:
            return await asking
        except (MatrixError, TimeoutError) as error:
            logger.info("Nobody tells of the room %s: %s", room_id, error)
            return None

    async def _ask(self, server: str, room_id: str, suggested_only: bool) -> ToldRoom:
        answer = await self._api.hierarchy(server, room_id, suggested_only=suggested_only)
        told = told_room(answer, suggested_only)
        if told is None or told.room.listed.room_id != room_id:
            raise BadAnswer(server, f"{server} does not tell of the room that it was asked about.")
        return told


class Look:
    """A look at the rooms of a space, level by level: what was told of children need not be asked for again."""

    def __init__(self, spaces: FederatedSpaces, suggested_only: bool, until: float) -> None:
        self.suggested_only = suggested_only
        self._spaces = spaces
        self._until = until
        self._left = MAX_ASKED
        self._known: dict[str, KnownRoom] = {}
        self._closed: set[str] = set()

    async def at(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, ToldRoom]:
        """What others tell of rooms, given servers to ask about each. Rooms of which nothing is told are left out."""
        found: dict[str, ToldRoom] = {}
        ahead: list[str] = []
        for room_id in wanted:
            known = self._known.get(room_id)
            if known is not None and known.listed.room_type != RoomTypes.SPACE:
                found[room_id] = ToldRoom(known, [], {}, frozenset())
            elif room_id not in self._closed and self._left > 0:
                self._left -= 1
                ahead.append(room_id)
        answers = await gather(
            self._spaces.ask(room_id, wanted[room_id], self.suggested_only, self._until) for room_id in ahead
        )
        for room_id, answer in zip(ahead, answers, strict=True):
            if answer is not None:
                found[room_id] = answer
                self._known.update(answer.below)
                self._closed |= answer.closed
        return found


def told_room(answer: Hierarchy, suggested_only: bool) -> ToldRoom | None:
    """An answer with only what is as it should be; None where it is about no room."""
    room = summarised_room(answer.room)
    if room is None:
        return None
    events = answer.room.get("children_state")
    is_space = room.listed.room_type == RoomTypes.SPACE and isinstance(events, list)
    children = [_child(event, suggested_only) for event in events[:MAX_CHILDREN]] if is_space and events else []
    below = (summarised_room(child) for child in answer.children[:MAX_CHILDREN])
    return ToldRoom(
        room,
        sorted((child for child in children if child is not None), key=lambda child: child.order),
        {child.listed.room_id: child for child in below if child is not None},
        frozenset(answer.inaccessible_children[:MAX_CHILDREN]),
    )


def _child(event: Any, suggested_only: bool) -> Child | None:
    if not isinstance(event, dict) or event.get("type") != EventTypes.SPACE_CHILD:
        return None
    state_key, sender, ts = event.get("state_key"), event.get("sender"), event.get("origin_server_ts")
    if not (isinstance(state_key, str) and isinstance(sender, str) and is_user_id(sender)):
        return None
    if type(ts) is not int or not 0 <= ts <= MAX_INT or not isinstance(event.get("content"), dict):
        return None
    content = encoded(event["content"])
    if content is None or len(content) > MAX_CONTENT:
        return None
    return child_of(ToldChild(state_key, sender, ts), content, suggested_only)
