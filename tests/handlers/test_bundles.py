"""What relates to an event, within that event: edits, references and threads, as each reader may see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.handlers.pagination import PageRequest
from synapse.storage.database import Database
from synapse.storage.timeline import TimelineRow
from tests.sync.harness import Harness
from tests.sync.readers import Readers

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


@pytest.fixture
def h(database: Database) -> Iterator[Harness]:
    return Harness(database)


def related(rel_type: str, parent: TimelineRow, **content: Any) -> dict[str, Any]:
    return {"m.relates_to": {"rel_type": rel_type, "event_id": parent.event_id}, **content}


async def edit(h: Harness, parent: TimelineRow, body: str, sender: str = ALICE, **columns: Any) -> TimelineRow:
    content = related("m.replace", parent, body=f"* {body}", **{"m.new_content": {"body": body}})
    kind = columns.pop("type", "m.room.message")
    return await h.world.event(columns.pop("room", parent.room_id), sender, kind, content, **columns)


async def reply(h: Harness, root: TimelineRow, sender: str = BOB, body: str = "reply", **columns: Any) -> TimelineRow:
    room = columns.pop("room", root.room_id)
    return await h.world.event(room, sender, "m.room.message", related("m.thread", root, body=body), **columns)


async def refer(h: Harness, parent: TimelineRow, sender: str = BOB, **columns: Any) -> TimelineRow:
    return await h.world.event(parent.room_id, sender, "org.vote", related("m.reference", parent), **columns)


async def relations(h: Harness, row: TimelineRow, user_id: str = ALICE) -> dict[str, Any]:
    """`m.relations` of the event as /event and /messages agree to tell it."""
    readers = Readers(h)
    event = orjson.loads(await readers.reading.event(user_id, "DEV", row.room_id, row.event_id))
    request = PageRequest(user_id, "DEV", row.room_id, True, limit=100)
    page = orjson.loads(await readers.pagination.messages(request))
    paged = next(e for e in page["chunk"] if e["event_id"] == row.event_id)
    assert paged == event
    found: dict[str, Any] = event["unsigned"].get("m.relations", {})
    return found


@pytest_twisted.ensureDeferred
async def test_the_most_recent_edit_is_shown_and_the_content_stays(h: Harness) -> None:
    room = await h.world.room(ALICE)
    row = await h.world.message(room, ALICE, "one")
    assert await relations(h, row) == {}
    await edit(h, row, "early", origin_server_ts=10)
    latest = await edit(h, row, "late", origin_server_ts=99, event_id="$" + "a" * 43)
    await edit(h, row, "as late", origin_server_ts=99, event_id="$" + "A" * 43)
    told = (await relations(h, row))["m.replace"]
    assert told["event_id"] == latest.event_id
    assert told["content"]["m.new_content"] == {"body": "late"}
    assert told.keys() == {"content", "event_id", "origin_server_ts", "room_id", "sender", "type", "unsigned"}
    event = orjson.loads(await Readers(h).reading.event(ALICE, "DEV", room, row.event_id))
    assert event["content"]["body"] == "one"
    await h.world.redact(latest, ALICE)
    assert (await relations(h, row))["m.replace"]["content"]["m.new_content"] == {"body": "as late"}
    await h.world.redact(row, ALICE)
    assert await relations(h, row) == {}


@pytest_twisted.ensureDeferred
async def test_edits_that_are_none_are_left_out(h: Harness) -> None:
    room, other = await h.world.room(ALICE), await h.world.room(ALICE)
    row = await h.world.message(room, ALICE, "one")
    good = await edit(h, row, "good")
    await edit(h, row, "somebody else's", sender=BOB)
    await edit(h, row, "another type", type="m.room.encrypted")
    await edit(h, row, "state", state_key="")
    await edit(h, row, "elsewhere", room=other)
    await edit(h, row, "refused", soft_failed=True)
    await edit(h, good, "of an edit")
    assert (await relations(h, row))["m.replace"]["event_id"] == good.event_id
    assert await relations(h, good) == {}
    state = await h.world.state(room, ALICE, "m.room.topic", {"topic": "x"})
    await edit(h, state, "of state", type="m.room.topic")
    await refer(h, state)
    assert await relations(h, state) == {}


@pytest_twisted.ensureDeferred
async def test_references_are_listed_and_reactions_are_not(h: Harness) -> None:
    room = await h.world.room(ALICE)
    row = await h.world.message(room, ALICE, "poll")
    votes = [await refer(h, row), await refer(h, row, CAROL), await refer(h, row)]
    await h.world.event(room, BOB, "m.reaction", related("m.annotation", row))
    await h.world.redact(votes[2], ALICE)
    told = await relations(h, row)
    assert told == {"m.reference": {"chunk": [{"event_id": vote.event_id} for vote in votes[:2]]}}
    await h.world.redact(row, ALICE)
    assert await relations(h, row) == told  # unlike an edit, they go on relating to it


@pytest_twisted.ensureDeferred
async def test_a_thread_is_shown_with_its_latest_event(h: Harness) -> None:
    room = await h.world.room(ALICE)
    root = await h.world.message(room, ALICE, "root")
    first, second = await reply(h, root, body="first"), await reply(h, root, body="second")
    await reply(h, root, body="of another branch", depth=2)
    h.world.rooms[room].depth = 20
    await edit(h, second, "better", sender=BOB)
    vote = await refer(h, second)
    for user, participated in ((ALICE, True), (BOB, True), (CAROL, False)):
        await h.world.member(room, CAROL)
        told = (await relations(h, root, user))["m.thread"]
        assert (told["count"], told["current_user_participated"]) == (3, participated)
        latest = told["latest_event"]
        assert (latest["event_id"], latest["room_id"]) == (second.event_id, room)
        assert latest["unsigned"]["m.relations"]["m.replace"]["content"]["m.new_content"] == {"body": "better"}
        assert latest["unsigned"]["m.relations"]["m.reference"] == {"chunk": [{"event_id": vote.event_id}]}
        await h.world.member(room, BOB)
    await h.world.redact(second, BOB)
    told = (await relations(h, root))["m.thread"]
    assert (told["latest_event"]["event_id"], told["count"]) == (first.event_id, 2)
    # What relates to something else begins no thread.
    await reply(h, first)
    assert await relations(h, first) == {}


@pytest_twisted.ensureDeferred
async def test_children_by_ignored_users_count_for_nothing(h: Harness) -> None:
    room = await h.world.room(ALICE)
    root = await h.world.message(room, ALICE, "root")
    seen = await reply(h, root, CAROL)
    await reply(h, root, BOB)
    await refer(h, root, BOB)
    await h.world.sql(
        "INSERT INTO account_data VALUES (%s, '', 'm.ignored_user_list', %s, 1)",
        ALICE,
        orjson.dumps({"ignored_users": {BOB: {}}}).decode(),
    )
    told = await relations(h, root)
    assert told.keys() == {"m.thread"}
    assert (told["m.thread"]["latest_event"]["event_id"], told["m.thread"]["count"]) == (seen.event_id, 1)


@pytest_twisted.ensureDeferred
async def test_children_that_the_reader_may_not_see_are_not_told(h: Harness) -> None:
    room = await h.world.room(ALICE, visibility="joined")
    await h.world.member(room, BOB)
    root = await h.world.message(room, ALICE, "root")
    early = await reply(h, root, ALICE, "early")
    referring = await refer(h, root, ALICE)
    first = await edit(h, root, "first")
    await h.world.member(room, BOB, "leave")
    for _ in range(2):
        await reply(h, root, ALICE, "late")
        await refer(h, root, ALICE)
        await edit(h, root, "second")
        told = await relations(h, root, BOB)  # having left; and then, having come back
        assert told["m.thread"]["latest_event"]["event_id"] == early.event_id
        assert told["m.reference"]["chunk"] == [{"event_id": referring.event_id}]
        assert told["m.replace"]["event_id"] == first.event_id
        await h.world.member(room, BOB)
        await h.world.member(room, BOB, "leave")
    assert (await relations(h, root, ALICE))["m.replace"]["content"]["m.new_content"] == {"body": "second"}


@pytest_twisted.ensureDeferred
async def test_what_erased_users_said_is_pruned_in_bundles_too(h: Harness) -> None:
    room = await h.world.room(ALICE)
    root = await h.world.message(room, ALICE, "root")
    said = await reply(h, root, BOB, "secret")
    await edit(h, said, "secret as well", BOB)
    own = await h.world.message(room, BOB, "secret")
    await edit(h, own, "secret as well", BOB)
    await refer(h, own, ALICE)
    await h.world.member(room, CAROL)
    await h.world.sql("INSERT INTO users (user_id, created_ts, erased) VALUES (%s, 1, true)", BOB)
    seen = await relations(h, root, ALICE)
    assert seen["m.thread"]["latest_event"]["content"]["body"] == "secret"
    assert seen["m.thread"]["latest_event"]["unsigned"]["m.relations"].keys() == {"m.replace"}
    assert (await relations(h, own, ALICE)).keys() == {"m.replace", "m.reference"}
    pruned = (await relations(h, root, CAROL))["m.thread"]
    assert (pruned["latest_event"]["event_id"], pruned["latest_event"]["content"]) == (said.event_id, {})
    assert "m.relations" not in pruned["latest_event"]["unsigned"]
    assert (await relations(h, own, CAROL)).keys() == {"m.reference"}


@pytest_twisted.ensureDeferred
async def test_own_events_in_bundles_carry_their_transaction(h: Harness) -> None:
    room = await h.world.room(ALICE)
    row = await h.world.message(room, ALICE)
    edited = await edit(h, row, "x")
    await h.world.sql("INSERT INTO event_txns VALUES (%s, 'DEV', %s, 'mine', %s, 1)", ALICE, room, edited.event_id)
    assert (await relations(h, row))["m.replace"]["unsigned"]["transaction_id"] == "mine"


@pytest_twisted.ensureDeferred
async def test_sync_bundles_where_the_timeline_has_a_gap(database: Database) -> None:
    h = Harness(database, memory=True)
    room = await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    root = await h.world.message(room, ALICE, "root")
    await reply(h, root)

    async def timeline(start: str | None, limit: int) -> tuple[bool, bool]:
        """Whether it is limited, and whether the root comes with its thread."""
        answer = await h.sync(ALICE, start, room={"timeline": {"limit": limit}})
        told = answer["rooms"]["join"][room]["timeline"]
        event = next(e for e in told["events"] if e["event_id"] == root.event_id)
        return told["limited"], "m.relations" in event["unsigned"]

    assert await timeline(since, 5) == (False, False)
    assert await timeline(None, 2) == (True, True)
    before = (await h.sync(ALICE, since))["next_batch"]
    assert await timeline(since, 2) == (False, False)
    await h.world.message(room, ALICE, "another")
    assert await timeline(since, 3) == (False, False)
    later = await h.world.message(room, ALICE, "later")
    await edit(h, later, "edited")
    told = (await h.sync(ALICE, before, room={"timeline": {"limit": 2}}))["rooms"]["join"][room]["timeline"]
    assert told["limited"] is True
    assert told["events"][0]["unsigned"]["m.relations"].keys() == {"m.replace"}


@pytest_twisted.ensureDeferred
async def test_bundles_cost_one_statement_and_nothing_where_nothing_relates(h: Harness) -> None:
    room = await h.world.room(ALICE)
    rows = [await h.world.message(room, BOB, str(number)) for number in range(20)]
    await h.world.event(room, BOB, "m.reaction", related("m.annotation", rows[0]))
    readers, request = Readers(h), PageRequest(ALICE, "DEV", room, True, limit=15)
    await readers.pagination.messages(request)
    with h.db.counted() as counts:
        await readers.pagination.messages(request)
    assert counts.statements_read == 1, counts.sql
    for row in rows[8:]:
        await reply(h, row, CAROL)
        await edit(h, row, "x", BOB)
    request = PageRequest(ALICE, "DEV", room, True, limit=40)
    with h.db.counted() as counts:
        page = orjson.loads(await readers.pagination.messages(request))
    assert sum(len(e["unsigned"].get("m.relations", {})) for e in page["chunk"]) == 24
    assert counts.statements_read == 2, counts.sql
