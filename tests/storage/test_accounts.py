"""The stores of accounts, sessions, devices and profiles."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.api.standing import Standing
from synapse.storage.access_tokens import AccessTokenStore, NewSession, TokenOwner, hashes_of
from synapse.storage.database import Database
from synapse.storage.device_keys import DeviceKeyStore
from synapse.storage.devices import Deleted, DeviceStore
from synapse.storage.one_time_keys import Key, KeysLeft, OneTimeKeyStore
from synapse.storage.profiles import Profile, ProfileStore
from synapse.storage.users import NewUser, User, UserStore

ALICE = "@alice:test"
SESSION = NewSession(ALICE, b"\x01" * 32, "PHONE", "my phone", 5)
NEW_ALICE = NewUser(ALICE, "hash", 5, "Alice", session=SESSION)


@pytest_twisted.ensureDeferred
async def test_an_account_comes_with_profile_device_and_token(database: Database) -> None:
    with database.counted() as counts:
        assert await UserStore(database).create(NEW_ALICE)
    assert counts.statements_written <= 4

    user = await UserStore(database).get(ALICE)
    assert user == User(ALICE, "hash", 5, False, False, None, None, False, False, False)
    assert await ProfileStore(database).get(ALICE) == Profile("Alice")
    assert [device.display_name for device in await DeviceStore(database).of_user(ALICE)] == ["my phone"]
    owner = await AccessTokenStore(database).lookup(SESSION.token_hash)
    assert owner is not None
    standing = Standing(created_ts=5)
    assert owner == TokenOwner(owner.token_id, ALICE, "PHONE", None, None, None, False, False, False, standing)


@pytest_twisted.ensureDeferred
async def test_a_name_is_given_once_but_a_lost_answer_may_be_asked_for_again(database: Database) -> None:
    users = UserStore(database)
    assert await users.create(NEW_ALICE)
    assert await users.create(NEW_ALICE)
    other = NEW_ALICE._replace(session=SESSION._replace(token_hash=b"\x02" * 32))
    assert not await users.create(other)
    assert not await users.create(NEW_ALICE._replace(session=None))
    assert await AccessTokenStore(database).lookup(b"\x02" * 32) is None
    assert await users.exist([ALICE, "@bob:test"]) == {ALICE}


@pytest_twisted.ensureDeferred
async def test_a_login_replaces_the_tokens_of_its_device_only(database: Database) -> None:
    tokens = AccessTokenStore(database)
    await UserStore(database).create(NEW_ALICE)
    laptop = await tokens.login(NewSession(ALICE, b"L" * 32, "LAPTOP", "laptop", 6))
    assert laptop == (True, [])
    again = await tokens.login(NewSession(ALICE, b"P" * 32, "PHONE", "another name", 7))
    assert again == (False, [SESSION.token_hash])
    assert sorted(await database.read("test", hashes_of, ALICE)) == [b"L" * 32, b"P" * 32]
    assert await tokens.lookup(SESSION.token_hash) is None
    phone = await DeviceStore(database).get(ALICE, "PHONE")
    assert phone is not None
    assert phone.display_name == "my phone"


@pytest_twisted.ensureDeferred
async def test_a_deleted_device_takes_all_that_hangs_on_it(database: Database) -> None:
    devices, keys = DeviceStore(database), OneTimeKeyStore(database)
    await UserStore(database).create(NEW_ALICE)
    await AccessTokenStore(database).login(NewSession(ALICE, b"L" * 32, "LAPTOP", "laptop", 6))
    await DeviceKeyStore(database).put(ALICE, "PHONE", "{}", 5, 1)
    await keys.add(ALICE, "PHONE", [Key("a", "1", '"x"')], [Key("a", "f", '"y"')], 5)

    assert await devices.delete(ALICE, ["PHONE", "GONE"], 2) == Deleted(["PHONE"], [SESSION.token_hash])
    assert await devices.delete(ALICE, ["PHONE"], 3) == Deleted([], [])
    assert await keys.left(ALICE, "PHONE") == KeysLeft({}, [], None)
    assert [device.device_id for device in await devices.of_user(ALICE)] == ["LAPTOP"]


@pytest_twisted.ensureDeferred
async def test_all_devices_take_the_deviceless_tokens_along(database: Database) -> None:
    await UserStore(database).create(NEW_ALICE)
    await AccessTokenStore(database).login(NewSession(ALICE, b"A" * 32, None, None, 6))
    gone = await DeviceStore(database).delete(ALICE, None, 1)
    assert gone.device_ids == ["PHONE"]
    assert sorted(gone.tokens) == [b"\x01" * 32, b"A" * 32]
    assert await database.read("test", hashes_of, ALICE) == []


@pytest_twisted.ensureDeferred
async def test_only_tokens_without_device_are_revoked_alone(database: Database) -> None:
    tokens = AccessTokenStore(database)
    await UserStore(database).create(NEW_ALICE)
    await tokens.login(NewSession(ALICE, b"A" * 32, None, None, 6))
    for token_hash, revoked in ((b"A" * 32, [b"A" * 32]), (SESSION.token_hash, [])):
        owner = await tokens.lookup(token_hash)
        assert owner is not None
        assert await tokens.revoke_deviceless(owner.token_id) == revoked


@pytest_twisted.ensureDeferred
async def test_devices_are_renamed(database: Database) -> None:
    await UserStore(database).create(NEW_ALICE)
    devices = DeviceStore(database)
    assert await devices.rename(ALICE, "PHONE", "new", 1)
    assert not await devices.rename(ALICE, "NONE", "new", 2)
    phone = await devices.get(ALICE, "PHONE")
    assert phone is not None
    assert phone.display_name == "new"
    assert await devices.get(ALICE, "NONE") is None


@pytest_twisted.ensureDeferred
async def test_profile_fields_are_set_compared_and_deleted(database: Database) -> None:
    profiles = ProfileStore(database)
    await UserStore(database).create(NEW_ALICE)
    assert await profiles.set_field(ALICE, "displayname", "Älice", 65_536)
    assert not await profiles.set_field(ALICE, "displayname", "Älice", 65_536)
    assert await profiles.set_field(ALICE, "org.example.x", {"a": [1, None]}, 65_536)
    assert not await profiles.set_field(ALICE, "org.example.x", {"a": [1, None]}, 65_536)
    assert await profiles.set_field(ALICE, "m.tz", None, 65_536)
    assert await profiles.get(ALICE) == Profile("Älice", None, {"org.example.x": {"a": [1, None]}, "m.tz": None})
    assert await profiles.delete_field(ALICE, "org.example.x")
    assert not await profiles.delete_field(ALICE, "org.example.x")
    assert await profiles.delete_field(ALICE, "displayname")
    assert not await profiles.set_field("@nobody:test", "displayname", "x", 65_536)
    profile = await profiles.get(ALICE)
    assert profile is not None
    assert profile.as_json() == {"m.tz": None}
    assert await profiles.get_many([ALICE, "@nobody:test"]) == {ALICE: profile}


@pytest_twisted.ensureDeferred
async def test_of_logins_at_once_on_one_device_one_session_is_left(database: Database) -> None:
    tokens = AccessTokenStore(database)
    assert await UserStore(database).create(NEW_ALICE)
    for round_ in range(5):
        await DeviceStore(database).create(ALICE, f"DEVICE{round_}", None, 5, round_ + 1)
        hashes = [bytes([100 + round_, number]) * 16 for number in range(8)]
        logins = [
            Deferred.fromCoroutine(tokens.login(NewSession(ALICE, token_hash, f"DEVICE{round_}", None, 6)))
            for token_hash in hashes
        ]
        revoked = {token_hash for login in await gatherResults(logins) for token_hash in login.tokens}
        left = set(hashes).intersection(await database.read("test", hashes_of, ALICE))
        assert len(left) == 1
        assert set(hashes) - revoked == left


@pytest_twisted.ensureDeferred
async def test_a_service_that_acts_as_a_device_which_goes_away_leaves_nothing(database: Database) -> None:
    tokens, devices = AccessTokenStore(database), DeviceStore(database)
    assert await UserStore(database).create(NEW_ALICE)
    for number in range(20):
        await devices.create(ALICE, "BRIDGE", None, 1, 2 * number + 1)
        asserted = Deferred.fromCoroutine(tokens.assert_identity(b"%32d" % number, ALICE, "BRIDGE", "irc", 1))
        deleted = Deferred.fromCoroutine(devices.delete(ALICE, ["BRIDGE"], 2 * number + 2))
        await gatherResults([asserted, deleted])
        assert await tokens.lookup(b"%32d" % number) is None
