"""People who use clusters by plain requests, and insist on an answer while processes or lines are away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any
from urllib.parse import quote

import aiohttp

from tests.cluster.insisting import insist
from tests.support.cluster import Cluster

_PATIENCE = 60.0  # seconds, for what is on its way from another server
_txns = count(1)
_numbers = count(1)


class Person:
    """Somebody with an account on a cluster. What is refused raises `Refused`."""

    def __init__(self, session: aiohttp.ClientSession, cluster: Cluster, name: str) -> None:
        self._session = session
        self.cluster = cluster
        self.name = name
        self.user_id = f"@{name}:{cluster.server_name}"
        self.token = ""

    async def register(self) -> Person:
        body = {"username": self.name, "password": "a password", "auth": {"type": "m.login.dummy"}}
        self.token = (await self.ask("POST", "/register", body))["access_token"]
        return self

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the client API; `path` follows its version."""
        url = f"{self.cluster.url}/_matrix/client/v3{path}"
        code, answer = await insist(self._session, method, url, body, self.token or None)
        if code != 200:
            raise Refused(code, answer)
        return answer

    # -- rooms -------------------------------------------------------------------------------------------------------

    async def create(self, **body: Any) -> str:
        return str((await self.ask("POST", "/createRoom", {"preset": "public_chat", **body}))["room_id"])

    async def join(self, room: str, *via: Person) -> str:
        query = "&".join(f"server_name={quote(p.cluster.server_name)}&via={quote(p.cluster.server_name)}" for p in via)
        return str((await self.ask("POST", f"/join/{quote(room)}?{query}", {}))["room_id"])

    async def knock(self, room: str, *via: Person) -> None:
        query = "&".join(f"server_name={quote(p.cluster.server_name)}&via={quote(p.cluster.server_name)}" for p in via)
        await self.ask("POST", f"/knock/{quote(room)}?{query}", {})

    async def act(self, room: str, action: str, other: Person | None = None) -> None:
        """`leave`, or `invite`, `kick`, `ban`, `unban` somebody."""
        await self.ask("POST", f"/rooms/{quote(room)}/{action}", {} if other is None else {"user_id": other.user_id})

    async def say(self, room: str, body: str) -> str:
        content = {"msgtype": "m.text", "body": body}
        path = f"/rooms/{quote(room)}/send/m.room.message/{next(_txns)}"
        return str((await self.ask("PUT", path, content))["event_id"])

    async def set(self, room: str, event_type: str, content: dict[str, Any], state_key: str = "") -> str:
        path = f"/rooms/{quote(room)}/state/{quote(event_type)}/{quote(state_key)}"
        return str((await self.ask("PUT", path, content))["event_id"])

    async def state(self, room: str) -> dict[tuple[str, str], str]:
        """The room's state, as event ids."""
        events = await self.ask("GET", f"/rooms/{quote(room)}/state")
        return {(e["type"], e["state_key"]): e["event_id"] for e in events}

    async def membership(self, room: str, other: Person | None = None) -> str | None:
        """Where somebody stands in a room, as this person's server knows."""
        path = f"/rooms/{quote(room)}/state/m.room.member/{quote((other or self).user_id)}"
        try:
            return str((await self.ask("GET", path))["membership"])
        except Refused as refused:
            if refused.code in (403, 404):
                return None
            raise

    async def stands(self) -> dict[str, str]:
        """What a first sync says of this person's rooms: membership by room."""
        rooms = (await self.ask("GET", "/sync?timeout=0")).get("rooms", {})
        return {room: kind for kind in ("join", "invite", "knock", "leave") for room in rooms.get(kind, {})}

    async def heard(self, room: str, *bodies: str) -> None:
        """Returns once these messages are among the latest of the room."""

        async def is_so() -> bool:
            return set(bodies) <= set(await self.bodies(room, 200))

        await until(is_so, f"{self.user_id} hears {bodies}")

    async def stands_at(self, room: str, membership: str | None, other: Person | None = None) -> None:
        """Returns once this person's server says that they stand so: they themselves by a first sync, or another."""

        async def is_so() -> bool:
            if other is None:
                return (await self.stands()).get(room) == membership
            return await self.membership(room, other) == membership

        await until(is_so, f"{(other or self).user_id} stands at {membership}, says {self.cluster.server_name}")

    async def bodies(self, room: str, limit: int = 5_000) -> list[str]:
        """What was said in the room, oldest first, to its beginning or so many events back."""
        found: list[str] = []
        token, seen = "", 0
        while seen < limit:
            query = f"?dir=b&limit=100{token}"
            page = await self.ask("GET", f"/rooms/{quote(room)}/messages{query}")
            seen += len(page["chunk"])
            found += [e["content"].get("body", "") for e in page["chunk"] if e["type"] == "m.room.message"]
            if "end" not in page:
                break
            token = f"&from={quote(page['end'])}"
        return found[::-1]


def play_on(servers: Sequence[Cluster], names: str, play: Callable[..., Awaitable[None]]) -> None:
    """Have people of these names, who take turns on the servers, play something. Their user ids are new each time."""

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            number = next(_numbers)
            people = [
                Person(session, servers[n % len(servers)], f"{name}{number}") for n, name in enumerate(names.split())
            ]
            await play(*await asyncio.gather(*(person.register() for person in people)))

    asyncio.run(run())


class Refused(Exception):
    """A request that the server refused."""

    def __init__(self, code: int, answer: Any) -> None:
        super().__init__(f"{code} {answer}")
        self.code = code
        self.errcode = answer.get("errcode") if isinstance(answer, dict) else None


async def until(is_so: Callable[[], Awaitable[Any]], what: str) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + _PATIENCE
    while not await is_so():
        assert time.monotonic() < deadline, f"never came about: {what}"
        await asyncio.sleep(0.05)
