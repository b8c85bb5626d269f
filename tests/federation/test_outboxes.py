"""What waits for other servers and is not events: that it waits as long as it has to, and is told once."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from synapse.federation.outboxes import Outbox
from synapse.federation.outboxes.chain import MAX_CHAIN, Chain, chain, list_id
from synapse.federation.outboxes.device_lists import QUIET_SECONDS, RETRY_SECONDS, DeviceListOutbox
from synapse.handlers.edus.outgoing import MAX_EDU_BYTES, edus_of
from synapse.storage.device_lists_outbox import Change, Devices, Positions, Told
from synapse.storage.errors import DatabaseClosed, DatabaseProblem, DatabaseUnavailable
from synapse.storage.pool import PoolSettings
from synapse.storage.published_keys import PublishedKeys
from tests.support.far_users import put_into_room
from tests.support.homeserver import homeserver
from tests.support.two_servers import Network

C = "/_matrix/client/v3"
ALICE = "@alice:test"
NOTHING = PublishedKeys(set(), [], [], [])


async def pending(outbox: Outbox, destination: str) -> list[tuple[str, dict[str, Any], Any]]:
    """Type, content and mark of what waits for a server."""
    waiting = (await outbox.waiting([destination, "nobody"])).get(destination, [])
    return [(*(orjson.loads(each.edu)[name] for name in ("edu_type", "content")), each.mark) for each in waiting]


class Failing:
    """In the place of whatever an outbox asks: it can only begin. Keeps who listens to which stream."""

    def __init__(self, problem: Exception) -> None:
        self.problem = problem
        self.listeners: dict[str, Any] = {}

    async def begin(self, present: Positions) -> Positions:
        return present

    def position(self, stream: str) -> int:
        return 1

    def subscribe(self, stream: str, listener: Any, reset: Any) -> None:
        self.listeners[stream] = listener

    async def each(self, *what: Any) -> Any:
        raise self.problem

    def __getattr__(self, name: str) -> Any:
        return self.each


@pytest.mark.parametrize(
    ("problem", "timers"), [(DatabaseUnavailable("It is away."), 1), (DatabaseClosed("This process is ending."), 0)]
)
@ensureDeferred
async def test_what_fails_is_tried_again_unless_the_process_is_ending(problem: Exception, timers: int) -> None:
    clock, failing = Clock(), Failing(problem)
    rest: Any = failing
    outbox = DeviceListOutbox(rest, failing.each, rest, rest, clock, "test", with_names=False)
    with contextlib.suppress(DatabaseProblem):
        await outbox.begin(lambda _: None)
    for _ in range(3):
        failing.listeners["device_lists"](2, [(2, ALICE)])
        clock.advance(RETRY_SECONDS)
    assert len(clock.getDelayedCalls()) == timers


# -- messages between devices ------------------------------------------------------------------------------------------


def test_messages_are_put_together_by_server_and_size() -> None:
    big = {"x": "y" * 30_000}
    messages = [(f"@u{n}:far", "D", big) for n in range(5)] + [("@v:near", "*", {"n": 1}), ("@u0:far", "E", {})]
    edus = edus_of(ALICE, "m.x", messages)
    assert len({edu.message_id for edu in edus}) == len(edus)
    assert all(len(edu.message_id) <= 32 and len(edu.content) < MAX_EDU_BYTES + 300 for edu in edus)
    told = [
        (edu.destination, user_id, device_id, content)
        for edu in edus
        for user_id, devices in orjson.loads(edu.content)["messages"].items()
        for device_id, content in devices.items()
    ]
    assert sorted(told, key=str) == sorted(
        ((user_id.partition(":")[2], user_id, device_id, content) for user_id, device_id, content in messages), key=str
    )
    assert [edu.destination for edu in edus].count("near") == 1


@ensureDeferred
async def test_messages_for_other_servers_wait_until_these_have_them(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        woken: list[str] = []
        outbox = server.hs.edus.to_device_outbox
        await outbox.begin(woken.extend)
        alice = await server.client.register("alice")
        body = {"messages": {"@b:far": {"*": {"n": 1}}, "@c:near": {"D": {"n": 2}}, ALICE: {"*": {"n": 3}}}}
        for _ in range(2):
            code, _ = await server.client.put(f"{C}/sendToDevice/m.x/1", body, alice)
            assert code == 200
        assert sorted(woken) == ["far", "near"], "what is asked for again does nothing again"
        (edu,) = await pending(outbox, "far")
        edu_type, content, mark = edu
        assert edu_type == "m.direct_to_device"
        assert {**content, "message_id": ""} == {
            "sender": ALICE,
            "type": "m.x",
            "message_id": "",
            "messages": {"@b:far": {"*": {"n": 1}}},
        }
    async with homeserver(database_settings) as server:
        outbox = server.hs.edus.to_device_outbox
        assert await outbox.destinations() == {"far", "near"}
        assert await pending(outbox, "far") == [edu], "with the same message id"
        await outbox.sent({"far": [mark]})
        assert await pending(outbox, "far") == []
        assert await outbox.destinations() == {"near"}


@ensureDeferred
async def test_the_latest_messages_wait_for_a_server_that_never_answers(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        alice = await server.client.register("alice")
        for number in range(5):
            body = {"messages": {"@b:far": {"D": {"n": number}}, "@b:near": {"D": {}}}}
            await server.client.put(f"{C}/sendToDevice/m.x/{number}", body, alice)
        store = server.hs.edus.to_device_outbox_store
        assert await store.trim(2) == 6
        waiting = await pending(server.hs.edus.to_device_outbox, "far")
        assert [content["messages"]["@b:far"]["D"]["n"] for _, content, _ in waiting] == [3, 4]


# -- device lists: the chain -------------------------------------------------------------------------------------------


def updates(found: Chain) -> list[tuple[str, list[int], int]]:
    return [
        (content["device_id"], content["prev_id"], content["stream_id"])
        for edu_type, content in found.edus
        if edu_type == "m.device_list_update"
    ]


def made(devices: Devices, told: Told | None, **signing: Any) -> Chain:
    return chain(ALICE, devices, told, {"A": {"k": 1}}.get, signing)


def test_each_update_names_the_one_before_it() -> None:
    devices = Devices([Change(5, ["A"]), Change(7, ["B", "C"]), Change(9, ["A"])], {"A": "name", "B": None}, NOTHING, 0)
    found = made(devices, Told(4, 4099))
    (b, prev_b, id_b), (c, prev_c, id_c), (a, prev_a, id_a) = updates(found)
    assert (b, c, a) == ("B", "C", "A")
    assert (prev_b, prev_c, prev_a) == ([4099], [id_b], [id_c])
    assert 4099 < id_b < id_c < id_a == found.update_id
    assert found.stream_id == 9
    contents = {content["device_id"]: content for _, content in found.edus}
    assert contents["A"] == {
        "user_id": ALICE,
        "device_id": "A",
        "stream_id": id_a,
        "prev_id": [id_c],
        "keys": {"k": 1},
        "device_display_name": "name",
    }
    assert "deleted" not in contents["B"]
    assert "keys" not in contents["B"]
    assert contents["C"]["deleted"] is True


def test_who_was_told_nothing_gets_the_whole_list() -> None:
    found = made(Devices([Change(3, ["B"])], {"A": None, "B": None}, NOTHING, 0), None, master_key={"x": 1})
    assert next(edu_type for edu_type, _ in found.edus) == "m.signing_key_update"
    (a, prev_a, id_a), (b, prev_b, _) = updates(found)
    assert (a, b, prev_a, prev_b) == ("A", "B", [], [id_a])


def test_of_gaps_a_server_is_told_by_an_update_that_it_cannot_know() -> None:
    names = {str(n): None for n in range(30)}
    many = Devices([Change(n + 10, [str(n)]) for n in range(MAX_CHAIN + 1)], names, NOTHING, 0)
    unknown = Devices([Change(30, None)], names, NOTHING, 0)
    forgotten = Devices([Change(30, ["1"])], names, NOTHING, 20)
    for devices in (many, unknown, forgotten):
        found = made(devices, Told(9, 9 * 1024), master_key={"x": 1})
        ((_, prev, update_id),) = updates(found)
        assert update_id == found.update_id == list_id(30)
        assert prev not in ([], [9 * 1024])
        assert (found.edus[0][0] == "m.signing_key_update") is (devices is not many)
    ((_, prev, _),) = updates(made(Devices([], names, NOTHING, 0), None))
    assert prev == []


def test_a_change_of_the_users_own_keys_is_no_update_of_a_device() -> None:
    found = made(Devices([Change(8, [])], {"A": None}, NOTHING, 0), Told(7, 77), self_signing_key={"x": 1})
    assert found.edus == [("m.signing_key_update", {"user_id": ALICE, "self_signing_key": {"x": 1}})]
    assert (found.stream_id, found.update_id) == (8, 77), "the chain goes on from there"
    found = made(Devices([Change(8, ["A"])], {"A": None}, NOTHING, 0), Told(7, 77), master_key={"x": 1})
    assert [edu_type for edu_type, _ in found.edus] == ["m.device_list_update"]


# -- device lists: whom it concerns ------------------------------------------------------------------------------------


def keys_of(user_id: str, device_id: str) -> dict[str, Any]:
    keys = {f"ed25519:{device_id}": "key"}
    return {"user_id": user_id, "device_id": device_id, "algorithms": ["x"], "keys": keys, "signatures": {}}


@ensureDeferred
async def test_servers_are_told_of_those_with_whom_they_share_rooms(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        net = Network(server.hs.reactor)
        woken: set[str] = set()

        def wake(destinations: Collection[str]) -> None:
            woken.update(destinations)

        outbox = server.hs.edus.device_list_outbox
        await outbox.begin(wake)
        alice = await server.client.register("alice")
        _, room = await server.client.post(f"{C}/createRoom", {}, alice)
        await put_into_room(server.hs, room["room_id"], "@b:far")
        code, answer = await server.client.get(f"{C}/account/whoami", alice)
        device_id = answer["device_id"]
        body = {"device_keys": keys_of(ALICE, device_id)}
        code, _ = await server.client.post(f"{C}/keys/upload", body, alice)
        assert code == 200
        await net.until(lambda: woken)
        assert woken == await outbox.destinations() == {"far"}
        (first,) = await pending(outbox, "far")
        assert first[1]["device_id"] == device_id
        assert first[1]["keys"] == body["device_keys"]
        assert first[1]["prev_id"] == []
        assert "device_display_name" not in first[1]
        assert await pending(outbox, "far") == [first], "until it has been sent"
        await outbox.sent({"far": [first[2]]})
        assert await pending(outbox, "far") == []
        assert await outbox.destinations() == set()
        outbox.end()
        body["device_keys"]["keys"] = {f"ed25519:{device_id}": "another"}
        await server.client.post(f"{C}/keys/upload", body, alice)
        assert await outbox.destinations() == set(), "nobody looks"
    async with homeserver(database_settings) as server:
        outbox = server.hs.edus.device_list_outbox
        await outbox.begin(wake)
        assert await outbox.destinations() == {"far"}, "what happened while nobody looked is not lost"
        (second,) = await pending(outbox, "far")
        assert second[1]["prev_id"] == [first[1]["stream_id"]]
        assert second[1]["keys"]["keys"] == {f"ed25519:{device_id}": "another"}


@ensureDeferred
async def test_who_comes_into_a_room_tells_its_servers_of_all_devices(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        net = Network(server.hs.reactor)
        outbox = server.hs.edus.device_list_outbox
        await outbox.begin(lambda _: None)
        alice, bob = await server.client.register("alice"), await server.client.register("bob")
        _, room = await server.client.post(f"{C}/createRoom", {"preset": "public_chat"}, alice)

        def has_taken_all_in() -> bool:
            return not outbox._following

        await net.until(has_taken_all_in)
        await put_into_room(server.hs, room["room_id"], "@c:far")
        _, answer = await server.client.get(f"{C}/account/whoami", bob)
        keys = {"device_keys": keys_of("@bob:test", answer["device_id"])}
        assert (await server.client.post(f"{C}/keys/upload", keys, bob))[0] == 200
        code, _ = await server.client.post(f"{C}/rooms/{room['room_id']}/join", {}, bob)
        assert code == 200
        await net.until(outbox.destinations)
        edus = await pending(outbox, "far")
        assert [content["user_id"] for _, content, _ in edus] == ["@bob:test"], "Alice was there before"
        await outbox.sent({"far": [mark for *_, mark in edus]})
        for path in ("leave", "join"):
            await server.client.post(f"{C}/rooms/{room['room_id']}/{path}", {}, bob)
        await net.until(has_taken_all_in)
        assert await outbox.destinations() == set(), "the server knows them all"


@ensureDeferred
async def test_devices_without_keys_of_who_comes_are_told_of_in_a_while(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        net, clock = Network(server.hs.reactor), Clock()
        outbox = server.hs.edus.device_list_outbox
        await outbox.begin(lambda _: None)
        tokens = {name: await server.client.register(name) for name in ("alice", "bob", "carol", "dora")}
        devices = {name: (await server.client.get(f"{C}/account/whoami", tokens[name]))[1] for name in tokens}
        _, room = await server.client.post(f"{C}/createRoom", {"preset": "public_chat"}, tokens["alice"])
        await net.until(lambda: not outbox._following)
        await put_into_room(server.hs, room["room_id"], "@c:far")
        await net.until(lambda: not outbox._following)
        outbox._clock = clock

        async def taken_in() -> None:
            await net.until(lambda: outbox._following)
            await net.until(lambda: bool(clock.advance(0)) or not outbox._following)

        for name in ("bob", "carol", "dora"):
            await server.client.post(f"{C}/rooms/{room['room_id']}/join", {}, tokens[name])
            await taken_in()
        assert await outbox.destinations() == set()
        keys = {"device_keys": keys_of("@bob:test", devices["bob"]["device_id"])}
        assert (await server.client.post(f"{C}/keys/upload", keys, tokens["bob"]))[0] == 200
        await taken_in()
        ((_, content, mark),) = await pending(outbox, "far")
        assert (content["prev_id"], content["keys"]) == ([], keys["device_keys"])
        await outbox.sent({"far": [mark]})
        await server.client.post(f"{C}/rooms/{room['room_id']}/leave", {}, tokens["dora"])
        clock.advance(QUIET_SECONDS)
        await taken_in()
        ((edu_type, content, mark),) = await pending(outbox, "far")
        device_id = devices["carol"]["device_id"]
        told = {"user_id": "@carol:test", "device_id": device_id, "stream_id": 0, "prev_id": []}
        assert (edu_type, content) == ("m.device_list_update", told)


@ensureDeferred
async def test_a_server_that_comes_back_is_told_of_what_it_has_missed(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        net = Network(server.hs.reactor)
        outbox, store = server.hs.edus.device_list_outbox, server.hs.edus.device_list_outbox_store
        await outbox.begin(lambda _: None)
        alice = await server.client.register("alice")
        _, room = await server.client.post(f"{C}/createRoom", {"preset": "public_chat"}, alice)
        _, answer = await server.client.get(f"{C}/account/whoami", alice)
        keys = {"device_keys": keys_of(ALICE, answer["device_id"])}
        assert (await server.client.post(f"{C}/keys/upload", keys, alice))[0] == 200
        for destination in ("far", "near"):
            await store.told([(destination, ALICE, Told(0 if destination == "far" else 10_000, None))])
        await net.until(lambda: not outbox._following)
        position = server.hs.notifier.position("events")
        for server_name in ("far", "near", "new"):
            await put_into_room(server.hs, room["room_id"], f"@b:{server_name}", as_event=True)
        assert set(await store.returned(0, position + 10, "test")) == {("far", ALICE)}


@ensureDeferred
async def test_what_servers_know_is_forgotten_when_they_share_no_room(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        store = server.hs.edus.device_list_outbox_store
        alice = await server.client.register("alice")
        _, room = await server.client.post(f"{C}/createRoom", {}, alice)
        for name, membership in (("far", "join"), ("gone", "leave")):
            await put_into_room(server.hs, room["room_id"], f"@b:{name}", membership)
        servers = ("far", "gone", "never")
        await store.told([(name, ALICE, Told(5, 5)) for name in servers])
        assert await store.forget_strangers(("", ""), 2) == ("gone", ALICE)
        assert await store.forget_strangers(("gone", ALICE), 2) is None
        await store.add([(name, ALICE, 4) for name in servers], Positions(0, 0))
        assert await store.destinations() == {"gone", "never"}, "of what far knows it need not be told"
