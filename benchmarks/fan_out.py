"""What it costs to send a message to many servers: `python -m benchmarks.fan_out`.

A server with a room that 2,000 others are in, all of which are one process that takes transactions over plain HTTP: the
CPU of the sender's process is counted, with all that it does but TLS and finding servers, for the first message (every
server is new, and a connection made to each) and for the following ones. The database is in memory, and counted by
itself. The room's other servers are rows alone, since it takes long to join so many.

Prints a line of JSON. Budget: less than 1 ms of CPU for each server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint

from synapse.federation.discovery import Route
from synapse.federation.transport import HttpsTransport
from synapse.http.addresses import AddressFilter
from synapse.http.exchange import Connections
from synapse.http.peers import PER_SERVER, PeerClient
from synapse.metrics import table
from tests.support.homeserver import TestServer
from tests.support.limits import UNLIMITED
from tests.support.postgres import running
from tests.support.reactor import real_reactor

_BUDGET_MS = 1.0
_WITHIN = 300.0  # seconds
_PEER = """
import sys
from twisted.internet import reactor, protocol

class Peer(protocol.Protocol):
    rest = b""
    def dataReceived(self, data):
        self.rest += data
        while True:
            head, found, rest = self.rest.partition(b"\\r\\n\\r\\n")
            if not found:
                return
            lines = head.lower().split(b"\\r\\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            if len(rest) < length:
                return
            self.rest = rest[length:]
            self.transport.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 11\\r\\n\\r\\n{"pdus":{}}')

port = reactor.listenTCP(0, protocol.Factory.forProtocol(Peer), interface="127.0.0.1", backlog=4096)
print(port.getHost().port, flush=True)
reactor.run()
"""


class _PlainPeers(PeerClient):
    """Without TLS."""

    def _pool(self, key: Any) -> Connections:
        pool = self._pools.get(key)
        if pool is None:

            def dial(factory: Any, within: float) -> None:
                endpoint: Any = HostnameEndpoint(self._reactor, key.host, key.port, timeout=within)
                endpoint.connect(factory).addErrback(lambda reason: factory.clientConnectionFailed(None, reason))

            pool = self._pools[key] = Connections(self._reactor, key.name, dial, PER_SERVER, tell=self._counter(key))
        self._pools.move_to_end(key)
        return pool


class _Nearby:
    """In the place of discovery: all servers are here."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def find(self, server_name: str) -> Route:
        return Route(server_name, server_name, (("127.0.0.1", self._port),))


async def _pause(seconds: float) -> None:
    passed: Deferred[None] = Deferred()
    real_reactor().callLater(seconds, passed.callback, None)
    await passed


async def _make_room(server: TestServer, servers: int) -> tuple[str, str]:
    """A token of a user, and their room, which that many other servers are in."""
    token = await server.client.register("alice")
    code, body = await server.client.post("/_matrix/client/v3/createRoom", {"preset": "public_chat"}, token)
    assert code == 200, body
    room_id = str(body["room_id"])

    def fill(txn: Any) -> None:
        txn.execute(
            """
            INSERT INTO current_state (room_id, type, state_key, event_id, membership, stream_ordering)
            SELECT %s, 'm.room.member', format('@u:s%%s.test', n), format('$%%s', n), 'join', 1
            FROM generate_series(1, %s) AS n
            """,
            (room_id, servers),
        )

    await server.hs.database.write("fill", fill)
    server.hs.queries.hosts.forget_all()
    return token, room_id


async def _measure(server: TestServer, servers: int, messages: int) -> dict[str, float]:
    """CPU milliseconds for each server, of the first message and of one of those that follow."""
    token, room_id = await _make_room(server, servers)
    await server.hs.sending.sending.begin()
    costs: list[float] = []
    for number in range(messages + 1):
        done = table.FEDERATION_PDUS.child().value + servers  # transactions may carry presence alone
        before, begun = time.process_time(), time.perf_counter()
        path = f"/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{number}"
        code, body = await server.client.put(path, {"msgtype": "m.text", "body": f"message {number}"}, token)
        assert code == 200, body
        while table.FEDERATION_PDUS.child().value < done:
            assert time.perf_counter() - begun < _WITHIN, "not all servers were sent the message"
            await _pause(0.02)
        await _pause(1.0)  # what was acknowledged is noted down
        costs.append((time.process_time() - before) * 1000 / servers)
    await server.hs.sending.sending.end()
    failed = table.FEDERATION_TRANSACTIONS.child("failed").value
    assert not failed, f"{failed:.0f} transactions failed"
    return {"first_ms": round(costs[0], 3), "ms": round(sum(costs[1:]) / messages, 3)}


async def _main(servers: int, messages: int, port: int) -> dict[str, float]:
    with running() as postgres:
        database = postgres.create()
        server = TestServer(postgres.settings(database), real_reactor(), dict(UNLIMITED))
        peers = _PlainPeers(real_reactor(), AddressFilter([], []), lambda _: False)
        server.hs.federation.__dict__["transport"] = HttpsTransport(_Nearby(port), lambda: peers, real_reactor())  # type: ignore[arg-type]  # it finds, which is all that is asked
        await server.start()
        try:
            return await _measure(server, servers, messages)
        finally:
            await server.stop()


def main() -> int:
    """Measures, prints, and fails where the budget is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fan_out")
    parser.add_argument("--servers", type=int, default=2_000)
    parser.add_argument("--messages", type=int, default=5, help="after the first")
    arguments = parser.parse_args()
    peer = subprocess.Popen([sys.executable, "-c", _PEER], stdout=subprocess.PIPE, text=True)
    try:
        assert peer.stdout is not None
        port = int(peer.stdout.readline())
        results: list[Any] = []
        reactor = real_reactor()
        measured = Deferred.fromCoroutine(_main(arguments.servers, arguments.messages, port))
        measured.addBoth(lambda result: (results.append(result), reactor.stop()))
        reactor.run()
    finally:
        peer.kill()
    (result,) = results
    if not isinstance(result, dict):
        result.raiseException()
    print(json.dumps({"servers": arguments.servers, **result}))
    return 0 if result["ms"] < _BUDGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
