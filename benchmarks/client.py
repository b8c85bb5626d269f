"""A Matrix client with as little of its own cost as possible, for driving load."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

PASSWORD = "benchmark-password"

_txn = itertools.count()


class RequestFailed(Exception):
    """The server answered with an error; the message has method, path, status and body."""

    def __init__(self, method: str, path: str, status: int, answer: object) -> None:
        super().__init__(f"{method} {path}: {status} {answer}")
        self.status = status


class Client:
    """One user with one connection pool, which all users share."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, user_id: str = "", token: str = "", device_id: str = ""
    ) -> None:
        self._session = session
        self._base = base_url.rstrip("/")
        self.user_id = user_id
        self.device_id = device_id
        self.token = token
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    async def request(self, method: str, path: str, body: Any = None, params: dict[str, str] | None = None) -> Any:
        """Do a request, answer its JSON.

        :raises RequestFailed: for any other status than 200.
        """
        data = None if body is None else orjson.dumps(body)  # without spaces, as clients of today write it
        async with self._session.request(
            method, self._base + path, data=data, params=params, headers=self._headers
        ) as response:
            if response.status != 200:
                raise RequestFailed(method, path, response.status, await response.text())
            return await response.json()

    async def create_room(self, **content: Any) -> str:
        """Create a room; answers its id."""
        answer = await self.request("POST", "/_matrix/client/v3/createRoom", content)
        return str(answer["room_id"])

    async def join(self, room_id: str) -> None:
        """Join a public room or one that the user is invited to."""
        await self.request("POST", f"/_matrix/client/v3/join/{quote(room_id)}", {})

    async def send(self, room_id: str, text: str) -> str:
        """Send a text message; answers the event id."""
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/send/m.room.message/bench{next(_txn)}"
        answer = await self.request("PUT", path, {"msgtype": "m.text", "body": text})
        return str(answer["event_id"])

    async def sync(self, since: str | None = None, timeout_ms: int = 0) -> dict[str, Any]:
        """One sync request. The same question is answered from what is kept for retries."""
        params = {"timeout": str(timeout_ms)}
        if since is not None:
            params["since"] = since
        answer: dict[str, Any] = await self.request("GET", "/_matrix/client/v3/sync", params=params)
        return answer

    async def page(self, room_id: str, limit: int) -> dict[str, Any]:
        """The newest page of a room's messages."""
        params = {"dir": "b", "limit": str(limit)}
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/messages"
        answer: dict[str, Any] = await self.request("GET", path, params=params)
        return answer


class Registrar:
    """Makes users: by the shared-secret admin API, or by open registration with an empty secret."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, shared_secret: str = "") -> None:
        self._session = session
        self._base = base_url
        self._secret = shared_secret
        self.anonymous = Client(session, base_url)

    async def register(self, username: str) -> Client:
        """Create a user, who is logged in with one device."""
        if not self._secret:
            return await self.register_openly(username)
        nonce = (await self.anonymous.request("GET", "/_synapse/admin/v1/register"))["nonce"]
        signed = "\0".join((nonce, username, PASSWORD, "notadmin")).encode()
        mac = hmac.new(self._secret.encode(), signed, hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": username, "password": PASSWORD, "admin": False, "mac": mac}
        return self._client(await self.anonymous.request("POST", "/_synapse/admin/v1/register", body))

    async def register_openly(self, username: str) -> Client:
        """Create a user as anybody may."""
        body: dict[str, Any] = {"username": username, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        return self._client(await self.anonymous.request("POST", "/_matrix/client/v3/register", body))

    async def login(self, user_id: str, **more: Any) -> Client:
        """Log a user in, who was made here, on another device."""
        return self._client(await self.logged_in(user_id, **more))

    async def logged_in(self, user_id: str, **more: Any) -> dict[str, Any]:
        """The answer to a login."""
        identifier = {"type": "m.id.user", "user": user_id}
        body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD, **more}
        answer: dict[str, Any] = await self.anonymous.request("POST", "/_matrix/client/v3/login", body)
        return answer

    def client(self, token: str) -> Client:
        """Who has this token."""
        return Client(self._session, self._base, token=token)

    def _client(self, answer: dict[str, Any]) -> Client:
        return Client(self._session, self._base, answer["user_id"], answer["access_token"], answer["device_id"])


async def register(session: aiohttp.ClientSession, base_url: str, shared_secret: str, username: str) -> Client:
    """A new user, as `Registrar` makes them."""
    return await Registrar(session, base_url, shared_secret).register(username)
