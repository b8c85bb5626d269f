"""Events as other servers send them, and rooms that others take part in, for tests of what becomes of them here.

A `Graph` is a room as the servers know it together: it makes events anywhere in it, with the state that they find, and
hands them over as its test pleases. It starts with the events of a room that this server has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synapse.api.room_versions import RoomVersion
from synapse.events.auth import cited_types_for
from synapse.events.builder import build
from synapse.events.event import Event, StateKey
from synapse.storage.database import Database, Transaction
from synapse.storage.persist_events import Fate, Kind, Outlier, Receipt, Received, ReceivedEvent
from tests.support.room_dag import Dag
from tests.support.rooms import SERVER, SIGNER, Cluster

EVE, MALLORY = "@eve:elsewhere", "@mallory:elsewhere"


class Graph:
    """A room's events, those that this server lacks too."""

    def __init__(self, version: RoomVersion, room_id: str, events: Sequence[Event], cluster: Cluster) -> None:
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
    ) -> Event:
        """A new event after these (the present extremities); `state` is what it cites of, where that is a lie."""
        previous = sorted(self.dag.extremities) if after is None else list(after)
        before = self.dag.state_at(previous) if state is None else state
        keys = cited_types_for(self.version, event_type, sender, state_key, content)
        event = build(
            self.version,
            room_id=self.room_id,
            sender=sender,
            type=event_type,
            content=content,
            state_key=state_key,
            prev_events=previous,
            auth_events=[before[key] for key in keys if key in before],
            depth=1 + max(self.dag.events[prev].depth for prev in previous),
            origin_server_ts=self.cluster.now(),
            server_name=SERVER,
            signing_key=SIGNER.key,
            redacts=redacts,
        )
        self.dag.add(event)
        return event

    def join(self, user_id: str, **where: Any) -> Event:
        return self.make(user_id, "m.room.member", {"membership": "join"}, state_key=user_id, **where)

    def say(self, sender: str, body: str = "hi", **where: Any) -> Event:
        return self.make(sender, "m.room.message", {"msgtype": "m.text", "body": body}, **where)

    def topic(self, sender: str, topic: str, **where: Any) -> Event:
        return self.make(sender, "m.room.topic", {"topic": topic}, state_key="", **where)

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
