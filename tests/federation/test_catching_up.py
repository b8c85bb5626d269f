"""Two servers that lose sight of each other while people go on writing on both: afterwards each knows all of it, and
both say that the room is the same.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from tests.rest.people import Person
from tests.support.postgres import PostgresServer
from tests.support.two_servers import Network, federation

OPTIONS: dict[str, Any] = {
    "federation": {"destination_min_retry_interval": "10ms", "destination_max_retry_interval": "20ms"}
}


async def one_and_two(net: Network, version: str) -> tuple[Person, Person, str]:
    """Alice of the first server, Bob of the second, and a room of hers that both are in."""
    people = []
    for name, user in (("one", "alice"), ("two", "bob")):
        client = net[name].client
        people.append(Person(client, f"@{user}:{name}.test:8448", await client.register(user)))
    alice, bob = people
    room = await alice.room(room_version=version)
    await bob.post(f"/join/{room}?server_name=one.test:8448")
    await net.settled()
    return alice, bob, room


async def said(person: Person, room: str) -> set[str]:
    """What was said in the room, as far as somebody's server knows without asking."""
    found: set[str] = set()
    answer = await person.get(f"/rooms/{room}/messages?dir=b&limit=100")
    found.update(each["content"]["body"] for each in answer["chunk"] if each["type"] == "m.room.message")
    return found


async def state_of(person: Person, room: str) -> dict[tuple[str, str], Any]:
    return {(each["type"], each["state_key"]): each["event_id"] for each in await person.get(f"/rooms/{room}/state")}


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_a_partition_heals(postgres: PostgresServer, version: str) -> None:
    async with federation(postgres, "one", "two", **OPTIONS) as net:
        alice, bob, room = await one_and_two(net, version)
        await bob.say(room, "before")
        await net.until(lambda: _has(alice, room, "before"))
        net.cut("one", "two")
        for number in range(15):
            await alice.say(room, f"alice {number}")
            await bob.say(room, f"bob {number}")
        await alice.state(room, "m.room.topic", topic="A fork")
        net.mend()
        await alice.say(room, "after, says alice")
        await bob.say(room, "after, says bob")
        wanted = {f"{name} {number}" for name in ("alice", "bob") for number in range(15)}
        wanted |= {"before", "after, says alice", "after, says bob"}
        for person in (alice, bob):
            await net.until(lambda person=person: _has_all(person, room, wanted))
        await net.settled()
        assert await state_of(alice, room) == await state_of(bob, room)


@pytest_twisted.ensureDeferred
async def test_a_long_silence_is_made_up_for(postgres: PostgresServer) -> None:
    """More than is sent again, and more than is asked for at once."""
    async with federation(postgres, "one", "two", **OPTIONS) as net:
        alice, bob, room = await one_and_two(net, "11")
        net.cut("one", "two")
        for number in range(150):
            await alice.say(room, f"alice {number}")
        net.mend()
        await alice.say(room, "after")
        await net.until(lambda: _has(bob, room, "after"))
        await net.settled()
        found: set[str] = set()
        args = "dir=b&limit=50"
        for _ in range(6):
            page = await bob.get(f"/rooms/{room}/messages?{args}")
            found.update(each["content"]["body"] for each in page["chunk"] if each["type"] == "m.room.message")
            if "end" not in page:
                break
            args = f"dir=b&limit=50&from={page['end']}"
        assert {f"alice {number}" for number in range(150)} <= found
        assert await state_of(alice, room) == await state_of(bob, room)


async def _has(person: Person, room: str, body: str) -> bool:
    return body in await said(person, room)


async def _has_all(person: Person, room: str, bodies: set[str]) -> bool:
    return bodies <= await said(person, room)
