"""What happened around an event: how much of it, who may see it, and the state at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.api.filters import parse_room_event_filter
from synapse.handlers.pagination import PageRequest
from synapse.storage.database import Database
from synapse.storage.timeline import TimelineRow
from synapse.sync.tokens import RoomToken
from tests.sync.harness import Harness
from tests.sync.readers import Readers

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


@pytest.fixture
def h(database: Database) -> Iterator[Harness]:
    return Harness(database)


async def around(h: Harness, row: TimelineRow, user: str = ALICE, limit: int = 10, **wanted: Any) -> dict[str, Any]:
    room_filter = parse_room_event_filter(wanted)
    body = await Readers(h).context.around(user, "DEV", row.room_id, row.event_id, limit, room_filter)
    answer: dict[str, Any] = orjson.loads(body)
    return answer


def bodies(events: list[dict[str, Any]]) -> list[Any]:
    return [event["content"].get("body", event["type"]) for event in events]


def state_of(answer: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(event["type"], event["state_key"]): event["content"] for event in answer["state"]}


@pytest_twisted.ensureDeferred
async def test_the_limit_is_shared_by_both_sides(h: Harness) -> None:
    room = await h.world.room(ALICE)
    rows = [await h.world.message(room, ALICE, str(number)) for number in range(9)]
    for limit, before, after in (
        (0, [], []),
        (1, ["3"], []),
        (2, ["3"], ["5"]),
        (3, ["3", "2"], ["5"]),
        (6, ["3", "2", "1"], ["5", "6", "7"]),
    ):
        answer = await around(h, rows[4], limit=limit)
        assert (bodies(answer["events_before"]), bodies(answer["events_after"])) == (before, after), limit
        assert answer["event"]["event_id"] == rows[4].event_id
    # What there is not on one side, the other may have.
    answer = await around(h, rows[0], limit=14, types=["m.room.message"])
    assert (bodies(answer["events_before"]), len(answer["events_after"])) == ([], 8)


@pytest_twisted.ensureDeferred
async def test_the_tokens_lead_on_to_both_sides(h: Harness) -> None:
    room = await h.world.room(ALICE)
    rows = [await h.world.message(room, ALICE, str(number)) for number in range(9)]
    for limit in (0, 3, 4):
        answer = await around(h, rows[4], limit=limit)
        told = [*answer["events_before"][::-1], answer["event"], *answer["events_after"]]
        for token, backwards in (("start", True), ("end", False)):
            start = RoomToken.parse(answer[token])
            page = orjson.loads(
                await Readers(h).pagination.messages(PageRequest(ALICE, "DEV", room, backwards, start, limit=50))
            )["chunk"]
            told = [*page[::-1], *told] if backwards else [*told, *page]
        assert [b for b in bodies(told) if b.isdigit()] == [str(number) for number in range(9)], limit


@pytest_twisted.ensureDeferred
async def test_the_filter_is_for_all_but_the_event(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.message(room, BOB, "before")
    row = await h.world.message(room, ALICE, "this")
    await h.world.message(room, ALICE, "between")
    await h.world.message(room, BOB, "after")
    await h.world.member(room, BOB)
    await h.world.message(room, BOB, "later")
    answer = await around(h, row, senders=[BOB])
    assert bodies(answer["events_before"]) == ["before"]
    assert bodies(answer["events_after"]) == ["after", "m.room.member", "later"]
    assert set(state_of(answer)) == {("m.room.member", BOB)}
    answer = await around(h, row, lazy_load_members=True, limit=2)
    members = {key for kind, key in state_of(answer) if kind == "m.room.member"}
    assert members == {ALICE}
    assert ("m.room.create", "") in state_of(answer)


@pytest_twisted.ensureDeferred
async def test_the_state_is_that_at_the_last_event(h: Harness) -> None:
    room = await h.world.room(ALICE, m__room__topic={"topic": "first"})
    row = await h.world.message(room, ALICE, "this")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "second"})
    await h.world.message(room, ALICE, "next")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "third"})
    for limit, topic in ((0, "first"), (2, "second"), (10, "third")):
        assert state_of(await around(h, row, limit=limit))["m.room.topic", ""] == {"topic": topic}, limit


@pytest_twisted.ensureDeferred
async def test_nothing_is_told_of_what_the_user_may_not_see(h: Harness) -> None:
    room = await h.world.room(ALICE, visibility="joined", m__room__topic={"topic": "open"})
    hidden = await h.world.message(room, ALICE, "early")
    await h.world.member(room, BOB)
    row = await h.world.message(room, ALICE, "this")
    await h.world.member(room, BOB, "leave")
    await h.world.state(room, ALICE, "m.room.topic", {"topic": "secret"})
    await h.world.message(room, ALICE, "late")
    for _ in range(2):  # having left; and then, having come back and left again
        answer = await around(h, row, BOB)
        assert bodies(answer["events_before"])[0] == "m.room.member"
        assert "early" not in bodies(answer["events_before"])
        assert "late" not in bodies(answer["events_after"])
        near = await around(h, row, BOB, limit=6)
        assert state_of(near)["m.room.topic", ""] == {"topic": "open"}
        await h.world.member(room, BOB)
        await h.world.message(room, ALICE, "back")
        await h.world.member(room, BOB, "leave")
    for user, target, code in ((BOB, hidden, 404), (CAROL, row, 403), (ALICE, row._replace(event_id="$x"), 404)):
        with pytest.raises(MatrixError) as refused:
            await around(h, target, user)
        assert refused.value.code == code


@pytest_twisted.ensureDeferred
async def test_ignored_users_are_not_around(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.message(room, BOB, "ignored")
    row = await h.world.message(room, ALICE, "this")
    ignored = await h.world.message(room, BOB, "ignored")
    topic = await h.world.state(room, BOB, "m.room.topic", {"topic": "x"})
    content = orjson.dumps({"ignored_users": {BOB: {}}}).decode()
    await h.world.sql("INSERT INTO account_data VALUES (%s, '', 'm.ignored_user_list', %s, 1)", ALICE, content)
    answer = await around(h, row)
    assert "ignored" not in bodies([*answer["events_before"], *answer["events_after"]])
    assert bodies(answer["events_after"]) == ["m.room.topic"]
    assert (await around(h, topic))["event"]["event_id"] == topic.event_id
    with pytest.raises(MatrixError) as refused:
        await around(h, ignored)
    assert refused.value.code == 404
