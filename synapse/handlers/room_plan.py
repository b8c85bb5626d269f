"""What a request for a new room means: the state that the room begins with, in the order of the specification. Pure.

Client-server API, "Creation"; room version 12 for the power of creators.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from synapse.api.constants import MEGOLM, EventTypes, GuestAccess, HistoryVisibility, JoinRules, Membership
from synapse.api.errors import Codes, MatrixError, bad_json, invalid_param
from synapse.api.identifiers import is_user_id
from synapse.api.room_versions import RoomVersion
from synapse.events.event import StateKey
from synapse.events.power_levels import LEVEL_DEFAULTS, parse_level
from synapse.handlers.event_content import aliases_in

PRIVATE, TRUSTED, PUBLIC = "private_chat", "trusted_private_chat", "public_chat"
PRESETS: Final = {
    PRIVATE: (JoinRules.INVITE, HistoryVisibility.SHARED, GuestAccess.CAN_JOIN),
    TRUSTED: (JoinRules.INVITE, HistoryVisibility.SHARED, GuestAccess.CAN_JOIN),
    PUBLIC: (JoinRules.PUBLIC, HistoryVisibility.SHARED, GuestAccess.FORBIDDEN),
}

ENCRYPTED_PRESETS: Final = {
    "off": frozenset[str](),
    "invite": frozenset({PRIVATE, TRUSTED}),
    "all": frozenset(PRESETS),
}
"""Rooms of which presets are encrypted from their beginning, by the value of
`encryption_enabled_by_default_for_room_type`."""

_ENCRYPTION: Final = {"algorithm": MEGOLM}
_TOMBSTONE_LEVEL: Final = 150
"""To send m.room.tombstone since room version 12: more than an administrator has."""


class InitialState(msgspec.Struct, frozen=True):
    """A state event that the room is to begin with."""

    type: str
    content: dict[str, Any]
    state_key: str = ""


class Invite3pid(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is invited by another address than a user id, and the identity server to ask."""

    id_server: str
    id_access_token: str
    medium: str
    address: str


class CreateRoom(msgspec.Struct, frozen=True, kw_only=True):
    """The body of createRoom."""

    visibility: str | None = None
    preset: str | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: list[str] = msgspec.field(default_factory=list)
    invite_3pid: list[Invite3pid] = msgspec.field(default_factory=list)
    room_version: str | None = None
    creation_content: dict[str, Any] = msgspec.field(default_factory=dict)
    initial_state: list[InitialState] = msgspec.field(default_factory=list)
    is_direct: bool = False
    power_level_content_override: dict[str, Any] = msgspec.field(default_factory=dict)


class PlannedState(NamedTuple):
    """A state event to be. The content is new, and may be changed."""

    type: str
    state_key: str
    content: dict[str, Any]


class RoomPlan:
    """The state that a new room begins with.

    :param invited: whom to invite, the creator not among them.
    :param encrypted: the presets whose rooms are encrypted from their beginning.
    """

    def __init__(
        self,
        creator: str,
        version: RoomVersion,
        wish: CreateRoom,
        alias: str | None,
        invited: list[str],
        encrypted: frozenset[str] = frozenset(),
    ) -> None:
        self.creator = creator
        self.version = version
        self.invited = invited
        self._wish = wish
        self._preset = preset_of(wish)
        self._alias = alias
        self._encrypted = encrypted

    def events(self) -> Iterator[PlannedState]:
        """All but the invitations. Raises 400 M_BAD_JSON, M_BAD_ALIAS."""
        wish = self._wish
        yield PlannedState(EventTypes.CREATE, "", self._create())
        yield PlannedState(EventTypes.MEMBER, self.creator, {"membership": Membership.JOIN})
        yield PlannedState(EventTypes.POWER_LEVELS, "", self._power_levels())
        if self._alias is not None:
            yield PlannedState(EventTypes.CANONICAL_ALIAS, "", {"alias": self._alias})
        given = {(state.type, state.state_key) for state in wish.initial_state}
        yield from (planned for planned in self._of_preset() if planned[:2] not in given)
        yield from self._initial_state()
        if wish.name:
            yield PlannedState(EventTypes.NAME, "", {"name": wish.name})
        if wish.topic:
            content = {"topic": wish.topic, "m.topic": {"m.text": [{"body": wish.topic}]}}
            yield PlannedState(EventTypes.TOPIC, "", content)

    def invitations(self) -> Iterator[PlannedState]:
        """The memberships of those who are invited by user id."""
        direct = {"is_direct": True} if self._wish.is_direct else {}
        for user_id in self.invited:
            yield PlannedState(EventTypes.MEMBER, user_id, {"membership": Membership.INVITE, **direct})

    def _initial_state(self) -> Iterator[PlannedState]:
        wish = self._wish
        later: set[StateKey] = set()
        if wish.name:
            later.add((EventTypes.NAME, ""))
        if wish.topic:
            later.add((EventTypes.TOPIC, ""))
        for state in wish.initial_state:
            if (state.type, state.state_key) in later:
                continue
            if state.type == EventTypes.CANONICAL_ALIAS and state.state_key == "":
                self._check_aliases(state.content)
            yield PlannedState(state.type, state.state_key, dict(state.content))

    def _check_aliases(self, content: dict[str, Any]) -> None:
        """No alias leads to the room yet but the one that is made along with it."""
        for alias in aliases_in(content):
            if alias != self._alias:
                raise MatrixError(400, Codes.BAD_ALIAS, f"The room alias {alias} does not lead to the new room.")

    def _create(self) -> dict[str, Any]:
        content = {**self._wish.creation_content, "room_version": self.version.identifier}
        content.pop("creator", None)
        if not self.version.implicit_creator:
            content["creator"] = self.creator
        if self.version.privileged_creators and self._preset == TRUSTED and self.invited:
            named = checked_creators(content.get("additional_creators", []))
            content["additional_creators"] = list(dict.fromkeys([*named, *self.invited]))
        return content

    def _power_levels(self) -> dict[str, Any]:
        """Moderators may name and decorate the room; what can break it is for administrators."""
        users: dict[str, int] = {}
        if not self.version.privileged_creators:
            users[self.creator] = 100
            if self._preset == TRUSTED:
                users.update(dict.fromkeys(self.invited, 100))
        content: dict[str, Any] = {
            "users": users,
            "users_default": 0,
            "events": {
                EventTypes.NAME: 50,
                EventTypes.AVATAR: 50,
                EventTypes.CANONICAL_ALIAS: 50,
                EventTypes.POWER_LEVELS: 100,
                EventTypes.HISTORY_VISIBILITY: 100,
                EventTypes.SERVER_ACL: 100,
                EventTypes.ENCRYPTION: 100,
                EventTypes.TOMBSTONE: 100,
            },
            "events_default": 0,
            "state_default": 50,
            "ban": 50,
            "kick": 50,
            "redact": 50,
            "invite": 50 if self._preset == PUBLIC else 0,
        }
        override = self._wish.power_level_content_override
        return with_tombstone_level({**content, **override}, override, self.version)

    def _of_preset(self) -> Iterator[PlannedState]:
        join_rule, visibility, guest_access = PRESETS[self._preset]
        yield PlannedState(EventTypes.JOIN_RULES, "", {"join_rule": join_rule})
        yield PlannedState(EventTypes.HISTORY_VISIBILITY, "", {"history_visibility": visibility})
        if guest_access != GuestAccess.FORBIDDEN:  # which holds without an event that says so
            yield PlannedState(EventTypes.GUEST_ACCESS, "", {"guest_access": guest_access})
        if self._preset in self._encrypted:
            yield PlannedState(EventTypes.ENCRYPTION, "", dict(_ENCRYPTION))


def preset_of(wish: CreateRoom) -> str:
    """The preset that applies. Raises M_INVALID_PARAM for what is none, and for an unknown visibility."""
    if wish.visibility not in (None, "public", "private"):
        raise invalid_param("The visibility of a room is 'public' or 'private'.")
    usual = PUBLIC if wish.visibility == "public" else PRIVATE
    preset = usual if wish.preset is None else wish.preset
    if preset not in PRESETS:
        raise invalid_param(f"A preset is one of {', '.join(PRESETS)}.")
    return preset


def with_tombstone_level(content: dict[str, Any], chosen: dict[str, Any], version: RoomVersion) -> dict[str, Any]:
    """Power levels in which upgrading the room takes more than other state, as room version 12 wants it, unless
    `chosen` names a level for it."""
    if not version.privileged_creators:
        return content
    events, named = content.get("events"), chosen.get("events")
    if not isinstance(events, dict) or (isinstance(named, dict) and EventTypes.TOMBSTONE in named):
        return content
    default = parse_level(content.get("state_default"), version)
    level = max(_TOMBSTONE_LEVEL, (LEVEL_DEFAULTS["state_default"] if default is None else default) + 1)
    return {**content, "events": {**events, EventTypes.TOMBSTONE: level}}


def checked_creators(value: Any) -> list[str]:
    """The user ids of `additional_creators`; raises M_BAD_JSON for anything else."""
    if not isinstance(value, list) or not all(isinstance(user_id, str) and is_user_id(user_id) for user_id in value):
        raise bad_json("'additional_creators' must be an array of user IDs.")
    return value
