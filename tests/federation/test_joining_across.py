"""Memberships across servers of ours: what one asks, the other answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.util.concurrency import gather
from tests.support.postgres import PostgresServer
from tests.support.two_servers import Network, federation

C = "/_matrix/client/v3"


class Person:
    """A user of one of the servers."""

    def __init__(self, net: Network, server: str, name: str, token: str) -> None:
        self.user_id = f"@{name}:{server}.test:8448"
        self.server = f"{server}.test:8448"
        self.net, self.token = net, token
        self.client = net[server].client

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await self.client.request(method, f"{C}/{path}", body, self.token)

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        code, answer = await self.ask(method, path, body)
        assert code == 200, (path, answer)
        return answer

    async def create(self, **wish: Any) -> str:
        return str((await self.do("POST", "createRoom", {"preset": "public_chat", **wish}))["room_id"])

    async def join(self, room: str, via: str | None = None) -> tuple[int, Any]:
        args = "" if via is None else f"?via={via}"
        return await self.ask("POST", f"join/{quote(room)}{args}", {})

    async def say(self, room_id: str, body: str, txn: str | None = None) -> str:
        path = f"rooms/{quote(room_id)}/send/m.room.message/{txn or body}"
        return str((await self.do("PUT", path, {"msgtype": "m.text", "body": body}))["event_id"])

    async def members(self, room_id: str) -> dict[str, str]:
        found = await self.do("GET", f"rooms/{quote(room_id)}/members")
        return {event["state_key"]: event["content"]["membership"] for event in found["chunk"]}

    async def sync(self, since: str | None = None) -> Any:
        return await self.do("GET", "sync" + (f"?since={since}" if since else ""))

    async def history(self, room_id: str, limit: int = 20) -> list[dict[str, Any]]:
        """All pages from the end to where they end."""
        found: list[dict[str, Any]] = []
        args = f"dir=b&limit={limit}"
        for _ in range(100):
            page = await self.do("GET", f"rooms/{quote(room_id)}/messages?{args}")
            found += page["chunk"]
            if "end" not in page:
                return found
            args = f"dir=b&limit={limit}&from={page['end']}"
        raise AssertionError("the pages do not end")


@asynccontextmanager
async def world(postgres: PostgresServer, *names: str, **options: Any) -> AsyncIterator[tuple[Network, list[Person]]]:
    """Servers, and a user of each: Alice, Bob, Carol."""
    async with federation(postgres, *(names or ("one", "two")), **options) as net:
        people = []
        for server, name in zip(net.servers, ("alice", "bob", "carol"), strict=False):
            people.append(Person(net, server, name, await net[server].client.register(name)))
        yield net, people


async def another(net: Network, server: str, name: str) -> Person:
    return Person(net, server, name, await net[server].client.register(name))


@pytest.mark.parametrize("version", ["1", "3", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_a_room_is_entered_and_its_history_is_there(postgres: PostgresServer, version: str) -> None:
    async with world(postgres) as (net, (alice, bob)):
        room_id = await alice.create(room_version=version, name="The room", room_alias_name="room")
        before = [await alice.say(room_id, f"before {n}") for n in range(5)]
        assert await bob.join(f"#room:{alice.server}") == (200, {"room_id": room_id})
        assert await bob.members(room_id) == {alice.user_id: "join", bob.user_id: "join"}
        assert await alice.members(room_id) == {alice.user_id: "join", bob.user_id: "join"}
        told = (await bob.sync())["rooms"]["join"][room_id]
        assert "The room" in str(told["state"]["events"])
        after = await alice.say(room_id, "after")
        await net.settled()
        await net.until(lambda: _knows(bob, room_id, after))
        answer = await bob.say(room_id, "answer")
        await net.until(lambda: _knows(alice, room_id, answer))
        seen = [event["event_id"] for event in await bob.history(room_id)]
        assert [event_id for event_id in seen if event_id in before] == before[::-1]
        assert seen[:2] == [answer, after]
        assert (await bob.history(room_id))[-1]["type"] == "m.room.create"


async def _knows(person: Person, room_id: str, event_id: str) -> bool:
    code, _ = await person.ask("GET", f"rooms/{quote(room_id)}/event/{quote(event_id, safe='')}")
    return code == 200


@pytest_twisted.ensureDeferred
async def test_history_is_pageable_to_its_beginning(postgres: PostgresServer) -> None:
    async with world(postgres) as (net, (alice, bob)):
        room_id = await alice.create()
        sent = [await alice.say(room_id, f"message {n}") for n in range(250)]
        assert (await bob.join(room_id, alice.server))[0] == 200
        seen = [event["event_id"] for event in await bob.history(room_id, 30) if event["type"] == "m.room.message"]
        assert seen == sent[::-1]
        asked = [each for each in net.asked if "/backfill/" in each.path]
        assert 3 <= len(asked) <= 4
        await bob.history(room_id)
        assert [each for each in net.asked if "/backfill/" in each.path] == asked


@pytest_twisted.ensureDeferred
async def test_many_who_come_at_once_make_one_federated_join(postgres: PostgresServer) -> None:
    async with world(postgres) as (net, (alice, bob)):
        room_id = await alice.create()
        people = [bob, *[await another(net, "two", f"bob{n}") for n in range(4)]]
        answers = await gather(person.join(room_id, alice.server) for person in people)
        assert answers == [(200, {"room_id": room_id})] * 5
        assert len([each for each in net.asked if "/send_join/" in each.path]) == 1
        expected = {alice.user_id: "join"} | {person.user_id: "join" for person in people}
        assert await bob.members(room_id) == expected
        await net.settled()
        await net.until(lambda: _has_members(alice, room_id, expected))


async def _has_members(person: Person, room_id: str, expected: dict[str, str]) -> bool:
    return await person.members(room_id) == expected


@pytest_twisted.ensureDeferred
async def test_an_invite_is_shown_and_leads_into_the_room(postgres: PostgresServer) -> None:
    async with world(postgres) as (_net, (alice, bob)):
        room_id = await alice.create(preset="private_chat", name="Secret", invite=[bob.user_id], is_direct=True)
        shown = (await bob.sync())["rooms"]["invite"][room_id]["invite_state"]["events"]
        assert {event["type"] for event in shown} >= {"m.room.create", "m.room.name", "m.room.member"}
        assert (await bob.join(room_id))[0] == 200  # whoever invited is asked
        assert await alice.members(room_id) == {alice.user_id: "join", bob.user_id: "join"}
        joined = (await bob.sync())["rooms"]["join"][room_id]["timeline"]["events"][-1]
        assert joined["unsigned"]["prev_content"].items() >= {"membership": "invite", "is_direct": True}.items()
        assert joined["unsigned"]["prev_sender"] == alice.user_id


@pytest.mark.parametrize("version", ["1", "12"])
@pytest.mark.parametrize("is_away", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_invite_is_refused_whether_the_room_hears_of_it_or_not(
    postgres: PostgresServer, version: str, is_away: bool
) -> None:
    async with world(postgres) as (net, (alice, bob)):
        room_id = await alice.create(preset="private_chat", invite=[bob.user_id], room_version=version)
        synced = await bob.sync()
        assert room_id in synced["rooms"]["invite"]
        if is_away:
            net.cut("one", "two")
        await bob.do("POST", f"rooms/{quote(room_id)}/leave", {"reason": "no"})
        left = (await bob.sync(synced["next_batch"]))["rooms"]["leave"][room_id]
        assert left["timeline"]["events"][-1]["content"] == {"membership": "leave", "reason": "no"}
        assert room_id not in str((await bob.sync()).get("rooms"))
        await bob.do("POST", f"rooms/{quote(room_id)}/leave", {})
        expected = "invite" if is_away else "leave"
        assert (await alice.members(room_id))[bob.user_id] == expected
        net.mend()
        if is_away:
            await alice.do("POST", f"rooms/{quote(room_id)}/kick", {"user_id": bob.user_id})
        await alice.do("POST", f"rooms/{quote(room_id)}/invite", {"user_id": bob.user_id})
        assert room_id in (await bob.sync())["rooms"]["invite"]
        assert (await bob.join(room_id))[0] == 200


@pytest_twisted.ensureDeferred
async def test_a_knock_is_shown_and_taken_back_and_let_in(postgres: PostgresServer) -> None:
    async with world(postgres) as (_net, (alice, bob)):
        rule = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        room_id = await alice.create(preset="private_chat", initial_state=[rule], name="Knock here")
        path = f"knock/{quote(room_id)}?via={alice.server}"
        assert (await bob.do("POST", path, {"reason": "please"}))["room_id"] == room_id
        shown = (await bob.sync())["rooms"]["knock"][room_id]["knock_state"]["events"]
        assert {"m.room.create", "m.room.name"} <= {event["type"] for event in shown}
        assert (await alice.members(room_id))[bob.user_id] == "knock"
        await bob.do("POST", f"rooms/{quote(room_id)}/leave", {})
        assert (await alice.members(room_id))[bob.user_id] == "leave"
        await bob.do("POST", path, {})
        await alice.do("POST", f"rooms/{quote(room_id)}/invite", {"user_id": bob.user_id})
        assert room_id in (await bob.sync())["rooms"]["invite"]
        assert (await bob.join(room_id))[0] == 200


@pytest_twisted.ensureDeferred
async def test_a_room_that_was_left_is_entered_anew(postgres: PostgresServer) -> None:
    async with world(postgres) as (net, (alice, bob)):
        room_id = await alice.create()
        await bob.join(room_id, alice.server)
        await bob.do("POST", f"rooms/{quote(room_id)}/leave", {})
        await net.settled()
        await net.until(lambda: _stands(alice, room_id, bob.user_id, "leave"))
        away = [await alice.say(room_id, f"away {n}") for n in range(3)]
        await net.settled()
        assert (await bob.join(room_id))[0] == 200  # it is known who was there
        later = await alice.say(room_id, "later")
        await net.until(lambda: _knows(bob, room_id, later))
        seen = [event["event_id"] for event in await bob.history(room_id)]
        assert [each for each in seen if each in away] == away[::-1]
        assert len(seen) == len(set(seen))


async def _stands(person: Person, room_id: str, user_id: str, membership: str) -> bool:
    return (await person.members(room_id)).get(user_id) == membership


@pytest_twisted.ensureDeferred
async def test_members_of_another_room_come_into_a_restricted_one(postgres: PostgresServer) -> None:
    async with world(postgres) as (net, (alice, bob)):
        club = await alice.create()
        allow = [{"type": "m.room_membership", "room_id": club}]
        rule = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
        levels = {"invite": 50}
        room_id = await alice.create(preset="private_chat", initial_state=[rule], power_level_content_override=levels)
        code, body = await bob.join(room_id, alice.server)
        assert (code, body["errcode"]) == (403, "M_FORBIDDEN")
        await bob.join(club, alice.server)
        assert (await bob.join(room_id, alice.server))[0] == 200
        # Nobody of Bob's server may invite, so Alice's has to vouch for the next one too.
        dave = await another(net, "two", "dave")
        await dave.join(club)
        await net.settled()
        await net.until(lambda: _stands(alice, club, dave.user_id, "join"))
        assert (await dave.join(room_id))[0] == 200
        assert (await alice.members(room_id))[dave.user_id] == "join"
        await net.settled()
        assert await bob.members(room_id) == await alice.members(room_id)


@pytest_twisted.ensureDeferred
async def test_what_goes_wrong_is_told_in_the_specifications_words(postgres: PostgresServer) -> None:
    async with world(postgres) as (net, (alice, bob)):
        closed = await alice.create(preset="private_chat")
        local = await alice.create(creation_content={"m.federate": False})
        cases = [
            (closed, alice.server, 403, "M_FORBIDDEN"),
            (local, alice.server, 403, "M_FORBIDDEN"),
            ("!none:one.test:8448", None, 404, "M_NOT_FOUND"),
            ("!none:two.test:8448", None, 404, "M_NOT_FOUND"),
            ("!" + "A" * 43, None, 404, "M_NOT_FOUND"),
            ("!" + "A" * 43, "away.test", 502, "M_CONNECTION_FAILED"),
            ("!" + "A" * 43, "not a name", 404, "M_NOT_FOUND"),
            (f"#none:{alice.server}", None, 404, "M_NOT_FOUND"),
        ]
        for room, via, status, errcode in cases:
            code, body = await bob.join(room, None if via is None else quote(via))
            assert (code, body["errcode"]) == (status, errcode), room
        net.cut("one", "two")
        code, body = await bob.join(await alice.create(), alice.server)
        assert (code, body["errcode"]) == (502, "M_CONNECTION_FAILED")
        code, body = await bob.ask("POST", f"rooms/{quote(closed)}/leave", {})
        assert (code, body["errcode"]) == (403, "M_FORBIDDEN")
