"""History that this server came into late: it is complete, whoever has which part of it, and whoever is away."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from tests.federation.test_joining_across import Person, world
from tests.support.postgres import PostgresServer
from tests.support.two_servers import Network


def asked(net: Network, by: str) -> list[tuple[str, int | None]]:
    """Whom a server has asked for history, and how that was answered."""
    return [(each.of, each.code) for each in net.asked if each.by == by and "/backfill/" in each.path]


async def knows(person: Person, room_id: str, event_id: str) -> bool:
    code, _ = await person.ask("GET", f"rooms/{quote(room_id)}/event/{quote(event_id, safe='')}")
    return code == 200


async def page(person: Person, room_id: str, **args: Any) -> dict[str, Any]:
    query = "&".join(f"{name}={value}" for name, value in ({"dir": "b", "limit": 100} | args).items())
    found: dict[str, Any] = await person.do("GET", f"rooms/{quote(room_id)}/messages?{query}")
    return found


def ids(page: dict[str, Any]) -> list[str]:
    return [event["event_id"] for event in page["chunk"]]


def said(events: list[dict[str, Any]]) -> list[str]:
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


async def parted(net: Network, people: list[Person], version: str = "12") -> str:
    """A room of Alice's. Bob has come to it at its end, and let Carol in while Alice was out of reach: so Bob's server
    knows its end alone, Carol's nothing but her coming and what she says."""
    alice, bob, carol = people
    room_id = await alice.create(room_version=version)
    await alice.say(room_id, "first")
    await alice.say(room_id, "second")
    other = await alice.create()
    assert (await bob.join(room_id, alice.server))[0] == 200
    assert (await carol.join(other, alice.server))[0] == 200  # so that the servers know each other's keys
    await net.settled()
    net.cut("one", "two")
    net.cut("one", "three")
    assert (await carol.join(room_id, bob.server))[0] == 200
    await carol.say(room_id, "only to bob")
    await net.settled()
    return room_id


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_what_one_lacks_another_tells(postgres: PostgresServer, version: str) -> None:
    async with world(postgres, "one", "two", "three") as (net, people):
        alice, _, carol = people
        room_id = await parted(net, people, version)
        net.mend()
        last = await carol.say(room_id, "to all")
        await net.until(lambda: knows(alice, room_id, last))
        await net.settled()
        whole = await page(carol, room_id)
        assert said(whole["chunk"]) == ["to all", "only to bob", "second", "first"]
        assert whole["chunk"][-1]["type"] == "m.room.create"
        assert "end" not in whole
        assert said((await page(alice, room_id))["chunk"]) == ["to all", "only to bob", "second", "first"]


@pytest_twisted.ensureDeferred
async def test_a_room_does_not_begin_where_nobody_can_be_asked(postgres: PostgresServer) -> None:
    async with world(postgres, "one", "two", "three") as (net, people):
        alice, _, carol = people
        room_id = await parted(net, people)
        first = await page(carol, room_id)
        assert said(first["chunk"]) == ["only to bob"]
        assert {code for _, code in asked(net, "three")} == {200}
        empty = await page(carol, room_id, **{"from": first["end"]})
        assert empty == {"start": first["end"], "chunk": []}
        before = asked(net, "three")
        assert "end" in await page(carol, room_id)
        assert asked(net, "three") == before  # not while nothing is new
        net.mend()
        await alice.say(room_id, "I am back")
        await net.settled()
        await net.until(lambda: is_whole(carol, room_id))
        assert set(said((await page(carol, room_id))["chunk"])) >= {"only to bob", "second", "first"}


async def is_whole(person: Person, room_id: str) -> bool:
    return "end" not in await page(person, room_id)
