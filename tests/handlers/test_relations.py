"""Relations of an event, threads of a room, and the event nearest to a moment: pages, order, and who sees what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.handlers.pagination import PageRequest
from synapse.handlers.relations import RelationsRequest
from synapse.storage.database import Database
from synapse.storage.timeline import TimelineRow
from synapse.sync.tokens import RoomToken
from tests.handlers.test_bundles import edit, refer, related, reply
from tests.sync.harness import Harness
from tests.sync.readers import Readers

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


@pytest.fixture
def h(database: Database) -> Iterator[Harness]:
    return Harness(database)


async def relating(
    h: Harness,
    row: TimelineRow,
    rel_type: str | None = None,
    event_type: str | None = None,
    *,
    user: str = ALICE,
    dir: str = "b",
    start: str | None = None,
    end: str | None = None,
    limit: int = 10,
    recurse: bool | None = None,
) -> Any:
    first, last = (None if token is None else RoomToken.parse(token) for token in (start, end))
    page = PageRequest(user, "DEV", row.room_id, dir == "b", first, last, limit)
    request = RelationsRequest(page, row.event_id, rel_type, event_type, recurse)
    return orjson.loads(await Readers(h).relations.of(request))


async def threads(h: Harness, room_id: str, user: str = ALICE, start: str | None = None, **options: Any) -> Any:
    first = None if start is None else RoomToken.parse(start)
    return orjson.loads(await Readers(h).threads.of(user, "DEV", room_id, start=first, **options))


def ids(answer: Any) -> list[str]:
    return [event["event_id"] for event in answer["chunk"]]


async def all_of(ask: Callable[[str | None], Awaitable[Any]]) -> list[str]:
    """The event ids of all pages."""
    found: list[str] = []
    start: str | None = None
    while True:
        answer = await ask(start)
        found += ids(answer)
        if "next_batch" not in answer:
            return found
        start = answer["next_batch"]


async def ignore(h: Harness, user: str, ignored: str) -> None:
    content = orjson.dumps({"ignored_users": {ignored: {}}}).decode()
    await h.world.sql("INSERT INTO account_data VALUES (%s, '', 'm.ignored_user_list', %s, 1)", user, content)
    h.ignored_lists.clear()


# -- relations -----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_relations_by_type(h: Harness) -> None:
    room, other = await h.world.room(ALICE), await h.world.room(ALICE)
    row = await h.world.message(room, ALICE, "parent")
    edited = await edit(h, row, "x")
    voted = await refer(h, row)
    replied = await reply(h, row)
    reaction = await h.world.event(room, BOB, "m.reaction", related("m.annotation", row, key="!"))
    gone = await h.world.event(room, BOB, "m.reaction", related("m.annotation", row, key="?"))
    await h.world.redact(gone, BOB)
    await h.world.event(other, ALICE, "m.reaction", related("m.annotation", row))
    await h.world.event(room, BOB, "m.room.message", {"m.relates_to": {"m.in_reply_to": {"event_id": row.event_id}}})
    await h.world.event(room, BOB, "m.reaction", related("m.annotation", row), soft_failed=True)
    every = [reaction, replied, voted, edited]
    answer = await relating(h, row)
    assert ids(answer) == [child.event_id for child in every]
    assert answer.keys() == {"chunk"}
    assert answer["chunk"][0]["room_id"] == room
    assert ids(await relating(h, row, dir="f")) == [child.event_id for child in every[::-1]]
    assert ids(await relating(h, row, "m.annotation")) == [reaction.event_id]
    assert ids(await relating(h, row, "m.annotation", "m.reaction")) == [reaction.event_id]
    assert ids(await relating(h, row, "m.annotation", "m.room.message")) == []
    assert ids(await relating(h, row, "m.other")) == []
    await h.world.redact(row, ALICE)
    assert ids(await relating(h, row)) == [child.event_id for child in every]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_pages_of_relations(h: Harness, limit: int) -> None:
    room = await h.world.room(ALICE)
    row = await h.world.message(room, ALICE)
    children = []
    for number in range(5):
        children.append((await reply(h, row)).event_id)
        await h.world.message(room, ALICE, str(number))
    for direction, expected in (("b", children[::-1]), ("f", children)):
        assert await all_of(lambda s, d=direction: relating(h, row, limit=limit, dir=d, start=s)) == expected  # type: ignore[misc]
    first = await relating(h, row, limit=limit)
    if limit < 5:
        later = await relating(h, row, limit=limit, start=first["next_batch"])
        assert later["prev_batch"] == first["next_batch"]
        again = await relating(h, row, limit=50, start=later["prev_batch"], dir="f")
        assert ids(again) == ids(first)[::-1]
        # As the specification has it: with the ends of the second page as its bounds, nothing is left of the first.
        assert ids(await relating(h, row, limit=50, start=first["next_batch"], end=first["next_batch"])) == []
        assert ids(await relating(h, row, limit=50, end=first["next_batch"])) == ids(first)


@pytest_twisted.ensureDeferred
async def test_tokens_of_sync_and_messages_bound_relations(h: Harness) -> None:
    room = await h.world.room(ALICE)
    row = await h.world.message(room, ALICE)
    old = await reply(h, row)
    point = (await h.sync(ALICE))["next_batch"]
    new = await reply(h, row)
    assert ids(await relating(h, row, start=point)) == [old.event_id]
    assert ids(await relating(h, row, start=point, dir="f")) == [new.event_id]
    assert ids(await relating(h, row, end=point)) == [new.event_id]
    request = PageRequest(ALICE, "DEV", room, True, limit=1)
    token = orjson.loads(await Readers(h).pagination.messages(request))["end"]
    assert ids(await relating(h, row, start=token)) == [old.event_id]


@pytest_twisted.ensureDeferred
async def test_relations_of_relations(h: Harness) -> None:
    room = await h.world.room(ALICE)
    root = await h.world.message(room, ALICE)
    threaded = await reply(h, root)
    edited = await edit(h, threaded, "x", BOB)
    reaction = await h.world.event(room, BOB, "m.reaction", related("m.annotation", threaded))
    third = await refer(h, reaction)
    await refer(h, third)  # too far
    gone = await reply(h, root)
    await refer(h, gone)
    await h.world.redact(gone, BOB)
    answer = await relating(h, root, recurse=True)
    assert ids(answer) == [third.event_id, reaction.event_id, edited.event_id, threaded.event_id]
    assert answer["recursion_depth"] == 3
    assert ids(await relating(h, root, "m.annotation", recurse=True)) == []
    only = await relating(h, root, recurse=False)
    assert (ids(only), only["recursion_depth"]) == ([threaded.event_id], 0)
    pages = await all_of(lambda s: relating(h, root, recurse=True, limit=1, start=s))
    assert pages == ids(answer)


@pytest_twisted.ensureDeferred
async def test_relations_are_for_those_who_see_the_parent(h: Harness) -> None:
    room = await h.world.room(ALICE, visibility="joined")
    hidden = await h.world.message(room, ALICE)
    await h.world.member(room, BOB)
    row = await h.world.message(room, ALICE)
    early = await reply(h, row, ALICE)
    await reply(h, hidden, ALICE)
    assert ids(await relating(h, row, user=BOB)) == [early.event_id]
    await h.world.member(room, BOB, "leave")
    await reply(h, row, ALICE)
    assert ids(await relating(h, row, user=BOB)) == [early.event_id]
    nothing = row._replace(event_id="$nothing")
    for parent, user in ((hidden, BOB), (row, CAROL), (nothing, ALICE), (row._replace(room_id="!x:test"), ALICE)):
        with pytest.raises(MatrixError) as refused:
            await relating(h, parent, user=user)
        assert (refused.value.code, refused.value.errcode) == (404, "M_NOT_FOUND")


@pytest_twisted.ensureDeferred
async def test_relations_of_ignored_users(h: Harness) -> None:
    room = await h.world.room(ALICE)
    row = await h.world.message(room, BOB)
    await reply(h, row, BOB)
    seen = await reply(h, row, CAROL)
    await ignore(h, ALICE, BOB)
    assert ids(await relating(h, row)) == [seen.event_id]


# -- threads -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_threads_come_in_the_order_of_their_latest_events(h: Harness) -> None:
    room = await h.world.room(ALICE)
    roots = [await h.world.message(room, ALICE, str(number)) for number in range(4)]
    assert await threads(h, room) == {"chunk": []}
    for number in (0, 1, 2, 0):
        last = await reply(h, roots[number])
    answer = await threads(h, room)
    expected = [roots[number].event_id for number in (0, 2, 1)]
    assert ids(answer) == expected
    told = answer["chunk"][0]["unsigned"]["m.relations"]["m.thread"]
    assert (told["count"], told["latest_event"]["event_id"]) == (2, last.event_id)
    for limit in (1, 2):
        assert await all_of(lambda s, n=limit: threads(h, room, start=s, limit=n)) == expected  # type: ignore[misc]
    await h.world.redact(last, BOB)
    assert ids(await threads(h, room)) == [roots[number].event_id for number in (2, 1, 0)]
    # A thread of which nothing is left, one that begins with a relation, and one that begins elsewhere are none.
    gone = await reply(h, roots[3])
    await h.world.redact(gone, BOB)
    await reply(h, gone)
    await reply(h, await h.world.message(await h.world.room(ALICE), ALICE), room=room)
    assert ids(await threads(h, room)) == [roots[number].event_id for number in (2, 1, 0)]
    with pytest.raises(MatrixError) as refused:
        await threads(h, room, start="s5")
    assert (refused.value.code, refused.value.errcode) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_threads_in_which_one_took_part(h: Harness) -> None:
    room = await h.world.room(ALICE)
    for user in (BOB, CAROL):
        await h.world.member(room, user)
    roots = [await h.world.message(room, user) for user in (ALICE, BOB, CAROL)]
    for root in roots:
        await reply(h, root, BOB)
    taken_back = await reply(h, roots[1], CAROL)
    await h.world.redact(taken_back, CAROL)
    for user, numbers in ((ALICE, [0]), (BOB, [2, 1, 0]), (CAROL, [2])):
        found = ids(await threads(h, room, user, participated=True))
        assert found == [roots[number].event_id for number in numbers], user


@pytest_twisted.ensureDeferred
async def test_threads_without_ignored_users(h: Harness) -> None:
    room = await h.world.room(ALICE)
    roots = [await h.world.message(room, sender, "root") for sender in (ALICE, CAROL, BOB)]
    for root in roots:
        await reply(h, root, CAROL)
    await reply(h, roots[0], BOB)
    only = await h.world.message(room, ALICE)
    await reply(h, only, BOB)
    await edit(h, roots[2], "edited", BOB)
    await ignore(h, ALICE, BOB)
    answer = await threads(h, room)
    assert ids(answer) == [roots[number].event_id for number in (2, 1, 0)]
    assert answer["chunk"][0]["content"] == {}
    assert answer["chunk"][0]["unsigned"]["m.relations"].keys() == {"m.thread"}
    assert answer["chunk"][2]["unsigned"]["m.relations"]["m.thread"]["count"] == 1
    assert await all_of(lambda s: threads(h, room, start=s, limit=1)) == ids(answer)


@pytest_twisted.ensureDeferred
async def test_threads_as_they_were_when_one_left(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    roots = [await h.world.message(room, ALICE) for _ in range(3)]
    for root in roots[:2]:
        await reply(h, root, ALICE)
    await h.world.member(room, BOB, "leave")
    for number in (0, 2):
        await reply(h, roots[number], ALICE)
    assert ids(await threads(h, room, BOB)) == [roots[1].event_id, roots[0].event_id]
    assert ids(await threads(h, room)) == [roots[number].event_id for number in (2, 0, 1)]
    with pytest.raises(MatrixError) as refused:
        await threads(h, room, CAROL)
    assert (refused.value.code, refused.value.errcode) == (403, "M_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_threads_of_which_nothing_is_to_be_seen(h: Harness) -> None:
    room = await h.world.room(ALICE, visibility="joined")
    await h.world.member(room, BOB)
    root = await h.world.message(room, ALICE)
    await edit(h, root, "seen")
    await h.world.member(room, BOB, "leave")
    await reply(h, root, ALICE)
    await h.world.member(room, BOB)
    assert ids(await threads(h, room, BOB)) == []
    await reply(h, root, ALICE)
    assert ids(await threads(h, room, BOB)) == [root.event_id]


@pytest_twisted.ensureDeferred
async def test_a_page_of_threads_takes_three_statements(h: Harness) -> None:
    room = await h.world.room(BOB)
    await h.world.member(room, ALICE)
    for _ in range(5):
        await reply(h, await h.world.message(room, BOB))
    await threads(h, room)
    with h.db.counted() as counts:
        assert len(ids(await threads(h, room))) == 5
    assert counts.statements_read == 2, counts.sql


# -- moments -------------------------------------------------------------------------------------------------------


async def nearest(h: Harness, room: str, timestamp: int, dir: str, user: str = ALICE) -> str | None:
    try:
        return (await Readers(h).nearest.find(user, room, timestamp, backwards=dir == "b")).event_id
    except MatrixError as error:
        if error.errcode != "M_NOT_FOUND":
            raise
        return None


@pytest_twisted.ensureDeferred
async def test_the_event_nearest_to_a_moment(h: Harness) -> None:
    room = await h.world.room(ALICE)
    times = (2_000_000_000_000, 2_000_000_000_010, 2_000_000_000_010, 1_999_999_999_999)
    rows = [await h.world.event(room, ALICE, "m.room.message", {"body": str(ts)}, origin_server_ts=ts) for ts in times]
    await h.world.event(room, ALICE, "m.x", {}, origin_server_ts=2_000_000_000_005, soft_failed=True)
    for moment, direction, expected in (
        (2_000_000_000_000, "f", 0),
        (2_000_000_000_000, "b", 0),
        (2_000_000_000_001, "f", 1),
        (2_000_000_000_009, "b", 0),
        (2_000_000_000_010, "b", 2),
        (1_999_999_999_998, "f", 3),
        (2**53, "b", 2),
    ):
        assert await nearest(h, room, moment, direction) == rows[expected].event_id, (moment, direction)
    assert await nearest(h, room, 2_000_000_000_011, "f") is None
    assert await nearest(h, room, 1, "b") is None


@pytest_twisted.ensureDeferred
async def test_only_events_that_one_may_see_are_near(h: Harness) -> None:
    room = await h.world.room(ALICE, visibility="joined")
    closed = h.world.stream
    for number in range(70):  # more than are looked at in the first batches
        hidden = await h.world.message(room, ALICE, str(number))
    joined = await h.world.member(room, BOB)
    seen = await h.world.message(room, CAROL)
    left = await h.world.member(room, BOB, "leave")
    await h.world.message(room, ALICE)
    assert await nearest(h, room, hidden.origin_server_ts - 69, "f", BOB) == joined.event_id
    # Before the room was closed to those who come later, it was not.
    assert await nearest(h, room, hidden.origin_server_ts, "b", BOB) == f"${closed:043d}"
    assert await nearest(h, room, 2**53, "b", BOB) == left.event_id
    assert await nearest(h, room, seen.origin_server_ts, "f", BOB) == seen.event_id
    await ignore(h, BOB, CAROL)
    assert await nearest(h, room, seen.origin_server_ts, "f", BOB) == left.event_id
    with pytest.raises(MatrixError) as refused:
        await nearest(h, "!x:test", 0, "f", BOB)
    assert refused.value.errcode == "M_FORBIDDEN"
