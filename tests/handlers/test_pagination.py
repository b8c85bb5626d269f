"""Pages of a room's history: every event once, whatever the direction, the forks and the page size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.api.filters import parse_room_event_filter
from synapse.handlers.pagination import PageRequest
from synapse.handlers.remote.gaps import Told
from synapse.storage.awaited import Stretch
from synapse.storage.database import Database
from synapse.storage.timeline import OLDEST, TimelineRow
from synapse.sync.tokens import RoomToken
from tests.support.world import World
from tests.sync.harness import Harness
from tests.sync.readers import Readers

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


@pytest.fixture
def h(database: Database) -> Iterator[Harness]:
    return Harness(database)


async def page(
    h: Harness, room_id: str, user_id: str = ALICE, *, start: str | None = None, end: str | None = None, **options: Any
) -> dict[str, Any]:
    request = PageRequest(
        user_id,
        options.pop("device_id", "DEV"),
        room_id,
        options.pop("dir", "b") == "b",
        None if start is None else RoomToken.parse(start),
        None if end is None else RoomToken.parse(end),
        options.pop("limit", 10),
        parse_room_event_filter(options),
    )
    answer: dict[str, Any] = orjson.loads(await Readers(h).pagination.messages(request))
    return answer


async def all_pages(h: Harness, room_id: str, start: str | None, **options: Any) -> list[str]:
    """Event ids of all pages from `start` on."""
    found: list[str] = []
    for _ in range(100):
        answer = await page(h, room_id, start=start, **options)
        found += [event["event_id"] for event in answer["chunk"]]
        if "end" not in answer:
            return found
        start = answer["end"]
    raise AssertionError("the pages do not end")


async def messages(world: World, room_id: str, count: int) -> list[str]:
    return [(await world.message(room_id, ALICE, str(number))).event_id for number in range(count)]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("limit", [1, 3, 7, 50])
async def test_pages_hold_every_event_once_in_either_direction(h: Harness, limit: int) -> None:
    room = await h.world.room(ALICE)
    sent = await messages(h.world, room, 9)
    backwards = await all_pages(h, room, None, limit=limit)
    assert backwards[:9] == sent[::-1]
    assert len(backwards) == len(set(backwards)) == 13
    assert await all_pages(h, room, None, limit=limit, dir="f") == backwards[::-1]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_pages_meet_the_timeline_of_sync_though_the_room_forked(h: Harness, limit: int) -> None:
    room = await h.world.room(ALICE)
    await messages(h.world, room, 3)
    # A branch of another server, deep in the room but late to arrive, and one that is high up and arrived early.
    late = await h.world.event(room, BOB, "m.room.message", {"body": "late"}, depth=5)
    early = await h.world.event(room, BOB, "m.room.message", {"body": "early"}, depth=40)
    await messages(h.world, room, 2)
    h.world.rooms[room].depth = 8
    await messages(h.world, room, 2)
    told = (await h.sync(ALICE, room={"timeline": {"limit": 2}}))["rooms"]["join"][room]["timeline"]
    in_sync = [event["event_id"] for event in told["events"]]
    before = await all_pages(h, room, told["prev_batch"], limit=limit)
    assert {late.event_id, early.event_id} <= set(before)
    assert len(before) == len(set(before)) == 11
    assert not set(before) & set(in_sync)
    # Back up again from the point of sync: what came after it, and nothing else.
    onwards = await all_pages(h, room, told["prev_batch"], limit=limit, dir="f")
    assert onwards == in_sync


@pytest_twisted.ensureDeferred
async def test_a_gap_between_two_syncs_is_filled_exactly(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await messages(h.world, room, 2)
    since = (await h.sync(ALICE))["next_batch"]
    sent = await messages(h.world, room, 8)
    told = (await h.sync(ALICE, since, room={"timeline": {"limit": 3}}))["rooms"]["join"][room]["timeline"]
    assert told["limited"] is True
    filled = await all_pages(h, room, told["prev_batch"], end=since, limit=2)
    assert filled == sent[:5][::-1]
    assert await all_pages(h, room, since, end=told["prev_batch"], dir="f", limit=2) == sent[:5]


@pytest_twisted.ensureDeferred
async def test_a_page_turns_back_where_it_ended(h: Harness) -> None:
    room = await h.world.room(ALICE)
    sent = await messages(h.world, room, 6)
    first = await page(h, room, limit=4)
    back = await page(h, room, start=first["end"], dir="f", limit=4)
    assert [e["event_id"] for e in back["chunk"]] == sent[2:]
    assert first["start"] == f"s{h.world.stream}"
    assert back["start"] == first["end"]


@pytest_twisted.ensureDeferred
async def test_whoever_has_read_all_waits_at_the_end_for_what_comes(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await messages(h.world, room, 2)
    since = (await h.sync(ALICE))["next_batch"]
    sent = await messages(h.world, room, 2)
    last = await page(h, room, start=since, dir="f")
    assert [event["event_id"] for event in last["chunk"]] == sent
    assert (await page(h, room, start=last["end"], dir="f")).keys() == {"start", "chunk"}
    later = await messages(h.world, room, 1)
    assert [e["event_id"] for e in (await page(h, room, start=last["end"], dir="f"))["chunk"]] == later
    # Nothing comes for those who asked up to a point, or have left.
    assert "end" not in await page(h, room, start=since, end=last["end"], dir="f")
    await h.world.member(room, ALICE, "leave")
    assert (await page(h, room, start=since, dir="f", limit=50)).keys() == {"start", "chunk"}


@pytest_twisted.ensureDeferred
async def test_filters_look_for_the_last_events_that_pass(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.message(room, ALICE, "with a link", url="mxc://test/x")
    await messages(h.world, room, 30)
    await h.world.event(room, BOB, "org.example_thing", {})
    assert [e["content"]["body"] for e in (await page(h, room, contains_url=True))["chunk"]] == ["with a link"]
    assert (await page(h, room, contains_url=True)).keys() == {"start", "chunk"}
    for patterns in (["org.*"], ["*_thing"], ["org.example_thing"]):
        assert len((await page(h, room, types=patterns))["chunk"]) == 1
    assert (await page(h, room, types=["org.example%thing"]))["chunk"] == []
    assert (await page(h, room, types=[]))["chunk"] == []
    assert (await page(h, room, rooms=["!other:test"]))["chunk"] == []
    assert all(e["sender"] == ALICE for e in (await page(h, room, senders=[ALICE]))["chunk"])
    assert (await page(h, room, not_types=["m.room.*"]))["chunk"][0]["type"] == "org.example_thing"
    assert (await page(h, room, not_senders=[ALICE]))["chunk"][0]["sender"] == BOB


@pytest_twisted.ensureDeferred
async def test_filters_look_at_what_relates_to_an_event(h: Harness) -> None:
    room, other = await h.world.room(ALICE), await h.world.room(ALICE)
    rows = [await h.world.message(room, ALICE, str(number)) for number in range(4)]

    async def relate(number: int, sender: str, rel_type: str, room_id: str = room, **columns: Any) -> TimelineRow:
        relates_to = {"rel_type": rel_type, "event_id": rows[number].event_id}
        return await h.world.event(room_id, sender, "m.x", {"m.relates_to": relates_to}, **columns)

    await relate(0, BOB, "m.thread")
    await relate(1, CAROL, "m.annotation")
    await relate(2, CAROL, "m.thread", other)
    await relate(2, CAROL, "m.thread", soft_failed=True)
    await h.world.redact(await relate(3, CAROL, "m.thread"), CAROL)
    for wanted, expected in (
        ({"related_by_rel_types": ["m.thread"]}, [0]),
        ({"related_by_rel_types": ["m.thread", "m.annotation"]}, [1, 0]),
        ({"related_by_senders": [BOB, CAROL]}, [1, 0]),
        ({"related_by_senders": [CAROL]}, [1]),
        ({"related_by_senders": [CAROL], "related_by_rel_types": ["m.thread"]}, []),
        ({"related_by_senders": []}, []),
    ):
        found = [e["event_id"] for e in (await page(h, room, limit=50, **wanted))["chunk"]]
        assert found == [rows[number].event_id for number in expected], wanted
        told = (await h.sync(ALICE, "s1", room={"timeline": wanted})).get("rooms", {"join": {}})["join"].get(room)
        events = [] if told is None else told["timeline"]["events"]
        assert [e["event_id"] for e in events] == found[::-1], wanted


@pytest_twisted.ensureDeferred
async def test_nobody_is_led_through_pages_that_hold_nothing_for_them(h: Harness) -> None:
    room = await h.world.room(ALICE, visibility="joined")
    early = await messages(h.world, room, 40)
    await h.world.state(room, ALICE, "m.room.history_visibility", {"history_visibility": "shared"})
    shared = await messages(h.world, room, 5)
    await h.world.state(room, ALICE, "m.room.history_visibility", {"history_visibility": "joined"})
    await messages(h.world, room, 130)
    await h.world.member(room, BOB)
    first = await page(h, room, BOB, limit=3)
    assert [e["type"] for e in first["chunk"]] == ["m.room.member"]
    second = await page(h, room, BOB, start=first["end"], limit=3)
    assert second["chunk"][0]["type"] == "m.room.history_visibility"
    assert [e["event_id"] for e in second["chunk"][1:]] == shared[:2:-1]
    assert second["start"] == first["end"]
    found = await all_pages(h, room, None, user_id=BOB, limit=3)
    assert set(shared) < set(found)
    assert not set(early) & set(found)
    assert found == (await all_pages(h, room, None, user_id=BOB, limit=7, dir="f"))[::-1]
    last = await page(h, room, BOB, limit=50, start=f"t{h.world.rooms[room].depth - 140}-99999")
    assert "end" not in last


@pytest_twisted.ensureDeferred
async def test_lazy_loading_adds_the_members_who_speak(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB, displayname="Bob")
    await h.world.member(room, CAROL)
    await h.world.message(room, BOB)
    answer = await page(h, room, limit=1, lazy_load_members=True)
    assert [e["state_key"] for e in answer["state"]] == [BOB]
    assert answer["state"][0]["content"] == {"membership": "join", "displayname": "Bob"}
    assert "state" not in await page(h, room, limit=1)


@pytest_twisted.ensureDeferred
async def test_who_left_sees_what_was_there_until_then(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    await h.world.message(room, ALICE, "seen")
    await h.world.member(room, BOB, "leave")
    await h.world.message(room, ALICE, "unseen")
    for start in (None, f"s{h.world.stream}", "t999-999"):
        chunk = (await page(h, room, BOB, start=start, limit=2))["chunk"]
        assert [e["type"] for e in chunk] == ["m.room.member", "m.room.message"], start
        assert chunk[1]["content"]["body"] == "seen"
    assert "unseen" not in str(await page(h, room, BOB, dir="f", limit=50))


@pytest_twisted.ensureDeferred
async def test_strangers_see_only_what_is_open_to_the_world(h: Harness) -> None:
    closed = await h.world.room(ALICE)
    for user, membership in ((CAROL, None), (BOB, "invite")):
        if membership is not None:
            await h.world.member(closed, user, membership, ALICE)
        with pytest.raises(MatrixError) as refused:
            await page(h, closed, user)
        assert (refused.value.code, refused.value.errcode) == (403, "M_FORBIDDEN")
    with pytest.raises(MatrixError):
        await page(h, "!nothing:test", CAROL)
    opened = await h.world.room(ALICE)
    await h.world.message(opened, ALICE, "before")
    await h.world.state(opened, ALICE, "m.room.history_visibility", {"history_visibility": "world_readable"})
    await h.world.message(opened, ALICE, "after")
    chunk = (await page(h, opened, CAROL, limit=50))["chunk"]
    assert [e["type"] for e in chunk] == ["m.room.message", "m.room.history_visibility"]
    assert chunk[0]["content"]["body"] == "after"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("visibility", "expected"),
    [
        ("world_readable", {"early", "invited", "joined"}),
        ("shared", {"early", "invited", "joined"}),
        ("invited", {"invited", "joined"}),
        ("joined", {"joined"}),
    ],
)
async def test_history_visibility_decides_what_a_new_member_sees(
    h: Harness, visibility: str, expected: set[str]
) -> None:
    room = await h.world.room(ALICE, visibility=visibility)
    await h.world.message(room, ALICE, "early")
    await h.world.member(room, BOB, "invite", ALICE)
    await h.world.message(room, ALICE, "invited")
    await h.world.member(room, BOB)
    await h.world.message(room, ALICE, "joined")
    chunk = (await page(h, room, BOB, limit=50))["chunk"]
    assert {e["content"]["body"] for e in chunk if e["type"] == "m.room.message"} == expected
    memberships = {e["content"]["body"]: e["unsigned"]["membership"] for e in chunk if e["type"] == "m.room.message"}
    assert memberships.items() <= {"early": "leave", "invited": "invite", "joined": "join"}.items()
    told = (await h.sync(BOB, room={"timeline": {"limit": 50}}))["rooms"]["join"][room]["timeline"]["events"]
    assert {e["content"]["body"] for e in told if e["type"] == "m.room.message"} == expected


@pytest_twisted.ensureDeferred
async def test_a_change_of_visibility_holds_from_then_on(h: Harness) -> None:
    room = await h.world.room(ALICE, visibility="joined")
    await h.world.message(room, ALICE, "secret")
    await h.world.state(room, ALICE, "m.room.history_visibility", {"history_visibility": "shared"})
    await h.world.message(room, ALICE, "open")
    await h.world.member(room, BOB)
    chunk = (await page(h, room, BOB, limit=50))["chunk"]
    assert [e["content"].get("body") for e in chunk if e["type"] == "m.room.message"] == ["open"]
    assert "m.room.history_visibility" in [e["type"] for e in chunk]


@pytest_twisted.ensureDeferred
async def test_history_fetched_later_lies_before_everything(h: Harness) -> None:
    room = await h.world.room(ALICE)
    old = await h.world.event(room, BOB, "m.room.message", {"body": "old"}, depth=1, stream=-5)
    h.world.rooms[room].depth = 10
    found = await all_pages(h, room, None, limit=3)
    assert found[-1] == old.event_id or found[-2] == old.event_id
    assert len(found) == 5


@pytest.mark.parametrize("token", ["", "x", "s", "t1", "t1-", "s1_", "t1-2~", "t1-2~3.4", "s99999999999999999999", "1"])
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(MatrixError) as refused:
        RoomToken.parse(token, "from")
    assert refused.value.errcode == "M_INVALID_PARAM"
    assert "'from'" in refused.value.message


@pytest.mark.parametrize("token", ["s5", "s-5", "t1-2", "t1--2", "t1-2~3", "t1-2~-3", "t1-2.3"])
def test_tokens_are_read_as_they_are_written(token: str) -> None:
    assert str(RoomToken.parse(token)) == token


@pytest_twisted.ensureDeferred
async def test_what_is_missing_is_fetched_and_stands_in_its_place(h: Harness) -> None:
    room = await h.world.room(ALICE)
    first = (await h.world.message(room, ALICE)).event_id
    late = (await h.world.event(room, ALICE, "m.room.message", {"body": "late"}, depth=50)).event_id
    await h.world.sql("UPDATE events SET after_gap = true WHERE event_id = %s", late)
    last = (await h.world.message(room, ALICE)).event_id
    readers = Readers(h)
    come: list[str] = []

    async def tell() -> Told:
        if come:
            return Told.WHOLE
        row = await h.world.event(room, ALICE, "m.room.message", {"body": "h"}, depth=30, stream=-1)
        come.append(row.event_id)
        return Told.MORE

    readers.tell = tell
    request = PageRequest(ALICE, "DEV", room, True, limit=3)
    answer = orjson.loads(await readers.pagination.messages(request))
    assert [event["event_id"] for event in answer["chunk"]] == [last, late, *come]
    assert readers.backfilled == [(room, 5, None), (room, 30, None)]
    answer = orjson.loads(await readers.context.around(ALICE, "DEV", room, late, 4, parse_room_event_filter({})))
    assert [event["event_id"] for event in answer["events_before"]] == [*come, first]


@pytest_twisted.ensureDeferred
async def test_a_page_is_read_again_when_another_has_had_what_it_lacks_come(h: Harness) -> None:
    room = await h.world.room(ALICE)
    late = (await h.world.event(room, ALICE, "m.room.message", {"body": "late"}, depth=50)).event_id
    await h.world.sql("UPDATE events SET outlier = true WHERE room_id = %s AND stream_ordering < 4", room)
    readers = Readers(h)
    come: list[str] = []

    async def tell() -> Told:
        if not come:
            row = await h.world.event(room, ALICE, "m.room.message", {"body": "h"}, depth=30, stream=-1)
            come.append(row.event_id)
            readers.gaps_filled += 1
        return Told.WHOLE  # by now

    readers.tell = tell
    answer = orjson.loads(await readers.pagination.messages(PageRequest(ALICE, "DEV", room, True, limit=3)))
    assert [event["event_id"] for event in answer["chunk"]][:2] == [late, *come]
    assert len(readers.backfilled) == 2


@pytest_twisted.ensureDeferred
async def test_others_are_asked_of_the_stretch_that_a_page_is_about(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await messages(h.world, room, 5)
    readers = Readers(h)

    async def asked(start: RoomToken | None, limit: int, backwards: bool = True, **more: Any) -> list[Any]:
        del readers.backfilled[:]
        await readers.pagination.messages(PageRequest(ALICE, "DEV", room, backwards, start, limit=limit, **more))
        return [stretch for _, *stretch in readers.backfilled]

    first = orjson.loads(await readers.pagination.messages(PageRequest(ALICE, "DEV", room, True, limit=2)))
    assert readers.backfilled == [(room, 8, None)]  # whoever begins to page may have left a gap just behind
    start = RoomToken.parse(first["end"])
    assert await asked(start, 2) == [[6, 8]]
    assert await asked(start, 50) == [[1, 8]]  # the room begins there
    said = parse_room_event_filter({"types": ["m.room.message"]})
    assert await asked(start, 50, filter=said) == [[0, 8]]
    assert await asked(None, 2, backwards=False) == [[1, 2]]
    assert await asked(RoomToken(4, 4), 2, backwards=False) == [[5, 6]]  # what is missing before 4 is not onwards of it
    assert await asked(RoomToken(4, 4), 50, backwards=False) == [[5, None]]
    assert [each[2:] for each in readers.stretches[-3:]] == [(OLDEST, h.world.stream, False)] * 3
    # Between points of arrival, only the gaps between them count.
    assert await asked(RoomToken(None, 4), 2, backwards=False) == [[0, 6]]
    assert readers.stretches[-1] == Stretch(0, 6, 4, h.world.stream, False)
    assert await asked(start, 50, end=RoomToken(None, 4)) == [[0, 8]]
    assert readers.stretches[-1] == Stretch(0, 8, 4, start.until, True)
    assert await asked(start, 50, end=RoomToken(6, 6)) == [[6, 8]]


@pytest_twisted.ensureDeferred
async def test_a_room_does_not_end_where_something_is_missing(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.sql("UPDATE events SET outlier = true WHERE room_id = %s AND type = 'm.room.create'", room)
    await messages(h.world, room, 3)
    readers = Readers(h)

    async def page(start: str | None, told: Told, user_id: str = ALICE) -> dict[str, Any]:
        async def tell() -> Told:
            return told

        readers.tell = tell
        token = None if start is None else RoomToken.parse(start)
        page: dict[str, Any] = orjson.loads(
            await readers.pagination.messages(PageRequest(user_id, "DEV", room, True, token, limit=50))
        )
        return page

    assert "end" not in await page(None, Told.WHOLE)
    last = await page(None, Told.NOTHING)
    assert len(last["chunk"]) > 3
    empty = await page(last["end"], Told.NOTHING)
    assert empty == {"start": last["end"], "chunk": []}  # so that nobody asks for ever
