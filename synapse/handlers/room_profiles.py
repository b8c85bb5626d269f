"""Names and pictures in rooms: a user's profile is written into the memberships of all rooms that it has joined.

Client-server API, "Profiles", "Events on change of profile information".
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, gatherResults

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import MatrixError
from synapse.handlers.event_creation import Draft

if TYPE_CHECKING:
    from synapse.handlers.event_creation import EventCreation
    from synapse.state.store import StateReader
    from synapse.storage.invitees import InviteesStore
    from synapse.storage.memberships import MembershipsStore

AT_ONCE: Final = 10
"""Rooms into which a changed profile is written at the same time."""

_OF_THE_JOIN: Final = ("displayname", "avatar_url", "join_authorised_via_users_server", "reason")
"""What a membership says of the profile, or of how it came about, and not of the member."""


class RoomProfiles:
    """Writes profiles into memberships."""

    def __init__(
        self, creation: EventCreation, state: StateReader, store: MembershipsStore, invitees: InviteesStore
    ) -> None:
        self._creation = creation
        self._state = state
        self._store = store
        self._invitees = invitees

    async def update(self, user_id: str) -> None:
        """Show the user's present name and picture in all rooms that it has joined, a few at a time.

        A room that refuses keeps the old ones. Where they show already, nothing is written, so this may be called anew.
        """
        profile = (await self._invitees.get(user_id)).as_json()
        rooms = [m.room_id for m in await self._store.rooms_of(user_id, [Membership.JOIN])]
        for start in range(0, len(rooms), AT_ONCE):
            some = rooms[start : start + AT_ONCE]
            await gatherResults([Deferred.fromCoroutine(self._show(user_id, room_id, profile)) for room_id in some])

    async def _show(self, user_id: str, room_id: str, profile: dict[str, str]) -> None:
        key = (EventTypes.MEMBER, user_id)
        found = await self._state.current(room_id, [key])
        if key not in found or found[key].event.membership != Membership.JOIN:
            return
        content = {name: value for name, value in found[key].event.content.items() if name not in _OF_THE_JOIN}
        content.update(profile)
        with suppress(MatrixError):
            await self._creation.send(Draft(room_id, user_id, EventTypes.MEMBER, content, user_id))
