"""A room that one server upgrades, as users of another follow it."""

from __future__ import annotations

from urllib.parse import quote

import pytest_twisted

from tests.federation.people import member
from tests.support.postgres import PostgresServer
from tests.support.two_servers import federation


@pytest_twisted.ensureDeferred
async def test_what_leads_to_the_old_room_leads_to_the_new_one(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, bob = await member(net["one"], "alice"), await member(net["two"], "bob")
        old = await alice.room(room_version="10")
        await bob.post(f"/join/{quote(old)}?server_name=one.test:8448")
        alias = quote("#ours:two.test:8448")
        await bob.put(f"/directory/room/{alias}", {"room_id": old})
        await alice.post(f"/rooms/{old}/upgrade", {"new_version": "11"})
        room = (await alice.get(f"/rooms/{old}/state/m.room.tombstone/"))["replacement_room"]

        async def has_heard() -> bool:
            return (await bob.ask("GET", f"/rooms/{old}/state/m.room.tombstone/"))[0] == 200

        await net.until(has_heard)
        assert (await bob.get(f"/directory/room/{alias}"))["room_id"] == old, "nobody of theirs has followed yet"
        await bob.hs.rooms.room_store.set_public(old, True)
        await bob.post(f"/join/{quote(room)}?server_name=one.test:8448")
        assert (await bob.get(f"/directory/room/{alias}"))["room_id"] == room
        assert [listed["room_id"] for listed in (await bob.get("/publicRooms"))["chunk"]] == [room]
