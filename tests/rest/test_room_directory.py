"""The room directory and aliases as the configuration has them, and as clients ask for them in every way."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.config.sections import DirectoryRule
from synapse.handlers.directory_rules import DirectoryRules, Rule
from synapse.storage.pool import PoolSettings
from tests.rest.crowd import ALICE, BOB, people

ALIAS = "v3/directory/room/%23{}:test"


def deny(**patterns: str) -> dict[str, str]:
    return {**patterns, "action": "deny"}


@pytest_twisted.ensureDeferred
async def test_rules_say_who_may_make_aliases_and_list_rooms(database_settings: PoolSettings) -> None:
    rules = {
        "alias_creation_rules": [{"user_id": "@bob:*", "alias": "#bob-*"}, deny(user_id="@bob:*")],
        "room_list_publication_rules": [{"alias": "#good*"}, deny(user_id="@bob:*")],
    }
    async with people(database_settings, "alice", "bob", **rules) as p:
        room = await p.room(BOB)
        assert await p.error("PUT", ALIAS.format("mine"), {"room_id": room}, BOB) == "403 M_FORBIDDEN"
        assert await p.ok("PUT", ALIAS.format("bob-mine"), {"room_id": room}, BOB) == {}
        wish = {"preset": "public_chat", "room_alias_name": "mine"}
        assert await p.error("POST", "v3/createRoom", wish, BOB) == "403 M_FORBIDDEN"
        assert (await p.ok("POST", "v3/createRoom", wish, ALICE))["room_id"]
        assert await p.error("POST", "v3/createRoom", {"visibility": "public"}, BOB) == "403 M_FORBIDDEN"
        listing = f"v3/directory/list/room/{room}"
        assert await p.error("PUT", listing, {"visibility": "public"}, BOB) == "403 M_FORBIDDEN"
        assert await p.ok("PUT", listing, {"visibility": "private"}, BOB) == {}
        await p.ok("POST", f"v3/rooms/{room}/join", {}, ALICE)
        await p.ok("PUT", ALIAS.format("good-one"), {"room_id": room}, ALICE)
        assert await p.ok("PUT", listing, {"visibility": "public"}, BOB) == {}
        assert await p.ok("GET", listing, None, None) == {"visibility": "public"}
        assert len((await p.ok("GET", "v3/publicRooms", None, None))["chunk"]) == 1


def rule(action: str = "allow", **patterns: str) -> Rule:
    return DirectoryRule(**patterns, action=action)  # type: ignore[arg-type]  # one of the two words


@pytest.mark.parametrize(
    ("rules", "aliases", "is_allowed"),
    [
        ([], [], True),
        ([rule("deny")], [], False),
        ([rule("deny", alias="#a*")], [], True),
        ([rule("deny", alias="#a*")], ["#b:x", "#a:x"], False),
        ([rule("allow", room_id="!r:?"), rule("deny")], [], True),
        ([rule("allow", room_id="!r"), rule("deny")], [], False),
        ([rule("deny", user_id="@u*"), rule("allow")], [], False),
        ([rule("deny", user_id="@w*"), rule("allow")], [], True),
    ],
)
def test_the_first_rule_that_matches_decides(rules: list[Rule], aliases: list[str], is_allowed: bool) -> None:
    refusal = nullcontext() if is_allowed else pytest.raises(MatrixError, match="403 M_FORBIDDEN")
    with refusal:
        DirectoryRules(publication=rules).check_publication("@u:x", "!r:x", aliases)


@pytest_twisted.ensureDeferred
async def test_the_directory_can_be_closed(database_settings: PoolSettings) -> None:
    async with people(database_settings, "alice", allow_public_rooms_without_auth=False) as p:
        await p.room(visibility="public")
        assert await p.error("GET", "v3/publicRooms", None, None) == "401 M_MISSING_TOKEN"
        assert len((await p.ok("GET", "v3/publicRooms"))["chunk"]) == 1
    async with people(database_settings, "bob", enable_room_list_search=False) as p:
        for method in ("GET", "POST"):
            answer = await p.ok(method, "v3/publicRooms", {} if method == "POST" else None, BOB)
            assert answer == {"chunk": [], "total_room_count_estimate": 0}


@pytest_twisted.ensureDeferred
async def test_rooms_are_found_by_any_letters_in_any_case(database_settings: PoolSettings) -> None:
    async with people(database_settings, "alice") as p:
        for name in ("Котики и Собаки", "STRASSE [a-z]", "back\\slash^.*", "ÄRGER"):
            await p.room(visibility="public", name=name)

        async def found(term: str) -> list[str]:
            answer = await p.ok("POST", "v3/publicRooms", {"filter": {"generic_search_term": term}})
            return sorted(room["name"] for room in answer["chunk"])

        assert await found("котики И") == ["Котики и Собаки"]
        assert await found("ärg") == ["ÄRGER"]
        assert await found("[A-Z]") == ["STRASSE [a-z]"]
        assert await found("k\\S") == await found("^.*") == ["back\\slash^.*"]
        assert await found(".") == ["back\\slash^.*"]
        assert len(await found("")) == 4


@pytest_twisted.ensureDeferred
async def test_bad_questions_about_the_directory_are_refused(database_settings: PoolSettings) -> None:
    async with people(database_settings, "alice", "bob") as p:
        bodies: tuple[Any, ...] = (
            {"limit": "5"},
            {"limit": -1},
            {"limit": 1.5},
            {"since": 5},
            {"since": "x"},
            {"filter": 5},
            {"filter": {"generic_search_term": 5}},
            {"filter": {"generic_search_term": "x" * 300}},
            {"filter": {"generic_search_term": "\0"}},
            {"filter": {"room_types": "m.space"}},
            {"filter": {"room_types": [5]}},
            {"filter": {"room_types": [None] * 101}},
            {"include_all_networks": "yes"},
            {"include_all_networks": True, "third_party_instance_id": "irc"},
        )
        for body in bodies:
            assert (await p.error("POST", "v3/publicRooms", body)).startswith("400 M_"), body
        for query in ({"limit": "x"}, {"limit": -1}, {"since": "x"}, {"server": "not a server"}, {"server": ""}):
            assert await p.error("GET", "v3/publicRooms", None, None, **query) == "400 M_INVALID_PARAM", query
        # Who has no account is told what is here, and has nobody else asked.
        assert await p.error("GET", "v3/publicRooms", None, None, server="other.example") == "401 M_MISSING_TOKEN"
        assert await p.error("POST", "v3/publicRooms", {}, None) == "401 M_MISSING_TOKEN"
        answer = await p.ok("POST", "v3/publicRooms", {"third_party_instance_id": "irc"}, server="test")
        assert answer == {"chunk": [], "total_room_count_estimate": 0}
        room = await p.room()
        for path in ("v3/directory/room/nonsense", "v3/directory/room/%23x%00y:test", "v3/directory/room/%23x"):
            for method, body in (("GET", None), ("PUT", {"room_id": room}), ("DELETE", None)):
                assert await p.error(method, path, body) == "400 M_INVALID_PARAM", (method, path)
        for body in ({}, {"room_id": 5}, {"room_id": "x"}, {"room_id": None}, []):
            assert (await p.error("PUT", ALIAS.format("x"), body)).startswith("400 M_"), body
        listing = "v3/directory/list/room/{}"
        for body in ({"visibility": "secret"}, {"visibility": 5}, {"visibility": ["public"]}, []):
            assert (await p.error("PUT", listing.format(room), body)).startswith("400 M_"), body
        for name in ("!none:test", "%00", "!x%00:test", "x" * 300):
            for method, body in (("GET", None), ("PUT", {})):
                error = await p.error(method, listing.format(name), body)
                assert error in ("404 M_NOT_FOUND", "400 M_INVALID_PARAM"), (method, name)
            assert await p.error("GET", f"v3/rooms/{name}/aliases") in ("403 M_FORBIDDEN", "400 M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_who_made_an_alias_can_remove_it_without_power_over_the_room(database_settings: PoolSettings) -> None:
    async with people(database_settings, "alice", "bob") as p:
        room = await p.room(joined=(BOB,))
        await p.ok("PUT", ALIAS.format("x"), {"room_id": room}, BOB)
        await p.set(room, "m.room.canonical_alias", {"alias": "#x:test"})
        assert await p.error("PUT", ALIAS.format("x"), {"room_id": room}) == "409 M_UNKNOWN"
        assert await p.ok("DELETE", ALIAS.format("x"), None, BOB) == {}
        assert await p.error("GET", ALIAS.format("x")) == "404 M_NOT_FOUND"
        state = f"v3/rooms/{room}/state/m.room.canonical_alias"
        assert await p.ok("GET", state) == {"alias": "#x:test"}, "whose change is for those who may"
        await p.ok("PUT", ALIAS.format("x"), {"room_id": room}, BOB)
        assert await p.ok("DELETE", ALIAS.format("x"), None, ALICE) == {}
        assert await p.ok("GET", state) == {}
