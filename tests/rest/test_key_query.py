"""This server as a notary: the keys of others under its signature too, also when they are gone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import pytest_twisted
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import verify_signed_json

from synapse.federation.notary import MAX_SERVERS, Notary
from synapse.rest.key.query import KeyQuery
from synapse.storage.database import Database
from tests.federation.key_servers import DAY, HERE, NOW, Ring, published
from tests.rest.driver import Driver, Reply

K1, K2 = generate_signing_key("1"), generate_signing_key("2")
QUERY = "/_matrix/key/v2/query"


class World:
    def __init__(self, database: Database) -> None:
        self.ring = Ring(database)
        self.asked = self.ring.servers.asked
        self.answers = self.ring.servers.answers
        own = published(HERE, self.ring.key)

        ring = self.ring
        notary = Notary(
            HERE, ring.key, lambda: orjson.dumps(own), ring.store, ring.fetcher, ring._in_thread, ring.clock
        )
        self.driver = Driver(KeyQuery(notary))

    async def query(self, wanted: Any) -> Reply:
        return await self.driver.call("POST", QUERY, {"server_keys": wanted})

    async def keys(self, server: str, *key_ids: str, until: int | None = None) -> list[dict[str, Any]]:
        criteria = {} if until is None else {"minimum_valid_until_ts": until}
        return self.checked(await self.query({server: dict.fromkeys(key_ids, criteria)}))

    async def keys_of(self, path: str) -> list[dict[str, Any]]:
        return self.checked(await self.driver.call("GET", f"{QUERY}/{path}"))

    def checked(self, reply: Reply) -> list[dict[str, Any]]:
        assert reply.code == 200, reply
        found: list[dict[str, Any]] = reply.json["server_keys"]
        for each in found:
            verify_signed_json(each, HERE, get_verify_key(self.ring.key))
        return found


def ids(found: list[dict[str, Any]]) -> list[set[str]]:
    return [set(each["verify_keys"]) for each in found]


@pytest_twisted.ensureDeferred
async def test_keys_are_countersigned(database: Database) -> None:
    world = World(database)
    world.answers["a.test"] = published("a.test", K1)
    for found in (
        await world.keys("a.test", "ed25519:1"),
        await world.keys("a.test"),
        await world.keys_of("a.test"),
        await world.keys_of("a.test/ed25519:1"),
        await world.keys_of(f"a.test?minimum_valid_until_ts={NOW + DAY}"),
    ):
        assert ids(found) == [{"ed25519:1"}]
        verify_signed_json(found[0], "a.test", get_verify_key(K1))
        assert set(found[0]["signatures"]) == {"a.test", HERE}
    assert world.asked == ["a.test"], "what is fresh is told as it is"


@pytest_twisted.ensureDeferred
async def test_our_own_keys_are_signed_as_they_are(database: Database) -> None:
    world = World(database)
    (own,) = await world.keys(HERE)
    assert set(own["signatures"]) == {HERE}
    assert world.asked == []


@pytest_twisted.ensureDeferred
async def test_what_a_server_said_last_is_told_when_it_is_gone(database: Database) -> None:
    world = World(database)
    world.answers["a.test"] = published("a.test", K1, until=NOW - DAY)
    assert ids(await world.keys("a.test", "ed25519:1", until=0)) == [{"ed25519:1"}]
    world.answers.clear()
    for until in (0, NOW, None):
        assert ids(await world.keys("a.test", "ed25519:1", until=until)) == [{"ed25519:1"}]
    assert await world.keys("gone.test", "ed25519:1") == []
    assert await world.keys_of("gone.test") == []


@pytest_twisted.ensureDeferred
async def test_a_key_that_its_server_has_forgotten_is_still_told(database: Database) -> None:
    world = World(database)
    world.answers["a.test"] = published("a.test", K1, until=NOW - DAY)
    await world.keys("a.test", "ed25519:1", until=0)
    world.answers["a.test"] = published("a.test", K2, until=NOW - DAY + 1)
    await world.keys("a.test", "ed25519:1")
    assert ids(await world.keys("a.test", "ed25519:1", until=NOW - DAY)) == [{"ed25519:1"}]
    assert ids(await world.keys("a.test", "ed25519:2", until=0)) == [{"ed25519:2"}]
    assert ids(await world.keys("a.test", "ed25519:1", "ed25519:2", until=0)) == [{"ed25519:2"}, {"ed25519:1"}]
    assert ids(await world.keys("a.test", "ed25519:3")) == [{"ed25519:2"}]


@pytest_twisted.ensureDeferred
async def test_statements_do_not_grow_with_the_servers_that_are_asked_about(database: Database) -> None:
    world = World(database)
    names = [f"s{number}.test" for number in range(10)]
    for name in names:
        world.answers[name] = published(name, K1)
        await world.keys(name)
    costs = []
    for some in (names[:1], names):
        with database.counted() as counted:
            found = world.checked(await world.query({name: {} for name in some}))
        assert [each["server_name"] for each in found] == some
        costs.append(sum(counted.read.values()))
    assert costs == [2, 2]


@pytest_twisted.ensureDeferred
async def test_what_is_told_in_one_answer_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(database)
    for name in ("a.test", "b.test", "c.test"):
        world.answers[name] = published(name, K1)
        await world.keys(name)
    told = await world.ring.store.told(["a.test"])
    monkeypatch.setattr("synapse.federation.notary.MAX_BYTES", 2 * told["a.test"]["ed25519:1"].size + 10)
    found = world.checked(await world.query({"a.test": {}, "b.test": {}, "c.test": {}}))
    assert [each["server_name"] for each in found] == ["a.test", "b.test"]


@pytest.mark.parametrize(("passed", "asked"), [(DAY // 2, 1), (DAY // 2 + 1000, 2), (2 * DAY, 2)])
@pytest_twisted.ensureDeferred
async def test_an_answer_is_asked_for_again_after_half_its_life(database: Database, passed: int, asked: int) -> None:
    world = World(database)
    world.answers["a.test"] = published("a.test", K1)
    await world.keys("a.test")
    world.ring.clock.advance(passed / 1000)
    assert ids(await world.keys("a.test")) == [{"ed25519:1"}]
    assert len(world.asked) == asked


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"no name": {}}, (400, "M_INVALID_PARAM")),
        ({"a.test": {"ed25519:1": {"minimum_valid_until_ts": -1}}}, (400, "M_BAD_JSON")),
        ({"a.test": {"ed25519:1": {"minimum_valid_until_ts": 2**60}}}, (400, "M_BAD_JSON")),
        ({"a.test": {"ed25519:1": {"minimum_valid_until_ts": "now"}}}, (400, "M_BAD_JSON")),
        ({"a.test": []}, (400, "M_BAD_JSON")),
        ({f"{n}.test": {} for n in range(MAX_SERVERS + 1)}, (413, "M_TOO_LARGE")),
        ({"a.test": {f"ed25519:{n}": {} for n in range(100)}}, (413, "M_TOO_LARGE")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_questions_that_are_none(database: Database, wanted: Any, expected: tuple[int, str]) -> None:
    world = World(database)
    reply = await world.query(wanted)
    assert (reply.code, reply.errcode) == expected
    assert world.asked == []


@pytest.mark.parametrize(
    "path", ["not%20a%20name", "a.test?minimum_valid_until_ts=soon", "a.test/k?minimum_valid_until_ts=-1"]
)
@pytest_twisted.ensureDeferred
async def test_paths_that_ask_for_nothing(database: Database, path: str) -> None:
    reply = await World(database).driver.call("GET", f"{QUERY}/{path}")
    assert (reply.code, reply.errcode) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_nothing_is_asked_for_nothing(database: Database) -> None:
    world = World(database)
    assert (await world.query({})).json == {"server_keys": []}
