"""What other servers get of rooms: events, state, what authorises them. And what they do not get."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred

from synapse.federation.serving import long_answers
from synapse.storage.database import Database, Transaction
from tests.federation.asked import FAR, Asked

ALICE, BOB = "@alice:test", f"@bob:{FAR}"


def paths(room_id: str, event_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Everything that can be asked about an event of a room."""
    return [
        (f"/event/{event_id}", {}),
        (f"/state/{room_id}", {"event_id": event_id}),
        (f"/state_ids/{room_id}", {"event_id": event_id}),
        (f"/event_auth/{room_id}/{event_id}", {}),
        (f"/backfill/{room_id}", {"v": event_id, "limit": 5}),
    ]


@ensureDeferred
async def test_events_are_handed_on_as_they_are_stored(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await asked.world.message(room_id, ALICE, "a\u0000b \u2028")
    answer = await asked.get(f"/event/{said.event_id}")
    assert answer.code == 200
    assert answer.json["origin"] == "test"
    assert said.json.encode() in answer.body
    assert len(answer.json["pdus"]) == 1


@ensureDeferred
async def test_nothing_is_told_to_servers_that_are_not_in_the_room(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await asked.world.message(room_id, ALICE)
    for path, query in paths(room_id, said.event_id):
        assert (await asked.get(path, **query)).code == 200
        refused = await asked.get(path, origin="other.example", **query)
        assert (refused.code, refused.errcode) == (403, "M_FORBIDDEN"), path
        assert (await asked.get(path, origin=None, **query)).code == 401
    body = {"latest_events": [said.event_id], "earliest_events": []}
    assert (await asked.post(f"/get_missing_events/{room_id}", body)).code == 200
    assert (await asked.post(f"/get_missing_events/{room_id}", body, origin="other.example")).code == 403


@ensureDeferred
async def test_nothing_is_told_to_servers_that_the_access_list_keeps_out(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB, m__room__server_acl={"allow": ["*"], "deny": ["far.*"]})
    said = await asked.world.message(room_id, ALICE)
    for path, query in paths(room_id, said.event_id):
        refused = await asked.get(path, **query)
        assert (refused.code, refused.errcode) == (403, "M_FORBIDDEN"), path
    refused = await asked.post(f"/get_missing_events/{room_id}", {})
    assert (refused.code, refused.errcode) == (403, "M_FORBIDDEN")


@ensureDeferred
async def test_what_is_not_in_the_room_is_not_found(database: Database) -> None:
    asked = Asked(database)
    room_id, other = await asked.room(BOB), await asked.room(ALICE)
    elsewhere = (await asked.world.message(other, ALICE)).event_id
    for event_id in ("$unknown", elsewhere):
        for path, query in paths(room_id, event_id)[1:4]:
            answer = await asked.get(path, **query)
            assert (answer.code, answer.errcode) == (404, "M_NOT_FOUND"), path
        # Who asks for history is told what there is.
        assert (await asked.get(f"/backfill/{room_id}", v=event_id, limit=5)).json["pdus"] == []
    assert (await asked.get("/event/$unknown")).errcode == "M_NOT_FOUND"


@ensureDeferred
async def test_rejected_events_are_not_found_and_soft_failed_ones_are(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    rejected = await asked.world.event(room_id, BOB, "m.room.message", {"body": "no"}, rejected="because")
    failed = await asked.world.event(room_id, BOB, "m.room.message", {"body": "late"}, soft_failed=True)
    for path, query in paths(room_id, rejected.event_id)[:4]:
        assert (await asked.get(path, **query)).errcode == "M_NOT_FOUND", path
    assert (await asked.get(f"/event/{failed.event_id}")).json["pdus"] == [orjson.loads(failed.json)]


@ensureDeferred
async def test_the_state_is_what_the_event_found(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    first = await asked.world.state(room_id, ALICE, "m.room.topic", {"topic": "1"})
    before = dict(asked.world.rooms[room_id].state)
    second = await asked.world.state(room_id, ALICE, "m.room.topic", {"topic": "2"})
    after = dict(asked.world.rooms[room_id].state)
    said = await asked.world.message(room_id, ALICE)
    for row, state in ((second, before), (said, after)):
        ids = (await asked.get(f"/state_ids/{room_id}", event_id=row.event_id)).json
        assert sorted(ids["pdu_ids"]) == sorted(state.values())
        events = (await asked.get(f"/state/{room_id}", event_id=row.event_id)).json["pdus"]
        assert {(e["type"], e["state_key"]) for e in events} == set(state)
        assert {e["content"].get("topic") for e in events} - {None} == {"1" if row is second else "2"}
    create = before["m.room.create", ""]
    assert (await asked.get(f"/state_ids/{room_id}", event_id=create)).json == {"auth_chain_ids": [], "pdu_ids": []}
    assert first.event_id in before.values()


@ensureDeferred
async def test_the_state_at_an_outlier_is_not_known(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    outlier = await asked.world.event(room_id, BOB, "m.room.topic", {"topic": "?"}, "", outlier=True)
    for path in ("state", "state_ids"):
        answer = await asked.get(f"/{path}/{room_id}", event_id=outlier.event_id)
        assert (answer.code, answer.errcode) == (404, "M_NOT_FOUND")
    assert (await asked.get(f"/backfill/{room_id}", v=outlier.event_id, limit=5)).json["pdus"] == []


@ensureDeferred
async def test_state_comes_with_all_that_authorises_it(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    world = asked.world
    old = await world.event(room_id, ALICE, "m.room.power_levels", {"users": {}}, "", outlier=True)
    older = await world.event(room_id, ALICE, "m.room.power_levels", {"users": {"@x:y": 1}}, "", outlier=True)
    topic = await world.state(room_id, ALICE, "m.room.topic", {"topic": "t"})
    await asked.cites(topic, old)
    await asked.cites(old, older)
    said = await world.event(room_id, ALICE, "m.room.message", {}, extra={"auth_events": [topic.event_id]})
    ids = (await asked.get(f"/state_ids/{room_id}", event_id=said.event_id)).json
    assert sorted(ids["auth_chain_ids"]) == sorted([old.event_id, older.event_id])
    chain = (await asked.get(f"/state/{room_id}", event_id=said.event_id)).json["auth_chain"]
    assert sorted(map(orjson.dumps, chain)) == sorted(orjson.dumps(orjson.loads(row.json)) for row in (old, older))
    # A message's own auth events are stored in its JSON alone.
    chain = (await asked.get(f"/event_auth/{room_id}/{said.event_id}")).json["auth_chain"]
    assert {e["type"] for e in chain} == {"m.room.topic", "m.room.power_levels"}
    assert len(chain) == 3


@ensureDeferred
async def test_redacted_events_are_served_redacted(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await asked.world.message(room_id, ALICE, "a secret")
    topic = await asked.world.state(room_id, ALICE, "m.room.topic", {"topic": "a secret"})
    await asked.world.redact(said, ALICE)
    await asked.world.redact(topic, ALICE)
    last = await asked.world.message(room_id, ALICE)
    for path, query in [*paths(room_id, last.event_id), *paths(room_id, said.event_id)]:
        answer = await asked.get(path, **query)
        assert answer.code == 200
        assert b"a secret" not in answer.body
    assert (await asked.get(f"/event/{said.event_id}")).json["pdus"][0]["content"] == {}


@ensureDeferred
async def test_the_oldest_rooms_refer_to_events_by_pairs(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB, version="1")
    world = asked.world
    cited = await world.state(room_id, ALICE, "m.room.topic", {"topic": "t"})
    first = await world.message(room_id, ALICE, "1")
    pairs = {"prev_events": [[first.event_id, {"sha256": ""}]], "auth_events": [[cited.event_id, {"sha256": ""}]]}
    second = await world.event(room_id, ALICE, "m.room.message", {"body": "2"}, extra=pairs)
    answer = await asked.get(f"/backfill/{room_id}", v=second.event_id, limit=2)
    assert [e["content"]["body"] for e in answer.json["pdus"]] == ["2", "1"]
    chain = (await asked.get(f"/event_auth/{room_id}/{second.event_id}")).json["auth_chain"]
    assert [e["type"] for e in chain] == ["m.room.topic"]


def _crowd(txn: Transaction, room_id: str, group: int, size: int) -> None:
    """Members of another server, in the state of a group, each citing the one before."""
    txn.execute(
        """
        INSERT INTO events (stream_ordering, event_id, room_id, depth, type, state_key, sender, origin_server_ts,
            received_ts, outlier, json)
        SELECT 1000000 + n, '$member' || n, %(room)s, 1, 'm.room.member', '@u' || n || ':far.example', '@u' || n
            || ':far.example', 1, 1, true, '{"auth_events":[],"n":' || n || ',"prev_events":[]}'
        FROM generate_series(1, %(size)s) AS n;
        INSERT INTO state_group_entries
        SELECT %(group)s, 'm.room.member', '@u' || n || ':far.example', '$member' || n
        FROM generate_series(1, %(size)s) AS n;
        INSERT INTO event_auth SELECT '$member' || n, '$member' || n - 1 FROM generate_series(2, %(size)s) AS n;
        """,
        {"room": room_id, "group": group, "size": size},
    )


@pytest.mark.parametrize("size", [10, 300])
@ensureDeferred
async def test_a_large_room_costs_a_statement_more_for_each_piece_of_its_events(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(long_answers, "PIECE", 100)
    monkeypatch.setattr(long_answers, "IN_MEMORY", 200)
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await asked.world.message(room_id, ALICE)
    assert said.state_group is not None
    await database.write("crowd", _crowd, room_id, said.state_group, size)
    await asked.hosts.joined(room_id)
    await asked.door.check_acl(FAR, room_id)
    for path, statements in (("state_ids", 3), ("state", 5 if size < 100 else 3 + 4 + 3)):
        with database.counted() as counts:
            answer = await asked.get(f"/{path}/{room_id}", event_id=said.event_id)
        assert counts.read.total() == statements
        assert not counts.written
        found = answer.json
        assert len(found.get("pdus", found.get("pdu_ids"))) == size + 5
        assert len(found.get("auth_chain", found.get("auth_chain_ids"))) == size - 1
