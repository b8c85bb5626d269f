"""The authorisation rules of m.room.member: joining, inviting, leaving, kicking, banning, knocking.

Called by `synapse.events.auth.check` with a state that has a create event. Room versions, "Authorization rules", rule 5
(4 in some versions) "If type is m.room.member".
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, product
from typing import Any, Final

from synapse.api.constants import EventTypes, JoinRules, Membership
from synapse.api.errors import AuthError
from synapse.api.identifiers import domain_of
from synapse.events import canonical
from synapse.events.event import Event, StateKey
from synapse.events.power_levels import PowerLevels, creators_of
from synapse.events.signing import authorising_user, signatures_by

_MAX_INVITE_CHECKS: Final = 200
"""Pairs of key and signature tried on a third-party invite: a hostile event could ask for hundreds of thousands."""

State = Mapping[StateKey, Event]


def membership_in(state: State, user_id: str) -> str:
    """The user's membership in that state, `leave` if there is none."""
    event = state.get((EventTypes.MEMBER, user_id))
    return (event.membership if event is not None else None) or Membership.LEAVE


def join_rule_in(state: State) -> str:
    """The join rule in that state, `invite` if there is none."""
    event = state.get((EventTypes.JOIN_RULES, ""))
    rule = event.content.get("join_rule") if event is not None else None
    return rule if isinstance(rule, str) else JoinRules.INVITE


def check_membership(event: Event, state: State, create: Event, levels: PowerLevels) -> None:
    """Raise AuthError unless the state allows this m.room.member event."""
    if event.state_key is None:
        raise AuthError("A membership event must have the member's user ID as its state key.")
    _check_authorising_signature(event)
    membership = event.membership
    if membership == Membership.JOIN:
        _check_join(event, event.state_key, state, create, levels)
    elif membership == Membership.INVITE:
        _check_invite(event, event.state_key, state, levels)
    elif membership == Membership.LEAVE:
        _check_leave(event, event.state_key, state, levels)
    elif membership == Membership.BAN:
        _check_ban(event, event.state_key, state, levels)
    elif membership == Membership.KNOCK and event.room_version.knocking:
        _check_knock(event, event.state_key, state)
    else:
        raise AuthError(f"The membership must be one of join, invite, leave, ban and knock, not {membership!r:.40}.")


def _check_authorising_signature(event: Event) -> None:
    """That the signature is right was checked with all others; here it must be there."""
    if not event.room_version.restricted_joins or "join_authorised_via_users_server" not in event.content:
        return
    authoriser = authorising_user(event.raw, event.room_version)
    if authoriser is None or not signatures_by(event.raw, domain_of(authoriser)):
        raise AuthError(f"The join is not signed by the server of {authoriser}, who is said to have authorised it.")


def _check_join(event: Event, target: str, state: State, create: Event, levels: PowerLevels) -> None:
    # Compare ids, not states: only the creator's own first join may go without any rule.
    if event.prev_event_ids == (create.event_id,) and _is_founder(target, create):
        return
    if event.sender != target:
        raise AuthError("Nobody can join a room for somebody else.")
    membership = membership_in(state, target)
    if membership == Membership.BAN:
        raise AuthError(f"{target} is banned from this room.")
    rule = join_rule_in(state)
    if rule == JoinRules.PUBLIC:
        return
    if not _asks_for_invite(event, rule):
        raise AuthError(f"The join rule of this room, {rule!r:.40}, lets nobody join.")
    if membership in (Membership.INVITE, Membership.JOIN):
        return
    if rule not in (JoinRules.RESTRICTED, JoinRules.KNOCK_RESTRICTED):
        raise AuthError(f"{target} is not invited to this room.")
    _check_authoriser(event, state, levels)


def _is_founder(user_id: str, create: Event) -> bool:
    if create.room_version.implicit_creator:
        return user_id == create.sender
    return user_id in creators_of(create)


def _asks_for_invite(event: Event, rule: str) -> bool:
    """Whether this rule lets invited (or otherwise authorised) users join, in the event's room version."""
    version = event.room_version
    return (
        rule == JoinRules.INVITE
        or (rule == JoinRules.KNOCK and version.knocking)
        or (rule == JoinRules.RESTRICTED and version.restricted_joins)
        or (rule == JoinRules.KNOCK_RESTRICTED and version.knock_restricted)
    )


def _check_authoriser(event: Event, state: State, levels: PowerLevels) -> None:
    authoriser = event.content.get("join_authorised_via_users_server")
    if not isinstance(authoriser, str):
        raise AuthError(f"{event.sender} is neither invited to this room nor authorised to join it by a member.")
    if membership_in(state, authoriser) != Membership.JOIN or levels.user(authoriser) < levels.invite:
        raise AuthError(f"{authoriser} cannot authorise joins: that takes a member who may invite others.")


def _check_invite(event: Event, target: str, state: State, levels: PowerLevels) -> None:
    if "third_party_invite" in event.content:
        _check_third_party_invite(event, target, state)
        return
    if membership_in(state, event.sender) != Membership.JOIN:
        raise AuthError(f"{event.sender} is not in the room and so cannot invite others.")
    membership = membership_in(state, target)
    if membership == Membership.JOIN:
        raise AuthError(f"{target} is already in the room.")
    if membership == Membership.BAN:
        raise AuthError(f"{target} is banned from this room.")
    if levels.user(event.sender) < levels.invite:
        raise AuthError(f"To invite others you need power level {levels.invite}.")


def _check_third_party_invite(event: Event, target: str, state: State) -> None:
    if membership_in(state, target) == Membership.BAN:
        raise AuthError(f"{target} is banned from this room.")
    invite = event.content["third_party_invite"]
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if not isinstance(signed, dict):
        raise AuthError("The third-party invite lacks its signed part.")
    mxid, token = signed.get("mxid"), signed.get("token")
    if not isinstance(mxid, str) or not isinstance(token, str):
        raise AuthError("The signed part of a third-party invite must have mxid and token.")
    if mxid != target:
        raise AuthError("The third-party invite was signed for somebody else.")
    original = state.get((EventTypes.THIRD_PARTY_INVITE, token))
    if original is None:
        raise AuthError("The room has no third-party invite of that token (any more).")
    if original.sender != event.sender:
        raise AuthError("A third-party invite must come from the user who made it.")
    if key_that_signed(signed, list(keys_of_invite(original))) is None:
        raise AuthError("The third-party invite is not signed by a key of the identity server.")


def keys_of_invite(invite: Event) -> dict[str, str | None]:
    """The public keys of an m.room.third_party_invite, each with the URL at which to ask whether it is still valid."""
    found: dict[str, str | None] = {}
    several = invite.content.get("public_keys")
    for entry in (invite.content, *(several if isinstance(several, list) else [])):
        key = entry.get("public_key") if isinstance(entry, dict) else None
        url = entry.get("key_validity_url") if isinstance(entry, dict) else None
        if isinstance(key, str):
            found[key] = found.get(key) or (url if isinstance(url, str) and url else None)
    return found


def key_that_signed(signed: dict[str, Any], public_keys: list[str]) -> str | None:
    """The first of the keys by which the `signed` object of a third-party invite is signed, whoever is said to have it
    signed; None if it is none of them."""
    from nacl.exceptions import CryptoError  # importing it loads libsodium; such invites are rare
    from nacl.signing import VerifyKey
    from unpaddedbase64 import decode_base64

    by_server = signed.get("signatures")
    servers = list(by_server) if isinstance(by_server, dict) else []
    signatures = [signature for server in servers for signature in signatures_by(signed, server).values()]
    message = canonical.encode_lenient({k: v for k, v in signed.items() if k not in ("signatures", "unsigned")})
    for key, signature in islice(product(public_keys, signatures), _MAX_INVITE_CHECKS):
        try:
            VerifyKey(decode_base64(key)).verify(message, decode_base64(signature))
        except (CryptoError, ValueError, TypeError):
            continue
        return key
    return None


def _check_leave(event: Event, target: str, state: State, levels: PowerLevels) -> None:
    membership = membership_in(state, target)
    if event.sender == target:
        may_go = (Membership.INVITE, Membership.JOIN)
        if membership in may_go or (membership == Membership.KNOCK and event.room_version.knocking):
            return
        raise AuthError(f"{target} cannot leave a room without being in it, invited to it or knocking on it.")
    if membership_in(state, event.sender) != Membership.JOIN:
        raise AuthError(f"{event.sender} is not in the room and so cannot remove others.")
    level = levels.user(event.sender)
    if membership == Membership.BAN and level < levels.ban:
        raise AuthError(f"To unban somebody you need power level {levels.ban}; {event.sender} has {level}.")
    if level < levels.kick:
        raise AuthError(f"To remove somebody you need power level {levels.kick}; {event.sender} has {level}.")
    if levels.user(target) >= level:
        raise AuthError(f"{event.sender} cannot remove {target}, whose power level is not lower.")


def _check_ban(event: Event, target: str, state: State, levels: PowerLevels) -> None:
    if membership_in(state, event.sender) != Membership.JOIN:
        raise AuthError(f"{event.sender} is not in the room and so cannot ban others.")
    level = levels.user(event.sender)
    if level < levels.ban:
        raise AuthError(f"To ban somebody you need power level {levels.ban}; {event.sender} has {level}.")
    if levels.user(target) >= level:
        raise AuthError(f"{event.sender} cannot ban {target}, whose power level is not lower.")


def _check_knock(event: Event, target: str, state: State) -> None:
    rule = join_rule_in(state)
    if rule != JoinRules.KNOCK and not (rule == JoinRules.KNOCK_RESTRICTED and event.room_version.knock_restricted):
        raise AuthError("The join rule of this room does not let anybody knock.")
    if event.sender != target:
        raise AuthError("Nobody can knock for somebody else.")
    membership = membership_in(state, target)
    if membership in (Membership.BAN, Membership.INVITE, Membership.JOIN):
        raise AuthError(f"{target} cannot knock: the membership is '{membership}' already.")
