"""Other servers' users who leave, refuse invites, knock, and take their knocks back through a server in the room."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.api.room_versions import room_version
from synapse.events.event import Event
from tests.federation.people import member
from tests.federation.test_joins_by_others import VERSIONS, bring_in
from tests.support.outsider import V1, Outsider
from tests.support.postgres import PostgresServer
from tests.support.two_servers import federation

FORBIDDEN, INVALID = (403, "M_FORBIDDEN"), (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_leaving(postgres: PostgresServer, version: str) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room(room_version=version)
        for form, eve in ((V1, other.user("eve")), ("/_matrix/federation/v2", other.user("ann"))):
            await bring_in(other, room, eve)
            template = await other.template("leave", room, eve)
            assert template["room_version"] == version
            assert template["event"]["content"] == {"membership": "leave"}
            event = other.sealed(template)
            path = other.path("send_leave", event, form)
            assert await other.refused("PUT", path, {**event.raw, "signatures": {}}) == FORBIDDEN
            expected: Any = [200, {}] if form == V1 else {}
            assert await other.ask("PUT", path, event.raw) == (200, expected)
            assert await other.ask("PUT", path, event.raw) == (200, expected), "twice is no more than once"
            assert await alice.membership(room, eve) == "leave"
            assert await alice.relay_of(event.event_id) is True
            join = other.sealed({**template, "event": {**template["event"], "content": {"membership": "join"}}})
            assert await other.refused("PUT", other.path("send_leave", join), join.raw) == INVALID


@pytest_twisted.ensureDeferred
async def test_others_may_not_be_made_to_leave(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room()
        eve = other.user("eve")
        await bring_in(other, room, eve)
        template = await other.template("leave", room, eve)
        kick = other.sealed(template, state_key=alice.id)
        assert await other.refused("PUT", other.path("send_leave", kick), kick.raw) == INVALID
        forged = other.sealed(template, sender=alice.id, state_key=alice.id)
        assert await other.refused("PUT", other.path("send_leave", forged), forged.raw) == FORBIDDEN
        assert await alice.membership(room, alice.id) == "join"
        await alice.post(f"/rooms/{room}/ban", {"user_id": eve})
        event = other.sealed(template)
        assert await other.refused("PUT", other.path("send_leave", event), event.raw) == FORBIDDEN
        assert await alice.membership(room, eve) == "ban"


@pytest.mark.parametrize("version", ["7", "10", "12"])
@pytest_twisted.ensureDeferred
async def test_knocking(postgres: PostgresServer, version: str) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room(preset="private_chat", room_version=version, name="Knock knock")
        eve = other.user("eve")
        path = other.template_path("knock", room, eve, *VERSIONS, "7")
        assert await other.refused("GET", path) == FORBIDDEN, "nobody may knock"
        await alice.state(room, "m.room.join_rules", join_rule="knock")
        template = await other.template("knock", room, eve, *VERSIONS, "7")
        for changes in ({"sender": "@eve:three.test", "state_key": "@eve:three.test"}, {"state_key": alice.id}):
            wrong = other.sealed(template, **changes)
            refused = await other.refused("PUT", other.path("send_knock", wrong, V1), wrong.raw)
            assert refused == (400, "M_INVALID_PARAM")
        event = other.sealed(template)
        code, answer = await other.ask("PUT", other.path("send_knock", event, V1), event.raw)
        assert code == 200
        told = {raw["type"]: Event.from_json(raw, room_version(version)) for raw in answer["knock_room_state"]}
        assert {"m.room.create", "m.room.name", "m.room.join_rules"} <= set(told)
        assert {shown.event_id for shown in told.values()} <= await alice.state_ids(room), "whole events"
        assert await alice.membership(room, eve) == "knock"
        join = other.template_path("join", room, eve, *VERSIONS, "7")
        assert await other.refused("GET", join) == FORBIDDEN
        back = other.sealed(await other.template("leave", room, eve))
        assert (await other.ask("PUT", other.path("send_leave", back), back.raw))[0] == 200
        assert await alice.membership(room, eve) == "leave"


@pytest_twisted.ensureDeferred
async def test_rooms_that_know_no_knocking(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room(room_version="6")
        path = other.template_path("knock", room, other.user("eve"), *VERSIONS)
        assert await other.refused("GET", path) == FORBIDDEN
        assert await other.refused("GET", path.partition("?")[0] + "?ver=7") == (400, "M_INCOMPATIBLE_ROOM_VERSION")
