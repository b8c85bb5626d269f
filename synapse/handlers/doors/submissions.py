"""Membership events that other servers have signed for users of theirs, and bring to this one, which is in the room:
joins, knocks, and the end of invites and knocks.

Each must be what its template said (`handlers.doors.templates`): of a user of the very server that brings it, about
that user, following on events that are here. Then it goes through the checks that all received events do, and what the
room does not allow is refused, not stored quietly as rejected. What has been accepted is passed on to the others.

Server-server API, "Joining Rooms", "Restricted rooms", "Knocking upon a room", "Leaving Rooms".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import forbidden, invalid_param
from synapse.api.identifiers import domain_of
from synapse.api.room_versions import EventIdScheme
from synapse.events.canonical import parse_lenient
from synapse.events.hashes import event_id_of, has_valid_content_hash
from synapse.events.signing import add_signature, authorising_user, signatures_by
from synapse.events.validation import check_pdu
from synapse.handlers.stripped_state import given
from synapse.http.body import decode_object

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.events.event import Event
    from synapse.federation.receiving.checks import EventChecks
    from synapse.federation.receiving.pipeline import Pipeline
    from synapse.handlers.doors.residence import Residence
    from synapse.handlers.entry import Entry
    from synapse.handlers.event_creation import Signer
    from synapse.state.store import StateReader
    from synapse.storage.events import EventsStore, StoredEvent


class Submissions:
    """Takes in signed membership events, in any process.

    :param recommend: has the room's policy server sign; see `handlers.policy_server`.
    """

    def __init__(
        self,
        residence: Residence,
        entry: Entry,
        signer: Signer,
        checks: EventChecks,
        pipeline: Pipeline,
        recommend: Callable[[Event], Awaitable[Event]],
        events: EventsStore,
        state: StateReader,
    ) -> None:
        self._residence = residence
        self._entry = entry
        self._signer = signer
        self._checks = checks
        self._pipeline = pipeline
        self._recommend = recommend
        self._events = events
        self._state = state

    async def take(self, origin: str, room_id: str, event_id: str, body: bytes, membership: str) -> StoredEvent:
        """The event as it is in the room now, also if it had been brought before.

        Raises 400 M_BAD_JSON, 413 M_TOO_LARGE for what is no event; 400 M_INVALID_PARAM for what is not the event that
        was to come; 403 M_FORBIDDEN for others' users, wrong signatures, and what the room does not allow; 404
        M_NOT_FOUND for rooms that this server is not in; and for joins what `Entry.allow_other` says.
        """
        version = await self._residence.version(origin, room_id)
        parsed = decode_object(body)
        if "hashes" not in parsed or not signatures_by(parsed, origin):
            raise forbidden(f"The event is not signed by {origin}.")  # whatever else may be wrong with it
        raw = check_pdu(parsed if version.strict_canonical_json else parse_lenient(body), version)
        _check_template(raw, origin, room_id, membership)
        if event_id_of(raw, version) != event_id:
            raise invalid_param("The event ID of the path is not the event's.")
        if version.event_ids is EventIdScheme.ASSIGNED and domain_of(event_id) != origin:
            raise forbidden("The event ID is not one of the server that brings it.")
        if not has_valid_content_hash(raw, version):
            raise invalid_param("The hash of the event is not right.")
        if membership == Membership.JOIN:
            await self._check_vouched(raw, version)
            raw = add_signature(raw, version, self._signer.server_name, self._signer.key)
        event = await self._checks.check_one(raw, version, origin)
        event = await self._recommend(event)
        await self._pipeline.accept(origin, event, relay=True)
        stored = await self._events.get(event_id)
        if stored is None or stored.rejected is not None or stored.soft_failed:
            raise forbidden("The room does not allow this.")
        return stored

    async def stripped_state(self, room_id: str) -> list[dict[str, Any]]:
        """What whoever has knocked may know of a room: whole events, `m.room.create` among them."""
        return await given(self._state, room_id)

    async def _check_vouched(self, raw: dict[str, Any], version: RoomVersion) -> None:
        """Raises where one of ours is said to vouch for the join, and the condition is not met (any more)."""
        authoriser = authorising_user(raw, version)
        if authoriser is not None and domain_of(authoriser) == self._signer.server_name:
            await self._entry.allow_other(raw["sender"], raw["room_id"])


def _check_template(raw: dict[str, Any], origin: str, room_id: str, membership: str) -> None:
    """Raises unless the event is such a membership of a user of `origin`."""
    if raw["type"] != EventTypes.MEMBER or raw["content"].get("membership") != membership:
        raise invalid_param(f"The event is not an m.room.member with the membership '{membership}'.")
    if raw.get("room_id") != room_id:
        raise invalid_param("The event belongs to another room than the path says.")
    if raw.get("state_key") != raw["sender"]:
        raise invalid_param("The sender and the state key of the event must be the same user.")
    if domain_of(raw["sender"]) != origin:
        sentence = f"{raw['sender']} is not a user of {origin}, which may act for its own users alone."
        # Of joins and leaves, other servers have always been told 403.
        raise invalid_param(sentence) if membership == Membership.KNOCK else forbidden(sentence)
