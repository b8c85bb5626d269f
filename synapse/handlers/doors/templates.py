"""Templates of membership events, for servers that are not in the room: what they sign, and bring back to
`handlers.doors.submissions`.

Server-server API, "Joining Rooms", "Restricted rooms", "Knocking upon a room", "Leaving Rooms".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import forbidden, incompatible_room_version
from synapse.api.identifiers import domain_of, parse_user_id
from synapse.handlers.event_creation import Draft

if TYPE_CHECKING:
    from synapse.handlers.doors.residence import Residence
    from synapse.handlers.entry import Entry
    from synapse.handlers.event_creation import EventCreation

_NOT_OF_A_TEMPLATE: Final = frozenset({"hashes", "signatures", "event_id"})


class Templates:
    """Makes templates, in any process."""

    def __init__(self, residence: Residence, creation: EventCreation, entry: Entry, server_name: str) -> None:
        self._residence = residence
        self._creation = creation
        self._entry = entry
        self._server_name = server_name

    async def make(
        self, origin: str, room_id: str, user_id: str, membership: str, versions: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """`{"room_version", "event"}` for a user of `origin`.

        `versions` are the room versions that `origin` supports; None where it does not say. Raises 404 M_NOT_FOUND
        for rooms that this server is not in, 400 M_INCOMPATIBLE_ROOM_VERSION, 403 M_FORBIDDEN where the room does not
        allow it, and for joins what `Entry.allow_other` says.
        """
        parse_user_id(user_id)
        version = await self._residence.version(origin, room_id)
        if domain_of(user_id) != origin:
            raise forbidden(f"{user_id} is not a user of {origin}, which may ask for its own users alone.")
        if versions is not None and version.identifier not in versions:
            raise incompatible_room_version(version.identifier)
        await self._creation.refresh(room_id)
        content = {"membership": membership}
        if membership == Membership.JOIN:
            authoriser = await self._entry.allow_other(user_id, room_id)
            if authoriser is not None:
                content["join_authorised_via_users_server"] = authoriser
        event = await self._creation.rehearse(Draft(room_id, user_id, EventTypes.MEMBER, content, user_id))
        template = {name: value for name, value in event.raw.items() if name not in _NOT_OF_A_TEMPLATE}
        return {"room_version": version.identifier, "event": {**template, "origin": self._server_name}}
