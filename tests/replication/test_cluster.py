"""A main process and workers in one reactor, over real connections: rows down, commands and calls up."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from synapse.api.errors import MatrixError
from synapse.http.request import RawRequest
from synapse.replication.calls import PREFIX, Call
from synapse.replication.protocol import Ping
from synapse.storage.pool import PoolSettings
from synapse.storage.transaction import Transaction
from synapse.storage.user_ips import Seen
from synapse.util.concurrency import spawn
from tests.support.homeserver import Cluster, cluster


async def put_account_data(made: Cluster, user_id: str, kind: str) -> int:
    """Writes through the stream `account_data`; returns the position."""
    hs = made.main.hs
    seen: list[int] = []

    def insert(txn: Transaction, position: int) -> None:
        txn.execute(
            "INSERT INTO account_data (user_id, type, content, stream_id) VALUES (%s, %s, '{}', %s)"
            " ON CONFLICT (user_id, room_id, type) DO UPDATE SET stream_id = EXCLUDED.stream_id",
            (user_id, kind, position),
        )

    async def write(position: int) -> None:
        seen.append(position)
        await hs.database.write("test.put", insert, position)

    await hs.stream_writer("account_data").append(write, lambda _: [user_id])
    return seen[0]


@pytest.mark.parametrize("secret", [None, "a shared secret"])
@ensureDeferred
async def test_rows_reach_workers(database_settings: PoolSettings, secret: str | None) -> None:
    async with cluster(database_settings, "synchrotron", secret=secret) as made:
        heard: list[Any] = []
        notifier = made["synchrotron"].hs.notifier
        notifier.subscribe("account_data", lambda position, rows: heard.extend(rows))
        position = await put_account_data(made, "@u:test", "a")
        assert await notifier.wait_until("account_data", position)
        assert heard == [(position, "@u:test")]


@ensureDeferred
async def test_what_a_worker_invalidates_is_forgotten_everywhere(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron", "client_reader") as made:
        servers = [made.main, *made.workers.values()]
        caches = [server.hs.caches.cache("test", 10) for server in servers]
        for cache in caches:
            cache.set("a", 1)
            cache.set("b", 2)
        await made["client_reader"].hs.invalidate("test", ["a"])
        await made.caught_up()
        assert [(cache.peek("a"), cache.peek("b")) for cache in caches] == [(None, 2)] * 3


@ensureDeferred
async def test_calls_reach_the_main_process_and_its_refusals_come_back(database_settings: PoolSettings) -> None:
    add = Call("test.add", tuple[int, int], int)

    async def answer(numbers: tuple[int, int]) -> int:
        if numbers[0] < 0:
            raise MatrixError(403, "M_FORBIDDEN", "No.", reason="negative")
        return sum(numbers)

    async with cluster(database_settings, "event_creator", secret="x") as made:
        made.main.hs.main.expose(add, answer)
        main = made["event_creator"].hs.main
        assert await main(add, (1, 2)) == 3
        with pytest.raises(MatrixError) as caught:
            await main(add, (-1, 2))
        assert (caught.value.code, caught.value.message, caught.value.fields) == (403, "No.", {"reason": "negative"})


@ensureDeferred
async def test_a_snapshot_of_typing_reaches_who_joins_late(database_settings: PoolSettings) -> None:
    async with cluster(database_settings) as made:
        typing = made.main.hs.streams.memory("typing")
        typing.tell(("!a:test", ["@u:test"]))
        typing.tell(("!b:test", ["@u:test"]))
        typing.tell(("!b:test", []))
        heard: list[Any] = []
        await made.add_worker("synchrotron")
        notifier = made["synchrotron"].hs.notifier
        assert notifier.position("typing") == made.main.hs.notifier.position("typing")
        notifier.subscribe("typing", lambda position, rows: heard.extend(row for _, row in rows))
        typing.tell(("!b:test", ["@v:test"]))
        await made.caught_up()
        assert heard[-1] == ("!b:test", ["@v:test"])


@ensureDeferred
async def test_sightings_reach_the_main_process(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "client_reader") as made:
        seen = Seen("@u:test", "DEV ICE", "127.0.0.1", "an agent", 5)
        worker = made["client_reader"].hs
        await worker.report_sightings([seen])
        await worker.invalidate("nothing", ["x"])  # is confirmed when everything before it was heard
        await made.main.hs.accounts.sightings.flush()

        def read(txn: Transaction) -> Any:
            txn.execute("SELECT * FROM user_ips")
            return txn.one()

        assert await worker.database.read("test", read) == tuple(seen)


@ensureDeferred
async def test_a_main_process_that_is_started_anew_is_followed_from_where_the_last_one_ended(
    database_settings: PoolSettings,
) -> None:
    async with cluster(database_settings, "synchrotron") as made:
        worker = made["synchrotron"].hs
        heard: list[Any] = []
        worker.notifier.subscribe("account_data", lambda position, rows: heard.extend(rows))
        first = await put_account_data(made, "@u:test", "a")
        await made.stop_main()
        await made.main.hs.replication.begin()
        unseen = await put_account_data(made, "@u:test", "b")  # written while the worker is away
        await made.stop_main()
        await made.start_main()
        third = await put_account_data(made, "@u:test", "c")
        assert await worker.notifier.wait_until("account_data", third)
        assert heard == [(first, "@u:test"), (unseen, "@u:test"), (third, "@u:test")]
        assert first < unseen < third


@ensureDeferred
async def test_a_main_process_that_is_started_anew_tells_what_is_true_and_no_history(
    database_settings: PoolSettings,
) -> None:
    async with cluster(database_settings, "synchrotron") as made:
        made.main.hs.streams.memory("typing").tell(("!a:test", ["@u:test"]))
        await made.caught_up()
        log: list[Any] = []
        notifier = made["synchrotron"].hs.notifier
        before = notifier.position("typing")
        notifier.subscribe("typing", lambda _, rows: log.extend(row for _, row in rows), lambda _: log.append("anew"))
        log.clear()
        await made.stop_main()
        await made.main.start()
        for number in range(100):
            made.main.hs.streams.memory("typing").tell(("!a:test", [f"@u{number}:test"]))
        made.main.listen(made.main.hs.replication.factory(), made.replication_port)
        await made.caught_up()
        assert log == ["anew", ("!a:test", ["@u99:test"])]
        assert notifier.position("typing") > before


@ensureDeferred
async def test_invalidations_wait_for_a_main_process_that_is_away(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron", "client_reader") as made:
        cache = made["synchrotron"].hs.caches.cache("test", 10)
        cache.set("a", 1)
        await made.stop_main()
        invalidated = spawn(made["client_reader"].hs.invalidate("test", ["a"]))
        await made.start_main()
        await invalidated
        await made.caught_up()
        assert cache.peek("a") is None


@ensureDeferred
async def test_who_may_have_missed_invalidations_vouches_for_nothing(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron") as made:
        worker = made["synchrotron"].hs
        cache = worker.caches.cache("test", 10)
        cache.set("a", 1)
        connection = next(iter(made.main.hs.replication.server.connections))
        await reconnect(made, connection.transport)
        assert cache.peek("a") == 1, "nothing was missed"
        connection = next(iter(made.main.hs.replication.server.connections))
        connection.following.clear()  # rows get lost, as on a connection that is about to break
        await made.main.hs.invalidate("test", ["other"])
        await reconnect(made, connection.transport)
        assert cache.peek("a") is None


async def reconnect(made: Cluster, transport: Any) -> None:
    """Breaks a connection and waits until its worker is back and follows."""
    server = made.main.hs.replication.server
    broken = next(each for each in server.connections if each.transport is transport)
    transport.abortConnection()
    while broken in server.connections or not any("caches" in each.following for each in server.connections):
        await deferLater(made.main.hs.reactor, 0.01)
    await made["synchrotron"].hs.replication.client.deliver(Ping(0))
    await made.caught_up()


@ensureDeferred
async def test_a_call_outlives_the_main_process_that_it_was_made_to(database_settings: PoolSettings) -> None:
    call = Call("test.twice", int, int)
    begun: list[int] = []
    stuck: Deferred[int] = Deferred()

    async def never(argument: int) -> int:
        begun.append(argument)
        return await stuck

    async def answer(argument: int) -> int:
        return argument * 2

    async with cluster(database_settings, "event_creator") as made:
        made.main.hs.main.expose(call, never)
        result = spawn(made["event_creator"].hs.main(call, 21))
        while not begun:
            await deferLater(made.main.hs.reactor, 0.01)
        await made.stop_main()
        made.main.hs.main.expose(call, answer)
        await made.start_main()
        assert await result == 42


@ensureDeferred
async def test_a_call_that_is_repeated_is_carried_out_once(database_settings: PoolSettings) -> None:
    call = Call("test.once", int, int)
    carried_out: list[int] = []
    gate: Deferred[None] = Deferred()

    async def answer(argument: int) -> int:
        carried_out.append(argument)
        await gate
        return argument + 1

    async with cluster(database_settings) as made:
        made.main.hs.main.expose(call, answer)
        path = f"{PREFIX}test.once/txn1"
        first, second = (spawn(made.main.client.post(path, 1)) for _ in range(2))
        first.cancel()  # its connection breaks
        with suppress(CancelledError):
            await first
        gate.callback(None)
        assert await second == (200, {"r": 2})
        assert await made.main.client.post(path, 1) == (200, {"r": 2})
        assert carried_out == [1]


async def same(argument: int) -> int:
    return argument


@pytest.mark.parametrize("token", [None, "wrong"])
@ensureDeferred
async def test_calls_need_the_secret(database_settings: PoolSettings, token: str | None) -> None:
    async with cluster(database_settings, secret="right") as made:
        made.main.hs.main.expose(Call("test.x", int, int), same)
        code, body = await made.main.client.post(f"{PREFIX}test.x/t", 1, token)
        assert (code, body["errcode"]) == (403, "M_FORBIDDEN")
        assert (await made.main.client.post(f"{PREFIX}test.x/t", 1, "right"))[0] == 200


@ensureDeferred
async def test_without_a_secret_calls_come_from_this_machine_only(database_settings: PoolSettings) -> None:
    async with cluster(database_settings) as made:
        for headers, client_ip in (({}, "10.0.0.1"), ({"x-forwarded-for": "127.0.0.1"}, "127.0.0.1")):
            raw = RawRequest("POST", f"{PREFIX}test.x/t", headers, b"1", client_ip=client_ip)
            assert (await made.main.hs.router.handle(raw)).code == 403


@ensureDeferred
async def test_an_unknown_call_is_named(database_settings: PoolSettings) -> None:
    async with cluster(database_settings) as made:
        code, body = await made.main.client.post(f"{PREFIX}no.such/t", 1)
        assert code == 404
        assert "no call 'no.such'" in body["error"]
