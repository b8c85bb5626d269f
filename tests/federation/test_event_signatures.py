"""The signatures of events, many at once: whose are needed, by which key, as of when."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import pytest_twisted
from signedjson.key import generate_signing_key

from synapse.api.room_versions import room_version
from synapse.events.event import Event
from synapse.events.hashes import content_hash
from synapse.events.signing import add_signature
from synapse.storage.database import Database
from tests.federation.key_servers import DAY, HERE, NOW, Ring, base64_of, published

COUNT = count(1)
K1, K2 = generate_signing_key("1"), generate_signing_key("2")


def event(sender: str, version: str = "10", *, by: dict[str, Any] | None = None, ts: int = NOW, **more: Any) -> Event:
    """An event that the servers in `by` have signed, each with its key."""
    raw: dict[str, Any] = {
        "room_id": "!room:a.test",
        "type": "m.room.message",
        "sender": sender,
        "content": {"body": "hello"},
        "depth": next(COUNT),
        "origin_server_ts": ts,
        "prev_events": [],
        "auth_events": [],
        **more,
    }
    if version in ("1", "2"):
        raw.setdefault("event_id", f"$event:{sender.partition(':')[2]}")
    raw["hashes"] = {"sha256": content_hash(raw, room_version(version))}
    for server, key in (by or {}).items():
        raw = add_signature(raw, room_version(version), server, key)
    return Event.from_json(raw, room_version(version))


async def right(ring: Ring, *events: Event) -> list[bool]:
    failed = await ring.ring.verify_events(events)
    return [each.event_id not in failed for each in events]


def world(database: Database) -> Ring:
    ring = Ring(database)
    ring.servers.answers |= {name: published(name, K1) for name in ("a.test", "b.test", "c.test")}
    return ring


@pytest_twisted.ensureDeferred
async def test_the_senders_server_must_have_signed(database: Database) -> None:
    ring = world(database)
    events = [
        event("@u:a.test", by={"a.test": K1}),
        event("@u:a.test", by={"a.test": K2}),
        event("@u:a.test", by={"b.test": K1}),
        event("@u:a.test"),
        event(f"@u:{HERE}", by={HERE: ring.key}),
        event(f"@u:{HERE}", by={HERE: K1}),
        event("@u:gone.test", by={"gone.test": K1}),
        event("@u:not a name", by={"not a name": K1}),
    ]
    assert await right(ring, *events) == [True, False, False, False, True, False, False, False]
    assert sorted(set(ring.servers.asked)) == ["a.test", "gone.test"]


@pytest_twisted.ensureDeferred
async def test_one_right_signature_of_several_is_enough(database: Database) -> None:
    ring = world(database)
    raw = event("@u:a.test", by={"a.test": K1}).raw
    many = {**{f"ed25519:x{n}": "AAAA" for n in range(5)}, **raw["signatures"]["a.test"]}
    several = Event.from_json({**raw, "signatures": {"a.test": many}}, room_version("10"))
    too_many = {f"ed25519:x{n}": "AAAA" for n in range(100)} | raw["signatures"]["a.test"]
    flood = Event.from_json({**raw, "signatures": {"a.test": too_many}}, room_version("10"), event_id="$flood")
    assert await right(ring, several) == [True]
    assert await right(ring, flood) == [False]


@pytest_twisted.ensureDeferred
async def test_a_wrong_signature_by_a_known_key_is_one_too_many(database: Database) -> None:
    ring = world(database)
    old = {"ed25519:2": {"key": base64_of(K2), "expired_ts": NOW - DAY}}
    ring.servers.answers["a.test"] = published("a.test", K1, old=old)

    def twice(ts: int, *, spoilt: bool, version: str = "10") -> Event:
        raw = event("@u:a.test", version, by={"a.test": K1}, ts=ts).raw
        raw = add_signature(raw, room_version(version), "a.test", K2)
        if spoilt:
            raw["signatures"]["a.test"]["ed25519:2"] = raw["signatures"]["a.test"]["ed25519:1"]
        return Event.from_json(raw, room_version(version))

    while_used, later = NOW - DAY, NOW
    assert await right(ring, twice(while_used, spoilt=False), twice(while_used, spoilt=True)) == [True, False]
    assert await right(ring, twice(later, spoilt=True), twice(later, spoilt=True, version="4")) == [True, False]


@pytest_twisted.ensureDeferred
async def test_whoever_else_must_have_signed(database: Database) -> None:
    ring = world(database)
    join = {"type": "m.room.member", "state_key": "@u:a.test"}
    restricted = {"membership": "join", "join_authorised_via_users_server": "@admin:b.test"}
    invite = {"membership": "invite", "third_party_invite": {"signed": {}}}
    both, one = {"a.test": K1, "b.test": K1}, {"a.test": K1}
    events = [
        event("@u:a.test", "10", by=both, content=restricted, **join),
        event("@u:a.test", "10", by=one, content=restricted, **join),
        event("@u:a.test", "7", by=one, content=restricted, **join),
        event("@u:a.test", "10", by={"c.test": K1}, content=invite, **join),
        event("@u:a.test", "1", by=one, event_id="$e:a.test"),
        event("@u:a.test", "1", by=one, event_id="$f:b.test"),
        event("@u:a.test", "1", by=both, event_id="$g:b.test"),
    ]
    assert await right(ring, *events) == [True, False, True, True, True, False, True]


@pytest.mark.parametrize(
    ("version", "ts", "valid"),
    [
        ("5", NOW + DAY, True),
        ("5", NOW + DAY + 1, False),
        ("10", NOW + DAY + 1, False),
        ("4", NOW + 100 * DAY, True),
        ("1", 2**53 - 1, True),
        ("12", 2**53 - 1, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_key_was_valid_when_it_was_sent(database: Database, version: str, ts: int, valid: bool) -> None:
    ring = world(database)
    assert await right(ring, event("@u:a.test", version, by={"a.test": K1}, ts=ts)) == [valid]


@pytest_twisted.ensureDeferred
async def test_whether_an_event_may_pass_when_its_servers_keys_can_be_had(database: Database) -> None:
    ring = world(database)
    wrong, away = event("@u:a.test", by={"a.test": K2}), event("@u:away.test", by={"away.test": K1})
    none = event("@u:no server", by={"no server": K1})
    assert await right(ring, wrong, away, none) == [False] * 3
    assert [ring.ring.is_at_a_loss(each) for each in (wrong, away, none)] == [False, True, False]


@pytest.mark.parametrize(("version", "ts", "valid"), [("5", NOW - DAY, True), ("5", NOW, False), ("4", NOW, True)])
@pytest_twisted.ensureDeferred
async def test_keys_out_of_use_are_good_for_what_is_older(
    database: Database, version: str, ts: int, valid: bool
) -> None:
    ring = world(database)
    old = {"ed25519:2": {"key": base64_of(K2), "expired_ts": NOW - DAY}}
    ring.servers.answers["a.test"] = published("a.test", K1, old=old)
    assert await right(ring, event("@u:a.test", version, by={"a.test": K2}, ts=ts)) == [valid]


@pytest_twisted.ensureDeferred
async def test_many_are_checked_on_threads_with_each_server_asked_once(database: Database) -> None:
    ring = world(database)
    names = [f"{number}.test" for number in range(40)]
    ring.servers.answers |= {name: published(name, K1) for name in names}
    good = [event(f"@u{n}:{name}", by={name: K1}) for name in names for n in range(3)]
    bad = [event(f"@u{n}:{name}", by={name: K2}) for name in names for n in range(3)]
    assert await ring.ring.verify_events([*good, *bad]) == {each.event_id for each in bad}
    assert sorted(ring.servers.asked) == sorted(names)
    assert ring.threads == 5
    ring.threads = 0
    with database.counted() as counts:
        assert await ring.ring.verify_events(good[:4]) == set()
    assert (ring.threads, counts.statements_read, counts.statements_written) == (0, 0, 0)
