"""Whether servers agree about a room: what each has stored is held against the graph of all events that any of them
has, resolved from its beginning, and against the others'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from synapse.api.room_versions import RoomVersion, room_version
from synapse.events.event import Event
from synapse.storage.database import Database, Transaction
from synapse.storage.state import StateStore
from tests.support.room_dag import Dag, StateMap


class StoredEvent(NamedTuple):
    """An event as a server has it."""

    event: Event
    group: int | None
    rejected: bool
    soft_failed: bool
    received_ts: int


class StoredRoom(NamedTuple):
    """A room as a server has it; without outliers."""

    version: RoomVersion
    events: dict[str, StoredEvent]
    extremities: frozenset[str]
    present: StateMap
    memberships: dict[str, str]  # by user: of the present state, also where the event is an outlier
    is_in: bool
    missing: frozenset[str]
    pending: frozenset[str]


async def read_room(db: Database, room_id: str) -> StoredRoom | None:
    """What a server has of a room; None: nothing."""
    return await db.read("tables", _read, room_id)


def graph_of(rooms: Mapping[str, StoredRoom]) -> Dag:
    """The graph of all that is known of a room. An event that one server rejects, all do."""
    stored: dict[str, StoredEvent] = {}
    for name, room in rooms.items():
        for event_id, each in room.events.items():
            first = stored.setdefault(event_id, each)
            assert first.rejected == each.rejected, f"{event_id} is rejected, or is not, by {name} alone"
    (version,) = {room.version for room in rooms.values()}
    order = _in_order({event_id: each.event for event_id, each in stored.items()})
    dag = Dag(version, order[:1])
    for event in order[1:]:
        dag.add(event, rejected=stored[event.event_id].rejected)
    return dag


def ancestors_of(dag: Dag, heads: Iterable[str]) -> set[str]:
    """The heads and all that is before them."""
    found: set[str] = set()
    waiting = list(heads)
    while waiting:
        event_id = waiting.pop()
        if event_id not in found:
            found.add(event_id)
            waiting.extend(dag.events[event_id].prev_event_ids)
    return found


async def check_states(db: Database, name: str, room: StoredRoom, dag: Dag) -> None:
    """The state after each event, and the room's present one, are what the graph gives."""
    groups = await StateStore(db).ids({each.group for each in room.events.values() if each.group is not None})
    for event_id, each in room.events.items():
        if each.group is not None:
            found = groups[each.group]
            assert found == dag.after[event_id], f"{name}: after {event_id}: {differing(found, dag.after[event_id])}"
    wanted = dag.state_at(sorted(room.extremities))
    assert room.present == wanted, f"{name}: {differing(room.present, wanted)}"


def differing(found: StateMap, wanted: StateMap) -> object:
    """The entries that are not the same, as they are and as they are wanted."""
    return {key: (found.get(key), wanted.get(key)) for key in found | wanted if found.get(key) != wanted.get(key)}


def _in_order(events: Mapping[str, Event]) -> list[Event]:
    order: list[Event] = []
    after: dict[str, list[str]] = {}
    waits: dict[str, int] = {}
    for event_id, event in events.items():
        before = {each for each in event.prev_event_ids if each in events}
        waits[event_id] = len(before)
        for each in before:
            after.setdefault(each, []).append(event_id)
    ready = sorted((event_id for event_id, count in waits.items() if not count), key=lambda i: events[i].depth)
    while ready:
        event_id = ready.pop()
        order.append(events[event_id])
        for each in after.get(event_id, ()):
            waits[each] -= 1
            if not waits[each]:
                ready.append(each)
    assert order, "nobody has the room's beginning"
    assert order[0].type == "m.room.create"
    lacking = {each for event in order for each in event.prev_event_ids if each not in events}
    assert not lacking, f"nobody has {lacking}"
    return order


def _read(txn: Transaction, room_id: str) -> StoredRoom | None:
    txn.execute("SELECT room_version FROM rooms WHERE room_id = %s", (room_id,))
    found = txn.one_or_none()
    if found is None or found[0] is None:
        return None
    version = room_version(found[0])
    txn.execute(
        "SELECT event_id, json, state_group, rejected IS NOT NULL, soft_failed, received_ts FROM events "
        "WHERE room_id = %s AND NOT outlier",
        (room_id,),
    )
    events = {
        event_id: StoredEvent(Event.from_json(json, version, event_id=event_id), *more)
        for event_id, json, *more in txn.rows()
    }
    txn.execute("SELECT event_ids FROM room_heads WHERE room_id = %s", (room_id,))
    head = txn.one_or_none()
    if head is None:
        return None
    txn.execute("SELECT type, state_key, event_id, membership FROM current_state WHERE room_id = %s", (room_id,))
    entries = txn.rows()
    present = {(event_type, state_key): event_id for event_type, state_key, event_id, _ in entries}
    memberships = {user_id: membership for kind, user_id, _, membership in entries if kind == "m.room.member"}
    txn.execute("SELECT FROM local_memberships WHERE room_id = %s AND membership = 'join' LIMIT 1", (room_id,))
    is_in = bool(txn.rows())
    txn.execute("SELECT event_id FROM backward_extremities WHERE room_id = %s", (room_id,))
    missing = frozenset(event_id for (event_id,) in txn.rows())
    txn.execute("SELECT event_id FROM pending_redactions WHERE room_id = %s", (room_id,))
    pending = frozenset(event_id for (event_id,) in txn.rows())
    return StoredRoom(version, events, frozenset(head[0]), present, memberships, is_in, missing, pending)
