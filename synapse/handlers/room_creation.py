"""Creating rooms: who may be invited, under which alias, and what all of it counts against.

What the room begins with is planned by `handlers.room_plan`, and built and written by `handlers.new_rooms`.

Client-server API, "Creation", "Invite permission".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.constants import EventTypes
from synapse.api.errors import MatrixError, invalid_param
from synapse.api.identifiers import domain_of, parse_room_alias, parse_user_id
from synapse.api.room_versions import room_version
from synapse.handlers.directory_rules import NO_RULES
from synapse.handlers.membership import PER_USER, draft_of, invite_blocked
from synapse.handlers.new_rooms import MAX_EVENTS
from synapse.handlers.room_plan import CreateRoom, RoomPlan, preset_of
from synapse.handlers.third_party_invites import content_of
from synapse.storage.invitees import NOBODY
from synapse.storage.persist_events import NewRoom
from synapse.util.concurrency import gather

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse.handlers.directory_rules import DirectoryRules
    from synapse.handlers.new_rooms import NewRooms, RoomBuilder
    from synapse.handlers.remote.memberships import RemoteMemberships
    from synapse.handlers.room_plan import Invite3pid
    from synapse.handlers.third_party_invites import ThirdPartyInvites
    from synapse.http.ratelimit import RateLimits
    from synapse.http.request import Requester
    from synapse.storage.invitees import Invitee, InviteesStore

logger = logging.getLogger(__name__)

INVITES: Final = "rc_invites.per_issuer"
"""The setting that invitations count against. A room may begin with more of them than it would allow one by one."""

AT_ONCE: Final = 10
"""Servers that are asked at the same time to invite their users."""


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
        remote: RemoteMemberships,
        limits: RateLimits,
        server_name: str,
        default_version: str,
        encrypted: frozenset[str] = frozenset(),
        rules: DirectoryRules = NO_RULES,
    ) -> None:
        self._rooms = rooms
        self._invitees = invitees
        self._third_party = third_party
        self._remote = remote
        self._limits = limits
        self._server_name = server_name
        self._default_version = default_version
        self._encrypted = encrypted
        self._rules = rules

    async def create(self, requester: Requester, wish: CreateRoom) -> Created:
        """Create a room with the requester as its creator.

        Raises 400 M_UNSUPPORTED_ROOM_VERSION, M_ROOM_IN_USE (the alias is taken), M_INVALID_ROOM_STATE (the events
        that were asked for contradict each other), M_BAD_ALIAS, M_INVALID_PARAM, M_BAD_JSON; 403 for aliases and
        listings that the server's rules do not allow; M_INVITE_BLOCKED where somebody wants no invitations. Users of
        other servers are invited when the room is there, and it stays whatever their servers say.
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
        _build(builder, plan, users, self._server_name)
        self._check_rules(requester, builder.room_id, alias, wish.visibility == "public")
        for wanted in unbound:
            stored = await self._third_party.store(requester, builder.room_id, builder.state, wanted)
            builder.add(EventTypes.THIRD_PARTY_INVITE, stored.token, content_of(stored))
        room = NewRoom(requester.user_id, wish.visibility == "public", [alias] if alias is not None else [])
        await self._rooms.write(builder, room)
        await self._invite_others(requester, builder.room_id, plan)
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
                parse_user_id(user_id)
                if user_id not in (*invited, requester.user_id):
                    invited.append(user_id)
        return unbound

    async def _invite_others(self, requester: Requester, room_id: str, plan: RoomPlan) -> None:
        """Invites other servers' users, each server's one after another. Who cannot be invited now may be later."""
        by_server: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for _type, user_id, content in plan.invitations():
            if domain_of(user_id) != self._server_name:
                by_server.setdefault(domain_of(user_id), []).append((user_id, content))
        servers = list(by_server.values())
        for start in range(0, len(servers), AT_ONCE):
            await gather(self._invite_all(requester, room_id, users) for users in servers[start : start + AT_ONCE])

    async def _invite_all(
        self, requester: Requester, room_id: str, users: Iterable[tuple[str, dict[str, Any]]]
    ) -> None:
        for user_id, content in users:
            try:
                await self._remote.invite(draft_of(requester, room_id, user_id, content))
            except MatrixError as error:
                logger.warning("%s is not invited to the new room %s: %s", user_id, room_id, error.message)
                if error.code >= 500:
                    return  # the server is away, for its other users too

    def _invited(self, requester: Requester, wish: CreateRoom) -> list[str]:
        """Whom to invite by user id, each once, and never the creator."""
        if len(wish.invite) + len(wish.invite_3pid) + len(wish.initial_state) > MAX_EVENTS:
            raise invalid_param(f"A room may begin with {MAX_EVENTS} invitations and state events at most.")
        for user_id in wish.invite:
            parse_user_id(user_id)
        return [user_id for user_id in dict.fromkeys(wish.invite) if user_id != requester.user_id]


def _build(builder: RoomBuilder, plan: RoomPlan, users: dict[str, Invitee], server_name: str) -> None:
    """All that is written at once: everything but the invitations of other servers' users."""
    for user_id in plan.invited:
        if users.get(user_id, NOBODY).blocks_invites:
            raise invite_blocked(user_id)
    creator = users.get(plan.creator, NOBODY).as_json()
    for event_type, state_key, content in plan.events():
        shown = creator if len(builder.events) == 1 else {}  # the creator's own join
        builder.add(event_type, state_key, {**content, **shown})
    for event_type, state_key, content in plan.invitations():
        if domain_of(state_key) != server_name:
            continue
        builder.add(event_type, state_key, {**content, **users.get(state_key, NOBODY).as_invited()})
