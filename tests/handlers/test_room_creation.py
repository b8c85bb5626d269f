"""Creating rooms: presets, what overrides what, versions, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.handlers.room_creation import RoomCreation
from synapse.handlers.room_plan import ENCRYPTED_PRESETS, CreateRoom, InitialState
from synapse.storage.database import Database, Transaction
from synapse.storage.invitees import InviteesStore
from tests.support.rooms import ALICE, BOB, CAROL, RoomProcess, check_invariants, start


async def create(process: RoomProcess, **wish: Any) -> str:
    return (await process.rooms.create(ALICE, msgspec.convert(wish, CreateRoom))).room_id


async def state_of(process: RoomProcess, room_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    from synapse.state.filters import ALL

    return {key: stored.event.content for key, stored in (await process.state.current(room_id, ALL)).items()}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({}, ("invite", "shared", "can_join")),
        ({"visibility": "private"}, ("invite", "shared", "can_join")),
        ({"visibility": "public"}, ("public", "shared", None)),
        ({"preset": "private_chat", "visibility": "public"}, ("invite", "shared", "can_join")),
        ({"preset": "trusted_private_chat"}, ("invite", "shared", "can_join")),
        ({"preset": "public_chat"}, ("public", "shared", None)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_presets(database: Database, wish: dict[str, Any], expected: tuple[str, ...]) -> None:
    process = (await start(database)).main
    state = await state_of(process, await create(process, **wish))
    assert (
        state["m.room.join_rules", ""]["join_rule"],
        state["m.room.history_visibility", ""]["history_visibility"],
        state.get(("m.room.guest_access", ""), {}).get("guest_access"),
    ) == expected


@pytest_twisted.ensureDeferred
async def test_events_come_in_the_order_of_the_specification(database: Database) -> None:
    cluster = await start(database)
    await create(
        cluster.main,
        room_alias_name="here",
        name="A room",
        topic="Things",
        invite=[BOB.user_id, BOB.user_id, ALICE.user_id],
        is_direct=True,
        initial_state=[
            {"type": "custom", "state_key": "k", "content": {"a": 1}},
            {"type": "m.room.name", "content": {"name": "overridden"}},
            {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
        ],
    )
    events = [planned.new.event for planned in cluster.announced]
    assert [event.key for event in events] == [
        ("m.room.create", ""),
        ("m.room.member", ALICE.user_id),
        ("m.room.power_levels", ""),
        ("m.room.canonical_alias", ""),
        ("m.room.history_visibility", ""),
        ("m.room.guest_access", ""),
        ("custom", "k"),
        ("m.room.join_rules", ""),
        ("m.room.name", ""),
        ("m.room.topic", ""),
        ("m.room.member", BOB.user_id),
    ]
    assert [event.depth for event in events] == list(range(1, 12))
    assert events[-1].content == {"membership": "invite", "is_direct": True}
    assert events[-2].content["m.topic"] == {"m.text": [{"body": "Things"}]}
    assert events[3].content == {"alias": "#here:test"}
    assert len({planned.state_group for planned in cluster.announced}) == 11
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_rooms_of_version_twelve_are_named_by_their_create_event(database: Database) -> None:
    cluster = await start(database)
    room_id = await create(
        cluster.main,
        preset="trusted_private_chat",
        invite=[BOB.user_id],
        creation_content={"additional_creators": [CAROL.user_id, BOB.user_id], "m.federate": False, "creator": "x"},
    )
    first = cluster.announced[0].new.event
    assert room_id == "!" + first.event_id[1:]
    assert "room_id" not in first.raw
    assert first.content == {
        "room_version": "12",
        "m.federate": False,
        "additional_creators": [CAROL.user_id, BOB.user_id],
    }
    for planned in cluster.announced[1:]:
        assert first.event_id not in planned.new.event.auth_event_ids
    levels = cluster.announced[2].new.event.content
    assert levels["users"] == {}
    assert levels["events"]["m.room.tombstone"] == 150
    await cluster.main.memberships.join(BOB, room_id)
    await cluster.main.set(
        BOB, room_id, "m.room.tombstone", {"body": "a creator may", "replacement_room": "!next:test"}
    )


@pytest_twisted.ensureDeferred
async def test_rooms_of_earlier_versions_give_power_to_their_creator(database: Database) -> None:
    cluster = await start(database)
    for version, creator in (("10", ALICE.user_id), ("11", None)):
        first = len(cluster.announced)
        room_id = await create(cluster.main, room_version=version, preset="trusted_private_chat", invite=[BOB.user_id])
        assert room_id.endswith(":test")
        events = [planned.new.event for planned in cluster.announced[first:]]
        assert events[0].content.get("creator") == creator
        assert events[2].content["users"] == {ALICE.user_id: 100, BOB.user_id: 100}
        assert all(events[0].event_id in event.auth_event_ids for event in events[1:])


@pytest_twisted.ensureDeferred
async def test_power_levels_may_be_overridden(database: Database) -> None:
    process = (await start(database)).main
    override = {"events_default": 7, "events": {"m.room.name": 3}, "custom": 1, "state_default": 160}
    state = await state_of(process, await create(process, power_level_content_override=override))
    levels = state["m.room.power_levels", ""]
    assert (levels["events_default"], levels["events"], levels["custom"]) == (
        7,
        {"m.room.name": 3, "m.room.tombstone": 161},  # since room version 12, upgrading takes more than other state
        1,
    )
    assert levels["ban"] == 50


@pytest.mark.parametrize(
    ("wish", "errcode"),
    [
        ({"room_version": "99"}, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"room_version": ""}, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"visibility": "secret"}, "M_INVALID_PARAM"),
        ({"preset": "nice_chat"}, "M_INVALID_PARAM"),
        ({"invite": ["bob"]}, "M_INVALID_PARAM"),
        ({"room_alias_name": "a:b"}, "M_INVALID_PARAM"),
        ({"room_alias_name": ""}, "M_INVALID_PARAM"),
        ({"room_alias_name": "x" * 300}, "M_INVALID_PARAM"),
        ({"power_level_content_override": {"users": {ALICE.user_id: 5}}}, "M_INVALID_ROOM_STATE"),
        ({"power_level_content_override": {"ban": "lots"}}, "M_BAD_JSON"),
        (
            {"room_version": "11", "power_level_content_override": {"users": {}}, "name": "no power"},
            "M_INVALID_ROOM_STATE",
        ),
        ({"initial_state": [{"type": "m.room.create", "content": {"a": "second"}}]}, "M_INVALID_ROOM_STATE"),
        ({"initial_state": [{"type": "x", "state_key": BOB.user_id, "content": {}}]}, "M_INVALID_ROOM_STATE"),
        ({"initial_state": [{"type": "x", "content": {"n": 1.5}}]}, "M_BAD_JSON"),
        ({"initial_state": [{"type": "x", "content": {}}] * 501}, "M_INVALID_PARAM"),
        (
            {"preset": "trusted_private_chat", "invite": [BOB.user_id], "creation_content": {"additional_creators": 1}},
            "M_BAD_JSON",
        ),
        ({"creation_content": {"additional_creators": ["nobody"]}}, "M_BAD_JSON"),
        ({"creation_content": {"m.federate": "no"}}, "M_BAD_JSON"),
        ({"creation_content": {"type": 5}}, "M_BAD_JSON"),
        ({"creation_content": {"predecessor": "!old:test"}}, "M_BAD_JSON"),
        ({"power_level_content_override": {"users": {"bob": 5}}}, "M_BAD_JSON"),
        ({"power_level_content_override": {"users_default": 2**53}}, "M_BAD_JSON"),
        ({"power_level_content_override": {"events": [1]}}, "M_BAD_JSON"),
        (
            {"initial_state": [{"type": "m.room.canonical_alias", "content": {"alias": "#other:test"}}]},
            "M_BAD_ALIAS",
        ),
        ({"initial_state": [{"type": "m.room.member", "state_key": BOB.user_id, "content": {}}]}, "M_BAD_JSON"),
        (
            {"initial_state": [{"type": "m.room.member", "state_key": BOB.user_id, "content": {"membership": "join"}}]},
            "M_INVALID_ROOM_STATE",
        ),
        ({"name": "x" * 66_000}, "M_TOO_LARGE"),
        ({"initial_state": [{"type": "x" * 256, "content": {}}]}, "M_TOO_LARGE"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_refused_leaves_nothing_behind(database: Database, wish: dict[str, Any], errcode: str) -> None:
    process = (await start(database)).main
    with pytest.raises(MatrixError) as caught:
        await create(process, **wish)
    assert (caught.value.errcode, caught.value.message != "") == (errcode, True)
    assert await database.read("rooms", _count) == 0


@pytest_twisted.ensureDeferred
async def test_an_alias_that_is_taken(database: Database) -> None:
    process = (await start(database)).main
    room_id = await create(process, room_alias_name="here", visibility="public")
    with pytest.raises(MatrixError) as caught:
        await create(process, room_alias_name="here")
    assert (caught.value.code, caught.value.errcode) == (400, "M_ROOM_IN_USE")
    assert await process.aliases.resolve("#here:test") == room_id
    assert await process.aliases.is_listed(room_id)


@pytest_twisted.ensureDeferred
async def test_invited_users_are_told(database: Database) -> None:
    cluster = await start(database)
    await create(cluster.main, invite=[BOB.user_id])
    push = [(action.user_id, action.notify) for planned in cluster.announced for action in planned.new.push]
    assert push == [(BOB.user_id, True)]


@pytest_twisted.ensureDeferred
async def test_invitations_of_new_rooms_count_like_others(database: Database) -> None:
    process = (await start(database)).main
    crowd = [f"@user{number}:test" for number in range(60)]
    await create(process, invite=crowd)
    with pytest.raises(MatrixError) as caught:
        await create(process, invite=crowd[:1])
    assert caught.value.errcode == "M_LIMIT_EXCEEDED"
    await create(process)


@pytest_twisted.ensureDeferred
async def test_a_room_created_by_a_worker_is_known_everywhere(database: Database) -> None:
    cluster = await start(database, workers=2)
    room_id = await cluster.workers[0].room(name="r")
    with database.counted() as counts:
        await cluster.workers[1].say(ALICE, room_id)
        await cluster.main.say(ALICE, room_id)
    assert counts.statements_read <= 2, counts.sql  # push rules, once a process
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_users_whose_servers_are_away_keep_nobody_from_the_new_room(database: Database) -> None:
    process = (await start(database)).main
    wish = CreateRoom(preset="trusted_private_chat", invite=["@bob:elsewhere.example", BOB.user_id])
    created = await process.rooms.create(ALICE, wish)
    state = await state_of(process, created.room_id)
    assert state["m.room.member", BOB.user_id]["membership"] == "invite"
    assert ("m.room.member", "@bob:elsewhere.example") not in state
    assert state["m.room.create", ""]["additional_creators"] == ["@bob:elsewhere.example", BOB.user_id]


@pytest.mark.parametrize(
    ("option", "preset", "expected"),
    [
        ("off", "private_chat", False),
        ("invite", "private_chat", True),
        ("invite", "trusted_private_chat", True),
        ("invite", "public_chat", False),
        ("all", "public_chat", True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_rooms_are_encrypted_where_the_server_is_set_up_so(
    database: Database, option: str, preset: str, expected: bool
) -> None:
    process = (await start(database)).main
    rooms = RoomCreation(
        process.new_rooms,
        InviteesStore(database),
        process.third_party,
        process.remote,
        process.limits,
        "test",
        "12",
        ENCRYPTED_PRESETS[option],
    )
    own = [InitialState("m.room.encryption", {"algorithm": "own"})]
    created = [await rooms.create(ALICE, CreateRoom(preset=preset, initial_state=state)) for state in ([], own)]
    states = [await state_of(process, room.room_id) for room in created]
    assert (("m.room.encryption", "") in states[0]) is expected
    assert states[1]["m.room.encryption", ""] == {"algorithm": "own"}


def _count(txn: Transaction) -> int:
    txn.execute(
        "SELECT (SELECT count(*) FROM rooms) + (SELECT count(*) FROM events) + (SELECT count(*) FROM room_heads)"
    )
    count: int = txn.one()[0]
    return count


@pytest_twisted.ensureDeferred
async def test_rooms_that_somebody_makes_in_the_same_millisecond_are_different(database: Database) -> None:
    """From version 12 on, a room's id is the hash of its create event."""
    process = (await start(database)).main
    ticks = iter([1_000, 1_000, 1_001, 1_001])
    process.new_rooms._now = lambda: next(ticks)
    assert len({await create(process, room_version="12") for _ in range(4)}) == 4
