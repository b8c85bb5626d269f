"""What clients are told of rooms that other servers have a part in: entering, gaps, history, invites from elsewhere."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted

from synapse.storage.database import PoolSettings
from synapse.storage.persist_events import Fate, Kind, ReceivedEvent
from tests.support.homeserver import Client, cluster, homeserver
from tests.support.received import EVE, Graph, Whole

ALICE, BOB = "@alice:test", "@bob:test"
MANY = [f"@friend{number}:elsewhere" for number in range(60)]
LAZY = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 5}}}


async def sync(client: Client, token: str, since: str | None = None, filter: Any = None) -> dict[str, Any]:
    path = "/_matrix/client/v3/sync?timeout=0"
    if since is not None:
        path += f"&since={since}"
    if filter is not None:
        path += f"&filter={quote(orjson.dumps(filter).decode())}"
    code, answer = await client.get(path, token)
    assert code == 200, answer
    return dict(answer)


async def messages(client: Client, token: str, room_id: str, start: str, limit: int = 50) -> dict[str, Any]:
    path = f"/_matrix/client/v3/rooms/{quote(room_id)}/messages?dir=b&from={start}&limit={limit}"
    code, answer = await client.get(path, token)
    assert code == 200, answer
    return dict(answer)


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]


def state_of(room: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The state that a client has after this answer."""
    told = [*room["state"]["events"], *(event for event in room["timeline"]["events"] if "state_key" in event)]
    return {(event["type"], event["state_key"]): event["event_id"] for event in told}


@pytest_twisted.ensureDeferred
async def test_a_room_that_was_just_joined_is_told_whole_and_its_history_is_missing(
    database_settings: PoolSettings,
) -> None:
    async with cluster(database_settings, "synchrotron", "event_creator") as hs:
        client = hs["synchrotron"].client
        token = await hs.main.client.register("alice")
        graph = Graph.elsewhere(Whole(hs["event_creator"].hs), *MANY)
        since = (await sync(client, token))["next_batch"]
        graph.say(EVE)
        join = await graph.enter(ALICE)
        await hs.caught_up()
        for answer in (await sync(client, token, since), await sync(client, token)):
            room = answer["rooms"]["join"][graph.room_id]
            assert ids(room["timeline"]["events"]) == [join.event_id]
            assert room["timeline"]["limited"]
            assert state_of(room) == graph.dag.present
            assert room["summary"]["m.joined_member_count"] == len(MANY) + 2
        for answer in (await sync(client, token, since, LAZY), await sync(client, token, None, LAZY)):
            told = state_of(answer["rooms"]["join"][graph.room_id])
            members = {key[1] for key in told if key[0] == "m.room.member"}
            assert members == {ALICE}
        said = graph.say(EVE)
        assert await graph.give(said) == [Fate.ACCEPTED]
        await hs.caught_up()
        answer = await sync(client, token, answer["next_batch"], LAZY)
        room = answer["rooms"]["join"][graph.room_id]
        assert ids(room["timeline"]["events"]) == [said.event_id]
        assert not room["timeline"].get("limited")
        assert [event["state_key"] for event in room["state"]["events"]] == [EVE]


@pytest_twisted.ensureDeferred
async def test_a_timeline_begins_behind_a_gap(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as hs:
        token = await hs.client.register("alice")
        graph = Graph.elsewhere(Whole(hs.hs))
        await graph.enter(ALICE)
        since = (await sync(hs.client, token))["next_batch"]
        first, lost, after, last = (graph.say(EVE, str(number)) for number in range(4))
        assert await graph.give(first, graph.with_state(after), last) == [Fate.ACCEPTED] * 3
        only_last = {"room": {"timeline": {"limit": 1}}}
        names = {"room": {"timeline": {"types": ["m.room.name"]}}}
        for start in (since, None):
            answer = await sync(hs.client, token, start)
            timeline = answer["rooms"]["join"][graph.room_id]["timeline"]
            assert ids(timeline["events"]) == [after.event_id, last.event_id]
            assert timeline["limited"]
            timeline = (await sync(hs.client, token, start, only_last))["rooms"]["join"][graph.room_id]["timeline"]
            assert (ids(timeline["events"]), timeline["limited"]) == ([last.event_id], True)
            timeline = (await sync(hs.client, token, start, names))["rooms"]["join"][graph.room_id]["timeline"]
            assert (timeline["events"], timeline["limited"]) == ([], True)
        # What was before the gap is there for who looks back.
        page = await messages(hs.client, token, graph.room_id, timeline["prev_batch"])
        assert ids(page["chunk"])[0] == first.event_id
        assert await graph.give(lost) == [Fate.ACCEPTED]
        timeline = (await sync(hs.client, token, answer["next_batch"]))["rooms"]["join"][graph.room_id]["timeline"]
        assert ids(timeline["events"]) == [lost.event_id]
        assert not timeline.get("limited")
        # Who comes anew needs not look back for what has arrived.
        timeline = (await sync(hs.client, token))["rooms"]["join"][graph.room_id]["timeline"]
        assert ids(timeline["events"])[-4:] == [each.event_id for each in (first, after, last, lost)]


@pytest_twisted.ensureDeferred
async def test_a_room_that_this_server_came_back_to_is_told_anew(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron") as hs:
        client = hs["synchrotron"].client
        token = await hs.main.client.register("alice")
        graph = Graph.elsewhere(Whole(hs.main.hs), *MANY)
        await graph.enter(ALICE)
        await hs.caught_up()
        before = (await sync(client, token))["next_batch"]
        leave = graph.make(ALICE, "m.room.member", {"membership": "leave"}, state_key=ALICE)
        assert await graph.give(leave) == [Fate.ACCEPTED]
        await hs.caught_up()
        left = await sync(client, token, before)
        assert ids(left["rooms"]["leave"][graph.room_id]["timeline"]["events"]) == [leave.event_id]
        graph.make(EVE, "m.room.name", {"name": "Another"}, state_key="")
        graph.make(MANY[0], "m.room.member", {"membership": "leave"}, state_key=MANY[0])
        join = await graph.enter(ALICE)
        await hs.caught_up()
        another = {"room": {"timeline": {"limit": 20}}}  # or else the answer is the one of before
        for since in (left["next_batch"], before, None):
            room = (await sync(client, token, since, another))["rooms"]["join"][graph.room_id]
            assert ids(room["timeline"]["events"]) == [join.event_id]
            assert room["timeline"]["limited"]
            assert state_of(room) == graph.dag.present
            assert room["summary"]["m.joined_member_count"] == len(MANY) + 1


@pytest_twisted.ensureDeferred
async def test_who_comes_back_after_their_joining_was_overruled_is_told_the_whole_room(
    database_settings: PoolSettings,
) -> None:
    """Bob joins while the room is closed elsewhere, and again when it is open. His client has cleared all between."""
    async with cluster(database_settings, "synchrotron") as hs:
        client = hs["synchrotron"].client
        await hs.main.client.register("alice")
        token = await hs.main.client.register("bob")
        graph = Graph.elsewhere(Whole(hs.main.hs), *MANY)
        await graph.enter(ALICE)
        fork = sorted(graph.dag.extremities)
        join = graph.join(BOB, after=fork)
        closing = graph.make(EVE, "m.room.join_rules", {"join_rule": "invite"}, state_key="", after=fork)
        assert await graph.give(join) == [Fate.ACCEPTED]
        await hs.caught_up()
        joined = await sync(client, token)
        assert graph.room_id in joined["rooms"]["join"]
        assert await graph.give(closing) == [Fate.ACCEPTED]
        await hs.caught_up()
        left = await sync(client, token, joined["next_batch"])
        assert graph.room_id in left["rooms"]["leave"]
        opening = graph.make(EVE, "m.room.join_rules", {"join_rule": "public"}, state_key="")
        again = graph.join(BOB)
        assert await graph.give(opening, again) == [Fate.ACCEPTED] * 2
        await hs.caught_up()
        room = (await sync(client, token, left["next_batch"]))["rooms"]["join"][graph.room_id]
        assert state_of(room) == graph.dag.present


@pytest_twisted.ensureDeferred
async def test_who_left_sees_the_room_as_it_was_although_the_server_came_back(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as hs:
        token = await hs.client.register("alice")
        await hs.client.register("bob")
        graph = Graph.elsewhere(Whole(hs.hs), *MANY)
        await graph.enter(ALICE)
        then = dict(graph.dag.present)
        leave = graph.make(ALICE, "m.room.member", {"membership": "leave"}, state_key=ALICE)
        assert await graph.give(leave) == [Fate.ACCEPTED]
        graph.make(EVE, "m.room.name", {"name": "Another"}, state_key="")
        graph.make(MANY[0], "m.room.member", {"membership": "leave"}, state_key=MANY[0])
        await graph.enter(BOB)
        path = f"/_matrix/client/v3/rooms/{quote(graph.room_id)}/state"
        code, state = await hs.client.get(path, token)
        assert code == 200
        told = {(event["type"], event["state_key"]): event["event_id"] for event in state}
        assert told == {**then, ("m.room.member", ALICE): leave.event_id}


@pytest_twisted.ensureDeferred
async def test_an_invite_from_elsewhere_is_told_with_its_stripped_state_and_so_is_its_end(
    database_settings: PoolSettings,
) -> None:
    async with cluster(database_settings, "synchrotron") as hs:
        client = hs["synchrotron"].client
        token = await hs.main.client.register("alice")
        graph = Graph.elsewhere(Whole(hs.main.hs))
        start = (await sync(client, token))["next_batch"]
        invite = graph.make(EVE, "m.room.member", {"membership": "invite"}, state_key=ALICE)
        name = {"type": "m.room.name", "state_key": "", "sender": EVE, "content": {"name": "Elsewhere"}}
        told = ReceivedEvent(invite, stripped=(name,))
        assert await graph.give(told, kind=Kind.ASIDE) == [Fate.ACCEPTED]
        await hs.caught_up()
        for since in (start, None):
            answer = await sync(client, token, since)
            events = answer["rooms"]["invite"][graph.room_id]["invite_state"]["events"]
            assert [(event["type"], event["content"].get("name")) for event in events] == [
                ("m.room.name", "Elsewhere"),
                ("m.room.member", None),
            ]
        leave = graph.make(ALICE, "m.room.member", {"membership": "leave"}, state_key=ALICE)
        assert await graph.give(leave, kind=Kind.ASIDE) == [Fate.ACCEPTED]
        await hs.caught_up()
        gone = await sync(client, token, answer["next_batch"])
        assert ids(gone["rooms"]["leave"][graph.room_id]["timeline"]["events"]) == [leave.event_id]
        assert graph.room_id not in (await sync(client, token)).get("rooms", {}).get("invite", {})
        again = graph.make(EVE, "m.room.member", {"membership": "invite"}, state_key=ALICE)
        assert await graph.give(again, kind=Kind.ASIDE) == [Fate.ACCEPTED]
        join = await graph.enter(ALICE)
        await hs.caught_up()
        answer = await sync(client, token, gone["next_batch"])
        assert ids(answer["rooms"]["join"][graph.room_id]["timeline"]["events"]) == [join.event_id]
        assert "invite" not in answer["rooms"]


@pytest_twisted.ensureDeferred
async def test_history_that_is_fetched_later_is_paged_through_and_told_by_no_sync(
    database_settings: PoolSettings,
) -> None:
    async with homeserver(database_settings) as hs:
        token = await hs.client.register("alice")
        graph = Graph.elsewhere(Whole(hs.hs))
        said = [graph.say(EVE, str(number)) for number in range(30)]
        join = await graph.enter(ALICE)
        answer = await sync(hs.client, token)
        timeline = answer["rooms"]["join"][graph.room_id]["timeline"]
        assert await graph.give(graph.with_state(said[20]), *said[21:], kind=Kind.HISTORY) == [Fate.ACCEPTED] * 10
        assert await graph.give(graph.with_state(said[10]), *said[11:20], kind=Kind.HISTORY) == [Fate.ACCEPTED] * 10
        page = await messages(hs.client, token, graph.room_id, timeline["prev_batch"], 15)
        assert ids(page["chunk"]) == [event.event_id for event in reversed(said[15:])]
        page = await messages(hs.client, token, graph.room_id, page["end"], 15)
        assert ids(page["chunk"]) == [event.event_id for event in reversed(said[10:15])]
        assert graph.room_id not in (await sync(hs.client, token, answer["next_batch"])).get("rooms", {}).get(
            "join", {}
        )
        again = (await sync(hs.client, token))["rooms"]["join"][graph.room_id]["timeline"]
        assert ids(again["events"]) == [join.event_id]


@pytest_twisted.ensureDeferred
async def test_history_visibility_holds_for_events_that_are_fetched_later(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as hs:
        token = await hs.client.register("alice")
        graph = Graph.elsewhere(Whole(hs.hs), visibility="joined")
        said = graph.say(EVE, "for members only")
        await graph.enter(ALICE)
        prev_batch = (await sync(hs.client, token))["rooms"]["join"][graph.room_id]["timeline"]["prev_batch"]
        assert await graph.give(graph.with_state(said), kind=Kind.HISTORY) == [Fate.ACCEPTED]
        assert (await messages(hs.client, token, graph.room_id, prev_batch))["chunk"] == []
        code, _ = await hs.client.get(
            f"/_matrix/client/v3/rooms/{quote(graph.room_id)}/event/{quote(said.event_id)}", token
        )
        assert code == 404


@pytest.mark.parametrize("version", ["2", "11"])
@pytest_twisted.ensureDeferred
async def test_a_redaction_comes_down_the_sync_after_what_it_redacts(
    database_settings: PoolSettings, version: str
) -> None:
    async with cluster(database_settings, "synchrotron") as hs:
        client = hs["synchrotron"].client
        token = await hs.main.client.register("alice")
        graph = Graph.elsewhere(Whole(hs.main.hs), version=version)
        await graph.enter(ALICE)
        secret = graph.say(EVE, "a secret")
        in_content = graph.version.redacts_in_content
        content = {"redacts": secret.event_id} if in_content else {}
        redaction = graph.make(
            EVE,
            "m.room.redaction",
            content,
            redacts=None if in_content else secret.event_id,
            after=secret.prev_event_ids,
        )
        said = graph.say(EVE, "said", after=[redaction.event_id])
        await hs.caught_up()
        since = (await sync(client, token))["next_batch"]
        is_judged = graph.version.redaction_auth_rule  # then it waits for nothing
        fate = Fate.ACCEPTED if is_judged else Fate.SOFT_FAILED
        assert await graph.give(redaction, said) == [fate, Fate.ACCEPTED]
        await hs.caught_up()
        early = [redaction.event_id] if is_judged else []
        for start in (since, None):
            answer = await sync(client, token, start)
            told = ids(answer["rooms"]["join"][graph.room_id]["timeline"]["events"])
            assert told[-1 - len(early) :] == [*early, said.event_id]
            assert (redaction.event_id in told) is is_judged
        path = f"/_matrix/client/v3/rooms/{quote(graph.room_id)}/event/{quote(redaction.event_id, safe='')}"
        assert (await hs.main.client.get(path, token))[0] == (200 if is_judged else 404)
        assert await graph.give(secret) == [Fate.ACCEPTED]
        await hs.caught_up()
        after = [secret.event_id] if is_judged else [secret.event_id, redaction.event_id]
        timeline = (await sync(client, token, answer["next_batch"]))["rooms"]["join"][graph.room_id]["timeline"]
        assert (ids(timeline["events"]), timeline["limited"]) == (after, False)
        assert timeline["events"][0]["content"] == {}
        because = timeline["events"][0]["unsigned"]["redacted_because"]
        assert because["event_id"] == redaction.event_id
        assert (await hs.main.client.get(path, token))[0] == 200
        timeline = (await sync(client, token))["rooms"]["join"][graph.room_id]["timeline"]
        assert ids(timeline["events"])[-len(after) :] == after
