"""Which room is a user's room for server notices: asked in every process, by rules that make exceptions for it.

Client-server API, "Server Notices".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.api.errors import Codes, MatrixError

if TYPE_CHECKING:
    from synapse.storage.server_notices import ServerNoticesStore
    from synapse.util.caches import Cache

CACHE: Final = "server_notices_rooms"
CACHE_SIZE: Final = 5_000


class NoticesRooms:
    """Knows the rooms, from a cache when warm.

    :param cache: by user id, as invalidations name it.
    """

    def __init__(self, store: ServerNoticesStore, cache: Cache[str, str | None], *, enabled: bool) -> None:
        self._store = store
        self._cache = cache
        self._enabled = enabled

    async def of(self, user_id: str) -> str | None:
        """The user's room, if there is one."""
        return await self._cache.fetch(user_id, self._store.room_of) if self._enabled else None

    async def check_refusal(self, user_id: str, room_id: str) -> None:
        """Asked when a user is about to refuse an invitation. Raises 403 M_CANNOT_LEAVE_SERVER_NOTICE_ROOM."""
        if await self.of(user_id) == room_id:
            raise MatrixError(
                403, Codes.CANNOT_LEAVE_SERVER_NOTICE_ROOM, "The invitation to the server's notices cannot be refused."
            )
