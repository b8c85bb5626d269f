"""The state of one room at a position of the events stream: now, or when somebody left it."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.api.constants import EventTypes
from synapse.storage.past_state import ALL_MEMBERS, Entry, Members, PastStateStore
from synapse.storage.timeline import NEWEST, TimelineRow

Key = tuple[str, str]
"""(event type, state key)."""


async def state_at(
    store: PastStateStore,
    room_id: str,
    position: int | None,
    *,
    members: Members = ALL_MEMBERS,
    types: Sequence[str] | None = None,
) -> dict[Key, TimelineRow]:
    """The room's state at `position`, None for now. One statement for now, three at most for the past."""
    state = {_key(row): row for _, row in await store.current([room_id], members, types)}
    if position is None:
        return state
    only = None if members.of is None else {user_id for _, user_id in members.of}
    replaced: dict[Key, str | None] = {}
    for delta in await store.deltas({room_id: position}, NEWEST):
        is_hidden = only is not None and delta.type == EventTypes.MEMBER and delta.state_key not in only
        if not is_hidden and (types is None or delta.type in types):
            replaced.setdefault((delta.type, delta.state_key), delta.prev_event_id)
    for key in replaced:
        state.pop(key, None)
    earlier = await store.events([event_id for event_id in replaced.values() if event_id is not None])
    return state | {_key(row): row for row in earlier.values()}


async def entry_at(store: PastStateStore, entry: Entry, position: int | None) -> TimelineRow | None:
    """One entry of a room's state at `position`, None for now."""
    room_id, event_type, state_key = entry
    if position is None:
        return (await store.entries([entry])).get(entry)
    for delta in await store.deltas({room_id: position}, NEWEST):
        if (delta.type, delta.state_key) == (event_type, state_key):
            prev = delta.prev_event_id
            return None if prev is None else (await store.events([prev])).get(prev)
    return (await store.entries([entry])).get(entry)


def _key(row: TimelineRow) -> Key:
    return (row.type, row.state_key or "")
