"""Two processes that may send, of which one does: what becomes of it when it dies, or loses the duty unnoticed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from synapse.storage.destinations import DestinationsStore
from tests.support.postgres import PostgresServer
from tests.support.simulated_cluster import User
from tests.support.simulated_federation import SENDERS, SimulatedNetwork, simulated_federation

HOUR = 3600.0


class Pair:
    """A user on each of two servers, both in a room of the first one's."""

    def __init__(self, net: SimulatedNetwork) -> None:
        self.net = net
        self.users = {name: User(name, server.server_name) for name, server in net.servers.items()}
        self.room_id = ""
        self._count = 0

    async def meet(self) -> None:
        for name, user in self.users.items():
            await self.net[name].add_user(user)
        self.room_id = (await self.ask("one", "POST", "/createRoom", {"preset": "public_chat"}))["room_id"]
        await self.ask("two", "POST", f"/join/{self.room_id}?via={self.net['one'].server_name}", {})
        await self.net.world.pause(5.0)

    async def ask(self, name: str, method: str, path: str, body: Any = None) -> Any:
        code, answer = await self.net[name].request(self.users[name], method, path, body)
        assert code == 200, answer
        return answer

    async def say(self) -> str:
        self._count += 1
        body = {"msgtype": "m.text", "body": str(self._count)}
        path = f"/rooms/{self.room_id}/send/m.room.message/{self._count}"
        return str((await self.ask("one", "PUT", path, body))["event_id"])

    def arrived(self) -> dict[str, set[str]]:
        """The events that have come to the second server, with the ids of the transactions that they were in."""
        found: dict[str, set[str]] = defaultdict(set)
        for sent in self.net.sent:
            for event_id in sent.event_ids if sent.to == "two" else ():
                found[event_id].add(sent.txn_id)
        return found


def _run(postgres: PostgresServer, story: Callable[[Pair], Coroutine[Any, Any, None]], seed: int = 1) -> None:
    with simulated_federation(seed, postgres, ["one", "two"]) as net:
        pair = Pair(net)

        async def all_of_it() -> None:
            await pair.meet()
            await story(pair)

        net.world.run(all_of_it(), 30 * 24 * HOUR)
        assert not net.complaints.said, "\n".join(net.complaints.said)


def _sender(net: SimulatedNetwork) -> str:
    holder = net["one"].holder
    assert holder is not None
    return holder.process


def test_the_other_takes_over_within_ten_seconds(postgres: PostgresServer) -> None:
    async def story(pair: Pair) -> None:
        said = [await pair.say() for _ in range(3)]
        first = _sender(pair.net)
        pair.net["one"].kill(first)
        said += [await pair.say() for _ in range(3)]
        await pair.net.world.pause(10.0)
        assert _sender(pair.net) == next(name for name in SENDERS if name != first)
        arrived = pair.arrived()
        assert all(len(arrived[event_id]) == 1 for event_id in said), "each in one transaction, whoever sends it"

    _run(postgres, story)


def test_who_does_not_notice_that_the_duty_is_lost_sends_nothing_more(postgres: PostgresServer) -> None:
    async def story(pair: Pair) -> None:
        said: list[str] = []
        for _ in range(4):
            first = _sender(pair.net)
            pair.net["one"].take_lease(unnoticed=8.0)
            since = pair.net.world.seconds()
            while pair.net.world.seconds() < since + 8.0:
                said.append(await pair.say())
                await pair.net.world.pause(0.2)
            second = _sender(pair.net)
            if second != first:
                begun = min(sent.at for sent in pair.net.sent if sent.process == second and sent.at > since)
                late = [sent for sent in pair.net.sent if sent.process == first and sent.at > begun + 1.0]
                assert not [sent for sent in late if sent.by == "one"], late
            await pair.net.world.pause(10.0)
        arrived = pair.arrived()
        assert all(len(arrived[event_id]) == 1 for event_id in said), "each in one transaction, whoever sends it"

    _run(postgres, story)


def test_receipts_outlive_who_sends_while_the_other_server_is_away(postgres: PostgresServer) -> None:
    async def story(pair: Pair) -> None:
        event_id = await pair.say()
        pair.net.cut("one", "two")
        pair.net.cut("two", "one")
        await pair.ask("one", "POST", f"/rooms/{pair.room_id}/receipt/m.read/{event_id}", {})
        await pair.net.world.pause(HOUR)
        pair.net["one"].kill(_sender(pair.net))
        pair.net.mend()
        await pair.net.world.pause(2 * HOUR)
        (room,) = (await pair.ask("two", "GET", "/sync"))["rooms"]["join"].values()
        receipts = [e["content"] for e in room["ephemeral"]["events"] if e["type"] == "m.receipt"]
        assert list(receipts[0][event_id]["m.read"]) == [pair.users["one"].user_id]

    _run(postgres, story)


def test_after_a_long_time_the_last_event_is_sent_and_what_is_missed_is_asked_for(postgres: PostgresServer) -> None:
    """And the pauses before the other server is tried again double, for both who may send."""

    async def story(pair: Pair) -> None:
        server, other = pair.net["one"], pair.net["two"]
        for name in list(other.servers):
            other.kill(name)
        said = [await pair.say() for _ in range(60)]
        intervals: list[int] = []
        for quarter in range(16):
            await pair.net.world.pause(HOUR / 4)
            if quarter == 5:
                server.kill(_sender(pair.net))
            row = await DestinationsStore(server.servers["main"].hs.database).get(other.server_name)
            assert row is not None
            intervals.append(row.retry_interval)
        pauses = list(dict.fromkeys(intervals))
        assert len(pauses) >= 3
        assert pauses == [pauses[0] * 2**times for times in range(len(pauses))]
        await other.start()
        for _ in range(12):
            await pair.net.world.pause(HOUR / 4)
            if said[-1] in pair.arrived():
                break
        sent = [each for each in pair.arrived() if each in said]
        assert sent == said[-1:], "the backlog is not sent"
        page = await pair.ask("two", "GET", f"/rooms/{pair.room_id}/messages?dir=b&limit=100")
        assert [e["event_id"] for e in page["chunk"] if e["type"] == "m.room.message"] == said[::-1]

    _run(postgres, story)
