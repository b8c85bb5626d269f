"""What filters leave out of /sync, and what they have no say in."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.storage.database import Database
from synapse.storage.presence import PresenceState, PresenceStore
from tests.sync.harness import NOW, Harness

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"
NO_ROOMS: dict[str, Any] = {"room": {"rooms": []}}
ENCRYPTED: dict[str, Any] = {"m__room__encryption": {"algorithm": "m.megolm.v1.aes-sha2"}}


@pytest.fixture(params=["database", "memory"])
def h(database: Database, request: pytest.FixtureRequest) -> Harness:
    harness = Harness(database, memory=request.param == "memory")
    for stream in harness.changes.by_stream:
        harness.changes.start(stream, 0)
    return harness


def advance(h: Harness, stream: str, entity: Any) -> int:
    position = int(getattr(h.present.positions, stream)) + 1
    h.present.positions = h.present.positions._replace(**{stream: position})
    h.changes.record(stream, entity, position)
    return position


async def online(h: Harness, user_id: str) -> None:
    state = PresenceState(user_id, "online", None, int(NOW * 1000), True)
    await PresenceStore(h.db).put(state, advance(h, "presence", user_id))


def present(answer: dict[str, Any]) -> list[str]:
    return sorted(event["sender"] for event in answer.get("presence", {"events": []})["events"])


@pytest_twisted.ensureDeferred
async def test_a_new_name_that_a_filter_hides_lists_no_room(h: Harness) -> None:
    room = await h.world.room(ALICE)
    types: dict[str, Any] = {"room": {"timeline": {"types": []}, "state": {"types": ["m.room.topic"]}}}
    since = (await h.sync(ALICE, **types))["next_batch"]
    await h.world.member(room, ALICE, displayname="boris")
    await h.world.message(room, ALICE)
    assert "rooms" not in await h.sync(ALICE, since, **types)
    # Who comes is counted, though.
    await h.world.member(room, BOB)
    answer = await h.sync(ALICE, since, **types)
    assert answer["rooms"]["join"][room]["summary"]["m.joined_member_count"] == 2


@pytest_twisted.ensureDeferred
async def test_names_may_change_who_are_the_heroes_of_a_large_room(h: Harness) -> None:
    room = await h.world.room(ALICE)
    users = [f"@user{number}:test" for number in range(6)]
    for user in users:
        await h.world.member(room, user)
    first = await h.sync(ALICE)
    assert first["rooms"]["join"][room]["summary"]["m.heroes"] == users[:5]
    await h.world.member(room, users[0], displayname="newest now")
    answer = await h.sync(ALICE, first["next_batch"])
    assert answer["rooms"]["join"][room]["summary"]["m.heroes"] == users[1:]


@pytest_twisted.ensureDeferred
async def test_counts_are_told_where_the_event_is_hidden(h: Harness) -> None:
    room = await h.world.room(ALICE)
    hidden: dict[str, Any] = {"room": {"timeline": {"types": []}, "state": {"types": []}}}
    since = (await h.sync(ALICE, **hidden))["next_batch"]
    event = await h.world.message(room, BOB)
    assert "rooms" not in await h.sync(ALICE, since, **hidden)
    await h.world.push_action(ALICE, event)
    answer = await h.sync(ALICE, since, device_id="OTHER", **hidden)
    told = answer["rooms"]["join"][room]
    assert told["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    assert told["timeline"]["events"] == []
    await h.world.message(room, CAROL)
    assert "rooms" not in await h.sync(ALICE, answer["next_batch"], **hidden)


@pytest_twisted.ensureDeferred
async def test_devices_and_presence_are_told_whatever_rooms_are_wanted(h: Harness) -> None:
    room = await h.world.room(ALICE, **ENCRYPTED)
    await online(h, BOB)
    await online(h, CAROL)
    first = await h.sync(ALICE, **NO_ROOMS)
    assert present(first) == []
    await h.world.member(room, BOB)
    second = await h.sync(ALICE, first["next_batch"], **NO_ROOMS)
    assert "rooms" not in second
    assert second["device_lists"] == {"changed": [BOB]}
    assert present(second) == [BOB]
    await h.world.sql("INSERT INTO device_lists_stream VALUES (%s, %s, NULL)", advance(h, "device_lists", BOB), BOB)
    third = await h.sync(ALICE, second["next_batch"], **NO_ROOMS)
    assert third["device_lists"] == {"changed": [BOB]}
    assert present(await h.sync(ALICE, **NO_ROOMS)) == [BOB]
    await h.world.member(room, ALICE, "leave")
    fourth = await h.sync(ALICE, third["next_batch"], **NO_ROOMS)
    assert fourth["device_lists"] == {"left": [BOB]}
    other = await h.world.room(CAROL, **ENCRYPTED)
    await h.world.member(other, ALICE)
    fifth = await h.sync(ALICE, fourth["next_batch"], **NO_ROOMS)
    assert fifth["device_lists"] == {"changed": [ALICE, CAROL]}
    assert present(fifth) == [CAROL]


@pytest_twisted.ensureDeferred
async def test_encryption_that_is_switched_on_makes_devices_known(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    since = (await h.sync(ALICE))["next_batch"]
    await h.world.state(room, ALICE, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    assert (await h.sync(ALICE, since))["device_lists"] == {"changed": [ALICE, BOB]}


@pytest_twisted.ensureDeferred
async def test_timelines_are_filtered_by_every_field(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    await h.world.message(room, ALICE, "a", url="mxc://a")
    await h.world.message(room, BOB, "b")
    await h.world.event(room, BOB, "org.example.x", {"body": "x"})

    async def told(**timeline: Any) -> list[str]:
        """The same for a client that knows nothing, and for one that knows that the room is there."""
        found = []
        for since in (None, "s1"):
            answer = await h.sync(ALICE, since, device_id=repr(timeline), room={"timeline": timeline})
            events = answer["rooms"]["join"][room]["timeline"]["events"]
            found.append([e["content"]["body"] for e in events if "body" in e["content"]])
        assert found[0] == found[1], found
        return found[0]

    assert await told() == ["a", "b", "x"]
    assert await told(types=["m.room.message"]) == ["a", "b"]
    assert await told(types=["org.*"]) == ["x"]
    assert await told(types=["*"], not_types=["m.room.mess*"]) == ["x"]
    assert await told(types=["m.room_message"]) == []  # an underscore is no wildcard
    assert await told(senders=[BOB]) == ["b", "x"]
    assert await told(senders=[ALICE, BOB], not_senders=[BOB]) == ["a"]
    assert await told(contains_url=True) == ["a"]
    assert await told(contains_url=False) == ["b", "x"]
    assert await told(rooms=[room]) == ["a", "b", "x"]
    assert await told(not_rooms=[room]) == []
    assert await told(limit=1) == ["x"]


@pytest_twisted.ensureDeferred
async def test_the_form_of_servers_names_the_event(h: Harness) -> None:
    room = await h.world.room(ALICE)
    sent = await h.world.message(room, ALICE)
    await h.world.redact(sent, ALICE)
    answer = await h.sync(ALICE, event_format="federation", room={"timeline": {"limit": 2}})
    events = answer["rooms"]["join"][room]["timeline"]["events"]
    assert events[0]["event_id"] == sent.event_id
    assert events[0]["content"] == {}
    assert {"prev_events", "auth_events", "depth", "hashes", "signatures", "room_id"} <= events[0].keys()
