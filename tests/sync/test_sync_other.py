"""What else /sync tells: receipts, counts, typing, account data, messages between devices, keys, presence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.replication.streams import PrivateDeviceListRow
from synapse.storage.account_data import AccountDataStore, AccountDatum
from synapse.storage.database import Database
from synapse.storage.presence import PresenceState, PresenceStore
from synapse.storage.receipts import Receipt, ReceiptStore
from tests.sync.harness import NOW, Harness

ALICE, BOB, CAROL, DAVE = "@alice:test", "@bob:test", "@carol:test", "@dave:test"


@pytest.fixture
def h(database: Database) -> Iterator[Harness]:
    harness = Harness(database, memory=True)
    for stream in harness.changes.by_stream:
        harness.changes.start(stream, 0)
    return harness


def advance(h: Harness, stream: str, entity: Any) -> int:
    """A new position of a stream, at which the entity changed."""
    position = getattr(h.present.positions, stream) + 1
    h.present.positions = h.present.positions._replace(**{stream: position})
    if stream in h.changes.by_stream:
        h.changes.record(stream, entity, position)
    return int(position)


async def read(h: Harness, row: Any, user: str, kind: str = "m.read", thread: str = "") -> bool:
    data = orjson.dumps({"ts": 1} | ({"thread_id": thread} if thread else {})).decode()
    receipt = Receipt(row.room_id, kind, user, thread, row.event_id, data)
    position = advance(h, "receipts", row.room_id)
    return await ReceiptStore(h.db).put(receipt, row.stream, position)


def receipts_in(answer: dict[str, Any], room: str) -> dict[str, Any]:
    events = answer["rooms"]["join"][room]["ephemeral"]["events"]
    content: dict[str, Any] = next((e["content"] for e in events if e["type"] == "m.receipt"), {})
    return content


# -- receipts and counts -------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_receipts_are_told_and_private_ones_to_their_owner_alone(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    sent = await h.world.message(room, ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    bobs = (await h.sync(BOB))["next_batch"]
    await read(h, sent, BOB, "m.read.private")
    assert receipts_in(await h.sync(BOB, bobs), room) == {sent.event_id: {"m.read.private": {BOB: {"ts": 1}}}}
    assert "rooms" not in await h.sync(ALICE, since)
    await read(h, sent, BOB)
    answer = await h.sync(ALICE, since)
    assert receipts_in(answer, room) == {sent.event_id: {"m.read": {BOB: {"ts": 1}}}}
    assert answer["rooms"]["join"][room]["timeline"]["events"] == []
    assert receipts_in(await h.sync(ALICE), room) == {sent.event_id: {"m.read": {BOB: {"ts": 1}}}}
    quiet = await h.sync(ALICE, since, room={"ephemeral": {"not_types": ["m.receipt"]}})
    assert "rooms" not in quiet


@pytest_twisted.ensureDeferred
async def test_receipts_of_several_threads_at_one_event_are_all_told(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    sent = await h.world.message(room, ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    for thread in ("", "main", "$root"):
        await read(h, sent, BOB, thread=thread)
    await read(h, sent, CAROL, thread="main")
    events = (await h.sync(ALICE, since))["rooms"]["join"][room]["ephemeral"]["events"]
    threads = [
        {user: data.get("thread_id") for user, data in event["content"][sent.event_id]["m.read"].items()}
        for event in events
    ]
    assert threads == [{BOB: None}, {BOB: "main", CAROL: "main"}, {BOB: "$root"}]


@pytest_twisted.ensureDeferred
async def test_receipts_move_forwards_only(h: Harness) -> None:
    room = await h.world.room(ALICE)
    first, second = await h.world.message(room, ALICE), await h.world.message(room, ALICE)
    assert await read(h, second, BOB)
    assert not await read(h, first, BOB)
    assert not await read(h, second, BOB)
    assert await read(h, first, BOB, "m.read.private")
    assert list(receipts_in(await h.sync(ALICE), room)) == [second.event_id]


@pytest_twisted.ensureDeferred
async def test_unread_counts_follow_events_and_own_receipts(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    since = (await h.sync(ALICE))["next_batch"]
    sent = [await h.world.message(room, BOB, str(number)) for number in range(3)]
    for row in sent:
        await h.world.push_action(ALICE, row, highlight=row is sent[1])
    answer = await h.sync(ALICE, since)
    counts = answer["rooms"]["join"][room]["unread_notifications"]
    assert counts == {"notification_count": 3, "highlight_count": 1}
    await read(h, sent[1], ALICE, "m.read.private")
    after = await h.sync(ALICE, answer["next_batch"])
    assert after["rooms"]["join"][room]["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    await read(h, sent[0], ALICE)  # further back: does not bring counts back
    again = await h.sync(ALICE, after["next_batch"])
    assert again["rooms"]["join"][room]["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    assert "rooms" not in await h.sync(ALICE, again["next_batch"])
    await read(h, sent[2], BOB)
    others = await h.sync(ALICE, again["next_batch"])
    assert "unread_notifications" not in others["rooms"]["join"][room]


@pytest_twisted.ensureDeferred
async def test_threads_are_counted_by_themselves_where_asked_for(h: Harness) -> None:
    room = await h.world.room(ALICE)
    root = await h.world.message(room, BOB)
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": root.event_id}}
    reply = await h.world.message(room, BOB, "reply", **relation)
    await h.world.push_action(ALICE, root)
    await h.world.push_action(ALICE, reply, highlight=True, thread_id=root.event_id)
    whole = (await h.sync(ALICE))["rooms"]["join"][room]
    assert whole["unread_notifications"] == {"notification_count": 2, "highlight_count": 1}
    assert "unread_thread_notifications" not in whole
    threaded = {"timeline": {"unread_thread_notifications": True}}
    told = (await h.sync(ALICE, room=threaded))["rooms"]["join"][room]
    assert told["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    assert told["unread_thread_notifications"] == {root.event_id: {"notification_count": 1, "highlight_count": 1}}
    await read(h, reply, ALICE, thread="main")
    told = (await h.sync(ALICE, room=threaded))["rooms"]["join"][room]
    assert told["unread_notifications"] == {"notification_count": 0, "highlight_count": 0}
    assert root.event_id in told["unread_thread_notifications"]
    await read(h, reply, ALICE, thread=root.event_id)
    assert "unread_thread_notifications" not in (await h.sync(ALICE, room=threaded))["rooms"]["join"][room]


# -- typing ---------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_typing_is_told_when_it_changes(h: Harness) -> None:
    room = await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    h.typing.record(room, advance(h, "typing", room), [BOB])
    answer = await h.sync(ALICE, since)
    assert answer["rooms"]["join"][room]["ephemeral"]["events"] == [
        {"type": "m.typing", "content": {"user_ids": [BOB]}}
    ]
    assert "rooms" not in await h.sync(CAROL, since)
    h.typing.record(room, advance(h, "typing", room), [])
    answer = await h.sync(ALICE, answer["next_batch"])
    assert answer["rooms"]["join"][room]["ephemeral"]["events"][0]["content"] == {"user_ids": []}
    assert "rooms" not in await h.sync(ALICE, answer["next_batch"])
    first = (await h.sync(ALICE))["rooms"]["join"][room]["ephemeral"]["events"]
    assert first == [{"type": "m.typing", "content": {"user_ids": []}}], "who waits for the end hears of it"
    quiet = await h.world.room(ALICE)
    assert (await h.sync(ALICE))["rooms"]["join"][quiet]["ephemeral"]["events"] == []


# -- account data ---------------------------------------------------------------------------------------------------


async def set_data(h: Harness, user: str, kind: str, content: dict[str, Any], room: str = "") -> None:
    position = advance(h, "account_data", user)
    sql = "INSERT INTO account_data VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
    await h.world.sql(sql, user, room, kind, orjson.dumps(content).decode(), position)


@pytest_twisted.ensureDeferred
async def test_account_data_is_told_globally_and_by_room(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await set_data(h, ALICE, "org.example", {"a": 1})
    await set_data(h, ALICE, "m.tag", {"tags": {}}, room)
    await set_data(h, ALICE, "m.tag", {"tags": {}}, "!elsewhere:test")
    first = await h.sync(ALICE)
    types = {e["type"]: e["content"] for e in first["account_data"]["events"]}
    assert types == {"org.example": {"a": 1}, "m.push_rules": {"global": {}}}
    assert [e["type"] for e in first["rooms"]["join"][room]["account_data"]["events"]] == ["m.tag"]
    assert list(first["rooms"]["join"]) == [room]
    await set_data(h, ALICE, "m.fully_read", {"event_id": "$x"}, room)
    answer = await h.sync(ALICE, first["next_batch"])
    assert "account_data" not in answer
    told = answer["rooms"]["join"][room]
    assert told["account_data"]["events"] == [{"type": "m.fully_read", "content": {"event_id": "$x"}}]
    advance(h, "push_rules", ALICE)
    rules = await h.sync(ALICE, answer["next_batch"])
    assert rules["account_data"]["events"] == [{"type": "m.push_rules", "content": {"global": {}}}]
    filtered = await h.sync(ALICE, account_data={"types": ["org.*"]}, room={"account_data": {"types": []}})
    assert [e["type"] for e in filtered["account_data"]["events"]] == ["org.example"]
    assert filtered["rooms"]["join"][room]["account_data"]["events"] == []


# -- messages between devices ------------------------------------------------------------------------------------------


async def put_messages(h: Harness, count: int, device: str = "DEV") -> None:
    for number in range(count):
        position = advance(h, "to_device", ALICE)
        sql = "INSERT INTO to_device_messages VALUES (%s, %s, %s, %s)"
        await h.world.sql(sql, position, ALICE, device, orjson.dumps({"type": "t", "content": number}).decode())


@pytest_twisted.ensureDeferred
async def test_messages_from_before_their_sender_was_ignored_are_not_told(h: Harness) -> None:
    since = (await h.sync(ALICE))["next_batch"]
    for number in range(120):
        position = advance(h, "to_device", ALICE)
        message = orjson.dumps({"type": "t", "sender": BOB if number < 110 else CAROL, "content": number}).decode()
        await h.world.sql("INSERT INTO to_device_messages VALUES (%s, %s, 'DEV', %s)", position, ALICE, message)
    ignoring = orjson.dumps({"ignored_users": {BOB: {}}}).decode()
    position = advance(h, "account_data", ALICE)
    await AccountDataStore(h.db).put(ALICE, AccountDatum("", "m.ignored_user_list", ignoring), position)
    h.ignored_lists.clear()
    answer = await h.sync(ALICE, since)
    assert [message["content"] for message in answer["to_device"]["events"]] == list(range(110, 120))
    assert "to_device" not in await h.sync(ALICE, answer["next_batch"])
    assert await kept(h) == 0, "they are not kept either"


async def kept(h: Harness) -> int:
    def count(txn: Any) -> int:
        txn.execute("SELECT COUNT(*) FROM to_device_messages")
        return int(txn.one()[0])

    return await h.db.read("test", count)


@pytest_twisted.ensureDeferred
async def test_messages_to_devices_are_kept_until_acknowledged(h: Harness) -> None:
    await put_messages(h, 2)
    await put_messages(h, 1, "OTHER")
    first = await h.sync(ALICE)
    assert [m["content"] for m in first["to_device"]["events"]] == [0, 1]
    assert "to_device" in await h.sync(ALICE)  # not acknowledged: told again
    assert await kept(h) == 3
    second = await h.sync(ALICE, first["next_batch"])
    assert "to_device" not in second
    assert await kept(h) == 1
    await put_messages(h, 1)
    third = await h.sync(ALICE, second["next_batch"])
    assert len(third["to_device"]["events"]) == 1
    await h.sync(ALICE, third["next_batch"])
    assert await kept(h) == 1


@pytest_twisted.ensureDeferred
async def test_many_messages_to_a_device_come_in_portions(h: Harness) -> None:
    since = (await h.sync(ALICE))["next_batch"]
    await put_messages(h, 150)
    first = await h.sync(ALICE, since)
    assert len(first["to_device"]["events"]) == 100
    second = await h.sync(ALICE, first["next_batch"])
    assert [m["content"] for m in second["to_device"]["events"]] == list(range(100, 150))
    assert await kept(h) == 50


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_key_counts_are_in_every_answer(h: Harness) -> None:
    sql = "INSERT INTO one_time_keys VALUES (%s, %s, 'signed_curve25519', %s, '{}', 0)"
    for number in range(3):
        await h.world.sql(sql, ALICE, "DEV", str(number))
    await h.world.sql("INSERT INTO fallback_keys VALUES (%s, 'DEV', 'signed_curve25519', 'f', '{}')", ALICE)
    first = await h.sync(ALICE)
    second = await h.sync(ALICE, first["next_batch"])
    for answer in (first, second):
        assert answer["device_one_time_keys_count"] == {"signed_curve25519": 3}
        assert answer["device_unused_fallback_key_types"] == ["signed_curve25519"]
    assert second.keys() == {"next_batch", "device_one_time_keys_count", "device_unused_fallback_key_types"}
    await h.world.sql("DELETE FROM one_time_keys")
    h.keys_left.invalidate(f"{ALICE} DEV")
    assert (await h.sync(ALICE, first["next_batch"]))["device_one_time_keys_count"] == {"signed_curve25519": 0}
    assert "device_one_time_keys_count" not in await h.sync(ALICE, device_id=None)


async def change_devices(h: Harness, user: str) -> None:
    position = advance(h, "device_lists", user)
    await h.world.sql("INSERT INTO device_lists_stream VALUES (%s, %s, NULL)", position, user)


@pytest_twisted.ensureDeferred
async def test_changed_devices_are_told_to_those_who_share_a_room(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    await h.world.room(CAROL)
    since = (await h.sync(ALICE))["next_batch"]
    for user in (BOB, CAROL, ALICE):
        await change_devices(h, user)
    answer = await h.sync(ALICE, since)
    assert answer["device_lists"] == {"changed": [ALICE, BOB]}
    assert "device_lists" not in await h.sync(ALICE, answer["next_batch"])
    assert "device_lists" not in await h.sync(ALICE)


@pytest_twisted.ensureDeferred
async def test_who_comes_into_an_encrypted_room_and_who_goes(h: Harness) -> None:
    encrypted = {"m__room__encryption": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room, other = await h.world.room(ALICE, **encrypted), await h.world.room(ALICE, **encrypted)
    await h.world.member(other, CAROL)
    answer = await h.sync(ALICE)
    await h.world.member(room, BOB)
    await h.world.member(room, CAROL)
    answer = await h.sync(ALICE, answer["next_batch"])
    assert answer["device_lists"] == {"changed": [BOB, CAROL]}
    await h.world.member(room, BOB, displayname="only a name")
    answer = await h.sync(ALICE, answer["next_batch"])
    assert "device_lists" not in answer
    await h.world.member(room, BOB, "leave")
    await h.world.member(room, CAROL, "leave")
    answer = await h.sync(ALICE, answer["next_batch"])
    assert answer["device_lists"] == {"left": [BOB]}  # Carol is still in the other room
    bobs = (await h.sync(BOB))["next_batch"]
    await h.world.member(other, BOB)
    joined = await h.sync(BOB, bobs)
    assert joined["device_lists"]["changed"] == [ALICE, BOB, CAROL], "oneself, too: as `/keys/changes` tells it"
    await h.world.member(other, BOB, "leave")
    gone = await h.sync(BOB, joined["next_batch"])
    assert gone["device_lists"] == {"left": [ALICE, CAROL]}


@pytest_twisted.ensureDeferred
async def test_who_comes_into_a_room_that_is_not_encrypted_and_who_goes(h: Harness) -> None:
    room, other = await h.world.room(ALICE), await h.world.room(ALICE)
    await h.world.member(other, CAROL)
    answer = await h.sync(ALICE)
    await h.world.member(room, BOB)
    await h.world.member(room, CAROL)
    answer = await h.sync(ALICE, answer["next_batch"])
    assert answer["device_lists"] == {"changed": [BOB, CAROL]}
    await h.world.member(room, BOB, "leave")
    await h.world.member(room, CAROL, "leave")
    answer = await h.sync(ALICE, answer["next_batch"])
    assert answer["device_lists"] == {"left": [BOB]}
    bobs = (await h.sync(BOB))["next_batch"]
    await h.world.member(other, BOB)
    joined = await h.sync(BOB, bobs)
    assert "device_lists" not in joined, "of the others' keys there is no need"
    await h.world.member(other, BOB, "leave")
    gone = await h.sync(BOB, joined["next_batch"])
    assert gone["device_lists"] == {"left": [ALICE, CAROL]}


@pytest_twisted.ensureDeferred
async def test_who_leaves_the_last_encrypted_room_has_left_whatever_else_is_shared(h: Harness) -> None:
    encrypted = {"m__room__encryption": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room, plain = await h.world.room(ALICE, **encrypted), await h.world.room(ALICE)
    await h.world.member(room, BOB)
    await h.world.member(plain, BOB)
    since = (await h.sync(ALICE))["next_batch"]
    await h.world.member(room, BOB, "leave")
    answer = await h.sync(ALICE, since)
    assert answer["device_lists"] == {"left": [BOB]}
    await change_devices(h, BOB)
    answer = await h.sync(ALICE, answer["next_batch"])
    assert answer["device_lists"] == {"changed": [BOB]}, "they still share a room"
    await h.world.member(room, BOB)
    since = (await h.sync(ALICE, answer["next_batch"]))["next_batch"]
    await h.world.member(plain, BOB, "leave")
    assert "device_lists" not in await h.sync(ALICE, since)


@pytest_twisted.ensureDeferred
async def test_changes_that_only_one_user_can_see(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    since = {user: (await h.sync(user))["next_batch"] for user in (ALICE, BOB)}
    position = advance(h, "device_lists", PrivateDeviceListRow(ALICE))
    await h.world.sql("INSERT INTO device_lists_private VALUES (%s, %s, %s)", position, ALICE, [BOB, CAROL])
    answer = await h.sync(ALICE, since[ALICE])
    assert answer["device_lists"] == {"changed": [BOB, CAROL]}
    assert "device_lists" not in await h.sync(BOB, since[BOB])


# -- presence -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_presence_of_those_who_share_a_room(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    store = PresenceStore(h.db)

    async def seen(user: str, state: str, status: str | None = None, ago: int = 5_000) -> None:
        active = int(NOW * 1000) - ago
        position = advance(h, "presence", user)
        await store.put(PresenceState(user, state, status, active, True), position)

    await seen(BOB, "online", "hi")
    await seen(CAROL, "online")
    first = await h.sync(ALICE)
    content = {"presence": "online", "last_active_ago": 5_000, "status_msg": "hi", "currently_active": True}
    assert first["presence"]["events"] == [{"type": "m.presence", "sender": BOB, "content": content}]
    assert "presence" not in await h.sync(ALICE, first["next_batch"])
    await seen(BOB, "offline")
    answer = await h.sync(ALICE, first["next_batch"])
    assert answer["presence"]["events"][0]["content"] == {"presence": "offline", "last_active_ago": 5_000}
    assert "presence" not in await h.sync(ALICE, first["next_batch"], presence={"types": []})
    assert "presence" in await h.sync(ALICE)  # who is offline is told of at first if they did something lately
    await seen(BOB, "offline", ago=400_000)
    assert "presence" not in await h.sync(ALICE)
    carols = (await h.sync(CAROL))["next_batch"]
    await seen(BOB, "online")
    await h.world.member(room, CAROL)
    told = (await h.sync(CAROL, carols))["presence"]["events"]
    assert {e["sender"] for e in told} == {BOB, CAROL}  # who is in the room that she has come to


@pytest_twisted.ensureDeferred
async def test_presence_of_those_who_come_to_a_room(h: Harness) -> None:
    room = await h.world.room(ALICE)
    store = PresenceStore(h.db)
    for user, state in ((BOB, "online"), (CAROL, "online"), (ALICE, "online"), (DAVE, "offline")):
        position = advance(h, "presence", user)
        active = int(NOW * 1000) - 400_000
        await store.put(PresenceState(user, state, None, active, True), position)
    since = (await h.sync(ALICE))["next_batch"]
    for user in (BOB, CAROL, DAVE):
        await h.world.member(room, user)
    await h.world.member(room, CAROL, "leave")
    told = (await h.sync(ALICE, since))["presence"]["events"]
    assert [(e["sender"], e["content"]["presence"]) for e in told] == [(BOB, "online")]
    assert "presence" not in await h.sync(ALICE, since, presence={"types": []})


@pytest_twisted.ensureDeferred
async def test_those_who_were_active_without_being_online_are_told_to_newcomers_alone(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    store, now = PresenceStore(h.db), int(NOW * 1000)
    bobs, carols = [(await h.sync(user))["next_batch"] for user in (BOB, CAROL)]
    for user, ago in ((ALICE, 8_000), (BOB, 6_000), (ALICE, 5_000), (ALICE, 7_000)):
        await store.note(user, now - ago)
    assert await store.max_stream_id() == 0
    assert {state.user_id for state in await store.of_members(room, None, 0)} == {ALICE, BOB}
    assert await store.of_members(room, 0, 9) == []
    assert "presence" not in await h.sync(BOB, bobs)
    await h.world.member(room, CAROL)
    told = (await h.sync(CAROL, carols))["presence"]["events"]
    assert {event["sender"]: event["content"] for event in told} == {
        ALICE: {"presence": "offline", "last_active_ago": 5_000},
        BOB: {"presence": "offline", "last_active_ago": 6_000},
    }
    await store.put(PresenceState(ALICE, "online", None, now, True), advance(h, "presence", ALICE))
    await store.note(ALICE, now + 1)  # those who are online are known better
    assert (await store.get([ALICE]))[ALICE].last_active_ts == now


@pytest_twisted.ensureDeferred
async def test_own_users_of_whom_nothing_is_known_were_active_when_they_came(h: Harness) -> None:
    room, other = await h.world.room(ALICE), await h.world.room(ALICE)
    for user in (BOB, CAROL):
        await h.world.sql("INSERT INTO users (user_id, created_ts) VALUES (%s, 0)", user)
    await PresenceStore(h.db).put(PresenceState(CAROL, "offline", "away", 0, False), advance(h, "presence", CAROL))
    since = (await h.sync(ALICE))["next_batch"]
    for user in (BOB, CAROL, DAVE):  # of whom Dave is another server's
        for come_to in (room, other):
            joins = {"membership": "join"}
            await h.world.event(come_to, user, "m.room.member", joins, user, origin_server_ts=int(NOW * 1000) - 9_000)
    answer = await h.sync(ALICE, since)
    told = {event["sender"]: event["content"] for event in answer["presence"]["events"]}
    assert {user: (content["presence"], content.get("status_msg")) for user, content in told.items()} == {
        BOB: ("offline", None),
        CAROL: ("offline", "away"),
    }
    assert [content["last_active_ago"] for content in told.values()] == [9_000, 9_000]
    assert "presence" not in await h.sync(ALICE, answer["next_batch"])
