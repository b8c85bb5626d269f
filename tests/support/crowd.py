"""Clients who do in rooms what comes to their minds, and remember what they were told.

A `Member` acts, with pauses, sometimes several things at once, and syncs all the while, mostly on one synchrotron. Half
of them follow rooms in the classic way (`state` and the timeline), half by `state_after`. What was acknowledged goes to
the `Journal`, against which the server is held in the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, gatherResults

from tests.support.deferreds import started
from tests.support.postgres import SERVER_NAME
from tests.support.simulated_cluster import SimulatedCluster, User

Json = dict[str, Any]
Key = tuple[str, str]
_THINKING_SECONDS = 1.0
LOST_CODES = (0, 503)  # the process was killed, or misses one that was
_FILTERS = ("", '{"room":{"timeline":{"limit":2}}}', '{"room":{"timeline":{"limit":50}}}')


class Acknowledged(NamedTuple):
    """What somebody was told to be in the room now."""

    room_id: str
    sender: str
    type: str
    state_key: str | None
    content: Json


class Journal:
    """What all were told."""

    def __init__(self) -> None:
        self.events: dict[str, Acknowledged] = {}
        self.txns: dict[tuple[str, str], str] = {}
        self.answers: Counter[str] = Counter()

    def told(self, event_id: str, what: Acknowledged) -> None:
        assert self.events.setdefault(event_id, what) == what, f"{event_id} is said to be two events"

    def sent(self, user_id: str, txn_id: str, event_id: str) -> None:
        first = self.txns.setdefault((user_id, txn_id), event_id)
        assert first == event_id, f"the transaction {txn_id} of {user_id} made two events"


class View:
    """A room as a client has it from its syncs."""

    def __init__(self) -> None:
        self.membership = "leave"
        self.state: dict[Key, str] = {}
        self.seen: set[str] = set()

    def enter(self) -> None:
        self.membership = "join"

    def leave(self, membership: str) -> None:
        self.membership = membership
        self.state.clear()
        self.seen.clear()


class Member:
    """One client of one user.

    :cvar noes: the statuses of answers that are to be expected.
    :cvar errors: and errors with others.
    :cvar patience: how often it asks again for what it insists on, after a `pause` each.
    """

    noes: tuple[int, ...] = (200, 403, 404)
    errors: tuple[str, ...] = ("M_UNKNOWN", "M_BAD_STATE")
    patience = 60

    @property
    def pause(self) -> float:
        """Seconds before it asks again."""
        return 0.5

    def __init__(
        self,
        number: int,
        cluster: SimulatedCluster,
        journal: Journal,
        rooms: list[str],
        server_name: str = SERVER_NAME,
    ) -> None:
        self.user = User(f"user{number}", server_name)
        self.user_id = self.user.user_id
        self.rooms = rooms
        self.views: dict[str, View] = {}
        self.everybody: list[Member] = []
        self._cluster = cluster
        self._rng = cluster.world.generator()
        self._journal = journal
        self._since: str | None = None
        self._home = cluster.synchrotrons[number % len(cluster.synchrotrons)]
        self.state_after = number % 4 < 2
        self._filter = _FILTERS[number % len(_FILTERS)]
        self._number = 0
        self._own: list[tuple[str, str]] = []

    # -- acting ----------------------------------------------------------------------------------------------------

    async def act_until(self, end: float) -> None:
        world = self._cluster.world
        while True:
            await world.pause(self._rng.expovariate(1 / _THINKING_SECONDS))
            if world.seconds() >= end:
                return
            at_once = self._rng.randrange(2, 5) if self._rng.random() < 0.15 else 1
            doing: list[Deferred[None]] = [started(self.act()) for _ in range(at_once)]
            await gatherResults(doing)

    async def enter_all(self) -> None:
        """Everybody enters at the same time."""
        await gatherResults([started(self._enter(room_id)) for room_id in self.rooms])

    async def act(self) -> None:
        """One thing, in one room."""
        actions: list[tuple[Callable[[str], Coroutine[Any, Any, None]], int]] = [
            *((self._say, 16), (self._say_twice, 4), (self._redact, 4), (self._enter, 12), (self._leave, 3)),
            *((self._govern, 6), (self._decorate, 6), (self._keyed, 6), (self._empower, 2), (self._open, 1)),
            *((self._hide, 2), (self._rename, 2), (self._knock, 1)),
        ]
        chosen = self._rng.choices([action for action, _ in actions], [weight for _, weight in actions])[0]
        await chosen(self._rng.choice(self.rooms))

    async def _call(self, method: str, path: str, body: Any = None, *, insist: bool = False) -> Json | None:
        """The answer, None if it was no, or lost; with `insist`, it is asked again until there is one."""
        for _ in range(self.patience):
            code, answer = await self._cluster.request(self.user, method, path, body)
            self._journal.answers[f"{code} {answer.get('errcode', '')}".strip()] += 1
            lost = code in LOST_CODES
            assert lost or code in self.noes or answer["errcode"] in self.errors, (path, code, answer)
            if not (lost and insist):
                return answer if code == 200 else None
            await self._cluster.world.pause(self.pause)
        raise AssertionError("nobody answers any more")

    async def _send(self, room_id: str, body: str, txn_id: str) -> None:
        content = {"msgtype": "m.text", "body": body}
        path = f"/rooms/{room_id}/send/m.room.message/{txn_id}"
        answer = await self._call("PUT", path, content, insist=True)
        if answer is not None:
            what = Acknowledged(room_id, self.user_id, "m.room.message", None, content)
            self._journal.told(answer["event_id"], what)
            self._journal.sent(self.user_id, f"{room_id} {txn_id}", answer["event_id"])
            self._own.append((room_id, answer["event_id"]))

    async def _say(self, room_id: str) -> None:
        self._number += 1
        await self._send(room_id, f"{self._number}", f"t{self._number}")

    async def _say_twice(self, room_id: str) -> None:
        """As a client that has waited too long for its answer: the same again, perhaps to another process."""
        self._number += 1
        number = self._number
        doing: list[Deferred[None]] = [started(self._send(room_id, f"{number}", f"t{number}")) for _ in range(2)]
        await gatherResults(doing)

    async def _redact(self, room_id: str) -> None:
        everybodys = [own for member in self.everybody for own in member._own[-3:]]
        if everybodys:
            self._number += 1
            room_id, event_id = self._rng.choice(everybodys)
            await self._call("PUT", f"/rooms/{room_id}/redact/{event_id}/r{self._number}", {})

    async def _enter(self, room_id: str) -> None:
        await self._call("POST", f"/join/{room_id}", {})

    async def _leave(self, room_id: str) -> None:
        if self is not self.everybody[0]:  # or rooms would die, one after the other
            await self._call("POST", f"/rooms/{room_id}/leave", {})

    async def _knock(self, room_id: str) -> None:
        await self._call("POST", f"/knock/{room_id}", {})

    async def _govern(self, room_id: str) -> None:
        what = self._rng.choice(["invite", "invite", "kick", "ban", "unban", "unban", "unban"])
        target = self._rng.choice(self.everybody[1:]).user_id
        await self._call("POST", f"/rooms/{room_id}/{what}", {"user_id": target})

    async def _set(self, room_id: str, event_type: str, state_key: str, content: Json) -> None:
        answer = await self._call("PUT", f"/rooms/{room_id}/state/{event_type}/{state_key}", content)
        if answer is not None:
            self._journal.told(answer["event_id"], Acknowledged(room_id, self.user_id, event_type, state_key, content))

    async def _decorate(self, room_id: str) -> None:
        name = self._rng.choice(["name", "topic"])
        await self._set(room_id, f"m.room.{name}", "", {name: f"{self._rng.randrange(5)} by {self.user_id}"})

    async def _keyed(self, room_id: str) -> None:
        await self._set(room_id, "test.colour", self.user_id, {"colour": self._rng.randrange(3)})

    async def _hide(self, room_id: str) -> None:
        value = self._rng.choice(["shared", "invited", "joined", "world_readable"])
        await self._set(room_id, "m.room.history_visibility", "", {"history_visibility": value})

    async def _open(self, room_id: str) -> None:
        rule = self._rng.choice(["public", "public", "public", "invite", "knock"])
        await self._set(room_id, "m.room.join_rules", "", {"join_rule": rule})

    async def _empower(self, room_id: str) -> None:
        path = f"/rooms/{room_id}/state/m.room.power_levels/"
        content = await self._call("GET", path)
        if content is not None:
            target = self._rng.choice(self.everybody[1:]).user_id
            users = {**content["users"], target: self._rng.choice([0, 50, 50, 100])}
            events = {**content["events"], "test.colour": self._rng.choice([0, 0, 50])}
            await self._set(room_id, "m.room.power_levels", "", {**content, "users": users, "events": events})

    async def _rename(self, _room_id: str) -> None:
        self._number += 1
        body = {"displayname": f"{self.user_id} {self._number}"}
        await self._call("PUT", f"/profile/{self.user_id}/displayname", body)

    # -- following -------------------------------------------------------------------------------------------------

    async def follow_until(self, end: float) -> None:
        world = self._cluster.world
        while world.seconds() < end:
            await self.sync(wait_ms=self._rng.choice([0, 1000, 10_000]))
            await world.pause(self._rng.expovariate(1 / 0.3))

    async def sync(self, wait_ms: int = 0, on: str | None = None) -> bool:
        """Syncs once more; whether there was news."""
        query: Json = {"timeout": wait_ms, "use_state_after": str(self.state_after).lower()}
        if self._since is not None:
            query["since"] = self._since
        if self._filter:
            query["filter"] = self._filter
        where = on or (self._home if self._rng.random() < 0.8 else self._rng.choice(self._cluster.synchrotrons))
        code, answer = await self._cluster.request(self.user, "GET", "/sync", on=where, **query)
        if code in LOST_CODES:
            await self._cluster.world.pause(self.pause)
            return True
        assert code == 200, answer
        self._take(answer)
        moved, self._since = answer["next_batch"] != self._since, answer["next_batch"]
        return bool(moved)

    def start_over(self) -> None:
        """As a client that has lost all that it knew."""
        self._since = None
        self.views.clear()

    def _take(self, answer: Json) -> None:
        rooms = answer.get("rooms", {})
        for kind, membership in (("leave", "leave"), ("invite", "invite"), ("knock", "knock")):
            for room_id in rooms.get(kind, {}):
                self.views.setdefault(room_id, View()).leave(membership)
        for room_id, room in rooms.get("join", {}).items():
            self._take_joined(room_id, room)

    def _take_joined(self, room_id: str, room: Json) -> None:
        view = self.views.setdefault(room_id, View())
        view.enter()
        timeline = room.get("timeline", {}).get("events", [])
        if self.state_after:
            state = room.get("state_after", {}).get("events", [])
        else:
            state = room.get("state", {}).get("events", [])
            state = [*state, *(event for event in timeline if "state_key" in event)]
        if any(event["type"] == "m.room.member" and event.get("state_key") == self.user_id for event in timeline):
            view.seen.clear()  # whoever comes back is told anew what they have missed, and may have seen
        for event in state:
            view.state[event["type"], event["state_key"]] = event["event_id"]
        for event in timeline:
            assert event["event_id"] not in view.seen, f"{event['event_id']} comes twice to {self.user_id}"
            view.seen.add(event["event_id"])
