"""Writes nothing: finds what changed in the rooms that a filter keeps out of the answer.

Room filters are about what is told of rooms. Whose devices a client has to know, and whose presence it sees, depends
on all rooms that the user is in.
"""

from __future__ import annotations

from synapse.storage.past_state import PastStateStore
from synapse.sync.context import SyncContext
from synapse.sync.recent import RecentEvents
from synapse.sync.tokens import StreamToken


class HiddenSection:
    """Fills `ctx.hidden_deltas`, before the sections that look there. One statement where memory does not suffice."""

    def __init__(self, states: PastStateStore, recent: RecentEvents) -> None:
        self._states = states
        self._recent = recent

    async def initial(self, ctx: SyncContext) -> None:
        pass

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        if len(ctx.joined) == len(ctx.all_joined):
            return
        hidden = ctx.all_joined - ctx.joined
        changed = self._recent.changed_rooms(since.events)
        if changed is None:
            ctx.hidden_deltas = await self._states.deltas(dict.fromkeys(hidden, since.events), now.events)
            return
        for room_id in hidden.intersection(changed):
            ctx.hidden_deltas += self._recent.deltas(room_id, since.events, now.events)
