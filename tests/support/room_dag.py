"""What a room's events by themselves say of it: computed from the whole graph, without a word of any other table.

`check_room` holds the tables against that: the events refer to events that exist, are hashed and signed, each was
allowed by those it cites and by the state before it, the forward extremities are those of the graph, and the room's
present state and every state group are what resolving the graph from its beginning gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from signedjson.key import get_verify_key

from synapse.api.constants import EventTypes
from synapse.api.room_versions import EventFormat, RoomVersion, room_version
from synapse.events import auth, hashes, signing
from synapse.events.event import Event, StateKey
from synapse.events.validation import check_pdu
from synapse.state import resolution
from synapse.state.resolution import Loaded, NeedEvents
from synapse.state.resolution_graph import in_chain_of
from synapse.storage.database import Database, Transaction
from synapse.storage.state import StateStore

StateMap = dict[StateKey, str]


class Dag:
    """A room's events, in an order in which each comes after those it refers to."""

    def __init__(self, version: RoomVersion, events: Sequence[Event]) -> None:
        self.version = version
        self.events: dict[str, Event] = {}
        self.create = events[0]
        self.after: dict[str, StateMap] = {}
        self.before: dict[str, StateMap] = {}
        self.rejected: set[str] = set()
        self._resolved: dict[tuple[int, ...], StateMap] = {}
        for event in events:
            self.add(event)

    def add(self, event: Event, *, rejected: bool = False) -> None:
        """One event more. One that is rejected changes nothing."""
        self.events[event.event_id] = event
        self.before[event.event_id] = before = self.state_at(event.prev_event_ids)
        changes = event.is_state() and not rejected
        self.after[event.event_id] = {**before, event.key: event.event_id} if changes else before
        if rejected:
            self.rejected.add(event.event_id)

    def remove(self, event: Event) -> None:
        """An event that none refers to, as if it had never been."""
        for of_events in (self.events, self.before, self.after):
            del of_events[event.event_id]

    @property
    def extremities(self) -> set[str]:
        referred = {prev for event in self.events.values() for prev in event.prev_event_ids}
        return self.events.keys() - referred

    @property
    def present(self) -> StateMap:
        """The room's present state."""
        return self.state_at(sorted(self.extremities))

    @property
    def overruled(self) -> set[StateKey]:
        """The entries of which an event that came later than the one in force was overruled by it."""
        last = {event.key: event_id for event_id, event in self.events.items() if event.is_state()}
        return {key for key, event_id in self.present.items() if last[key] != event_id}

    def membership(self, user_id: str) -> str:
        """The user's present membership, `leave` if there is none."""
        own = self.present.get((EventTypes.MEMBER, user_id))
        return "leave" if own is None else str(self.events[own].membership)

    def state_at(self, heads: Sequence[str]) -> StateMap:
        """The state in which these events' branches meet."""
        states = list({id(self.after[head]): self.after[head] for head in sorted(heads)}.values())
        if not states:
            return {}
        key = tuple(sorted(map(id, states)))
        if key not in self._resolved:
            self._resolved[key] = states[0] if len(states) == 1 else self._resolve(states)
        return self._resolved[key]

    def _resolve(self, states: list[StateMap]) -> StateMap:
        unconflicted, _conflicted = resolution.separate(states)

        def load(request: NeedEvents) -> Loaded:
            rejected = frozenset(self.rejected.intersection(request.ids))
            return Loaded({event_id: self.events[event_id] for event_id in request.ids}, rejected)

        def in_chain(candidates: frozenset[str]) -> set[str]:
            return in_chain_of(candidates, unconflicted.values(), lambda i: self.events[i].auth_event_ids)

        return resolution.run(resolution.resolve(self.version, states), load, in_chain)

    def check(self, server_name: str, verify_key: Any) -> None:
        for event in self.events.values():
            self._check_event(event, server_name, verify_key)

    def _check_event(self, event: Event, server_name: str, verify_key: Any) -> None:
        check_pdu(event.raw, self.version)
        assert hashes.has_valid_content_hash(event.raw, self.version)
        essential = hashes.essential_bytes(event.raw, self.version)
        for signature in signing.signatures_by(event.raw, server_name).values():
            signing.verify(essential, signature, verify_key)
        if self.version.event_format is not EventFormat.V1:
            assert hashes.event_id_of(event.raw, self.version) == event.event_id
        assert event.depth == 1 + max((self.events[prev].depth for prev in event.prev_event_ids), default=0)
        cited = [self.events[cited] for cited in event.auth_event_ids]
        auth.check_auth_events(event, cited)
        auth.check(event, auth.auth_state_of(cited, self.create))
        auth.check(event, {key: self.events[i] for key, i in self.before[event.event_id].items()})


class Tables(NamedTuple):
    """What is stored of a room. `groups` are the state groups of its events and of its head."""

    dag: Dag
    group_of: dict[str, int]
    extremities: set[str]
    head_group: int
    present: StateMap


async def check_room(db: Database, room_id: str, server_name: str, signing_key: Any) -> Dag:
    """Raises AssertionError (or what the checks raise) where the tables are not what the events say."""
    tables = await db.read("tables", _read, room_id)
    dag = tables.dag
    dag.check(server_name, get_verify_key(signing_key))
    assert tables.extremities == dag.extremities
    assert tables.present == dag.present
    groups = await StateStore(db).ids({*tables.group_of.values(), tables.head_group})
    assert groups[tables.head_group] == dag.present
    for event_id, group in tables.group_of.items():
        assert groups[group] == dag.after[event_id], f"the state after {event_id} is another"
    return dag


def _read(txn: Transaction, room_id: str) -> Tables:
    txn.execute("SELECT room_version FROM rooms WHERE room_id = %s", (room_id,))
    version = room_version(txn.one()[0])
    txn.execute(
        "SELECT event_id, json, state_group FROM events WHERE room_id = %s ORDER BY stream_ordering", (room_id,)
    )
    rows = txn.rows()
    dag = Dag(version, [Event.from_json(json, version, event_id=event_id) for event_id, json, _group in rows])
    txn.execute("SELECT event_ids, state_group FROM room_heads WHERE room_id = %s", (room_id,))
    extremities, head_group = txn.one()
    txn.execute("SELECT type, state_key, event_id FROM current_state WHERE room_id = %s", (room_id,))
    present = {(event_type, state_key): event_id for event_type, state_key, event_id in txn.rows()}
    return Tables(dag, {event_id: group for event_id, _json, group in rows}, set(extremities), head_group, present)
