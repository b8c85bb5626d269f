"""The store of encryption keys: counting, claiming once, falling back, and who changed when."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.storage.database import Database
from synapse.storage.keys import Claimed, Key, KeyConflict, KeyStore, Wanted

ALICE = "@alice:test"
A1, A2, B1 = Key("alg", "A", '"a"'), Key("alg", "B", '"b"'), Key("other", "A", '"c"')


@pytest_twisted.ensureDeferred
async def test_keys_are_counted_by_algorithm_and_may_be_sent_again(database: Database) -> None:
    keys = KeyStore(database)
    assert await keys.add_keys(ALICE, "D", [A1, B1], [], 1) == {"alg": 1, "other": 1}
    assert await keys.add_keys(ALICE, "D", [A1, A2], [], 2) == {"alg": 2, "other": 1}
    with pytest.raises(KeyConflict, match="alg:A"):
        await keys.add_keys(ALICE, "D", [A1._replace(json='"z"')], [], 3)
    assert await keys.add_keys(ALICE, "D", [], [], 4) == {"alg": 2, "other": 1}
    assert await keys.counts(ALICE, "OTHER") == {}


@pytest_twisted.ensureDeferred
async def test_keys_go_out_in_order_once_each_and_then_the_fallback(database: Database) -> None:
    keys = KeyStore(database)
    await keys.add_keys(ALICE, "D", [A2], [Key("alg", "F", '"f"')], 1)
    await keys.add_keys(ALICE, "D", [A1], [], 2)
    want = [Wanted(ALICE, "D", "alg"), Wanted(ALICE, "NONE", "alg")]
    assert await keys.unused_fallback(ALICE, "D") == ["alg"]
    got = [await keys.claim(want) for _ in range(4)]
    assert got == [
        [Claimed(ALICE, "D", "alg", "B", '"b"')],
        [Claimed(ALICE, "D", "alg", "A", '"a"')],
        [Claimed(ALICE, "D", "alg", "F", '"f"')],
        [Claimed(ALICE, "D", "alg", "F", '"f"')],
    ]
    assert await keys.unused_fallback(ALICE, "D") == []
    await keys.add_keys(ALICE, "D", [], [Key("alg", "F", '"f"')], 3)
    assert await keys.unused_fallback(ALICE, "D") == [], "the same key again is still a used one"
    await keys.add_keys(ALICE, "D", [], [Key("alg", "G", '"g"')], 3)
    assert await keys.unused_fallback(ALICE, "D") == ["alg"]


@pytest_twisted.ensureDeferred
async def test_claims_at_the_same_moment_get_different_keys(database: Database) -> None:
    keys = KeyStore(database)
    await keys.add_keys(ALICE, "D", [Key("alg", str(n), f'"{n}"') for n in range(20)], [], 1)
    claims = [Deferred.fromCoroutine(keys.claim([Wanted(ALICE, "D", "alg")])) for _ in range(25)]
    results = await gatherResults(claims)
    given = [claimed[0].key_id for claimed in results if claimed]
    assert len(given) == len(set(given)) == 20


@pytest_twisted.ensureDeferred
async def test_device_keys_and_their_changes(database: Database) -> None:
    keys = KeyStore(database)
    await keys.put_device_keys(ALICE, "D", '{"v":1}', 1, 10)
    await keys.put_device_keys(ALICE, "D", '{"v":2}', 2, 11)
    await keys.record_change(ALICE, "E", 12)
    await keys.record_change(ALICE, None, 13)
    assert await keys.device_keys(ALICE, "D") == '{"v":2}'
    assert await keys.device_keys(ALICE, "E") is None
    assert await keys.changed_users([ALICE, "@bob:test"], 9, 10) == {ALICE}
    assert await keys.changed_users([ALICE], 13, 20) == set()
