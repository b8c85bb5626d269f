"""What other servers are answered who look something up: profiles, aliases, the room directory, events by time.

Server-server API, "Querying for information", "Published Room Directory", "Retrieving events".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import forbidden, invalid_param, not_found
from synapse.api.identifiers import parse_room_alias, parse_user_id
from synapse.storage.timeline import NEWEST, OLDEST

if TYPE_CHECKING:
    from synapse.handlers.aliases import Aliases
    from synapse.handlers.federation_door import FederationDoor
    from synapse.handlers.profile import Profiles
    from synapse.handlers.public_rooms import PublicRooms, Wish
    from synapse.storage.timeline import TimelineStore


class ServedLookups:
    """Answers in any process.

    :param profiles_shown: whether other servers may look profiles up.
    :param rooms_listed: whether they may read the room directory.
    """

    def __init__(
        self,
        door: FederationDoor,
        profiles: Profiles,
        aliases: Aliases,
        public_rooms: PublicRooms,
        timeline: TimelineStore,
        server_name: str,
        *,
        profiles_shown: bool,
        rooms_listed: bool,
    ) -> None:
        self._door = door
        self._profiles = profiles
        self._aliases = aliases
        self._public_rooms = public_rooms
        self._timeline = timeline
        self._server_name = server_name
        self._profiles_shown = profiles_shown
        self._rooms_listed = rooms_listed

    async def profile(self, user_id: str, field: str | None) -> dict[str, Any]:
        """`GET /query/profile`: the whole profile, or one field of it, {} where a name or picture is not set.

        Raises 404 M_NOT_FOUND, 400 M_INVALID_PARAM for other servers' users, 403 where this is not for servers.
        """
        if not self._profiles_shown:
            raise forbidden("This server does not show profiles to other servers.")
        if parse_user_id(user_id).domain != self._server_name:
            raise invalid_param(f"The user is none of {self._server_name}; ask their own server.")
        if field is None:
            return await self._profiles.get(user_id)
        return await self._profiles.get_field(user_id, field)

    async def directory(self, alias: str) -> dict[str, Any]:
        """`GET /query/directory`: the room that an alias of this server leads to, and servers that are in it.

        Raises 404 M_NOT_FOUND, 400 M_INVALID_PARAM for other servers' aliases.
        """
        if parse_room_alias(alias).domain != self._server_name:
            raise invalid_param(f"The alias is none of {self._server_name}; ask the server that it names.")
        found = await self._aliases.locate(alias)
        return {"room_id": found.room_id, "servers": found.servers}

    async def public_rooms(self, wish: Wish) -> dict[str, Any]:
        """`/publicRooms`: a page of this server's directory, without rooms that are for this server's users alone.
        Raises 403 where it is not for servers."""
        if not self._rooms_listed:
            raise forbidden("This server does not show its room directory to other servers.")
        return await self._public_rooms.own_page(wish, for_others=True)

    async def nearest_event(self, origin: str, room_id: str, timestamp: int, *, backwards: bool) -> dict[str, Any]:
        """`GET /timestamp_to_event/{roomId}`: the nearest event at a moment (milliseconds) or after it; or before it.

        Raises 403 M_FORBIDDEN, 404 M_NOT_FOUND. A server that has left the room is told of what was here before.
        """
        departure = await self._door.check_past(origin, room_id)
        until = NEWEST if departure is None else departure.position - 1
        place = (timestamp, NEWEST if backwards else OLDEST)
        rows = await self._timeline.by_time(room_id, place, until, 1, backwards=backwards)
        if not rows:
            direction = "backward" if backwards else "forward"
            raise not_found(f"There is no event to be found from {timestamp} in {direction} direction.")
        return {"event_id": rows[0].event_id, "origin_server_ts": rows[0].origin_server_ts}
