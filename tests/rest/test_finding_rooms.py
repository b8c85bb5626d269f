"""Spaces, summaries of single rooms, rooms that users share: who is told of which room, in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.handlers import mutual_rooms, spaces
from synapse.storage.pool import PoolSettings
from tests.rest.crowd import ALICE, BOB, CAROL, People, people

SPACE = {"type": "m.space"}


@pytest_twisted.async_yield_fixture
async def p(database_settings: PoolSettings) -> AsyncIterator[People]:
    async with people(database_settings) as made:
        yield made


async def space(p: People, **wish: Any) -> str:
    return await p.room(creation_content=SPACE, **wish)


async def child(p: People, parent: str, room: str, **content: Any) -> str:
    return await p.set(parent, "m.space.child", {"via": ["test"], **content}, room)


async def hierarchy(p: People, room: str, user: str = ALICE, **query: Any) -> Any:
    return await p.ok("GET", f"v1/rooms/{room}/hierarchy", None, user, **query)


async def rooms_of(p: People, room: str, user: str = ALICE, **query: Any) -> list[str]:
    answer = await hierarchy(p, room, user, **query)
    assert "next_batch" not in answer
    return [room["room_id"] for room in answer["rooms"]]


# -- spaces ------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_tree_is_walked_depth_first_in_the_order_of_its_children(p: People) -> None:
    root, inner = await space(p, name="Root"), await space(p, name="Inner")
    rooms = [await p.room(name=str(number)) for number in range(5)]
    await child(p, root, rooms[0])
    await child(p, root, rooms[1], order="b")
    await child(p, root, inner, order="a", suggested=True)
    await child(p, inner, rooms[2], suggested=True)
    await child(p, inner, rooms[3], order="not\x7fvalid")
    await child(p, inner, root, order=" ")  # a loop
    await child(p, rooms[4], rooms[0])  # not a space
    await child(p, inner, rooms[4], order="~")
    assert await rooms_of(p, root) == [root, inner, rooms[4], rooms[2], rooms[3], rooms[1], rooms[0]]
    assert await rooms_of(p, root, max_depth=0) == [root]
    assert await rooms_of(p, root, max_depth=1) == [root, inner, rooms[1], rooms[0]]
    assert await rooms_of(p, root, suggested_only="true") == [root, inner, rooms[2]]
    assert await rooms_of(p, rooms[4]) == [rooms[4]]
    answer = (await hierarchy(p, root, max_depth=0))["rooms"][0]
    assert answer["name"] == "Root"
    assert answer["room_type"] == "m.space"
    assert answer["room_version"] == "12"
    states = [event["state_key"] for event in answer["children_state"]]
    assert states == [inner, rooms[1], rooms[0]]
    first = answer["children_state"][0]
    assert isinstance(first.pop("origin_server_ts"), int)
    assert first == {
        "type": "m.space.child",
        "sender": ALICE,
        "state_key": inner,
        "content": {"via": ["test"], "order": "a", "suggested": True},
    }


@pytest_twisted.ensureDeferred
async def test_children_that_are_removed_or_unknown_are_left_out(p: People) -> None:
    root = await space(p)
    kept, emptied, redacted = [await p.room() for _ in range(3)]
    await child(p, root, kept)
    await child(p, root, emptied)
    await child(p, root, "!elsewhere:example.org")
    await child(p, root, "no room id")
    await p.redact(root, await child(p, root, redacted))
    await p.set(root, "m.space.child", {}, emptied)
    assert await rooms_of(p, root) == [root, kept]
    states = (await hierarchy(p, root))["rooms"][0]["children_state"]
    assert {event["state_key"] for event in states} == {kept, "!elsewhere:example.org"}


@pytest_twisted.ensureDeferred
async def test_only_rooms_that_are_open_to_the_user_are_told(p: People) -> None:
    root = await space(p)
    private = {"preset": "private_chat"}
    closed, shared, invited = [await p.room(**private) for _ in range(3)]
    knockable, readable, restricted = [await p.room(**private) for _ in range(3)]
    banned = await p.room()
    for number, room in enumerate([closed, shared, invited, knockable, readable, restricted, banned]):
        await child(p, root, room, order=str(number))
    await p.ok("POST", f"v3/rooms/{shared}/invite", {"user_id": BOB})
    await p.ok("POST", f"v3/rooms/{shared}/join", {}, BOB)
    await p.ok("POST", f"v3/rooms/{invited}/invite", {"user_id": BOB})
    await p.set(knockable, "m.room.join_rules", {"join_rule": "knock"})
    await p.set(readable, "m.room.history_visibility", {"history_visibility": "world_readable"})
    allow = [{"type": "m.room_membership", "room_id": shared}]
    await p.set(restricted, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    await p.ok("POST", f"v3/rooms/{banned}/ban", {"user_id": BOB})
    assert await rooms_of(p, root, BOB) == [root, shared, invited, knockable, readable, restricted]
    assert await rooms_of(p, root, CAROL) == [root, knockable, readable, banned]
    told = {room["room_id"]: room for room in (await hierarchy(p, root, BOB))["rooms"]}
    assert told[restricted]["allowed_room_ids"] == [shared]
    assert told[restricted]["join_rule"] == "restricted"
    assert told[readable]["world_readable"] is True
    for room in (closed, "!nowhere:test"):
        assert await p.error("GET", f"v1/rooms/{room}/hierarchy", None, BOB) == "403 M_FORBIDDEN"
    assert await p.error("GET", f"v1/rooms/{banned}/hierarchy", None, BOB) == "403 M_FORBIDDEN"


@pytest_twisted.ensureDeferred
async def test_what_is_read_of_a_space_is_bounded(p: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "MAX_CHILDREN", 2)
    monkeypatch.setattr(spaces, "MAX_ROOMS", 4)
    root, inner = await space(p), await space(p)
    rooms = [await p.room() for _ in range(4)]
    for parent, room in ((root, inner), (root, rooms[0]), (root, rooms[1]), (inner, rooms[2]), (inner, rooms[3])):
        await child(p, parent, room)
    assert set(await rooms_of(p, root)) == {root, inner, rooms[0], rooms[2]}


@pytest_twisted.ensureDeferred
async def test_pages_go_on_where_they_ended_also_when_the_tree_changes(p: People) -> None:
    root = await space(p)
    rooms = [await p.room() for _ in range(5)]
    for number, room in enumerate(rooms):
        await child(p, root, room, order=str(number))
    everything = await rooms_of(p, root)
    first = await hierarchy(p, root, limit=3)
    assert [room["room_id"] for room in first["rooms"]] == everything[:3]
    assert await rooms_of(p, root, **{"from": first["next_batch"]}) == everything[3:]
    await p.set(root, "m.space.child", {}, rooms[0])
    assert await rooms_of(p, root, **{"from": first["next_batch"]}) == everything[3:]
    await p.set(root, "m.space.child", {}, rooms[1])  # with which the page ended
    assert await rooms_of(p, root, **{"from": first["next_batch"]}) == everything[5:]


@pytest_twisted.ensureDeferred
async def test_bad_questions_about_spaces_are_refused(p: People) -> None:
    root, room = await space(p), await p.room()
    await child(p, root, room)
    token = (await hierarchy(p, root, limit=1, max_depth=3))["next_batch"]
    path = f"v1/rooms/{root}/hierarchy"
    assert len((await hierarchy(p, root, max_depth=3, **{"from": token}))["rooms"]) == 1
    for query in (
        {"from": token},
        {"from": token, "max_depth": 2},
        {"from": token, "max_depth": 3, "suggested_only": "true"},
        {"from": "nonsense"},
        {"limit": 0},
        {"limit": -1},
        {"limit": "x"},
        {"max_depth": -1},
        {"max_depth": 1.5},
        {"suggested_only": "maybe"},
    ):
        assert await p.error("GET", path, **query) == "400 M_INVALID_PARAM", query
    other = f"v1/rooms/{room}/hierarchy"
    assert await p.error("GET", other, max_depth=3, **{"from": token}) == "400 M_INVALID_PARAM"
    assert await p.error("GET", "v1/rooms/nonsense/hierarchy") == "400 M_INVALID_PARAM"
    assert await p.error("GET", path, None, None) == "401 M_MISSING_TOKEN"


@pytest_twisted.ensureDeferred
async def test_a_wide_space_costs_no_more_statements_than_a_small_one(p: People) -> None:
    root = await space(p)
    costs = []
    for _ in range(2):
        for _ in range(4):
            await child(p, root, await p.room())
        await hierarchy(p, root)
        with p.hs.database.counted() as counts:
            await hierarchy(p, root)
        costs.append(counts.statements_read)
    assert costs[0] == costs[1] <= 4


# -- summaries ---------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_summary_tells_of_a_room_by_id_and_alias(p: People) -> None:
    room = await p.room(name="N", topic="T", room_alias_name="here", joined=(BOB,))
    await p.set(room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    expected = {
        "room_id": room,
        "name": "N",
        "topic": "T",
        "canonical_alias": "#here:test",
        "num_joined_members": 2,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        "encryption": "m.megolm.v1.aes-sha2",
        "room_version": "12",
    }
    for name in (room, "#here:test"):
        assert await p.ok("GET", f"v1/room_summary/{quote(name)}", None, None) == expected
        assert await p.ok("GET", f"v1/room_summary/{quote(name)}", None, BOB) == {**expected, "membership": "join"}
    for path in (f"summary/{room}", f"rooms/{room}/summary"):
        told = await p.ok("GET", f"unstable/im.nheko.summary/{path}", None, CAROL)
        assert told == {**expected, "membership": "leave"}


@pytest_twisted.ensureDeferred
async def test_a_summary_is_for_those_to_whom_the_room_is_open(p: People) -> None:
    room = await p.room(preset="private_chat", room_alias_name="private")
    path = f"v1/room_summary/{room}"
    for user in (BOB, None):
        assert await p.error("GET", path, None, user) == "404 M_NOT_FOUND"
    assert (await p.ok("GET", path))["membership"] == "join"
    await p.ok("POST", f"v3/rooms/{room}/invite", {"user_id": BOB})
    assert (await p.ok("GET", path, None, BOB))["membership"] == "invite"
    await p.set(room, "m.room.join_rules", {"join_rule": "knock"})
    for user in (CAROL, None):
        assert (await p.ok("GET", path, None, user))["join_rule"] == "knock"
    allow = [{"type": "m.room_membership", "room_id": room}, {"type": "m.room_membership", "room_id": 5}, 7]
    await p.set(room, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    assert await p.error("GET", path, None, None) == "404 M_NOT_FOUND"
    await p.set(room, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert (await p.ok("GET", path, None, None))["allowed_room_ids"] == [room]
    for name, error in (
        ("nonsense", "400 M_INVALID_PARAM"),
        ("#nonsense", "400 M_INVALID_PARAM"),
        ("#none:test", "404 M_NOT_FOUND"),
        ("#none:elsewhere.example", "404 M_NOT_FOUND"),
        ("!none:elsewhere.example", "404 M_NOT_FOUND"),
    ):
        assert await p.error("GET", f"v1/room_summary/{quote(name)}", via="elsewhere.example") == error
    assert await p.error("GET", "v1/room_summary/!x%00:test") == "400 M_INVALID_PARAM"


# -- mutual rooms ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_rooms_in_common_are_told_in_pages(p: People, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = sorted([await p.room(joined=(BOB,)) for _ in range(5)])
    left = await p.room(joined=(BOB,))
    await p.ok("POST", f"v3/rooms/{left}/leave", {}, BOB)
    await p.room(joined=(CAROL,))
    assert await p.ok("GET", "v1/mutual_rooms", user_id=BOB) == {"joined": rooms, "count": 5}
    assert await p.ok("GET", "v1/mutual_rooms", None, BOB, user_id=ALICE) == {"joined": rooms, "count": 5}
    for stranger in ("@nobody:test", "@bob:elsewhere.example"):
        assert await p.ok("GET", "v1/mutual_rooms", user_id=stranger) == {"joined": [], "count": 0}
    monkeypatch.setattr(mutual_rooms, "PAGE", 2)
    seen: list[str] = []
    query: dict[str, Any] = {"user_id": BOB}
    for size in (2, 2, 1):
        page = await p.ok("GET", "v1/mutual_rooms", **query)
        assert (len(page["joined"]), page["count"]) == (size, 5)
        seen += page["joined"]
        query["from"] = page.get("next_batch")
    assert query["from"] is None
    assert seen == rooms
    token = (await p.ok("GET", "v1/mutual_rooms", user_id=BOB))["next_batch"]
    for bad in ({"user_id": CAROL, "from": token}, {"user_id": BOB, "from": "x"}, {"user_id": ALICE}):
        assert await p.error("GET", "v1/mutual_rooms", **bad) == "400 M_INVALID_PARAM", bad
    for name in ("bob", "@:test", "@bob", "@b\u00f6b:test", ""):
        assert await p.error("GET", "v1/mutual_rooms", user_id=name) == "400 M_INVALID_PARAM", name
    assert await p.error("GET", "v1/mutual_rooms") == "400 M_MISSING_PARAM"


@pytest_twisted.ensureDeferred
async def test_rooms_in_common_are_told_by_the_first_name_of_the_endpoint(
    p: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "unstable/uk.half-shot.msc2666/user/mutual_rooms"
    rooms = sorted([await p.room(joined=(BOB,)) for _ in range(3)])
    monkeypatch.setattr(mutual_rooms, "PAGE", 2)
    first = await p.ok("GET", path, user_id=BOB)
    rest = await p.ok("GET", path, user_id=BOB, batch_token=first["next_batch_token"])
    assert (first["joined"], rest) == (rooms[:2], {"joined": rooms[2:], "count": 3})
    assert "next_batch" not in first
