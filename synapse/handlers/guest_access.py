"""Guests go when a room does not let guests in any more: a follower of the events stream, for the main process.

Whether they may come is decided where they join (`handlers.membership`). A room whose access was withdrawn just before
the main process died keeps its guests until the next change.

Client-server API, "Guest Access", server behaviour.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from synapse.api.constants import EventTypes, GuestAccess
from synapse.http.request import Requester
from synapse.replication.event_rows import EventRow, Row, StateRow
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.handlers.membership import Memberships
    from synapse.push.bulk import RoomMembers
    from synapse.state.store import StateReader
    from synapse.storage.users import UserStore

logger = logging.getLogger(__name__)

_ACCESS: Final = (EventTypes.GUEST_ACCESS, "")


class GuestDismissal:
    """Makes this server's guests leave rooms that are closed to guests."""

    def __init__(self, state: StateReader, members: RoomMembers, users: UserStore, memberships: Memberships) -> None:
        self._state = state
        self._members = members
        self._users = users
        self._memberships = memberships

    def learn(self, rows: Iterable[Row]) -> None:
        """Rows of the events stream, after what remembers rooms has seen them."""
        for row in rows:
            if isinstance(row, StateRow) and (row.type, row.state_key) == _ACCESS:
                Deferred.fromCoroutine(self.enforce(row.room_id))
            elif isinstance(row, EventRow) and row.redacts is not None:
                Deferred.fromCoroutine(self.enforce(row.room_id, row.redacts))

    async def enforce(self, room_id: str, redacted: str | None = None) -> None:
        """Makes the guests leave, if the room is closed to them; with `redacted`, only if that event lets them in."""
        try:
            access = (await self._state.current(room_id, [_ACCESS])).get(_ACCESS)
            if redacted is not None and (access is None or access.event.event_id != redacted):
                return
            if access is not None and access.shown.content.get("guest_access") == GuestAccess.CAN_JOIN:
                return
            members = await self._members.get(room_id)
            for user_id in sorted(await self._users.guests_among(list(members.local))):
                await self._memberships.leave(Requester(user_id, is_guest=True), room_id)
        except Exception as error:
            log_failure(logger, error, "The guests in %s could not be made to leave", room_id)
