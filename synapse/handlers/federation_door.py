"""May this server ask, or say, something about that room? It may not where the room's access list keeps it out, and for
most things it has to be in the room. What it missed while it was there it may still ask about when it has left, or was
put out, or it would not understand how.

Server-server API, "Server Access Control Lists (ACLs)"; client-server API, "Room history visibility".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.api.constants import EventTypes
from synapse.api.errors import MatrixError, forbidden
from synapse.events.server_acl import EVERYBODY, ServerAcl

if TYPE_CHECKING:
    from synapse.federation.hosts import RoomHosts
    from synapse.state.store import StateReader
    from synapse.storage.room_hosts import Departure
    from synapse.storage.served_events import ServedEvent
    from synapse.util.caches import LruCache

_ACL: Final = (EventTypes.SERVER_ACL, "")


class FederationDoor:
    """Lets servers in, in any process.

    :param lists: access lists by the id of the event that made them.
    """

    def __init__(self, state: StateReader, hosts: RoomHosts, lists: LruCache[str, ServerAcl]) -> None:
        self._state = state
        self._hosts = hosts
        self._lists = lists

    async def check(self, origin: str, room_id: str) -> None:
        """Raises 403 M_FORBIDDEN for a server that the access list keeps out, or that is not in the room (or nobody
        is: whether the room exists is not told). No statement when warm; one before a server is refused."""
        await self.check_acl(origin, room_id)
        if not await self._hosts.is_joined(origin, room_id):
            raise not_in_room(origin)

    async def check_past(self, origin: str, room_id: str) -> Departure | None:
        """Lets in a server, too, that was in the room, and returns how it left: of what came later it may be told
        nothing (`check_told`). None for those that are in the room.

        Raises 403 M_FORBIDDEN as `check` does. No statement when warm; two for a server that is not in the room.
        """
        await self.check_acl(origin, room_id)
        if await self._hosts.is_joined(origin, room_id):
            return None
        departure = await self._hosts.departure(origin, room_id)
        if departure is None:
            raise not_in_room(origin)
        return departure

    @staticmethod
    def check_told(origin: str, departure: Departure | None, event: ServedEvent) -> None:
        """Raises 403 M_FORBIDDEN where the event came after the server had left."""
        if departure is not None and not departure.comes_after(event):
            raise not_in_room(origin)

    async def check_acl(self, origin: str, room_id: str) -> None:
        """Raises 403 M_FORBIDDEN for a server that the room's access list keeps out."""
        if not (await self.acl_of(room_id)).allows(origin):
            raise forbidden(f"The access list of the room (m.room.server_acl) keeps the server {origin} out.")

    async def acl_of(self, room_id: str) -> ServerAcl:
        """The room's access list, to be asked about many servers; a room without one, or unknown, lets everybody in."""
        stored = (await self._state.current(room_id, [_ACL])).get(_ACL)
        if stored is None:
            return EVERYBODY
        if stored.redacted_by is not None:
            return ServerAcl.of_event(stored.shown)  # as it is for servers that have never had the rest
        known = self._lists.get(stored.event.event_id)
        if known is None:
            known = ServerAcl.of_event(stored.event)
            self._lists.set(stored.event.event_id, known)
        return known


def not_in_room(origin: str) -> MatrixError:
    """403 M_FORBIDDEN: the server is not in the room, or was not when that happened which it asks about."""
    return forbidden(f"The server {origin} is not in this room.")
