"""Other servers, as the one under test sees them: what it sends them is kept, and answered as the test says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson
from twisted.internet.defer import Deferred

from synapse.app._homeserver import Homeserver
from synapse.http.client import AnswerLost, ClientAnswer, NotSent
from tests.support.homeserver import TestServer, is_at_rest
from tests.support.reactor import real_reactor

C = "/_matrix/client/v3"
_DEADLINE = 60.0  # seconds, for what is waited for


class Sent(NamedTuple):
    """A transaction that arrived."""

    destination: str
    id: str
    body: dict[str, Any]

    @property
    def pdus(self) -> list[dict[str, Any]]:
        return list(self.body["pdus"])

    @property
    def texts(self) -> list[str]:
        """What messages say, and the types of other events."""
        return [pdu["content"].get("body", pdu["type"]) for pdu in self.pdus]

    def edus(self, edu_type: str) -> list[dict[str, Any]]:
        return [edu["content"] for edu in self.body["edus"] if edu["edu_type"] == edu_type]


class Peers:
    """In the place of `HttpsTransport`. `away` are servers that cannot be reached; `answers` says what others answer:
    a status and a body, or None: it is lost though the transaction arrived.
    """

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.tried: list[str] = []
        self.away: set[str] = set()
        self.answers: Callable[[Sent], tuple[int, Any] | None] = lambda _: (200, {"pdus": {}})
        self.held: dict[str, Deferred[None]] = {}
        self.under_way = 0
        self.most_under_way = 0

    def use(self, hs: Homeserver) -> None:
        """Before anything asks for the way to other servers."""
        hs.federation.__dict__["transport"] = self

    async def send(
        self,
        destination: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: tuple[tuple[str, str], ...],
        *,
        within: float,
        max_answer: int,
    ) -> ClientAnswer:
        assert method == "PUT"
        assert path.startswith("/_matrix/federation/v1/send/")
        self.tried.append(destination)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await turn()
            if destination in self.held:
                await self.held[destination]
            if destination in self.away:
                raise NotSent(f"{destination} is away")
            sent = Sent(destination, unquote(path.rpartition("/")[2]), orjson.loads(body or b""))
            self.sent.append(sent)
            answer = self.answers(sent)
            if answer is None:
                raise AnswerLost("lost")
            return ClientAnswer(answer[0], {}, orjson.dumps(answer[1]))
        finally:
            self.under_way -= 1

    def to(self, destination: str) -> list[Sent]:
        return [each for each in self.sent if each.destination == destination]

    def texts(self, destination: str) -> list[str]:
        """What a server was sent, in order; more than once where it was sent more than once."""
        return [text for each in self.to(destination) for text in each.texts]

    def edus(self, destination: str, edu_type: str) -> list[dict[str, Any]]:
        return [edu for each in self.to(destination) for edu in each.edus(edu_type)]

    def ids(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for each in self.sent:
            found[each.destination].append(each.id)
        return found


async def turn(seconds: float = 0.0) -> None:
    """Gives the real reactor a turn, or some."""
    passed: Deferred[None] = Deferred()
    real_reactor().callLater(seconds, passed.callback, None)
    await passed


async def until(is_so: Callable[[], Any], hs: Homeserver | None = None, step: float = 0.0) -> None:
    """Returns once it is so; the held clock of `hs`, if any, goes on by `step` seconds each time, and stands still
    while the database, which takes real time, is asked."""
    deadline = real_reactor().seconds() + _DEADLINE
    while real_reactor().seconds() < deadline:
        if is_so():
            return
        if hs is not None and is_at_rest(hs):
            hs.reactor.advance(step)
        await turn(0.002)
    raise AssertionError("what was waited for did not come about")


async def settled(
    peers: Peers, hs: Homeserver | None = None, step: float = 0.0, is_busy: Callable[[], bool] = lambda: False
) -> None:
    """Returns when nothing has been sent for a while, and nobody is about to. The held clock of `hs`: see `until`."""
    quiet, before = 0, -1
    deadline = real_reactor().seconds() + _DEADLINE
    while real_reactor().seconds() < deadline:
        if quiet >= 15:
            return
        now = len(peers.tried) + len(peers.sent)
        at_rest = hs is None or is_at_rest(hs)
        quiet = quiet + 1 if now == before and at_rest and not (peers.under_way or is_busy()) else 0
        before = now
        if hs is not None and at_rest:
            hs.reactor.advance(step)
        await turn(0.004)
    raise AssertionError("servers are sent to on and on")


class Room:
    """A room of a user of the server under test."""

    def __init__(self, server: TestServer, token: str, room_id: str) -> None:
        self.server = server
        self.token = token
        self.id = room_id
        self._count = 0

    @classmethod
    async def make(cls, server: TestServer, name: str = "alice") -> Room:
        token = await server.client.register(name)
        code, body = await server.client.post(f"{C}/createRoom", {"preset": "public_chat"}, token)
        assert code == 200, body
        return cls(server, token, body["room_id"])

    async def another(self) -> Room:
        code, body = await self.server.client.post(f"{C}/createRoom", {"preset": "public_chat"}, self.token)
        assert code == 200, body
        return Room(self.server, self.token, body["room_id"])

    async def say(self, text: str) -> str:
        self._count += 1
        path = f"{C}/rooms/{self.id}/send/m.room.message/{self._count}"
        code, body = await self.server.client.put(path, {"msgtype": "m.text", "body": text}, self.token)
        assert code == 200, body
        return str(body["event_id"])
