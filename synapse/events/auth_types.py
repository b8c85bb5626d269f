"""Which state decides whether an event is allowed: the keys to look at, and which of them the event has to cite.

Server-server API, "Auth events selection"; room version 12 for the create event, which is cited by the room id alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.room_versions import RoomVersion
from synapse.events.event import Event, StateKey

_CREATE: Final[StateKey] = (EventTypes.CREATE, "")
_POWER_LEVELS: Final[StateKey] = (EventTypes.POWER_LEVELS, "")
_JOIN_RULES: Final[StateKey] = (EventTypes.JOIN_RULES, "")
_ASKING_FOR_ENTRY: Final = frozenset({Membership.JOIN, Membership.INVITE, Membership.KNOCK})


def auth_types_for(
    room_version: RoomVersion, event_type: str, sender: str, state_key: str | None, content: Mapping[str, Any]
) -> list[StateKey]:
    """The state entries that `auth.check` looks at for such an event, each once, the create event always included."""
    if event_type == EventTypes.CREATE:
        return []
    keys = [_CREATE, _POWER_LEVELS, (EventTypes.MEMBER, sender)]
    if event_type == EventTypes.MEMBER and state_key is not None:
        _add_membership_keys(keys, room_version, state_key, content)
    return keys


def auth_types_for_event(event: Event) -> list[StateKey]:
    """`auth_types_for` of an event that exists already."""
    return auth_types_for(event.room_version, event.type, event.sender, event.state_key, event.content)


def cited_types_for(
    room_version: RoomVersion, event_type: str, sender: str, state_key: str | None, content: Mapping[str, Any]
) -> list[StateKey]:
    """The state entries that belong into `auth_events` of such an event: all of them, but since room version 12 not
    the create event."""
    keys = auth_types_for(room_version, event_type, sender, state_key, content)
    return keys[1:] if room_version.room_id_from_create and keys else keys


def _add_membership_keys(
    keys: list[StateKey], room_version: RoomVersion, state_key: str, content: Mapping[str, Any]
) -> None:
    membership = content.get("membership")
    target = (EventTypes.MEMBER, state_key)
    if target not in keys:
        keys.append(target)
    if isinstance(membership, str) and membership in _ASKING_FOR_ENTRY:
        keys.append(_JOIN_RULES)
    if membership == Membership.INVITE:
        token = third_party_invite_token(content)
        if token is not None:
            keys.append((EventTypes.THIRD_PARTY_INVITE, token))
    if membership == Membership.JOIN and room_version.restricted_joins:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str) and (EventTypes.MEMBER, authoriser) not in keys:
            keys.append((EventTypes.MEMBER, authoriser))


def third_party_invite_token(content: Mapping[str, Any]) -> str | None:
    """`third_party_invite.signed.token` of a membership event's content."""
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    token = signed.get("token") if isinstance(signed, dict) else None
    return token if isinstance(token, str) else None
