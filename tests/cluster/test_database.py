"""The embedded database is killed under the cluster: the main process starts it again, and the conversation goes on."""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp

from benchmarks.client import Client, RequestFailed, register
from tests.support.cluster import Cluster


async def _until_sent(client: Client, room: str) -> str:
    """Repeat a message, as clients do, until it is acknowledged."""
    path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/after"
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await client.request("PUT", path, {"msgtype": "m.text", "body": "after"})
                return str(answer["event_id"])
            except RequestFailed as failure:
                if failure.status not in (502, 503):
                    raise
            await asyncio.sleep(0.2)


async def _run(cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        client = await register(session, cluster.url, cluster.shared_secret, "dana")
        room = await client.create_room(preset="private_chat")
        before = await client.send(room, "before")
        os.kill(int(cluster.postmaster_pid_file.read_text().split()[0]), signal.SIGKILL)
        after = await _until_sent(client, room)
        page = await client.page(room, 10)
        messages = [event["event_id"] for event in page["chunk"] if event["type"] == "m.room.message"]
        assert messages == [after, before]


def test_a_database_that_is_killed_comes_back(cluster: Cluster) -> None:
    asyncio.run(_run(cluster))
