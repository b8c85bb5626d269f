"""Who is put out of a room learns of it, also where the last of a server's users is, and the server has missed what led
to it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.federation.receiving import ancestors
from tests.federation.test_joining_across import Person, world
from tests.support.postgres import PostgresServer
from tests.support.two_servers import Network


async def gathered(people: list[Person], version: str = "12", **wish: Any) -> str:
    """A room of Alice's that the others are in, each of whose servers knows it."""
    alice, *others = people
    room_id = await alice.create(room_version=version, **wish)
    for person in others:
        assert (await person.join(room_id, alice.server))[0] == 200
    for person in people:
        await alice.net.until(lambda person=person: sees(person, room_id, len(people)))
    return room_id


async def sees(person: Person, room_id: str, joined: int) -> bool:
    return list((await person.members(room_id)).values()).count("join") == joined


async def is_in(person: Person, room_id: str) -> bool:
    return room_id in (await person.do("GET", "joined_rooms"))["joined_rooms"]


async def is_out(person: Person, room_id: str) -> bool:
    return not await is_in(person, room_id)


async def missed(net: Network, carol: Person, bob: Person, room_id: str, count: int) -> None:
    """Carol says something that Alice's server hears and Bob's does not."""
    net.cut(short(carol), short(bob))
    for number in range(count):
        await carol.say(room_id, f"unheard {number}")
    await net.settled()


def short(person: Person) -> str:
    return person.server.partition(".")[0]


async def put_out(by: Person, user_id: str, room_id: str, how: str) -> None:
    await by.do("POST", f"rooms/{quote(room_id)}/{how}", {"user_id": user_id, "reason": "so"})


def refused(net: Network, by: str) -> list[tuple[str, str, int | None]]:
    """What a server asked others of the room, and was not told."""
    return [(a.of, a.path, a.code) for a in net.asked if a.by == by and a.code != 200 and "/federation/" in a.path]


@pytest.mark.parametrize(("version", "how"), [("1", "kick"), ("12", "ban")])
@pytest_twisted.ensureDeferred
async def test_a_server_that_missed_what_led_to_it_asks_who_did_it(
    postgres: PostgresServer, version: str, how: str
) -> None:
    async with world(postgres, "one", "two", "three") as (net, people):
        alice, bob, carol = people
        room_id = await gathered(people, version)
        since = (await bob.sync())["next_batch"]
        await missed(net, carol, bob, room_id, 3)
        await put_out(alice, bob.user_id, room_id, how)
        await net.until(lambda: is_out(bob, room_id))
        left = (await bob.sync(since))["rooms"]["leave"][room_id]
        assert left["timeline"]["events"][-1]["content"]["reason"] == "so"
        assert not refused(net, "two")


@pytest_twisted.ensureDeferred
async def test_one_that_missed_much_is_told_the_state(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ancestors, "ROUNDS", 1)
    async with world(postgres, "one", "two", "three") as (net, people):
        alice, bob, carol = people
        room_id = await gathered(people)
        net.cut("two", "three")
        await carol.do("PUT", f"rooms/{quote(room_id)}/state/m.room.member/{carol.user_id}", renamed())
        await missed(net, carol, bob, room_id, 25)
        await put_out(alice, bob.user_id, room_id, "kick")
        await net.until(lambda: is_out(bob, room_id))
        assert {each.path.split("/")[4] for each in net.asked if each.by == "two"} >= {"state_ids", "event"}
        assert not refused(net, "two")


def renamed() -> dict[str, str]:
    return {"membership": "join", "displayname": "Caroline"}


@pytest_twisted.ensureDeferred
async def test_where_who_did_it_cannot_be_asked_others_of_the_room_are(postgres: PostgresServer) -> None:
    async with world(postgres, "one", "two", "three") as (net, people):
        alice, bob, carol = people
        room_id, other = await gathered(people), await gathered(people)
        await missed(net, carol, bob, room_id, 3)
        net.cut("one", "two")
        await put_out(alice, bob.user_id, room_id, "kick")
        await net.until(lambda: sees(carol, room_id, 2))
        net.mend()
        net.cut_one_way("two", "one")
        net.cut_one_way("three", "two")
        await alice.say(other, "I reach you again")
        await net.until(lambda: is_out(bob, room_id))
        assert await is_in(bob, other)
        assert ("three", 200) in [
            (each.of, each.code) for each in net.asked if each.by == "two" and "/get_missing_events/" in each.path
        ]


@pytest_twisted.ensureDeferred
async def test_where_nobody_can_be_asked_it_is_looked_at_again(postgres: PostgresServer) -> None:
    async with world(postgres, "one", "two", "three") as (net, people):
        alice, bob, carol = people
        room_id = await gathered(people)
        await missed(net, carol, bob, room_id, 3)
        net.cut_one_way("two", "one")
        await put_out(alice, bob.user_id, room_id, "kick")
        hs = net["two"].hs
        await net.until(lambda: hs.database.write("test.due", _make_due))
        assert await is_in(bob, room_id)
        net.mend()
        net.cut_one_way("three", "two")
        await hs.receiving.taking_up.round()
        await net.until(lambda: is_out(bob, room_id))


def _make_due(txn: Any) -> bool:
    """Makes events due that wait to be looked at again; whether there are any."""
    txn.execute("UPDATE unfinished_pdus SET retry_at = 0 RETURNING 1")
    return bool(txn.rows())
