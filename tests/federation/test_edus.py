"""What other servers tell of typing, presence, receipts, and messages to devices here: who may say what."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.api.constants import Presence
from synapse.federation.receiving.transactions import EDUS_WITHIN
from synapse.handlers.edus.presence import SILENT_AFTER, FarPresenceKeeper
from synapse.handlers.edus.typing import TIMEOUT
from synapse.replication.calls import WITHIN, LocalMain
from synapse.storage.database import Database
from synapse.storage.pool import PoolSettings
from synapse.storage.presence import PresenceState
from synapse.storage.receipts import FarReceipt, Receipt, ReceiptStore
from tests.rest.people import Person
from tests.support.far_users import put_into_room
from tests.support.homeserver import TestServer, homeserver
from tests.support.world import World

FAR, NEAR = "@b:far", "@c:near"
ALICE = "@alice:test"
EVENT = "$" + "x" * 43


class Town:
    """Alice's server, a room of hers with a user of `far`, and one of `near` who is in no room."""

    def __init__(self, server: TestServer, alice: Person, room_id: str, device_id: str) -> None:
        self.server = server
        self.alice = alice
        self.room_id = room_id
        self.device_id = device_id

    async def hear(self, origin: str, edu_type: str, **content: Any) -> None:
        await self.server.hs.receiving.edus.take(origin, {"edu_type": edu_type, "content": content})

    async def ephemeral(self, event_type: str) -> Any:
        """The content of that type in the room."""
        found = await self.alice.get("/sync?timeout=0")
        events = found["rooms"]["join"][self.room_id]["ephemeral"]["events"]
        return next((event["content"] for event in events if event["type"] == event_type), None)

    async def messages(self) -> list[Any]:
        found = await self.alice.get("/sync?timeout=0")
        return list(found.get("to_device", {}).get("events", []))


@asynccontextmanager
async def town(database_settings: PoolSettings, **options: Any) -> AsyncIterator[Town]:
    async with homeserver(database_settings, **options) as server:
        alice = Person(server.client, ALICE, await server.client.register("alice"))
        room_id = await alice.room()
        await put_into_room(server.hs, room_id, FAR)
        device_id = (await alice.get("/account/whoami"))["device_id"]
        yield Town(server, alice, room_id, device_id)


# -- typing ------------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_typing_is_told_by_the_users_own_server_about_rooms_that_they_are_in(
    database_settings: PoolSettings,
) -> None:
    async with town(database_settings) as t:
        for origin, user_id in (("near", FAR), ("far", ALICE), ("far", "@other:far"), ("near", NEAR)):
            await t.hear(origin, "m.typing", room_id=t.room_id, user_id=user_id, typing=True)
        for wrong in ({"room_id": "x"}, {"typing": "yes"}, {"user_id": 5}, {"room_id": "!unknown:far"}):
            await t.hear("far", "m.typing", **{"room_id": t.room_id, "user_id": FAR, "typing": True, **wrong})
        assert await t.ephemeral("m.typing") is None
        await t.hear("far", "m.typing", room_id=t.room_id, user_id=FAR, typing=True)
        assert await t.ephemeral("m.typing") == {"user_ids": [FAR]}
        timer = t.server.hs.reading.typing._rooms[t.room_id][FAR]
        assert timer.getTime() - t.server.hs.reactor.seconds() <= TIMEOUT / 1000  # type: ignore[attr-defined]
        await t.hear("far", "m.typing", room_id=t.room_id, user_id=FAR, typing=False)
        assert await t.ephemeral("m.typing") in (None, {"user_ids": []})


@ensureDeferred
async def test_access_lists_hold_for_what_is_not_events_too(database_settings: PoolSettings) -> None:
    async with town(database_settings) as t:
        await t.alice.state(t.room_id, "m.room.server_acl", allow=["*"], deny=["far"])
        await t.hear("far", "m.typing", room_id=t.room_id, user_id=FAR, typing=True)
        receipt = {"event_ids": [EVENT], "data": {"ts": 1}}
        await t.hear("far", "m.receipt", **{t.room_id: {"m.read": {FAR: receipt}}})
        assert await t.ephemeral("m.typing") is None
        assert await t.ephemeral("m.receipt") is None


# -- receipts ----------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_receipts_of_others_are_shown_and_move_forwards(database_settings: PoolSettings) -> None:
    async with town(database_settings) as t:
        first, second = [await t.alice.say(t.room_id, text) for text in ("one", "two")]

        async def hear(event_id: str, origin: str = "far", user_id: str = FAR, **data: Any) -> None:
            receipt = {"event_ids": [event_id], "data": {"ts": 5, "private": "x", **data}}
            await t.hear(origin, "m.receipt", **{t.room_id: {"m.read": {user_id: receipt}}})

        await hear(first, origin="near")
        await hear(first, user_id=ALICE)
        await hear(first, user_id="@other:far")
        await hear(first, ts=-1)
        await hear(first, ts=2**53)
        await hear("no event id")
        await hear(first, thread_id=5)
        await t.hear(
            "far", "m.receipt", **{t.room_id: {"m.read.private": {FAR: {"event_ids": [first], "data": {"ts": 1}}}}}
        )
        assert await t.ephemeral("m.receipt") is None
        await hear(second)
        await hear(first)
        assert await t.ephemeral("m.receipt") == {second: {"m.read": {FAR: {"ts": 5}}}}
        await hear(second, thread_id="main")
        content = await t.ephemeral("m.receipt")
        assert content[second]["m.read"][FAR] in ({"ts": 5}, {"ts": 5, "thread_id": "main"})


@ensureDeferred
async def test_receipts_of_others_are_in_their_order_though_events_came_in_another(
    database_settings: PoolSettings,
) -> None:
    async with town(database_settings) as t:
        first, second = [await t.alice.say(t.room_id, text) for text in ("one", "two")]
        for ts, event_id in ((1, second), (3, first), (2, second)):
            receipt = {"event_ids": [event_id], "data": {"ts": ts}}
            await t.hear("far", "m.receipt", **{t.room_id: {"m.read": {FAR: receipt}}})
        assert await t.ephemeral("m.receipt") == {first: {"m.read": {FAR: {"ts": 3}}}}


@ensureDeferred
async def test_receipts_of_many_cost_no_more_statements_than_that_of_one(database_settings: PoolSettings) -> None:
    async with town(database_settings) as t:
        users = [FAR, *(f"@b{number}:far" for number in range(20))]
        for user_id in users[1:]:
            await put_into_room(t.server.hs, t.room_id, user_id)
        first, second = [await t.alice.say(t.room_id, text) for text in ("one", "two")]

        async def hear(event_id: str, ts: int, users: list[str]) -> Counter[str]:
            receipt = {"event_ids": [event_id], "data": {"ts": ts}}
            with t.server.hs.database.counted() as counts:
                await t.hear("far", "m.receipt", **{t.room_id: {"m.read": dict.fromkeys(users, receipt)}})
            return counts.read + counts.written

        await hear(first, 1, users)
        for number, some in enumerate((users[-1:], users), start=2):
            counts = await hear(second, number, some)
            assert (counts["receipts.events"], counts["receipts.put_many"]) == (1, 1)
            assert sum(number for name, number in counts.items() if name.startswith("receipts.")) == 2
        later = {user_id: {"ts": 3} for user_id in users}
        assert await t.ephemeral("m.receipt") == {second: {"m.read": later}}
        await hear(first, 2, users[1:])  # which is behind that
        assert await t.ephemeral("m.receipt") == {second: {"m.read": later}}


@ensureDeferred
async def test_a_receipt_that_was_written_before_the_connection_broke_is_told(database: Database) -> None:
    world, store = World(database), ReceiptStore(database)
    row = await world.message(await world.room(ALICE), ALICE)
    of_far, of_alice = [Receipt(row.room_id, "m.read", each, "", row.event_id, '{"ts": 1}') for each in (FAR, ALICE)]
    for _ in range(2):
        assert await store.put_many([FarReceipt(of_far, row.stream)], [7]) == {7: (row.room_id, FAR)}
        assert await store.put(of_alice, row.stream, 8)
    assert await store.put_many([FarReceipt(of_far, row.stream)], [9]) == {}
    assert not await store.put(of_alice, row.stream, 10)


@ensureDeferred
async def test_receipts_for_what_is_not_here_are_kept_but_not_of_threads_that_there_are_not(
    database_settings: PoolSettings,
) -> None:
    async with town(database_settings) as t:
        root = await t.alice.say(t.room_id, "root")
        for thread_id in (EVENT, "$" + "y" * 43):
            receipt = {"event_ids": [EVENT], "data": {"ts": 1, "thread_id": thread_id}}
            await t.hear("far", "m.receipt", **{t.room_id: {"m.read": {FAR: receipt}}})
        assert await t.ephemeral("m.receipt") is None
        receipt = {"event_ids": [EVENT], "data": {"ts": 1, "thread_id": root}}
        await t.hear("far", "m.receipt", **{t.room_id: {"m.read": {FAR: receipt}}})
        assert await t.ephemeral("m.receipt") == {EVENT: {"m.read": {FAR: {"ts": 1, "thread_id": root}}}}


# -- messages to devices -----------------------------------------------------------------------------------------------


@ensureDeferred
async def test_messages_of_other_servers_arrive_once(database_settings: PoolSettings) -> None:
    async with town(database_settings) as t:

        async def hear(n: int, origin: str = "far", message_id: str = "1", **content: Any) -> None:
            messages = {ALICE: {"*": {"n": n}, "UNKNOWN": {}}, "@nobody:test": {"*": {}}, "@x:elsewhere": {"*": {}}}
            given = {"sender": FAR, "type": "m.x", "message_id": message_id, "messages": messages, **content}
            await t.hear(origin, "m.direct_to_device", **given)

        await hear(1)
        await hear(2)
        await hear(3, origin="near")
        await hear(4, message_id="4", sender=ALICE)
        await hear(5, message_id="x" * 256)
        await hear(6, message_id="6", messages={ALICE: {"*": {"x": "y" * 70_000}}})
        await hear(7, message_id="7", type=5)
        await hear(8, origin="near", sender=NEAR)
        assert await t.messages() == [
            {"sender": FAR, "type": "m.x", "content": {"n": 1}},
            {"sender": NEAR, "type": "m.x", "content": {"n": 8}},
        ], "strangers may write too; each server has message ids of its own"


@ensureDeferred
async def test_requests_for_keys_that_come_too_often_are_dropped(database_settings: PoolSettings) -> None:
    async with town(database_settings, rc_key_requests={"per_second": 0.001, "burst_count": 2}) as t:
        for n in range(4):  # none of them has its server's whole transaction wait
            content = {"sender": FAR, "message_id": str(n), "messages": {ALICE: {"*": {"n": n}}}}
            await t.hear("far", "m.direct_to_device", type="m.room_key_request", **content)
        content = {"sender": FAR, "message_id": "x", "messages": {ALICE: {"*": {"n": 9}}}}
        await t.hear("far", "m.direct_to_device", type="m.room_key", **content)
        assert [message["content"]["n"] for message in await t.messages()] == [0, 1, 9]


@ensureDeferred
async def test_what_reaches_nobody_leaves_no_trace_and_who_ignores_a_sender_is_spared(
    database_settings: PoolSettings,
) -> None:
    async with town(database_settings) as t:
        for n in range(3):
            content = {"sender": FAR, "type": "m.x", "message_id": str(n), "messages": {"@nobody:test": {"*": {}}}}
            await t.hear("far", "m.direct_to_device", **content)
        rows: Any = await t.server.hs.database.read(
            "test", lambda txn: (txn.execute("TABLE to_device_received"), txn.rows())
        )
        assert rows[1] == []
        await t.alice.put(f"/user/{ALICE}/account_data/m.ignored_user_list", {"ignored_users": {FAR: {}}})
        content = {"sender": FAR, "type": "m.x", "message_id": "n", "messages": {ALICE: {"*": {}}}}
        await t.hear("far", "m.direct_to_device", **content)
        assert await t.messages() == []


# -- presence ----------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_presence_is_kept_of_those_who_share_a_room(database_settings: PoolSettings) -> None:
    async with town(database_settings) as t:
        push = [
            {
                "user_id": FAR,
                "presence": "online",
                "last_active_ago": 5000,
                "currently_active": True,
                "status_msg": "x",
            },
            {"user_id": "@other:far", "presence": "online", "last_active_ago": 0},
            {"user_id": NEAR, "presence": "online", "last_active_ago": 0},
            {"user_id": ALICE, "presence": "unavailable", "last_active_ago": 0},
            {"user_id": FAR, "presence": "dancing", "last_active_ago": 0},
            {"user_id": FAR, "presence": "online", "last_active_ago": -1},
            5,
        ]
        await t.hear("far", "m.presence", push=push)
        await t.hear("near", "m.presence", push=[{"user_id": NEAR, "presence": "online", "last_active_ago": 0}])
        await t.server.hs.notifier.wait_until(
            "presence", t.server.hs.streams.positions.allocators["presence"].last, 5.0
        )  # type: ignore[union-attr]
        found = await t.alice.get(f"/presence/{FAR}/status")
        assert found.pop("last_active_ago") >= 5000
        assert found == {"presence": "online", "currently_active": True, "status_msg": "x"}
        events = (await t.alice.get("/sync?timeout=0"))["presence"]["events"]
        assert {event["sender"] for event in events} - {ALICE} == {FAR}


@ensureDeferred
async def test_presence_of_long_ago_is_forgotten_but_not_of_users_of_this_server(
    database_settings: PoolSettings,
) -> None:
    async with homeserver(database_settings) as server:
        store = server.hs.reading.presence_store
        states = [(FAR, "offline", 5), (NEAR, "online", 5), ("@d:far", "offline", 50), (ALICE, "offline", 5)]
        told = [PresenceState(user_id, state, None, active, False) for user_id, state, active in states]
        await store.put_many(told, range(1, 5))
        assert await store.put_many(told, range(5, 9)) == dict(enumerate([user_id for user_id, *_ in states], 5))
        await store.forget_others(10, "test")
        assert set(await store.get([user_id for user_id, *_ in states])) == {NEAR, "@d:far", ALICE}


class Written:
    """In place of the store and the stream."""

    def __init__(self) -> None:
        self.states: list[PresenceState] = []
        self.writes: list[int] = []  # of so many states
        self.busy: Deferred[None] = Deferred()
        self.busy.callback(None)

    async def not_offline(self) -> list[PresenceState]:
        return [PresenceState(FAR, "online", None, 1, False), PresenceState(ALICE, "online", None, 1, False)]

    async def put_many(self, states: Sequence[PresenceState], positions: Sequence[int]) -> dict[int, str]:
        self.states += states
        return {position: state.user_id for position, state in zip(positions, states, strict=True)}

    async def append_many(self, count: int, write: Any, rows: Any) -> None:
        self.writes.append(count)
        await self.busy
        positions = range(1, count + 1)
        assert list(rows(await write(positions))) == list(positions)


@ensureDeferred
async def test_who_is_not_heard_of_for_long_is_offline() -> None:
    clock, written, main = Clock(), Written(), LocalMain()
    anything: Any = written
    keeper = FarPresenceKeeper(anything, anything, main, clock, "test")
    await keeper.start()
    online = PresenceState(NEAR, Presence.ONLINE, "x", 10_000, True)
    await keeper._receive([online])
    clock.advance(SILENT_AFTER - 10)
    await keeper._receive([online._replace(last_active_ts=10_500)])
    await keeper.sweep()
    assert written.states == [online], "what changes nothing is not written"
    clock.advance(20)
    await keeper.sweep()
    assert [(state.user_id, state.state) for state in written.states[1:]] == [(FAR, "offline")], "this server's are not"
    clock.advance(SILENT_AFTER)
    await keeper.sweep()
    await keeper.sweep()
    assert written.states[2:] == [PresenceState(NEAR, "offline", None, 10_000, False)]


@ensureDeferred
async def test_what_is_told_while_presence_is_written_is_written_together() -> None:
    written, main = Written(), LocalMain()
    anything: Any = written
    keeper = FarPresenceKeeper(anything, anything, main, Clock(), "test")
    written.busy = Deferred()
    users = [f"@b{number}:far" for number in range(20)]
    for state in (Presence.ONLINE, Presence.UNAVAILABLE):
        await keeper._receive([PresenceState(user_id, state, None, 1, False) for user_id in users])
    written.busy.callback(None)
    assert written.writes == [1, 20]
    assert {state.user_id: state.state for state in written.states} == dict.fromkeys(users, "unavailable")


# -- nonsense ----------------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    [
        "user_id",
        "room_id",
        "typing",
        "push",
        "sender",
        "type",
        "message_id",
        "messages",
        "device_id",
        "stream_id",
        "prev_id",
        "keys",
        "deleted",
        "master_key",
        "self_signing_key",
        "!r:far",
        FAR,
        ALICE,
        "m.read",
    ]
)
_VALUES = st.sampled_from([FAR, ALICE, "!r:far", "m.x", 1, True, {}, []]) | _JSON
_CONTENT = st.dictionaries(_NAMES, _VALUES | st.dictionaries(_NAMES, _VALUES, max_size=3), max_size=6)
_TYPES = ("m.typing", "m.presence", "m.receipt", "m.direct_to_device", "m.device_list_update", "m.signing_key_update")


@ensureDeferred
async def test_nonsense_is_dropped(database_settings: PoolSettings, caplog: pytest.LogCaptureFixture) -> None:
    contents: list[tuple[str, dict[str, Any]]] = []

    @given(st.sampled_from(_TYPES), _CONTENT)
    @settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def collect(edu_type: str, content: dict[str, Any]) -> None:
        contents.append((edu_type, content))

    collect()
    async with town(database_settings) as t:
        for edu_type, content in contents:
            await t.hear("far", edu_type, **content)
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@ensureDeferred
async def test_what_edus_ask_of_the_main_process_ends_before_their_time_does(database_settings: PoolSettings) -> None:
    """So a transaction is refused, and comes again, where the main process is away; else its EDUs would be lost."""
    assert EDUS_WITHIN > WITHIN
    async with homeserver(database_settings) as server:
        longer = {name for name, (call, _) in server.hs.main.handlers.items() if call.within > WITHIN}
        assert longer == {"remote.join", "device_lists.fetch"}  # which users wish for, and no EDU
