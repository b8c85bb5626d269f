"""People who use a homeserver through its endpoints: who they are, and what they commonly do."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.support.homeserver import Client, TestServer

V3 = "/_matrix/client/v3"
PASSWORD = "a password"


class Person:
    """A logged-in user of one process. Paths are below `/_matrix/client/v3`, unless they begin with an underscore."""

    def __init__(self, client: Client, user_id: str, token: str) -> None:
        self.client = client
        self.id = user_id
        self.token = token

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer, whatever comes of it."""
        full = path if path.startswith("/_") else V3 + path
        return await self.client.request(method, full, body, self.token)

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of what must succeed."""
        code, answer = await self.ask(method, path, body)
        assert code == 200, (method, path, code, answer)
        return answer

    async def get(self, path: str) -> Any:
        return await self.do("GET", path)

    async def put(self, path: str, body: Any) -> Any:
        return await self.do("PUT", path, body)

    async def post(self, path: str, body: Any = None) -> Any:
        return await self.do("POST", path, {} if body is None else body)

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Status and errcode of what must fail; every error has a sentence."""
        code, answer = await self.ask(method, path, body)
        assert code >= 400, answer
        assert answer["error"].endswith(".") or "flows" in answer, answer
        return code, answer.get("errcode", "")

    async def room(self, **options: Any) -> str:
        return str((await self.post("/createRoom", {"preset": "public_chat", **options}))["room_id"])

    async def join(self, room: str) -> None:
        await self.post(f"/rooms/{room}/join")

    async def say(self, room: str, body: str) -> str:
        path = f"/rooms/{room}/send/m.room.message/{quote(body)}"
        return str((await self.put(path, {"msgtype": "m.text", "body": body}))["event_id"])

    async def state(self, room: str, event_type: str, **content: Any) -> str:
        return str((await self.put(f"/rooms/{room}/state/{event_type}", content))["event_id"])


async def person(server: TestServer, name: str) -> Person:
    """A new user."""
    return Person(server.client, f"@{name}:test", await server.client.register(name, PASSWORD))


async def guest(server: TestServer) -> Person:
    """A new guest; the server must allow guests."""
    code, answer = await server.client.post(f"{V3}/register?kind=guest", {})
    assert code == 200, answer
    return Person(server.client, answer["user_id"], answer["access_token"])


def bodies(events: list[dict[str, Any]]) -> list[str]:
    """What the messages among the events say."""
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]
