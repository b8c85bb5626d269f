"""`m.typing` among the `ephemeral` events of joined rooms: who is typing just now. Client-server API, "Typing
notifications".
"""

from __future__ import annotations

from collections.abc import Iterable

from synapse.api.constants import EduTypes
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken
from synapse.sync.typing import TypingRooms


class TypingSection:
    """Everything is in memory; a first sync is told of rooms in which somebody types or has lately stopped to, so that
    who waits for the end of it hears of it there, too."""

    def __init__(self, typing: TypingRooms) -> None:
        self._typing = typing

    async def initial(self, ctx: SyncContext) -> None:
        self._tell(ctx, [room_id for room_id in ctx.joined if room_id in self._typing])

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        new = [room_id for room_id in ctx.new_rooms() if self._typing.users(room_id)]
        self._tell(ctx, {*new, *self._typing.changed(since.typing).intersection(ctx.known_rooms())})

    def _tell(self, ctx: SyncContext, room_ids: Iterable[str]) -> None:
        wanted = ctx.filter.room.ephemeral
        if not wanted.wants(EduTypes.TYPING):
            return
        for room_id in room_ids:
            if wanted.room_matches(room_id):
                users = [user for user in self._typing.users(room_id) if user not in ctx.ignored]
                ctx.room(room_id).ephemeral.append({"type": EduTypes.TYPING, "content": {"user_ids": users}})
