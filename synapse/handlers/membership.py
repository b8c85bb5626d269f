"""Memberships: joining and leaving rooms, inviting, knocking, kicking and banning.

Each is an m.room.member event that `EventCreation` makes; here stands what its content is to be, and what must be
true besides the room's authorisation rules: for joins, that is `handlers.entry`. Where other servers have to help,
because this one is not in the room or the user is theirs, `handlers.remote` asks them.

Client-server API, "Room membership", "Invite permission".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes, Membership
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
from synapse.handlers.event_creation import Draft
from synapse.handlers.room_plan import Invite3pid
from synapse.http.body import convert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse.handlers.aliases import Aliases
    from synapse.handlers.entry import Entry
    from synapse.handlers.event_creation import EventCreation
    from synapse.handlers.remote.memberships import RemoteMemberships
    from synapse.handlers.third_party_invites import ThirdPartyInvites
    from synapse.http.ratelimit import RateLimits
    from synapse.http.request import Requester
    from synapse.state.store import StateReader
    from synapse.storage.invitees import InviteesStore
    from synapse.storage.memberships import MembershipsStore

PER_ROOM: Final = "rc_invites.per_room"
PER_USER: Final = "rc_invites.per_user"
"""The settings that invitations count against, besides the one of who invites."""

REMOTE_JOINS: Final = "rc_joins.remote"
"""The setting that joins count against, besides that of all joins, for which other servers must be asked."""

_ASK_OTHERS: Final = frozenset({Codes.UNABLE_TO_AUTHORISE_JOIN, Codes.UNABLE_TO_GRANT_JOIN})
_AUTHORISER: Final = "join_authorised_via_users_server"
_SHOWS_PROFILE: Final = frozenset({Membership.JOIN, Membership.INVITE, Membership.KNOCK})
_NOT_CUSTOM: Final = frozenset({"membership", "third_party_signed", "third_party_invite", _AUTHORISER})
"""What the body of a join may not bring into the content of the membership; everything else goes there."""


_THIRD_PARTY: Final = frozenset({"id_server", "medium", "address"})
"""What tells the body of an invitation by another address than a user id."""


class Memberships:
    """Changes memberships for users of this server.

    :param joined: is told of each user who has joined a room, before the user is answered.
    :param forgotten: is told of each user who has forgotten a room, which no event tells.
    :param check_refusal: is asked before a user refuses an invitation, and raises if they may not.
    """

    def __init__(
        self,
        creation: EventCreation,
        remote: RemoteMemberships,
        state: StateReader,
        entry: Entry,
        third_party: ThirdPartyInvites,
        store: MembershipsStore,
        invitees: InviteesStore,
        aliases: Aliases,
        limits: RateLimits,
        server_name: str,
        joined: Callable[[str, str], Awaitable[None]],
        forgotten: Callable[[str], Awaitable[None]] | None = None,
        check_refusal: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._creation = creation
        self._joined = joined
        self._forgotten = forgotten
        self._check_refusal = check_refusal
        self._remote = remote
        self._state = state
        self._entry = entry
        self._third_party = third_party
        self._store = store
        self._invitees = invitees
        self._aliases = aliases
        self._limits = limits
        self._server_name = server_name

    # -- what users do -----------------------------------------------------------------------------------------

    async def join(
        self, requester: Requester, room: str, body: dict[str, Any] | None = None, via: Sequence[str] = ()
    ) -> str:
        """Join a room by id or alias; its id. Whoever is in it already stays as they are.

        What `body` has besides `reason` and `third_party_signed` goes into the content of the membership; `via` are
        servers that may be in the room. Raises 403 M_FORBIDDEN, 404 M_NOT_FOUND for rooms that nobody knows, what
        `Entry.allow` says, and what other servers answer, where they must be asked.
        """
        room_id, servers = await self._find(room, via)
        elsewhere = await self._remote.is_elsewhere(room_id)
        if not elsewhere and await self._surely(room_id, requester.user_id, {Membership.JOIN}):
            return room_id
        if body and "third_party_signed" in body:
            await self._third_party.accept(requester, room_id, body["third_party_signed"])
        custom = {key: value for key, value in (body or {}).items() if key not in _NOT_CUSTOM}
        content = {**custom, "membership": Membership.JOIN, **_reason(body)}
        if elsewhere and await self._join_elsewhere(requester, room_id, content, servers):
            return room_id
        try:
            await self._change(requester, room_id, requester.user_id, content)
        except MatrixError as error:
            if error.errcode not in _ASK_OTHERS or not await self._join_vouched(requester, room_id, content, servers):
                raise
        return room_id

    async def knock(
        self, requester: Requester, room: str, body: dict[str, Any] | None = None, via: Sequence[str] = ()
    ) -> str:
        """Ask to be let in; the room's id. `via` as for `join`."""
        room_id, servers = await self._find(room, via)
        content = {"membership": Membership.KNOCK, **_reason(body)}
        if await self._remote.is_elsewhere(room_id):
            shown = {**await self._shown(requester.user_id, Membership.KNOCK), **content}
            await self._remote.knock(requester.user_id, room_id, shown, servers)
        else:
            await self._change(requester, room_id, requester.user_id, content)
        return room_id

    async def leave(self, requester: Requester, room_id: str, body: dict[str, Any] | None = None) -> None:
        """Leave, refuse an invitation, or take back a knock. Whoever has left already stays so."""
        content = {"membership": Membership.LEAVE, **_reason(body)}
        if await self._remote.is_elsewhere(room_id):
            await self._remote.leave(requester.user_id, room_id, content)
            return
        if await self._surely(room_id, requester.user_id, {Membership.LEAVE}):
            return
        if await self._surely(room_id, requester.user_id, {None}):
            raise forbidden("You are not in that room, or there is no such room.")
        await self._change(requester, room_id, requester.user_id, content)

    async def invite(self, requester: Requester, room_id: str, body: dict[str, Any]) -> None:
        """Invite the user that `body` names, or whoever has the e-mail address or phone number that it names.

        Raises 403 M_INVITE_BLOCKED where that user wants no invitations.
        """
        target: str | None
        if "user_id" not in body and not _THIRD_PARTY.isdisjoint(body):
            target = await self._third_party.invite(requester, room_id, convert(body, Invite3pid))
            if target is None:
                return
        else:
            target = _target(body)
        await self._change(requester, room_id, target, {"membership": Membership.INVITE, **_reason(body)})

    async def kick(self, requester: Requester, room_id: str, body: dict[str, Any]) -> None:
        """Make somebody leave who is in the room, invited, or knocks."""
        target = _target(body)
        if await self._surely(room_id, target, {None, Membership.LEAVE, Membership.BAN}):
            await self._require_joined(requester.user_id, room_id)
            raise forbidden(f"{target} is not in the room.")
        await self._change(requester, room_id, target, {"membership": Membership.LEAVE, **_reason(body)})

    async def ban(self, requester: Requester, room_id: str, body: dict[str, Any]) -> None:
        """Make somebody leave for good, or keep them from coming."""
        await self._change(requester, room_id, _target(body), {"membership": Membership.BAN, **_reason(body)})

    async def unban(self, requester: Requester, room_id: str, body: dict[str, Any]) -> None:
        """Lift a ban."""
        target = _target(body)
        if await self._surely(room_id, target, {None, *Membership.ALL} - {Membership.BAN}):
            await self._require_joined(requester.user_id, room_id)
            raise forbidden(f"{target} is not banned from the room.")
        await self._change(requester, room_id, target, {"membership": Membership.LEAVE, **_reason(body)})

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
        """An m.room.member event as the client words it; its id. A name or picture of its own holds in this room.

        Invitations, and joins of who is not in the room yet, count like those that are made by their own endpoints.
        """
        membership = content.get("membership")
        if not isinstance(membership, str) or membership not in Membership.ALL:
            raise bad_json(f"A membership is one of {', '.join(sorted(Membership.ALL))}.")
        parse_user_id(target)
        if membership == Membership.INVITE:
            self._limits.check("rc_invites.per_issuer", requester.user_id)
        elif membership == Membership.JOIN and await self.membership(room_id, target) != Membership.JOIN:
            self._limits.check("rc_joins.local", requester.user_id)
        if target == requester.user_id and await self._remote.is_elsewhere(room_id):
            return await self._put_elsewhere(requester, room_id, content)
        return await self._change(requester, room_id, target, content)

    async def joined_rooms(self, user_id: str) -> list[str]:
        """The rooms that the user is in."""
        return [m.room_id for m in await self._store.rooms_of(user_id, [Membership.JOIN])]

    async def membership(self, room_id: str, user_id: str) -> str | None:
        """Where a user stands with a room; None for those who never had to do with it."""
        key = (EventTypes.MEMBER, user_id)
        found = await self._state.current(room_id, [key])
        return found[key].event.membership if key in found else None

    # ------------------------------------------------------------------------------------------------------------

    async def _change(self, requester: Requester, room_id: str, target: str, content: dict[str, Any]) -> str:
        """Make the event, with what the content lacks; its id."""
        membership = content["membership"]
        limits = ((PER_ROOM, room_id), (PER_USER, target)) if membership == Membership.INVITE else ()
        for limit, key in limits:
            self._limits.require(limit, key)
        content = {key: value for key, value in content.items() if key != _AUTHORISER}
        if membership == Membership.JOIN and target == requester.user_id:
            authoriser = await self._entry.allow(requester, room_id)
            if authoriser is not None:
                content[_AUTHORISER] = authoriser
        elif membership == Membership.LEAVE and target == requester.user_id:
            await self._leaving(room_id, target)
        if membership in _SHOWS_PROFILE:
            content = {**await self._shown(target, membership), **content}
        if membership == Membership.INVITE and domain_of(target) != self._server_name:
            created = await self._remote.invite(draft_of(requester, room_id, target, content))
        else:
            created = await self._creation.create(requester, room_id, EventTypes.MEMBER, content, state_key=target)
        for limit, key in limits:
            self._limits.count(limit, key)
        if membership == Membership.JOIN:
            await self._joined(target, room_id)
        return created.event_id

    async def _put_elsewhere(self, requester: Requester, room_id: str, content: dict[str, Any]) -> str:
        """The own membership, as the client words it, of a room that this server is not in."""
        user_id, membership = requester.user_id, content["membership"]
        if membership == Membership.JOIN:
            if not await self._join_elsewhere(requester, room_id, content, ()):
                return await self._change(requester, room_id, user_id, content)
        elif membership == Membership.KNOCK:
            await self._remote.knock(user_id, room_id, {**await self._shown(user_id, membership), **content}, ())
        elif membership == Membership.LEAVE:
            await self._remote.leave(user_id, room_id, content)
        else:
            raise forbidden("You are not in that room, or there is no such room.")
        own = await self._store.of_user(user_id, room_id)
        return "" if own is None else own.event_id

    async def _leaving(self, room_id: str, user_id: str) -> None:
        if self._check_refusal is not None and await self.membership(room_id, user_id) == Membership.INVITE:
            await self._check_refusal(user_id, room_id)

    async def _shown(self, user_id: str, membership: str) -> dict[str, Any]:
        """How the user shows in rooms. Raises for those who cannot be invited, or do not want to be."""
        if domain_of(user_id) != self._server_name:
            return {}
        user = await self._invitees.get(user_id)
        if membership == Membership.INVITE and user.blocks_invites:
            raise invite_blocked(user_id)
        return dict(user.as_invited() if membership == Membership.INVITE else user.as_json())

    async def _join_elsewhere(
        self, requester: Requester, room_id: str, content: dict[str, Any], servers: Sequence[str]
    ) -> bool:
        """Comes in with the help of others; False if the room is this server's by now, to be joined like any other."""
        self._limits.check(REMOTE_JOINS, requester.user_id)
        shown = {**await self._shown(requester.user_id, Membership.JOIN), **content}
        if not await self._remote.join(requester.user_id, room_id, shown, servers):
            return False
        if requester.is_guest and not await self._entry.lets_guests_in(room_id):
            # The room's servers do not know who is a guest, and this one did not know the room.
            await self.leave(requester, room_id)
            raise guest_access_forbidden("Guests may not join this room.")
        await self._joined(requester.user_id, room_id)
        return True

    async def _join_vouched(
        self, requester: Requester, room_id: str, content: dict[str, Any], servers: Sequence[str]
    ) -> bool:
        """Comes into a room of this server's, where only others can say that the user may; False if there are none."""
        self._limits.check(REMOTE_JOINS, requester.user_id)
        shown = {**await self._shown(requester.user_id, Membership.JOIN), **content}
        if not await self._remote.join_vouched(requester.user_id, room_id, shown, servers):
            return False
        await self._joined(requester.user_id, room_id)
        return True

    async def _find(self, room: str, via: Sequence[str]) -> tuple[str, list[str]]:
        """The room's id, and servers that may be in it."""
        if room.startswith("#"):
            located = await self._aliases.locate(room)
            return located.room_id, [*via, *located.servers]
        if not is_room_id(room):
            raise invalid_param(
                "A room is named by its ID, like !name:server or ! and 43 letters, or its alias, like #name:server."
            )
        return room, list(via)

    async def _surely(self, room_id: str, user_id: str, memberships: Set[str | None]) -> bool:
        """Whether the user stands with the room in one of these ways, also by the word of the database."""
        if await self.membership(room_id, user_id) not in memberships:
            return False
        await self._creation.refresh(room_id)
        return await self.membership(room_id, user_id) in memberships

    async def _require_joined(self, user_id: str, room_id: str) -> None:
        if await self._surely(room_id, user_id, {None, *Membership.ALL} - {Membership.JOIN}):
            raise forbidden("You are not in that room, or there is no such room.")


def invite_blocked(user_id: str) -> MatrixError:
    """The answer to who invites somebody that wants no invitations."""
    return MatrixError(403, Codes.INVITE_BLOCKED, f"{user_id} does not accept invitations.")


def draft_of(requester: Requester, room_id: str, user_id: str, content: dict[str, Any]) -> Draft:
    """A membership of `user_id`, as the requester makes it."""
    marks = (requester.is_admin, requester.standing.suspended)
    return Draft(room_id, requester.user_id, EventTypes.MEMBER, content, user_id, None, None, None, *marks)


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
