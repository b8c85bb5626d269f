"""The stores of account data, filters, interactive authentication, sightings, to-device messages and media."""

from __future__ import annotations

import pytest_twisted

from synapse.storage.access_tokens import AccessTokenStore, NewSession
from synapse.storage.account_data import AccountDataStore, AccountDatum
from synapse.storage.database import Database
from synapse.storage.filters import FilterStore
from synapse.storage.media import MediaStore, Thumbnail, Upload
from synapse.storage.to_device import Message, ToDeviceStore, Txn
from synapse.storage.ui_auth import MAX_SESSIONS, UiAuthSession, UiAuthStore
from synapse.storage.user_ips import Seen, UserIpStore
from synapse.storage.users import NewUser, UserStore

ALICE = "@alice:test"


@pytest_twisted.ensureDeferred
async def test_account_data_is_found_by_type_and_by_position(database: Database) -> None:
    store = AccountDataStore(database)
    await store.put(ALICE, AccountDatum("", "m.direct", "{}"), 1)
    await store.put(ALICE, AccountDatum("!r", "m.tag", '{"tags":{}}'), 2)
    await store.put(ALICE, AccountDatum("", "m.direct", '{"a":"\\u0000"}'), 3)
    assert await store.get(ALICE, "", "m.direct") == '{"a":"\\u0000"}'
    assert await store.get(ALICE, "!r", "m.direct") is None
    assert [datum.type for datum in await store.of_user(ALICE)] == ["m.tag", "m.direct"]
    assert await store.changed(ALICE, 2, 3) == [AccountDatum("", "m.direct", '{"a":"\\u0000"}')]
    assert await store.changed(ALICE, 1, 2) == [AccountDatum("!r", "m.tag", '{"tags":{}}')]
    assert await store.max_stream_id() == 3


@pytest_twisted.ensureDeferred
async def test_equal_filters_have_one_id(database: Database) -> None:
    store = FilterStore(database)
    first = await store.add(ALICE, {"room": {"timeline": {"limit": 1}}, "event_format": "client"})
    assert await store.add(ALICE, {"event_format": "client", "room": {"timeline": {"limit": 1}}}) == first
    assert await store.add(ALICE, {"event_format": "federation"}) != first
    found = await store.get(ALICE, first)
    assert found == {"room": {"timeline": {"limit": 1}}, "event_format": "client"}
    assert await store.get("@bob:test", first) is None
    assert 0 <= first < 2**53


@pytest_twisted.ensureDeferred
async def test_sessions_collect_stages_and_serve_once(database: Database) -> None:
    store = UiAuthStore(database)
    old = UiAuthSession("old", 1, {}, "register", "POST", {}, {})
    await store.create(old, "a test", 0)
    new = UiAuthSession(
        "new", 100, {"username": "x"}, "register", "POST", {"had_password": True}, {}, description="a test"
    )
    await store.create(new, "a test", 50)
    assert await store.get("old") is None
    assert await store.get("new") == new
    await store.complete("new", "m.login.dummy", True, None)
    await store.complete("new", "m.login.password", ALICE, ALICE)
    session = await store.get("new")
    assert session is not None
    assert session.completed == {"m.login.dummy": True, "m.login.password": ALICE}
    assert session.user_id == ALICE
    assert await store.delete("new")
    assert not await store.delete("new")


@pytest_twisted.ensureDeferred
async def test_a_user_has_so_many_sessions_at_most(database: Database) -> None:
    store = UiAuthStore(database)
    for number in range(MAX_SESSIONS + 3):
        for user in (ALICE, None):
            session = UiAuthSession(f"{user}{number}", number, {}, "register", "POST", {}, {}, user)
            await store.create(session, "a test", 0)
    kept = [number for number in range(MAX_SESSIONS + 3) if await store.get(f"{ALICE}{number}") is not None]
    assert kept == list(range(3, MAX_SESSIONS + 3))
    assert await store.get("None0") is not None


@pytest_twisted.ensureDeferred
async def test_an_authentication_is_fresh_for_a_while_and_on_one_device(database: Database) -> None:
    store = UiAuthStore(database)
    await store.note_freshness((ALICE, "PHONE"), 100, 0)
    assert await store.is_fresh((ALICE, "PHONE"), 99)
    assert not await store.is_fresh((ALICE, "PHONE"), 100)
    assert not await store.is_fresh((ALICE, "LAPTOP"), 99)
    await store.note_freshness((ALICE, "PHONE"), 200, 150)
    assert await store.is_fresh((ALICE, "PHONE"), 199)


@pytest_twisted.ensureDeferred
async def test_sightings_keep_the_newest(database: Database) -> None:
    await UserStore(database).create(NewUser(ALICE, None, 1, None))
    store = UserIpStore(database)
    await store.record([Seen(ALICE, "", "::1", "curl", 5), Seen(ALICE, "D", "10.0.0.1", "nio", 9)])
    await store.record([Seen(ALICE, "", "::1", "curl", 3)])
    await store.record([])
    assert [seen.last_seen_ts for seen in await store.of_user(ALICE)] == [9, 5]
    await store.forget(6)
    assert [seen.ip for seen in await store.of_user(ALICE)] == ["10.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_to_device_messages_wait_until_they_are_deleted(database: Database) -> None:
    store = ToDeviceStore(database)
    await add_devices(database, ALICE, "A", "B")
    txn = Txn("@bob:test", "B", "1")
    first = [Message(ALICE, "A", '{"n":1}'), Message(ALICE, "B", '{"n":2}'), Message("@no:test", "*", "{}")]
    assert await store.add(txn, first, [], 1, 10) == ([(ALICE, "A"), (ALICE, "B")], [])
    assert await store.add(txn, first, [], 2, 10) == ([], [])
    assert await store.add(txn._replace(txn_id="2"), [Message(ALICE, "A", '{"n":3}')], [], 3, 10) == (
        [(ALICE, "A")],
        [],
    )
    assert await store.waiting(ALICE, "A", 0, 3, 10) == [(1, '{"n":1}'), (3, '{"n":3}')]
    assert await store.waiting(ALICE, "A", 0, 3, 1) == [(1, '{"n":1}')]
    assert await store.delete(ALICE, "A", 1) == 1
    assert await store.waiting(ALICE, "A", 0, 3, 10) == [(3, '{"n":3}')]
    assert await store.max_stream_id() == 3
    await store.forget_txns(11)
    assert await store.add(txn, [], [], 4, 12) == ([], [])


@pytest_twisted.ensureDeferred
async def test_a_message_to_all_devices_reaches_each_once(database: Database) -> None:
    store = ToDeviceStore(database)
    await add_devices(database, ALICE, "A", "B")
    messages = [Message(ALICE, "*", '{"n":1}'), Message(ALICE, "NONE", '{"n":2}'), Message(ALICE, "B", '{"n":3}')]
    assert await store.add(Txn("@bob:test", "B", "1"), messages, [], 1, 10) == ([(ALICE, "A"), (ALICE, "B")], [])
    for device, message in (("A", '{"n":1}'), ("B", '{"n":3}')):
        assert await store.waiting(ALICE, device, 0, 1, 10) == [(1, message)]
    assert await store.waiting(ALICE, "NONE", 0, 1, 10) == []


async def add_devices(database: Database, user_id: str, *device_ids: str) -> None:
    assert await UserStore(database).create(NewUser(user_id, None, 1, None))
    for device_id in device_ids:
        assert await AccessTokenStore(database).login(NewSession(user_id, device_id.encode() * 32, device_id, None, 1))


UPLOAD = Upload("m1", ALICE, "image/png", 3, "a.png", 5, b"\x07" * 32)


@pytest_twisted.ensureDeferred
async def test_media_is_announced_filled_once_and_quarantined(database: Database) -> None:
    store = MediaStore(database)
    assert await store.reserve("m1", ALICE, 5, 100, 1)
    assert not await store.reserve("m2", ALICE, 6, 100, 1)
    announced = await store.get_local("m1")
    assert announced is not None
    assert announced.media_length is None
    placed: list[str] = []
    assert not await store.fill(UPLOAD._replace(user_id="@bob:test"), lambda: placed.append("bob"))
    assert await store.fill(UPLOAD, lambda: placed.append("first"))
    assert not await store.fill(UPLOAD, lambda: placed.append("second"))
    assert await store.add_local(UPLOAD._replace(media_id="m3"), lambda: placed.append("new"))
    assert placed == ["first", "new"]
    assert await store.quarantine([("test", "m1"), ("far", "x")], "test", "@admin:test") == 1
    quarantined = await store.get_local("m1")
    assert quarantined is not None
    assert (quarantined.media_length, quarantined.quarantined_by) == (3, "@admin:test")


@pytest_twisted.ensureDeferred
async def test_thumbnails_are_found_by_what_was_asked_for(database: Database) -> None:
    store = MediaStore(database)
    thumbnail = Thumbnail("m1", 32, 32, "crop", "image/png", 10)
    await store.add_thumbnail(thumbnail)
    await store.add_thumbnail(thumbnail)
    assert await store.thumbnail("m1", 32, 32, "crop") == thumbnail
    assert await store.thumbnail("m1", 32, 32, "scale") is None


@pytest_twisted.ensureDeferred
async def test_copies_of_other_servers_files_are_listed_by_last_use(database: Database) -> None:
    def insert(txn):  # type: ignore[no-untyped-def]  # the writer of this table comes with fetching such files
        txn.execute(
            "INSERT INTO remote_media VALUES ('far', 'x', 'text/plain', 1, NULL, 5, 5, 'fs', NULL),"
            " ('far', 'y', 'text/plain', 1, NULL, 5, 9, 'fs2', NULL)"
        )

    await database.write("test", insert)
    store = MediaStore(database)
    assert [media.media_id for media in await store.remote_unused_since(9, 10)] == ["x"]
    assert await store.quarantine([("far", "y")], "test", "@admin:test") == 1
    await store.delete_remote([("far", "x")])
    assert await store.get_remote("far", "x") is None
    kept = await store.get_remote("far", "y")
    assert kept is not None
    assert kept.filesystem_id == "fs2"
