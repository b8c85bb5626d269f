"""Servers that are not real and send messages: `python -m benchmarks.senders CERTIFICATE SERVERS`.

Listens with TLS on a port for each server (`localhost:PORT`), where its keys are to be had and whatever it is sent is
taken. Writes a line of JSON with their names; then reads lines, and answers each with one when it is done:

    {"do": "join", "home", "url", "rooms"}          a user of each server joins its room
    {"do": "make", "servers", "size", "count"}      makes transactions of `size` messages for the first of the servers
    {"do": "send"}                                  sends them
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from synapse.api.room_versions import room_version
from synapse.events.builder import build
from synapse.events.canonical import encode_lenient
from synapse.events.event import Event
from synapse.federation.client import authorization
from tests.support.resident import key_of, server_keys

V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"


class Sender:
    """One server: it is in one room, and knows where that ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.user_id = f"@sender:{name}"
        self._session: aiohttp.ClientSession | None = None
        self._home = self._url = self.room_id = ""
        self._auth: list[str] = []
        self._end: Event | None = None
        self._version = room_version("12")
        self._txns = itertools.count()
        self.ready: list[tuple[str, bytes, str]] = []  # path, body, authorization

    async def join(self, session: aiohttp.ClientSession, home: str, url: str, room_id: str) -> None:
        self._session, self._home, self._url, self.room_id = session, home, url, room_id
        path = f"{V1}/make_join/{quote(room_id, safe='')}/{quote(self.user_id, safe='')}?ver=12&ver=11&ver=10"
        template = await self._ask("GET", path)
        self._version = room_version(template["room_version"])
        made = template["event"]
        join = self._made("m.room.member", made["content"], made, state_key=self.user_id)
        path = f"{V2}/send_join/{quote(room_id, safe='')}/{quote(join.event_id, safe='')}"
        answer = await self._ask("PUT", path, join.raw)
        state = {
            (each["type"], each["state_key"]): Event.from_json(each, self._version).event_id for each in answer["state"]
        }
        self._auth = [state["m.room.power_levels", ""], join.event_id]
        if not self._version.room_id_from_create:
            self._auth.append(state["m.room.create", ""])
        self._end = join

    def _made(self, event_type: str, content: Any, place: dict[str, Any], **more: Any) -> Event:
        return build(
            self._version,
            room_id=self.room_id,
            sender=self.user_id,
            type=event_type,
            content=content,
            prev_events=place["prev_events"],
            auth_events=place["auth_events"],
            depth=place["depth"],
            origin_server_ts=int(time.time() * 1000),
            server_name=self.name,
            signing_key=key_of(self.name),
            state_key=more.get("state_key"),
        )

    def make(self, size: int, count: int) -> None:
        """Messages one after another."""
        assert self._end is not None
        self.ready = []
        for _ in range(count):
            pdus = []
            for number in range(size):
                place = {
                    "prev_events": [self._end.event_id],
                    "auth_events": self._auth,
                    "depth": self._end.depth + 1,
                }
                self._end = self._made("m.room.message", {"msgtype": "m.text", "body": f"message {number}"}, place)
                pdus.append(self._end.raw)
            content = {"origin": self.name, "origin_server_ts": int(time.time() * 1000), "pdus": pdus, "edus": []}
            path = f"{V1}/send/{time.time_ns()}{next(self._txns)}"
            signed = authorization(self.name, key_of(self.name), self._home, "PUT", path, content)
            self.ready.append((path, encode_lenient(content), signed))

    async def send(self, times: list[float]) -> int:
        """Sends what is ready; how many messages were kept."""
        assert self._session is not None
        kept = 0
        for path, body, signed in self.ready:
            began = time.perf_counter()
            async with self._session.put(
                URL(self._url + path, encoded=True), data=body, headers={"Authorization": signed}
            ) as answer:
                told = await answer.json()
            assert answer.status == 200, told
            times.append(time.perf_counter() - began)
            kept += sum(result == {} for result in told["pdus"].values())
        return kept

    async def _ask(self, method: str, path: str, content: Any = None) -> Any:
        assert self._session is not None
        signed = authorization(self.name, key_of(self.name), self._home, method, path, content)
        body = None if content is None else encode_lenient(content)
        headers = {"Authorization": signed}
        async with self._session.request(
            method, URL(self._url + path, encoded=True), data=body, headers=headers
        ) as answer:
            told = await answer.json()
        assert answer.status == 200, told
        return told


async def _listen(certificate: str) -> str:
    """A new server, which gives its key and takes what it is sent."""
    name = ""

    async def keys(_: web.Request) -> web.Response:
        return web.json_response(server_keys(name, int(time.time() * 1000)))

    async def take(_: web.Request) -> web.Response:
        return web.json_response({"pdus": {}})

    application = web.Application(client_max_size=64 << 20)
    application.router.add_get("/_matrix/key/v2/server", keys)
    application.router.add_put(V1 + "/send/{txn}", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    name = f"localhost:{runner.addresses[0][1]}"
    return name


async def _serve(certificate: str, servers: int) -> None:
    far = [Sender(await _listen(certificate)) for _ in range(servers)]
    print(json.dumps([each.name for each in far]), flush=True)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        while line := await asyncio.to_thread(sys.stdin.readline):
            what = json.loads(line)
            print(json.dumps(await _do(far, session, what)), flush=True)


async def _do(far: list[Sender], session: aiohttp.ClientSession, what: dict[str, Any]) -> dict[str, Any]:
    if what["do"] == "join":
        for each, room_id in zip(far, what["rooms"], strict=True):
            await each.join(session, what["home"], what["url"], room_id)
        return {}
    if what["do"] == "make":
        for number, each in enumerate(far):
            each.ready = []
            if number < what["servers"]:
                each.make(what["size"], what["count"])
        return {}
    times: list[float] = []
    began = time.perf_counter()
    kept = sum(await asyncio.gather(*(each.send(times) for each in far)))
    return {
        "kept": kept,
        "seconds": time.perf_counter() - began,
        "median_ms": sorted(times)[len(times) // 2] * 1000,
    }


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
