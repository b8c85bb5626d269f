"""What other servers are sent, and what becomes of it when they, or this one, are away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from synapse.metrics import table
from synapse.storage.persist_events import ReceivedEvent
from synapse.storage.pool import PoolSettings
from tests.federation.sending.peers import C, Peers, Room, settled, until
from tests.support.far_users import put_into_room
from tests.support.homeserver import TestServer
from tests.support.limits import UNLIMITED
from tests.support.postgres import PostgresServer
from tests.support.reactor import HeldReactor
from tests.support.received import Graph, Whole


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
        await settled(self.peers, self.hs, step, self._is_busy)

    def _is_busy(self) -> bool:
        """Whether something is about to be sent, for which the database may take its time."""
        dispatch, now = self.sending.dispatch, self.hs.reactor.seconds()
        queues = dispatch.queues.values()
        return bool(self.sending.take_over._running) or any(each.sending or each.may_try(now) for each in queues)

    async def until(self, is_so: Any, step: float = 0.05) -> None:
        await until(is_so, self.hs, step)

    async def die(self) -> None:
        """As the end of a process would: nothing is noted down any more. Another takes over."""
        old = self.sending
        old._on_duty = False
        ledger, old._ledger = old._ledger, None
        old._stop()
        ledger.abandon()
        await settled(self.peers, self.hs, 0.01)
        del self.hs.__dict__["sending"]

    async def begin(self) -> None:
        await self.sending.begin()

    async def end(self) -> None:
        """As when the process is told to leave."""
        ended = Deferred.fromCoroutine(self.sending.end())
        await self.until(lambda: ended.called)


@asynccontextmanager
async def made(settings: PoolSettings, *servers: str, **options: Any) -> AsyncIterator[Made]:
    peers = Peers()
    reactor = HeldReactor()
    reactor.advance(1_700_000_000)
    server = TestServer(settings, reactor, {**UNLIMITED, **options})
    peers.use(server.hs)
    await server.start()
    try:
        room = await Room.make(server)
        for name in servers or ("b.test", "c.test"):
            await put_into_room(server.hs, room.id, f"@u:{name}")
        made = Made(server, peers, room)
        await made.begin()
        yield made
        await made.end()
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


@ensureDeferred
async def test_messages_at_once_go_together_and_fifty_at_most(database_settings: PoolSettings) -> None:
    async with made(database_settings) as it:
        it.peers.held["b.test"] = gate = Deferred()
        await it.room.say("0")
        await it.until(lambda: "b.test" in it.peers.tried)
        for number in range(1, 80):
            await it.room.say(str(number))
        # All wait behind the first, which has not been answered, so how they are sent does not depend on who is faster.
        await it.until(lambda: len(it.sending.dispatch.queues["b.test"].positions) == 80)
        del it.peers.held["b.test"]
        gate.callback(None)
        await it.settled()
        assert it.peers.texts("b.test") == [str(number) for number in range(80)]
        assert [len(sent.pdus) for sent in it.peers.to("b.test")] == [1, 50, 29]


@ensureDeferred
async def test_whoever_does_not_answer_is_sent_the_same_again(database_settings: PoolSettings) -> None:
    """Also where the transaction had arrived: it comes again under its id."""
    async with made(database_settings) as it:
        it.peers.answers = lambda sent: None if len(it.peers.to("b.test")) < 3 else (200, {"pdus": {}})
        await it.room.say("hello")
        await it.until(lambda: len(it.peers.to("b.test")) == 3)
        assert len(set(it.peers.ids()["b.test"])) == 1
        assert it.peers.texts("b.test") == ["hello"] * 3
        await it.room.say("again")
        await it.settled()
        assert it.peers.texts("b.test")[3:] == ["again"]


@ensureDeferred
async def test_one_that_is_away_does_not_keep_others_waiting_and_misses_nothing(
    database_settings: PoolSettings,
) -> None:
    async with made(database_settings) as it:
        it.peers.away.add("b.test")
        for number in range(5):
            await it.room.say(str(number))
        await it.settled(0.01)
        assert it.peers.texts("c.test") == [str(number) for number in range(5)]
        it.peers.away.clear()
        await it.until(lambda: len(it.peers.texts("b.test")) == 5, step=1.0)
        assert it.peers.texts("b.test") == [str(number) for number in range(5)]


@ensureDeferred
async def test_all_processes_leave_a_server_alone_and_it_is_sent_to_when_it_is_heard_of(
    database_settings: PoolSettings,
) -> None:
    async with made(database_settings, federation={"max_long_retries": 2}) as it:
        it.peers.away.add("b.test")
        await it.room.say("0")
        destinations = it.hs.federation.destinations
        await it.until(lambda: it.peers.tried.count("b.test") == 3, step=0.2)
        await it.settled()
        assert await destinations.retry_at("b.test") is not None
        it.hs.reactor.advance(100)
        await it.settled()
        assert it.peers.tried.count("b.test") == 3, "it is left alone"
        it.peers.away.clear()
        destinations.heard_from("b.test")
        await it.until(lambda: it.peers.texts("b.test") == ["0"], step=0.01)
        await it.settled()
        assert await destinations.retry_at("b.test") is None


@ensureDeferred
async def test_a_server_is_tried_again_when_its_time_has_come(database_settings: PoolSettings) -> None:
    async with made(database_settings, federation={"max_long_retries": 0}) as it:
        it.peers.away.add("b.test")
        await it.room.say("0")
        await it.until(lambda: it.peers.tried.count("b.test") == 1)
        await it.settled()
        it.peers.away.clear()
        it.hs.reactor.advance(601)
        await it.until(lambda: it.peers.texts("b.test") == ["0"])


@ensureDeferred
async def test_after_an_hour_a_server_is_told_the_last_event_of_each_room(database_settings: PoolSettings) -> None:
    async with made(database_settings, federation={"max_long_retries": 0}) as it:
        it.peers.away.add("b.test")
        other = await it.room.another()
        await put_into_room(it.hs, other.id, "@u:b.test")
        for number in range(3):
            await it.room.say(f"first {number}")
        for number in range(3):
            await other.say(f"second {number}")
        await it.room.say("first 3")
        await it.settled()
        for _ in range(20):
            it.hs.reactor.advance(240)
            await it.settled(0.0)
        it.peers.away.clear()
        await it.room.say("first 4")
        it.hs.federation.destinations.heard_from("b.test")
        await it.until(lambda: "first 4" in it.peers.texts("b.test"), step=0.5)
        assert it.peers.texts("b.test") == ["second 2", "first 3", "first 4"], "the room that waits longest comes first"
        await it.settled()
        await it.end()
        assert await it.hs.sending.queues.standing() == []
        await it.begin()


@ensureDeferred
async def test_whatever_dies_it_is_sent_afterwards(database_settings: PoolSettings) -> None:
    async with made(database_settings) as it:
        it.peers.away |= {"b.test", "c.test"}
        await it.room.say("0")
        await it.until(lambda: "b.test" in it.peers.tried)
        await it.die()
        await it.room.say("while nobody sends")
        it.peers.away.clear()
        await it.begin()
        await it.room.say("2")
        await it.until(lambda: "2" in it.peers.texts("b.test") and "2" in it.peers.texts("c.test"), step=0.5)
        assert it.peers.texts("b.test") == it.peers.texts("c.test") == ["0", "while nobody sends", "2"]


@ensureDeferred
async def test_what_had_arrived_but_was_not_acknowledged_comes_again_under_its_id(
    database_settings: PoolSettings,
) -> None:
    async with made(database_settings, "b.test") as it:
        it.peers.answers = lambda sent: None
        await it.room.say("0")
        await it.until(lambda: len(it.peers.sent) == 1)
        await it.room.say("1")
        await it.die()
        it.peers.answers = lambda sent: (200, {"pdus": {}})
        await it.begin()
        await it.until(lambda: "1" in it.peers.texts("b.test"), step=0.1)
        first, *rest = it.peers.sent
        repeated = [sent for sent in rest if sent.id == first.id]
        assert repeated
        assert all(sent.pdus == first.pdus for sent in repeated)
        assert [sent.texts for sent in rest if sent.id != first.id] == [["1"]]


@ensureDeferred
async def test_what_was_acknowledged_does_not_come_again(database_settings: PoolSettings) -> None:
    async with made(database_settings) as it:
        await it.room.say("0")
        await it.settled(0.2)
        await it.die()
        await it.begin()
        await it.settled(0.2)
        assert it.peers.texts("b.test") == it.peers.texts("c.test") == ["0"]


@ensureDeferred
async def test_who_has_lost_the_duty_without_noticing_sends_nothing(database_settings: PoolSettings) -> None:
    async with made(database_settings) as it:
        await it.hs.sending.queues.begin()  # another process
        await it.room.say("0")
        await it.settled()
        assert it.peers.sent == []
        assert it.sending._ledger is None


@ensureDeferred
async def test_a_refused_event_is_passed_over_and_the_others_go_on(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        it.peers.answers = lambda sent: (413, {}) if "bad" in sent.texts else (200, {"pdus": {}})
        it.peers.away.add("b.test")
        for text in ("0", "1", "bad", "3"):
            await it.room.say(text)
        await it.settled()
        it.peers.away.clear()
        await it.until(lambda: any(sent.texts == ["3"] for sent in it.peers.sent), step=5.0)
        taken = [text for sent in it.peers.to("b.test") if "bad" not in sent.texts for text in sent.texts]
        assert taken == ["0", "1", "3"]


@ensureDeferred
async def test_errors_of_events_are_no_reason_to_send_them_again(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        before = table.FEDERATION_PDUS_REFUSED.child().value
        it.peers.answers = lambda sent: (200, {"pdus": {sent.id: {"error": "no"}}})
        await it.room.say("0")
        await it.settled(0.5)
        assert it.peers.texts("b.test") == ["0"]
        assert table.FEDERATION_PDUS_REFUSED.child().value == before + 1


@ensureDeferred
async def test_statements_do_not_grow_with_the_number_of_servers(database_settings: PoolSettings) -> None:
    counts = []
    async with made(database_settings, "b.test") as it:
        for number in (1, 60):
            for each in range(number):
                await put_into_room(it.hs, it.room.id, f"@u:s{each}.test")
            it.sending.take_over._audiences.forget_all()
            await it.room.say("so that they are known")
            await it.settled(0.1)
            with it.hs.database.counted() as counted:
                await it.room.say("counted")
                await it.settled(0.1)
            ours = {
                name: count
                for name, count in (counted.read + counted.written).items()
                if name.startswith(("federation", "destinations"))
            }
            counts.append(ours)
        assert len(it.peers.to("s59.test")) == 2
    assert counts[0] == counts[1]
    assert set(counts[0]) == {"federation_queue.log", "federation_queue.note"}


@ensureDeferred
async def test_a_room_with_many_servers_does_not_keep_a_small_one_waiting(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        small = await it.room.another()
        await put_into_room(it.hs, small.id, "@u:near.test")
        for each in range(400):
            await put_into_room(it.hs, it.room.id, f"@u:s{each}.test")
        await it.room.say("to all")
        await small.say("to one")
        await it.until(lambda: sum("to all" in sent.texts for sent in it.peers.sent) == 401)
        order = [sent.destination for sent in it.peers.sent if {"to all", "to one"} & set(sent.texts)]
        assert len(order) == 402, "once each"
        assert order.index("near.test") < 150
        assert it.peers.most_under_way <= 150


@ensureDeferred
async def test_the_servers_that_hang_do_not_keep_the_others_waiting(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        await it.room.say("b is known to answer")
        await it.settled()
        gates = {f"s{each}.test": Deferred[None]() for each in range(100)}
        it.peers.held.update(gates)
        for name in gates:
            await put_into_room(it.hs, it.room.id, f"@u:{name}")
        it.sending.take_over._audiences.forget_all()
        await it.room.say("to all")
        await it.until(lambda: "to all" in it.peers.texts("b.test"))
        await it.room.say("again")
        await it.until(lambda: "again" in it.peers.texts("b.test"))
        for gate in gates.values():
            gate.callback(None)
        await it.settled()
        assert "again" in it.peers.texts("s99.test")


@ensureDeferred
async def test_servers_with_which_this_one_does_not_federate_are_told_nothing(database_settings: PoolSettings) -> None:
    async with made(database_settings, federation_domain_whitelist=["b.test"]) as it:
        await it.room.say("0")
        typing = f"{C}/rooms/{it.room.id}/typing/@alice:test"
        await it.server.client.put(typing, {"typing": True}, it.room.token)
        messages = {"messages": {"@u:c.test": {"*": {}}, "@u:b.test": {"*": {}}}}
        await it.server.client.put(f"{C}/sendToDevice/m.x/1", messages, it.room.token)
        await it.settled()
        assert it.peers.texts("b.test") == ["0"]
        assert it.peers.edus("b.test", "m.typing")
        assert "c.test" not in it.peers.tried
        assert "c.test" not in it.sending.dispatch.queues


@ensureDeferred
async def test_rows_that_come_too_fast_are_read_from_the_database(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        it.sending.take_over.missed(it.hs.notifier.position("events"))
        with patch("synapse.federation.sending.takeover.KEPT_ROWS", 0):
            for number in range(4):
                await it.room.say(str(number))
            await it.settled()
        assert it.peers.texts("b.test") == ["0", "1", "2", "3"]


@ensureDeferred
async def test_a_redacted_event_is_sent_as_what_is_left_of_it(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        it.peers.away.add("b.test")
        event_id = await it.room.say("secret")
        await it.settled()
        path = f"{C}/rooms/{it.room.id}/redact/{event_id}/1"
        code, _ = await it.server.client.put(path, {}, it.room.token)
        assert code == 200
        await it.settled(0.0)
        it.peers.away.clear()
        await it.until(lambda: len(it.peers.texts("b.test")) == 2, step=0.5)
        assert it.peers.texts("b.test") == ["m.room.message", "m.room.redaction"]


@ensureDeferred
async def test_who_is_in_a_room_that_this_server_comes_back_to_is_told(database_settings: PoolSettings) -> None:
    async with made(database_settings) as it:
        graph = Graph.elsewhere(Whole(it.hs), "@u:b.test")
        room = Room(it.server, it.room.token, graph.room_id)
        await graph.enter("@alice:test")
        await room.say("first")
        await it.settled()
        assert it.peers.texts("b.test") == ["first"]
        leave = graph.make("@alice:test", "m.room.member", {"membership": "leave"}, state_key="@alice:test")
        await graph.give(ReceivedEvent(leave, relay=False))
        graph.join("@u:c.test")
        await it.sending.end()
        await graph.enter("@alice:test")
        await room.say("second")
        await it.begin()
        await it.settled()
        assert it.peers.texts("b.test") == ["first", "second"]
        assert it.peers.texts("c.test") == ["second"]


@ensureDeferred
async def test_nothing_is_lost_when_the_database_breaks_connections(
    database_settings: PoolSettings, postgres: PostgresServer
) -> None:
    async with made(database_settings) as it:
        for number in range(6):
            said = Deferred.fromCoroutine(it.room.say(str(number)))
            await it.until(lambda said=said: said.called)
            await said
            postgres.kill_connections(database_settings.connection["dbname"])
        told = [str(number) for number in range(6)]
        await it.until(lambda: it.peers.texts("b.test") == it.peers.texts("c.test") == told, step=0.2)
