"""Invitations of this server's users that come from other servers.

What the inviting server wants is our signature on the invite: it is given for users who are here and want to be
invited. Of a room that this server is not in, the invite is kept with the stripped state that came along, and shown to
the user. In a room that it is in already, the invite comes once more with the next transaction, by which it is judged
like every other event.

Server-server API, "Inviting to a room"; client-server API, "Invite permission", "Stripped state".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import forbidden, incompatible_room_version, invalid_param, missing_param
from synapse.api.identifiers import create_id_of_room, domain_of, is_room_version, is_user_id, parse_room_id
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.event import Event
from synapse.events.hashes import event_id_of, has_valid_content_hash
from synapse.events.power_levels import PowerLevels
from synapse.events.signing import add_signature
from synapse.events.validation import check_pdu
from synapse.handlers.membership import PER_ROOM, PER_USER, invite_blocked
from synapse.handlers.stripped_state import MAX_ENTRIES, cut
from synapse.push.bulk import Members
from synapse.storage.persist_events import Fate, Kind, Received, ReceivedEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse.api.room_versions import RoomVersion
    from synapse.federation.receiving.checks import EventChecks
    from synapse.handlers.doors.residence import Residence
    from synapse.handlers.event_creation import Signer
    from synapse.http.ratelimit import RateLimits
    from synapse.push.bulk import BulkPush
    from synapse.state.heads import RoomHeads
    from synapse.storage.invitees import InviteesStore
    from synapse.storage.persist_events import Receipt


class Invite(NamedTuple):
    """An invite as it was sent: the room version that it says (None: 1 or 2), the event as JSON value, and the state
    that shall tell what the room is."""

    room_version: str | None
    event: Any
    state: Any = None


class Invites:
    """Takes in invites, in any process.

    :param receive: hands events to the writer.
    """

    def __init__(
        self,
        residence: Residence,
        heads: RoomHeads,
        signer: Signer,
        checks: EventChecks,
        receive: Callable[[Received], Awaitable[Receipt]],
        invitees: InviteesStore,
        push: BulkPush,
        limits: RateLimits,
    ) -> None:
        self._residence = residence
        self._heads = heads
        self._signer = signer
        self._checks = checks
        self._receive = receive
        self._invitees = invitees
        self._push = push
        self._limits = limits

    async def take(self, origin: str, room_id: str, event_id: str, invite: Invite) -> dict[str, Any]:
        """The invite, signed by this server too.

        Raises 400 M_INCOMPATIBLE_ROOM_VERSION; 400 M_BAD_JSON, M_INVALID_PARAM, M_MISSING_PARAM and 413 M_TOO_LARGE
        for what is no such invite; 403 M_FORBIDDEN for wrong signatures, users who are not here, and servers that
        the room keeps out; 403 M_INVITE_BLOCKED; 429 M_LIMIT_EXCEEDED.
        """
        parse_room_id(room_id)
        await self._residence.check_acl(origin, room_id)
        is_in = await self._residence.is_in(room_id)
        version = await self._version(room_id, invite, is_in)
        raw = check_pdu(invite.event, version)
        self._check_kind(raw, origin, room_id)
        if event_id_of(raw, version) != event_id:
            raise invalid_param("The event ID of the path is not the event's.")
        if not has_valid_content_hash(raw, version):
            raise invalid_param("The hash of the event is not right.")
        event = await self._checks.check_one(raw, version, origin)
        await self._require_welcome(event, is_in)
        signed = Event.from_json(
            add_signature(event.raw, version, self._signer.server_name, self._signer.key), version, event_id=event_id
        )
        if not is_in:
            await self._keep(signed, await self._stripped(event, invite.state))
        return signed.raw

    # ------------------------------------------------------------------------------------------------------------

    async def _version(self, room_id: str, invite: Invite, is_in: bool) -> RoomVersion:
        """The version that the invite's event is of. Raises for one that is not known, or not the room's."""
        head = await self._heads.get(room_id) if is_in else None
        named = invite.room_version
        if named is not None and not is_room_version(named):
            raise invalid_param("The 'room_version' is not one.")
        if head is not None:
            if head.version.identifier not in (("1", "2") if named is None else (named,)):
                raise incompatible_room_version(head.version.identifier)
            return head.version
        version = ROOM_VERSIONS.get("1" if named is None else named)
        if version is None:
            raise incompatible_room_version(str(named))
        return version

    def _check_kind(self, raw: dict[str, Any], origin: str, room_id: str) -> None:
        if raw["type"] != EventTypes.MEMBER or raw["content"].get("membership") != Membership.INVITE:
            raise invalid_param("The event is not an m.room.member with the membership 'invite'.")
        if raw.get("room_id") != room_id:
            raise invalid_param("The event belongs to another room than the path says.")
        if domain_of(raw["sender"]) != origin:
            raise invalid_param(f"{raw['sender']} is not a user of {origin}, which may invite for its own users alone.")
        user_id = raw.get("state_key")
        if user_id is None or not is_user_id(user_id) or domain_of(user_id) != self._signer.server_name:
            raise invalid_param("The event does not invite a user of this server.")

    async def _require_welcome(self, event: Event, is_in: bool) -> None:
        """Raises where the user cannot, or does not want to, be invited, or is invited too often. Who is not here may
        be invited to rooms that the server is in, as by our own users: the room's members may not learn who is."""
        assert event.state_key is not None
        user_id = event.state_key
        for limit, key in ((PER_ROOM, event.room_id), (PER_USER, user_id)):
            self._limits.require(limit, key)
        user = (await self._invitees.get_many([user_id])).get(user_id)
        if user is None and not is_in:
            raise forbidden(f"There is no user {user_id} here (any more).")
        if user is not None and user.blocks_invites:
            raise invite_blocked(user_id)
        for limit, key in ((PER_ROOM, event.room_id), (PER_USER, user_id)):
            self._limits.count(limit, key)

    async def _keep(self, event: Event, stripped: list[Mapping[str, Any]]) -> None:
        version = event.room_version
        thread_id, push = await self._push.evaluate(event, Members({}, 0), PowerLevels(None, None, version))
        kept = ReceivedEvent(event, push=tuple(push), thread_id=thread_id, relay=False, stripped=tuple(stripped))
        receipt = await self._receive(Received(event.room_id, version, (kept,), kind=Kind.ASIDE))
        fate, reason = receipt.fates[0]
        if fate not in (Fate.ACCEPTED, Fate.KNOWN):
            raise forbidden(reason or "The invite cannot be taken.")

    # -- stripped state ------------------------------------------------------------------------------------------------

    async def _stripped(self, invite: Event, state: Any) -> list[Mapping[str, Any]]:
        """What the user is shown of the room, each entry once and with nothing but what stripped state has.

        Since room version 12 the state must be whole events of the room, the one that founds it included; before, what
        is not an entry of stripped state is left out.
        """
        entries = [] if state is None else state
        is_array = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
        if not is_array or len(entries) > MAX_ENTRIES:
            raise invalid_param(f"The state of the room must be an array of {MAX_ENTRIES} events at most.")
        if invite.room_version.room_id_from_create:
            if not entries:
                raise missing_param("invite_room_state")
            entries = await self._whole(invite, entries)
        return cut(entries, invite.sender)

    async def _whole(self, invite: Event, entries: list[Any]) -> list[dict[str, Any]]:
        events = await self._checks.check_many(
            entries, invite.room_version, room_id=invite.room_id, origin=domain_of(invite.sender)
        )
        if len(events) < len(entries):
            raise invalid_param("Some of the room's state is not whole events of the room, rightly signed.")
        if all(event.event_id != create_id_of_room(invite.room_id) for event in events):
            raise invalid_param("The m.room.create event of the room is missing from its state.")
        return [event.raw for event in events]
