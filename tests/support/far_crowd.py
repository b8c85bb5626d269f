"""Clients of several servers who do in shared rooms what comes to their minds, as the crowd of one server does, and who
tell each other what is no event: messages between devices, names of devices, how far they have read, who types.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, DeferredLock, gatherResults

from tests.support.crowd import Journal, Json, Member
from tests.support.deferreds import started
from tests.support.simulated_federation import SimulatedServer

Act = Callable[[str], Coroutine[Any, Any, None]]


class Traveller(Member):
    """A client of one of the servers. Its rooms may be other servers'."""

    noes = (200, 403, 404, 502, 504)
    errors = (*Member.errors, "M_INCOMPATIBLE_ROOM_VERSION")  # which has no knocking
    patience = 10_000  # a server may be away for days

    def __init__(self, number: int, server: SimulatedServer, journal: Journal, rooms: list[str]) -> None:
        super().__init__(number, server, journal, rooms, server.server_name)
        self.server = server
        self.sent: dict[str, list[int]] = defaultdict(list)  # messages to devices, by addressee
        self.received: dict[str, list[int]] = defaultdict(list)  # by sender
        self.last_seen: dict[str, str] = {}
        self.thinking = 1.0  # seconds
        self._vias: list[str] = []
        self._in_order = DeferredLock()

    def meet(self, everybody: list[Any]) -> None:
        """Hears who else there is."""
        self.everybody = everybody
        self._vias = sorted({member.server.server_name for member in everybody} - {self.server.server_name})

    async def act_until(self, end: float) -> None:
        world = self.server.world
        while True:
            await world.pause(self._rng.expovariate(1 / self.thinking))
            if world.seconds() >= end:
                return
            at_once = self._rng.randrange(2, 4) if self._rng.random() < 0.1 else 1
            doing: list[Deferred[None]] = [started(self.act()) for _ in range(at_once)]
            await gatherResults(doing)

    async def act(self) -> None:
        actions: list[tuple[Act, int]] = [
            *((self._say, 16), (self._say_twice, 3), (self._redact, 4), (self._enter, 12), (self._leave, 3)),
            *((self._govern, 7), (self._decorate, 6), (self._keyed, 6), (self._empower, 2), (self._open, 1)),
            *((self._rename, 1), (self._knock, 1), (self._react, 4), (self._read, 6), (self._type, 2)),
            *((self._send_to_devices, 6), (self._name_device, 2), (self._refuse, 1)),
        ]
        chosen = self._rng.choices([action for action, _ in actions], [weight for _, weight in actions])[0]
        await chosen(self._rng.choice(self.rooms))

    @property
    def pause(self) -> float:
        return 0.5 if self.server.servers else 60.0

    # -- in rooms --------------------------------------------------------------------------------------------------

    async def _enter(self, room_id: str) -> None:
        vias = self._rng.sample(self._vias, len(self._vias))
        query = "&".join(f"via={quote(via)}" for via in vias)
        await self._call("POST", f"/join/{room_id}?{query}", {})

    async def _knock(self, room_id: str) -> None:
        await self._call("POST", f"/knock/{room_id}?via={quote(self._rng.choice(self._vias))}", {})

    async def _refuse(self, room_id: str) -> None:
        """Leaves a room that it was invited to."""
        invited = [room for room, view in self.views.items() if view.membership == "invite"]
        if invited:
            await self._call("POST", f"/rooms/{self._rng.choice(invited)}/leave", {})

    async def _react(self, room_id: str) -> None:
        seen = self.views[room_id].seen if room_id in self.views else set()
        if seen:
            self._number += 1
            about = {"rel_type": "m.annotation", "event_id": self._rng.choice(sorted(seen)), "key": f"{self._number}"}
            await self._call("PUT", f"/rooms/{room_id}/send/m.reaction/a{self._number}", {"m.relates_to": about})

    async def govern(self, room_id: str, what: str, target: Member) -> None:
        """Kicks or bans, if that may be."""
        await self._call("POST", f"/rooms/{room_id}/{what}", {"user_id": target.user_id})

    async def keep_out(self, room_id: str, access: Json) -> None:
        """Sets the room's access list."""
        path = f"/rooms/{room_id}/state/m.room.server_acl/"
        assert await self._call("PUT", path, access, insist=True) is not None

    # -- besides ---------------------------------------------------------------------------------------------------

    async def _read(self, room_id: str) -> None:
        newest = self.last_seen.get(room_id)
        if newest is not None:
            await self._call("POST", f"/rooms/{room_id}/receipt/m.read/{quote(newest)}", {})

    async def _type(self, room_id: str) -> None:
        body = {"typing": self._rng.random() < 0.5, "timeout": 10_000}
        await self._call("PUT", f"/rooms/{room_id}/typing/{self.user_id}", body)

    async def _send_to_devices(self, _room_id: str) -> None:
        targets = self._rng.sample(self.everybody, self._rng.randrange(1, len(self.everybody)))
        await self._in_order.acquire()
        try:
            self._number += 1
            number = self._number
            for each in targets:
                self.sent[each.user_id].append(number)
            body = {"messages": {each.user_id: {"DEVICE": {"n": number}} for each in targets}}
            assert await self._call("PUT", f"/sendToDevice/test/{number}", body, insist=True) is not None
        finally:
            self._in_order.release()

    async def _name_device(self, _room_id: str) -> None:
        self._number += 1
        await self._call("PUT", "/devices/DEVICE", {"display_name": f"name {self._number}"}, insist=True)

    async def publish(self) -> None:
        """Uploads the keys of the device."""
        keys = {
            "user_id": self.user_id,
            "device_id": "DEVICE",
            "algorithms": [],
            "keys": {"ed25519:DEVICE": self.user.token},
            "signatures": {},
        }
        assert await self._call("POST", "/keys/upload", {"device_keys": keys}, insist=True) is not None

    # -- following -------------------------------------------------------------------------------------------------

    def _take(self, answer: Json) -> None:
        super()._take(answer)
        for message in answer.get("to_device", {}).get("events", []):
            self.received[message["sender"]].append(message["content"]["n"])
        for room_id, room in answer.get("rooms", {}).get("join", {}).items():
            for event in room.get("timeline", {}).get("events", []):
                self.last_seen[room_id] = event["event_id"]
