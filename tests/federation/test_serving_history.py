"""What other servers get of a room's history: the graph as it is, within bounds, and nothing that they may not see."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred

from synapse.federation.serving.history import MAX_BACKFILL, MAX_MISSING
from synapse.storage.database import Database
from synapse.storage.timeline import TimelineRow
from tests.federation.asked import FAR, Asked

ALICE, BOB, CAROL = "@alice:test", f"@bob:{FAR}", f"@carol:{FAR}"


def bodies(pdus: list[dict[str, Any]]) -> list[Any]:
    return [pdu["content"].get("body") for pdu in pdus]


async def line(asked: Asked, room_id: str, count: int) -> list[TimelineRow]:
    return [await asked.world.message(room_id, ALICE, str(number)) for number in range(count)]


# -- the graph -------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_backfill_begins_with_what_was_asked_for(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await line(asked, room_id, 10)
    answer = (await asked.get(f"/backfill/{room_id}", v=said[7].event_id, limit=4)).json
    assert answer["origin"] == "test"
    assert bodies(answer["pdus"]) == ["7", "6", "5", "4"]
    both = (await asked.get(f"/backfill/{room_id}", v=[said[3].event_id, said[8].event_id], limit=3)).json
    assert bodies(both["pdus"]) == ["8", "7", "6"]


@ensureDeferred
async def test_history_comes_in_few_statements_and_no_more_than_the_limit(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await line(asked, room_id, MAX_BACKFILL + 20)
    last = said[-1].event_id
    assert (await asked.get(f"/backfill/{room_id}", v=last, limit=1)).code == 200
    with database.counted() as counts:
        answer = (await asked.get(f"/backfill/{room_id}", v=last, limit=100_000)).json
    assert len(answer["pdus"]) == MAX_BACKFILL
    assert counts.read.total() == 1
    with database.counted() as counts:
        answer = (await asked.post(f"/get_missing_events/{room_id}", {"latest_events": [last], "limit": 10**6})).json
    assert len(answer["events"]) == MAX_MISSING
    assert counts.read.total() == 1


@ensureDeferred
async def test_missing_events_lie_between_the_two_ends(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await line(asked, room_id, 10)

    async def missing(**body: Any) -> list[Any]:
        answer = await asked.post(f"/get_missing_events/{room_id}", body)
        assert answer.code == 200
        return bodies(answer.json["events"])

    latest, earliest = [said[8].event_id], [said[4].event_id]
    assert await missing(latest_events=latest, earliest_events=earliest) == ["5", "6", "7"]
    assert await missing(latest_events=latest, earliest_events=earliest, limit=2) == ["6", "7"]
    assert await missing(latest_events=latest, earliest_events=[], min_depth=said[6].depth) == ["6", "7"]
    assert await missing(latest_events=latest, earliest_events=[], limit=0) == []
    assert len(await missing(latest_events=latest, earliest_events=[])) == 10
    assert await missing(latest_events=["$unknown"], earliest_events=[]) == []
    assert await missing() == []


@ensureDeferred
async def test_walks_do_not_leave_the_room(database: Database) -> None:
    asked = Asked(database)
    room_id, other = await asked.room(BOB), await asked.room(ALICE)
    secret = await asked.world.message(other, ALICE, "secret")
    asked.world.rooms[room_id].prev = [secret.event_id]
    crossing = await asked.world.message(room_id, ALICE, "crossing")
    answer = await asked.get(f"/backfill/{room_id}", v=[crossing.event_id, secret.event_id], limit=10)
    assert bodies(answer.json["pdus"]) == ["crossing"]
    body = {"latest_events": [crossing.event_id], "earliest_events": []}
    assert (await asked.post(f"/get_missing_events/{room_id}", body)).json["events"] == []


@ensureDeferred
async def test_rejected_events_are_walked_through_and_soft_failed_ones_told_where_they_are_referred_to(
    database: Database,
) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    world = asked.world
    first = await world.message(room_id, ALICE, "first")
    await world.event(room_id, BOB, "m.room.message", {"body": "rejected"}, rejected="because")
    last = await world.message(room_id, ALICE, "last")
    world.rooms[room_id].prev = [first.event_id]
    failed = await world.event(room_id, BOB, "m.room.message", {"body": "failed"}, soft_failed=True)
    world.rooms[room_id].prev = [last.event_id]
    alone = await world.message(room_id, ALICE, "alone")
    world.rooms[room_id].prev = [alone.event_id, failed.event_id]
    merge = await world.message(room_id, BOB, "merge")

    async def backfill(row: TimelineRow) -> list[Any]:
        return bodies((await asked.get(f"/backfill/{room_id}", v=row.event_id, limit=5)).json["pdus"])

    assert (await backfill(alone))[:3] == ["alone", "last", "first"]
    assert set((await backfill(merge))[:5]) == {"merge", "alone", "last", "failed", "first"}


class Naive:
    """The same walks, one event after the other, over a graph that is all in memory."""

    def __init__(self, graph: dict[str, tuple[int, int, list[str]]]) -> None:
        self.graph = graph

    def backfill(self, starts: list[str], limit: int) -> list[str]:
        met, found = set(starts), []
        ahead = [each for each in starts if each in self.graph]
        while ahead and len(found) < limit:
            ahead.sort(key=lambda each: self.graph[each][:2])
            found.append(ahead.pop())
            for each in self.graph[found[-1]][2]:
                if each not in met and each in self.graph:
                    met.add(each)
                    ahead.append(each)
        return found

    def between(self, latest: list[str], earliest: list[str]) -> set[str]:
        """All that lies between, without a limit."""
        met = set(earliest) | set(latest)
        ahead, found = list(latest), set()
        while ahead:
            for each in self.graph[ahead.pop()][2]:
                if each not in met and each in self.graph:
                    met.add(each)
                    found.add(each)
                    ahead.append(each)
        return found


@ensureDeferred
async def test_any_graph_is_walked_as_one_event_after_the_other(database: Database) -> None:
    asked, chance = Asked(database), random.Random(7)
    room_id = await asked.room(BOB)
    graph: dict[str, tuple[int, int, list[str]]] = {}
    rows = []
    for number in range(100):
        newest = [row.event_id for row in rows[-6:]]
        prev = chance.sample(newest, min(len(newest), chance.choice((1, 1, 1, 2, 3))))
        asked.world.rooms[room_id].prev = [*prev, "$missing"] if number % 17 == 3 else prev
        depth = 10 + max((graph[each][0] for each in prev), default=0) - 9
        row = await asked.world.event(room_id, ALICE, "m.room.message", {"body": str(number)}, depth=depth)
        rows.append(row)
        graph[row.event_id] = (depth, row.stream, prev)
    naive = Naive(graph)
    for _ in range(40):
        starts = [row.event_id for row in chance.sample(rows, chance.choice((1, 2, 3)))]
        limit = chance.choice((1, 5, 30, 100))
        walked = [event.event_id for event in await asked.walk.backfill(room_id, starts, limit)]
        whole = naive.backfill(starts, 1000)
        assert walked[0] == whole[0]
        assert len(walked) == min(limit, len(whole))
        if limit == MAX_BACKFILL:  # a single stretch: then it is known what is the latest of all
            assert walked == whole[:limit]
        reached = set(starts).union(*(graph[each][2] for each in walked))
        assert set(walked) <= reached
        earliest = [row.event_id for row in chance.sample(rows, 2) if row.event_id not in starts]
        between = await asked.walk.missing(room_id, starts, earliest, MAX_MISSING, 0)
        all_between = naive.between(starts, earliest)
        assert {event.event_id for event in between} <= all_between
        assert len(between) == min(MAX_MISSING, len(all_between))


@ensureDeferred
async def test_depths_that_lie_make_no_walk_without_end(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    rows = []
    for number in range(30):  # each says that it is less deep than what it refers to
        rows.append(
            await asked.world.event(room_id, BOB, "m.room.message", {"body": str(number)}, depth=10**6 - number)
        )
    await line(asked, room_id, 200)
    with database.counted() as counts:
        answer = await asked.get(f"/backfill/{room_id}", v=rows[-1].event_id, limit=100)
    assert counts.read["served.stretch"] <= 4
    assert counts.read.total() <= 7
    assert bodies(answer.json["pdus"])[0] == "29"


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({"limit": 5}, "M_MISSING_PARAM"),
        ({"v": "$a"}, "M_MISSING_PARAM"),
        ({"v": "$a", "limit": "x"}, "M_INVALID_PARAM"),
        ({"v": "$a", "limit": "-1"}, "M_INVALID_PARAM"),
        ({"v": "$a", "limit": "9" * 40}, "M_INVALID_PARAM"),
    ],
)
@ensureDeferred
async def test_wrong_limits_are_refused(database: Database, query: dict[str, Any], errcode: str) -> None:
    assert (await Asked(database).get("/backfill/!r:test", **query)).errcode == errcode


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        {"latest_events": [1]},
        {"limit": "1"},
        {"limit": -1},
        {"latest_events": ["\0"]},
        {"min_depth": 1.5},
        {"earliest_events": {}},
    ],
)
@ensureDeferred
async def test_wrong_bodies_are_refused(database: Database, body: Any) -> None:
    answer = await Asked(database).post("/get_missing_events/!r:test", body)
    assert (answer.code, answer.errcode) == (400, "M_BAD_JSON")


# -- who may see what ------------------------------------------------------------------------------------------------

STEPS = {
    "never": [],
    "invited": [("invite", ALICE)],
    "knocking": [("knock", None)],
    "joined": [("join", None)],
    "left": [("join", None), ("leave", None)],
    "banned": [("join", None), ("ban", ALICE)],
}
SEEN = {
    "world_readable": set(STEPS),
    "shared": set(STEPS),
    "invited": {"invited", "joined"},
    "joined": {"joined"},
    "nonsense": set(STEPS),  # counts as shared
}


@pytest.mark.parametrize("standing", STEPS)
@pytest.mark.parametrize("visibility", SEEN)
@ensureDeferred
async def test_what_was_said_is_seen_by_who_may(database: Database, visibility: str, standing: str) -> None:
    """Bob is of the server that asks, `standing` is his when it was said; he is joined when his server asks."""
    asked = Asked(database)
    room_id = await asked.room(visibility=visibility)
    world = asked.world
    for membership, sender in STEPS[standing]:
        await world.member(room_id, BOB, membership, sender)
    said = await world.message(room_id, ALICE, "secret")
    if standing == "banned":
        await world.member(room_id, BOB, "leave", ALICE)
    await world.member(room_id, BOB)
    end = await world.message(room_id, ALICE, "end")
    await asked.settled(room_id)
    seen = standing in SEEN[visibility]
    (event,) = (await asked.get(f"/event/{said.event_id}")).json["pdus"]
    missing = await asked.post(f"/get_missing_events/{room_id}", {"latest_events": [end.event_id], "limit": 20})
    history = (await asked.get(f"/backfill/{room_id}", v=end.event_id, limit=20)).json["pdus"]
    for pdus in ([event], missing.json["events"], history):
        (copy,) = [pdu for pdu in pdus if pdu["origin_server_ts"] == said.origin_server_ts]
        assert copy["content"] == (orjson.loads(said.json)["content"] if seen else {})
        assert copy["prev_events"] == orjson.loads(said.json)["prev_events"]


@ensureDeferred
async def test_a_server_sees_what_any_of_its_users_may(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(visibility="joined")
    world = asked.world
    await world.member(room_id, CAROL)
    said = await world.message(room_id, ALICE, "carol was there")
    await world.member(room_id, CAROL, "leave")
    unseen = await world.message(room_id, ALICE, "nobody was there")
    await world.member(room_id, BOB)
    await asked.settled(room_id)
    for _ in range(2):
        pdus = (await asked.get(f"/backfill/{room_id}", v=unseen.event_id, limit=3)).json["pdus"]
        # Carol's leaving is her server's to see.
        assert [pdu["content"] for pdu in pdus] == [
            {},
            {"membership": "leave"},
            orjson.loads(said.json)["content"],
        ]
        # Of rooms that this server came into later, the table has not all members: then the events are looked at.
        await world.sql("DELETE FROM memberships")


@ensureDeferred
async def test_a_change_of_the_visibility_is_seen_from_both_sides(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(visibility="joined")
    world = asked.world
    content = {"history_visibility": "shared", "more": "x"}
    opened = await world.state(room_id, ALICE, "m.room.history_visibility", content)
    content = {"history_visibility": "joined", "more": "x"}
    closed = await world.state(room_id, ALICE, "m.room.history_visibility", content)
    unseen = await world.state(room_id, ALICE, "m.room.topic", {"topic": "secret"})
    content = {"history_visibility": "invited", "more": "x"}
    still = await world.state(room_id, ALICE, "m.room.history_visibility", content)
    await world.member(room_id, BOB)
    await asked.settled(room_id)

    async def more(row: TimelineRow) -> Any:
        return (await asked.get(f"/event/{row.event_id}")).json["pdus"][0]["content"].get("more")

    assert [await more(row) for row in (opened, closed, still)] == ["x", "x", None]
    assert (await asked.get(f"/event/{unseen.event_id}")).json["pdus"][0]["content"] == {}


@ensureDeferred
async def test_what_erased_users_wrote_is_pruned(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await asked.world.message(room_id, ALICE, "gone")
    await asked.world.sql(
        "INSERT INTO users (user_id, created_ts, erased, deactivated) VALUES (%s, 1, true, true)", ALICE
    )
    assert (await asked.get(f"/event/{said.event_id}")).json["pdus"][0]["content"] == {}
    history = await asked.get(f"/backfill/{room_id}", v=said.event_id, limit=1)
    assert b"gone" not in history.body


@ensureDeferred
async def test_hiding_costs_the_same_statements_for_any_number_of_events(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(visibility="joined")
    for number in range(40):
        await asked.world.member(room_id, f"@u{number}:test")
    end = await asked.world.message(room_id, ALICE, "end")
    await asked.world.member(room_id, BOB)
    await asked.settled(room_id)
    await asked.get(f"/event/{end.event_id}")
    for limit in (2, 40):
        with database.counted() as counts:
            answer = await asked.get(f"/backfill/{room_id}", v=end.event_id, limit=limit)
        assert len(answer.json["pdus"]) == limit
        assert counts.read.total() <= 5


# -- by time ---------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_the_event_nearest_to_a_moment_is_found(database: Database) -> None:
    asked = Asked(database)
    room_id = await asked.room(BOB)
    said = await line(asked, room_id, 3)
    await asked.world.event(room_id, BOB, "m.room.message", {}, rejected="because")
    middle = said[1].origin_server_ts
    for ts, direction, row in (
        (middle, "f", said[1]),
        (middle, "b", said[1]),
        (middle + 1, "f", said[2]),
        (middle - 1, "b", said[0]),
        (-5, "f", None),
        (2**50, "b", said[2]),
    ):
        answer = await asked.get(f"/timestamp_to_event/{room_id}", ts=ts, dir=direction)
        expected = row or await asked.first(room_id)
        assert answer.json == {"event_id": expected.event_id, "origin_server_ts": expected.origin_server_ts}
    for ts, direction in ((2**55, "f"), (0, "b")):
        answer = await asked.get(f"/timestamp_to_event/{room_id}", ts=ts, dir=direction)
        assert (answer.code, answer.errcode) == (404, "M_NOT_FOUND")
    refused = await asked.get(f"/timestamp_to_event/{room_id}", ts=0, dir="f", origin="other.example")
    assert refused.code == 403
