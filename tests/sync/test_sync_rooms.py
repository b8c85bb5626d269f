"""Joined, left, invited and knocked rooms in /sync: first syncs, what is new since, and the same from memory and from
the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.storage.account_data import AccountDataStore, AccountDatum
from synapse.storage.database import Database
from tests.sync.harness import Harness, bodies, state_of

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


@pytest.fixture(params=["database", "memory"])
def h(database: Database, request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Once reading everything from the tables, once with the events of the stream in memory."""
    return Harness(database, memory=request.param == "memory")


@pytest_twisted.ensureDeferred
async def test_a_first_sync_tells_timeline_state_and_summary(h: Harness) -> None:
    room = await h.world.room(ALICE, m__room__name={"name": "Tea"})
    await h.world.member(room, BOB)
    for number in range(3):
        await h.world.message(room, BOB, f"m{number}")
    answer = await h.sync(ALICE)
    told = answer["rooms"]["join"][room]
    assert bodies(told) == ["m0", "m1", "m2"]
    assert told["timeline"]["limited"] is False
    assert told["state"]["events"] == []  # all of it is in the timeline
    assert told["summary"] == {"m.joined_member_count": 2, "m.invited_member_count": 0}
    assert told["unread_notifications"] == {"notification_count": 0, "highlight_count": 0}
    event = told["timeline"]["events"][-1]
    assert event.keys() == {"content", "event_id", "origin_server_ts", "sender", "type", "unsigned"}
    assert event["unsigned"] == {"age": 1_700_000_000_000 - event["origin_server_ts"], "membership": "join"}


@pytest_twisted.ensureDeferred
async def test_state_is_that_at_the_start_of_a_limited_timeline(h: Harness) -> None:
    room = await h.world.room(ALICE, m__room__topic={"topic": "old"})
    await h.world.message(room, ALICE, "one")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "new"})
    await h.world.message(room, ALICE, "two")
    answer = await h.sync(ALICE, room={"timeline": {"limit": 2}})
    told = answer["rooms"]["join"][room]
    assert [e["type"] for e in told["timeline"]["events"]] == ["m.room.topic", "m.room.message"]
    assert told["timeline"]["limited"] is True
    state = state_of(told)
    assert state["m.room.topic", ""] == {"topic": "old"}
    assert {("m.room.create", ""), ("m.room.member", ALICE), ("m.room.join_rules", "")} <= state.keys()
    after = await h.sync(ALICE, room={"timeline": {"limit": 2}}, state_after=True)
    told = after["rooms"]["join"][room]
    assert "state" not in told
    assert state_of(told, "state_after")["m.room.topic", ""] == {"topic": "new"}


@pytest_twisted.ensureDeferred
async def test_an_incremental_sync_tells_what_is_new(h: Harness) -> None:
    quiet, busy = await h.world.room(ALICE), await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    sent = await h.world.message(busy, ALICE, "news")
    answer = await h.sync(ALICE, since)
    assert list(answer["rooms"]["join"]) == [busy]
    told = answer["rooms"]["join"][busy]
    assert bodies(told) == ["news"]
    assert told["timeline"]["events"][0]["event_id"] == sent.event_id
    assert told["state"]["events"] == []
    assert "summary" not in told
    assert quiet not in answer["rooms"]["join"]
    assert "rooms" not in await h.sync(ALICE, answer["next_batch"])


@pytest_twisted.ensureDeferred
async def test_a_gap_comes_with_the_state_that_changed_in_it(h: Harness) -> None:
    room = await h.world.room(ALICE, m__room__topic={"topic": "a"})
    since = (await h.sync(ALICE))["next_batch"]
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "b"})
    await h.world.member(room, BOB)
    for number in range(5):
        await h.world.message(room, BOB, str(number))
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "c"})
    answer = await h.sync(ALICE, since, room={"timeline": {"limit": 3}})
    told = answer["rooms"]["join"][room]
    assert bodies(told) == ["3", "4"]
    assert told["timeline"]["limited"] is True
    assert state_of(told) == {("m.room.topic", ""): {"topic": "b"}, ("m.room.member", BOB): {"membership": "join"}}
    assert told["summary"]["m.joined_member_count"] == 2
    assert told["summary"]["m.heroes"] == [BOB]
    after = await h.sync(ALICE, since, room={"timeline": {"limit": 3}}, state_after=True)
    assert state_of(after["rooms"]["join"][room], "state_after")["m.room.topic", ""] == {"topic": "c"}


@pytest_twisted.ensureDeferred
async def test_state_that_a_filter_keeps_out_of_the_timeline_is_told_as_state(h: Harness) -> None:
    room = await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    await h.world.message(room, ALICE, "hi")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "t"})
    answer = await h.sync(ALICE, since, room={"timeline": {"types": ["m.room.mess*"]}})
    told = answer["rooms"]["join"][room]
    assert [e["type"] for e in told["timeline"]["events"]] == ["m.room.message"]
    assert state_of(told) == {("m.room.topic", ""): {"topic": "t"}}


@pytest_twisted.ensureDeferred
async def test_a_room_joined_since_is_told_in_full(h: Harness) -> None:
    room = await h.world.room(ALICE, m__room__name={"name": "n"})
    for number in range(12):
        await h.world.message(room, ALICE, str(number))
    since = (await h.sync(BOB))["next_batch"]
    await h.world.message(room, ALICE, "before")
    await h.world.member(room, BOB)
    answer = await h.sync(BOB, since)
    told = answer["rooms"]["join"][room]
    assert told["timeline"]["limited"] is True
    assert told["timeline"]["events"][-1]["content"] == {"membership": "join"}
    assert bodies(told)[-1] == "before"
    assert [e["unsigned"]["membership"] for e in told["timeline"]["events"]] == ["leave"] * 9 + ["join"]
    assert ("m.room.name", "") in state_of(told)
    # A new name is no new join.
    await h.world.member(room, BOB, displayname="Bobby")
    again = await h.sync(BOB, answer["next_batch"])
    told = again["rooms"]["join"][room]
    assert [e["type"] for e in told["timeline"]["events"]] == ["m.room.member"]
    assert told["timeline"]["limited"] is False
    assert told["state"]["events"] == []
    assert told["timeline"]["events"][0]["unsigned"]["prev_content"] == {"membership": "join"}
    assert told["timeline"]["events"][0]["unsigned"]["prev_sender"] == BOB


@pytest_twisted.ensureDeferred
async def test_leaving_ends_the_timeline_at_the_leave(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    since = (await h.sync(BOB))["next_batch"]
    await h.world.message(room, ALICE, "seen")
    await h.world.member(room, BOB, "leave")
    await h.world.message(room, ALICE, "not seen")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "not seen"})
    answer = await h.sync(BOB, since)
    assert "join" not in answer["rooms"]
    told = answer["rooms"]["leave"][room]
    assert [e["type"] for e in told["timeline"]["events"]] == ["m.room.message", "m.room.member"]
    assert told["state"]["events"] == []
    assert "rooms" not in await h.sync(BOB, answer["next_batch"])
    assert "rooms" not in await h.sync(BOB)
    archived = (await h.sync(BOB, room={"include_leave": True, "timeline": {"limit": 2}}))["rooms"]["leave"][room]
    assert [e["type"] for e in archived["timeline"]["events"]] == ["m.room.message", "m.room.member"]
    assert ("m.room.topic", "") not in state_of(archived)
    assert state_of(archived)["m.room.member", BOB] == {"membership": "join"}


@pytest_twisted.ensureDeferred
async def test_forgotten_rooms_are_not_told_of(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    since = (await h.sync(BOB))["next_batch"]
    await h.world.member(room, BOB, "leave")
    await h.world.sql("UPDATE local_memberships SET forgotten = true")
    h.user_rooms.clear()
    assert "rooms" not in await h.sync(BOB, since)
    assert "rooms" not in await h.sync(BOB, room={"include_leave": True})


@pytest_twisted.ensureDeferred
async def test_an_invite_comes_with_stripped_state_and_its_rejection_as_a_left_room(h: Harness) -> None:
    room = await h.world.room(ALICE, m__room__name={"name": "Secret"}, m__room__topic={"topic": "t"})
    since = (await h.sync(BOB))["next_batch"]
    await h.world.member(room, BOB, "invite", ALICE)
    answer = await h.sync(BOB, since)
    events = answer["rooms"]["invite"][room]["invite_state"]["events"]
    assert {e["type"] for e in events} == {
        "m.room.create",
        "m.room.name",
        "m.room.topic",
        "m.room.join_rules",
        "m.room.member",
    }
    assert all(e.keys() == {"type", "state_key", "sender", "content"} for e in events)
    members = [e["state_key"] for e in events if e["type"] == "m.room.member"]
    assert members == [ALICE, BOB], "whoever invites can be called by name"
    assert "join" not in answer["rooms"]
    await h.world.message(room, ALICE, "not for Bob")
    await h.world.member(room, BOB, "leave")
    rejected = (await h.sync(BOB, answer["next_batch"]))["rooms"]
    assert rejected.keys() == {"leave"}
    told = rejected["leave"][room]
    assert [e["content"] for e in told["timeline"]["events"]] == [{"membership": "leave"}]
    assert told["timeline"]["limited"] is False
    assert told["state"]["events"] == []


@pytest_twisted.ensureDeferred
async def test_who_blocks_invites_sees_none(h: Harness) -> None:
    """Also those that came before; they are seen again when invites are welcome again."""
    invited, knocked = await h.world.room(ALICE), await h.world.room(ALICE)
    await h.world.member(invited, BOB, "invite", ALICE)
    await h.world.member(knocked, BOB, "knock")
    for action, seen in (("block", {"knock"}), ("allow", {"knock", "invite"})):
        data = orjson.dumps({"default_action": action}).decode()
        await AccountDataStore(h.db).put(BOB, AccountDatum("", "m.invite_permission_config", data), 1)
        h.ignored_lists.clear()
        assert (await h.sync(BOB))["rooms"].keys() == seen


@pytest_twisted.ensureDeferred
async def test_a_knock_comes_with_stripped_state(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB, "knock")
    answer = await h.sync(BOB)
    events = answer["rooms"]["knock"][room]["knock_state"]["events"]
    assert {e["type"] for e in events} == {"m.room.create", "m.room.join_rules", "m.room.member"}


@pytest_twisted.ensureDeferred
async def test_stripped_state_of_other_servers_is_cut_down(h: Harness) -> None:
    room = await h.world.room(ALICE)
    given = [
        {"type": "m.room.name", "state_key": "", "sender": ALICE, "content": {"name": "x"}, "event_id": "$x"},
        {"type": "m.room.topic", "sender": ALICE, "content": {}},
        "nonsense",
    ]
    content = {"membership": "invite"}
    extra = {"unsigned": {"invite_room_state": given}}
    await h.world.event(room, ALICE, "m.room.member", content, BOB, extra=extra)
    events = (await h.sync(BOB))["rooms"]["invite"][room]["invite_state"]["events"]
    assert events == [
        {"type": "m.room.name", "state_key": "", "sender": ALICE, "content": {"name": "x"}},
        {"type": "m.room.member", "state_key": BOB, "sender": ALICE, "content": content},
    ]


@pytest_twisted.ensureDeferred
async def test_full_state_tells_all_state_and_only_the_new_events(h: Harness) -> None:
    room = await h.world.room(ALICE, m__room__topic={"topic": "t"})
    since = (await h.sync(ALICE))["next_batch"]
    told = (await h.sync(ALICE, since, full_state=True, timeout=30_000))["rooms"]["join"][room]
    assert told["timeline"]["events"] == []
    assert told["timeline"]["limited"] is False
    assert state_of(told)["m.room.topic", ""] == {"topic": "t"}
    await h.world.message(room, ALICE, "new")
    told = (await h.sync(ALICE, since, full_state=True))["rooms"]["join"][room]
    assert bodies(told) == ["new"]
    assert ("m.room.create", "") in state_of(told)


@pytest_twisted.ensureDeferred
async def test_lazily_loaded_members_are_those_who_speak(h: Harness) -> None:
    room = await h.world.room(ALICE)
    for user in (BOB, CAROL):
        await h.world.member(room, user)
    for number in range(3):
        await h.world.message(room, BOB, str(number))
    lazy: dict[str, Any] = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 2}}}
    first = await h.sync(ALICE, **lazy)
    members = [key[1] for key in state_of(first["rooms"]["join"][room]) if key[0] == "m.room.member"]
    assert sorted(members) == [ALICE, BOB, CAROL]  # Bob speaks; he and Carol are the heroes; Alice asks
    await h.world.message(room, BOB, "again")
    second = await h.sync(ALICE, first["next_batch"], **lazy)
    assert second["rooms"]["join"][room]["state"]["events"] == []  # Bob is known
    redundant = {"room": {"state": {"lazy_load_members": True, "include_redundant_members": True}}}
    again = await h.sync(ALICE, first["next_batch"], **redundant)
    assert list(state_of(again["rooms"]["join"][room])) == [("m.room.member", BOB)]
    # Who goes on from an older token may have missed what was said after it.
    repeated = await h.sync(ALICE, first["next_batch"], device_id="DEV", **lazy | {"presence": {"limit": 5}})
    assert list(state_of(repeated["rooms"]["join"][room])) == [("m.room.member", BOB)]


@pytest_twisted.ensureDeferred
async def test_lazily_loaded_members_are_told_as_they_were_when_they_spoke(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB, displayname="Old")
    first = await h.sync(ALICE, device_id="OTHER")
    await h.world.message(room, BOB, "hello")
    await h.world.member(room, BOB, displayname="New")
    lazy = {"room": {"state": {"lazy_load_members": True}}}
    told = (await h.sync(ALICE, first["next_batch"], **lazy))["rooms"]["join"][room]
    assert state_of(told) == {("m.room.member", BOB): {"membership": "join", "displayname": "Old"}}
    after = (await h.sync(ALICE, first["next_batch"], state_after=True, **lazy))["rooms"]["join"][room]
    assert state_of(after, "state_after") == {("m.room.member", BOB): {"membership": "join", "displayname": "New"}}


@pytest_twisted.ensureDeferred
async def test_redacted_events_are_told_as_redacted(h: Harness) -> None:
    room = await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    secret = await h.world.message(room, ALICE, "secret")
    redaction = await h.world.redact(secret, ALICE)
    h.recent.spoil(room, secret.event_id)
    told = (await h.sync(ALICE, since))["rooms"]["join"][room]["timeline"]["events"]
    assert told[0]["content"] == {}
    because = told[0]["unsigned"]["redacted_because"]
    assert because["event_id"] == redaction.event_id
    assert because["content"] == {"redacts": secret.event_id, "reason": "because"}
    assert because["redacts"] == secret.event_id
    assert told[1]["redacts"] == secret.event_id


@pytest_twisted.ensureDeferred
async def test_transaction_ids_go_to_the_device_that_sent_alone(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    since = (await h.sync(ALICE))["next_batch"]
    sent = await h.world.message(room, ALICE)
    sql = "INSERT INTO event_txns VALUES (%s, %s, %s, %s, %s, 0)"
    await h.world.sql(sql, ALICE, "DEV", room, "txn1", sent.event_id)

    async def unsigned(user: str, device: str) -> dict[str, Any]:
        answer = await h.sync(user, since, device_id=device)
        event: dict[str, Any] = answer["rooms"]["join"][room]["timeline"]["events"][-1]
        return dict(event["unsigned"])

    assert (await unsigned(ALICE, "DEV"))["transaction_id"] == "txn1"
    assert "transaction_id" not in await unsigned(ALICE, "OTHER")
    assert "transaction_id" not in await unsigned(BOB, "DEV")


@pytest_twisted.ensureDeferred
async def test_ignored_users_are_heard_in_state_only(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    content = '{"ignored_users": {"@bob:test": {}, "@alice:test": {}}}'
    sql = "INSERT INTO account_data VALUES (%s, '', 'm.ignored_user_list', %s, 1)"
    await h.world.sql(sql, ALICE, content)
    since = (await h.sync(ALICE))["next_batch"]
    await h.world.message(room, BOB, "from Bob")
    await h.world.message(room, ALICE, "from Alice")
    await h.world.state(room, BOB, "m.room.topic", {"topic": "Bob's"})
    other = await h.world.room(BOB)
    await h.world.member(other, ALICE, "invite", BOB)
    answer = await h.sync(ALICE, since)
    told = answer["rooms"]["join"][room]
    assert bodies(told) == ["from Alice"]
    assert told["timeline"]["events"][-1]["type"] == "m.room.topic"
    assert "invite" not in answer["rooms"]


@pytest_twisted.ensureDeferred
async def test_rooms_are_filtered(h: Harness) -> None:
    one, two = await h.world.room(ALICE), await h.world.room(ALICE)
    answer = await h.sync(ALICE, room={"rooms": [one]})
    assert list(answer["rooms"]["join"]) == [one]
    answer = await h.sync(ALICE, room={"not_rooms": [one]})
    assert list(answer["rooms"]["join"]) == [two]
    fields = await h.sync(ALICE, event_fields=["content.body", "type"], room={"rooms": [one], "state": {"types": []}})
    assert all(e.keys() <= {"content", "type"} for e in fields["rooms"]["join"][one]["timeline"]["events"])
    federation = await h.sync(ALICE, event_format="federation", room={"rooms": [one]})
    assert "prev_events" in federation["rooms"]["join"][one]["timeline"]["events"][0]


@pytest_twisted.ensureDeferred
async def test_events_that_clients_never_see(h: Harness) -> None:
    room = await h.world.room(ALICE)
    if h.memory:
        pytest.skip("the stream does not carry them")
    since = (await h.sync(ALICE))["next_batch"]
    for column in ({"outlier": True}, {"soft_failed": True}, {"rejected": "not allowed"}):
        await h.world.event(room, BOB, "m.room.message", {"body": "x"}, **column)
    assert "rooms" not in await h.sync(ALICE, since)


@pytest_twisted.ensureDeferred
async def test_state_from_memory_is_the_state_of_the_tables(h: Harness) -> None:
    room = await h.world.room(ALICE, m__room__topic={"topic": "old"}, m__room__name={"name": "n"})
    await h.world.member(room, BOB)
    for number in range(12):
        await h.world.message(room, BOB, str(number))

    async def states() -> list[Any]:
        told: list[Any] = []
        for lazy in (False, True):
            for state_after in (False, True):
                answer = await h.sync(ALICE, state_after=state_after, room={"state": {"lazy_load_members": lazy}})
                state = answer["rooms"]["join"][room]["state_after" if state_after else "state"]["events"]
                told.append(sorted(state, key=lambda event: event["event_id"]))
        federation = await h.sync(ALICE, event_format="federation")
        told.append(sorted(federation["rooms"]["join"][room]["state"]["events"], key=lambda event: event["depth"]))
        return told

    cold = await states()
    with h.db.counted() as counts:
        assert await states() == cold
    assert counts.read["past_state.current"] == 0
    assert all("prev_events" in event for event in cold[-1])
    topic = await h.world.state(room, ALICE, "m.room.topic", {"topic": "new"})
    assert {"topic": "new"} in [event["content"] for event in (await states())[1]]
    await h.world.redact(topic, ALICE)
    assert {"topic": "new"} not in [event["content"] for event in (await states())[1]]
