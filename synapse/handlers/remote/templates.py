"""The events by which this server's users enter rooms and leave them with others' help: the other server says where in
the room they stand, this server what they say.

Server-server API, `GET /make_join`, `/make_knock`, `/make_leave`: what must be verified before signing. Besides what is
told there, nothing of the template's content is taken over but who vouches for a restricted join: users say nothing
that they did not mean to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import MatrixError
from synapse.api.identifiers import new_event_id
from synapse.api.room_versions import EventFormat, EventIdScheme, RoomVersion
from synapse.events.builder import build, seal
from synapse.events.event import Event
from synapse.events.hashes import reference_hash
from synapse.events.validation import check_pdu
from synapse.federation.errors import BadAnswer

if TYPE_CHECKING:
    from synapse.handlers.event_creation import Signer

AUTHORISER: Final = "join_authorised_via_users_server"
_PLACE: Final = ("prev_events", "auth_events", "depth")
"""What a template is asked for: where in the room the event stands."""


def made_by(
    server: str,
    template: Any,
    version: RoomVersion,
    *,
    room_id: str,
    user_id: str,
    content: Mapping[str, Any],
    signer: Signer,
    now: int,
) -> Event:
    """The event that the template of `server` becomes, signed. `content` is what the user says, `membership` included.

    Raises BadAnswer for a template that is for another room, user or membership, or is none.
    """
    if not isinstance(template, dict) or not isinstance(template.get("content"), dict):
        raise BadAnswer(server, f"{server} proposes no event.")
    wanted = {"type": EventTypes.MEMBER, "room_id": room_id, "sender": user_id, "state_key": user_id}
    if any(template.get(name) != value for name, value in wanted.items()):
        raise BadAnswer(server, f"{server} proposes another event than the one asked for.")
    proposed = template["content"]
    if proposed.get("membership") != content["membership"]:
        raise BadAnswer(server, f"{server} proposes another membership than the one asked for.")
    event: dict[str, Any] = {
        **wanted,
        **{name: template[name] for name in _PLACE if name in template},
        "content": dict(content),
        "origin": signer.server_name,
        "origin_server_ts": now,
    }
    if content["membership"] == Membership.JOIN and version.restricted_joins and AUTHORISER in proposed:
        event["content"][AUTHORISER] = proposed[AUTHORISER]
    if version.event_ids is EventIdScheme.ASSIGNED:
        event["event_id"] = new_event_id(signer.server_name)
    event.setdefault("depth", 0)
    try:
        sealed = seal(event, version, signer.server_name, signer.key)
        check_pdu(sealed.raw, version)
    except MatrixError as error:
        raise BadAnswer(server, f"{server} proposes an event that is not well-formed: {error.message}") from error
    return sealed


def leave_without_help(after: Event, user_id: str, content: Mapping[str, Any], signer: Signer, now: int) -> Event:
    """The event by which a user refuses the invite (or takes back the knock) `after`, where nobody helps with it.

    It is for this server and its users alone: it refers to what they know, and no other server ever sees it.
    """
    version = after.room_version
    auth_events = list(dict.fromkeys((*after.auth_event_ids[:9], after.event_id)))
    hashes = None
    if version.event_format is EventFormat.V1:
        hashes = {after.event_id: reference_hash(after.raw, version)}
    return build(
        version,
        room_id=after.room_id,
        sender=user_id,
        type=EventTypes.MEMBER,
        content=dict(content),
        prev_events=[after.event_id],
        auth_events=auth_events,
        depth=after.depth + 1,
        origin_server_ts=now,
        server_name=signer.server_name,
        signing_key=signer.key,
        state_key=user_id,
        reference_hashes=hashes,
    )
