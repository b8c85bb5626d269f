"""`presence`: who in the user's rooms is online, idle or gone. Client-server API, "Presence"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from synapse.api.constants import EduTypes, EventTypes, Membership, Presence
from synapse.storage.presence import PresenceState, PresenceStore
from synapse.sync.changes import Changes
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken
from synapse.util.clock import Clock

LATELY: Final = 5 * 60.0
"""Seconds for which somebody counts as around who does something without being online."""


class PresenceSection:
    """Where presence is switched off, there is no such part.

    :param clock: its seconds are those of the epoch, as `last_active_ts` counts.
    """

    def __init__(self, store: PresenceStore, changes: Changes, clock: Clock) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock

    async def initial(self, ctx: SyncContext) -> None:
        if ctx.filter.presence.wants(EduTypes.PRESENCE):
            rooms, until = list(ctx.all_joined), ctx.now.presence
            self._tell(ctx, await self._store.in_rooms(rooms, until, self._lately(), ctx.user_id))

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        if not ctx.filter.presence.wants(EduTypes.PRESENCE):
            return
        told: dict[str, PresenceState] = {}
        hidden = [move.room_id for move in ctx.hidden_moves if move.membership == Membership.JOIN]
        if new := ctx.new_rooms() + hidden:
            states = await self._store.in_rooms(new, now.presence, self._lately())
            told.update((state.user_id, state) for state in states)
        if members := _changed_members(ctx):
            states = await self._store.newcomers(members, now.presence, self._lately())
            told.update((state.user_id, state) for state in states)
        if self._changes.any_presence(since.presence):
            changed = await self._store.visible_to(ctx.user_id, since.presence, now.presence)
            told.update((state.user_id, state) for state in changed)
        self._tell(ctx, told.values())

    def _lately(self) -> int:
        """Who is offline is told of to those who come to a room only if they did something after this, in ms."""
        return int((self._clock.seconds() - LATELY) * 1000)

    def _tell(self, ctx: SyncContext, states: Iterable[PresenceState]) -> None:
        wanted = ctx.filter.presence
        now = int(self._clock.seconds() * 1000)
        events = [
            presence_event(state, now)
            for state in states
            if wanted.wants(EduTypes.PRESENCE, state.user_id) and state.user_id not in ctx.ignored
        ]
        if events:
            ctx.body["presence"] = {"events": events}


def _changed_members(ctx: SyncContext) -> list[tuple[str, str]]:
    """(room, user) whose membership changed in rooms that the client knows; of those who came, it was not told yet."""
    deltas = [delta for room_id, changes in ctx.deltas.items() if room_id in ctx.joined for delta in changes]
    return [
        (delta.room_id, delta.state_key)
        for delta in deltas + ctx.hidden_deltas
        if delta.type == EventTypes.MEMBER and delta.event_id is not None and delta.state_key != ctx.user_id
    ]


def presence_event(state: PresenceState, now: int) -> dict[str, Any]:
    """An m.presence event; `now` in milliseconds."""
    content = presence_content(state, now)
    if state.display_name is not None:
        content["displayname"] = state.display_name
    if state.avatar_url is not None and state.avatar_url.startswith("mxc://"):
        content["avatar_url"] = state.avatar_url
    return {"type": EduTypes.PRESENCE, "sender": state.user_id, "content": content}


def presence_content(state: PresenceState, now: int) -> dict[str, Any]:
    """What m.presence and GET /presence/…/status have in common."""
    content: dict[str, Any] = {"presence": state.state, "last_active_ago": max(0, now - state.last_active_ts)}
    if state.status_msg is not None:
        content["status_msg"] = state.status_msg
    if state.state == Presence.ONLINE:
        content["currently_active"] = state.currently_active
    return content
