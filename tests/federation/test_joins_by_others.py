"""Servers that are let into a room, by version and by join rule; and everything for which they are not."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted

from synapse.api.room_versions import room_version
from synapse.events.event import Event
from synapse.events.signing import signatures_by
from synapse.federation.serving import long_answers
from synapse.http.answers import FileAnswer
from tests.federation.people import member
from tests.support.outsider import V1, Outsider
from tests.support.postgres import PostgresServer
from tests.support.two_servers import federation

VERSIONS = ["1", "3", "6", "8", "10", "11", "12"]


async def bring_in(other: Outsider, room: str, user: str, query: str = "") -> tuple[Event, dict[str, Any]]:
    """A join from template to answer."""
    template = await other.template("join", room, user, *VERSIONS)
    event = other.sealed(template)
    code, answer = await other.ask("PUT", other.path("send_join", event) + query, event.raw)
    assert code == 200, answer
    return event, answer


def ids(events: list[dict[str, Any]], version: str) -> set[str]:
    return {Event.from_json(raw, room_version(version)).event_id for raw in events}


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_joining(postgres: PostgresServer, version: str) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room(room_version=version, name="A room")
        eve = other.user("eve")
        template = await other.template("join", room, eve, *VERSIONS)
        assert template["room_version"] == version
        proposed = template["event"]
        assert (proposed["sender"], proposed["state_key"], proposed["content"]) == (eve, eve, {"membership": "join"})
        assert not {"hashes", "signatures", "event_id"} & set(proposed)
        before = await alice.state_ids(room)
        event, answer = await bring_in(other, room, eve)
        assert ids(answer["state"], version) == before, "the state before the join"
        cited = set(event.auth_event_ids)
        assert cited <= ids(answer["auth_chain"], version) <= before
        assert answer["origin"] == other.of
        assert answer["members_omitted"] is False
        assert Event.from_json(answer["event"], room_version(version)).event_id == event.event_id
        assert signatures_by(answer["event"], other.of), "the resident server adds its signature"
        assert await alice.membership(room, eve) == "join"
        stored = await net["one"].hs.rooms.events.get(event.event_id)
        assert stored is not None
        assert await alice.relay_of(event.event_id) is True
        code, again = await other.ask("PUT", other.path("send_join", event), event.raw)
        assert (code, again["state"]) == (200, answer["state"]), "the same event is answered as before"
        code, wrapped = await other.ask("PUT", other.path("send_join", event, V1), event.raw)
        assert (code, wrapped[0], wrapped[1]["state"]) == (200, 200, answer["state"])


@pytest_twisted.ensureDeferred
async def test_members_may_be_omitted(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        bob = await member(net["one"], "bob")
        for name, expected in (({"name": "A room"}, set()), ({}, {alice.id, bob.id})):
            room = await alice.room(**name)
            await bob.join(room)
            eve = other.user("eve")
            event, answer = await bring_in(other, room, eve, "?omit_members=true")
            assert answer["members_omitted"] is True
            assert answer["servers_in_room"] == [other.of]
            members = {raw["state_key"] for raw in answer["state"] if raw["type"] == "m.room.member"}
            assert members == expected, "heroes where the room has no name"
            state, chain = ids(answer["state"], "12"), ids(answer["auth_chain"], "12")
            assert not state & chain
            assert set(event.auth_event_ids) <= state | chain


@pytest_twisted.ensureDeferred
async def test_versions_that_the_other_server_lacks(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room(room_version="10")
        for versions in ((), ("1", "9", "new")):
            path = other.template_path("join", room, other.user("eve"), *versions)
            code, answer = await other.ask("GET", path)
            assert (code, answer["errcode"], answer["room_version"]) == (400, "M_INCOMPATIBLE_ROOM_VERSION", "10")
        assert await other.refused("GET", other.template_path("knock", room, other.user("eve"))) == (
            400,
            "M_MISSING_PARAM",
        )


@pytest_twisted.ensureDeferred
async def test_who_may_not_ask(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room()
        eve = other.user("eve")

        async def refused(membership: str, room: str, user: str) -> tuple[int, str]:
            return await other.refused("GET", other.template_path(membership, room, user, *VERSIONS))

        for membership in ("join", "leave", "knock"):
            assert await refused(membership, room, alice.id) == (403, "M_FORBIDDEN"), "another server's user"
            assert await refused(membership, room, "eve") == (400, "M_INVALID_PARAM")
            assert await refused(membership, "room", eve) == (400, "M_INVALID_PARAM")
            assert await refused(membership, "!none:nowhere", eve) == (404, "M_NOT_FOUND")
            assert await refused(membership, "!\0:nowhere", eve) == (400, "M_INVALID_PARAM")
        assert await refused("leave", room, eve) == (403, "M_FORBIDDEN"), "who is not in the room"
        assert await refused("knock", room, eve) == (403, "M_FORBIDDEN"), "a room that is open"
        private = await alice.room(preset="private_chat")
        assert await refused("join", private, eve) == (403, "M_FORBIDDEN")
        local = await alice.room(creation_content={"m.federate": False})
        assert await refused("join", local, eve) == (403, "M_FORBIDDEN")
        await alice.post(f"/rooms/{room}/ban", {"user_id": eve})
        assert await refused("join", room, eve) == (403, "M_FORBIDDEN")
        await alice.state(room, "m.room.server_acl", allow=["*"], deny=["two.test"])
        for membership in ("join", "leave", "knock"):
            assert await refused(membership, room, other.user("ann")) == (403, "M_FORBIDDEN")
        empty = await alice.room()
        await alice.post(f"/rooms/{empty}/leave")
        assert await refused("join", empty, eve) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_events_that_are_not_the_template_s(postgres: PostgresServer, version: str) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room(room_version=version)
        eve = other.user("eve")
        template = await other.template("join", room, eve, *VERSIONS)
        good = other.sealed(template)
        path = other.path("send_join", good)

        async def refused(event: Event) -> tuple[int, str]:
            return await other.refused("PUT", other.path("send_join", event), event.raw)

        forbidden, invalid = (403, "M_FORBIDDEN"), (400, "M_INVALID_PARAM")
        assert await refused(other.sealed(template, sender=alice.id, state_key=alice.id)) == forbidden
        assert await refused(other.sealed(template, sender=alice.id)) == invalid
        assert await refused(other.sealed(template, type="m.room.topic")) == invalid
        assert await refused(other.sealed(template, content={"membership": "leave"})) == invalid
        assert await refused(other.sealed(template, prev_events=[])) == invalid
        elsewhere = await alice.room(room_version=version)
        misplaced = path.replace(quote(room, safe=""), quote(elsewhere, safe=""))
        assert await other.refused("PUT", misplaced, good.raw) == invalid
        assert await other.refused("PUT", path[:-1], good.raw) == invalid, "another event's id"
        assert await other.refused("PUT", path, {**good.raw, "depth": good.depth + 1}) in (invalid, forbidden)
        assert await other.refused("PUT", path, {**good.raw, "signatures": {}}) == forbidden
        wrong = {other.name: {"ed25519:two": "a" * 86}}
        assert await other.refused("PUT", path, {**good.raw, "signatures": wrong}) == forbidden
        assert await other.refused("PUT", path, {**good.raw, "depth": "deep"}) == (400, "M_BAD_JSON")
        for bare in ({}, template["event"], {**template["event"], "signatures": wrong}):
            assert await other.refused("PUT", path, bare) == forbidden
        unknown = ["$unknown:two.test", {}] if version == "1" else "$" + "u" * 43
        assert await refused(other.sealed(template, prev_events=[unknown])) == invalid, "nothing is fetched for it"
        assert await alice.membership(room, eve) is None
        await alice.post(f"/rooms/{room}/ban", {"user_id": eve})
        assert await other.refused("PUT", path, good.raw) == forbidden
        assert await alice.membership(room, eve) == "ban"


@pytest_twisted.ensureDeferred
async def test_rooms_for_members_of_others(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        eve = other.user("eve")
        club, secret = await alice.room(), await alice.room(preset="private_chat")
        unknown = "!" + "u" * 43

        async def restricted(*room_ids: str) -> str:
            room = await alice.room(room_version="10")
            allow = [{"type": "m.room_membership", "room_id": room_id} for room_id in room_ids]
            await alice.state(room, "m.room.join_rules", join_rule="restricted", allow=allow)
            return room

        async def refused(room: str) -> tuple[int, str]:
            return await other.refused("GET", other.template_path("join", room, eve, *VERSIONS))

        room = await restricted(club)
        assert await refused(room) == (403, "M_FORBIDDEN"), "who is not in it yet"
        assert await refused(await restricted(unknown)) == (400, "M_UNABLE_TO_AUTHORISE_JOIN")
        assert await refused(await restricted(secret, unknown)) == (403, "M_FORBIDDEN")
        await bring_in(other, club, eve)
        event, answer = await bring_in(other, room, eve)
        assert event.content["join_authorised_via_users_server"] == alice.id
        assert signatures_by(answer["event"], other.of), "we stand by it"
        assert await alice.membership(room, eve) == "join"

        barred = await restricted(club)
        await alice.state(barred, "m.room.power_levels", invite=100, users={alice.id: 50})
        assert await refused(barred) == (400, "M_UNABLE_TO_GRANT_JOIN")

        late = await restricted(club)
        template = await other.template("join", late, eve, *VERSIONS)
        await alice.post(f"/rooms/{club}/kick", {"user_id": eve})
        event = other.sealed(template)
        path = other.path("send_join", event)
        assert await other.refused("PUT", path, event.raw) == (403, "M_FORBIDDEN"), "the condition holds no more"


@pytest_twisted.ensureDeferred
async def test_large_rooms_are_answered_piece_by_piece(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room = await alice.room(name="A room")
        topic = await alice.state(room, "m.room.topic", topic="not for everybody")
        await alice.put(f"/rooms/{room}/redact/{quote(topic)}/1", {})
        event, answer = await bring_in(other, room, other.user("eve"))
        join = await alice.hs.rooms.events.get(event.event_id)
        assert join is not None
        told = next(raw for raw in answer["state"] if raw["type"] == "m.room.topic")
        assert told["content"] == {}, "what was redacted comes redacted"
        answers = alice.hs.doors.join_answers
        plain = {}
        for wrapped in (False, True):
            plain[wrapped] = orjson.loads((await answers.of(join, omit_members=False, wrapped=wrapped)).body)
        monkeypatch.setattr(long_answers, "PIECE", 2)
        monkeypatch.setattr(long_answers, "IN_MEMORY", 3)
        for wrapped in (False, True):
            large = await answers.of(join, omit_members=False, wrapped=wrapped)
            assert isinstance(large, FileAnswer)
            with large.file as file:
                read = orjson.loads(file.read(large.length))
            found, expected = (read[1], plain[True][1]) if wrapped else (read, plain[False])
            for name in ("state", "auth_chain"):
                assert ids(found.pop(name), "12") == ids(expected.pop(name), "12")
            assert found == expected
