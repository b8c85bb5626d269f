"""Every process is killed and started again while messages flow; nothing acknowledged is lost or doubled.

The sender behaves as a client does: it repeats a request under the same transaction id until the server has answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from benchmarks.client import Client, RequestFailed, register
from tests.support.cluster import Cluster

RATE = 50  # messages a second
SYNC_FILTER = '{"room": {"timeline": {"limit": 500}}}'
# What a client sees while a process is away: it tries again. An answer that refuses the message is not among these.
AGAIN = (aiohttp.ClientError, TimeoutError, ConnectionError)


@dataclass
class Flow:
    """What was sent and acknowledged, and what the two clients have seen of it."""

    room: str
    acknowledged: dict[str, str] = field(default_factory=dict)  # event id: body
    refused: list[str] = field(default_factory=list)
    stop: bool = False


async def _insist(client: Client, method: str, path: str, body: Any = None, params: Any = None) -> Any:
    """Do a request until it is answered; 5xx answers come from the proxy while a process is away."""
    deadline = time.monotonic() + 60
    while True:
        try:
            async with asyncio.timeout(30):
                return await client.request(method, path, body, params)
        except RequestFailed as failure:
            if failure.status < 500 or time.monotonic() > deadline:
                raise
        except AGAIN:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def _send_all(client: Client, flow: Flow) -> None:
    """Send messages at the rate until told to stop; then wait for those under way."""

    async def one(number: int) -> None:
        path = f"/_matrix/client/v3/rooms/{quote(flow.room)}/send/m.room.message/kill{number}"
        body = {"msgtype": "m.text", "body": f"message {number}"}
        try:
            answer = await _insist(client, "PUT", path, body)
        except RequestFailed as failure:
            flow.refused.append(str(failure))
        else:
            flow.acknowledged[answer["event_id"]] = body["body"]

    begun, number = time.monotonic(), 0
    async with asyncio.TaskGroup() as tasks:
        while not flow.stop:
            tasks.create_task(one(number))
            number += 1
            await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))


class Reader:
    """A client that syncs by long polls and fills the gaps of limited timelines."""

    def __init__(self, client: Client, flow: Flow) -> None:
        self.client = client
        self.seen: Counter[str] = Counter()
        self._flow = flow
        self._since = ""

    async def run(self) -> None:
        """Sync until cancelled."""
        while True:
            params = {"timeout": "10000", "filter": SYNC_FILTER}
            if self._since:
                params["since"] = self._since
            answer = await _insist(self.client, "GET", "/_matrix/client/v3/sync", params=params)
            room = answer.get("rooms", {}).get("join", {}).get(self._flow.room)
            if room is not None:
                await self._take(room["timeline"])
            self._since = answer["next_batch"]

    async def _take(self, timeline: dict[str, Any]) -> None:
        if timeline.get("limited") and self._since:
            await self._fill_gap(timeline["prev_batch"])
        self._count(timeline["events"])

    async def _fill_gap(self, token: str) -> None:
        path = f"/_matrix/client/v3/rooms/{quote(self._flow.room)}/messages"
        params = {"dir": "b", "limit": "500", "from": token, "to": self._since}
        while params["from"]:
            page = await _insist(self.client, "GET", path, params=params)
            self._count(page["chunk"])
            params["from"] = page.get("end", "") if page["chunk"] else ""

    def _count(self, events: list[dict[str, Any]]) -> None:
        self.seen.update(e["event_id"] for e in events if e["type"] == "m.room.message")

    async def until_all(self, wanted: Mapping[str, str], syncing: asyncio.Task[None]) -> None:
        """Wait until everything in `wanted` (event id: body) has been seen."""
        deadline = time.monotonic() + 60
        while missing := [body for event_id, body in wanted.items() if event_id not in self.seen]:
            if syncing.done():
                syncing.result()  # raises what ended it
            assert time.monotonic() < deadline, f"{len(missing)} acknowledged messages never arrived: {missing}"
            await asyncio.sleep(0.1)


async def _kill_each(cluster: Cluster) -> None:
    """Kill and start each process in turn, the main process last."""
    names = sorted(cluster.processes, key=lambda name: cluster.processes[name].app == "homeserver")
    for name in names:
        await asyncio.sleep(1)
        cluster.kill(name)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(cluster.start, name)


async def _run(cluster: Cluster) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sender, reader = [await register(session, cluster.url, cluster.shared_secret, n) for n in ("kate", "karl")]
        flow = Flow(await sender.create_room(preset="public_chat"))
        await reader.join(flow.room)
        readers = [Reader(client, flow) for client in (sender, reader)]
        syncing = [asyncio.create_task(r.run()) for r in readers]
        sending = asyncio.create_task(_send_all(sender, flow))
        try:
            await _kill_each(cluster)
            flow.stop = True
            await sending
            for each, task in zip(readers, syncing, strict=True):
                await each.until_all(flow.acknowledged, task)
        finally:
            for task in (*syncing, sending):
                task.cancel()
            await asyncio.gather(*syncing, sending, return_exceptions=True)
        assert not flow.refused
        assert len(set(flow.acknowledged.values())) == len(flow.acknowledged), "one message became two events"
        for each in readers:
            assert set(each.seen) == set(flow.acknowledged), "a client saw a message that nobody was told of"
            assert set(each.seen.values()) == {1}, "a message was delivered twice"


def test_nothing_is_lost_or_doubled_when_processes_are_killed(cluster: Cluster) -> None:
    asyncio.run(_run(cluster))
