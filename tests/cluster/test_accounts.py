"""Accounts live their whole life while processes are killed: nothing is half made, done twice, or outlives its end."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import aiohttp

from tests.cluster.insisting import insist
from tests.support.cluster import Cluster

KEYS = {f"signed_curve25519:{n}": {"key": str(n), "signatures": {}} for n in range(5)}
AT_ONCE = 4


class Life:
    """Of one account after the other, until told to stop."""

    def __init__(self, session: aiohttp.ClientSession, url: str, name: str) -> None:
        self._session = session
        self._url = url
        self._name = name
        self.lived = 0

    async def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        return await insist(self._session, method, f"{self._url}/_matrix/client/v3{path}", body, token)

    async def live(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.lived += 1
            await self._once(f"{self._name}{self.lived}")

    async def _once(self, name: str) -> None:
        code, begun = await self.ask("POST", "/register", {"username": name, "password": "a password"})
        assert code == 401, begun
        # As clients do: with the same session until there is an answer, whether or not the account was made before.
        code, made = await self.ask(
            "POST", "/register", {"auth": {"type": "m.login.dummy", "session": begun["session"]}}
        )
        assert (code, made["user_id"]) == (200, f"@{name}:localhost"), made
        await self._keys_are_claimed_once(made)
        password = {"identifier": {"type": "m.id.user", "user": name}, "password": "a password"}
        proof = {"type": "m.login.password", **password}
        code, other = await self.ask("POST", "/login", proof)
        assert code == 200, other
        device = f"/devices/{quote(made['device_id'])}"
        assert (await self.ask("DELETE", device, {"auth": proof}, other["access_token"]))[0] == 200
        assert (await self.ask("GET", "/account/whoami", None, made["access_token"]))[0] == 401
        ended = await self.ask("POST", "/account/deactivate", {"auth": proof}, other["access_token"])
        assert ended[0] in (200, 401), ended  # 401 where the first answer was lost
        assert (await self.ask("GET", "/account/whoami", None, other["access_token"]))[0] == 401
        assert (await self.ask("POST", "/login", proof))[0] == 403

    async def _keys_are_claimed_once(self, made: dict[str, Any]) -> None:
        user, device, token = made["user_id"], made["device_id"], made["access_token"]
        code, counts = await self.ask("POST", "/keys/upload", {"one_time_keys": KEYS}, token)
        assert (code, counts["one_time_key_counts"]["signed_curve25519"]) == (200, len(KEYS))
        wanted = {"one_time_keys": {user: {device: "signed_curve25519"}}}
        claims = await asyncio.gather(*(self.ask("POST", "/keys/claim", wanted, token) for _ in KEYS))
        given = [key for _, claim in claims for key in claim["one_time_keys"].get(user, {}).get(device, {})]
        assert len(given) == len(set(given)), "a key was given out twice"


async def _run(cluster: Cluster) -> None:
    stop = asyncio.Event()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        lives = [Life(session, cluster.url, f"life{n}x") for n in range(AT_ONCE)]
        living = [asyncio.create_task(life.live(stop)) for life in lives]
        for away in ("client_reader", "frontend_proxy", "main"):
            before = [life.lived for life in lives]
            while any(life.lived == seen for life, seen in zip(lives, before, strict=True)):  # all are under way
                await asyncio.wait(living, timeout=0.05, return_when=asyncio.FIRST_EXCEPTION)
                assert not any(task.done() for task in living), [task.exception() for task in living if task.done()]
            await asyncio.to_thread(cluster.kill, away)
            await asyncio.to_thread(cluster.start, away)
        stop.set()
        await asyncio.gather(*living)


def test_accounts_while_processes_are_killed(cluster: Cluster) -> None:
    asyncio.run(_run(cluster))
