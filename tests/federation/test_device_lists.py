"""Devices and keys across servers: lists that are kept, gaps that are noticed, keys that are claimed once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from synapse.federation.answers import ClaimedKeys, RemoteDevice, UserDevices, UserKeys
from synapse.handlers.edus import asking, resync, their_keys
from synapse.handlers.edus.gaps import MAX_APPLIED, NEVER, Kept, Verdict, judge
from tests.rest.people import Person
from tests.rest.test_cross_signing import Identity
from tests.support.far_users import put_into_room
from tests.support.postgres import PostgresServer
from tests.support.two_servers import PORT, Network, federation

# -- gaps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "stream_id", "prev_ids", "verdict"),
    [
        (None, 1, [], Verdict.GAP),
        (None, 2, [1], Verdict.GAP),
        (Kept(NEVER), 1, [0], Verdict.GAP),
        (Kept(5), 6, [5], Verdict.NEXT),
        (Kept(5), 6, [3], Verdict.NEXT),
        (Kept(5), 6, [], Verdict.GAP),
        (Kept(5), 7, [6], Verdict.GAP),
        (Kept(5), 7, [5, 6], Verdict.GAP),
        (Kept(5), 5, [4], Verdict.KNOWN),
        (Kept(5), 3, [], Verdict.KNOWN),
        (Kept(5, (8,)), 8, [6], Verdict.KNOWN),
        (Kept(5, (8,)), 9, [8], Verdict.NEXT),
        (Kept(5, (8,)), 7, [5], Verdict.NEXT),
        (Kept(5, (8,)), 9, [7], Verdict.GAP),
        (Kept(5, stale=True), 6, [5], Verdict.GAP),
    ],
)
def test_what_an_update_does_to_a_list(
    kept: Kept | None, stream_id: int, prev_ids: list[int], verdict: Verdict
) -> None:
    assert judge(kept, stream_id, prev_ids) is verdict


def test_ids_that_are_remembered_are_few() -> None:
    kept = Kept(0)
    for n in range(1, 100):
        kept = kept.with_update(n)
    assert len(kept.applied) <= MAX_APPLIED
    assert kept.latest == 99
    assert all(kept.knows(n) for n in range(100))


class _Sent(NamedTuple):
    stream_id: int
    prev_ids: list[int]
    device: str


@given(st.lists(st.sampled_from("ABC"), max_size=12), st.data())
def test_a_list_that_is_not_stale_is_what_its_user_had_at_that_time(changes: list[str], data: st.DataObject) -> None:
    """Updates are lost, come twice, or in another order; after a gap the list is fetched at once, or later."""
    sent = [_Sent(n + 1, [n] if n else [], device) for n, device in enumerate(changes)]
    arriving = data.draw(st.permutations([*sent, *sent])) if data.draw(st.booleans()) else sent
    kept: Kept | None = None
    devices: dict[str, int] = {}

    def had(until: int) -> dict[str, int]:
        return {each.device: each.stream_id for each in sent if each.stream_id <= until}

    for update in arriving:
        if data.draw(st.integers(0, 4)) == 0:
            continue
        verdict = judge(kept, update.stream_id, update.prev_ids)
        if verdict is Verdict.NEXT:
            assert kept is not None
            devices[update.device] = max(update.stream_id, devices.get(update.device, 0))
            kept = kept.with_update(update.stream_id)
        elif verdict is Verdict.GAP:
            kept = (kept or Kept(NEVER))._replace(stale=True)
            if data.draw(st.booleans()):
                fetched_at = data.draw(st.integers(update.stream_id, len(sent)))
                kept, devices = Kept(fetched_at), had(fetched_at)
        if kept is not None and not kept.stale:
            assert devices == had(kept.latest)


# -- what others say is checked ----------------------------------------------------------------------------------------

BOB = "@bob:two"
KEYS = {"user_id": BOB, "device_id": "D", "algorithms": [], "keys": {}, "signatures": {}}


def test_keys_that_are_another_users_or_devices_are_not_taken() -> None:
    answer = UserKeys(
        {
            BOB: {"D": KEYS, "E": KEYS, "F": {**KEYS, "device_id": "F", "user_id": "@x:two"}, "": KEYS, "N\0": KEYS},
            "@other:three": {"D": KEYS},
        },
        {BOB: {"user_id": "@x:two", "usage": ["master"], "keys": {"ed25519:x": "x"}}, "@other:three": {}},
    )
    found = their_keys.answered(answer, {BOB: []})
    assert [(each.user_id, each.device_id) for each in found.devices] == [(BOB, "D")]
    assert found.users == {BOB}
    assert found.cross_signing == []
    assert their_keys.answered(answer, {BOB: ["E"]}).devices == []


def test_a_list_of_another_user_is_refused_and_a_bad_device_left_out() -> None:
    devices = [RemoteDevice("D", KEYS, "name"), RemoteDevice("E", KEYS), RemoteDevice("", None), RemoteDevice("G")]
    found = their_keys.fetched(BOB, UserDevices(BOB, 7, devices))
    assert [(each.device_id, each.json is not None, each.display_name) for each in found.devices] == [
        ("D", True, "name"),
        ("E", False, None),
        ("G", False, None),
    ]
    for bad in (UserDevices("@x:two", 7, []), UserDevices(BOB, -1, []), UserDevices(BOB, 2**53, [])):
        with pytest.raises(Exception, match=r"must be|another's"):
            their_keys.fetched(BOB, bad)


def test_claimed_keys_are_those_that_were_asked_for() -> None:
    given_ = {
        BOB: {"D": {"x:1": "key", "x:2": "key"}, "E": {"y:1": "key"}, "F": {"x:1": 5}, "G": {"x:1": {"key": "k"}}},
        "@x:two": {"D": {"x:1": "key"}},
    }
    wanted = {BOB: dict.fromkeys("DEFGH", "x")}
    assert asking._claimed(ClaimedKeys(given_), wanted) == {BOB: {"D": {"x:1": "key"}, "G": {"x:1": {"key": "k"}}}}


# -- two servers -------------------------------------------------------------------------------------------------------


class Pair:
    """Alice on one server and Bob on another, in a room."""

    def __init__(self, net: Network, alice: Person, bob: Person, rooms: dict[str, str]) -> None:
        self.net = net
        self.alice = alice
        self.bob = bob
        self.rooms = rooms
        self.device = ""

    async def upload(self, key: str, **more: Any) -> None:
        """Bob's device has this key."""
        keys = {
            "user_id": self.bob.id,
            "device_id": self.device,
            "algorithms": ["x"],
            "signatures": {},
            "keys": {f"ed25519:{self.device}": key},
        }
        await self.bob.post("/keys/upload", {"device_keys": keys, **more})

    async def query(self) -> Any:
        return await self.alice.post("/keys/query", {"device_keys": {self.bob.id: []}, "timeout": 10_000})

    async def key(self) -> str | None:
        """Bob's device's, as Alice sees it."""
        devices = (await self.query())["device_keys"].get(self.bob.id, {})
        return devices[self.device]["keys"][f"ed25519:{self.device}"] if self.device in devices else None

    async def carry(self, *, lose: bool = False) -> None:
        """What Bob's server has to tell of devices reaches Alice's, or does not."""
        outbox = self.net["two"].hs.edus.device_list_outbox
        one = f"one.test:{PORT}"

        await self.net.until(lambda: not outbox._following)
        for each in (await outbox.waiting([one])).get(one, []):
            if not lose:
                await self.net["one"].hs.receiving.edus.take(f"two.test:{PORT}", orjson.loads(each.edu))
            await outbox.sent({one: [each.mark]})

    async def fetched(self) -> None:
        """Returns once Alice's server has asked for a list by itself, and is done with it."""

        def has_asked() -> bool:
            return any(each.by == "one" and "/user/devices/" in each.path for each in self.net.asked)

        await self.net.until(has_asked)
        await self.net.settled()

    async def changed(self, since: str) -> tuple[set[str], str]:
        """Whose devices Alice is told to look at, and the next token."""
        found = await self.alice.get(f"/sync?timeout=0&since={since}")
        return set(found.get("device_lists", {}).get("changed", ())), found["next_batch"]

    def asked(self) -> list[str]:
        """What Alice's server has asked Bob's since the last time, by the last parts of paths."""
        paths = [each.path.removeprefix("/_matrix/federation/v1/") for each in self.net.asked if each.by == "one"]
        self.net.asked.clear()
        return ["/".join(path.split("/")[:2]) for path in paths if path.startswith("user/")]


@asynccontextmanager
async def pair(postgres: PostgresServer, *, share: bool = True, sending: bool = False) -> AsyncIterator[Pair]:
    """`sending`: the servers send by themselves; else `carry` does what Bob's would."""
    # Presence would come at any time, and make answers of syncs that are kept for who asks again.
    async with federation(postgres, "one", "two", send_federation=sending, use_presence=False) as net:
        people: dict[str, Person] = {}
        for server, name in (("one", "alice"), ("two", "bob")):
            token = await net[server].client.register(name)
            people[server] = Person(net[server].client, f"@{name}:{server}.test:{PORT}", token)
        rooms = {}
        for server, other in (("one", "two"), ("two", "one")):
            rooms[server] = await people[server].room()
            if share:
                await put_into_room(net[server].hs, rooms[server], people[other].id)
        if not sending:
            await net["two"].hs.edus.device_list_outbox.begin(lambda _: None)
        made = Pair(net, people["one"], people["two"], rooms)
        made.device = (await made.bob.get("/account/whoami"))["device_id"]
        yield made


@ensureDeferred
async def test_a_list_is_fetched_once_and_kept_true_by_updates(postgres: PostgresServer) -> None:
    async with pair(postgres) as p:
        await p.upload("first")
        await p.carry(lose=True)
        since = (await p.alice.get("/sync?timeout=0"))["next_batch"]
        assert await p.key() == "first"
        assert p.asked() == ["user/devices"]
        assert await p.key() == "first"
        assert p.asked() == []
        changed, since = await p.changed(since)
        assert changed == {p.bob.id}
        await p.upload("second")
        await p.carry()
        assert p.asked() == [], "the update says it all"
        changed, since = await p.changed(since)
        assert changed == {p.bob.id}
        assert await p.key() == "second"
        changes = await p.alice.get(f"/keys/changes?from={since}&to={since}")
        assert changes["changed"] == []


@ensureDeferred
async def test_after_a_lost_update_the_list_is_fetched_anew(postgres: PostgresServer) -> None:
    async with pair(postgres) as p:
        await p.upload("first")
        assert await p.key() == "first"
        await p.upload("second")
        await p.carry(lose=True)
        assert await p.key() == "first", "nobody knows"
        p.asked()
        clock = Clock()
        p.net["one"].hs.edus.resync._clock = clock
        for key in ("third", "fourth"):
            await p.upload(key)
            await p.carry()
            await p.net.settled()
            assert p.asked() == [], "more may come"
        clock.advance(resync.GATHERING_SECONDS)
        await p.fetched()
        assert p.asked() == ["user/devices"]
        assert await p.key() == "fourth"
        await p.upload("fifth")
        await p.carry()
        assert await p.key() == "fifth"
        assert p.asked() == []


@ensureDeferred
async def test_clients_look_again_after_a_gap_though_the_list_is_what_it_was(postgres: PostgresServer) -> None:
    async with pair(postgres) as p:
        assert await p.key() is None  # of an empty list
        since = (await p.alice.get("/sync?timeout=0"))["next_batch"]
        content = {"user_id": p.bob.id, "device_id": "GONE", "stream_id": 2**40, "prev_id": [2**39], "deleted": True}
        edu = {"edu_type": "m.device_list_update", "content": content}
        await p.net["one"].hs.receiving.edus.take(f"two.test:{PORT}", edu)
        p.asked()
        await p.fetched()
        await p.net.until(lambda: not p.net["one"].hs.edus.resync._under_way)
        assert (await p.changed(since))[0] == {p.bob.id}


@ensureDeferred
async def test_clients_need_not_look_at_a_list_that_comes_without_keys(postgres: PostgresServer) -> None:
    """A device list that is heard of for the first time, because its user has come into a room: clients know that."""
    async with pair(postgres) as p:
        since = (await p.alice.get("/sync?timeout=0"))["next_batch"]

        async def told(stream_id: int, prev_id: list[int], **more: Any) -> set[str]:
            nonlocal since
            content = {"user_id": p.bob.id, "device_id": p.device, "stream_id": stream_id, "prev_id": prev_id, **more}
            edu = {"edu_type": "m.device_list_update", "content": content}
            p.asked()
            await p.net["one"].hs.receiving.edus.take(f"two.test:{PORT}", edu)
            await p.fetched()
            await p.net.until(lambda: not p.net["one"].hs.edus.resync._under_way)
            changed, since = await p.changed(since)
            return changed

        assert await told(1, []) == set()
        await p.net["one"].hs.edus.resync.forget([p.bob.id])
        _, since = await p.changed(since)
        assert await told(2, [], deleted=True) == {p.bob.id}, "clients may have asked for its keys before"
        assert await told(2**40, [2**39]) == {p.bob.id}, "what has been missed is not known"
        await p.net["one"].hs.edus.resync.forget([p.bob.id])
        _, since = await p.changed(since)
        await p.upload("first")
        assert await told(3, []) == {p.bob.id}


@ensureDeferred
async def test_a_stale_list_is_tried_again_and_shown_meanwhile(postgres: PostgresServer) -> None:
    async with pair(postgres) as p:
        await p.upload("first")
        assert await p.key() == "first"
        for key in ("second", "third"):
            await p.upload(key)
            if key == "third":
                p.net.cut("one", "two")
            await p.carry(lose=key == "second")
        await p.net.settled()
        answer = await p.query()
        assert list(answer["failures"]) == [f"two.test:{PORT}"]
        assert p.device in answer["device_keys"][p.bob.id], "better than nothing"
        store = p.net["one"].hs.edus.remote_device_store
        now = int(p.net.reactor.seconds() * 1000)
        assert await store.due(now, 10) == []
        assert await store.due(now + 24 * 3600 * 1000, 10) == [p.bob.id]
        p.net.mend()
        await p.net["one"].hs.federation.destinations.succeeded(f"two.test:{PORT}")
        assert await p.key() == "third", "whoever asks has it fetched"
        assert await store.due(now + 24 * 3600 * 1000, 10) == []


@ensureDeferred
async def test_stale_lists_are_tried_again_once_their_server_is_back(postgres: PostgresServer) -> None:
    async with pair(postgres) as p:
        await p.upload("first")
        assert await p.key() == "first"
        await p.upload("second")
        await p.carry(lose=True)
        await p.upload("third")
        p.net.cut("one", "two")
        await p.carry()
        await p.net.settled()
        edus = p.net["one"].hs.edus
        far_future = int(p.net.reactor.seconds() * 1000) + 24 * 3600 * 1000
        await edus.resync.retry()
        assert await edus.remote_device_store.due(far_future, 10) == [p.bob.id]
        p.net.mend()
        await p.net["one"].hs.federation.destinations.succeeded(f"two.test:{PORT}")
        await edus.resync.retry()
        assert await edus.remote_device_store.due(far_future, 10) == []
        assert await p.key() == "third"


@ensureDeferred
async def test_devices_that_are_deleted_go_from_the_list(postgres: PostgresServer) -> None:
    async with pair(postgres) as p:
        await p.upload("first")
        assert await p.key() == "first"
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "a password",
        }
        _, session = await p.bob.client.post("/_matrix/client/v3/login", login)
        other = Person(p.bob.client, p.bob.id, session["access_token"])
        await other.post("/logout")
        await p.carry()
        assert set((await p.query())["device_keys"][p.bob.id]) == {p.device}
        await p.bob.post("/logout")
        await p.carry()
        assert (await p.query())["device_keys"] == {p.bob.id: {}}
        assert p.asked().count("user/devices") == 1


@ensureDeferred
async def test_lists_of_users_whom_nobody_meets_any_more_are_forgotten(postgres: PostgresServer) -> None:
    async with pair(postgres) as p:
        await p.upload("first")
        assert await p.key() == "first"
        store = p.net["one"].hs.edus.remote_device_store
        assert await store.listed([p.bob.id]) == [p.bob.id]
        await put_into_room(p.net["one"].hs, p.rooms["one"], p.bob.id, "leave")

        async def is_forgotten() -> bool:
            return await store.listed([p.bob.id]) == []

        await p.net.until(is_forgotten)
        await p.upload("second")
        await p.carry()
        assert await store.listed([p.bob.id]) == [], "updates of strangers are not kept"
        p.asked()
        assert await p.key() == "second"
        assert p.asked() == ["user/keys"], "they are asked for each time"
        await put_into_room(p.net["one"].hs, p.rooms["one"], p.bob.id)
        assert await p.key() == "second"
        await p.alice.post(f"/rooms/{p.rooms['one']}/leave")
        await p.net.until(is_forgotten)


@ensureDeferred
async def test_who_meets_others_again_is_told_of_lists_that_nobody_kept_meanwhile(postgres: PostgresServer) -> None:
    async with pair(postgres) as p:
        await p.upload("first")
        assert await p.key() == "first"
        since = (await p.alice.get("/sync?timeout=0"))["next_batch"]
        await put_into_room(p.net["one"].hs, p.rooms["one"], p.bob.id, "leave")
        store = p.net["one"].hs.edus.remote_device_store

        async def is_forgotten() -> bool:
            return await store.listed([p.bob.id]) == []

        await p.net.until(is_forgotten)
        await p.net.settled()
        changed, _ = await p.changed(since)
        assert changed == set(), "they share no room"
        await p.upload("second")
        await p.carry(lose=True)
        await put_into_room(p.net["one"].hs, p.rooms["one"], p.bob.id)

        async def is_told() -> bool:  # a moment after the list is forgotten
            return (await p.changed(since))[0] == {p.bob.id}

        await p.net.until(is_told)
        _, now = await p.changed(since)
        changes = await p.alice.get(f"/keys/changes?from={since}&to={now}")
        assert changes == {"changed": [p.bob.id], "left": []}


@ensureDeferred
async def test_a_key_is_claimed_once(postgres: PostgresServer) -> None:
    async with pair(postgres, share=False) as p:
        await p.upload("first", one_time_keys={"x:1": "key"})
        wanted = {"one_time_keys": {p.bob.id: {p.device: "x", "UNKNOWN": "x"}}, "timeout": 5000}
        assert await p.alice.post("/keys/claim", wanted) == {
            "one_time_keys": {p.bob.id: {p.device: {"x:1": "key"}}},
            "failures": {},
        }
        assert await p.alice.post("/keys/claim", wanted) == {"one_time_keys": {}, "failures": {}}
        p.net.cut("one", "two")
        answer = await p.alice.post("/keys/claim", wanted)
        assert answer["failures"][f"two.test:{PORT}"]["status"] == 503
        assert (await p.query())["failures"][f"two.test:{PORT}"]["status"] == 503


@ensureDeferred
async def test_of_many_users_of_a_server_few_lists_are_fetched(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LISTS_AT_ONCE", 2)
    async with pair(postgres) as p:
        names = [f"u{n}" for n in range(6)]
        users = [f"@{name}:two.test:{PORT}" for name in names]
        for name, user_id in zip(names, users, strict=True):
            await p.net["two"].client.register(name)
            await put_into_room(p.net["one"].hs, p.rooms["one"], user_id)
        answer = await p.alice.post("/keys/query", {"device_keys": {user_id: [] for user_id in users}})
        assert set(answer["device_keys"]) == set(users)
        assert sorted(p.asked()) == ["user/devices", "user/devices", "user/keys"]


@ensureDeferred
async def test_updates_that_go_on_coming_do_not_have_a_list_fetched_for_ever(postgres: PostgresServer) -> None:
    """A server whose lists never include what it has told."""
    async with pair(postgres) as p:
        edus = p.net["one"].hs.receiving.edus
        for n in (1, 5):
            update = {"user_id": p.bob.id, "device_id": "D", "stream_id": 2**50 + n, "prev_id": [2**50 + n - 2]}
            await edus.take(f"two.test:{PORT}", {"edu_type": "m.device_list_update", "content": update})
            await p.fetched()
            assert p.asked().count("user/devices") <= resync.ROUNDS
        known = await p.net["one"].hs.edus.remote_device_store.known([p.bob.id], "")
        assert known.stale == set()


@ensureDeferred
async def test_what_a_user_does_reaches_the_other_server_by_itself(postgres: PostgresServer) -> None:
    async with pair(postgres, sending=True) as p:
        since = (await p.alice.get("/sync?timeout=0"))["next_batch"]
        await p.upload("first")

        async def is_told() -> bool:
            nonlocal since
            changed, since = await p.changed(since)
            return p.bob.id in changed

        async def is_first() -> bool:
            return await p.key() == "first"

        await p.net.until(is_told)
        await p.net.until(is_first)
        await p.net.settled()
        _, since = await p.changed(since)
        await p.upload("second")
        await p.net.until(is_told)
        p.asked()
        assert await p.key() == "second"
        assert p.asked() == []
        message = {"messages": {p.alice.id: {"*": {"n": 1}}}}
        for _ in range(2):
            await p.bob.put("/sendToDevice/m.x/1", message)
        seen: list[Any] = []

        async def has_come() -> bool:
            seen.extend((await p.alice.get("/sync?timeout=0")).get("to_device", {}).get("events", []))
            return bool(seen)

        await p.net.until(has_come)
        await p.net.settled()
        found = await p.alice.get("/sync?timeout=0")
        assert found["to_device"]["events"] == [{"type": "m.x", "sender": p.bob.id, "content": {"n": 1}}]


@ensureDeferred
async def test_cross_signing_reaches_the_other_server_and_what_is_private_does_not(postgres: PostgresServer) -> None:
    async with pair(postgres, sending=True) as p:
        await p.upload("first")
        assert await p.key() == "first"
        theirs, own = Identity(p.bob.id, p.device), Identity(p.alice.id)
        await p.bob.post("/keys/device_signing/upload", theirs.body())

        async def is_seen() -> bool:
            return p.bob.id in (await p.query())["master_keys"]

        await p.net.until(is_seen)
        found = await p.query()
        assert found["self_signing_keys"][p.bob.id] == theirs.body()["self_signing_key"]
        assert found["user_signing_keys"] == {}
        # What Alice signs of Bob's stays here, and is hers to see.
        await p.alice.post("/keys/device_signing/upload", own.body())
        master = theirs.master.as_json("master")
        signed = own.user_signing.sign(master)
        path = "/keys/signatures/upload"
        answer = await p.alice.post(path, {p.bob.id: {theirs.master.public: signed}})
        assert answer == {"failures": {}}
        seen = (await p.query())["master_keys"][p.bob.id]["signatures"]
        assert seen[p.alice.id] == signed["signatures"][p.alice.id]
        other = Person(p.alice.client, "@carol", await p.alice.client.register("carol"))
        shown = await other.post("/keys/query", {"device_keys": {p.bob.id: []}})
        assert p.alice.id not in shown["master_keys"][p.bob.id].get("signatures", {})
        await p.net.settled()
        mine = await p.bob.post("/keys/query", {"device_keys": {p.bob.id: []}})
        assert p.alice.id not in mine["master_keys"][p.bob.id].get("signatures", {}), "Bob's server has not heard of it"
        assert set(mine["user_signing_keys"]) == {p.bob.id}
