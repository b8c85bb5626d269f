"""What is missing before an event, fetched from other servers: its predecessors, the state where these end, and the
auth events that it cites.

Theory of operation. An event comes whose predecessors are not here. They are asked for (`fill`), a few rounds of them;
what comes back counts only as far as it leads from the event to what is here. Where it does not, the oldest that came
has a gap before it: its state is asked for at the missing predecessors (`state_before`), as ids, and of these only what
is not here is fetched. Everything that comes passes checks 1 to 4; nothing is kept but what is referred to. All of it
is bounded by the `Allowance` of the batch: a server that wants this one to go on asking does not get far.

Who has sent an event need not tell what came before it: it may be out of reach just now, or not want to, because the
event is the one by which this server's last user was put out of the room. Then others of the room are asked.

Server-server API, "Backfilling and retrieving missing events", "Retrieving events", "Retrieving event authorisation
information".
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from synapse.api.constants import Membership
from synapse.api.identifiers import domain_of, is_event_id
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.federation.errors import BadAnswer, FederationError
from synapse.federation.hosts import by_size
from synapse.federation.receiving.faults import Unfit, may_answer_later
from synapse.federation.receiving.judging import judge_many, unknown_auth_events
from synapse.federation.receiving.order import ancestors_first, predecessors_of
from synapse.storage.persist_events import Outlier

if TYPE_CHECKING:
    from synapse.federation.answers import RoomState, RoomStateIds
    from synapse.federation.api import FederationApi
    from synapse.federation.receiving.checks import EventChecks
    from synapse.federation.receiving.gates import Gates
    from synapse.federation.receiving.meeting import Meeting
    from synapse.federation.receiving.work import Work
    from synapse.storage.event_places import EventPlace, EventPlacesStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

ROUNDS: Final = 10
"""How often a server is asked what came before an event."""

PER_ROUND: Final = 50
"""Predecessors that are asked for in one go; others answer with as many or fewer."""

MAX_LATEST: Final = 20
"""Events whose predecessors are asked for in one go."""

OTHERS: Final = 3
"""So many further servers of the room are asked, the largest that answer, where neither the one that has sent an event
nor its sender's tells what is missing."""

MAX_NAMED: Final = 50
"""So many are looked at for that."""

MAX_STATE: Final = 100_000
"""Events of a state and of its auth chain, all together."""

MAX_MISSING: Final = 10_000
"""Those of them that are not here."""

SINGLY: Final = 20
"""Events of a state that are fetched one by one; where more are missing, the state is fetched whole."""

MAX_AUTH_CHAIN: Final = 10_000
"""Events of an auth chain."""

T = TypeVar("T")
StateIds = dict[StateKey, str]


class Ancestors:
    """Fetches what is missing.

    :param keep: writes outliers, so that states can refer to them.
    :param hosts: how many members the servers in a room have.
    :param ready: those of the servers that are not left alone just now.
    """

    def __init__(
        self,
        api: FederationApi,
        checks: EventChecks,
        places: EventPlacesStore,
        meeting: Meeting,
        gates: Gates,
        keep: Callable[[Work], Awaitable[None]],
        hosts: Callable[[str], Awaitable[Mapping[str, int]]],
        ready: Callable[[Sequence[str]], Awaitable[Collection[str]]],
        clock: Clock,
    ) -> None:
        self._api = api
        self._checks = checks
        self._places = places
        self._meeting = meeting
        self._gates = gates
        self._keep = keep
        self._hosts = hosts
        self._ready = ready
        self._clock = clock

    # -- predecessors ------------------------------------------------------------------------------------------------

    async def fill(self, work: Work, event: Event, extremities: Collection[str]) -> list[Event]:
        """The events that lead from the event back to what is here, or to a gap, ancestors first. They have passed
        checks 1 to 3. Empty where the other server has none of its predecessors, or does not give them."""
        found: dict[str, Event] = {}
        wanted = set(work.gaps(event))
        latest = [event.event_id]
        for _ in range(ROUNDS):
            fresh = await self._round(work, event, extremities, latest)
            reached = _leading_from(wanted, fresh, found)
            if not reached:
                break
            work.allowance.fetched(len(reached))
            await work.look_up(work.cited_by(reached))
            open_ends = [each for each in reached if any(i not in found for i in work.gaps(each))]
            if not open_ends:
                break
            wanted = {i for each in open_ends for i in work.gaps(each) if i not in found}
            latest = [each.event_id for each in open_ends][:MAX_LATEST]
        return ancestors_first(found.values(), predecessors_of)

    async def _round(
        self, work: Work, event: Event, extremities: Collection[str], latest: Sequence[str]
    ) -> dict[str, Event]:
        async def ask(server: str) -> Sequence[Any]:
            found = await self._api.missing_events(
                server, work.room_id, earliest=extremities, latest=latest, limit=PER_ROUND
            )
            if not found:
                raise BadAnswer(server, f"{server} knows of nothing that came before the event.")
            return found

        try:
            raws = await self._ask(work, event, ask)
        except FederationError as error:
            logger.info("What came before %s is not told: %s", event.event_id, error)
            return {}
        events = await self._checks.check_many(raws[:PER_ROUND], work.version, room_id=work.room_id, origin=work.origin)
        return {each.event_id: each for each in events if each.event_id != event.event_id}

    # -- states ------------------------------------------------------------------------------------------------------

    async def state_before(self, work: Work, event: Event, gaps: Sequence[str]) -> StateIds:
        """The state before an event whose predecessors `gaps` are missing: where the states after all of them meet."""
        states = [await self._state_after(work, event, event_id) for event_id in gaps]
        return await self._meeting.meet(work, event, states)

    async def _state_after(self, work: Work, event: Event, event_id: str) -> StateIds:
        """The state after a predecessor that is missing, which becomes an outlier if it is a part of that state."""
        state = await self.state_at(work, event, event_id)
        await work.look_up([event_id])
        if work.find(event_id) is None:
            await self._fetch_singly(work, event, [event_id])
        found = work.find(event_id)
        if found is None or found.event.room_id != work.room_id:
            raise Unfit(f"The event comes after {event_id}, which this server cannot get.")
        if found.event.is_state() and found.rejected is None:
            await self._keep(work)
            state[found.event.key] = event_id
        elif not found.event.is_state():
            work.outliers.pop(event_id, None)  # nothing refers to it as a part of a state
        return state

    async def state_at(self, work: Work, event: Event, event_id: str) -> StateIds:
        """The room's state before the event `event_id`, as another server tells it, but for what is not allowed by its
        own auth events. What was not here is written as outliers. `event` is the one for whose sake that is."""

        async def ask(server: str) -> RoomStateIds:
            return await self._api.state_ids(server, work.room_id, event_id)

        try:
            ids = await self._ask(work, event, ask, state=True)
        except FederationError as error:
            raise Unfit(f"The state of the room before {event_id} is not told: {error}") from error
        state_ids = [each for each in ids.pdu_ids if is_event_id(each)]
        wanted = {*state_ids, *(each for each in ids.auth_chain_ids if is_event_id(each))}
        if len(wanted) > MAX_STATE:
            raise Unfit("The state of the room is too large for this server.")
        places = await self._places.places(wanted)
        missing = [each for each in wanted if each not in places]
        if len(missing) > MAX_MISSING:
            raise Unfit("Too much of the state of the room is missing for this server to fetch it.")
        if missing:
            await self._fetch_state(work, event, event_id, missing)
            await self._keep(work)
            places.update(await self._places.places(missing))
        return self._state_of(work, state_ids, places)

    def _state_of(self, work: Work, state_ids: Sequence[str], places: dict[str, EventPlace]) -> StateIds:
        state: StateIds = {}
        for event_id in state_ids:
            place = places.get(event_id)
            if place is None or place.room_id != work.room_id or place.state_key is None or place.is_rejected:
                logger.info("%s is no part of the state of %s, whatever %s says", event_id, work.room_id, work.origin)
            else:
                state.setdefault((place.type, place.state_key), event_id)
        if auth.CREATE_KEY not in state:
            raise Unfit("The state of the room is not told: it does not begin with an m.room.create event.")
        return state

    async def _fetch_state(self, work: Work, event: Event, at: str, missing: Sequence[str]) -> None:
        if len(missing) <= SINGLY:
            await self._fetch_singly(work, event, missing)
            return

        async def ask(server: str) -> RoomState:
            return await self._api.state(server, work.room_id, at)

        try:
            state = await self._ask(work, event, ask, large=True)
        except FederationError as error:
            raise Unfit(f"The state of the room before {at} is not told: {error}") from error
        if len(state.pdus) + len(state.auth_chain) > MAX_STATE:
            raise Unfit("The state of the room is too large for this server.")
        wanted = set(missing)
        events: list[Event] = []
        for raws in (state.auth_chain, state.pdus):
            some = await self._checks.those_of(raws, work.version, wanted)
            events += await self._checks.check_many(some, work.version, room_id=work.room_id, origin=work.origin)
        await self._add_outliers(work, [each for each in events if each.event_id in wanted])

    # -- auth events -------------------------------------------------------------------------------------------------

    async def auth_chain(self, work: Work, event: Event) -> None:
        """Fetch the auth events that an event cites and that are not here, with what these cite."""
        if not unknown_auth_events(event, work.create_id, work.find):
            return

        async def ask(server: str) -> Sequence[Any]:
            return await self._api.event_auth(server, work.room_id, event.event_id)

        try:
            raws = await self._ask(work, event, ask, large=True)
        except FederationError as error:
            raise Unfit(f"What allows the event is not told: {error}") from error
        events = await self._checks.check_many(
            raws[:MAX_AUTH_CHAIN], work.version, room_id=work.room_id, origin=work.origin
        )
        chain = {each.event_id: each for each in events}
        await work.look_up(chain)
        await self._add_outliers(work, _chain_of(event, chain, work))

    async def _fetch_singly(self, work: Work, event: Event, event_ids: Iterable[str]) -> None:
        """Fetch events by their ids. Those that cannot be had, or have no right to be there, are not there then."""
        found: list[Event] = []
        for event_id in event_ids:

            async def ask(server: str, event_id: str = event_id) -> Any:
                return await self._api.event(server, event_id)

            try:
                raw = await self._ask(work, event, ask, others=False)  # who has told the state has what is in it
            except FederationError as error:
                logger.info("%s cannot be fetched: %s", event_id, error)
                continue
            events = await self._checks.check_many([raw], work.version, room_id=work.room_id, origin=work.origin)
            found += [each for each in events if each.event_id == event_id]
        await self._add_outliers(work, found)

    async def _add_outliers(self, work: Work, events: Sequence[Event]) -> None:
        """Judge events by what they cite, and have them written as outliers; those that cite what is not to be had are
        left."""
        await work.look_up(i for each in events for i in (each.event_id, *each.auth_event_ids))
        if work.create_id is not None:
            await work.look_up([work.create_id])
        new = [each for each in events if work.find(each.event_id) is None]
        for each, rejected in await judge_many(self._clock, new, work.create_id, work.find):
            work.outliers[each.event_id] = Outlier(each, rejected)

    # -- whom to ask -------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        work: Work,
        event: Event,
        ask: Callable[[str], Coroutine[Any, Any, T]],
        *,
        large: bool = False,
        state: bool = False,
        others: bool = True,
    ) -> T:
        """Asks servers in turn until one answers. Raises FederationError; Unfit where no more is to be asked for."""
        try:
            if state:
                self._gates.state(work.origin)
            return await self._ask_each(work, event, ask, large, others)
        except Unfit:
            work.fell_short = True
            raise

    async def _ask_each(
        self, work: Work, event: Event, ask: Callable[[str], Coroutine[Any, Any, T]], large: bool, others: bool
    ) -> T:
        problem: FederationError | None = None
        async for server in self._servers(work, event, others):
            if large:
                self._gates.whole(work.origin)
            try:
                async with self._gates.passed(work.origin, large=large):
                    work.allowance.request()  # now, since the time may have passed while it waited
                    answer = await work.allowance.bounded(ask(server))
                work.told_by = server
                return answer
            except FederationError as error:
                problem = problem or error
                # Whether others may answer later does not matter: in large rooms there is always one that is away.
                if server in (work.origin, domain_of(event.sender)):
                    work.fell_short |= may_answer_later(error)
        # Other events come again with those that refer to them. What comes after this one, nobody sends to this server.
        work.fell_short |= self._puts_us_out(event)
        raise problem or FederationError(work.origin, "There is no server to ask.")

    def _puts_us_out(self, event: Event) -> bool:
        """Whether the event has a user of this server leave the room, perhaps the last one."""
        is_ours = domain_of(event.state_key or "") == self._meeting.server_name
        return is_ours and event.membership in (Membership.LEAVE, Membership.BAN)

    async def _servers(self, work: Work, event: Event, others: bool) -> AsyncIterator[str]:
        """Whom to ask: the server that has told something already, the one that sent the event, the one that its sender
        is of, then others of the room, unless they have all been asked in vain for this batch."""
        asked = {self._meeting.server_name}
        for server in (work.told_by, work.origin, domain_of(event.sender)):
            if server is not None and server not in asked:
                asked.add(server)
                yield server
        if others and not work.others_know_nothing:
            further = [server for server in by_size(await self._hosts(work.room_id)) if server not in asked][:MAX_NAMED]
            ready = set(await self._ready(further))
            for server in [server for server in further if server in ready][:OTHERS]:
                yield server
            work.others_know_nothing = True


def _leading_from(wanted: set[str], fresh: dict[str, Event], found: dict[str, Event]) -> list[Event]:
    """Those of the fresh events that can be reached from the wanted ones, which are added to `found`."""
    reached: list[Event] = []
    pending = list(wanted)
    while pending:
        event = fresh.get(pending.pop())
        if event is not None and event.event_id not in found:
            found[event.event_id] = event
            reached.append(event)
            pending += event.prev_event_ids
    return reached


def _chain_of(event: Event, chain: dict[str, Event], work: Work) -> list[Event]:
    """What of the chain the event cites, directly or not, as far as it is not here."""
    reached: dict[str, Event] = {}
    pending = unknown_auth_events(event, work.create_id, work.find)
    while pending:
        event_id = pending.pop()
        cited = chain.get(event_id)
        if cited is not None and event_id not in reached and work.find(event_id) is None:
            reached[event_id] = cited
            pending += cited.auth_event_ids
    return list(reached.values())
