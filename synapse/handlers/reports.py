"""Reporting what is not as it should be: users tell, administrators read.

Whether something that cannot be reported is there at all is not told: whoever is not in the room of an event gets the
same answer as for an event that does not exist.

Client-server API, "Reporting Content"; administrators' API, `event_reports`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import MatrixError, invalid_param, not_found
from synapse.api.identifiers import domain_of, parse_user_id
from synapse.handlers.room_reading import no_event
from synapse.storage.reports import EVENTS, ROOMS, USERS, Kind, Selection

if TYPE_CHECKING:
    from synapse.handlers.room_reading import RoomReading
    from synapse.handlers.visibility import RoomDoor
    from synapse.storage.events import EventsStore
    from synapse.storage.memberships import MembershipsStore
    from synapse.storage.reports import Report, ReportsStore
    from synapse.storage.rooms import RoomsStore
    from synapse.storage.users import UserStore
    from synapse.util.clock import Clock

MAX_REASON: Final = 10_000  # characters


class Reports:
    """Takes reports.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        store: ReportsStore,
        door: RoomDoor,
        reading: RoomReading,
        rooms: RoomsStore,
        users: UserStore,
        memberships: MembershipsStore,
        server_name: str,
        clock: Clock,
    ) -> None:
        self._store = store
        self._door = door
        self._reading = reading
        self._rooms = rooms
        self._users = users
        self._memberships = memberships
        self._server_name = server_name
        self._clock = clock

    async def event(self, user_id: str, room_id: str, event_id: str, reason: str | None, score: int | None) -> None:
        """An event that the user can see, in a room that they are in; others are 404 M_NOT_FOUND."""
        _check_reason(reason)
        try:
            await self._door.check_joined(user_id, room_id)
        except MatrixError:
            raise no_event() from None
        access = (await self._door.standing(user_id, room_id)).access
        await self._reading.seen_event(user_id, room_id, event_id, access, though_ignored=True)
        what = {"room_id": room_id, "event_id": event_id, "score": score}
        await self._store.add(EVENTS, received_ts=self._now(), user_id=user_id, reason=reason, **what)

    async def room(self, user_id: str, room_id: str, reason: str) -> None:
        """A room that this server knows, whether the user is in it or not; others are 404 M_NOT_FOUND."""
        _check_reason(reason)
        if await self._rooms.get(room_id) is None:
            raise not_found("This server does not know that room.")
        await self._store.add(ROOMS, received_ts=self._now(), user_id=user_id, reason=reason, room_id=room_id)

    async def user(self, user_id: str, target: str, reason: str) -> None:
        """A user who has an account here, or was seen in a room; others are 404 M_NOT_FOUND."""
        _check_reason(reason)
        parse_user_id(target)
        if domain_of(target) == self._server_name:
            is_known = bool(await self._users.exist([target]))
        else:
            is_known = await self._memberships.was_seen(target)
        if not is_known:
            raise not_found("This server does not know that user.")
        await self._store.add(USERS, received_ts=self._now(), user_id=user_id, reason=reason, target_user_id=target)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


class ReportsAdmin:
    """Shows reports to administrators."""

    def __init__(self, store: ReportsStore, events: EventsStore) -> None:
        self._store = store
        self._events = events

    async def page(self, kind: Kind, selection: Selection) -> dict[str, Any]:
        """A page of reports, how many there are, and the offset of the next page if there is one."""
        total, reports = await self._store.page(kind, selection)
        page: dict[str, Any] = {kind.table: reports, "total": total}
        end = selection.offset + selection.limit
        if end < total:
            page["next_token"] = end
        return page

    async def get(self, kind: Kind, report_id: int) -> Report:
        """One report; of an event with the event as servers see it (redacted, where it is). Raises 404."""
        report = await self._store.get(kind, report_id)
        if report is None:
            raise not_found("There is no such report.")
        if kind is EVENTS:
            stored = await self._events.get(report["event_id"])
            report["event_json"] = None if stored is None else stored.shown.raw
        return report

    async def delete(self, kind: Kind, report_id: int) -> None:
        """Raises 404."""
        if not await self._store.delete(kind, report_id):
            raise not_found("There is no such report.")


def _check_reason(reason: str | None) -> None:
    if reason is not None and len(reason) > MAX_REASON:
        raise invalid_param(f"'reason' has at most {MAX_REASON} characters.")
