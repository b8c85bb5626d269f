"""Keys of other servers: where they come from, how long they are believed, and how often anybody is asked."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from signedjson.key import generate_signing_key
from signedjson.sign import sign_json
from twisted.internet.defer import Deferred

from synapse.events.signing import SignatureError
from synapse.federation.errors import BadAnswer, Refused
from synapse.federation.key_fetching import AT_ONCE, FOR_EACH, FOR_US, Notary
from synapse.federation.keyring import KeyUnavailable
from synapse.federation.published import WEEK_MS
from synapse.storage.database import Database
from tests.federation.key_servers import DAY, HERE, NOW, Ring, base64_of, published
from tests.support.deferreds import started

K1, K2 = generate_signing_key("1"), generate_signing_key("2")
NOTARY_KEY = generate_signing_key("n")
NOTARY = Notary("notary.test", {"ed25519:n": base64_of(NOTARY_KEY)})


async def has(ring: Ring, server: str, key: Any, at: int = NOW) -> bool:
    try:
        found = await ring.ring.key(server, f"ed25519:{key.version}", at)
    except KeyUnavailable:
        return False
    assert bytes(found) == bytes(key.verify_key)
    return True


@pytest_twisted.ensureDeferred
async def test_keys_are_asked_for_once_and_remembered(database: Database) -> None:
    ring = Ring(database)
    ring.servers.answers["a.test"] = published("a.test", K1)
    for _ in range(3):
        assert await has(ring, "a.test", K1)
    assert ring.servers.asked == ["a.test"]
    other_process = Ring(database, servers=ring.servers)
    assert await has(other_process, "a.test", K1)
    assert ring.servers.asked == ["a.test"], "the database has them"


@pytest_twisted.ensureDeferred
async def test_what_another_process_has_fetched_is_read_before_anybody_is_asked(database: Database) -> None:
    one, two = Ring(database), Ring(database)
    one.servers.answers["a.test"] = two.servers.answers["a.test"] = published("a.test", K1)
    assert await has(one, "a.test", K1)
    assert await has(two, "a.test", K1)
    one.servers.answers["a.test"] = published("a.test", K1, K2)
    assert await has(one, "a.test", K2)
    assert await has(two, "a.test", K2)
    assert two.servers.asked == []


@pytest_twisted.ensureDeferred
async def test_this_servers_own_keys_need_no_asking(database: Database) -> None:
    ring = Ring(database)
    assert await has(ring, HERE, ring.key, 2**53)
    assert not await has(ring, HERE, K1)
    assert ring.servers.asked == []


@pytest.mark.parametrize(
    ("until", "at", "valid"),
    [
        (NOW + DAY, NOW, True),
        (NOW + DAY, NOW + DAY, True),
        (NOW + DAY, NOW + DAY + 1, False),
        (NOW + 30 * DAY, NOW + WEEK_MS, True),
        (NOW + 30 * DAY, NOW + WEEK_MS + 1, False),
        (NOW - DAY, NOW - DAY, True),
        (NOW - DAY, NOW, False),
        (NOW - DAY, 0, True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_keys_are_valid_for_as_long_as_they_say_and_a_week(
    database: Database, until: int, at: int, valid: bool
) -> None:
    ring = Ring(database)
    ring.servers.answers["a.test"] = published("a.test", K1, until=until)
    assert await has(ring, "a.test", K1, at) == valid


@pytest.mark.parametrize(("at", "valid"), [(0, True), (NOW - DAY, True), (NOW - DAY + 1, False)])
@pytest_twisted.ensureDeferred
async def test_old_keys_are_good_for_what_is_old(database: Database, at: int, valid: bool) -> None:
    ring = Ring(database)
    old = {"ed25519:1": {"key": base64_of(K1), "expired_ts": NOW - DAY}}
    ring.servers.answers["a.test"] = published("a.test", K2, old=old)
    assert await has(ring, "a.test", K1, at) == valid


@pytest_twisted.ensureDeferred
async def test_a_key_is_refreshed_when_its_validity_is_over(database: Database) -> None:
    ring = Ring(database)
    ring.servers.answers["a.test"] = published("a.test", K1)
    assert await has(ring, "a.test", K1)
    ring.clock.advance(2 * DAY / 1000)
    ring.servers.answers["a.test"] = published("a.test", K1, until=NOW + 3 * DAY)
    assert await has(ring, "a.test", K1, NOW + 2 * DAY)
    assert ring.servers.asked == ["a.test"] * 2


@pytest_twisted.ensureDeferred
async def test_a_key_that_was_withdrawn_is_believed_no_longer(database: Database) -> None:
    ring = Ring(database)
    ring.servers.answers["a.test"] = published("a.test", K1)
    assert await has(ring, "a.test", K1)
    old = {"ed25519:1": {"key": base64_of(K1), "expired_ts": NOW - DAY}}
    ring.servers.answers["a.test"] = published("a.test", K2, old=old)
    assert await has(ring, "a.test", K2)
    assert not await has(ring, "a.test", K1, NOW)
    assert await has(ring, "a.test", K1, NOW - DAY)


def spoilt(**changes: Any) -> dict[str, Any]:
    return {**published("a.test", K1), **changes}


BAD = [
    {},
    spoilt(server_name="b.test"),
    spoilt(valid_until_ts=NOW + 2),
    spoilt(valid_until_ts="soon"),
    spoilt(valid_until_ts=True),
    spoilt(valid_until_ts=-1),
    spoilt(valid_until_ts=2**60),
    spoilt(verify_keys={}),
    spoilt(verify_keys=[]),
    spoilt(verify_keys={"ed25519:1": {"key": base64_of(K2)}}),
    spoilt(verify_keys={f"ed25519:{n}": {"key": base64_of(K1)} for n in range(60)}),
    spoilt(verify_keys={"ed25519:1": base64_of(K1)}),
    spoilt(verify_keys={"ed25519:1": {"key": "short"}}),
    spoilt(verify_keys={"ed25519:1\0": {"key": base64_of(K1)}}),
    spoilt(old_verify_keys=[]),
    spoilt(signatures={}),
    spoilt(signatures={"a.test": {}}),
    spoilt(signatures={"a.test": {"ed25519:1": "AAAA"}}),
    spoilt(signatures={"a.test": {"ed25519:1": 5}}),
    spoilt(signatures={"b.test": published("a.test", K1)["signatures"]["a.test"]}),
    published("b.test", K1),
    sign_json({**published("a.test", K1), "padding": "x" * 40_000, "signatures": {}}, "a.test", K1),
]


@pytest.mark.parametrize("answer", BAD)
@pytest_twisted.ensureDeferred
async def test_what_is_not_a_servers_keys_is_not_believed(database: Database, answer: dict[str, Any]) -> None:
    ring = Ring(database)
    ring.servers.answers["a.test"] = answer
    assert not await has(ring, "a.test", K1)
    assert await ring.store.told(["a.test"]) == {"a.test": {}}


@pytest_twisted.ensureDeferred
async def test_keys_that_are_odd_are_left_out_of_good_answers(database: Database) -> None:
    ring = Ring(database)
    odd = published("a.test", K1)
    del odd["signatures"]
    odd["verify_keys"] |= {"rsa:1": {"key": "AAAA"}, "ed25519:bad": {"key": "!"}, "ed25519:none": {}, "": {"key": "A"}}
    odd["old_verify_keys"] = {"ed25519:o": {"key": base64_of(K2), "expired_ts": "x"}, "ed25519:p": 5}
    ring.servers.answers["a.test"] = sign_json(odd, "a.test", K1)
    assert await has(ring, "a.test", K1)
    assert set((await ring.store.told(["a.test"]))["a.test"]) == {"ed25519:1"}


# -- how often ---------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_one_at_a_time_is_asked_of_a_server(database: Database) -> None:
    ring = Ring(database)
    ring.servers.answers["a.test"] = published("a.test", K1)
    ring.servers.hold["a.test"] = Deferred()
    asking = [started(has(ring, "a.test", K1)) for _ in range(5)]
    while (wish := ring.fetcher._running.get("a.test")) is None or len(wish.followers) < len(asking):
        await ring.store.get_many(["a.test"])
    asking[0].addErrback(lambda _: None)
    asking[0].cancel()
    ring.servers.hold["a.test"].callback(None)
    assert [await each for each in asking[1:]] == [True] * 4
    assert ring.servers.asked == ["a.test"]


@pytest_twisted.ensureDeferred
async def test_who_does_not_answer_is_left_alone_for_longer_and_longer(database: Database) -> None:
    ring = Ring(database)
    for number, pause in enumerate((30, 60, 120, 240)):
        for _ in range(5):
            assert not await has(ring, "gone.test", K1)
        assert len(ring.servers.asked) == number + 1
        ring.clock.advance(pause)
    ring.servers.answers["gone.test"] = published("gone.test", K1)
    assert await has(ring, "gone.test", K1)


@pytest.mark.parametrize("answer", [Refused("a.test", 404, "M_NOT_FOUND", "", {}), BadAnswer("a.test", ""), "good"])
@pytest_twisted.ensureDeferred
async def test_keys_that_nobody_has_are_not_asked_for_without_end(database: Database, answer: Any) -> None:
    ring = Ring(database)
    ring.servers.answers["a.test"] = published("a.test", K1) if answer == "good" else answer
    for number in range(50):
        assert not await has(ring, "a.test", generate_signing_key(f"x{number}"))
    assert len(ring.servers.asked) <= 10
    ring.clock.advance(600)
    for number in range(50):
        assert not await has(ring, "a.test", generate_signing_key(f"y{number}"))
    assert len(ring.servers.asked) <= 21


@pytest_twisted.ensureDeferred
async def test_many_servers_are_asked_at_the_same_time_but_not_all(database: Database) -> None:
    ring = Ring(database)
    names = [f"{number}.test" for number in range(3 * AT_ONCE)]
    held: Deferred[None] = Deferred()
    for name in names:
        ring.servers.answers[name] = published(name, K1)
        ring.servers.hold[name] = held
    asking = started(ring.fetcher.fetch({name: {"ed25519:1": NOW} for name in names}))
    assert ring.servers.most_under_way == FOR_US
    held.callback(None)
    assert await asking == set(names)
    assert ring.servers.most_under_way == FOR_US


@pytest_twisted.ensureDeferred
async def test_whoever_names_servers_that_do_not_answer_waits_for_them_alone(database: Database) -> None:
    ring = Ring(database)
    held: Deferred[None] = Deferred()
    ring.servers.answers["good.test"] = published("good.test", K1)
    hostile = []
    for origin in ("one.test", "two.test", "three.test"):
        names = [*(f"{number}.{origin}" for number in range(AT_ONCE)), "good.test"]
        ring.servers.hold.update((name, held) for name in names[:-1])
        for some in (names[:50], names[50:]):
            hostile.append(started(ring.fetcher.fetch({name: {"ed25519:1": NOW} for name in some}, origin)))
    assert ring.servers.under_way == 3 * FOR_EACH
    # What others wait for as well is fetched for those who have their turn first.
    assert await ring.fetcher.fetch({"good.test": {"ed25519:1": NOW}}, "other.test") == {"good.test"}
    assert ring.servers.under_way == 3 * FOR_EACH
    ring.clock.advance(31)
    held.callback(None)
    for each in hostile:
        assert await each <= {"good.test"}
    assert ring.servers.asked.count("good.test") == 1
    assert not ring.fetcher._running
    assert not ring.fetcher._shares._slots


@pytest_twisted.ensureDeferred
async def test_after_a_while_no_further_ones_are_asked(database: Database) -> None:
    ring = Ring(database)
    names = [f"{number}.test" for number in range(2 * AT_ONCE)]
    held: Deferred[None] = Deferred()
    for name in names:
        ring.servers.hold[name] = held
    asking = started(ring.fetcher.fetch({name: {"ed25519:1": NOW} for name in names}))
    ring.clock.advance(31)
    held.callback(None)
    assert await asking == set()
    assert len(ring.servers.asked) == FOR_US


# -- notaries ----------------------------------------------------------------------------------------------------------


def notarised(
    server: str, *keys: Any, by: Any = NOTARY_KEY, notary: str = "notary.test", **more: Any
) -> dict[str, Any]:
    return sign_json(published(server, *keys, **more), notary, by)


@pytest_twisted.ensureDeferred
async def test_a_notary_is_asked_for_those_who_are_gone_all_at_once(database: Database) -> None:
    ring = Ring(database, NOTARY)
    ring.servers.answers["here-i-am.test"] = published("here-i-am.test", K1)
    gone = [f"{number}.test" for number in range(3)]
    ring.servers.notarised["notary.test"] = [notarised(name, K2) for name in gone]
    wanted = {name: {"ed25519:2": NOW} for name in gone} | {"here-i-am.test": {"ed25519:1": NOW}}
    assert await ring.fetcher.fetch(wanted) == {*gone, "here-i-am.test"}
    assert ring.servers.questions == [("notary.test", {name: {"ed25519:2": NOW} for name in gone})]
    assert await has(ring, "1.test", K2)


@pytest.mark.parametrize(
    "answer",
    [
        published("a.test", K1),
        notarised("a.test", K1, by=K2),
        notarised("a.test", K1, notary="a.test"),
        notarised("b.test", K1),
        {**notarised("a.test", K1), "valid_until_ts": NOW},
        sign_json(spoilt(signatures={}), "notary.test", NOTARY_KEY),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_a_notary_has_not_signed_or_the_server_has_not_is_not_believed(
    database: Database, answer: dict[str, Any]
) -> None:
    ring = Ring(database, NOTARY)
    ring.servers.notarised["notary.test"] = [answer]
    assert not await has(ring, "a.test", K1)
    assert len(ring.servers.questions) == 1


@pytest_twisted.ensureDeferred
async def test_a_notary_without_listed_keys_is_asked_for_its_own(database: Database) -> None:
    ring = Ring(database, Notary("notary.test"), Notary("other.test", {}, insecurely=True))
    ring.servers.answers["notary.test"] = published("notary.test", NOTARY_KEY)
    ring.servers.notarised |= {"notary.test": [notarised("a.test", K1)], "other.test": [published("b.test", K1)]}
    assert await has(ring, "a.test", K1)
    assert await has(ring, "b.test", K1), "the second notary knows it, and need not sign"
    assert ring.servers.asked.count("notary.test") == 1


@pytest_twisted.ensureDeferred
async def test_a_notary_with_an_old_answer_does_no_harm(database: Database) -> None:
    ring = Ring(database, NOTARY)
    ring.servers.answers["a.test"] = published("a.test", K1)
    assert await has(ring, "a.test", K1)
    ring.servers.answers.clear()
    ring.servers.notarised["notary.test"] = [notarised("a.test", K1, until=NOW - DAY)]
    assert not await has(ring, "a.test", K2)
    assert await has(ring, "a.test", K1, NOW + DAY)


@pytest_twisted.ensureDeferred
async def test_notaries_are_not_asked_without_end(database: Database) -> None:
    ring = Ring(database, NOTARY)
    ring.servers.notarised["notary.test"] = []
    for _ in range(50):
        assert not await has(ring, "gone.test", K1)
    assert len(ring.servers.questions) <= 10


# -- signatures of JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signed", "right"),
    [
        (sign_json({"a": 1, "unsigned": {"b": 2}}, "a.test", K1), True),
        ({**sign_json({"a": 1, "unsigned": {"b": 2}}, "a.test", K1), "unsigned": {"b": 3}}, True),
        (sign_json(sign_json({"a": 1.5}, "a.test", K2), "a.test", K1), True),
        ({**sign_json({"a": 1}, "a.test", K1), "a": 2}, False),
        (sign_json({"a": 1}, "a.test", K2), False),
        (sign_json({"a": 1}, "b.test", K1), False),
        ({"a": 1}, False),
        ({"a": 1, "signatures": []}, False),
        ({"a": 1, "signatures": {"a.test": {"ed25519:1": "ä"}}}, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_signed_json(database: Database, signed: dict[str, Any], right: bool) -> None:
    ring = Ring(database)
    ring.servers.answers["a.test"] = published("a.test", K1)
    if right:
        await ring.ring.verify("a.test", signed, NOW)
    else:
        with pytest.raises(SignatureError):
            await ring.ring.verify("a.test", signed, NOW)
