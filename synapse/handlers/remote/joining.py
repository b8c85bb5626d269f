"""Entering rooms that this server takes no part in, in the main process: one join a room at a time, however many users
want to come in. The first takes the whole room along; those who waited enter it as any other room of this server's. Who
has waited for long goes ahead alone: the writer takes a second way into a room for an ordinary join.

Of large rooms, a few are taken in at a time, and the others wait for their turn, with the answers that they have: it is
what is made of an answer that takes much memory. Servers that let others wait for their answers keep nobody waiting
but those who ask them.

What is fetched of a room is written in pieces, as events that nobody sees (outliers), and at last the join itself makes
a room of them. So whatever ends this midway, nothing is there but those, and the next attempt begins anew.

Server-server API, "Joining Rooms", "Restricted rooms".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.internet.defer import Deferred, TimeoutError

from synapse.api.constants import EventTypes
from synapse.api.errors import Codes, MatrixError, forbidden, incompatible_room_version, limit_exceeded
from synapse.api.identifiers import domain_of
from synapse.api.room_versions import ROOM_VERSIONS, RoomVersion
from synapse.events.event import Event
from synapse.federation.errors import BadAnswer, FederationError, Refused
from synapse.handlers.remote.search import Search
from synapse.handlers.remote.templates import AUTHORISER, made_by
from synapse.replication.calls import Call
from synapse.storage.persist_events import Fate, Kind, Outlier, Received, ReceivedEvent
from synapse.util.concurrency import Slots, spawn

if TYPE_CHECKING:
    from synapse.federation.answers import JoinAnswer, Template
    from synapse.federation.api import FederationApi
    from synapse.federation.receiving.pipeline import Pipeline
    from synapse.handlers.event_creation import Signer
    from synapse.handlers.remote.room_seen import RoomCheck
    from synapse.handlers.remote.signatures import Countersigning
    from synapse.push.bulk import RoomMembers
    from synapse.replication.calls import MainProcess
    from synapse.storage.persist_events import Receipt
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

SECONDS: Final = 120.0
"""After so long, no further server is asked to let somebody in."""

LONGEST: Final = 900.0
"""Seconds that a worker waits for a join: the last server may take long to put a large room together."""

SETTLING: Final = 20.0
"""Seconds for which the join under way is waited for, by others who want to come in, and by what is said in the
room."""

AT_ONCE: Final = 50
"""Joins that may be under way; who comes then is told to come again."""

LARGE: Final = 500
"""A room is large if its state and what that rests on has more events."""

LARGE_AT_ONCE: Final = 3
"""Large rooms that are taken in at the same time. One of 10,000 members takes some 150 MiB."""

FETCHING: Final = 60.0
"""Seconds for what a server has left out of its answer."""

PIECE: Final = 500
"""Events that are written at once while a room is taken in, so that other writes have their turn."""

_BUSY_MS: Final = 30_000

Receive = Callable[[Received], Awaitable["Receipt"]]


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """A user who wants to come in with the help of one of the servers. `content` is that of the membership.

    `vouched`: this server is in the room, where nobody of it can vouch for the user.
    """

    room_id: str
    user_id: str
    content: dict[str, Any]
    servers: list[str]
    vouched: bool = False


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The join, written at that position of the events stream; or, with `is_here`, nothing: the server is in the room
    (by now), and the user can come in like any other."""

    event_id: str = ""
    position: int = 0
    is_here: bool = False


class Rooms(msgspec.Struct, frozen=True):
    """Rooms by their ids."""

    room_ids: list[str]


JOIN: Final = Call("remote.join", Join, Joined, within=LONGEST)
SETTLED: Final = Call("remote.settled", Rooms, bool)


def answer_calls(main: MainProcess, joining: Callable[[], Joining]) -> None:
    """Let workers ask, through the main process that this is; `joining` is made when somebody does."""

    async def join(wish: Join) -> Joined:
        return await joining().join(wish)

    async def settled(rooms: Rooms) -> bool:
        return await joining().settled(rooms.room_ids)

    main.expose(JOIN, join)
    main.expose(SETTLED, settled)


class Joining:
    """Enters rooms; in the main process.

    :param receive: the writer.
    """

    def __init__(
        self,
        api: FederationApi,
        check: RoomCheck,
        members: RoomMembers,
        receive: Receive,
        pipeline: Pipeline,
        countersigning: Countersigning,
        signer: Signer,
        clock: Clock,
    ) -> None:
        self._api = api
        self._check = check
        self._members = members
        self._receive = receive
        self._pipeline = pipeline
        self._countersigning = countersigning
        self._signer = signer
        self._clock = clock
        self._under_way: dict[str, list[Deferred[None]]] = {}  # by room: who waits for the join to be over
        self._count = 0
        self._large = Slots(LARGE_AT_ONCE, AT_ONCE)

    async def join(self, wish: Join) -> Joined:
        """Raises what the servers answer, 404 M_NOT_FOUND where there is none to ask, 429 M_LIMIT_EXCEEDED where too
        many are on their way into rooms."""
        deadline = self._clock.seconds() + SETTLING
        while wish.room_id in self._under_way:
            if self._clock.seconds() >= deadline:
                # Whoever is before us may have named a server that takes its time, or means to keep others out.
                return await self._search(wish)
            await self.settled([wish.room_id])
        self._under_way[wish.room_id] = []
        try:
            return await self._search(wish)
        finally:
            for waiting in self._under_way.pop(wish.room_id):
                if not waiting.called:
                    waiting.callback(None)

    async def _search(self, wish: Join) -> Joined:
        if not wish.vouched and (await self._members.get(wish.room_id)).local:
            return Joined(is_here=True)
        if self._count >= AT_ONCE:
            raise limit_exceeded(_BUSY_MS, "This server is joining as many rooms as it can. Try again in a while.")
        self._count += 1
        try:
            return await Search(self._clock, SECONDS).first(wish.servers, lambda server: self._join(server, wish))
        finally:
            self._count -= 1

    async def settled(self, room_ids: Sequence[str]) -> bool:
        """Returns once nobody of this server is on the way into the rooms, or after a while; whether somebody was."""
        awaited = [spawn(self._done(room_id)) for room_id in room_ids if room_id in self._under_way]
        clock: Any = self._clock
        for each in awaited:
            each.addTimeout(SETTLING, clock, onTimeoutCancel=lambda *_: None)
        for each in awaited:
            await each
        return bool(awaited)

    async def _done(self, room_id: str) -> None:
        over: Deferred[None] = Deferred()
        self._under_way[room_id].append(over)
        await over

    async def _join(self, server: str, wish: Join) -> Joined:
        template = await self._api.make_join(server, wish.room_id, wish.user_id, list(ROOM_VERSIONS))
        event = made_by(
            server,
            template.event,
            version_of(server, template),
            room_id=wish.room_id,
            user_id=wish.user_id,
            content=wish.content,
            signer=self._signer,
            now=int(self._clock.seconds() * 1000),
        )
        answer = await self._api.send_join(server, event.room_id, event.event_id, event.raw)
        if template.room_version is None:
            event = _of_version_told(event, answer)
        event = await self._countersigned(server, event, answer)
        if wish.vouched:
            return await self._come_in(server, event)
        if len(answer.state) + len(answer.auth_chain) <= LARGE:
            return await self._enter(server, event, answer)
        async with self._large.taken():
            return await self._enter(server, event, answer)

    async def _countersigned(self, server: str, event: Event, answer: JoinAnswer) -> Event:
        """The join with the signature of the server that vouches for it, where that is needed."""
        authoriser = event.content.get(AUTHORISER)
        if not isinstance(authoriser, str):
            return event
        try:
            return await self._countersigning.take(event, answer.event, domain_of(authoriser))
        except MatrixError as error:
            raise BadAnswer(server, f"{server} sent back a join that is not well-formed: {error.message}") from error

    async def _come_in(self, server: str, join: Event) -> Joined:
        """Takes the join into the room, which this server is in. The server that vouches for it tells the others."""
        try:
            return await self._accept(server, join)
        except MatrixError as error:
            if error.errcode != Codes.INVALID_PARAM:
                raise
        # It comes after something that has not reached this server yet, and has to be fetched.
        problems = await self._pipeline.receive(server, join.room_id, join.room_version, [join])
        if (problem := problems.get(join.event_id)) is not None:
            raise BadAnswer(server, f"The join by {server} cannot be taken: {problem}")
        return await self._accept(server, join)  # whether it is in force

    async def _accept(self, server: str, join: Event) -> Joined:
        persisted = await self._pipeline.accept(server, join, relay=False)
        return Joined(event_id=persisted.event_id, position=persisted.stream_ordering)

    async def _enter(self, server: str, join: Event, answer: JoinAnswer) -> Joined:
        if answer.members_omitted:
            raise BadAnswer(server, f"{server} leaves members out, which it was not asked to.")

        until = self._clock.seconds() + FETCHING
        clock: Any = self._clock

        async def fetch(event_id: str) -> Any:
            if (left := until - self._clock.seconds()) <= 0:
                return None
            try:
                return await spawn(self._api.event(server, event_id)).addTimeout(left, clock)
            except TimeoutError:
                logger.info("%s takes too long to give %s", server, event_id)
            except FederationError as error:
                logger.info("%s does not give %s: %s", server, event_id, error.message)
            return None

        seen = await self._check.look(server, join, answer.state, answer.auth_chain, fetch)
        del answer
        room_id, version = join.room_id, join.room_version
        state = {key: event.event_id for key, event in seen.state.items()}
        for piece in _pieces(seen.outliers):
            await self._receive(Received(room_id, version, outliers=piece))
        del seen
        # The server that let us in tells the others of it.
        entered = ReceivedEvent(join, state_before=state, relay=False)
        receipt = await self._receive(Received(room_id, version, (entered,), kind=Kind.JOIN))
        fate, why = receipt.fates[0]
        if fate not in (Fate.ACCEPTED, Fate.KNOWN):
            raise forbidden(why)
        logger.info("%s has entered %s by %s", join.sender, room_id, server)
        return Joined(event_id=join.event_id, position=receipt.position)


def version_of(server: str, template: Template) -> RoomVersion:
    """The version of the room for which `server` proposes an event. Raises Refused where it is none of ours.

    Where the server does not say, it is 1 or 2. Should the template have the form of later versions, it cannot be
    these: 3 stands for them until the room's m.room.create tells.
    """
    identifier = template.room_version
    if identifier is None:
        references = template.event.get("prev_events")
        has_later_form = isinstance(references, list) and any(isinstance(each, str) for each in references)
        identifier = "3" if has_later_form else "1"
    version = ROOM_VERSIONS.get(identifier)
    if version is None:
        error = incompatible_room_version(identifier[:32])
        raise Refused(server, error.code, error.errcode, error.message, {"room_version": identifier[:32]})
    return version


def _of_version_told(join: Event, answer: JoinAnswer) -> Event:
    """The join in a room of version 2, where that and not version 1 is what the room's m.room.create says: their events
    look the same."""
    for event in answer.state:
        if event.get("type") == EventTypes.CREATE and join.room_version == ROOM_VERSIONS["1"]:
            content = event.get("content")
            told = content.get("room_version") if isinstance(content, dict) else None
            return Event.from_json(join.raw, ROOM_VERSIONS["2"], event_id=join.event_id) if told == "2" else join
    return join


def _pieces(outliers: list[Outlier]) -> Iterator[list[Outlier]]:
    for start in range(0, len(outliers), PIECE):
        yield outliers[start : start + PIECE]
