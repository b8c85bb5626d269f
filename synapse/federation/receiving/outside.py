"""Events of rooms that this server takes no part in. They mean nothing to it, but for one kind: a user of this server
was invited there, or knocked, and somebody of the room takes the invite back, refuses the knock, or bans the user.

The room's state is not known then, so its rules cannot be asked. What counts is that the event is signed by its
sender's server, and cites the very membership that it ends, as the rules want it to; who can name that has seen it.
An invite is taken back by whoever has sent it, since nobody else is known to have a say in it: others of the room
could end it without the power to.

Server-server API, "Inviting to a room", "Knocking upon a room".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import MatrixError
from synapse.api.identifiers import domain_of
from synapse.federation.receiving.checks import id_of, parse
from synapse.storage.persist_events import Fate, Kind, Receipt, Received, ReceivedEvent

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.federation.receiving.checks import EventChecks
    from synapse.storage.events import EventsStore
    from synapse.storage.memberships import LocalMember, MembershipsStore

logger = logging.getLogger(__name__)

NOT_HERE: Final = "This server takes no part in the room."
NOT_THEIRS: Final = "An invite to a room that this server takes no part in is taken back by who has sent it."

_ENDING: Final = frozenset({Membership.LEAVE, Membership.BAN})


class Outsider:
    """Takes such events in, in any process."""

    def __init__(
        self,
        checks: EventChecks,
        memberships: MembershipsStore,
        events: EventsStore,
        write: Callable[[Received], Awaitable[Receipt]],
    ) -> None:
        self._checks = checks
        self._memberships = memberships
        self._events = events
        self._write = write

    async def receive(self, origin: str, rooms: Mapping[str, Sequence[Any]]) -> dict[str, str | None]:
        """What becomes of events, by event id: why one is not kept, or None. Events without an id that can be told are
        left out. One statement, where nobody waits in any of the rooms."""
        results: dict[str, str | None] = {}
        found = await self._memberships.waiting_in(rooms.keys())
        strange = [room_id for room_id in rooms if room_id not in found]
        if strange:
            logger.info("Events of %s are dropped: nobody of this server is in %s", origin, ", ".join(strange[:3]))
        for room_id, members in found.items():
            waiting = {member.user_id: member for member in members}
            invite = await self._events.get(members[0].event_id)
            if invite is None:
                continue
            version = invite.event.room_version
            for raw in rooms[room_id]:
                event_id = id_of(raw, version)
                if event_id is not None:
                    results[event_id] = await self._receive_one(origin, room_id, raw, version, waiting)
        return results

    async def _receive_one(
        self, origin: str, room_id: str, raw: Any, version: RoomVersion, waiting: dict[str, LocalMember]
    ) -> str | None:
        try:
            own = waiting.get(_ended_by(parse(raw, version)))
            if own is None:
                return NOT_HERE
            event = await self._checks.check_one(raw, version, origin)
        except MatrixError as error:
            return error.message
        if event.room_id != room_id or own.event_id not in event.auth_event_ids or event.state_key is None:
            return NOT_HERE
        ended = await self._events.get(own.event_id)
        if ended is None or (ended.event.membership == Membership.INVITE and ended.event.sender != event.sender):
            return NOT_THEIRS
        receipt = await self._write(Received(room_id, version, (ReceivedEvent(event),), kind=Kind.ASIDE))
        fate, reason = receipt.fates[0]
        logger.info("%s ends what %s waited for in %s (%s)", domain_of(event.sender), own.user_id, room_id, fate.value)
        return (reason or NOT_HERE) if fate is Fate.REFUSED else None


def _ended_by(event: Any) -> str:
    """The user whose membership such an event ends; "" where it ends none."""
    if not isinstance(event, dict) or event.get("type") != EventTypes.MEMBER:
        return ""
    content, user_id = event.get("content"), event.get("state_key")
    membership = content.get("membership") if isinstance(content, dict) else None
    return user_id if isinstance(user_id, str) and isinstance(membership, str) and membership in _ENDING else ""
