"""A server with a few people and rooms, for tests that ask it anything and everything; or several processes of one.

It is started once for a module of tests. What requests need (a room, an event in it, a token) is supplied by name,
made when it is first wanted; what a request uses up (a room that is left, an invite that is accepted) is made anew.
Nobody's rate is limited, and nobody waits for news: a long poll is answered at once.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection
from itertools import count
from typing import Any
from urllib.parse import quote, unquote, urlencode

import orjson
import pytest_twisted

from synapse.api.routes import route_of
from synapse.http.request import RawRequest
from synapse.http.server import Answer
from tests.conformance.example import Asked, Example
from tests.conformance.neighbour import Neighbour
from tests.conformance.outside import alone
from tests.conformance.supplies import OPTIONS, SUPPLIES, SUPPLIES_USED_UP
from tests.spec import answers
from tests.spec.description import description
from tests.support.homeserver import Cluster, TestServer, cluster
from tests.support.limits import UNLIMITED
from tests.support.postgres import PostgresServer
from tests.support.reactor import real_reactor

V3 = "/_matrix/client/v3"
WORKERS = ("synchrotron", "client_reader", "event_creator", "user_dir", "federation_reader")
PEOPLE = ("alice", "bob", "carol", "admin")
# What a request changes so that the next one finds something else; it is supplied anew each time.
USED_UP = frozenset(
    (
        "txn",
        "new_alias",
        "old_alias",
        "own_room",
        "bobs_invite",
        "bobs_ban",
        "bobs_left_room",
        "open_room",
        "knock_room",
        "backup",
        *SUPPLIES_USED_UP,
    )
)
CHEAP = frozenset(("txn", "new_alias", "new_device"))
_NAME = re.compile(r"\{(\w+)\}")
# Rows whose number, or greatest position, tells whether anything was made.
_TRACES = """
    SELECT (SELECT max(stream_ordering) FROM events), (SELECT count(*) FROM rooms),
        (SELECT count(*) FROM room_aliases), (SELECT count(*) FROM account_data), (SELECT count(*) FROM receipts),
        (SELECT count(*) FROM filters), (SELECT count(*) FROM users), (SELECT count(*) FROM devices),
        (SELECT count(*) FROM device_keys), (SELECT count(*) FROM one_time_keys),
        (SELECT count(*) FROM to_device_messages),
        (SELECT count(*) FROM user_threepids), (SELECT count(*) FROM bound_threepids),
        (SELECT count(*) FROM threepid_validation_sessions),
        (SELECT count(*) FROM key_backups), (SELECT count(*) FROM key_backup_sessions)
"""


class Town:
    """The server; alice and bob share `{room}`, carol is a stranger, and admin administrates it."""

    def __init__(self, server: TestServer, workers: Cluster | None = None) -> None:
        self.hs = server.hs
        self._server = server
        self._workers = workers
        self._tokens: dict[str, str] = {}
        self._supplied: dict[str, str] = {}
        self._numbers = count(1)
        self.neighbour = Neighbour(server.hs)

    async def settle(self) -> None:
        """Registers the people."""
        servers = (self._server, *(self._workers.workers.values() if self._workers is not None else ()))
        for server in servers:
            alone(server)
        for name in PEOPLE:
            self._tokens[name] = await self._server.client.register(name)
        await self._promote("admin")
        await self.neighbour.settle()
        for server in servers:
            server.hs.notifier.leave()
        if self._workers is None:
            # Forged tokens may name positions that never come.
            self.hs.notifier.wait_for = _wait_for_nothing
        await self.put("alice", "/presence/{alice}/status", {"presence": "online"})
        self._first_backup = await self._new_backup()

    async def newcomer(self) -> str:
        """The name of somebody who has just come."""
        name = f"newcomer{next(self._numbers)}"
        self._tokens[name] = await self._server.client.register(name)
        return name

    async def administrator(self) -> str:
        """The name of a new administrator of the server."""
        name = await self.newcomer()
        await self._promote(name)
        return name

    async def _promote(self, name: str) -> None:
        def promote(txn: Any) -> None:
            txn.execute("UPDATE users SET admin = true WHERE user_id = %s", (f"@{name}:test",))

        await self.hs.database.write("town.promote", promote)

    # -- requests ---------------------------------------------------------------------------------------------------

    async def handle(
        self, method: str, target: str, body: bytes = b"", user: str | None = "alice", token: str | None = None
    ) -> Answer:
        """The answer to a request, which is as described.

        What servers ask, the neighbour asks, unless `user` is None; `token` is the whole header then.
        """
        headers = {"host": "test"}
        if self.neighbour.signs(target):
            header = token if user is None else self.neighbour.authorization(method, target, body)
        else:
            token = token or (self._tokens[user] if user is not None else None)
            header = None if token is None else f"Bearer {token}"
        if header is not None:
            headers["authorization"] = header
        server = self._server if self._workers is None else self._of_workers(self._workers, method, target)
        answer = await server.hs.router.handle(RawRequest(method, target, headers, body))
        if self._workers is not None:
            await self._workers.caught_up()
        answers.check(method, target, body, answer.code, answer.body)
        return answer

    def _of_workers(self, workers: Cluster, method: str, target: str) -> TestServer:
        """Who answers a request: as a proxy decides it."""
        path = unquote(target.partition("?")[0], errors="replace")
        route = route_of(method, path)
        name = "" if route is None else route.app.value.rpartition(".")[2]
        return workers.workers.get(name, self._server)

    async def get(self, user: str, path: str, **query: str) -> Any:
        return await self._ok("GET", user, path, query)

    async def put(self, user: str, path: str, body: Any) -> Any:
        return await self._ok("PUT", user, path, {}, body)

    async def post(self, user: str, path: str, body: Any = None) -> Any:
        return await self._ok("POST", user, path, {}, {} if body is None else body)

    async def _ok(self, method: str, user: str, path: str, query: dict[str, str], body: Any = None) -> Any:
        target = V3 + await self.filled(path, escaped=True) + ("?" + urlencode(query) if query else "")
        sent = b"" if body is None else orjson.dumps(await self.filled(body))
        answer = await self.handle(method, target, sent, user)
        assert answer.code == 200, (method, target, answer)
        return orjson.loads(answer.body)

    async def traces(self) -> Any:
        """What is there; the same before and after a request that made nothing."""

        def read(txn: Any) -> Any:
            txn.execute(_TRACES)
            return txn.one()

        return await self.hs.database.read("town.traces", read)

    # -- supplies ---------------------------------------------------------------------------------------------------

    async def asked(self, example: Example, *, anew: bool = True) -> Asked:
        """An example with all that it names; with `anew`, what it uses up is made again."""
        self.forget(USED_UP if anew else CHEAP)
        described = description()
        assert described is not None
        operation = described.operation(example.operation)
        path, query, body = [await self.filled(part) for part in (example.path, example.query, example.body)]
        return Asked(operation, path, query, body, await self.filled(example.user))

    def forget(self, names: Collection[str]) -> None:
        """Has these made anew when they are wanted again."""
        for name in names:
            self._supplied.pop(name, None)

    async def filled(self, value: Any, *, escaped: bool = False) -> Any:
        """A value with every `{name}` in its strings replaced by what the town supplies."""
        if isinstance(value, dict):
            return {await self.filled(key): await self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [await self.filled(item) for item in value]
        if not isinstance(value, str):
            return value
        for name in _NAME.findall(value):
            found = await self.supply(name)
            if not isinstance(found, str):
                return found  # a whole event
            value = value.replace(f"{{{name}}}", quote(found, safe="") if escaped else found)
        return value

    async def supply(self, name: str) -> Any:
        """What that name stands for."""
        if name in PEOPLE:
            return f"@{name}:test"
        if name not in self._supplied:
            self._supplied[name] = await self._make(name)
        return self._supplied[name]

    async def _make(self, name: str) -> Any:
        if name in CHEAP or name == "new_user":
            return f"{name}{next(self._numbers)}"
        if name in SUPPLIES:
            return await SUPPLIES[name](self)
        make: Callable[[], Any] = getattr(self, f"_make_{name}")
        return str(await make())

    async def _room(self, *joined: str, **wish: Any) -> str:
        wish = {"preset": "public_chat", **wish}
        room_id = str((await self.post("alice", "/createRoom", wish))["room_id"])
        for name in joined:
            await self.post(name, f"/rooms/{room_id}/join")
        return room_id

    async def _send(self, user: str, room: str, event_type: str, content: dict[str, Any]) -> str:
        path = f"/rooms/{room}/send/{event_type}/{next(self._numbers)}"
        return str((await self.put(user, path, content))["event_id"])

    async def _make_room(self) -> str:
        readable = {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
        wish = {"room_alias_name": "town", "name": "Town", "topic": "t", "visibility": "public"}
        return await self._room("bob", initial_state=[readable], **wish)

    async def _make_outcast(self) -> str:
        return f"@{await self.newcomer()}:test"

    async def _make_alias(self) -> str:
        await self.supply("room")
        return "#town:test"

    async def _make_event(self) -> str:
        return await self._send("bob", "{room}", "m.room.message", {"msgtype": "m.text", "body": "hello"})

    async def _make_thread(self) -> str:
        root = await self._send("bob", "{room}", "m.room.message", {"msgtype": "m.text", "body": "root"})
        relation = {"rel_type": "m.thread", "event_id": root}
        reply = {"msgtype": "m.text", "body": "reply", "m.relates_to": relation}
        await self._send("alice", "{room}", "m.room.message", reply)
        await self._send("alice", "{room}", "m.room.message", reply)
        return root

    async def _make_space(self) -> str:
        child = {"type": "m.space.child", "state_key": await self.supply("room"), "content": {"via": ["test"]}}
        return await self._room(creation_content={"type": "m.space"}, initial_state=[child])

    async def _make_since(self) -> str:
        return str((await self.get("alice", "/sync"))["next_batch"])

    async def _make_prev_batch(self) -> str:
        page = await self.get("alice", "/rooms/{room}/messages", dir="b", limit="2")
        return str(page["end"])

    async def _make_filter(self) -> str:
        return str((await self.post("alice", "/user/{alice}/filter", {"room": {}}))["filter_id"])

    async def _make_setting(self) -> str:
        await self.put("alice", "/user/{alice}/account_data/town.setting", {"a": 1})
        await self.put("alice", "/user/{alice}/rooms/{room}/account_data/town.setting", {"a": 1})
        return "town.setting"

    async def _make_old_alias(self) -> str:
        alias = f"#old{next(self._numbers)}:test"
        await self.put("alice", f"/directory/room/{quote(alias)}", {"room_id": "{room}"})
        return alias

    async def _make_own_room(self) -> str:
        return await self._room("bob")

    async def _make_bobs_invite(self) -> str:
        return await self._room(invite=["@bob:test"])

    async def _make_bobs_ban(self) -> str:
        room_id = await self._room("bob")
        await self.post("alice", f"/rooms/{room_id}/ban", {"user_id": "{bob}"})
        return room_id

    async def _make_bobs_left_room(self) -> str:
        room_id = await self._room("bob")
        await self.post("bob", f"/rooms/{room_id}/leave")
        return room_id

    async def _make_open_room(self) -> str:
        return await self._room()

    async def _make_knock_room(self) -> str:
        return await self._room(initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}])

    async def _make_backup(self) -> str:
        """With the key of a session in `{room}`. Those that came before go, as nobody has any number of them."""
        while (latest := await self._latest_backup()) not in (self._first_backup, None):
            await self._ok("DELETE", "alice", f"/room_keys/version/{latest}", {})
        version = await self._new_backup()
        key = {"first_message_index": 1, "forwarded_count": 0, "is_verified": False, "session_data": {}}
        query = {"version": version}
        await self._ok("PUT", "alice", "/room_keys/keys/{room}/session", query, key)
        return version

    async def _latest_backup(self) -> str | None:
        answer = await self.handle("GET", f"{V3}/room_keys/version")
        return None if answer.code == 404 else str(orjson.loads(answer.body)["version"])

    async def _new_backup(self) -> str:
        wish = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "abc"}}
        return str((await self.post("alice", "/room_keys/version", wish))["version"])


class _EndingReactor:
    """The real reactor; what a server would still do in the time to come is not done after its end."""

    def __init__(self) -> None:
        self._calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(real_reactor(), name)

    def callLater(self, *args: Any, **kw: Any) -> Any:
        self._calls.append(real_reactor().callLater(*args, **kw))
        return self._calls[-1]

    def end(self) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()


async def _wait_for_nothing(reached: Callable[[], bool], seconds: float) -> bool:
    return reached()


def uses_up(example: Example) -> bool:
    """Whether a request like this changes what the next one would find."""
    return not USED_UP.difference(CHEAP).isdisjoint(_NAME.findall(str((example.user, example.path, example.body))))


@pytest_twisted.async_yield_fixture(scope="module")
async def town(postgres: PostgresServer) -> AsyncIterator[Town]:
    """A town for a module of tests."""
    name = postgres.create()
    reactor = _EndingReactor()
    server = TestServer(postgres.settings(name), reactor, {**OPTIONS, **UNLIMITED})
    await server.start()
    try:
        made = Town(server)
        await made.settle()
        yield made
    finally:
        await server.stop()
        reactor.end()
        postgres.drop(name)


@pytest_twisted.async_yield_fixture(scope="module")
async def workers(postgres: PostgresServer) -> AsyncIterator[Town]:
    """A town whose requests are answered by the workers that they are routed to."""
    name = postgres.create()
    reactor = _EndingReactor()
    try:
        async with cluster(postgres.settings(name), *WORKERS, reactor=reactor, **OPTIONS, **UNLIMITED) as processes:
            made = Town(processes.main, processes)
            await made.settle()
            yield made
    finally:
        reactor.end()
        postgres.drop(name)
