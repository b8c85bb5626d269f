"""Rooms as those see them who are not in them: what lists, spaces and summaries show of a room, and to whom.

Of rooms that this server is not in, others are asked.

Client-server API, "Room Summary API", "Discovering rooms within spaces".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from synapse.api.constants import MEGOLM, GuestAccess, HistoryVisibility, JoinRules, Membership
from synapse.api.errors import MatrixError, not_found
from synapse.api.identifiers import domain_of, is_room_id, parse_room_id
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.handlers.aliases import Located
from synapse.handlers.entry import allowed_rooms

if TYPE_CHECKING:
    from synapse.handlers.aliases import Aliases
    from synapse.storage.room_hosts import RoomHostsStore, RoomsOfServer
    from synapse.storage.rooms import KnownRoom, ListedRoom, RoomsStore
    from synapse.sync.memberships import Memberships, UserRooms

# Who stands to a room like this may know of it, whatever its join rules say.
_MAY_KNOW: Final = frozenset({Membership.JOIN, Membership.INVITE, Membership.KNOCK})


class Told(Protocol):
    """A room as another server tells of it."""

    @property
    def room(self) -> KnownRoom: ...


class Elsewhere(Protocol):
    """Who asks other servers: `synapse.handlers.federated_spaces.FederatedSpaces`."""

    async def room(self, room_id: str, servers: Sequence[str]) -> Told | None:
        """A room; None where none of the servers tells of it."""


class RoomSummaries:
    """Answers in any process."""

    def __init__(
        self,
        rooms: RoomsStore,
        memberships: Memberships,
        aliases: Aliases,
        hosts: RoomHostsStore,
        elsewhere: Elsewhere,
    ) -> None:
        self._rooms = rooms
        self._elsewhere = elsewhere
        self._hosts = hosts
        self._memberships = memberships
        self._aliases = aliases

    async def of(self, user_id: str | None, room: str, via: Sequence[str] = ()) -> dict[str, Any]:
        """The summary of a room, by its id or alias; `user_id` None: for somebody without an account, on whose behalf
        no other server is asked. `via` are servers that may know the room.

        Raises 404 M_NOT_FOUND for rooms that they may not know of, 400 M_INVALID_PARAM for what is neither.
        """
        located = await self._located(room) if room.startswith("#") else Located(parse_room_id(room), [])
        room_id = located.room_id
        rooms = await self.known([room_id])
        if user_id is not None and not (room_id in rooms and rooms[room_id].is_here):
            servers = [*via, *located.servers, *await self.servers_for(user_id, room_id)]
            told = await self._elsewhere.room(room_id, servers)
            rooms = rooms if told is None else {room_id: told.room}
        found = (await self.open_to(user_id, rooms)).get(room_id)
        if found is None:
            raise not_found("There is no such room, or it is not open to you.")
        summary = summarised(found)
        if user_id is not None:
            standing = (await self._memberships.of(user_id)).rooms.get(room_id)
            summary["membership"] = Membership.LEAVE if standing is None else standing.membership
        return summary

    async def _located(self, alias: str) -> Located:
        try:
            return await self._aliases.locate(alias)
        except MatrixError as error:
            if error.code < 500:
                raise
            raise not_found(f"Where {alias} leads is not to be found out now: {error.message}") from error

    async def known(self, room_ids: Collection[str]) -> dict[str, KnownRoom]:
        """What this server knows of rooms, whoever may know of it. One statement."""
        return await self._rooms.known(room_ids)

    async def open_to(self, user_id: str | None, rooms: Mapping[str, KnownRoom]) -> dict[str, KnownRoom]:
        """Those of the rooms that somebody may know of. One statement at first."""
        theirs = None if user_id is None else await self._memberships.of(user_id)
        return {room_id: room for room_id, room in rooms.items() if _may_know(room, theirs)}

    async def servers_for(self, user_id: str, room_id: str) -> list[str]:
        """Servers that may know a room which this one is not in: who invited the user, and who made the room."""
        standing = (await self._memberships.of(user_id)).rooms.get(room_id)
        behind = [] if standing is None else [domain_of(standing.sender)]
        return [server for server in (*behind, domain_of(room_id)) if server]

    async def accessible_to_server(self, server_name: str, room_ids: Collection[str]) -> dict[str, KnownRoom | None]:
        """Those of the rooms that this server is in; None where none of the other server's users may know of it, as
        far as this one can tell. Two statements."""
        known = {room_id: room for room_id, room in (await self._rooms.known(room_ids)).items() if room.is_here}
        deciding = {*known, *(each for room in known.values() for each in allowed_by(room))}
        theirs = await self._hosts.among(server_name, list(deciding))
        return {room_id: room if _open_to(room, theirs) else None for room_id, room in known.items()}


def _open_to(room: KnownRoom, theirs: RoomsOfServer) -> bool:
    """Whether somebody of another server is in the room, is invited, could come in, or could read it anyway."""
    if not room.federates:
        return False
    if room.listed.history_visibility == HistoryVisibility.WORLD_READABLE:
        return True
    room_id = room.listed.room_id
    return room_id in theirs.joined or room_id in theirs.invited or _lets_in(room, theirs.joined)


def _may_know(room: KnownRoom, user: UserRooms | None) -> bool:
    """Who is in the room, could come in, or could read it anyway. Of those who are banned, only the last."""
    if room.listed.history_visibility == HistoryVisibility.WORLD_READABLE:
        return True
    standing = None if user is None else user.rooms.get(room.listed.room_id)
    if standing is not None and standing.membership == Membership.BAN:
        return False
    if standing is not None and standing.membership in _MAY_KNOW:
        return True
    return _lets_in(room, frozenset() if user is None else user.joined)


def _lets_in(room: KnownRoom, joined: frozenset[str]) -> bool:
    """Whether the join rules let somebody join or knock who is joined to these rooms."""
    rule = room.listed.join_rules
    if rule == JoinRules.PUBLIC:
        return True
    if room.room_version is None:
        # Another server tells of the room, and has not said which version makes its rules.
        return rule in (JoinRules.KNOCK, JoinRules.KNOCK_RESTRICTED) or not joined.isdisjoint(allowed_by(room))
    version = ROOM_VERSIONS.get(room.room_version)
    if version is None:
        return False
    if rule == JoinRules.KNOCK:
        return version.knocking
    if rule == JoinRules.KNOCK_RESTRICTED:
        return version.knock_restricted
    return rule == JoinRules.RESTRICTED and version.restricted_joins and not joined.isdisjoint(allowed_by(room))


def allowed_by(room: KnownRoom) -> list[str]:
    """The rooms whose members may join this one."""
    if room.restricted is None:
        return list(room.allowed)
    return list(dict.fromkeys(allowed_rooms(orjson.loads(room.restricted)["content"])))


def shown(room: ListedRoom) -> dict[str, Any]:
    """What lists show of a room: `PublishedRoomsChunk`."""
    chunk: dict[str, Any] = {
        "room_id": room.room_id,
        "num_joined_members": room.joined_members,
        "world_readable": room.history_visibility == HistoryVisibility.WORLD_READABLE,
        "guest_can_join": room.guest_access == GuestAccess.CAN_JOIN,
        "join_rule": room.join_rules or JoinRules.INVITE,
    }
    for name in ("name", "topic", "canonical_alias", "avatar_url", "room_type"):
        if (value := getattr(room, name)) is not None:
            chunk[name] = value
    return chunk


def summarised(room: KnownRoom) -> dict[str, Any]:
    """`RoomSummary`."""
    summary = shown(room.listed)
    if room.room_version is not None:
        summary["room_version"] = room.room_version
    if room.encryption == MEGOLM:  # the room may name anything
        summary["encryption"] = room.encryption
    if allowed := [room_id for room_id in allowed_by(room) if is_room_id(room_id)]:
        summary["allowed_room_ids"] = allowed
    return summary
