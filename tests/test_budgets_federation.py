"""What other servers' transactions cost, in statements of all processes together. Counts repeat; timings do not."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.task import deferLater

from synapse.federation.sending.news import PRESENCE_DELAY
from synapse.storage.pool import PoolSettings
from tests.federation.test_outboxes import keys_of
from tests.federation.visitor import Visitor, visit
from tests.rest.people import person
from tests.support.homeserver import TestServer, at_rest, cluster, homeserver
from tests.support.limits import UNLIMITED


async def warm(server: TestServer, *others: TestServer) -> tuple[Visitor, str]:
    """A room of ten users of this server and one of another, in which both have written."""
    people = [await person(server, f"user{number}") for number in range(10)]
    room = await people[0].room()
    for each in people[1:]:
        await each.join(room)
    eve = await visit(server, "evil.test", *others)
    await eve.join(room)
    await at_rest(server, *others)
    return eve, room


@pytest_twisted.ensureDeferred
async def test_a_message_of_another_server(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings, **UNLIMITED) as server:
        eve, room = await warm(server)
        for _ in range(2):
            await eve.send(await eve.make(room))
        event = await eve.make(room)
        with server.hs.database.counted() as counts:
            assert await eve.send(event) == {event.event_id: {}}
        assert counts.statements_read <= 1, counts.sql
        assert counts.statements_written <= 4, counts.sql


@pytest_twisted.ensureDeferred
async def test_who_meets_no_other_server_pays_nothing_for_sending(database_settings: PoolSettings) -> None:
    """Rooms are made, people come in, and have new devices: the duty of sending asks the database nothing."""
    async with homeserver(database_settings, **UNLIMITED) as server:
        hs = server.hs
        await hs.sending.sending.begin()
        alice, bob = await person(server, "alice"), await person(server, "bob")
        await bob.join(await alice.room())
        await deferLater(hs.reactor, 0.1)
        with hs.database.counted() as counts:
            room = await alice.room()
            await bob.join(room)
            await person(server, "carol")
            device = (await alice.get("/account/whoami"))["device_id"]
            await alice.post("/keys/upload", {"device_keys": keys_of(alice.id, device)})
            await deferLater(hs.reactor, PRESENCE_DELAY + 0.2)
        asked = {name for name, _ in counts.sql}
        await hs.sending.sending.end()
        outbox = hs.edus.device_list_outbox
        assert outbox._reached.events == hs.notifier.position("events")
        assert not {name for name in asked if name.startswith(("federation", "device_lists_outbox", "room_hosts"))}, (
            asked
        )


@pytest_twisted.ensureDeferred
async def test_a_message_by_a_federation_reader(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "federation_reader", **UNLIMITED) as processes:
        main, reader = processes.main, processes["federation_reader"]
        eve, first = await warm(main, reader)
        await eve.send(await eve.make(first), to=reader)  # from here on, it follows what happens
        carol = await person(main, "carol")
        room = await carol.room()
        await eve.join(room)
        for _ in range(2):
            await eve.send(await eve.make(room), to=reader)
        await processes.caught_up()
        await at_rest(main, reader)
        event = await eve.make(room)
        with main.hs.database.counted() as writing, reader.hs.database.counted() as reading:
            assert await eve.send(event, to=reader) == {event.event_id: {}}
        assert writing.statements_read + reading.statements_read <= 1, (writing.sql, reading.sql)
        assert writing.statements_written + reading.statements_written <= 4, (writing.sql, reading.sql)


@pytest_twisted.ensureDeferred
async def test_fifty_messages_cost_hardly_more_than_one(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings, **UNLIMITED) as server:
        eve, room = await warm(server)
        await eve.send(await eve.make(room))
        events = await eve.chain(room, 50)
        with server.hs.database.counted() as counts:
            await eve.send(*events)
        assert counts.statements_read <= 1, counts.sql
        assert counts.statements_written <= 4, counts.sql


@pytest_twisted.ensureDeferred
async def test_events_of_many_rooms_that_nobody_is_in(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings, **UNLIMITED) as server:
        eve, room = await warm(server)
        version = (await eve.make(room)).room_version
        strange = [eve.event(version, "!" + f"{number:043d}") for number in range(50)]
        await eve.send(*strange)
        with server.hs.database.counted() as counts:
            assert await eve.send(*strange) == {}
        assert counts.statements_read <= 3, counts.sql
        assert counts.statements_written <= 1, counts.sql


@pytest_twisted.ensureDeferred
async def test_who_only_uploads_keys_is_not_told_of_events(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "frontend_proxy", **UNLIMITED) as processes:
        assert "events" not in processes["frontend_proxy"].hs.notifier.listened_to
