"""Taking deactivated users out of their rooms: whoever asks for it can rely on it, also while it is under way."""

from __future__ import annotations

from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred

from synapse.handlers.deactivation import Departures
from synapse.http.request import Requester


class Rooms:
    """Two rooms of one user, a database of them, and a way out that takes until the test opens it."""

    def __init__(self) -> None:
        self.rooms = {
            "!one:test": SimpleNamespace(room_id="!one:test"),
            "!two:test": SimpleNamespace(room_id="!two:test"),
        }
        self.waiting: list[Deferred[None]] = []
        self.left: list[str] = []
        self.gone = False

    async def departing(self) -> list[str]:
        return [] if self.gone else ["@alice:test"]

    async def departed(self, user_id: str) -> None:
        self.gone = True

    async def rooms_of(self, user_id: str, memberships: tuple[str, ...]) -> list[Any]:
        return list(self.rooms.values())

    async def leave(self, who: Requester, room_id: str) -> None:
        turn: Deferred[None] = Deferred()
        self.waiting.append(turn)
        await turn
        del self.rooms[room_id]
        self.left.append(room_id)


def started(running: Coroutine[Any, Any, None]) -> Deferred[None]:
    return Deferred.fromCoroutine(running)


def test_who_asks_while_it_is_under_way_waits_for_it_and_nobody_leaves_twice() -> None:
    world = Rooms()
    departures = Departures(cast(Any, world), cast(Any, world), world.leave)
    first, second = started(departures.run()), started(departures.run())
    assert len(world.waiting) == 1
    assert not second.called
    world.waiting.pop().callback(None)
    assert world.left == ["!one:test"]
    assert not first.called
    assert not second.called
    world.waiting.pop().callback(None)
    assert first.called
    assert second.called
    assert world.left == ["!one:test", "!two:test"]
    assert world.gone
