"""History that this server came into late: it is complete, whoever has which part of it, and whoever is away."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.handlers.remote import backfill
from synapse.storage.pool import PoolSettings
from synapse.util.concurrency import gather
from tests.federation.test_joining_across import Person, another, world
from tests.federation.test_joining_by_worker import Way
from tests.rest import people as visitor
from tests.support.homeserver import cluster
from tests.support.postgres import PostgresServer
from tests.support.resident import Resident
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
async def test_a_room_does_not_begin_where_nobody_can_be_asked(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "SOON", 2.0)
    async with world(postgres, "one", "two", "three") as (net, people):
        alice, _, carol = people
        room_id = await parted(net, people)
        first = await page(carol, room_id)
        assert said(first["chunk"]) == ["only to bob"]
        assert {code for _, code in asked(net, "three")} == {200}
        empty = await page(carol, room_id, **{"from": first["end"]})
        assert empty == {"start": first["end"], "chunk": []}
        before = len(asked(net, "three"))
        for _ in range(5):
            assert "end" in await page(carol, room_id)
        # Not each time; once, perhaps, since the server that did not answer may be tried again a second later.
        assert len(asked(net, "three")) <= before + 1
        net.mend()
        await alice.say(room_id, "I am back")
        await net.settled()
        await net.until(lambda: is_whole(carol, room_id))
        assert set(said((await page(carol, room_id))["chunk"])) >= {"only to bob", "second", "first"}


async def is_whole(person: Person, room_id: str) -> bool:
    return "end" not in await page(person, room_id)


@pytest_twisted.ensureDeferred
async def test_a_redaction_that_comes_with_history_is_in_force_everywhere(postgres: PostgresServer) -> None:
    async with world(postgres) as (net, (alice, bob)):
        room_id = await alice.create(topic="secret topic")
        assert (await bob.join(room_id, alice.server))[0] == 200
        bea = await another(net, "two", "bea")
        assert (await bea.join(room_id))[0] == 200
        since = (await bea.sync())["next_batch"]
        secret = await alice.say(room_id, "secret message")
        await net.settled()
        await net.until(lambda: knows(bob, room_id, secret))
        told = (await bob.sync())["rooms"]["join"][room_id]
        assert "secret message" in str(told["timeline"])
        assert "secret topic" in str(told)
        topic = (await alice.do("GET", f"rooms/{quote(room_id)}/state/m.room.topic/?format=event"))["event_id"]
        net.cut("one", "two")
        hidden = [await redacted(alice, room_id, event_id) for event_id in (secret, topic)]
        stored = await net["one"].hs.rooms.events.get_many(hidden)
        events = [stored[event_id].event for event_id in hidden]
        pipeline, version = net["two"].hs.receiving.pipeline, events[0].room_version
        assert set((await pipeline.history(alice.server, room_id, version, events)).values()) == {None}
        for where in (f"sync?since={since}", "sync"):
            told = (await bea.do("GET", where))["rooms"]["join"][room_id]
            assert secret in [event["event_id"] for event in told["timeline"]["events"]]
            assert "secret" not in str(told)
        assert "secret" not in str(await page(bob, room_id))
        assert await bob.do("GET", f"rooms/{quote(room_id)}/state/m.room.topic") == {}


async def redacted(person: Person, room_id: str, event_id: str) -> str:
    """The redaction of an event."""
    path = f"rooms/{quote(room_id)}/redact/{quote(event_id, safe='')}/r{event_id[1:9]}"
    return str((await person.do("PUT", path, {}))["event_id"])


async def left_and_entered_again(alice: Person, bob: Person, version: str = "12", **wish: Any) -> tuple[str, list[str]]:
    """A room that Bob's server has left and entered again, and the messages before, in, and after what it missed."""
    net = alice.net
    room_id = await alice.create(room_version=version, **wish)
    assert (await bob.join(room_id, alice.server))[0] == 200
    before = await alice.say(room_id, "before")
    await net.settled()
    await net.until(lambda: knows(bob, room_id, before))
    await bob.do("POST", f"rooms/{quote(room_id)}/leave", {})
    await net.until(lambda: has_left(alice, room_id, bob.user_id))
    missed = [await alice.say(room_id, f"missed {number}") for number in range(3)]
    assert (await bob.join(room_id, alice.server))[0] == 200
    return room_id, [before, *missed, await bob.say(room_id, "after")]


async def has_left(person: Person, room_id: str, user_id: str) -> bool:
    return (await person.members(room_id)).get(user_id) == "leave"


def messages(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events if event["type"] == "m.room.message"]


@pytest.mark.parametrize("version", ["1", "12"])
@pytest_twisted.ensureDeferred
async def test_what_was_missed_is_there_onwards_too(postgres: PostgresServer, version: str) -> None:
    async with world(postgres) as (net, (alice, bob)):
        room_id, sent = await left_and_entered_again(alice, bob, version)
        path = f"rooms/{quote(room_id)}/context/{quote(sent[0], safe='')}?limit=20"
        around = await bob.do("GET", path)
        assert messages(around["events_after"]) == sent[1:]
        assert len(asked(net, "two")) == 2  # for that, and for what was before they came first
        room_id, sent = await left_and_entered_again(alice, bob, version)
        start = (await bob.do("GET", f"rooms/{quote(room_id)}/context/{quote(sent[0], safe='')}?limit=0"))["end"]
        assert messages((await page(bob, room_id, dir="f", **{"from": start}))["chunk"]) == sent[1:]
        # Whoever comes from the event after the gap finds it, too.
        room_id, sent = await left_and_entered_again(alice, bob, version)
        around = await bob.do("GET", f"rooms/{quote(room_id)}/context/{quote(sent[-1], safe='')}?limit=20")
        assert messages(around["events_before"]) == sent[-2::-1]


@pytest.mark.parametrize("visibility", ["joined", "invited", "shared", "world_readable"])
@pytest_twisted.ensureDeferred
async def test_of_history_that_was_fetched_users_see_what_the_room_lets_them(
    postgres: PostgresServer, visibility: str
) -> None:
    async with world(postgres) as (_, (alice, bob)):
        wish = [{"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}]
        room_id, sent = await left_and_entered_again(alice, bob, initial_state=wish)
        history = [event["event_id"] for event in await bob.history(room_id) if event["type"] == "m.room.message"]
        hidden = set(sent[1:4]) if visibility in ("joined", "invited") else set()
        assert history == [event_id for event_id in reversed(sent) if event_id not in hidden]
        assert (await bob.history(room_id))[-1]["type"] == "m.room.create"
        for event_id in sent:
            assert await knows(bob, room_id, event_id) is (event_id not in hidden)


@pytest_twisted.ensureDeferred
async def test_two_who_page_at_once_see_the_same(postgres: PostgresServer) -> None:
    async with world(postgres) as (net, (alice, bob)):
        room_id = await alice.create()
        sent = [await alice.say(room_id, f"message {number}") for number in range(30)]
        bea = await another(net, "two", "bea")
        for person in (bob, bea):
            assert (await person.join(room_id, alice.server))[0] == 200
        pages = await gather(page(person, room_id) for person in (bob, bea))
        assert [messages(each["chunk"]) for each in pages] == [sent[::-1]] * 2
        assert len(asked(net, "two")) == 1


@pytest_twisted.ensureDeferred
async def test_relations_count_where_they_came_with_history(postgres: PostgresServer) -> None:
    async with world(postgres) as (_, (alice, bob)):
        room_id = await alice.create()
        root = await alice.say(room_id, "root")
        thread = {"rel_type": "m.thread", "event_id": root}
        path = f"rooms/{quote(room_id)}/send/m.room.message"
        for number in range(3):
            content = {"msgtype": "m.text", "body": f"reply {number}", "m.relates_to": thread}
            await alice.do("PUT", f"{path}/t{number}", content)
        edit = {"rel_type": "m.replace", "event_id": root}
        new = {"msgtype": "m.text", "body": "edited"}
        await alice.do("PUT", f"{path}/e", {**new, "m.new_content": new, "m.relates_to": edit})
        assert (await bob.join(room_id, alice.server))[0] == 200
        stats = await alice.net["two"].hs.database.read("test.stats", _stats, room_id)
        for person in (bob, alice):
            found = await person.history(room_id)
            [event] = [event for event in found if event["event_id"] == root]
            bundled = event["unsigned"]["m.relations"]
            assert bundled["m.thread"]["count"] == 3
            assert bundled["m.thread"]["latest_event"]["content"]["body"] == "reply 2"
            assert bundled["m.replace"]["content"]["body"] == "edited"
        path = f"/_matrix/client/v1/rooms/{quote(room_id)}/threads"
        _, threads = await bob.client.request("GET", path, None, bob.token)
        assert [event["event_id"] for event in threads["chunk"]] == [root]
        assert await alice.net["two"].hs.database.read("test.stats", _stats, room_id) == stats
        told = (await bob.sync())["rooms"]["join"][room_id]
        assert told["unread_notifications"] == {"notification_count": 0, "highlight_count": 0}


def _stats(txn: Any, room_id: str) -> Any:
    txn.execute("SELECT * FROM room_stats WHERE room_id = %s", (room_id,))
    return txn.rows()


@pytest.mark.parametrize("version", ["1", "12"])
@pytest_twisted.ensureDeferred
async def test_forks_are_told_whole_and_what_is_rejected_to_nobody(
    database_settings: PoolSettings, version: str
) -> None:
    resident = Resident("there.test", version)
    by = resident.creator
    said = [resident.say(by, "first")]
    resident.say("@ghost:there.test", "who is not in the room")
    said.append(resident.say(by, "second"))
    root = list(resident.ends)
    ends = []
    for branch in ("one", "other"):
        resident.ends = list(root)
        said += [resident.say(by, f"{branch} {number}") for number in range(3)]
        ends += resident.ends
    resident.ends = ends
    said += [resident.say(by, f"message {number}") for number in range(10)]
    way = Way(resident)
    async with cluster(database_settings) as made:
        way.used_by(made.main)
        alice = visitor.Person(made.main.client, "@alice:test", await made.main.client.register("alice"))
        room = f"/rooms/{quote(resident.room_id)}"
        await alice.do("POST", f"/join/{quote(resident.room_id)}?via={resident.name}", {})
        found: list[str] = []
        args = "dir=b&limit=4"
        while args:
            page = await alice.do("GET", f"{room}/messages?{args}")
            found += messages(page["chunk"])
            args = f"dir=b&limit=4&from={page['end']}" if "end" in page else ""
        expected = sorted(said, key=lambda event: event.depth, reverse=True)
        assert sorted(found) == sorted(event.event_id for event in said)
        depths = {event.event_id: event.depth for event in said}
        assert [depths[event_id] for event_id in found] == [event.depth for event in expected]
        onwards = await alice.do("GET", f"{room}/messages?dir=f&limit=100")
        assert messages(onwards["chunk"]) == found[::-1]
        assert way.reached.count("backfill") == 1


@pytest_twisted.ensureDeferred
async def test_history_goes_on_behind_what_is_rejected(database_settings: PoolSettings) -> None:
    resident = Resident("there.test")
    said = [resident.say(resident.creator, f"early {number}").event_id for number in range(3)]
    resident.say("@ghost:there.test", "who is not in the room, and at the end of the first answer")
    said += [resident.say(resident.creator, f"message {number}").event_id for number in range(99)]
    way = Way(resident)
    async with cluster(database_settings) as made:
        way.used_by(made.main)
        alice = visitor.Person(made.main.client, "@alice:test", await made.main.client.register("alice"))
        await alice.do("POST", f"/join/{quote(resident.room_id)}?via={resident.name}", {})
        whole = await alice.do("GET", f"/rooms/{quote(resident.room_id)}/messages?dir=b&limit=200")
        assert messages(whole["chunk"]) == said[::-1]
        assert way.reached.count("backfill") == 2
