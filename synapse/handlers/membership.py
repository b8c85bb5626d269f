"""Memberships: joining and leaving rooms, inviting, knocking, kicking and banning, and showing one's profile in rooms.

Each is an m.room.member event that `EventCreation` makes; here stands what its content is to be, and what must be
true besides the room's authorisation rules. Rooms that this server does not take part in would be reached over
federation, which is not done here.

Client-server API, "Room membership"; room version 8 for restricted rooms.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Set
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, gatherResults

from synapse.api.constants import EventTypes, GuestAccess, JoinRules, Membership
from synapse.api.errors import (
    Codes,
    MatrixError,
    bad_json,
    forbidden,
    guest_access_forbidden,
    invalid_param,
    not_found,
    unknown,
)
from synapse.api.identifiers import domain_of, is_room_id, parse_user_id
from synapse.events.power_levels import PowerLevels
from synapse.handlers.event_creation import Draft

if TYPE_CHECKING:
    from synapse.handlers.aliases import Aliases
    from synapse.handlers.event_creation import EventCreation, State
    from synapse.http.request import Requester
    from synapse.push.bulk import RoomMembers
    from synapse.state.heads import RoomHeads
    from synapse.state.store import StateReader
    from synapse.storage.memberships import MembershipsStore
    from synapse.storage.profiles import ProfileStore

AT_ONCE: Final = 10
"""Rooms into which a changed profile is written at the same time."""

_CREATE: Final = (EventTypes.CREATE, "")
_JOIN_RULES: Final = (EventTypes.JOIN_RULES, "")
_POWER_LEVELS: Final = (EventTypes.POWER_LEVELS, "")
_GUEST_ACCESS: Final = (EventTypes.GUEST_ACCESS, "")
_SHOWS_PROFILE: Final = frozenset({Membership.JOIN, Membership.INVITE, Membership.KNOCK})
_RESTRICTED: Final = frozenset({JoinRules.RESTRICTED, JoinRules.KNOCK_RESTRICTED})


class Memberships:
    """Changes memberships for users of this server.

    :param forgotten: is told of each user who has forgotten a room, which no event tells.
    """

    def __init__(
        self,
        creation: EventCreation,
        heads: RoomHeads,
        state: StateReader,
        members: RoomMembers,
        store: MembershipsStore,
        profiles: ProfileStore,
        aliases: Aliases,
        server_name: str,
        forgotten: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._creation = creation
        self._forgotten = forgotten
        self._heads = heads
        self._state = state
        self._members = members
        self._store = store
        self._profiles = profiles
        self._aliases = aliases
        self._server_name = server_name

    # -- what users do -----------------------------------------------------------------------------------------

    async def join(self, requester: Requester, room: str, body: dict[str, Any] | None = None) -> str:
        """Join a room by id or alias; its id. Whoever is in it already stays as they are.

        Raises 403 M_FORBIDDEN, and 404 M_NOT_FOUND for rooms that this server does not know.
        """
        room_id = await self._local_room(room)
        if body and "third_party_signed" in body:
            raise unknown("Invitations by e-mail or phone number cannot be accepted by this server yet.")
        if await self._surely(room_id, requester.user_id, {Membership.JOIN}):
            return room_id
        await self._change(requester, room_id, requester.user_id, Membership.JOIN, _reason(body))
        return room_id

    async def knock(self, requester: Requester, room: str, body: dict[str, Any] | None = None) -> str:
        """Ask to be let in; the room's id."""
        room_id = await self._local_room(room)
        await self._change(requester, room_id, requester.user_id, Membership.KNOCK, _reason(body))
        return room_id

    async def leave(self, requester: Requester, room_id: str, body: dict[str, Any] | None = None) -> None:
        """Leave, refuse an invitation, or take back a knock. Whoever has left already stays so."""
        if await self._surely(room_id, requester.user_id, {Membership.LEAVE}):
            return
        if await self._surely(room_id, requester.user_id, {None}):
            raise forbidden("You are not in that room, or there is no such room.")
        await self._change(requester, room_id, requester.user_id, Membership.LEAVE, _reason(body))

    async def invite(self, requester: Requester, room_id: str, body: dict[str, Any]) -> None:
        """Invite the user that `body` names."""
        await self._change(requester, room_id, _target(body), Membership.INVITE, _reason(body))

    async def kick(self, requester: Requester, room_id: str, body: dict[str, Any]) -> None:
        """Make somebody leave who is in the room, invited, or knocks."""
        target = _target(body)
        if await self._surely(room_id, target, {None, Membership.LEAVE, Membership.BAN}):
            await self._require_joined(requester.user_id, room_id)
            raise forbidden(f"{target} is not in the room.")
        await self._change(requester, room_id, target, Membership.LEAVE, _reason(body))

    async def ban(self, requester: Requester, room_id: str, body: dict[str, Any]) -> None:
        """Make somebody leave for good, or keep them from coming."""
        await self._change(requester, room_id, _target(body), Membership.BAN, _reason(body))

    async def unban(self, requester: Requester, room_id: str, body: dict[str, Any]) -> None:
        """Lift a ban."""
        target = _target(body)
        if await self._surely(room_id, target, {None, *Membership.ALL} - {Membership.BAN}):
            await self._require_joined(requester.user_id, room_id)
            raise forbidden(f"{target} is not banned from the room.")
        await self._change(requester, room_id, target, Membership.LEAVE, _reason(body))

    async def forget(self, requester: Requester, room_id: str) -> None:
        """Hear no more of a room that one has left. Raises 400 M_UNKNOWN for those who are still in it."""
        if await self._store.forget(requester.user_id, room_id):
            if self._forgotten is not None:
                await self._forgotten(requester.user_id)
            return
        if await self._store.of_user(requester.user_id, room_id) is None:
            raise not_found("You have never been in such a room.")
        raise unknown("You must leave the room before you can forget it.")

    async def put_state(self, requester: Requester, room_id: str, target: str, content: dict[str, Any]) -> str:
        """An m.room.member event as the client words it; its id."""
        membership = content.get("membership")
        if membership not in Membership.ALL:
            raise bad_json(f"A membership is one of {', '.join(sorted(Membership.ALL))}.")
        parse_user_id(target)
        if membership == Membership.INVITE:
            self._require_local(target)
        authoriser = await self._allow_entry(requester, room_id, target, membership)
        content = {key: value for key, value in content.items() if key != "join_authorised_via_users_server"}
        if authoriser is not None:
            content["join_authorised_via_users_server"] = authoriser
        created = await self._creation.create(requester, room_id, EventTypes.MEMBER, content, state_key=target)
        return created.event_id

    async def joined_rooms(self, user_id: str) -> list[str]:
        """The rooms that the user is in."""
        return [m.room_id for m in await self._store.rooms_of(user_id, [Membership.JOIN])]

    async def membership(self, room_id: str, user_id: str) -> str | None:
        """Where a user stands with a room; None for those who never had to do with it."""
        key = (EventTypes.MEMBER, user_id)
        found = await self._state.current(room_id, [key])
        return found[key].event.membership if key in found else None

    async def update_profile(self, user_id: str) -> None:
        """Show the user's present name and picture in all rooms that it has joined, a few at a time.

        A room that refuses keeps the old ones. Where they show already, nothing is written, so this may be called anew.
        """
        profile = await self._profile_of(user_id)
        rooms = await self.joined_rooms(user_id)
        for start in range(0, len(rooms), AT_ONCE):
            await gatherResults(
                [
                    Deferred.fromCoroutine(self._show(user_id, room_id, profile))
                    for room_id in rooms[start : start + AT_ONCE]
                ]
            )

    async def _show(self, user_id: str, room_id: str, profile: dict[str, Any]) -> None:
        key = (EventTypes.MEMBER, user_id)
        found = await self._state.current(room_id, [key])
        if key not in found or found[key].event.membership != Membership.JOIN:
            return
        content = dict(found[key].event.content)
        for name in ("displayname", "avatar_url", "join_authorised_via_users_server", "reason"):
            content.pop(name, None)
        content.update(profile)
        with suppress(MatrixError):
            await self._creation.send(Draft(room_id, user_id, EventTypes.MEMBER, content, user_id))

    # ------------------------------------------------------------------------------------------------------------

    async def _change(
        self, requester: Requester, room_id: str, target: str, membership: str, extra: dict[str, Any]
    ) -> None:
        if membership == Membership.INVITE:
            self._require_local(target)
        authoriser = await self._allow_entry(requester, room_id, target, membership)
        content = {"membership": membership, **extra}
        if authoriser is not None:
            content["join_authorised_via_users_server"] = authoriser
        if membership in _SHOWS_PROFILE:
            content.update(await self._profile_of(target))
        await self._creation.create(requester, room_id, EventTypes.MEMBER, content, state_key=target)

    async def _profile_of(self, user_id: str) -> dict[str, Any]:
        if domain_of(user_id) != self._server_name:
            return {}
        profile = await self._profiles.get(user_id)
        if profile is None:
            return {}
        named = {"displayname": profile.display_name, "avatar_url": profile.avatar_url}
        return {name: value for name, value in named.items() if value is not None}

    async def _local_room(self, room: str) -> str:
        if room.startswith("#"):
            return await self._aliases.resolve(room)
        if not is_room_id(room):
            raise invalid_param("A room is named by its ID, which starts with '!', or an alias, which starts with '#'.")
        if await self._heads.get(room) is None:
            raise not_found("This server does not know that room, and cannot yet ask others for it.")
        return room

    def _require_local(self, target: str) -> None:
        if domain_of(target) != self._server_name:
            raise forbidden(f"{target} belongs to another server, and this one cannot invite over federation yet.")

    async def _surely(self, room_id: str, user_id: str, memberships: Set[str | None]) -> bool:
        """Whether the user stands with the room in one of these ways, also by the word of the database."""
        if await self.membership(room_id, user_id) not in memberships:
            return False
        await self._creation.refresh(room_id)
        return await self.membership(room_id, user_id) in memberships

    async def _require_joined(self, user_id: str, room_id: str) -> None:
        if await self._surely(room_id, user_id, {None, *Membership.ALL} - {Membership.JOIN}):
            raise forbidden("You are not in that room, or there is no such room.")

    # -- entering ------------------------------------------------------------------------------------------------

    async def _allow_entry(self, requester: Requester, room_id: str, target: str, membership: str) -> str | None:
        """What must be true for a join besides the authorisation rules. The user who vouches for a restricted one."""
        if membership != Membership.JOIN or target != requester.user_id:
            return None
        member = (EventTypes.MEMBER, target)
        state = await self._state.current(room_id, [_CREATE, _JOIN_RULES, _POWER_LEVELS, _GUEST_ACCESS, member])
        own = state[member].event.membership if member in state else None
        if requester.is_guest and own != Membership.JOIN and not _lets_guests_in(state):
            raise guest_access_forbidden("Guests may not join this room.")
        rules = state[_JOIN_RULES].event.content if _JOIN_RULES in state else {}
        if rules.get("join_rule") not in _RESTRICTED or own in (Membership.JOIN, Membership.INVITE, Membership.BAN):
            return None
        if not await self._store.joined_any(target, _allowed_rooms(rules)):
            raise forbidden("To join this room, you must be invited or be in one of the rooms that it names.")
        return await self._voucher(room_id, state)

    async def _voucher(self, room_id: str, state: State) -> str:
        """A user of this server in the room who could invite."""
        version = state[_CREATE].event.room_version
        levels = PowerLevels.of_state({key: stored.event for key, stored in state.items()}, version)
        members = await self._members.get(room_id)
        able = [user_id for user_id in members.local if levels.user(user_id) >= levels.invite]
        if not able:
            raise MatrixError(
                400, Codes.UNABLE_TO_AUTHORISE_JOIN, "Nobody of this server in the room could have invited you."
            )
        return max(able, key=lambda user_id: (levels.user(user_id), user_id))


def _allowed_rooms(rules: dict[str, Any]) -> Iterable[str]:
    allow = rules.get("allow")
    for condition in allow if isinstance(allow, list) else ():
        if isinstance(condition, dict) and condition.get("type") == "m.room_membership":
            room_id = condition.get("room_id")
            if isinstance(room_id, str) and "\x00" not in room_id:
                yield room_id


def _lets_guests_in(state: State) -> bool:
    access = state.get(_GUEST_ACCESS)
    return access is not None and access.event.content.get("guest_access") == GuestAccess.CAN_JOIN


def _target(body: dict[str, Any]) -> str:
    target = body.get("user_id")
    if target is None:
        raise MatrixError(400, Codes.MISSING_PARAM, "The parameter 'user_id' is missing.")
    if not isinstance(target, str):
        raise bad_json("The 'user_id' must be a string.")
    parse_user_id(target)
    return target


def _reason(body: dict[str, Any] | None) -> dict[str, Any]:
    reason = (body or {}).get("reason")
    if reason is not None and not isinstance(reason, str):
        raise bad_json("The 'reason' must be a string.")
    return {} if reason is None else {"reason": reason}
