"""The duty among processes: who has it tells the main process how far it is, and another stands by."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from synapse.metrics import table
from synapse.storage.pool import PoolSettings
from tests.federation.sending.peers import Peers, Room, until
from tests.support.far_users import put_into_room
from tests.support.homeserver import TestServer, cluster
from tests.support.limits import UNLIMITED

OPTIONS = {**UNLIMITED, "send_federation": False, "use_presence": False}


async def begin(server: TestServer) -> None:
    (duty,) = [each for each in server.hs.duties if each.lease.name == "federation_sender"]
    assert await server.hs.notifier.wait_until_started(5)  # a process makes its duties before it follows streams
    duty.start()


async def stop(server: TestServer) -> None:
    (duty,) = [each for each in server.hs.duties if each.lease.name == "federation_sender"]
    await duty.stop()


@ensureDeferred
async def test_a_worker_sends_and_tells_the_main_process_how_far_it_is(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, **OPTIONS) as made:
        worker = await made.add_worker("federation_sender")
        peers = Peers()
        peers.use(worker.hs)
        assert worker.hs.replication.client.gather > 0  # it answers nobody
        assert not made.main.hs.duties or all(d.lease.name != "federation_sender" for d in made.main.hs.duties)
        room = await Room.make(made.main)
        await put_into_room(made.main.hs, room.id, "@u:b.test")
        await begin(worker)
        await until(lambda: worker.hs.sending.sending._ledger is not None)
        await room.say("hello")
        await until(lambda: peers.texts("b.test") == ["hello"])
        position = made.main.hs.notifier.position("events")
        await until(lambda: table.FEDERATION_ACKED.child("federation_sender").value == position)
        await stop(worker)


@ensureDeferred
async def test_another_takes_over_and_nothing_is_lost_or_sent_twice(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, **OPTIONS) as made:
        peers = Peers()
        senders = []
        for name in ("first", "second"):
            worker = await made.add_worker("federation_sender", worker_name=name)
            peers.use(worker.hs)
            senders.append(worker)
        first, second = senders
        room = await Room.make(made.main)
        await put_into_room(made.main.hs, room.id, "@u:b.test")
        await begin(first)
        await until(lambda: first.hs.sending.sending._ledger is not None)
        await begin(second)
        for number in range(10):
            await room.say(str(number))
        await until(lambda: "0" in peers.texts("b.test"))
        (duty,) = [each for each in first.hs.duties if each.lease.name == "federation_sender"]
        duty._stopped = True  # it does not come back
        duty.lease._lost()
        for number in range(10, 20):
            await room.say(str(number))
        await until(lambda: "19" in peers.texts("b.test"))
        assert second.hs.sending.sending._ledger is not None
        ids = peers.ids()["b.test"]
        texts = {sent.id: sent.texts for sent in peers.to("b.test")}
        assert [text for txn_id in dict.fromkeys(ids) for text in texts[txn_id]] == [str(n) for n in range(20)]
        for worker in senders:
            await stop(worker)
