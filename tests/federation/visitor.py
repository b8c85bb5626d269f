"""A server of the tests' own that takes part in the rooms of a homeserver under test: it signs its requests, sends
whatever it likes, and answers what it is asked, as far as the test says.

    visitor = await visit(server, "evil.test")
    await visitor.join(room_id)
    answer = await visitor.send(await visitor.make(room_id))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from signedjson.key import get_verify_key
from twisted.internet.defer import Deferred

from synapse.events import auth
from synapse.events.canonical import encode_lenient
from synapse.events.event import Event, StateKey
from synapse.federation.client import authorization
from synapse.http.client import ClientAnswer, NotSent
from synapse.http.request import RawRequest
from synapse.storage.events import StoredEvent
from synapse.storage.server_keys import StoredKey
from tests.federation.peers import Peer
from tests.support.homeserver import TestServer

V1 = "/_matrix/federation/v1"
FOREVER = 2**53


class Visitor(Peer):
    """The server. `gives` are the events that it tells when it is asked for them; `asked` is what it was asked."""

    def __init__(self, server: TestServer, name: str) -> None:
        super().__init__(name)
        self.server = server
        self.home = server.hs.config.server.server_name
        self.gives: dict[str, Event] = {}
        self.asked: list[str] = []
        self.before: Callable[[list[str]], Sequence[Event]] = lambda latest: []
        self.state_at: Callable[[str], dict[str, list[str]] | None] = lambda event_id: None
        self.wait: Deferred[None] | None = None  # what every answer waits for
        self._txns = count(1)

    # -- making events -----------------------------------------------------------------------------------------------

    async def make(
        self,
        room_id: str,
        type: str = "m.room.message",
        content: dict[str, Any] | None = None,
        state_key: str | None = None,
        *,
        sender: str | None = None,
        prev: Sequence[str] | None = None,
        auth_events: Sequence[str] | None = None,
        depth: int | None = None,
        **more: Any,
    ) -> Event:
        """An event that comes after the room's end and cites its present state, unless said otherwise."""
        rooms = self.server.hs.rooms
        sender = sender or self.user()
        content = {"body": "hello", "msgtype": "m.text"} if content is None else content
        head = await rooms.memory.heads.get(room_id)
        assert head is not None
        version = head.version
        keys = auth.cited_types_for(version, type, sender, state_key, content)
        present = await rooms.state.current(room_id, keys)
        known = await rooms.events.get_many(head.prev_events)
        self.knows.update((i, each.event) for i, each in known.items())
        self.knows.update((each.event.event_id, each.event) for each in present.values())
        made = self.event(
            version,
            room_id,
            sender=sender,
            type=type,
            content=content,
            state_key=state_key,
            prev=head.prev_events if prev is None else prev,
            auth=[each.event.event_id for each in present.values()] if auth_events is None else auth_events,
            depth=head.next_depth if depth is None else depth,
            **more,
        )
        self.gives[made.event_id] = made
        return made

    async def chain(self, room_id: str, length: int) -> list[Event]:
        """Messages one after another, the first after the room's end."""
        made: list[Event] = []
        for number in range(length):
            prev = [made[-1].event_id] if made else None
            depth = made[-1].depth + 1 if made else None
            made.append(await self.make(room_id, content={"body": f"{number}"}, prev=prev, depth=depth))
        return made

    async def join(self, room_id: str, localpart: str = "eve") -> Event:
        """Brings a user in, as send_join does."""
        user_id = self.user(localpart)
        event = await self.make(room_id, "m.room.member", {"membership": "join"}, user_id, sender=user_id)
        await self.server.hs.receiving.pipeline.accept(self.name, event, relay=True)
        return event

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(
        self, *pdus: Any, edus: Sequence[Any] = (), txn: str | None = None, to: TestServer | None = None
    ) -> dict[str, Any]:
        """What becomes of a transaction, event by event."""
        content = {"origin": self.name, "origin_server_ts": 1, "edus": list(edus)}
        raws = [each.raw if isinstance(each, Event) else each for each in pdus]
        code, answer = await self.put(f"/send/{txn or next(self._txns)}", {**content, "pdus": raws}, to)
        assert code == 200, answer
        assert answer.keys() == {"pdus"}
        return dict(answer["pdus"])

    async def put(self, path: str, content: Any, to: TestServer | None = None) -> tuple[int, Any]:
        """A signed request, to a worker perhaps."""
        path = V1 + path
        header = authorization(self.name, self.key, self.home, "PUT", path, content)
        raw = RawRequest("PUT", path, {"authorization": header}, encode_lenient(content))
        answer = await (to or self.server).hs.router.handle(raw)
        return answer.code, orjson.loads(answer.body)

    # -- being asked -------------------------------------------------------------------------------------------------

    async def answer(self, method: str, path: str, body: bytes | None) -> Any:
        """What it says to a request, None where that is nothing."""
        parts = urlsplit(path)
        what, *rest = [unquote(part) for part in parts.path.removeprefix(V1 + "/").split("/")]
        self.asked.append(what)
        if self.wait is not None:
            await self.wait
        if what == "event":
            event = self.gives.get(rest[0])
            return event and {"origin": self.name, "origin_server_ts": 1, "pdus": [event.raw]}
        if what == "get_missing_events":
            assert body is not None
            return {"events": [event.raw for event in self.before(orjson.loads(body)["latest_events"])]}
        if what in ("state_ids", "state"):
            ids = self.state_at(unquote(parts.query.partition("event_id=")[2]))
            if ids is None or what == "state_ids":
                return ids
            return {
                "pdus": [self.gives[i].raw for i in ids["pdu_ids"] if i in self.gives],
                "auth_chain": [self.gives[i].raw for i in ids["auth_chain_ids"] if i in self.gives],
            }
        if what == "event_auth":
            return {"auth_chain": [event.raw for event in self.gives.values() if event.is_state()]}
        return None


class Way:
    """The way of a homeserver to its visitors, in the place of its transport."""

    def __init__(self) -> None:
        self.visitors: dict[str, Visitor] = {}

    async def send(
        self, destination: str, method: str, path: str, body: bytes | None, headers: Any, **limits: Any
    ) -> ClientAnswer:
        visitor = self.visitors.get(destination)
        if visitor is None:
            raise NotSent(f"{destination} cannot be reached.")
        found = await visitor.answer(method, path, body)
        error = {"errcode": "M_NOT_FOUND", "error": "No."}
        return ClientAnswer(404 if found is None else 200, {}, orjson.dumps(error if found is None else found))


async def visit(server: TestServer, name: str = "evil.test", *others: TestServer, key: Any = None) -> Visitor:
    """A visitor whose key the homeserver knows already, and which it can ask; so can its other processes."""
    visitor = Visitor(server, name)
    visitor.key = key or visitor.key
    known = StoredKey(get_verify_key(visitor.key).encode(), FOREVER)
    await server.hs.federation.key_store.store(name, {"ed25519:1": known}, 0)
    for process in (server, *others):
        client: Any = process.hs.federation.client
        if not isinstance(client.transport, Way):
            client.transport = Way()
        client.transport.visitors[name] = visitor
    return visitor


async def stored(server: TestServer, event: Event) -> StoredEvent | None:
    """The event as the database has it."""
    from synapse.storage.events import EventsStore
    from synapse.util.caches import LruCache

    return await EventsStore(server.hs.database, LruCache("fresh", 10)).get(event.event_id)


async def present(server: TestServer, room_id: str) -> dict[StateKey, str]:
    """The room's state, as the database has it."""
    return await server.hs.rooms.state.current_ids(room_id)
