"""Upgrading rooms: every step of it, between all kinds of versions, and what members take along."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from synapse.api.errors import MatrixError
from synapse.handlers.room_plan import InitialState
from synapse.handlers.room_upgrade import UpgradeRoom
from synapse.state.filters import ALL
from synapse.storage.database import Database, Transaction
from tests.support.deferreds import started
from tests.support.rooms import ALICE, BOB, CAROL, DAVE, RoomProcess, check_invariants, start

State = dict[tuple[str, str], dict[str, Any]]


async def upgrade(process: RoomProcess, room_id: str, version: str = "12", who: Any = ALICE, **more: Any) -> str:
    return await process.upgrades.upgrade(who, room_id, UpgradeRoom(new_version=version, **more))


async def state_of(process: RoomProcess, room_id: str) -> State:
    return {key: stored.shown.content for key, stored in (await process.state.current(room_id, ALL)).items()}


async def refused(doing: Any) -> str:
    with pytest.raises(MatrixError) as caught:
        await doing
    return f"{caught.value.code} {caught.value.errcode}"


IMPORTANT: dict[str, dict[str, Any]] = {
    "m.room.name": {"name": "name"},
    "m.room.topic": {"topic": "topic"},
    "m.room.avatar": {"url": "mxc://test/picture"},
    "m.room.join_rules": {"join_rule": "invite"},
    "m.room.guest_access": {"guest_access": "can_join"},
    "m.room.history_visibility": {"history_visibility": "joined"},
    "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
    "m.room.server_acl": {"allow": ["*"], "deny": ["*.evil.example"], "allow_ip_literals": False},
}


VERSIONS = [("1", "2"), ("5", "6"), ("9", "11"), ("11", "12"), ("12", "12"), ("12", "10")]


@pytest.mark.parametrize(("old_version", "new_version"), VERSIONS)
@pytest_twisted.ensureDeferred
async def test_every_step(database: Database, old_version: str, new_version: str) -> None:
    cluster = await start(database)
    process = cluster.main
    content = {"m.federate": False, "type": "custom.type", "other": 1}
    old_id = await process.room(
        room_version=old_version, joined=[BOB], creation_content=content, room_alias_name="here", visibility="public"
    )
    for event_type, wanted in IMPORTANT.items():
        await process.set(ALICE, old_id, event_type, wanted)
    await process.set(ALICE, old_id, "custom", {"left": "behind"})
    await process.memberships.ban(ALICE, old_id, {"user_id": CAROL.user_id, "reason": "spam"})
    before = await state_of(process, old_id)

    new_id = await upgrade(process, old_id, new_version)

    new, old = await state_of(process, new_id), await state_of(process, old_id)
    tombstone = (await process.state.current_ids(old_id))["m.room.tombstone", ""]
    create = new["m.room.create", ""]
    assert create.pop("creator", None) == (ALICE.user_id if int(new_version) < 11 else None)
    predecessor = {"room_id": old_id} if new_version == "12" else {"room_id": old_id, "event_id": tombstone}
    assert create == {
        "room_version": new_version,
        "m.federate": False,
        "type": "custom.type",
        "predecessor": predecessor,
    }
    assert old["m.room.tombstone", ""] == {"body": "This room has been replaced", "replacement_room": new_id}
    for event_type, wanted in IMPORTANT.items():
        assert new[event_type, ""] == wanted
    assert ("custom", "") not in new
    assert new["m.room.member", CAROL.user_id] == {"membership": "ban", "reason": "spam"}
    assert ("m.room.member", BOB.user_id) not in new
    assert new["m.room.canonical_alias", ""] == before["m.room.canonical_alias", ""] == {"alias": "#here:test"}
    assert old["m.room.canonical_alias", ""] == {}
    assert await process.aliases.resolve("#here:test") == new_id
    assert (await process.aliases.is_listed(new_id), await process.aliases.is_listed(old_id)) == (True, False)
    levels = old["m.room.power_levels", ""]
    assert (levels["events_default"], levels["invite"]) == (50, 50)
    assert await refused(process.say(BOB, old_id)) == "403 M_FORBIDDEN"
    _check_levels(before["m.room.power_levels", ""], new["m.room.power_levels", ""], old_version, new_version)
    await process.say(ALICE, new_id)
    await check_invariants(cluster, database)


def _check_levels(before: dict[str, Any], after: dict[str, Any], old_version: str, new_version: str) -> None:
    expected = {**before, "events": dict(before["events"])}
    if new_version == "12":
        expected["users"] = {}
        expected["events"]["m.room.tombstone"] = 150
    elif old_version == "12":
        expected["users"] = {ALICE.user_id: 150}  # a creator's power, as far as numbers go
    assert after == expected


@pytest_twisted.ensureDeferred
async def test_what_held_without_an_event_is_said_in_the_new_room(database: Database) -> None:
    process = (await start(database)).main
    old_id = await process.room(preset="public_chat")
    assert ("m.room.guest_access", "") not in await state_of(process, old_id)
    new = await state_of(process, await upgrade(process, old_id))
    assert new["m.room.guest_access", ""] == {"guest_access": "forbidden"}


@pytest_twisted.ensureDeferred
async def test_a_moderator_stays_one(database: Database) -> None:
    """Founding a room takes more power than the upgrader is to have in it."""
    process = (await start(database)).main
    old_id = await process.room(room_version="10", joined=[BOB, CAROL, DAVE])
    levels = dict((await state_of(process, old_id))["m.room.power_levels", ""])
    levels["users"] = {**levels["users"], BOB.user_id: 50, CAROL.user_id: 60}
    levels["events"] = {**levels["events"], "m.room.tombstone": 50}
    await process.set(ALICE, old_id, "m.room.power_levels", levels)
    await process.memberships.ban(ALICE, old_id, {"user_id": CAROL.user_id})

    new_id = await upgrade(process, old_id, "11", BOB)

    new, old = await state_of(process, new_id), await state_of(process, old_id)
    assert new["m.room.power_levels", ""] == levels
    assert old["m.room.power_levels", ""] == levels, "a moderator has no power over them"
    assert new["m.room.member", CAROL.user_id] == {"membership": "ban"}
    # And where creators' power is infinite, the upgrader is the creator.
    again = await upgrade(process, new_id, "12", BOB, additional_creators=[DAVE.user_id, BOB.user_id])
    newest = await state_of(process, again)
    assert newest["m.room.create", ""]["additional_creators"] == [DAVE.user_id]
    assert newest["m.room.power_levels", ""]["users"] == {ALICE.user_id: 100, CAROL.user_id: 60}


@pytest_twisted.ensureDeferred
async def test_who_may_not_and_what_cannot_be(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB])
    rooms = await database.read("rooms", _count)
    for doing, expected in [
        (upgrade(process, room_id, "99"), "400 M_UNSUPPORTED_ROOM_VERSION"),
        (upgrade(process, room_id, "12", BOB), "403 M_FORBIDDEN"),
        (upgrade(process, room_id, "10", BOB), "403 M_FORBIDDEN"),
        (upgrade(process, room_id, "10", CAROL), "403 M_FORBIDDEN"),
        (upgrade(process, "!fail:unknown"), "404 M_NOT_FOUND"),
        (upgrade(process, "#here:test"), "400 M_INVALID_PARAM"),
        (upgrade(process, room_id, additional_creators=["bob"]), "400 M_BAD_JSON"),
    ]:
        assert await refused(doing) == expected
    assert await database.read("rooms", _count) == rooms, "nothing is left half done"
    assert ("m.room.tombstone", "") not in await state_of(process, room_id)
    await upgrade(process, room_id, "11", additional_creators=["no user, but it means nothing here"])


@pytest_twisted.ensureDeferred
async def test_old_rooms_hold_what_new_ones_cannot(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels that are strings and floats, content with floats, join rules that a version does not have."""
    process = (await start(database)).main
    old_id = await process.room(room_version="5")
    levels = {"users": {ALICE.user_id: "100"}, "users_default": 80.5, "events": {"m.room.name": " 7 "}, "ban": 10**20}
    with monkeypatch.context() as patched:  # another server's user has set them
        patched.setattr("synapse.handlers.event_content._is_level", lambda *_: True)
        await process.set(ALICE, old_id, "m.room.power_levels", {**levels, "ban": 100})
    await process.set(ALICE, old_id, "m.room.avatar", {"url": "mxc://a/b", "ratio": 0.5})
    new_id = await upgrade(process, old_id, "10")
    new, old = await state_of(process, new_id), await state_of(process, old_id)
    assert new["m.room.power_levels", ""] == {
        "users": {ALICE.user_id: 100},
        "users_default": 80,
        "events": {"m.room.name": 7},
        "ban": 100,
    }
    assert ("m.room.avatar", "") not in new
    assert (old["m.room.power_levels", ""]["events_default"], old["m.room.power_levels", ""]["invite"]) == (81, 81)
    knock = [InitialState("m.room.join_rules", {"join_rule": "knock_restricted", "allow": []})]
    back = await upgrade(process, await process.room(room_version="10", initial_state=knock), "7")
    assert (await state_of(process, back))["m.room.join_rules", ""] == {"join_rule": "invite"}


@pytest_twisted.ensureDeferred
async def test_a_space_takes_its_children_along(database: Database) -> None:
    process = (await start(database)).main
    space = await process.room(creation_content={"type": "m.space"}, room_version="11")
    await process.set(ALICE, space, "m.space.child", {"via": ["test"], "order": "a"}, "!child:test")
    await process.set(ALICE, space, "m.space.child", {}, "!removed:test")
    new = await state_of(process, await upgrade(process, space))
    assert new["m.space.child", "!child:test"] == {"via": ["test"], "order": "a"}
    assert ("m.space.child", "!removed:test") not in new
    assert new["m.room.create", ""]["type"] == "m.space"


@pytest_twisted.ensureDeferred
async def test_aliases_of_other_rooms_are_not_claimed(database: Database) -> None:
    process = (await start(database)).main
    old_id = await process.room(room_alias_name="here")
    await process.aliases.create(ALICE, "#also:test", old_id)
    await process.set(
        ALICE, old_id, "m.room.canonical_alias", {"alias": "#here:test", "alt_aliases": ["#also:test", "#here:test"]}
    )
    await process.aliases.create(ALICE, "#hidden:test", old_id)
    await process.aliases.delete(ALICE, "#here:test")
    # The state says what it said before the alias went elsewhere.
    await process.set(ALICE, old_id, "m.room.canonical_alias", {"alt_aliases": ["#also:test"]})
    new_id = await upgrade(process, old_id)
    assert (await state_of(process, new_id))["m.room.canonical_alias", ""] == {"alt_aliases": ["#also:test"]}
    assert await process.aliases.of_room(ALICE, new_id) == ["#also:test", "#hidden:test"]


@pytest_twisted.ensureDeferred
async def test_members_take_their_settings_along(database: Database) -> None:
    process = (await start(database)).main
    old_id = await process.room(joined=[BOB, CAROL])
    data, rules = process.account_data, process.push_rules
    room_mute = {"actions": [], "conditions": [{"kind": "event_match", "key": "room_id", "pattern": old_id}]}
    for user in (ALICE.user_id, BOB.user_id, DAVE.user_id):
        await data.set_tag(user, old_id, "m.favourite", {"order": 0.5})
        await data.set(user, "", "m.direct", {CAROL.user_id: [old_id, "!other:test"], "odd": 5})
        await rules.put(user, "room", old_id, {"actions": ["notify"]}, None, None)
        await rules.put(user, "override", old_id, room_mute, None, None)
        await rules.put(user, "override", "named", room_mute, None, None)
        await rules.set_enabled(user, "room", old_id, {"enabled": False})
    new_id = await upgrade(process, old_id)
    for user in (BOB, CAROL, DAVE):
        await process.memberships.join(user, new_id)

    for user in (ALICE.user_id, BOB.user_id):
        assert await data.tags(user, new_id) == {"m.favourite": {"order": 0.5}}
        assert (await data.get(user, "", "m.direct")).decode() == (
            f'{{"{CAROL.user_id}":["{old_id}","!other:test","{new_id}"],"odd":5}}'
        )
        room_rule = await rules.get(user, "room", new_id)
        assert (room_rule["actions"], room_rule["enabled"]) == (["notify"], False)
        for name in (new_id, "named" + new_id):
            assert (await rules.get(user, "override", name))["conditions"][0]["pattern"] == new_id
    assert await data.tags(CAROL.user_id, new_id) == {}
    assert await data.tags(DAVE.user_id, new_id) == {}, "who was not in the old room has nothing to take along"
    # What has been set for the new room stays.
    await data.set_tag(BOB.user_id, new_id, "m.lowpriority", {})
    await data.delete_tag(BOB.user_id, new_id, "m.favourite")
    await process.memberships.leave(BOB, new_id)
    await process.memberships.join(BOB, new_id)
    assert await data.tags(BOB.user_id, new_id) == {"m.lowpriority": {}}


@pytest_twisted.ensureDeferred
async def test_only_a_room_that_says_so_is_succeeded(database: Database) -> None:
    process = (await start(database)).main
    old_id = await process.room(joined=[BOB])
    await process.account_data.set_tag(BOB.user_id, old_id, "m.favourite", {})
    for predecessor in ({"room_id": old_id}, {"room_id": "!unknown:test"}):
        false_heir = await process.room(CAROL, creation_content={"predecessor": predecessor})
        await process.memberships.join(BOB, false_heir)
        assert await process.account_data.tags(BOB.user_id, false_heir) == {}


@pytest_twisted.ensureDeferred
async def test_asking_twice_makes_one_room(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    first, second = await gatherResults([started(upgrade(process, room_id)) for _ in range(2)])
    assert first == second == await upgrade(process, room_id)
    assert await upgrade(process, room_id, "11") != first
    assert len(await process.memberships.joined_rooms(ALICE.user_id)) == 3


@pytest_twisted.ensureDeferred
async def test_a_tombstone_cannot_lead_to_its_own_room(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    tombstone = {"body": "gone", "replacement_room": room_id}
    for state_key in ("", None):
        doing = process.creation.create(ALICE, room_id, "m.room.tombstone", tombstone, state_key=state_key)
        assert await refused(doing) == "400 M_BAD_JSON"


def _count(txn: Transaction) -> int:
    txn.execute("SELECT count(*) FROM rooms")
    count: int = txn.one()[0]
    return count
