"""A room whose policy server is one of the two servers in it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest_twisted

from synapse.handlers.policy_server import KEY_ID
from tests.federation.people import member
from tests.federation.test_joins_by_others import bring_in
from tests.federation.test_policy_service import key_file
from tests.support.outsider import V1, Outsider
from tests.support.postgres import PostgresServer
from tests.support.two_servers import federation

ONE = "one.test:8448"


@pytest_twisted.ensureDeferred
async def test_what_others_say_is_looked_at(postgres: PostgresServer, tmp_path: Path) -> None:
    policy = {"enabled": True, "signing_key_path": key_file(tmp_path), "blocked_words": ["casino"]}
    async with federation(postgres, "one", "two", policy_server=policy) as net:
        alice, bob = await member(net["one"], "alice"), await member(net["two"], "bob")
        room = await alice.room(room_version="11")
        _, keys = await alice.client.get("/.well-known/matrix/policy_server")
        await alice.state(room, "m.room.policy", via=ONE, public_keys=keys["public_keys"])
        await bob.post(f"/join/{quote(room)}?server_name={ONE}")

        said = await bob.say(room, "hello")
        assert (await bob.refused("PUT", f"/rooms/{room}/send/m.room.message/1", {"body": "my casino"})) == (
            400,
            "M_FORBIDDEN",
        )

        async def has_come() -> bool:
            return await alice.hs.rooms.events.get(said) is not None

        await net.until(has_come)
        stored = await alice.hs.rooms.events.get(said)
        assert stored is not None
        assert not stored.soft_failed
        assert KEY_ID in stored.event.raw["signatures"][ONE]


@pytest_twisted.ensureDeferred
async def test_what_comes_without_a_signature(postgres: PostgresServer, tmp_path: Path) -> None:
    policy = {"enabled": True, "signing_key_path": key_file(tmp_path), "blocked_words": ["casino"]}
    async with federation(postgres, "one", "two", policy_server=policy) as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room, eve = await alice.room(room_version="11"), other.user("eve")
        _, keys = await alice.client.get("/.well-known/matrix/policy_server")
        await alice.state(room, "m.room.policy", via=ONE, public_keys=keys["public_keys"])
        template = await other.template("join", room, eve, "11")
        loud = other.sealed(template, content={"membership": "join", "reason": "the casino"})
        assert await other.refused("PUT", other.path("send_join", loud), loud.raw) == (400, "M_FORBIDDEN")
        _, answer = await bring_in(other, room, eve)
        assert KEY_ID in answer["event"]["signatures"][ONE], "others need not ask once more"

        event = (await other.template("leave", room, eve))["event"]
        message = {**event, "type": "m.room.message"}
        del message["state_key"]
        for body, is_shown in (("hello", True), ("casino", False)):
            said = other.sealed({"room_version": "11", "event": message}, content={"body": body, "msgtype": "m.text"})
            transaction = {"origin": other.name, "origin_server_ts": 1, "pdus": [said.raw]}
            code, result = await other.ask("PUT", f"{V1}/send/{body}", transaction)
            assert (code, result["pdus"]) == (200, {said.event_id: {}})
            stored = await alice.hs.rooms.events.get(said.event_id)
            assert stored is not None
            assert stored.soft_failed is not is_shown
