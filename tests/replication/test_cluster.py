"""A main process and workers in one reactor, over real connections: rows down, commands and calls up."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from synapse.api.errors import MatrixError
from synapse.replication.calls import Call
from synapse.storage.pool import PoolSettings
from synapse.storage.transaction import Transaction
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
    from tests.support.homeserver import _add_worker

    async with cluster(database_settings) as made:
        typing = made.main.hs.streams.memory("typing")
        typing.tell(("!a:test", ["@u:test"]))
        typing.tell(("!b:test", ["@u:test"]))
        typing.tell(("!b:test", []))
        heard: list[Any] = []
        await _add_worker(made, database_settings, made.main.hs.reactor, "synchrotron", {})
        notifier = made["synchrotron"].hs.notifier
        assert notifier.position("typing") == made.main.hs.notifier.position("typing")
        notifier.subscribe("typing", lambda position, rows: heard.extend(row for _, row in rows))
        typing.tell(("!b:test", ["@v:test"]))
        await made.caught_up()
        assert heard[-1] == ("!b:test", ["@v:test"])


@ensureDeferred
async def test_sightings_reach_the_main_process(database_settings: PoolSettings) -> None:
    from synapse.storage.user_ips import Seen

    async with cluster(database_settings, "client_reader") as made:
        got: list[Any] = []
        made.main.hs.replication.commands.on_user_ip = lambda *seen: got.append(seen)
        seen = Seen("@u:test", "DEV ICE", "127.0.0.1", "an agent\nof two lines", 5)
        worker = made["client_reader"].hs
        await worker.report_sightings([seen])
        await worker.invalidate("nothing", ["x"])  # is confirmed when everything before it was heard
        assert got == [tuple(seen)]
