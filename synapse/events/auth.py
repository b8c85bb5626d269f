"""The authorisation rules: is this event allowed by that state of its room?

Theory of operation. `check(event, state)` is asked several times about one event, with different states: that of its
own auth events, that before it in the DAG, and the room's current one. What depends only on the auth events themselves
(that they are the right ones, and not rejected) is `check_auth_events`. The rules follow the text of the room versions
in its order; what differs between versions is a field of `RoomVersion`. Memberships and changes of power levels have
modules of their own, `auth_membership` and `auth_power_levels`.

Assumed and not looked at again: the event is well-formed (`validation`) and its signatures are right (`signing`).
Refusals are `AuthError`s, 403 M_FORBIDDEN, with a sentence for whoever tried; 400 M_INVALID_PARAM for who may send such
events, where nobody may send that one.

Room versions, "Authorization rules" of each version; server-server API, "Checks performed on receipt of a PDU".
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import AuthError
from synapse.api.identifiers import domain_of, is_user_id
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.auth_membership import check_membership, membership_in
from synapse.events.auth_power_levels import check_power_levels
from synapse.events.auth_types import auth_types_for, auth_types_for_event, cited_types_for
from synapse.events.event import Event, StateKey
from synapse.events.power_levels import PowerLevels

__all__ = [
    "CREATE_KEY",
    "AuthError",
    "auth_state_of",
    "auth_types_for",
    "auth_types_for_event",
    "check",
    "check_auth_events",
    "cited_types_for",
    "may_redact",
]

CREATE_KEY: Final[StateKey] = (EventTypes.CREATE, "")


def check(event: Event, state: Mapping[StateKey, Event]) -> None:
    """Raise AuthError unless the state allows the event.

    `state` holds at least the entries that `auth_types_for_event(event)` names, as far as the room has them; others do
    not matter. The room version is the event's.
    """
    version = event.room_version
    if event.type == EventTypes.CREATE:
        _check_create(event)
        return
    create = _check_room(event, state)
    if version.aliases_auth_rule and event.type == EventTypes.ALIASES:
        _check_aliases(event)
        return
    levels = PowerLevels.of_state(state, version)
    if event.type == EventTypes.MEMBER:
        check_membership(event, state, create, levels)
        return
    if membership_in(state, event.sender) != Membership.JOIN:
        raise AuthError(f"{event.sender} is not in the room.")
    if event.type == EventTypes.THIRD_PARTY_INVITE:
        _check_level(event, levels, levels.invite, "invite others to this room")
        return
    required = levels.required(event.type, event.is_state())
    _check_level(event, levels, required, f"send {event.type} events in this room")
    if event.state_key is not None and event.state_key.startswith("@") and event.state_key != event.sender:
        raise AuthError("State whose key is a user ID may be set by that user only.")
    if event.type == EventTypes.POWER_LEVELS:
        check_power_levels(event, state, create, levels)
    elif version.redaction_auth_rule and event.type == EventTypes.REDACTION:
        _check_redaction(event, levels)


def check_auth_events(event: Event, auth_events: Iterable[Event], rejected: Container[str] = ()) -> None:
    """Raise AuthError unless these are auth events that the event may cite.

    `auth_events` are the events that it cites, all of them; `rejected` holds the ids of rejected events.
    """
    if event.type == EventTypes.CREATE:
        return
    version = event.room_version
    allowed = set(cited_types_for(version, event.type, event.sender, event.state_key, event.content))
    seen: set[StateKey] = set()
    for auth_event in auth_events:
        if not auth_event.is_state() or auth_event.key not in allowed:
            raise AuthError(f"The event cites {auth_event.event_id}, which does not decide whether it is allowed.")
        if auth_event.key in seen:
            raise AuthError(f"The event cites two events for the same state {auth_event.key}.")
        if auth_event.event_id in rejected:
            raise AuthError(f"The event cites {auth_event.event_id}, which was rejected.")
        if auth_event.room_id != event.room_id:
            raise AuthError(f"The event cites {auth_event.event_id}, which belongs to another room.")
        seen.add(auth_event.key)
    if not version.room_id_from_create and CREATE_KEY not in seen:
        raise AuthError("The event does not cite the m.room.create event of its room.")


def auth_state_of(auth_events: Iterable[Event], create: Event | None = None) -> dict[StateKey, Event]:
    """The state that an event's auth events make up.

    Since room version 12 they lack the create event: pass it as `create`, unless it was rejected.
    """
    state = {auth_event.key: auth_event for auth_event in auth_events if auth_event.is_state()}
    if create is not None:
        state.setdefault(CREATE_KEY, create)
    return state


def may_redact(redaction: Event, target: Event, levels: PowerLevels) -> bool:
    """Whether an accepted m.room.redaction takes effect on its target (room version 3, "Handling redactions")."""
    if redaction.room_id != target.room_id:
        return False
    if levels.user(redaction.sender) >= levels.redact:
        return True
    return domain_of(redaction.sender) == domain_of(target.sender)


def _check_create(event: Event) -> None:
    version = event.room_version
    if event.prev_event_ids:
        raise AuthError("A room is created by its first event; m.room.create must have no previous events.")
    if version.room_id_from_create:
        if "room_id" in event.raw:
            raise AuthError(
                "In this room version m.room.create must not have a room_id: the room is named by the event."
            )
    elif domain_of(event.room_id) != domain_of(event.sender):
        raise AuthError("The room ID must be of the server of the user who creates the room.")
    content = event.content
    named = content.get("room_version", "1")
    if not isinstance(named, str) or named not in ROOM_VERSIONS:
        raise AuthError("The room version in m.room.create is not known.")
    if not version.implicit_creator and "creator" not in content:
        raise AuthError("In this room version m.room.create must name the creator.")
    if version.privileged_creators and "additional_creators" in content:
        additional = content["additional_creators"]
        if not isinstance(additional, list) or not all(isinstance(u, str) and is_user_id(u) for u in additional):
            raise AuthError("additional_creators must be an array of user IDs.")


def _check_room(event: Event, state: Mapping[StateKey, Event]) -> Event:
    create = state.get(CREATE_KEY)
    if create is None:
        raise AuthError("The room has no m.room.create event.")
    if create.room_id != event.room_id:
        raise AuthError("The event does not belong to the room that this m.room.create event made.")
    if create.content.get("m.federate") is False and domain_of(event.sender) != domain_of(create.sender):
        raise AuthError(f"Only users of {domain_of(create.sender)} may take part in this room.")
    return create


def _check_aliases(event: Event) -> None:
    if event.state_key is None:
        raise AuthError("m.room.aliases must be a state event.")
    if event.state_key != domain_of(event.sender):
        raise AuthError("The aliases of a server may be set by its own users only.")


def _check_level(event: Event, levels: PowerLevels, required: int, action: str) -> None:
    level = levels.user(event.sender)
    if level < required:
        raise AuthError(f"To {action} you need power level {required}; {event.sender} has {level}.")


def _check_redaction(event: Event, levels: PowerLevels) -> None:
    if levels.user(event.sender) >= levels.redact:
        return
    if domain_of(event.redacts or "") != domain_of(event.event_id):
        raise AuthError(f"To redact events of others you need power level {levels.redact}.")
