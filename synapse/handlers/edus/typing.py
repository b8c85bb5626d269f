"""Who of other servers types: taken in by any process, kept by the main process as if they were this server's.

Server-server API, "Typing Notifications".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import forbidden, invalid_param
from synapse.api.identifiers import is_room_id
from synapse.handlers.edus.parsing import own_user
from synapse.handlers.typing import SET, SetTyping

if TYPE_CHECKING:
    from synapse.handlers.edus.speakers import Speakers
    from synapse.replication.calls import MainProcess

TIMEOUT: Final = 60_000
"""Milliseconds for which somebody types without their server saying so again: it may have gone away."""


class FarTyping:
    """Takes m.typing."""

    def __init__(self, speakers: Speakers, main: MainProcess) -> None:
        self._speakers = speakers
        self._main = main

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """Raises 400, 403."""
        user_id = own_user(origin, content)
        room_id, typing = content.get("room_id"), content.get("typing")
        if not isinstance(room_id, str) or not is_room_id(room_id):
            raise invalid_param("'room_id' must be a room ID.")
        if not isinstance(typing, bool):
            raise invalid_param("'typing' must be true or false.")
        if user_id not in await self._speakers.in_room(origin, room_id, [user_id]):
            raise forbidden("The user is not in this room.")
        await self._main(SET, SetTyping(room_id, user_id, TIMEOUT if typing else None))
