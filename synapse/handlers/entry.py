"""Who may enter a room: what must be true of a join besides the room's authorisation rules.

Guests need a room that lets guests in; rooms with the join rule `restricted` let in the members of other rooms, for
whom somebody of this server vouches who could invite them.

Client-server API, "Restricted rooms" and "Guest access"; server-server API, "Restricted rooms".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes, GuestAccess, JoinRules, Membership
from synapse.api.errors import Codes, MatrixError, forbidden, guest_access_forbidden
from synapse.events.power_levels import PowerLevels

if TYPE_CHECKING:
    from synapse.handlers.event_creation import State
    from synapse.http.request import Requester
    from synapse.push.bulk import RoomMembers
    from synapse.state.store import StateReader
    from synapse.storage.memberships import MembershipsStore

MAX_CONDITIONS: Final = 500
"""Of the conditions of a restricted room, so many are looked at: a room may name as many as an event holds."""

_CREATE: Final = (EventTypes.CREATE, "")
_JOIN_RULES: Final = (EventTypes.JOIN_RULES, "")
_POWER_LEVELS: Final = (EventTypes.POWER_LEVELS, "")
_GUEST_ACCESS: Final = (EventTypes.GUEST_ACCESS, "")
_RESTRICTED: Final = (JoinRules.RESTRICTED, JoinRules.KNOCK_RESTRICTED)  # looked up with whatever the event says
_Joined = Callable[[str, list[str]], Awaitable[bool]]  # whether a user has joined any of the rooms
_NEEDS_NO_CONDITION: Final = frozenset({Membership.JOIN, Membership.INVITE, Membership.BAN})


class Entry:
    """Decides about joins through this server."""

    def __init__(self, state: StateReader, members: RoomMembers, store: MembershipsStore) -> None:
        self._state = state
        self._members = members
        self._store = store

    async def allow(self, requester: Requester, room_id: str) -> str | None:
        """Raises for those who may not enter; who vouches for the join, if somebody must.

        403 M_FORBIDDEN where no condition of a restricted room is met, 400 M_UNABLE_TO_AUTHORISE_JOIN where this
        server takes part in none of the rooms that they name, 400 M_UNABLE_TO_GRANT_JOIN where they are met and nobody
        here can vouch for it, 403 M_GUEST_ACCESS_FORBIDDEN for guests.
        """
        member = (EventTypes.MEMBER, requester.user_id)
        state = await self._state.current(room_id, [_CREATE, _JOIN_RULES, _POWER_LEVELS, _GUEST_ACCESS, member])
        own = state[member].event.membership if member in state else None
        if requester.is_guest and own != Membership.JOIN and not _lets_guests_in(state):
            raise guest_access_forbidden("Guests may not join this room.")
        return await self._vouched(requester.user_id, room_id, state, own, self._store.joined_any)

    async def allow_other(self, user_id: str, room_id: str) -> str | None:
        """The same for another server's user, who wants to come in through this one."""
        member = (EventTypes.MEMBER, user_id)
        state = await self._state.current(room_id, [_CREATE, _JOIN_RULES, _POWER_LEVELS, member])
        own = state[member].event.membership if member in state else None
        return await self._vouched(user_id, room_id, state, own, self._store.other_joined_any)

    async def _vouched(self, user_id: str, room_id: str, state: State, own: str | None, joined: _Joined) -> str | None:
        rules = state[_JOIN_RULES].event.content if _JOIN_RULES in state else {}
        if rules.get("join_rule") not in _RESTRICTED or own in _NEEDS_NO_CONDITION:
            return None
        await self._require_condition(user_id, list(allowed_rooms(rules)), joined)
        return await self._voucher(room_id, state)

    async def lets_guests_in(self, room_id: str) -> bool:
        """Whether guests may be in the room."""
        return _lets_guests_in(await self._state.current(room_id, [_GUEST_ACCESS]))

    async def _require_condition(self, user_id: str, room_ids: list[str], joined: _Joined) -> None:
        if await joined(user_id, room_ids):
            return
        if room_ids and not await self._store.any_here(room_ids):
            raise MatrixError(
                400,
                Codes.UNABLE_TO_AUTHORISE_JOIN,
                "This server is in none of the rooms whose members may join, and cannot tell whether you may.",
            )
        raise forbidden("To join this room, you must be invited or be in one of the rooms that it names.")

    async def _voucher(self, room_id: str, state: State) -> str:
        """A user of this server in the room who could invite."""
        version = state[_CREATE].event.room_version
        levels = PowerLevels.of_state({key: stored.event for key, stored in state.items()}, version)
        members = await self._members.get(room_id)
        able = [user_id for user_id in members.local if levels.user(user_id) >= levels.invite]
        if not able:
            raise MatrixError(
                400, Codes.UNABLE_TO_GRANT_JOIN, "Nobody of this server in the room could have invited you."
            )
        return max(able, key=lambda user_id: (levels.user(user_id), user_id))


def allowed_rooms(rules: dict[str, Any]) -> Iterator[str]:
    """The rooms whose members may join, of the content of m.room.join_rules."""
    allow = rules.get("allow")
    for condition in allow[:MAX_CONDITIONS] if isinstance(allow, list) else ():
        if isinstance(condition, dict) and condition.get("type") == "m.room_membership":
            room_id = condition.get("room_id")
            if isinstance(room_id, str) and "\x00" not in room_id:
                yield room_id


def _lets_guests_in(state: State) -> bool:
    access = state.get(_GUEST_ACCESS)
    return access is not None and access.shown.content.get("guest_access") == GuestAccess.CAN_JOIN
