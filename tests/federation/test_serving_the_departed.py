"""What servers are told that have been in a room: what was there before they left, and how they did. Nothing later."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred

from synapse.storage.database import Database
from synapse.storage.timeline import TimelineRow
from tests.federation.asked import FAR, Asked
from tests.rest.driver import Reply

ALICE, BOB, CAROL = "@alice:test", f"@bob:{FAR}", f"@carol:{FAR}"
OPERATIONS = ("event", "state", "state_ids", "event_auth", "backfill", "get_missing_events")
STEPS: dict[str, list[tuple[str, str]]] = {
    "in the room": [("join", BOB)],
    "left": [("join", BOB), ("leave", BOB)],
    "kicked": [("join", BOB), ("leave", ALICE)],
    "banned": [("join", BOB), ("ban", ALICE)],
    "left, then banned": [("join", BOB), ("leave", BOB), ("ban", ALICE)],
    "left, then invited": [("join", BOB), ("leave", BOB), ("invite", ALICE)],
    "back again": [("join", BOB), ("leave", ALICE), ("join", BOB)],
    "invited": [("invite", ALICE)],
    "invited and refused": [("invite", ALICE), ("leave", BOB)],
    "banned beforehand": [("ban", ALICE)],
    "never": [],
    "kept out by the access list": [("join", BOB)],
    "kicked and kept out by the access list": [("join", BOB), ("leave", ALICE)],
}
TOLD = {
    "in the room": {"before", "at", "after"},
    "back again": {"before", "at", "after"},
    **{key: {"before", "at"} for key in ("left", "kicked", "banned", "left, then banned", "left, then invited")},
}
ACL = {"allow": ["*"], "deny": [FAR]}


async def ask(asked: Asked, operation: str, room_id: str, event_id: str, origin: str = FAR) -> Reply:
    if operation == "get_missing_events":
        body = {"latest_events": [event_id], "earliest_events": []}
        return await asked.post(f"/get_missing_events/{room_id}", body, origin=origin)
    path, query = {
        "event": (f"/event/{event_id}", {}),
        "event_auth": (f"/event_auth/{room_id}/{event_id}", {}),
        "backfill": (f"/backfill/{room_id}", {"v": event_id, "limit": 100}),
    }.get(operation, (f"/{operation}/{room_id}", {"event_id": event_id}))
    return await asked.get(path, origin=origin, **query)


async def been(asked: Asked, standing: str, **wish: Any) -> tuple[str, dict[str, TimelineRow]]:
    """A room, and events before and after the server left it, or might have, and the one by which it did."""
    room_id, world = await asked.room(**wish), asked.world
    steps = STEPS[standing]
    for membership, sender in steps[:1]:
        await world.member(room_id, BOB, membership, sender)
    rows = {"before": await world.message(room_id, ALICE, "before")}
    rows["at"] = rows["before"]
    for number, (membership, sender) in enumerate(steps[1:]):
        row = await world.member(room_id, BOB, membership, sender)
        rows["at"] = row if not number else rows["at"]
    if "access list" in standing:
        await world.state(room_id, ALICE, "m.room.server_acl", ACL)
    rows["after"] = await world.message(room_id, ALICE, "after")
    await world.state(room_id, ALICE, "m.room.topic", {"topic": "after"})
    await asked.settled(room_id)
    return room_id, rows


@pytest.mark.parametrize("standing", STEPS)
@ensureDeferred
async def test_who_was_there_is_told_of_what_was_before(database: Database, standing: str) -> None:
    asked = Asked(database)
    room_id, rows = await been(asked, standing)
    for operation in OPERATIONS:
        for when, row in rows.items():
            answer = await ask(asked, operation, room_id, row.event_id)
            expected = (200, None) if when in TOLD.get(standing, ()) else (403, "M_FORBIDDEN")
            assert (answer.code, answer.json.get("errcode")) == expected, (operation, when)
            assert expected[0] != 200 or b"after" not in answer.body or when == "after", (operation, when)
    nearest = f"/timestamp_to_event/{room_id}"
    before = await asked.get(nearest, ts=rows["before"].origin_server_ts, dir="f")
    after = await asked.get(nearest, ts=rows["after"].origin_server_ts, dir="f")
    told = TOLD.get(standing, set())
    assert [before.code, after.code] == ([200, 200 if "after" in told else 404] if told else [403, 403])
    if told:
        assert before.json["event_id"] == rows["before"].event_id


@ensureDeferred
async def test_the_events_that_lead_to_a_kick_are_told_with_the_state_that_it_found(database: Database) -> None:
    asked = Asked(database)
    room_id, rows = await been(asked, "kicked")
    kick = rows["at"]
    missing = (await ask(asked, "get_missing_events", room_id, kick.event_id)).json["events"]
    assert missing[-1] == orjson.loads(rows["before"].json)
    history = (await ask(asked, "backfill", room_id, kick.event_id)).json["pdus"]
    assert history[:2] == [orjson.loads(kick.json), orjson.loads(rows["before"].json)]
    state = (await ask(asked, "state", room_id, kick.event_id)).json["pdus"]
    assert {e["state_key"]: e["content"]["membership"] for e in state if e["type"] == "m.room.member"} == {
        ALICE: "join",
        BOB: "join",
    }


@ensureDeferred
async def test_the_last_user_counts_and_the_last_time(database: Database) -> None:
    asked = Asked(database)
    room_id, world = await asked.room(BOB, CAROL), asked.world
    await world.member(room_id, BOB, "leave", ALICE)
    between = await world.message(room_id, ALICE, "carol is still there")
    await world.member(room_id, CAROL, "leave")
    alone = await world.message(room_id, ALICE, "nobody of them is there")
    await asked.settled(room_id)
    assert (await ask(asked, "event", room_id, between.event_id)).code == 200
    assert (await ask(asked, "event", room_id, alone.event_id)).code == 403
    await world.member(room_id, BOB)
    await world.member(room_id, BOB, "ban", ALICE)
    await world.member(room_id, CAROL, "ban", ALICE)
    later = await world.message(room_id, ALICE, "later")
    await asked.settled(room_id)
    assert (await ask(asked, "event", room_id, alone.event_id)).code == 200
    for operation in OPERATIONS:
        assert (await ask(asked, operation, room_id, later.event_id)).code == 403
        assert (await ask(asked, operation, room_id, alone.event_id, "other.example")).code == 403


@ensureDeferred
async def test_a_server_that_is_named_alike_was_not_there(database: Database) -> None:
    asked = Asked(database)
    room_id, rows = await been(asked, "kicked")
    for name in ("r.example", f"x{FAR}", f"{FAR}:8448"):
        assert (await ask(asked, "event", room_id, rows["before"].event_id, name)).code == 403


@pytest.mark.parametrize("visibility", ["world_readable", "shared", "invited", "joined"])
@ensureDeferred
async def test_what_was_said_before_is_seen_as_ever(database: Database, visibility: str) -> None:
    asked = Asked(database)
    room_id, world = await asked.room(visibility=visibility), asked.world
    early = await world.message(room_id, ALICE, "early")
    await world.member(room_id, BOB)
    present = await world.message(room_id, ALICE, "present")
    await world.member(room_id, BOB, "leave")
    away = await world.message(room_id, ALICE, "away")
    await world.member(room_id, BOB)
    kick = await world.member(room_id, BOB, "leave", ALICE, reason="so")
    await world.message(room_id, ALICE, "later")
    await asked.settled(room_id)
    is_open = visibility in ("world_readable", "shared")
    seen = {early.event_id: is_open, present.event_id: True, away.event_id: is_open}
    for event_id, is_seen in seen.items():
        (pdu,) = (await ask(asked, "event", room_id, event_id)).json["pdus"]
        assert bool(pdu["content"]) is is_seen
    (pdu,) = (await ask(asked, "event", room_id, kick.event_id)).json["pdus"]
    assert pdu["content"]["reason"] == "so"
    history = (await ask(asked, "backfill", room_id, kick.event_id)).json["pdus"]
    bodies = {pdu["content"].get("body") for pdu in history if pdu["type"] == "m.room.message"}
    assert bodies - {None} == ({"early", "present", "away"} if is_open else {"present"})


@ensureDeferred
async def test_of_starts_those_count_that_the_server_may_ask_about(database: Database) -> None:
    asked = Asked(database)
    room_id, rows = await been(asked, "kicked")
    elsewhere = await asked.world.message(await asked.room(), ALICE, "secret")
    await asked.settled(room_id)
    names = [rows[when].event_id for when in ("after", "before")]
    history = (await asked.get(f"/backfill/{room_id}", v=[*names, elsewhere.event_id], limit=100)).json["pdus"]
    assert history[0] == orjson.loads(rows["before"].json)
    assert b"secret" not in orjson.dumps(history)
    for latest in ([elsewhere.event_id], ["$unknown"], []):
        body = {"latest_events": latest, "earliest_events": []}
        assert (await asked.post(f"/get_missing_events/{room_id}", body)).code == 403


@ensureDeferred
async def test_of_what_was_fetched_later_the_depth_decides(database: Database) -> None:
    """History, and states that were told, have positions that say nothing of when they were."""
    asked = Asked(database)
    room_id, rows = await been(asked, "kicked")
    depth, world = rows["at"].depth, asked.world
    for number, (outlier, deep, code) in enumerate(
        [(True, depth - 1, 200), (True, depth + 1, 403), (False, depth - 1, 200), (False, depth + 1, 403)]
    ):
        row = await world.event(
            room_id, ALICE, "m.room.name", {}, "", stream=-10 - number, depth=deep, outlier=outlier, loses=True
        )
        assert (await ask(asked, "event", room_id, row.event_id)).code == code
    # What came late, and is told of by what refers to it.
    late = await world.event(room_id, ALICE, "m.room.message", {"body": "late"}, depth=depth - 1)
    assert (await ask(asked, "event", room_id, late.event_id)).code == 403
    extra = {"prev_events": [late.event_id]}
    known = await world.event(room_id, ALICE, "m.room.message", {}, stream=-20, depth=depth - 1, extra=extra)
    missing = await ask(asked, "get_missing_events", room_id, known.event_id)
    assert "late" in [pdu["content"].get("body") for pdu in missing.json["events"]]


@ensureDeferred
async def test_who_is_in_the_room_costs_nothing_more(database: Database) -> None:
    asked = Asked(database)
    costs = {}
    for standing in ("in the room", "kicked", "never"):
        room_id, rows = await been(asked, standing)
        for origin in (FAR, "test"):
            await ask(asked, "get_missing_events", room_id, rows["at"].event_id, origin)
        with database.counted() as counts:
            await ask(asked, "get_missing_events", room_id, rows["at"].event_id)
        costs[standing] = counts.read.total()
    assert costs == {"in the room": 1, "kicked": 4, "never": 2}
