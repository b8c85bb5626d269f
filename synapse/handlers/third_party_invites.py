"""Invitations to people whose user id is not known: an identity server keeps them, the room holds their keys, and who
proves to have the address turns them into an ordinary invitation.

Client-server API, "Third-party invites"; server-server API, "Third-party invites"; the signature itself is judged by
the authorisation rules.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import MatrixError, bad_json, forbidden, invalid_param
from synapse.api.identifiers import domain_of, is_room_id, is_user_id, parse_user_id
from synapse.events.auth_membership import key_that_signed, keys_of_invite
from synapse.events.power_levels import PowerLevels
from synapse.handlers.event_creation import Draft
from synapse.handlers.identity_server import PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synapse.events.event import Event, StateKey
    from synapse.handlers.event_creation import EventCreation
    from synapse.handlers.identity_server import IdentityServers, StoredInvite
    from synapse.handlers.room_plan import Invite3pid
    from synapse.http.ratelimit import RateLimits
    from synapse.http.request import Requester
    from synapse.state.store import StateReader
    from synapse.storage.invitees import InviteesStore
    from synapse.storage.persist_events import Persisted

logger = logging.getLogger(__name__)

LIMIT: Final = "rc_third_party_invite"
MAX_PENDING: Final = 100
"""Invitations that an identity server may tell of at once."""

_TOKEN: Final = re.compile(r"[^\x00]{1,255}")
"""What may be a token: the state key of m.room.third_party_invite, which users can also set themselves."""

_CREATE: Final = (EventTypes.CREATE, "")
_POWER_LEVELS: Final = (EventTypes.POWER_LEVELS, "")
_DESCRIBED: Final = {
    (EventTypes.NAME, ""): ("room_name", "name"),
    (EventTypes.AVATAR, ""): ("room_avatar_url", "url"),
    (EventTypes.CANONICAL_ALIAS, ""): ("room_alias", "alias"),
    (EventTypes.JOIN_RULES, ""): ("room_join_rules", "join_rule"),
    _CREATE: ("room_type", "type"),
}
"""What an identity server is told of a room, and where in the room's state it stands."""


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation whose address has found its owner."""

    room_id: str
    sender: str
    signed: dict[str, Any]


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """An identity server's word that an address belongs to a user of ours."""

    medium: str
    address: str
    mxid: str
    invites: list[Pending] = msgspec.field(default_factory=list)


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What an identity server has signed: that the owner of an invitation is that user."""

    display_name: str
    signed: dict[str, Any]


class ExchangeContent(msgspec.Struct, frozen=True, kw_only=True):
    """Its content."""

    membership: str
    third_party_invite: Signed


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """The ordinary invitation that another server wants for a user of its own: a partial m.room.member."""

    type: str
    room_id: str
    sender: str
    state_key: str
    content: ExchangeContent


class OtherServers(Protocol):
    """What others have to do with it; see `handlers.doors.third_party`."""

    async def is_in(self, room_id: str) -> bool:
        """Whether this server is in the room."""

    async def ask(self, server: str, room_id: str, event: dict[str, Any]) -> None:
        """Has a server that is in a room exchange an invitation for a user of ours. Raises MatrixError."""

    async def invite(self, draft: Draft) -> Persisted:
        """Invites another server's user."""

    async def bring_in(self, event: Event) -> Persisted:
        """Brings an invitation of ours by another server's user into the room."""


class ThirdPartyInvites:
    """Makes and accepts invitations by e-mail address or phone number."""

    def __init__(
        self,
        creation: EventCreation,
        state: StateReader,
        identity: IdentityServers,
        invitees: InviteesStore,
        limits: RateLimits,
        server_name: str,
        others: Callable[[], OtherServers],
    ) -> None:
        self._others = others
        self._creation = creation
        self._state = state
        self._identity = identity
        self._invitees = invitees
        self._limits = limits
        self._server_name = server_name

    # -- inviting ------------------------------------------------------------------------------------------------------

    async def find(self, requester: Requester, wanted: Invite3pid) -> str | None:
        """The user who has the address, as far as the identity server knows; counts against the limit."""
        self._identity.check(wanted)
        self._limits.check(LIMIT, requester.user_id)
        return await self._identity.lookup(wanted)

    async def invite(self, requester: Requester, room_id: str, wanted: Invite3pid) -> str | None:
        """Invite whoever has the address, or will have it; returns the user who has, and who is yet to be invited.

        Raises 403 M_FORBIDDEN for whoever may not invite, before anybody is written to.
        """
        keys = [*_DESCRIBED, _POWER_LEVELS, (EventTypes.MEMBER, requester.user_id)]
        await self._creation.refresh(room_id)
        state = {key: stored.event for key, stored in (await self._state.current(room_id, keys)).items()}
        _require_power(state, requester.user_id)
        user_id = await self.find(requester, wanted)
        if user_id is None:
            stored = await self.store(requester, room_id, state, wanted)
            await self._creation.create(
                requester, room_id, EventTypes.THIRD_PARTY_INVITE, content_of(stored), state_key=stored.token
            )
        return user_id

    async def store(
        self, requester: Requester, room_id: str, state: Mapping[StateKey, Event], wanted: Invite3pid
    ) -> StoredInvite:
        """Have the identity server keep an invitation to a room of that state, and write to the address."""
        sender = await self._invitees.get(requester.user_id)
        described = {"room_id": room_id, "sender": requester.user_id}
        for name, value in (("sender_display_name", sender.display_name), ("sender_avatar_url", sender.avatar_url)):
            if value is not None:
                described[name] = value
        for key, (name, where) in _DESCRIBED.items():
            value = state[key].content.get(where) if key in state else None
            if isinstance(value, str):
                described[name] = value
        return await self._identity.store_invite(wanted, described)

    # -- accepting -----------------------------------------------------------------------------------------------------

    async def accept(self, requester: Requester, room_id: str, signed: Any) -> None:
        """Turn an invitation into one of the requester, on the strength of `third_party_signed`.

        Raises 400 M_BAD_JSON, M_INVALID_PARAM; 403 M_FORBIDDEN where the room has no such invitation, or its key is not
        valid (any more).
        """
        if not isinstance(signed, dict):
            raise bad_json("'third_party_signed' must be an object.")
        for name in ("sender", "mxid", "token"):
            if not isinstance(signed.get(name), str):
                raise bad_json(f"'third_party_signed' must have the string '{name}'.")
        if signed["mxid"] != requester.user_id:
            raise forbidden("The invitation was signed for somebody else.")
        await self._exchange(room_id, signed["sender"], requester.user_id, signed)

    async def bound(self, binding: Bound) -> None:
        """An address has found its owner: invite it wherever its address was, as far as that can be.

        Raises 400 M_INVALID_PARAM; and where none of the invitations holds, what the first one is refused for.
        """
        if not is_user_id(binding.mxid) or domain_of(binding.mxid) != self._server_name:
            raise invalid_param("The 'mxid' must be a user of this server.")
        if len(binding.invites) > MAX_PENDING:
            raise invalid_param(f"An address may have {MAX_PENDING} pending invitations at most.")
        refused = []
        for pending in binding.invites:
            try:
                await self._invite_bound(binding.mxid, pending)
            except MatrixError as error:
                logger.info("%s is not invited to %s: %s", binding.mxid, pending.room_id, error.message)
                refused.append(error)
        if refused and len(refused) == len(binding.invites):
            raise refused[0]

    async def exchange(self, origin: str, room_id: str, wanted: Exchange) -> None:
        """Invite a user of `origin` in the place of an address, into a room that this server is in.

        Raises 400 M_INVALID_PARAM for another kind of event; 403 M_FORBIDDEN where the room has no such invitation by a
        user of ours, or it is signed for somebody else.
        """
        if (wanted.type, wanted.content.membership) != (EventTypes.MEMBER, Membership.INVITE):
            raise invalid_param("The event must be an m.room.member with the membership 'invite'.")
        if wanted.room_id != room_id:
            raise invalid_param("The event belongs to another room than the path says.")
        parse_user_id(wanted.state_key)
        parse_user_id(wanted.sender)
        if domain_of(wanted.state_key) != origin:
            raise forbidden(f"{origin} may have its own users invited, and no others.")
        if domain_of(wanted.sender) != self._server_name:
            raise forbidden("The invitation was not made by a user of this server.")
        signed = wanted.content.third_party_invite.signed
        _check_signed(signed)
        if signed["mxid"] != wanted.state_key:
            raise forbidden("The invitation was signed for somebody else.")
        await self._exchange(room_id, wanted.sender, wanted.state_key, signed)

    async def _invite_bound(self, user_id: str, pending: Pending) -> None:
        _check_signed(pending.signed)
        if pending.signed["mxid"] != user_id:
            raise forbidden("The invitation was signed for somebody else.")
        if (await self._invitees.get(user_id)).blocks_invites:
            raise forbidden("The user does not accept invitations.")
        await self._exchange(pending.room_id, pending.sender, user_id, pending.signed)

    async def _exchange(self, room_id: str, sender: str, user_id: str, signed: dict[str, Any]) -> None:
        """The ordinary invitation in the place of one by address, from whoever made that one."""
        token = signed.get("token")
        if (
            not is_room_id(room_id)
            or not is_user_id(sender)
            or not isinstance(token, str)
            or not _TOKEN.fullmatch(token)
        ):
            raise invalid_param("The invitation lacks a room, a sender or a token.")
        if await self._others().is_in(room_id):
            await self._exchange_here(room_id, sender, user_id, token, signed)
        elif domain_of(sender) == self._server_name:
            raise forbidden("The room has no such invitation (any more).")
        else:
            invite = {"display_name": "", "signed": signed}  # the room's server knows the name
            event = {
                "type": EventTypes.MEMBER,
                "room_id": room_id,
                "sender": sender,
                "state_key": user_id,
                "content": {"membership": Membership.INVITE, "third_party_invite": invite},
            }
            await self._others().ask(domain_of(sender), room_id, event)

    async def _exchange_here(self, room_id: str, sender: str, user_id: str, token: str, signed: dict[str, Any]) -> None:
        """In a room that this server is in. Who makes the event signs it, also for another server's inviter."""
        place, member = (EventTypes.THIRD_PARTY_INVITE, token), (EventTypes.MEMBER, user_id)
        await self._creation.refresh(room_id)
        state = await self._state.current(room_id, [place, member])
        if member in state and state[member].event.membership in (Membership.JOIN, Membership.INVITE):
            return
        if place not in state or state[place].event.sender != sender:
            raise forbidden("The room has no such invitation (any more).")
        invite = state[place].event
        await self._require_valid_key(invite, signed)
        name = invite.content.get("display_name")
        content: dict[str, Any] = {
            **(await self._invitees.get(user_id)).as_invited(),
            "membership": Membership.INVITE,
            "third_party_invite": {"display_name": name if isinstance(name, str) else "", "signed": signed},
        }
        draft = Draft(room_id, sender, EventTypes.MEMBER, content, user_id)
        if domain_of(user_id) != self._server_name:
            await self._others().invite(draft)
        elif domain_of(sender) == self._server_name:
            await self._creation.send(draft)
        else:
            await self._others().bring_in(await self._creation.rehearse(draft))

    async def _require_valid_key(self, invite: Event, signed: dict[str, Any]) -> None:
        """The key that signed must be one of the room's, and not revoked: for us, who vouch for the invitation."""
        keys = keys_of_invite(invite)
        key = key_that_signed(signed, list(keys))
        if key is None:
            raise forbidden("The invitation is not signed by a key of its identity server.")
        if not await self._identity.is_valid(PublicKey(key, keys[key])):
            raise forbidden("The identity server does not (or no longer) stand by the key that signed the invitation.")


def _check_signed(signed: dict[str, Any]) -> None:
    """Raises 400 for what no identity server would have signed, whoever it is for."""
    by_server = signed.get("signatures")
    if not isinstance(signed.get("mxid"), str) or not isinstance(by_server, dict):
        raise bad_json("What is 'signed' must have the string 'mxid' and the object 'signatures'.")
    parse_user_id(signed["mxid"])
    for keys in by_server.values():
        if not isinstance(keys, dict) or not all(isinstance(signature, str) for signature in keys.values()):
            raise bad_json("The 'signatures' must map servers to keys to signatures.")


def content_of(stored: StoredInvite) -> dict[str, Any]:
    """The content of m.room.third_party_invite; its state key is the token."""
    first = stored.public_keys[0]
    return {
        "display_name": stored.display_name,
        "public_key": first.public_key,
        "key_validity_url": first.key_validity_url or "",
        "public_keys": [key.as_json() for key in stored.public_keys],
    }


def _require_power(state: Mapping[StateKey, Event], user_id: str) -> None:
    member = state.get((EventTypes.MEMBER, user_id))
    if _CREATE not in state or member is None or member.membership != Membership.JOIN:
        raise forbidden("You are not in that room, or there is no such room.")
    levels = PowerLevels.of_state(state, state[_CREATE].room_version)
    if levels.user(user_id) < levels.invite:
        raise forbidden(f"To invite others you need power level {levels.invite}.")
