"""A whole homeserver with three users, who call its endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

from synapse.storage.pool import PoolSettings
from tests.support.homeserver import TestServer, homeserver

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"
UNLIMITED = {"per_second": 1000, "burst_count": 1000}

_txn = count()


class People:
    """`call` goes through the router of `hs`; paths begin behind `/_matrix/client/`."""

    def __init__(self, server: TestServer) -> None:
        self.server = server
        self.hs = server.hs
        self.tokens: dict[str, str] = {}

    async def call(
        self, method: str, path: str, body: Any = None, user: str | None = ALICE, **query: Any
    ) -> tuple[int, Any]:
        path = path if path.startswith("/_") else f"/_matrix/client/{path}"
        target = path + (f"?{urlencode(query, doseq=True)}" if query else "")
        return await self.server.client.request(method, target, body, None if user is None else self.tokens[user])

    async def ok(self, method: str, path: str, body: Any = None, user: str | None = ALICE, **query: Any) -> Any:
        code, answer = await self.call(method, path, body, user, **query)
        assert code == 200, (path, code, answer)
        return answer

    async def error(self, method: str, path: str, body: Any = None, user: str | None = ALICE, **query: Any) -> str:
        """Status and errcode of an answer that has a sentence as well."""
        code, answer = await self.call(method, path, body, user, **query)
        assert code != 200, (path, answer)
        assert answer["error"]
        return f"{code} {answer['errcode']}"

    # -- short hand ------------------------------------------------------------------------------------------------

    async def room(self, user: str = ALICE, *, joined: tuple[str, ...] = (), **wish: Any) -> str:
        """A new room, public unless it is said otherwise."""
        room_id: str = (await self.ok("POST", "v3/createRoom", {"preset": "public_chat", **wish}, user))["room_id"]
        for each in joined:
            await self.ok("POST", f"v3/rooms/{room_id}/join", {}, each)
        return room_id

    async def say(self, room_id: str, body: str, user: str = ALICE, **content: Any) -> str:
        return await self.send(room_id, "m.room.message", {"msgtype": "m.text", "body": body, **content}, user)

    async def send(self, room_id: str, event_type: str, content: dict[str, Any], user: str = ALICE) -> str:
        path = f"v3/rooms/{room_id}/send/{event_type}/{next(_txn)}"
        return str((await self.ok("PUT", path, content, user))["event_id"])

    async def set(
        self, room_id: str, event_type: str, content: dict[str, Any], state_key: str = "", user: str = ALICE
    ) -> str:
        path = f"v3/rooms/{room_id}/state/{event_type}/{quote(state_key, safe='')}"
        return str((await self.ok("PUT", path, content, user))["event_id"])

    async def redact(self, room_id: str, event_id: str, user: str = ALICE) -> None:
        await self.ok("PUT", f"v3/rooms/{room_id}/redact/{quote(event_id)}/{next(_txn)}", {}, user)


@asynccontextmanager
async def people(settings: PoolSettings, *names: str, **options: Any) -> AsyncIterator[People]:
    """Alice, Bob and Carol (or others), and a server that lets them do as much as they like."""
    limits = {"rc_message": UNLIMITED, "rc_registration": UNLIMITED, "rc_joins": {"local": UNLIMITED}}
    async with homeserver(settings, **{**limits, **options}) as server:
        made = People(server)
        for name in names or ("alice", "bob", "carol"):
            made.tokens[f"@{name}:test"] = await server.client.register(name)
        yield made
