"""Reading presence and setting one's own, in any process. Who is online is kept by `synapse.handlers.presence_keeper`.

Client-server API, "Presence".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from synapse.api.constants import EduTypes, Presence
from synapse.api.errors import forbidden, not_found
from synapse.handlers.presence_calls import SET, parse_setting
from synapse.storage.presence import PresenceState
from synapse.sync.sections.presence import presence_content, presence_event

if TYPE_CHECKING:
    from synapse.replication.calls import MainProcess
    from synapse.storage.presence import PresenceStore
    from synapse.util.clock import Clock


class PresenceReading:
    """Reads and sets presence, in any process.

    :param created: when a local user's account was made, in milliseconds; None where there is no such user.
    :param last_active: what the keeper knows better than the table, in the main process.
    """

    def __init__(
        self,
        store: PresenceStore,
        main: MainProcess,
        created: Callable[[str], Awaitable[int | None]],
        clock: Clock,
        enabled: bool,
        last_active: Callable[[str], int | None] = lambda user_id: None,
    ) -> None:
        self._store = store
        self._main = main
        self._created = created
        self._clock = clock
        self._enabled = enabled
        self._last_active = last_active

    async def get(self, requester: str, user_id: str) -> dict[str, Any]:
        """`GET /presence/{userId}/status`. Raises 403, 404."""
        if not self._enabled:
            if await self._created(user_id) is None:
                raise not_found("There is no such user.")
            return {"presence": Presence.OFFLINE}
        if requester != user_id and not await self._store.share_room(requester, user_id):
            raise forbidden("You are not in a room with this user.")
        state = (await self._store.get([user_id])).get(user_id) or await self._newcomer(user_id)
        if state is None:
            raise not_found("There is no such user.")
        last_active = self._last_active(user_id)
        if last_active is not None:
            state = state._replace(last_active_ts=max(last_active, state.last_active_ts))
        return presence_content(state, self._now())

    async def changed_in(self, room_id: str, after: int, until: int) -> list[dict[str, Any]]:
        """m.presence events of a room's members whose presence changed between two positions of the stream."""
        if not self._enabled:
            return []
        return self._shown(await self._store.of_members(room_id, after, until))

    async def of_members(self, room_id: str, until: int) -> list[dict[str, Any]]:
        """m.presence events of all members of a room; who was never seen is offline."""
        if not self._enabled:
            return []
        unseen = await self._store.members_without(room_id)
        offline = {"presence": Presence.OFFLINE}
        events = [{"type": EduTypes.PRESENCE, "sender": user_id, "content": offline} for user_id in unseen]
        return self._shown(await self._store.of_members(room_id, None, until)) + events

    def _shown(self, states: Iterable[PresenceState]) -> list[dict[str, Any]]:
        return [presence_event(state, self._now()) for state in states]

    async def with_own(self, user_id: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The m.presence events, and one of the user if it is not among them: new users see themselves offline."""
        if not self._enabled or any(event["sender"] == user_id for event in events):
            return events
        state = await self._newcomer(user_id)
        return events if state is None else [*events, presence_event(state, self._now())]

    async def _newcomer(self, user_id: str) -> PresenceState | None:
        """Somebody who has an account and was never seen: all that they did was to make it."""
        created = await self._created(user_id)
        return None if created is None else PresenceState(user_id, Presence.OFFLINE, None, created, False)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def set(self, requester: str, device_id: str | None, user_id: str, body: dict[str, Any]) -> None:
        """`PUT /presence/{userId}/status`; changes nothing where presence is switched off. Raises 400, 403."""
        if requester != user_id:
            raise forbidden("You can only set your own presence.")
        setting = parse_setting(user_id, body, device_id)
        if self._enabled:
            await self._main(SET, setting)
