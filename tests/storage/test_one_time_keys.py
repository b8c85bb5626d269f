"""The store of one-time and fallback keys: counting, claiming once, falling back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.storage import one_time_keys
from synapse.storage.database import Database, Transaction
from synapse.storage.device_keys import DeviceKeyStore, digest
from synapse.storage.devices import DeviceStore
from synapse.storage.one_time_keys import (
    Claimed,
    Key,
    KeyConflict,
    KeysLeft,
    NoSuchDevice,
    OneTimeKeyStore,
    TooManyKeys,
    Wanted,
)

ALICE = "@alice:test"
A1, A2, B1 = Key("alg", "A", '"a"'), Key("alg", "B", '"b"'), Key("other", "A", '"c"')
ONE = [Wanted(ALICE, "D", "alg")]


class Keys:
    """The store, and the one device whose keys it has."""

    def __init__(self, database: Database) -> None:
        self.store = OneTimeKeyStore(database)

    async def add(self, *keys: Key, fallback: list[Key] | None = None, now: int = 1) -> bool:
        return await self.store.add(ALICE, "D", list(keys), fallback or [], now)

    async def counts(self) -> dict[str, int]:
        return (await self.store.left(ALICE, "D")).one_time

    async def claim(self, now: int = 9) -> list[str]:
        return [claimed.key_id for claimed in await self.store.claim(ONE, now)]


def _make_device(txn: Transaction) -> None:
    txn.execute("INSERT INTO devices (user_id, device_id, created_ts) VALUES (%s, 'D', 1)", (ALICE,))


@pytest_twisted.async_yield_fixture
async def keys(database: Database) -> AsyncIterator[Keys]:
    await database.write("test", _make_device)
    yield Keys(database)


@pytest_twisted.ensureDeferred
async def test_keys_are_counted_by_algorithm_and_may_be_sent_again(keys: Keys) -> None:
    assert await keys.add(A1, B1)
    assert await keys.counts() == {"alg": 1, "other": 1}
    assert await keys.add(A1, A2)
    assert not await keys.add(A1, A2, B1)
    with pytest.raises(KeyConflict, match="alg:A"):
        await keys.add(Key("alg", "C", '"new"'), A1._replace(json='"z"'))
    assert await keys.counts() == {"alg": 2, "other": 1}
    assert (await keys.store.left(ALICE, "OTHER")) == KeysLeft({}, [], None)


@pytest_twisted.ensureDeferred
async def test_keys_go_out_in_order_once_each_and_then_the_fallback(keys: Keys) -> None:
    await keys.add(A2, fallback=[Key("alg", "F", '"f"')], now=5)
    await keys.add(A1, now=5)
    await keys.add(Key("alg", "0", '"0"'), now=3)  # the clock went back
    want = [*ONE, Wanted(ALICE, "NONE", "alg")]
    assert (await keys.store.left(ALICE, "D")).fallback == ["alg"]
    got = [await keys.store.claim(want, 9) for _ in range(5)]
    assert got == [
        [Claimed(ALICE, "D", "alg", "B", '"b"')],
        [Claimed(ALICE, "D", "alg", "A", '"a"')],
        [Claimed(ALICE, "D", "alg", "0", '"0"')],
        [Claimed(ALICE, "D", "alg", "F", '"f"')],
        [Claimed(ALICE, "D", "alg", "F", '"f"')],
    ]
    assert (await keys.store.left(ALICE, "D")).fallback == []
    assert not await keys.add(fallback=[Key("alg", "F", '"f"')]), "the same key again is still a used one"
    assert (await keys.store.left(ALICE, "D")).fallback == []
    assert await keys.add(fallback=[Key("alg", "G", '"g"')])
    assert (await keys.store.left(ALICE, "D")).fallback == ["alg"]


@pytest_twisted.ensureDeferred
async def test_a_key_that_was_given_out_is_not_taken_again(keys: Keys) -> None:
    await keys.add(A1)
    assert await keys.claim(now=10) == ["A"]
    assert not await keys.add(A1), "the client got no answer, and sends it again"
    assert await keys.claim() == []
    assert await keys.add(A1._replace(json='"another"')), "which nobody has been given"
    assert await keys.claim(now=11) == ["A"]
    await keys.store.forget_claimed(11)
    assert not await keys.add(A1._replace(json='"another"'))
    await keys.store.forget_claimed(12)
    assert await keys.add(A1._replace(json='"another"'))


@pytest_twisted.ensureDeferred
async def test_how_many_keys_may_wait(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_time_keys, "MAX_WAITING", 3)
    await keys.add(A1, A2)
    with pytest.raises(TooManyKeys):
        await keys.add(B1, Key("alg", "C", '"c"'))
    assert await keys.add(B1, A1, A2)
    assert sum((await keys.counts()).values()) == 3


@pytest_twisted.ensureDeferred
async def test_uploads_at_the_same_moment_keep_to_the_limit_and_to_one_content(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_time_keys, "MAX_WAITING", 4)

    async def attempt(number: int) -> str:
        try:
            await keys.add(Key("alg", "same", f'"{number % 2}"'), Key("alg", f"own{number}", '"x"'))
        except (KeyConflict, TooManyKeys) as refused:
            return type(refused).__name__
        return "added"

    results = await gatherResults([Deferred.fromCoroutine(attempt(number)) for number in range(8)])
    assert results.count("added") == 3
    assert results.count("KeyConflict") == 4
    assert await keys.counts() == {"alg": 4}


@pytest_twisted.ensureDeferred
async def test_claims_at_the_same_moment_get_different_keys(keys: Keys) -> None:
    fallback = [Key("alg", "F", '"f"')]
    await keys.add(*[Key("alg", str(n), f'"{n}"') for n in range(60)], fallback=fallback)
    claims = [Deferred.fromCoroutine(keys.claim()) for _ in range(75)]
    given = [key_id for claimed in await gatherResults(claims) for key_id in claimed]
    assert sorted(given, key=str) == sorted([str(n) for n in range(60)] + ["F"] * 15, key=str)


@pytest_twisted.ensureDeferred
async def test_a_claim_costs_the_same_for_any_number_of_keys(keys: Keys, database: Database) -> None:
    await keys.add(A1, fallback=[Key("alg", "F", '"f"')])
    costs = set()
    for number in (1, 50):
        wanted = [*ONE, *(Wanted(ALICE, f"D{n}", "alg") for n in range(number))]
        with database.counted() as counts:
            await keys.store.claim(wanted, 9)
        costs.add(counts.statements_read + counts.statements_written)
    assert costs == {2}


@pytest_twisted.ensureDeferred
async def test_keys_do_not_outlive_their_device(keys: Keys, database: Database) -> None:
    devices, identities = DeviceStore(database), DeviceKeyStore(database)
    assert await identities.put(ALICE, "D", '{"v":1}', 1, 10)
    assert not await identities.put(ALICE, "D", '{"v":1}', 2, 11), "they are known"
    assert await identities.put(ALICE, "D", '{"v":2}', 2, 12)
    assert (await keys.store.left(ALICE, "D")).identity == digest('{"v":2}')
    uploads = [keys.add(Key("alg", str(n), '"x"'), fallback=[Key("alg", "F", f'"{n}"')]) for n in range(5)]
    uploads += [identities.put(ALICE, "D", f'{{"v":{n}}}', 1, n) for n in range(20, 25)]
    racing = [Deferred.fromCoroutine(upload) for upload in uploads]
    racing.insert(4, Deferred.fromCoroutine(devices.delete(ALICE, ["D"], 30)))  # type: ignore[arg-type]
    for deferred in racing:
        deferred.addErrback(lambda failure: failure.trap(NoSuchDevice))
        await deferred
    assert await keys.store.left(ALICE, "D") == KeysLeft({}, [], None)
    with pytest.raises(NoSuchDevice):
        await keys.add(A1)


@pytest_twisted.ensureDeferred
async def test_changes_are_forgotten_that_others_came_after(database: Database) -> None:
    store = DeviceKeyStore(database)
    for position, user in enumerate("abacab", start=1):
        await store.record_change(f"@{user}:test", ["D"], position)

    async def kept() -> list[int]:
        def read(txn: Transaction) -> list[int]:
            txn.execute("SELECT stream_id FROM device_lists_stream ORDER BY stream_id")
            return [position for (position,) in txn.rows()]

        return await database.read("test", read)

    assert await store.forget_changes(6) == 0
    assert await store.forget_changes(3) == 3
    assert await kept() == [4, 5, 6]
    assert await store.forget_changes(0) == 0, "the last of each user stays"
    await store.record_change("@c:test", ["D"], 7)
    assert await store.forget_changes(3) == 1
    assert await kept() == [5, 6, 7]


@pytest_twisted.ensureDeferred
async def test_private_changes_are_forgotten_that_others_came_after(database: Database) -> None:
    changes = [(1, "a", "xy"), (2, "a", "x"), (3, "b", "xy"), (4, "a", "yz"), (5, "b", "z"), (6, "b", "y")]

    def write(txn: Transaction) -> None:
        for position, user, changed in changes:
            row = (position, user, list(changed))
            txn.execute(
                "INSERT INTO device_lists_private (stream_id, user_id, changed_user_ids) VALUES (%s, %s, %s)", row
            )

    def kept(txn: Transaction) -> list[int]:
        txn.execute("SELECT stream_id FROM device_lists_private ORDER BY stream_id")
        return [position for (position,) in txn.rows()]

    await database.write("test", write)
    store = DeviceKeyStore(database)
    assert await store.forget_changes(5) == 1, "of x, the second tells, of y the fourth"
    assert await store.forget_changes(0) == 0, "nothing else tells of x"
    assert await database.read("test", kept) == [2, 3, 4, 5, 6]
