"""What accounts and keys cost, in statements: as many for one key, user or device as for many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted

from synapse.storage.database import Counts
from synapse.storage.pool import PoolSettings
from tests.support.homeserver import TestServer, homeserver
from tests.support.limits import UNLIMITED

V3 = "/_matrix/client/v3"
ALGORITHM = "signed_curve25519"


class Accounts:
    """A server, and its users by name; each request is counted."""

    def __init__(self, server: TestServer) -> None:
        self.server = server
        self.tokens: dict[str, str] = {}
        self.devices: dict[str, str] = {}

    async def ask(self, user: str | None, method: str, path: str, body: Any = None) -> Any:
        token = None if user is None else self.tokens[user]
        code, answer = await self.server.client.request(method, V3 + path, body, token)
        assert code == 200, answer
        return answer

    async def counted(self, user: str | None, method: str, path: str, body: Any = None) -> tuple[int, int]:
        """Statements read and written by a request."""
        counts = await self.counts(user, method, path, body)
        return counts.statements_read, counts.statements_written

    async def counts(self, user: str | None, method: str, path: str, body: Any = None) -> Counts:
        with self.server.hs.database.counted() as counts:
            await self.ask(user, method, path, body)
        return counts

    async def login(self, user: str, **more: Any) -> Any:
        return await self.ask(None, "POST", "/login", login_of(user, **more))

    async def add(self, *users: str) -> None:
        for user in users:
            self.tokens[user] = await self.server.client.register(user)
            self.devices[user] = (await self.ask(user, "GET", "/account/whoami"))["device_id"]

    async def publish(self, user: str, *, version: int = 1) -> None:
        await self.ask(user, "POST", "/keys/upload", {"device_keys": self.device_keys(user, version)})

    def device_keys(self, user: str, version: int) -> dict[str, Any]:
        ids = {"user_id": f"@{user}:test", "device_id": self.devices[user]}
        return {**ids, "algorithms": [f"version {version}"], "keys": {}, "signatures": {}}


def login_of(user: str, **more: Any) -> dict[str, Any]:
    return {"type": "m.login.password", "user": user, "password": "a password", **more}


def one_time(first: int, count: int) -> dict[str, Any]:
    return {f"{ALGORITHM}:{n}": {"key": str(n), "signatures": {}} for n in range(first, first + count)}


@pytest_twisted.async_yield_fixture
async def accounts(database_settings: PoolSettings) -> AsyncIterator[Accounts]:
    async with homeserver(database_settings, **UNLIMITED, use_presence=False) as server:
        yield Accounts(server)


@pytest_twisted.ensureDeferred
async def test_what_is_warm_asks_nothing(accounts: Accounts) -> None:
    await accounts.add("alice", "bob")
    await accounts.publish("alice")
    for method, path, body in (
        ("GET", "/account/whoami", None),
        ("POST", "/keys/upload", {}),
        ("POST", "/keys/upload", {"device_keys": accounts.device_keys("alice", 1)}),
    ):
        await accounts.ask("alice", method, path, body)
        assert await accounts.counted("alice", method, path, body) == (0, 0), path
    assert (await accounts.counted("alice", "GET", "/profile/@bob:test"))[0] <= 1


@pytest_twisted.ensureDeferred
async def test_sessions_cost_few_statements(accounts: Accounts) -> None:
    body = {"username": "zoe", "password": "a password", "auth": {"type": "m.login.dummy"}}
    registration = await accounts.counts(None, "POST", "/register", body)
    assert registration.statements_read <= 4, registration.sql
    assert registration.statements_written <= 14, registration.sql
    await accounts.add("alice")
    for _ in range(2):
        counts = await accounts.counts(None, "POST", "/login", login_of("alice"))
        assert counts.statements_read <= 3, counts.sql
        assert counts.statements_written <= 6, counts.sql
    session = await accounts.login("alice", refresh_token=True)
    for _ in range(3):
        # The token is looked up; it is locked, marked where it was not used before, and exchanged.
        with accounts.server.hs.database.counted() as counts:
            session = await accounts.ask(None, "POST", "/refresh", {"refresh_token": session["refresh_token"]})
        assert (counts.statements_read, counts.statements_written) == (1, 3), counts.sql
        accounts.tokens["alice"] = session["access_token"]
        assert await accounts.counted("alice", "GET", "/account/whoami") == (1, 1), "the tokens of before end"
        assert await accounts.counted("alice", "GET", "/account/whoami") == (0, 0)


@pytest_twisted.ensureDeferred
async def test_one_time_keys_cost_the_same_for_any_number(accounts: Accounts) -> None:
    await accounts.add("alice", "bob")
    device = {"@alice:test": {accounts.devices["alice"]: ALGORITHM}}
    uploads, claims = [], []
    for first, count in ((0, 1), (100, 60)):
        body = {"one_time_keys": one_time(first, count)}
        uploads.append(await accounts.counted("alice", "POST", "/keys/upload", body))
        claims.append(await accounts.counted("bob", "POST", "/keys/claim", {"one_time_keys": device}))
    # The device is locked, what is there is looked up and counted, the keys are added; then what is left is read.
    assert uploads == [(3, 2)] * 2
    assert claims[0] == claims[1]
    assert claims[0][1] <= 2


@pytest_twisted.ensureDeferred
async def test_looking_keys_up_costs_the_same_for_any_number_of_users(accounts: Accounts) -> None:
    users = [f"user{n}" for n in range(8)]
    await accounts.add("alice", *users)
    for user in users:
        await accounts.publish(user)
    costs = [
        await accounts.counted("alice", "POST", "/keys/query", {"device_keys": {f"@{user}:test": [] for user in some}})
        for some in (users[:1], users)
    ]
    assert costs == [(3, 0)] * 2


@pytest_twisted.ensureDeferred
async def test_messages_to_devices_cost_the_same_for_any_number(accounts: Accounts) -> None:
    users = [f"user{n}" for n in range(8)]
    await accounts.add("alice", *users)
    for user in users:
        await accounts.login(user)
    costs = []
    for number, some in enumerate((users[:1], users, users)):
        messages = {f"@{user}:test": {"*": {"body": "x"}} for user in some}
        path = f"/sendToDevice/m.x/{number}"
        costs.append(await accounts.counted("alice", "PUT", path, {"messages": messages}))
    # Who ignores the sender is known from then on.
    assert costs == [(1, 2), (1, 2), (0, 2)]
    since = (await accounts.ask("user0", "GET", "/sync"))["next_batch"]
    since = (await accounts.ask("user0", "GET", f"/sync?since={since}"))["next_batch"]
    syncs = []
    for count in (1, 40):
        for number in range(count):
            body = {"messages": {"@user0:test": {accounts.devices["user0"]: {"body": "x"}}}}
            await accounts.ask("alice", "PUT", f"/sendToDevice/m.x/{count}.{number}", body)
        counts = await accounts.counts("user0", "GET", f"/sync?since={since}&timeout={count}")
        syncs.append((counts.statements_read, counts.statements_written))
    assert syncs == [(1, 0)] * 2


@pytest_twisted.ensureDeferred
async def test_changes_of_keys_cost_the_same_for_any_number(accounts: Accounts) -> None:
    """One statement: in which rooms they are; in any number of rooms. None when that is known."""
    users = [f"user{n}" for n in range(6)]
    await accounts.add("alice", *users)
    costs = []
    for rooms, some in ((1, users[:1]), (3, users)):
        for _ in range(rooms):
            room = (await accounts.ask("alice", "POST", "/createRoom", {"preset": "public_chat"}))["room_id"]
            for user in users:
                await accounts.ask(user, "POST", f"/rooms/{room}/join", {})
        since = (await accounts.ask("alice", "GET", "/sync"))["next_batch"]
        for user in some:
            await accounts.publish(user, version=rooms)
        for timeout in (1, 2):
            with accounts.server.hs.database.counted() as counts:
                answer = await accounts.ask("alice", "GET", f"/sync?since={since}&timeout={timeout}")
            assert set(answer["device_lists"]["changed"]) == {f"@{user}:test" for user in some}
            costs.append((counts.statements_read, counts.statements_written))
    assert costs == [(1, 0), (0, 0)] * 2


@pytest_twisted.ensureDeferred
async def test_keys_of_strangers_cost_the_others_nothing(accounts: Accounts) -> None:
    """On a large server, somebody has new keys whenever anybody syncs."""
    await accounts.add("alice", "stranger")
    since = (await accounts.ask("alice", "GET", "/sync"))["next_batch"]
    for version in (1, 2):
        await accounts.publish("stranger", version=version)
        counts = await accounts.counts("alice", "GET", f"/sync?since={since}&timeout={version}")
        assert counts.statements_read == (1 if version == 1 else 0), counts.sql
