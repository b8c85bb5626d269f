"""Whom events concern: all local members by their own rules, invited users, threads; from memory when warm."""

from __future__ import annotations

from typing import Any

import orjson
import pytest_twisted

from synapse.http.request import Requester
from synapse.push import rules
from synapse.storage.database import Database, Transaction
from synapse.storage.push_rules import PushRuleStore
from tests.support.rooms import ALICE, BOB, CAROL, DAVE, Cluster, RoomProcess, start


def told(cluster: Cluster) -> dict[str, tuple[bool, Any]]:
    """Whom the last event concerned: highlight and actions by user."""
    push = cluster.announced[-1].new.push
    assert all(action.notify for action in push)
    return {action.user_id: (action.highlight, orjson.loads(action.actions)) for action in push}


async def send(process: RoomProcess, user: Requester, room_id: str, **content: Any) -> str:
    return (await process.creation.create(user, room_id, "m.room.message", {"body": "x", **content})).event_id


@pytest_twisted.ensureDeferred
async def test_a_message_concerns_all_members_but_its_sender(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(joined=[BOB, CAROL])
    await send(cluster.main, ALICE, room_id)
    assert told(cluster) == {BOB.user_id: (False, ["notify"]), CAROL.user_id: (False, ["notify"])}
    await send(cluster.main, BOB, room_id, msgtype="m.notice")
    assert told(cluster) == {}
    await cluster.main.set(ALICE, room_id, "m.room.topic", {"topic": "t"})
    assert told(cluster) == {}


@pytest_twisted.ensureDeferred
async def test_who_is_ignored_concerns_nobody_who_ignores_them(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room_id = await process.room(joined=[BOB, CAROL])
    await send(process, BOB, room_id)
    assert told(cluster).keys() == {ALICE.user_id, CAROL.user_id}
    everybody = {user.user_id: {} for user in (ALICE, BOB)}
    await process.account_data.set(ALICE.user_id, "", "m.ignored_user_list", {"ignored_users": everybody})
    await process.account_data.set(CAROL.user_id, "", "m.ignored_user_list", {"ignored_users": "nonsense"})
    await send(process, BOB, room_id, **{"m.mentions": {"user_ids": [ALICE.user_id]}})
    assert told(cluster).keys() == {CAROL.user_id}
    with database.counted() as counts:
        await send(process, BOB, room_id)
    assert counts.statements_read == 0
    await send(process, CAROL, room_id)
    assert told(cluster).keys() == {ALICE.user_id, BOB.user_id}
    elsewhere = await process.room(BOB)
    await process.memberships.invite(BOB, elsewhere, {"user_id": ALICE.user_id})
    assert told(cluster) == {}
    await process.account_data.set(ALICE.user_id, "", "m.ignored_user_list", {"ignored_users": {}})
    await send(process, BOB, room_id)
    assert told(cluster).keys() == {ALICE.user_id, CAROL.user_id}


@pytest_twisted.ensureDeferred
async def test_mentions_highlight(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(joined=[BOB, CAROL])
    await send(cluster.main, BOB, room_id, **{"m.mentions": {"user_ids": [CAROL.user_id]}})
    assert {user: highlight for user, (highlight, _) in told(cluster).items()} == {
        ALICE.user_id: False,
        CAROL.user_id: True,
    }
    await send(cluster.main, BOB, room_id, **{"m.mentions": {"room": True}})
    assert not any(highlight for highlight, _ in told(cluster).values())  # he has not the power
    await send(cluster.main, ALICE, room_id, **{"m.mentions": {"room": True}})
    assert {user: highlight for user, (highlight, _) in told(cluster).items()} == {
        BOB.user_id: True,
        CAROL.user_id: True,
    }


@pytest_twisted.ensureDeferred
async def test_rooms_of_two_and_who_comes_and_goes(database: Database) -> None:
    cluster = await start(database, workers=1)
    sound = {"set_tweak": "sound", "value": "default"}
    for process in (cluster.main, cluster.workers[0]):
        room_id = await process.room(joined=[BOB])
        await send(process, ALICE, room_id)
        assert told(cluster) == {BOB.user_id: (False, ["notify", sound])}
        await process.memberships.join(CAROL, room_id)
        await send(process, ALICE, room_id)
        assert told(cluster) == {BOB.user_id: (False, ["notify"]), CAROL.user_id: (False, ["notify"])}
        await process.memberships.leave(BOB, room_id)
        await send(process, ALICE, room_id)
        assert told(cluster) == {CAROL.user_id: (False, ["notify", sound])}
        await process.memberships.invite(ALICE, room_id, {"user_id": DAVE.user_id})
        assert told(cluster) == {DAVE.user_id: (False, ["notify", sound])}
        await process.memberships.ban(ALICE, room_id, {"user_id": CAROL.user_id})
        await send(process, ALICE, room_id)
        assert told(cluster) == {}


@pytest_twisted.ensureDeferred
async def test_own_rules_count_and_are_read_anew_when_they_change(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room_id = await process.room(joined=[BOB, CAROL])
    await send(process, ALICE, room_id)
    own = rules.parse_rule("room", room_id, {"actions": []})
    await PushRuleStore(database).edit(BOB.user_id, lambda all_rules: rules.put(all_rules, "room", own), 1)
    process.push_rules._cache.invalidate(BOB.user_id)  # what the stream push_rules does
    await send(process, ALICE, room_id)
    assert list(told(cluster)) == [CAROL.user_id]


@pytest_twisted.ensureDeferred
async def test_members_read_from_the_database_are_the_same(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(joined=[BOB, CAROL])
    await cluster.main.memberships.leave(BOB, room_id)
    again = await start(database)
    members = await again.main.members.get(room_id)
    assert (set(members.local), members.count) == ({ALICE.user_id, CAROL.user_id}, 2)
    await send(again.main, ALICE, room_id)
    assert list(told(again)) == [CAROL.user_id]


@pytest_twisted.ensureDeferred
async def test_threads_are_found_through_relations(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room_id = await process.room(joined=[BOB])

    async def thread_of(relates_to: dict[str, Any] | None) -> tuple[str, str]:
        content = {} if relates_to is None else {"m.relates_to": relates_to}
        event_id = await send(process, ALICE, room_id, **content)
        return event_id, await database.read("thread", _thread, event_id)

    root, thread = await thread_of(None)
    assert thread == "main"
    reply, thread = await thread_of({"rel_type": "m.thread", "event_id": root})
    assert thread == root
    reference, thread = await thread_of({"rel_type": "m.reference", "event_id": reply})
    assert thread == root
    second, thread = await thread_of({"rel_type": "m.reference", "event_id": reference})
    assert thread == root
    _third, thread = await thread_of({"rel_type": "m.reference", "event_id": second})
    assert thread == "main"  # more than three relations away
    for other in (
        {"rel_type": "m.reference", "event_id": root},
        {"rel_type": "m.reference", "event_id": "$unknown"},
        {"m.in_reply_to": {"event_id": reply}},
        {"rel_type": 5, "event_id": 5},
    ):
        assert (await thread_of(other))[1] == "main"


def _thread(txn: Transaction, event_id: str) -> str:
    txn.execute("SELECT thread_id FROM push_actions WHERE event_id = %s", (event_id,))
    thread: str = txn.one()[0]
    return thread
