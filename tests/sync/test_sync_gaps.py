"""Where a timeline begins and ends: behind hidden history, around coming and going, and what state goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted

from synapse.storage.database import Database
from tests.sync.harness import Harness, bodies, state_of

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


@pytest.fixture(params=["database", "memory"])
def h(database: Database, request: pytest.FixtureRequest) -> Iterator[Harness]:
    return Harness(database, memory=request.param == "memory")


def members(room: dict[str, Any]) -> list[tuple[str, str]]:
    """(user, membership) of the memberships in a timeline."""
    events = room["timeline"]["events"]
    return [(e["state_key"], e["content"]["membership"]) for e in events if e["type"] == "m.room.member"]


@pytest_twisted.ensureDeferred
async def test_a_limit_of_nothing_tells_state_and_where_to_page_from(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.message(room, ALICE, "one")
    none = {"room": {"timeline": {"limit": 0}}}
    answer = await h.sync(ALICE, **none)
    told = answer["rooms"]["join"][room]
    assert told["timeline"] == {"events": [], "limited": True, "prev_batch": f"s{h.world.stream}"}
    assert ("m.room.member", ALICE) in state_of(told)
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "t"})
    told = (await h.sync(ALICE, answer["next_batch"], **none))["rooms"]["join"][room]
    assert told["timeline"] == {"events": [], "limited": True, "prev_batch": f"s{h.world.stream}"}
    assert state_of(told) == {("m.room.topic", ""): {"topic": "t"}}


@pytest_twisted.ensureDeferred
async def test_hidden_events_are_no_gap(h: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    room = await h.world.room(ALICE, visibility="joined")
    await h.world.member(room, BOB)
    since = (await h.sync(BOB))["next_batch"]
    await h.world.message(room, ALICE, "seen")
    await h.world.member(room, BOB, "leave")
    for number in range(30):
        await h.world.message(room, ALICE, f"hidden {number}")
    await h.world.member(room, BOB)
    answer = await h.sync(BOB, since)
    told = answer["rooms"]["join"][room]
    assert bodies(told) == ["seen"]
    assert members(told) == [(BOB, "leave"), (BOB, "join")]
    assert told["timeline"]["limited"] is False
    # Where it would take too long, the client is told that there may be more.
    monkeypatch.setattr("synapse.sync.sections.timeline._ROUNDS", 1)
    far = (await h.sync(BOB, since, device_id="OTHER"))["rooms"]["join"][room]
    assert members(far) == [(BOB, "join")]
    assert far["timeline"]["limited"] is True


@pytest_twisted.ensureDeferred
async def test_state_that_came_while_one_was_away_stands_in_the_timeline(h: Harness) -> None:
    room = await h.world.room(ALICE, visibility="joined")
    await h.world.member(room, BOB)
    since = (await h.sync(BOB))["next_batch"]
    await h.world.member(room, BOB, "leave")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "first"})
    await h.world.member(room, CAROL)
    await h.world.message(room, CAROL, "hidden")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "second"})
    await h.world.member(room, BOB)
    told = (await h.sync(BOB, since))["rooms"]["join"][room]
    assert members(told) == [(BOB, "leave"), (CAROL, "join"), (BOB, "join")]
    topics = [e["content"]["topic"] for e in told["timeline"]["events"] if e["type"] == "m.room.topic"]
    assert topics == ["second"]  # what was in force in between only, stays hidden
    assert bodies(told) == []


@pytest_twisted.ensureDeferred
async def test_the_timeline_of_a_room_joined_since_does_not_join_on_to_what_was_before(h: Harness) -> None:
    room = await h.world.room(ALICE)
    since = (await h.sync(BOB))["next_batch"]
    await h.world.member(room, BOB)
    joined = await h.sync(BOB, since)
    told = joined["rooms"]["join"][room]["timeline"]
    assert len(told["events"]) == 5
    assert told["limited"] is True
    assert (await h.sync(BOB))["rooms"]["join"][room]["timeline"]["limited"] is False


@pytest_twisted.ensureDeferred
async def test_who_was_out_all_the_time_hears_of_their_membership_alone(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    await h.world.message(room, ALICE, "old")
    await h.world.member(room, BOB, "ban", ALICE)
    since = (await h.sync(BOB))["next_batch"]
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "secret"})
    await h.world.member(room, BOB, "leave", ALICE)
    for after in (False, True):
        told = (await h.sync(BOB, since, state_after=after))["rooms"]["leave"][room]
        assert [(e["sender"], e["content"]["membership"]) for e in told["timeline"]["events"]] == [(ALICE, "leave")]
        assert told["timeline"]["limited"] is False
        assert list(state_of(told, "state_after" if after else "state")) == ([("m.room.member", BOB)] if after else [])


@pytest_twisted.ensureDeferred
async def test_an_invite_declined_after_leaving_opens_nothing_of_the_time_between(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    since = (await h.sync(BOB))["next_batch"]
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "open"})
    await h.world.member(room, BOB, "leave")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "secret"})
    await h.world.message(room, ALICE, "secret")
    await h.world.member(room, BOB, "invite", ALICE)
    await h.world.member(room, BOB, "leave")
    for after in (False, True):
        told = (await h.sync(BOB, since, state_after=after))["rooms"]["leave"][room]
        assert members(told) == [(BOB, "leave"), (BOB, "invite"), (BOB, "leave")]
        assert bodies(told) == []
        state = state_of(told, "state_after" if after else "state")
        assert state.get(("m.room.topic", ""), {"topic": "open"}) == {"topic": "open"}
        if after:
            assert state["m.room.member", BOB] == {"membership": "leave"}
    archived = (await h.sync(BOB, state_after=True, room={"include_leave": True}))["rooms"]["leave"][room]
    assert state_of(archived, "state_after")["m.room.topic", ""] == {"topic": "open"}


@pytest.mark.parametrize(
    ("kind", "on", "off"),
    [
        ("m.ignored_user_list", '{"ignored_users": {"@bob:test": {}}}', '{"ignored_users": {}}'),
        ("m.invite_permission_config", '{"default_action": "block"}', "{}"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_invites_that_were_held_back_are_told_when_they_are_wanted_again(
    h: Harness, kind: str, on: str, off: str
) -> None:
    room = await h.world.room(BOB)
    sql = """
        INSERT INTO account_data VALUES (%s, '', %s, %s, %s)
        ON CONFLICT (user_id, room_id, type) DO UPDATE SET content = EXCLUDED.content, stream_id = EXCLUDED.stream_id
    """

    async def say(content: str) -> None:
        position = h.present.positions.account_data + 1
        h.present.positions = h.present.positions._replace(account_data=position)
        await h.world.sql(sql, ALICE, kind, content, position)
        h.changes.record("account_data", ALICE, position)
        h.ignored_lists.invalidate(ALICE)

    h.changes.start("account_data", 0)
    await say(on)
    await h.world.member(room, ALICE, "invite", BOB)
    first = await h.sync(ALICE)
    assert "rooms" not in first
    await say(off)
    answer = await h.sync(ALICE, first["next_batch"])
    assert list(answer["rooms"]["invite"]) == [room]
    assert "rooms" not in await h.sync(ALICE, answer["next_batch"])
