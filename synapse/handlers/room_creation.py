"""Creating rooms: who may be invited, under which alias, and what all of it counts against.

What the room begins with is planned by `handlers.room_plan`, and built and written by `handlers.new_rooms`.

Client-server API, "Creation", "Invite permission".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from synapse.api.constants import EventTypes
from synapse.api.errors import forbidden, invalid_param
from synapse.api.identifiers import parse_room_alias, parse_user_id
from synapse.api.room_versions import room_version
from synapse.handlers.directory_rules import NO_RULES
from synapse.handlers.membership import PER_USER, invite_blocked
from synapse.handlers.new_rooms import MAX_EVENTS
from synapse.handlers.room_plan import CreateRoom, RoomPlan, preset_of
from synapse.handlers.third_party_invites import content_of
from synapse.storage.invitees import NOBODY
from synapse.storage.persist_events import NewRoom

if TYPE_CHECKING:
    from synapse.handlers.directory_rules import DirectoryRules
    from synapse.handlers.new_rooms import NewRooms, RoomBuilder
    from synapse.handlers.room_plan import Invite3pid
    from synapse.handlers.third_party_invites import ThirdPartyInvites
    from synapse.http.ratelimit import RateLimits
    from synapse.http.request import Requester
    from synapse.storage.invitees import Invitee, InviteesStore

INVITES: Final = "rc_invites.per_issuer"
"""The setting that invitations count against. A room may begin with more of them than it would allow one by one."""


class Created(msgspec.Struct, frozen=True):
    """A new room."""

    room_id: str
    room_alias: str | None = None


class RoomCreation:
    """Creates rooms, in any process.

    :param encrypted: the presets whose rooms are encrypted unless their creator says otherwise.
    :param rules: who may make aliases and list rooms.
    """

    def __init__(
        self,
        rooms: NewRooms,
        invitees: InviteesStore,
        third_party: ThirdPartyInvites,
        limits: RateLimits,
        server_name: str,
        default_version: str,
        encrypted: frozenset[str] = frozenset(),
        rules: DirectoryRules = NO_RULES,
    ) -> None:
        self._rooms = rooms
        self._invitees = invitees
        self._third_party = third_party
        self._limits = limits
        self._server_name = server_name
        self._default_version = default_version
        self._encrypted = encrypted
        self._rules = rules

    async def create(self, requester: Requester, wish: CreateRoom) -> Created:
        """Create a room with the requester as its creator.

        Raises 400 M_UNSUPPORTED_ROOM_VERSION, M_ROOM_IN_USE (the alias is taken), M_INVALID_ROOM_STATE (the events
        that were asked for contradict each other), M_BAD_ALIAS, M_INVALID_PARAM, M_BAD_JSON; 403 for invitations that
        cannot be, aliases and listings that the server's rules do not allow; M_INVITE_BLOCKED where somebody wants no
        invitations.
        """
        version = room_version(self._default_version if wish.room_version is None else wish.room_version)
        preset_of(wish)
        alias = self._alias(wish)
        invited = self._invited(requester, wish)
        if invited or wish.invite_3pid:
            self._limits.require(INVITES, requester.user_id)
        for user_id in invited:
            self._limits.require(PER_USER, user_id)
        unbound = await self._find(requester, wish, invited)
        users = await self._invitees.get_many([requester.user_id, *invited])
        plan = RoomPlan(requester.user_id, version, wish, alias, invited, self._encrypted)
        builder = self._rooms.begin(version, requester.user_id)
        _build(builder, plan, users)
        self._check_rules(requester, builder.room_id, alias, wish.visibility == "public")
        for wanted in unbound:
            stored = await self._third_party.store(requester, builder.room_id, builder.state, wanted)
            builder.add(EventTypes.THIRD_PARTY_INVITE, stored.token, content_of(stored))
        room = NewRoom(requester.user_id, wish.visibility == "public", [alias] if alias is not None else [])
        await self._rooms.write(builder, room)
        for _ in (*invited, *unbound):
            self._limits.count(INVITES, requester.user_id)
        for user_id in invited:
            self._limits.count(PER_USER, user_id)
        return Created(builder.room_id, alias)

    def _check_rules(self, requester: Requester, room_id: str, alias: str | None, is_listed: bool) -> None:
        if alias is not None:
            self._rules.check_namespace(alias, requester.app_service)
        if requester.is_admin:
            return
        if alias is not None:
            self._rules.check_alias(requester.user_id, room_id, alias)
        if is_listed:
            self._rules.check_publication(requester.user_id, room_id, [] if alias is None else [alias])

    def _alias(self, wish: CreateRoom) -> str | None:
        if wish.room_alias_name is None:
            return None
        alias = f"#{wish.room_alias_name}:{self._server_name}"
        if not wish.room_alias_name or ":" in wish.room_alias_name:
            raise invalid_param("'room_alias_name' is the part of an alias between '#' and ':', without either.")
        parse_room_alias(alias)
        return alias

    async def _find(self, requester: Requester, wish: CreateRoom, invited: list[str]) -> list[Invite3pid]:
        """Looks up who is invited by another address than a user id: adds those who are found to `invited`, returns
        the others."""
        unbound: list[Invite3pid] = []
        for wanted in wish.invite_3pid:
            user_id = await self._third_party.find(requester, wanted)
            if user_id is None:
                unbound.append(wanted)
            else:
                self._require_local(user_id)
                if user_id not in (*invited, requester.user_id):
                    invited.append(user_id)
        return unbound

    def _require_local(self, user_id: str) -> None:
        if parse_user_id(user_id).domain != self._server_name:
            raise forbidden(f"{user_id} belongs to another server, and this one cannot invite over federation yet.")

    def _invited(self, requester: Requester, wish: CreateRoom) -> list[str]:
        """Whom to invite by user id, each once, and never the creator."""
        if len(wish.invite) + len(wish.invite_3pid) + len(wish.initial_state) > MAX_EVENTS:
            raise invalid_param(f"A room may begin with {MAX_EVENTS} invitations and state events at most.")
        for user_id in wish.invite:
            self._require_local(user_id)
        return [user_id for user_id in dict.fromkeys(wish.invite) if user_id != requester.user_id]


def _build(builder: RoomBuilder, plan: RoomPlan, users: dict[str, Invitee]) -> None:
    for user_id in plan.invited:
        if users.get(user_id, NOBODY).blocks_invites:
            raise invite_blocked(user_id)
    creator = users.get(plan.creator, NOBODY).as_json()
    for event_type, state_key, content in plan.events():
        shown = creator if len(builder.events) == 1 else {}  # the creator's own join
        builder.add(event_type, state_key, {**content, **shown})
    for event_type, state_key, content in plan.invitations():
        builder.add(event_type, state_key, {**content, **users.get(state_key, NOBODY).as_invited()})
