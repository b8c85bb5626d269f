"""How clients followed a server before /sync: /events, /initialSync, and looking into rooms from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from synapse.storage.pool import PoolSettings
from tests.rest.people import Person, bodies, guest, person
from tests.support.homeserver import TestServer, homeserver


@pytest_twisted.async_yield_fixture
async def server(database_settings: PoolSettings) -> AsyncIterator[TestServer]:
    async with homeserver(database_settings, allow_guest_access=True) as hs:
        yield hs


async def now(user: Person, **query: str) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return str((await user.get(f"/events?timeout=0{more}"))["end"])


async def since(user: Person, token: str, query: str = "") -> list[dict[str, Any]]:
    answer = await user.get(f"/events?timeout=0&from={token}{query}")
    assert answer["start"] == token
    chunk: list[dict[str, Any]] = answer["chunk"]
    return chunk


@pytest_twisted.ensureDeferred
async def test_everything_that_concerns_a_user_comes_down_the_stream(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")
    room = await alice.room()
    await bob.join(room)
    start = await now(alice)
    sent = await bob.say(room, "hello")
    await bob.put(f"/rooms/{room}/typing/{bob.id}", {"typing": True})
    await bob.post(f"/rooms/{room}/receipt/m.read/{quote(sent)}")
    await alice.put(f"/user/{alice.id}/rooms/{room}/tags/work", {"order": 0.5})
    await alice.put(f"/user/{alice.id}/account_data/org.example", {"a": 1})
    await bob.put(f"/user/{bob.id}/account_data/org.example", {"not": "for alice"})
    await bob.put(f"/presence/{bob.id}/status", {"presence": "online", "status_msg": "here"})
    other = await bob.room(invite=[alice.id])
    told = {event["type"]: event for event in await since(alice, start)}
    message = told["m.room.message"]
    assert (message["event_id"], message["room_id"], message["user_id"]) == (sent, room, bob.id)
    assert isinstance(message["age"], int)
    assert told["m.typing"] == {"type": "m.typing", "room_id": room, "content": {"user_ids": [bob.id]}}
    assert told["m.receipt"]["room_id"] == room
    assert told["m.receipt"]["content"][sent]["m.read"].keys() == {bob.id}
    assert told["m.tag"] == {"type": "m.tag", "room_id": room, "content": {"tags": {"work": {"order": 0.5}}}}
    assert told["org.example"] == {"type": "org.example", "content": {"a": 1}}
    assert told["m.presence"]["content"]["user_id"] == bob.id
    invite = told["m.room.member"]
    assert (invite["room_id"], invite["state_key"], invite["content"]["membership"]) == (other, alice.id, "invite")


@pytest_twisted.ensureDeferred
async def test_leaving_is_the_last_that_is_told_of_a_room(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")
    room = await alice.room()
    await bob.join(room)
    start = await now(bob)
    await alice.say(room, "before")
    await alice.post(f"/rooms/{room}/kick", {"user_id": bob.id})
    await alice.say(room, "after")
    told = await since(bob, start)
    assert bodies(told) == ["before"]
    last = next(event for event in told if event["type"] == "m.room.member")
    assert (last["state_key"], last["content"]["membership"]) == (bob.id, "leave")


@pytest_twisted.ensureDeferred
async def test_a_limit_cuts_the_stream_without_loss(server: TestServer) -> None:
    alice = await person(server, "alice")
    room = await alice.room()
    token = await now(alice)
    sent = [await alice.say(room, f"m{number}") for number in range(7)]
    got: list[str] = []
    for _ in range(4):
        answer = await alice.get(f"/events?timeout=0&limit=2&from={token}")
        got += [event["event_id"] for event in answer["chunk"] if event["type"] == "m.room.message"]
        token = answer["end"]
    assert got == sent


@pytest_twisted.ensureDeferred
async def test_strangers_follow_a_room_that_everybody_may_look_into(server: TestServer) -> None:
    alice, bob, visitor = await person(server, "alice"), await person(server, "bob"), await guest(server)
    room, hidden = await alice.room(), await alice.room()
    await alice.say(room, "before")
    await alice.state(room, "m.room.history_visibility", history_visibility="world_readable")
    for stranger in (bob, visitor):
        first = await stranger.get(f"/rooms/{room}/initialSync")
        assert first["membership"] == "leave"
        assert first["messages"]["chunk"][0]["type"] == "m.room.history_visibility"
        assert [event["sender"] for event in first["presence"]] == [alice.id]
        query = f"&room_id={room}"
        waiting = Deferred.fromCoroutine(stranger.get(f"/events?timeout=20000&from={first['messages']['end']}{query}"))
        await alice.say(hidden, f"hidden from {stranger.id}")
        sent = await alice.say(room, f"shown to {stranger.id}")
        answer = await waiting
        assert [event["event_id"] for event in answer["chunk"]] == [sent]
        await alice.post(f"/rooms/{room}/receipt/m.read/{quote(sent)}")
        await alice.post(f"/rooms/{room}/receipt/m.read.private/{quote(sent)}")
        await alice.put(f"/presence/{alice.id}/status", {"presence": "online", "status_msg": stranger.id})
        told = {event["type"]: event for event in await since(stranger, answer["end"], query)}
        assert told.keys() == {"m.receipt", "m.presence"}
        assert told["m.receipt"]["content"][sent].keys() == {"m.read"}
        assert told["m.presence"]["content"]["status_msg"] == stranger.id
        start = await now(stranger, room_id=room)
        await stranger.put(f"/profile/{stranger.id}/displayname", {"displayname": "Stranger"})
        if stranger is bob:
            await bob.put(f"/user/{bob.id}/account_data/org.example", {"a": 1})
            await alice.room(invite=[bob.id])
        assert await since(stranger, start, query) == []
    await alice.state(room, "m.room.history_visibility", history_visibility="shared")
    assert await bob.refused("GET", f"/events?timeout=0&room_id={room}") == (403, "M_FORBIDDEN")
    start = await now(alice)
    await alice.put(f"/rooms/{room}/typing/{alice.id}", {"typing": True})
    await alice.put(f"/user/{alice.id}/rooms/{hidden}/tags/work", {})
    assert [event["type"] for event in await since(alice, start, f"&room_id={room}")] == ["m.typing"]


@pytest.mark.parametrize(
    ("path", "code", "errcode"),
    [
        ("/events?limit=hello", 400, "M_INVALID_PARAM"),
        ("/events?limit=-2", 400, "M_INVALID_PARAM"),
        ("/events?timeout=hello", 400, "M_INVALID_PARAM"),
        ("/events?from=t1-2", 400, "M_INVALID_PARAM"),
        ("/events?from=s99999999999999999999", 400, "M_INVALID_PARAM"),
        ("/events?room_id=!nowhere:test", 403, "M_FORBIDDEN"),
        ("/events?room_id=", 400, "M_INVALID_PARAM"),
        ("/initialSync?limit=hello", 400, "M_INVALID_PARAM"),
        ("/initialSync?archived=maybe", 400, "M_INVALID_PARAM"),
        ("/rooms/nowhere/initialSync", 400, "M_INVALID_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_questions_are_refused_at_once(server: TestServer, path: str, code: int, errcode: str) -> None:
    alice = await person(server, "alice")
    assert await alice.refused("GET", path) == (code, errcode)


@pytest_twisted.ensureDeferred
async def test_a_token_with_fewer_streams_is_read_like_one_of_all(server: TestServer) -> None:
    alice = await person(server, "alice")
    room = await alice.room()
    answer = await alice.get("/events?timeout=0&from=s0")
    assert room in {event.get("room_id") for event in answer["chunk"]}


@pytest_twisted.ensureDeferred
async def test_guests_follow_single_rooms_only(server: TestServer) -> None:
    visitor = await guest(server)
    assert await visitor.refused("GET", "/events") == (403, "M_GUEST_ACCESS_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_the_first_look_at_everything(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")
    fresh = await alice.get("/initialSync")
    assert (fresh["rooms"], fresh["receipts"], fresh["account_data"]) == ([], [], [])
    [own] = fresh["presence"]
    assert (own["sender"], own["content"]["user_id"], own["content"]["presence"]) == (alice.id, alice.id, "offline")
    assert isinstance(own["content"]["last_active_ago"], int)
    stays, left, banned = await bob.room(), await bob.room(), await bob.room()
    for room in (stays, left, banned):
        await alice.join(room)
    sent = await bob.say(stays, "hello")
    await bob.post(f"/rooms/{stays}/receipt/m.read/{quote(sent)}")
    await bob.put(f"/presence/{bob.id}/status", {"presence": "unavailable"})
    await alice.put(f"/user/{alice.id}/rooms/{stays}/tags/work", {})
    await bob.state(left, "m.room.topic", topic="then")
    await bob.say(left, "seen")
    await alice.post(f"/rooms/{left}/leave")
    await bob.state(left, "m.room.topic", topic="now")
    await bob.say(left, "unseen")
    await bob.post(f"/rooms/{banned}/ban", {"user_id": alice.id})
    answer = await alice.get("/initialSync?limit=5")
    [room_info] = answer["rooms"]
    assert (room_info["room_id"], room_info["membership"], room_info["visibility"]) == (stays, "join", "private")
    assert bodies(room_info["messages"]["chunk"]) == ["hello"]
    assert {"type": "m.tag", "content": {"tags": {"work": {}}}} in room_info["account_data"]
    assert all(event["user_id"] == event["sender"] for event in room_info["state"])
    assert [receipt["room_id"] for receipt in answer["receipts"]] == [stays]
    presence = {event["content"]["user_id"]: event["content"]["presence"] for event in answer["presence"]}
    assert presence == {alice.id: "offline", bob.id: "unavailable"}
    answer = await alice.get("/initialSync?archived=true")
    by_room = {each["room_id"]: each for each in answer["rooms"]}
    assert {r: each["membership"] for r, each in by_room.items()} == {stays: "join", left: "leave", banned: "ban"}
    assert bodies(by_room[left]["messages"]["chunk"]) == ["seen"]
    topics = [e["content"]["topic"] for e in by_room[left]["state"] if e["type"] == "m.room.topic"]
    assert topics == ["then"]
    one = await alice.get(f"/rooms/{left}/initialSync?limit=3")
    assert (one["membership"], one["presence"], one["receipts"]) == ("leave", [], [])
    assert bodies(one["messages"]["chunk"]) == ["seen"]
    assert [e["content"]["topic"] for e in one["state"] if e["type"] == "m.room.topic"] == ["then"]
    earlier = await alice.get(f"/rooms/{left}/messages?dir=b&from={one['messages']['start']}")
    told = {event["event_id"] for event in one["messages"]["chunk"]}
    assert earlier["chunk"], "the room is longer than one answer"
    assert not told.intersection(event["event_id"] for event in earlier["chunk"])


@pytest_twisted.ensureDeferred
async def test_members_see_each_others_presence_in_a_room(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")
    room = await bob.room()
    await alice.join(room)
    await bob.put(f"/presence/{bob.id}/status", {"presence": "online", "status_msg": "here"})
    one = await alice.get(f"/rooms/{room}/initialSync")
    presence = {event["content"]["user_id"]: event["content"] for event in one["presence"]}
    assert presence.keys() == {alice.id, bob.id}
    assert (presence[bob.id]["presence"], presence[bob.id]["status_msg"]) == ("online", "here")


@pytest_twisted.ensureDeferred
async def test_who_follows_the_stream_is_online(server: TestServer) -> None:
    alice = await person(server, "alice")
    # The first request makes her seem online, which the stream then tells herself.
    answer = await alice.get("/events?from=s0&timeout=20000")
    [event] = [each for each in answer["chunk"] if each["type"] == "m.presence"]
    assert (event["sender"], event["content"]["presence"]) == (alice.id, "online")


@pytest_twisted.ensureDeferred
async def test_statements_do_not_grow_with_the_number_of_rooms(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")

    async def costs(rooms: int) -> tuple[int, int]:
        """Statements of a first look at everything, and of news from one room."""
        for _ in range(rooms):
            room = await alice.room()
            await bob.join(room)
            await bob.put(f"/user/{bob.id}/rooms/{room}/tags/work", {})
        await bob.get("/initialSync?limit=2")
        with server.hs.database.counted() as first:
            await bob.get("/initialSync?limit=3")
        token = await now(bob)
        await alice.say(room, f"one of {rooms}")
        with server.hs.database.counted() as news:
            assert "m.room.message" in {event["type"] for event in await since(bob, token)}
        return first.statements_read, news.statements_read

    (few, news), (many, more_news) = await costs(2), await costs(10)
    assert few == many
    assert max(news, more_news) <= 3
