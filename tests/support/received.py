"""Events as other servers send them, and rooms that others take part in, for tests of what becomes of them here.

A `Graph` is a room as the servers know it together: it makes events anywhere in it, with the state that they find, and
hands them over as its test pleases. It starts with the events of a room that this server has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Protocol

from synapse.api.room_versions import ROOM_VERSIONS, EventFormat, RoomVersion
from synapse.app._homeserver import Homeserver
from synapse.events.auth import cited_types_for
from synapse.events.builder import build
from synapse.events.event import Event, StateKey
from synapse.events.hashes import reference_hash
from synapse.storage.database import Database, Transaction
from synapse.storage.persist_events import Fate, Kind, Outlier, Receipt, Received, ReceivedEvent
from tests.support.room_dag import Dag
from tests.support.rooms import SERVER, SIGNER, Cluster

EVE, MALLORY = "@eve:elsewhere", "@mallory:elsewhere"


class Server(Protocol):
    """What events are handed to, and what time it is there, in milliseconds."""

    async def receive(self, received: Received) -> Receipt: ...

    @property
    def now(self) -> Callable[[], int]: ...


class Whole:
    """A whole homeserver, as which events are handed to one of its processes."""

    def __init__(self, hs: Homeserver) -> None:
        self._hs = hs
        clock = count(hs.rooms.now() - 1_000_000)
        self.now = lambda: next(clock)

    async def receive(self, received: Received) -> Receipt:
        receipt = await self._hs.rooms.receive(received)
        await self._hs.rooms.caught_up(receipt.position)
        return receipt


class Graph:
    """A room's events, those that this server lacks too."""

    def __init__(self, version: RoomVersion, room_id: str, events: Sequence[Event], cluster: Server) -> None:
        self.version = version
        self.room_id = room_id
        self.cluster = cluster
        self.dag = Dag(version, events)

    @classmethod
    async def of(cls, cluster: Cluster, db: Database, room_id: str) -> Graph:
        """Of a room as this server knows it."""
        head = await cluster.main.heads.get(room_id)
        assert head is not None
        rows = await db.read("events", _events, room_id)
        events = [Event.from_json(json, head.version, event_id=event_id) for event_id, json in rows]
        return cls(head.version, room_id, events, cluster)

    @classmethod
    def elsewhere(cls, cluster: Server, *joined: str, version: str = "11", visibility: str | None = None) -> Graph:
        """A public room that EVE has made, with these members, of which this server knows nothing."""
        room_version = ROOM_VERSIONS[version]
        create = build(
            room_version,
            room_id=None if room_version.room_id_from_create else f"!room{cluster.now()}:elsewhere",
            sender=EVE,
            type="m.room.create",
            content={"room_version": version, **({"creator": EVE} if not room_version.implicit_creator else {})},
            state_key="",
            prev_events=[],
            auth_events=[],
            depth=1,
            origin_server_ts=cluster.now(),
            server_name=SERVER,
            signing_key=SIGNER.key,
        )
        graph = cls(room_version, create.room_id, [create], cluster)
        graph.join(EVE)
        privileged = {} if room_version.privileged_creators else {EVE: 100}
        graph.make(EVE, "m.room.power_levels", {"users": {**privileged, MALLORY: 50}}, state_key="")
        graph.make(EVE, "m.room.join_rules", {"join_rule": "public"}, state_key="")
        if visibility is not None:
            graph.make(EVE, "m.room.history_visibility", {"history_visibility": visibility}, state_key="")
        graph.make(EVE, "m.room.name", {"name": "Elsewhere"}, state_key="")
        for user_id in joined:
            graph.join(user_id)
        return graph

    async def enter(self, user_id: str) -> Event:
        """One of our users joins by one of the room's servers, which tells this one its state."""
        join = self.join(user_id)
        state = self.before(join)
        await self.give(outliers=self.chain(state.values()))
        assert await self.give(self.with_state(join), kind=Kind.JOIN) == [Fate.ACCEPTED]
        return join

    def chain(self, event_ids: Iterable[str]) -> list[Event]:
        """These events and their auth chains."""
        found: dict[str, Event] = {}
        queue = list(event_ids)
        while queue:
            event = self.dag.events[queue.pop()]
            if event.event_id not in found:
                found[event.event_id] = event
                queue += event.auth_event_ids
        return list(found.values())

    def make(
        self,
        sender: str,
        event_type: str,
        content: dict[str, Any],
        *,
        state_key: str | None = None,
        after: Sequence[str] | None = None,
        redacts: str | None = None,
        state: Mapping[StateKey, str] | None = None,
        depth: int | None = None,
    ) -> Event:
        """A new event after these (the present extremities); `state` is what it cites of, where that is a lie."""
        previous = sorted(self.dag.extremities) if after is None else list(after)
        before = self.dag.state_at(previous) if state is None else state
        keys = cited_types_for(self.version, event_type, sender, state_key, content)
        cited = [before[key] for key in keys if key in before]
        hashes = None
        if self.version.event_format is EventFormat.V1:
            known = (self.dag.events[event_id] for event_id in {*previous, *cited})
            hashes = {event.event_id: reference_hash(event.raw, self.version) for event in known}
        event = build(
            self.version,
            room_id=self.room_id,
            sender=sender,
            type=event_type,
            content=content,
            state_key=state_key,
            prev_events=previous,
            auth_events=cited,
            depth=1 + max(self.dag.events[prev].depth for prev in previous) if depth is None else depth,
            origin_server_ts=self.cluster.now(),
            server_name=SERVER,
            signing_key=SIGNER.key,
            redacts=redacts,
            reference_hashes=hashes,
        )
        self.dag.add(event)
        return event

    def join(self, user_id: str, **where: Any) -> Event:
        return self.make(user_id, "m.room.member", {"membership": "join"}, state_key=user_id, **where)

    def say(self, sender: str, body: str = "hi", **where: Any) -> Event:
        return self.make(sender, "m.room.message", {"msgtype": "m.text", "body": body}, **where)

    def topic(self, sender: str, topic: str, **where: Any) -> Event:
        return self.make(sender, "m.room.topic", {"topic": topic}, state_key="", **where)

    def reject(self, event: Event) -> None:
        """The event is forbidden, as all servers find: it changes nothing for what comes after it."""
        self.dag.after[event.event_id] = self.dag.before[event.event_id]

    def before(self, event: Event) -> dict[StateKey, str]:
        """The state that an event finds."""
        return self.dag.before[event.event_id]

    async def give(
        self, *events: Event | ReceivedEvent, kind: Kind = Kind.TIMELINE, outliers: Sequence[Event | Outlier] = ()
    ) -> list[Fate]:
        """Hand events over; what becomes of them."""
        return [fate for fate, _why in (await self.receipt(*events, kind=kind, outliers=outliers)).fates]

    async def receipt(
        self, *events: Event | ReceivedEvent, kind: Kind = Kind.TIMELINE, outliers: Sequence[Event | Outlier] = ()
    ) -> Receipt:
        received = [event if isinstance(event, ReceivedEvent) else ReceivedEvent(event) for event in events]
        kept = [event if isinstance(event, Outlier) else Outlier(event) for event in outliers]
        return await self.cluster.receive(Received(self.room_id, self.version, received, kept, kind))

    def with_state(self, event: Event, **fields: Any) -> ReceivedEvent:
        """An event, with the state that it finds."""
        return ReceivedEvent(event, state_before=self.before(event), **fields)


def _events(txn: Transaction, room_id: str) -> list[tuple[str, str]]:
    txn.execute("SELECT event_id, json FROM events WHERE room_id = %s AND NOT outlier ORDER BY depth", (room_id,))
    return [(event_id, json) for event_id, json in txn.rows()]
