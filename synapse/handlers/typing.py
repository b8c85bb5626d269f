"""Who is typing: the writing end, in the main process.

In memory only. Who types says so again before the time is over, or stops typing; by leaving the room, one stops as
well. Sending a message ends nothing: another device may be typing still, and clients say themselves when they are done.
The stream tells, for each room, who types in it now.

Client-server API, "Typing notifications".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import bad_json, forbidden, missing_param
from synapse.replication.calls import Call
from synapse.replication.event_rows import EventRow, Row

if TYPE_CHECKING:
    from synapse.handlers.visibility import RoomDoor
    from synapse.replication.calls import MainProcess
    from synapse.util.clock import Clock, Timer

DEFAULT_TIMEOUT: Final = 30_000
MAX_TIMEOUT: Final = 120_000
"""Milliseconds for which somebody types without saying so again."""


class SetTyping(msgspec.Struct, frozen=True):
    """`timeout` in milliseconds, None: not typing any more."""

    room_id: str
    user_id: str
    timeout: int | None


SET: Final = Call("typing.set", SetTyping, type(None))


class Typing:
    """Takes word of who types, in any process.

    :param tell: announces who types in a room, at a new position of the stream.
    """

    def __init__(
        self, door: RoomDoor, main: MainProcess, tell: Callable[[str, Sequence[str]], None], clock: Clock
    ) -> None:
        self._door = door
        self._main = main
        self._tell = tell
        self._clock = clock
        self._rooms: dict[str, dict[str, Timer]] = {}
        main.expose(SET, self._set)

    async def receive(self, requester: str, room_id: str, user_id: str, body: dict[str, Any]) -> None:
        """`PUT /rooms/{roomId}/typing/{userId}`. Raises 400, 403."""
        if requester != user_id:
            raise forbidden("You can only say of yourself that you are typing.")
        timeout = _timeout_of(body)
        await self._door.check_joined(user_id, room_id)
        await self._main(SET, SetTyping(room_id, user_id, timeout))

    def stop(self, room_id: str, user_id: str) -> None:
        """For the main process: the user types no longer, or is not in the room any more."""
        typists = self._rooms.get(room_id)
        if typists is None or user_id not in typists:
            return
        timer = typists.pop(user_id)
        if timer.active():
            timer.cancel()
        if not typists:
            del self._rooms[room_id]
        self._tell(room_id, list(typists))

    def start(self, room_id: str, user_id: str, milliseconds: int) -> None:
        """For the main process: the user types, for that long at most."""
        typists = self._rooms.setdefault(room_id, {})
        timer = typists.get(user_id)
        if timer is not None:
            timer.reset(milliseconds / 1000)
            return
        typists[user_id] = self._clock.callLater(milliseconds / 1000, self.stop, room_id, user_id)
        self._tell(room_id, list(typists))

    def learn(self, rows: Iterable[Row]) -> None:
        """For the main process: rows of the events stream."""
        for row in rows:
            if row.room_id not in self._rooms or not isinstance(row, EventRow):
                continue
            if row.state_key is not None and row.type == EventTypes.MEMBER and (membership_of(row) != Membership.JOIN):
                self.stop(row.room_id, row.state_key)

    async def _set(self, setting: SetTyping) -> None:
        if setting.timeout is None:
            self.stop(setting.room_id, setting.user_id)
        else:
            self.start(setting.room_id, setting.user_id, setting.timeout)


def membership_of(row: EventRow) -> str | None:
    """What an m.room.member event says; None of one that is too long to have come along."""
    value = msgspec.json.decode(row.json)["content"].get("membership") if row.json else None
    return value if isinstance(value, str) else None


def _timeout_of(body: dict[str, Any]) -> int | None:
    typing = body.get("typing")
    if not isinstance(typing, bool):
        raise missing_param("typing") if typing is None else bad_json("'typing' must be true or false.")
    timeout = body.get("timeout", DEFAULT_TIMEOUT)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise bad_json("'timeout' must be a number of milliseconds.")
    return min(timeout, MAX_TIMEOUT) if typing and timeout else None
