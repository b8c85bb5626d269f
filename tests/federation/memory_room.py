"""A room in memory, with what the pipeline stands on: events, states, heads, and a writer that makes check 5 but
resolves nothing. And another server that answers what a test has it answer, and counts what it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.task import Clock

from synapse.api.errors import AuthError
from synapse.api.room_versions import RoomVersion, room_version
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.federation.errors import Unreachable
from synapse.federation.receiving.ancestors import Ancestors
from synapse.federation.receiving.checks import EventChecks
from synapse.federation.receiving.gates import Gates
from synapse.federation.receiving.meeting import Meeting
from synapse.federation.receiving.pipeline import Pipeline
from synapse.state.heads import Head
from synapse.storage.event_places import EventPlace
from synapse.storage.events import StoredEvent
from synapse.storage.persist_events import Fate, PushAction, Receipt, Received
from tests.federation.peers import KeysOf, Peer, at_once

HERE = "here.test"


class Answer(NamedTuple):
    """What `state` and `state_ids` answer."""

    pdus: Sequence[Any] = ()
    auth_chain: Sequence[Any] = ()
    pdu_ids: Any = ()
    auth_chain_ids: Any = ()


class Elsewhere:
    """The other servers: an `Asking`. `has` is what they give by id; functions answer the rest. Those that are `away`
    answer nothing."""

    def __init__(self) -> None:
        self.has: dict[str, Event] = {}
        self.away: set[str] = set()
        self.asked: list[tuple[str, ...]] = []
        self.before: Callable[[Sequence[str]], Sequence[Any]] = lambda latest: []
        self.state_ids_at: Callable[[str], Answer] | None = None
        self.auth_chain_of: Callable[[str], Sequence[Any]] = lambda event_id: []

    def count(self, kind: str) -> int:
        return sum(asked[0] == kind for asked in self.asked)

    def give(self, *events: Event) -> None:
        self.has.update((event.event_id, event) for event in events)

    async def missing_events(
        self, destination: str, room_id: str, *, earliest: Collection[str], latest: Collection[str], limit: int
    ) -> Sequence[Any]:
        self._ask("missing", destination, *latest)
        return self.before(list(latest))

    async def event(self, destination: str, event_id: str) -> Any:
        self._ask("event", destination, event_id)
        if event_id not in self.has:
            raise Unreachable(destination, "It is not there.")
        return self.has[event_id].raw

    async def event_auth(self, destination: str, room_id: str, event_id: str) -> Sequence[Any]:
        self._ask("event_auth", destination, event_id)
        return self.auth_chain_of(event_id)

    async def state(self, destination: str, room_id: str, event_id: str) -> Answer:
        self._ask("state", destination, event_id)
        ids = self._at(destination, event_id)
        pdus = [self.has[i].raw for i in ids.pdu_ids if i in self.has]
        return Answer(pdus, [self.has[i].raw for i in ids.auth_chain_ids if i in self.has])

    async def state_ids(self, destination: str, room_id: str, event_id: str) -> Answer:
        self._ask("state_ids", destination, event_id)
        return self._at(destination, event_id)

    def _ask(self, kind: str, destination: str, *event_ids: str) -> None:
        self.asked.append((kind, destination, *event_ids))
        if destination in self.away:
            raise Unreachable(destination, "It is away.")

    def _at(self, destination: str, event_id: str) -> Answer:
        if self.state_ids_at is None:
            raise Unreachable(destination, "It does not tell.")
        return self.state_ids_at(event_id)


class MemoryRoom:
    """A room of `alice@here.test` and of `eve` of each peer, who have joined."""

    def __init__(self, version: str = "11", *peers: Peer) -> None:
        self.version: RoomVersion = room_version(version)
        self.home = Peer(HERE)
        self.peers = {peer.name: peer for peer in (self.home, *peers)}
        self.stored: dict[str, StoredEvent] = {}
        self.forgotten: set[str] = set()  # what is stored and not in memory
        self.groups: list[dict[StateKey, str]] = [{}]
        self.extremities: dict[str, int] = {}
        self.writes: list[Received] = []
        self.elsewhere = Elsewhere()
        self.clock = Clock()
        self.told: list[str] = []
        self.objections: dict[str, str] = {}
        self.room_id = ""
        self._found()

    # -- making events -----------------------------------------------------------------------------------------------

    def _found(self) -> None:
        alice = self.home.user("alice")
        by_create = self.version.room_id_from_create
        content: dict[str, Any] = {"room_version": self.version.identifier}
        if not self.version.implicit_creator:
            content["creator"] = alice
        room_id = None if by_create else f"!room:{HERE}"
        create = self.home.event(
            self.version, room_id, sender=alice, type="m.room.create", content=content, state_key="", prev=(), depth=1
        )
        self.room_id = create.room_id
        self.put(create)
        self.put(self.make("m.room.member", {"membership": "join"}, alice, sender=alice))
        levels = {} if self.version.privileged_creators else {alice: 100}
        self.put(self.make("m.room.power_levels", {"users": levels}, "", sender=alice))
        self.put(self.make("m.room.join_rules", {"join_rule": "public"}, "", sender=alice))
        for peer in self.peers.values():
            if peer is not self.home:
                self.put(self.make("m.room.member", {"membership": "join"}, peer.user(), sender=peer.user()))

    def make(
        self,
        type: str = "m.room.message",
        content: dict[str, Any] | None = None,
        state_key: str | None = None,
        *,
        sender: str,
        prev: Sequence[str] | None = None,
        auth_events: Sequence[str] | None = None,
        **more: Any,
    ) -> Event:
        """An event by a user of one of the servers, that comes after the room's end, unless said otherwise."""
        content = {"body": "hello"} if content is None else content
        cited = auth.cited_types_for(self.version, type, sender, state_key, content)
        present = self.present
        peer = self.peers[sender.partition(":")[2]]
        peer.knows.update((i, each.event) for i, each in self.stored.items())
        return peer.event(
            self.version,
            self.room_id,
            sender=sender,
            type=type,
            content=content,
            state_key=state_key,
            prev=list(self.extremities) if prev is None else prev,
            auth=[present[key] for key in cited if key in present] if auth_events is None else auth_events,
            **more,
        )

    def chain(self, length: int, sender: str, start: Sequence[str] | None = None) -> list[Event]:
        """Messages one after another."""
        made: list[Event] = []
        for number in range(length):
            prev = [made[-1].event_id] if made else start
            made.append(self.make(content={"body": f"{number}"}, sender=sender, prev=prev, depth=20 + number))
        return made

    def put(self, event: Event, *, outlier: bool = False, rejected: str | None = None) -> None:
        """Store an event at the room's end."""
        state = dict(self.present)
        if event.is_state() and rejected is None:
            state[event.key] = event.event_id
        if outlier:
            self.stored[event.event_id] = StoredEvent(event, 0, None, outlier=True, rejected=rejected)
            return
        self._store(event, state, rejected)

    def _store(self, event: Event, state: dict[StateKey, str], rejected: str | None) -> None:
        self.groups.append(state)
        group = len(self.groups) - 1
        self.stored[event.event_id] = StoredEvent(event, group, group, rejected=rejected)
        if rejected is None:
            for event_id in event.prev_event_ids:
                self.extremities.pop(event_id, None)
            self.extremities[event.event_id] = event.depth

    @property
    def present(self) -> dict[StateKey, str]:
        last = next(reversed(self.extremities), None)
        return {} if last is None else self.groups[self.stored[last].state_group or 0]

    # -- what the pipeline stands on ---------------------------------------------------------------------------------

    def pipeline(self) -> Pipeline:
        """The pipeline into this room."""
        this: Any = self
        pipeline = Pipeline(this, this, this, self.audience, this, self.write, self.caught_up, self.clock)
        checks = EventChecks(KeysOf(*self.peers.values()), at_once)
        pipeline.ancestors = Ancestors(
            self.elsewhere,
            checks,
            self,
            Meeting(HERE, this, this),
            Gates(self.clock),
            pipeline.keep,
            self.hosts,
            self.ready,
            self.clock,
        )
        return pipeline

    async def hosts(self, room_id: str) -> Mapping[str, int]:
        return dict.fromkeys(self.peers, 1)

    async def ready(self, servers: Sequence[str]) -> Sequence[str]:
        return servers

    async def get(self, room_id: str) -> Head | None:
        return Head(room_id, self.version, dict(self.extremities), 0, 0) if room_id == self.room_id else None

    def remembered(self, event_ids: Collection[str]) -> dict[str, StoredEvent]:
        return {i: self.stored[i] for i in event_ids if i in self.stored and i not in self.forgotten}

    async def get_many(self, event_ids: Collection[str]) -> dict[str, StoredEvent]:
        return {i: self.stored[i] for i in event_ids if i in self.stored}

    async def with_auth_chains(self, event_ids: Collection[str]) -> dict[str, StoredEvent]:
        found: dict[str, StoredEvent] = {}
        pending = list(event_ids)
        while pending:
            each = self.stored.get(pending.pop())
            if each is not None and each.event.event_id not in found:
                found[each.event.event_id] = each
                pending += each.event.auth_event_ids
        return found

    async def in_auth_chains(self, event_ids: Collection[str], candidates: Collection[str]) -> set[str]:
        cited = [i for each in event_ids for i in self.stored[each].event.auth_event_ids]
        return set(candidates) & (await self.with_auth_chains(cited)).keys()

    async def current(self, room_id: str, keys: Collection[StateKey]) -> dict[StateKey, StoredEvent]:
        present = self.present
        return {key: self.stored[present[key]] for key in keys if key in present}

    async def at_group_ids(self, group: int) -> dict[StateKey, str]:
        return dict(self.groups[group])

    async def places(self, event_ids: Collection[str]) -> dict[str, EventPlace]:
        return {
            i: EventPlace(each.event.room_id, each.event.type, each.event.state_key, each.rejected is not None)
            for i in event_ids
            if (each := self.stored.get(i)) is not None
        }

    async def audience(self, event: Event, state: Mapping[StateKey, StoredEvent]) -> tuple[str, Collection[PushAction]]:
        self.told.append(event.event_id)
        return "main", [PushAction(self.home.user("alice"), True, False)]

    async def objection(self, event: Event, state: Mapping[StateKey, StoredEvent]) -> str | None:
        return self.objections.get(event.event_id)

    async def caught_up(self, position: int) -> None:
        pass

    async def write(self, received: Received) -> Receipt:
        self.writes.append(received)
        for outlier in received.outliers:
            assert all(i in self.stored for i in outlier.event.auth_event_ids), "outliers come in order"
            self.put(outlier.event, outlier=True, rejected=outlier.rejected)
        return Receipt(tuple([self._write_one(each) for each in received.events]), len(self.groups))

    def _write_one(self, new: Any) -> tuple[Fate, str]:
        event = new.event
        known = self.stored.get(event.event_id)
        if known is not None and not known.outlier:
            return Fate.KNOWN, ""
        if new.state_before is None:
            groups = [self.stored[i].state_group for i in event.prev_event_ids]
            assert all(group is not None for group in groups), "the state before is not known"
            state = dict(self.groups[groups[0] or 0])
        else:
            assert set(new.state_before.values()) <= self.stored.keys(), "a state of events that are not here"
            state = dict(new.state_before)
        rejected = new.rejected
        if rejected is None:
            try:
                auth.check(event, {key: self.stored[i].event for key, i in state.items()})
            except AuthError as error:
                rejected = error.message
        if event.is_state() and rejected is None:
            state[event.key] = event.event_id
        self._store(event, state, rejected)
        if rejected is not None:
            return Fate.REJECTED, rejected
        return (Fate.SOFT_FAILED, new.soft_failed) if new.soft_failed else (Fate.ACCEPTED, "")
