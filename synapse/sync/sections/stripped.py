"""`invite` and `knock`: rooms that the user may come to be in, shown by stripped state alone.

The stripped state is what came with the invite (or the answer to the knock) from another server, or is taken from the
room's state where the server has it; the user's own membership event is always part of it, and then that of whoever
invites too.

Client-server API, "Stripped state".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from synapse.api.constants import Membership
from synapse.events.client import STRIPPED_STATE_TYPES
from synapse.storage.past_state import Entry, PastStateStore
from synapse.storage.timeline import TimelineRow
from synapse.storage.user_rooms import RoomMembership
from synapse.sync.context import SyncContext
from synapse.sync.forms import Annotator, stripped
from synapse.sync.tokens import StreamToken

_KEYS = ("type", "state_key", "sender", "content")


class StrippedSection:
    """Tells of `ctx.pending`."""

    def __init__(self, store: PastStateStore, annotator: Annotator) -> None:
        self._store = store
        self._annotator = annotator

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx)

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        await self._tell(ctx)

    async def _tell(self, ctx: SyncContext) -> None:
        states = await self.states(ctx.pending)
        for membership in ctx.pending:
            state = states.get(membership.room_id)
            if state is None:
                continue
            if membership.membership == Membership.INVITE:
                ctx.invited[membership.room_id] = {"invite_state": {"events": state}}
            else:
                ctx.knocked[membership.room_id] = {"knock_state": {"events": state}}

    async def states(self, pending: Sequence[RoomMembership]) -> dict[str, list[Any]]:
        """The stripped state of each room. Two statements."""
        own = await self._store.events([membership.event_id for membership in pending])
        told = {row.room_id: _carried(row) for row in own.values()}
        keys: list[Entry] = [(r, t, "") for r, state in told.items() if not state for t in STRIPPED_STATE_TYPES]
        keys += [
            (row.room_id, row.type, row.sender)  # who invites, by the name that the room knows
            for row in own.values()
            if not told[row.room_id] and row.sender != row.state_key
        ]
        entries = await self._store.entries(keys)
        notes = await self._annotator.versions([*entries.values(), *own.values()])
        for row in entries.values():
            told[row.room_id].append(orjson.Fragment(stripped(row, notes)))
        for row in own.values():
            told[row.room_id].append(orjson.Fragment(stripped(row, notes)))
        return told


def _carried(row: TimelineRow) -> list[Any]:
    """The stripped state that came with a membership event from another server, cut down to what it may contain."""
    unsigned = orjson.loads(row.json).get("unsigned")
    if not isinstance(unsigned, dict):
        return []
    state = unsigned.get("invite_room_state", unsigned.get("knock_room_state"))
    if not isinstance(state, list):
        return []
    return [{key: event[key] for key in _KEYS} for event in state if _is_stripped(event) and not _is_own(event, row)]


def _is_stripped(event: Any) -> bool:
    return isinstance(event, dict) and all(key in event for key in _KEYS)


def _is_own(event: dict[str, Any], row: TimelineRow) -> bool:
    return (event["type"], event["state_key"]) == (row.type, row.state_key)
