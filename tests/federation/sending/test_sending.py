"""What other servers are sent, and what becomes of it when they, or this one, are away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pytest_twisted import ensureDeferred

from synapse.storage.pool import PoolSettings
from tests.federation.sending.peers import Peers, Room, settled, until
from tests.support.far_users import put_into_room
from tests.support.homeserver import TestServer
from tests.support.reactor import HeldReactor


class Made:
    """A server that sends, other servers, and a room with users of `b.test` and `c.test`."""

    def __init__(self, server: TestServer, peers: Peers, room: Room) -> None:
        self.server = server
        self.hs = server.hs
        self.peers = peers
        self.room = room

    @property
    def sending(self) -> Any:
        return self.hs.sending.sending

    async def settled(self, step: float = 0.05) -> None:
        await settled(self.peers, self.hs, step)

    async def until(self, is_so: Any, step: float = 0.05) -> None:
        await until(is_so, self.hs, step)

    async def die(self) -> None:
        """As the end of a process would: nothing is noted down any more. Another takes over."""
        old = self.sending
        ledger, old._ledger = old._ledger, None
        old._stop()
        ledger.abandon()
        await settled(self.peers, self.hs, 0.01)
        del self.hs.__dict__["sending"]

    async def begin(self) -> None:
        await self.sending.begin()


@asynccontextmanager
async def made(settings: PoolSettings, *servers: str, **options: Any) -> AsyncIterator[Made]:
    peers = Peers()
    reactor = HeldReactor()
    reactor.advance(1_700_000_000)
    server = TestServer(settings, reactor, options)
    peers.use(server.hs)
    await server.start()
    try:
        room = await Room.make(server)
        for name in servers or ("b.test", "c.test"):
            await put_into_room(server.hs, room.id, f"@u:{name}")
        made = Made(server, peers, room)
        await made.begin()
        yield made
        await made.sending.end()
    finally:
        await server.stop()


@ensureDeferred
async def test_a_message_goes_to_the_other_servers_of_its_room(database_settings: PoolSettings) -> None:
    async with made(database_settings) as it:
        await it.room.say("hello")
        await it.settled()
        assert it.peers.texts("b.test") == it.peers.texts("c.test") == ["hello"]
        (sent,) = it.peers.to("b.test")
        assert sent.body["origin"] == "test"
        assert sent.body["origin_server_ts"] > 1_700_000_000_000
        assert set(sent.body) == {"origin", "origin_server_ts", "pdus", "edus"}
