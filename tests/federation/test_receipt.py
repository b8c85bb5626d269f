"""What other servers send, all the way into the database: each check of the specification, in every room version."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.api.room_versions import ROOM_VERSIONS
from synapse.storage.persist_events import Fate, Received, ReceivedEvent
from synapse.storage.pool import PoolSettings
from synapse.util.concurrency import gather
from tests.federation.visitor import Visitor, present, stored, visit
from tests.rest.people import Person, person
from tests.support.homeserver import TestServer, cluster, homeserver

VERSIONS = list(ROOM_VERSIONS)


class Scene:
    """A homeserver, Alice and a room of hers, and a visitor whose Eve is in it."""

    def __init__(self, server: TestServer, alice: Person, eve: Visitor, room: str) -> None:
        self.server, self.alice, self.eve, self.room = server, alice, eve, room

    async def timeline(self) -> list[str]:
        """What Alice sees of the room."""
        answer = await self.alice.get("/sync")
        return [event["event_id"] for event in answer["rooms"]["join"][self.room]["timeline"]["events"]]

    async def shown(self, event_id: str) -> Any:
        """An event as Alice sees it."""
        return await self.alice.get(f"/rooms/{self.room}/event/{quote(event_id, '')}")

    async def empower(self, levels: dict[str, Any]) -> None:
        """Gives Eve more power than others."""
        users = {**levels["users"], self.eve.user(): 60}
        await self.alice.state(self.room, "m.room.power_levels", **{**levels, "users": users})


async def scene(server: TestServer, version: str = "12", **options: Any) -> Scene:
    alice = await person(server, "alice")
    room = await alice.room(room_version=version, **options)
    eve = await visit(server)
    await eve.join(room)
    return Scene(server, alice, eve, room)


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_a_message_arrives(database_settings: PoolSettings, version: str) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        events = await at.eve.chain(at.room, 3)
        assert await at.eve.send(*events) == {event.event_id: {} for event in events}
        assert (await at.timeline())[-3:] == [event.event_id for event in events]
        assert at.eve.asked == []


# -- checks 1 to 3 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "5", "10", "12"])
@pytest_twisted.ensureDeferred
async def test_what_is_malformed_or_not_signed_is_dropped_and_said(
    database_settings: PoolSettings, version: str
) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        good = await at.eve.make(at.room, content={"body": "good"})
        unsigned = await at.eve.make(at.room, sender="@alice:test", content={"body": "forged"})
        twisted = await at.eve.make(at.room, content={"body": "twisted"})
        wrong = {**twisted.raw, "signatures": {"evil.test": {"ed25519:1": "A" * 86}}}
        later = {**good.raw, "origin_server_ts": good.origin_server_ts + 1}
        before = await present(server, at.room)
        answer = await at.eve.send(unsigned, wrong, later, {**good.raw, "depth": "1"}, good)
        assert answer[good.event_id] == {}
        assert answer[unsigned.event_id].keys() == answer[twisted.event_id].keys() == {"error"}
        assert [await stored(server, event) for event in (unsigned, twisted)] == [None, None]
        assert (await at.timeline())[-1] == good.event_id
        assert await present(server, at.room) == before


@pytest.mark.parametrize("version", ["1", "3", "6", "9", "11", "12"])
@pytest_twisted.ensureDeferred
async def test_of_what_has_another_content_than_it_says_the_redacted_copy_is_kept(
    database_settings: PoolSettings, version: str
) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        event = await at.eve.make(at.room, content={"body": "as signed"})
        assert await at.eve.send({**event.raw, "content": {"body": "changed"}}) == {event.event_id: {}}
        found = await stored(server, event)
        assert found is not None
        assert found.event.content == {}
        answer = await at.shown(event.event_id)
        assert answer["content"] == {}
        name = await at.eve.make(at.room, "m.room.member", {"membership": "join", "displayname": "E"}, at.eve.user())
        raw = {**name.raw, "content": {"membership": "join", "displayname": "Alice"}}
        assert await at.eve.send(raw) == {name.event_id: {}}
        assert (await present(server, at.room))[("m.room.member", at.eve.user())] == name.event_id
        shown = await at.alice.get(f"/rooms/{at.room}/state/m.room.member/{at.eve.user()}")
        assert shown == {"membership": "join"}


@pytest_twisted.ensureDeferred
async def test_a_server_that_forwards_is_as_good_as_the_senders_own(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server)
        other = await visit(server, "other.test")
        event = await at.eve.make(at.room)
        assert await other.send(event) == {event.event_id: {}}
        assert (await at.timeline())[-1] == event.event_id


@pytest_twisted.ensureDeferred
async def test_an_access_list_keeps_servers_out(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server)
        before = await at.eve.make(at.room)
        await at.alice.state(at.room, "m.room.server_acl", allow=["*"], deny=["evil.*"])
        event = await at.eve.make(at.room)
        answer = await at.eve.send(event, before)
        assert all("access list" in result["error"] for result in answer.values())
        assert await stored(server, event) is None
        other = await visit(server, "other.test")
        # What is signed by a server that is kept out may come by another; it may be from before.
        assert await other.send(event) == {event.event_id: {}}


@pytest_twisted.ensureDeferred
async def test_events_of_other_rooms_leave_no_trace(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, "10")
        other = await at.alice.room(room_version="10")
        elsewhere = at.eve.event((await at.eve.make(at.room)).room_version, "!unknown:evil.test")
        after_another = await at.eve.make(at.room, prev=(await at.eve.make(other)).prev_event_ids)
        nowhere = await at.eve.make(at.room, prev=[])
        create = await at.eve.make(at.room, "m.room.create", {"creator": at.eve.user()}, "", prev=[], auth_events=[])
        answer = await at.eve.send(elsewhere, after_another, nowhere, create)
        assert [answer[event.event_id].keys() for event in (after_another, nowhere, create)] == [{"error"}] * 3
        for event in (elsewhere, after_another, nowhere, create):
            assert await stored(server, event) is None
        left = await at.alice.room(room_version="10")
        await at.eve.join(left)
        late = await at.eve.make(left)
        await at.alice.post(f"/rooms/{left}/leave")
        assert "error" in (await at.eve.send(late)).get(late.event_id, {"error": ""})
        assert await stored(server, late) is None


@pytest_twisted.ensureDeferred
async def test_no_room_gets_the_state_of_another(database_settings: PoolSettings) -> None:
    """The writer by itself: its caller has not seen the other room's event, which came in the same moment."""
    async with homeserver(database_settings) as server:
        at = await scene(server, "10")
        other = await at.alice.room(room_version="10")
        await at.eve.join(other)
        strange = await at.eve.make(other)
        event = await at.eve.make(at.room, prev=[strange.event_id])
        before = await present(server, at.room)
        receive = server.hs.rooms.receive
        version = event.room_version
        in_one_batch = gather(
            [
                receive(Received(other, version, (ReceivedEvent(strange),))),
                receive(Received(at.room, version, (ReceivedEvent(event),))),
            ]
        )
        assert [receipt.fates[0][0] for receipt in await in_one_batch] == [Fate.ACCEPTED, Fate.REFUSED]
        told = Received(at.room, version, (ReceivedEvent(event, state_before=before),))
        assert (await receive(told)).fates[0][0] is Fate.ACCEPTED
        assert await present(server, at.room) == before


# -- checks 4 to 6 ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_is_said_of_a_rejected_event_can_be_stored_whatever_the_event_says(
    database_settings: PoolSettings,
) -> None:
    """The reason names what is wrong, in the event's own words: NUL is none that a database takes."""
    async with homeserver(database_settings) as server:
        at = await scene(server)
        levels = await at.alice.get(f"/rooms/{at.room}/state/m.room.power_levels")
        events = {**levels["events"], "m.room.power_levels": 60}
        await at.empower({**levels, "events": events})
        greedy = {**levels, "events": {**events, "a\x00b" * 5_000: 100}}
        event = await at.eve.make(at.room, "m.room.power_levels", greedy, "")
        good = await at.eve.make(at.room)
        assert await at.eve.send(event, good) == {event.event_id: {}, good.event_id: {}}
        found = await stored(server, event)
        assert found is not None
        assert found.rejected is not None
        assert "You cannot raise" in found.rejected
        assert len(found.rejected) < 1_000
        assert (await at.timeline())[-1] == good.event_id


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_what_its_auth_events_do_not_allow_is_rejected(database_settings: PoolSettings, version: str) -> None:
    """Check 4. The present state would allow it: Eve has been given the power that the events she cites know not of."""
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        weak = await at.eve.make(at.room, "m.room.name", {"name": "Eve's"}, "")
        levels = await at.alice.get(f"/rooms/{at.room}/state/m.room.power_levels")
        await at.alice.state(
            at.room, "m.room.power_levels", **{**levels, "users": {**levels["users"], at.eve.user(): 60}}
        )
        before = await present(server, at.room)
        event = await at.eve.make(at.room, "m.room.name", {"name": "Eve's"}, "", auth_events=weak.auth_event_ids)
        alien = await at.eve.make(at.room, auth_events=[*weak.auth_event_ids, before[("m.room.join_rules", "")]])
        assert await at.eve.send(event, alien) == {event.event_id: {}, alien.event_id: {}}
        for each in (event, alien):
            found = await stored(server, each)
            assert found is not None
            assert found.rejected
        assert await present(server, at.room) == before
        assert event.event_id not in await at.timeline()
        strong = await at.eve.make(at.room, "m.room.name", {"name": "Eve's"}, "")
        await at.eve.send(strong)
        assert (await present(server, at.room))[("m.room.name", "")] == strong.event_id


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_what_the_state_before_it_does_not_allow_is_rejected(
    database_settings: PoolSettings, version: str
) -> None:
    """Check 5: Eve cites her power, which she has lost before the event."""
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        levels = await at.alice.get(f"/rooms/{at.room}/state/m.room.power_levels")
        await at.alice.state(
            at.room, "m.room.power_levels", **{**levels, "users": {**levels["users"], at.eve.user(): 60}}
        )
        strong = await at.eve.make(at.room, "m.room.name", {"name": "Eve's"}, "")
        await at.alice.state(at.room, "m.room.power_levels", **levels)
        before = await present(server, at.room)
        event = await at.eve.make(at.room, "m.room.name", {"name": "Eve's"}, "", auth_events=strong.auth_event_ids)
        after = await at.eve.make(at.room, prev=[event.event_id])
        assert await at.eve.send(event, after) == {event.event_id: {}, after.event_id: {}}
        found = await stored(server, event)
        assert found is not None
        assert found.rejected
        assert await present(server, at.room) == before
        assert (await at.timeline())[-1] == after.event_id


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_what_the_room_does_not_allow_any_more_is_soft_failed(
    database_settings: PoolSettings, version: str
) -> None:
    """Check 6: Eve was banned, and writes at a place before that."""
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        event, named = await at.eve.make(at.room), await at.eve.make(at.room, content={"body": "2"})
        await at.alice.post(f"/rooms/{at.room}/ban", {"user_id": at.eve.user()})
        before = await present(server, at.room)
        timeline = await at.timeline()
        assert await at.eve.send(event, named) == {event.event_id: {}, named.event_id: {}}
        found = await stored(server, event)
        assert found is not None
        assert (found.soft_failed, found.rejected) == (True, None)
        assert await present(server, at.room) == before
        assert await at.timeline() == timeline
        head = await server.hs.rooms.memory.heads.reload(at.room)
        assert head is not None
        assert event.event_id not in head.extremities
        await at.alice.say(at.room, "on")  # which comes after what she knows


@pytest_twisted.ensureDeferred
async def test_what_the_policy_server_does_not_sign_is_soft_failed(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server)
        policy = {"via": "evil.test", "public_keys": {"ed25519": "A" * 43}}
        await at.alice.state(at.room, "m.room.topic", topic="x")
        code, _ = await at.alice.ask("PUT", f"/rooms/{at.room}/state/m.room.policy", policy)
        assert code == 200
        event = await at.eve.make(at.room)
        assert await at.eve.send(event) == {event.event_id: {}}
        found = await stored(server, event)
        assert found is not None
        assert found.soft_failed


# -- what is missing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_missing_events_are_fetched_and_told_in_order(database_settings: PoolSettings, version: str) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        events = await at.eve.chain(at.room, 6)
        at.eve.before = lambda latest: events[:-1]
        assert await at.eve.send(events[-1]) == {events[-1].event_id: {}}
        assert (await at.timeline())[-6:] == [event.event_id for event in events]
        assert at.eve.asked == ["get_missing_events"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_over_a_gap_the_state_is_told(database_settings: PoolSettings, version: str) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        # A second user of Eve's server has joined meanwhile, and nobody told.
        mallory = at.eve.user("mallory")
        join = await at.eve.make(at.room, "m.room.member", {"membership": "join"}, mallory, sender=mallory)
        gap = await at.eve.make(at.room, prev=[join.event_id], depth=30)
        oldest = await at.eve.make(at.room, prev=[gap.event_id], depth=31)
        newest = await at.eve.make(at.room, prev=[oldest.event_id], depth=32)
        state = {**await present(server, at.room), ("m.room.member", mallory): join.event_id}
        at.eve.before = lambda latest: [oldest] if newest.event_id in latest else []
        at.eve.state_at = lambda event_id: {"pdu_ids": list(state.values()), "auth_chain_ids": []}
        assert await at.eve.send(newest) == {newest.event_id: {}}
        assert (await at.timeline())[-2:] == [oldest.event_id, newest.event_id]
        assert (await present(server, at.room))[("m.room.member", mallory)] == join.event_id
        found = await stored(server, join)
        assert found is not None
        assert found.outlier
        assert await stored(server, gap) is None  # it is no part of the state
        await at.alice.say(at.room, "on")


@pytest_twisted.ensureDeferred
async def test_power_cannot_be_taken_over_a_gap(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, "10")
        before = await present(server, at.room)
        levels = await at.eve.make(at.room, "m.room.power_levels", {"users": {at.eve.user(): 100}}, "", prev=["$gone"])
        gap = await at.eve.make(at.room, prev=["$gone"])
        oldest = await at.eve.make(at.room, prev=[gap.event_id])
        newest = await at.eve.make(at.room, prev=[oldest.event_id])
        own = [i for key, i in before.items() if key[0] in ("m.room.create", "m.room.member")]
        at.eve.before = lambda latest: [oldest] if newest.event_id in latest else []
        at.eve.state_at = lambda event_id: {"pdu_ids": [*own, levels.event_id], "auth_chain_ids": []}
        await at.eve.send(newest)
        assert (await present(server, at.room))[("m.room.power_levels", "")] == before[("m.room.power_levels", "")]


# -- redactions, notifications --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_redactions(database_settings: PoolSettings, version: str) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        hers = await at.alice.say(at.room, "hers")
        own = await at.eve.make(at.room)
        await at.eve.send(own)
        bad = await at.eve.make(at.room, "m.room.redaction", {}, redacts=hers)
        good = await at.eve.make(at.room, "m.room.redaction", {}, redacts=own.event_id)
        assert await at.eve.send(bad, good) == {bad.event_id: {}, good.event_id: {}}
        assert (await at.shown(hers))["content"]["body"] == "hers"
        answer = await at.shown(own.event_id)
        assert (answer["content"], answer["unsigned"]["redacted_by"]) == ({}, good.event_id)
        found = await stored(server, bad)
        assert found is not None
        assert (found.rejected is not None, found.soft_failed) == ((version in ("1", "2"), version not in ("1", "2")))
        assert bad.event_id not in await at.timeline()
        # One that comes before what it redacts.
        late = await at.eve.make(at.room, content={"body": "late"})
        early = await at.eve.make(at.room, "m.room.redaction", {}, redacts=late.event_id)
        assert await at.eve.send(early) == {early.event_id: {}}
        assert await at.eve.send(late) == {late.event_id: {}}
        answer = await at.shown(late.event_id)
        assert answer["content"] == {}


@pytest_twisted.ensureDeferred
async def test_what_redacts_itself_or_in_another_room_redacts_nothing(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, "1")
        other = await at.alice.room(room_version="1")
        await at.eve.join(other)
        target = await at.eve.make(other)
        itself = await at.eve.make(at.room, "m.room.redaction", {}, event_id="$own:evil.test", redacts="$own:evil.test")
        foreign = await at.eve.make(at.room, "m.room.redaction", {}, redacts=target.event_id)
        answer = await at.eve.send(target, itself, foreign)
        assert answer == {event.event_id: {} for event in (target, itself, foreign)}
        for event in (target, itself, foreign):
            found = await stored(server, event)
            assert found is not None
            assert found.redacted_by is None


@pytest_twisted.ensureDeferred
async def test_local_users_are_notified_as_of_local_events(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server)
        await at.eve.send(await at.eve.make(at.room, content={"msgtype": "m.text", "body": "alice: hello"}))
        root = await at.eve.make(at.room)
        await at.eve.send(root)
        relation = {"rel_type": "m.thread", "event_id": root.event_id}
        await at.eve.send(await at.eve.make(at.room, content={"body": "x", "m.relates_to": relation}))
        sync = await at.alice.get('/sync?filter={"room":{"timeline":{"unread_thread_notifications":true}}}')
        joined = sync["rooms"]["join"][at.room]
        assert joined["unread_notifications"]["notification_count"] == 2
        assert joined["unread_thread_notifications"][root.event_id]["notification_count"] == 1


# -- once --------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_transaction_counts_once(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server)
        event = await at.eve.make(at.room)
        both: list[Any] = await gather([at.eve.send(event, txn="a"), at.eve.send(event, txn="a")])
        both += await gather([at.eve.send(event, txn="b"), at.eve.send(event, txn="c")])
        assert both == [{event.event_id: {}}] * 4
        assert await at.eve.send(txn="a") == {event.event_id: {}}  # what was answered then
        assert (await at.timeline()).count(event.event_id) == 1


@pytest.mark.parametrize("is_banned", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_message_that_nobody_remembers_counts_once(database_settings: PoolSettings, is_banned: bool) -> None:
    """It is sent again, with a new one, when memory has what it refers to and has forgotten the message itself."""
    async with homeserver(database_settings) as server:
        at = await scene(server)
        event, other = await at.eve.make(at.room), await at.eve.make(at.room, content={"body": "2"})
        if is_banned:  # so that it is soft-failed, and never was in memory
            await at.alice.post(f"/rooms/{at.room}/ban", {"user_id": at.eve.user()})
        await at.eve.send(event)
        before, timeline = await stored(server, event), await at.timeline()
        server.hs.rooms.memory.events._cache.pop(event.event_id)
        server.hs.rooms.persister._recent.clear()
        assert await at.eve.send(event, other) == {event.event_id: {}, other.event_id: {}}
        after = await stored(server, event)
        assert before is not None
        assert after is not None
        assert (after.stream_ordering, after.soft_failed) == (before.stream_ordering, is_banned)
        assert await at.timeline() == timeline + [other.event_id] * (not is_banned)


@pytest_twisted.ensureDeferred
async def test_what_was_written_before_a_process_died_is_not_doubled(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server)
        event = await at.eve.make(at.room)
        await at.eve.send(event, txn="a")
        # As if the process had died before it kept the answer.
        await server.hs.database.write("forget", lambda txn: txn.execute("DELETE FROM received_transactions"))
        room, eve = at.room, at.eve
        timeline = await at.timeline()
    async with homeserver(database_settings) as server:
        again = await visit(server, key=eve.key)
        assert await again.send(event, txn="a") == {event.event_id: {}}
        alice = Person(server.client, "@alice:test", at.alice.token)
        answer = await alice.get("/sync")
        assert [each["event_id"] for each in answer["rooms"]["join"][room]["timeline"]["events"]] == timeline


@pytest_twisted.ensureDeferred
async def test_old_answers_are_forgotten(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        store = server.hs.receiving.store
        now = server.hs.rooms.now()
        await store.put("a.test", "1", "{}", now)
        await store.put("a.test", "2", "{}", now - 25 * 3_600_000)
        await store.put("a.test", "1", '{"another": 1}', now)
        assert await store.get("a.test", "1") == "{}"
        await server.hs.receiving.background[0]._work()
        assert [await store.get("a.test", txn) for txn in "12"] == ["{}", None]


# -- several processes ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_two_readers_take_the_same_in_once(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "federation_reader") as processes:
        one = processes["federation_reader"]
        two = await processes.add_worker("generic_worker")
        main = processes.main
        alice = await person(main, "alice")
        room = await alice.room()
        eve = await visit(main, "evil.test", one, two)
        await eve.join(room)
        events = await eve.chain(room, 4)
        content = {"origin": eve.name, "origin_server_ts": 1, "pdus": [event.raw for event in events], "edus": []}
        answers = await gather([eve.put("/send/a", content, to) for to in (one, one, main, one)])
        assert answers == [(200, {"pdus": {event.event_id: {} for event in events}})] * 4
        timeline = (await alice.get("/sync"))["rooms"]["join"][room]["timeline"]["events"]
        assert [each["event_id"] for each in timeline][-4:] == [event.event_id for event in events]
        # What one process fetches it writes through the main process.
        more = await eve.chain(room, 6)
        eve.before = lambda latest: more[:-1]
        code, answer = await eve.put("/send/b", {**content, "pdus": [more[-1].raw]}, one)
        assert (code, answer) == (200, {"pdus": {more[-1].event_id: {}}})
        timeline = (await alice.get("/sync"))["rooms"]["join"][room]["timeline"]["events"]
        assert [each["event_id"] for each in timeline][-6:] == [event.event_id for event in more]


# -- what users here make of what is not here yet ---------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "10", "12"])
@pytest_twisted.ensureDeferred
async def test_what_has_not_arrived_yet_is_redacted_by_who_may_redact_anything(
    database_settings: PoolSettings, version: str
) -> None:
    async with homeserver(database_settings) as server:
        at = await scene(server, version)
        bob = await person(server, "bob")
        await bob.join(at.room)
        secret = await at.eve.make(at.room, content={"body": "secret"})
        path = f"/rooms/{at.room}/redact/{quote(secret.event_id, '')}/1"
        refused = (403, "M_FORBIDDEN") if version == "1" else (404, "M_NOT_FOUND")  # by the auth rules, or by ours
        assert await bob.refused("PUT", path, {}) == refused
        redaction = (await at.alice.put(path, {}))["event_id"]
        assert await at.eve.send(secret) == {secret.event_id: {}}
        shown = await at.shown(secret.event_id)
        assert shown["content"] == {}
        assert shown["unsigned"]["redacted_because"]["event_id"] == redaction
