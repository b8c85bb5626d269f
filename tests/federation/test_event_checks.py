"""Checks 1 to 3 of events that other servers send, in every room version."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.api.room_versions import ROOM_VERSIONS, EventIdScheme, RoomVersion, room_version
from synapse.events.signing import add_signature
from synapse.federation.receiving.checks import EventChecks, id_of, room_of
from synapse.federation.receiving.order import ancestors_first, predecessors_of
from tests.federation.peers import KeysOf, Peer, at_once

EVIL, OTHER = Peer("evil.test"), Peer("other.test")
VERSIONS = list(ROOM_VERSIONS.values())


def room_in(version: RoomVersion) -> str:
    return "!" + "r" * 43 if version.room_id_from_create else "!room:other.test"


def checks() -> EventChecks:
    return EventChecks(KeysOf(EVIL, OTHER), at_once)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest_twisted.ensureDeferred
async def test_a_good_event_passes_as_it_is(version: RoomVersion) -> None:
    event = EVIL.event(version, room_in(version))
    for raw in (event.raw, event.json, msgspec.Raw(event.json), {**event.raw, "unsigned": {"age": 1}}):
        assert (await checks().check_one(raw, version)) == event
        assert id_of(raw, version) == event.event_id
        assert room_of(raw) == event.room_id


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest_twisted.ensureDeferred
async def test_what_was_changed_after_it_was_hashed_is_redacted(version: RoomVersion) -> None:
    event = EVIL.event(version, room_in(version), content={"body": "hello", "more": 1})
    changed = {**event.raw, "content": {"body": "something else"}}
    checked = await checks().check_one(changed, version)
    assert checked.content == {}
    assert checked.event_id == event.event_id
    assert checked.raw["signatures"] == event.raw["signatures"]


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest_twisted.ensureDeferred
async def test_what_is_not_signed_by_its_sender_is_dropped(version: RoomVersion) -> None:
    event = EVIL.event(version, room_in(version), sender="@victim:other.test")
    assert version.event_ids is not EventIdScheme.ASSIGNED or event.event_id.endswith(":evil.test")
    with pytest.raises(MatrixError) as caught:
        await checks().check_one(event.raw, version)
    assert caught.value.code == 403
    signed = add_signature(event.raw, version, OTHER.name, OTHER.key)
    assert (await checks().check_one(signed, version)).event_id == event.event_id
    assert await checks().check_many([event.raw, signed], version) == [await checks().check_one(signed, version)]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda raw: raw["signatures"].pop("evil.test"),
        lambda raw: raw["signatures"]["evil.test"].update({"ed25519:1": "A" * 86}),
        lambda raw: raw["signatures"]["evil.test"].update({"ed25519:1": "not base64 at all ☃"}),
        lambda raw: raw["signatures"].update({"evil.test": {"ed25519:2": raw["signatures"]["evil.test"]["ed25519:1"]}}),
        lambda raw: raw.update(origin_server_ts=raw["origin_server_ts"] + 1),
        lambda raw: raw.update(depth=raw["depth"] + 1),
        lambda raw: raw.update(type="m.room.topic"),
        lambda raw: raw.update(state_key=""),
        lambda raw: raw.update(prev_events=["$other"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_essential_cannot_be_changed(break_it: Any) -> None:
    version = room_version("10")
    raw = orjson.loads(EVIL.event(version, room_in(version)).json)
    break_it(raw)
    with pytest.raises(MatrixError) as caught:
        await checks().check_one(raw, version)
    assert (caught.value.code, caught.value.errcode) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        "text",
        b"",
        b"{",
        b"\xff",
        b'{"room_id": "\xed\xa0\x80"}',
        b"[" * 100_000,
        b'{"depth": ' + b"9" * 10_000 + b"}",
        {"type": 1},
        {"content": {"a": float("inf")}},
        {"content": {"\udcff": 1}},
    ],
)
@pytest.mark.parametrize("version", ["1", "5", "6", "11", "12"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_event_is_dropped(raw: Any, version: str) -> None:
    with pytest.raises(MatrixError) as caught:
        await checks().check_one(raw, room_version(version))
    assert caught.value.code == 400
    id_of(raw, room_version(version))
    assert room_of(raw) is None


@pytest.mark.parametrize("version", ["1", "3", "5"])
@pytest_twisted.ensureDeferred
async def test_numbers_of_old_rooms_keep_their_digits(version: str) -> None:
    old = room_version(version)
    event = EVIL.event(old, room_in(old), content={"big": 10**30, "float": 1.5, "small": -(2**70)})
    checked = await checks().check_one(event.json, old)
    assert checked.content == {"big": 10**30, "float": 1.5, "small": -(2**70)}
    with pytest.raises(MatrixError):
        await checks().check_one(event.json, room_version("6"))


@pytest_twisted.ensureDeferred
async def test_of_many_the_bad_ones_are_dropped_and_each_comes_once() -> None:
    version = room_version("11")
    events = [EVIL.event(version, room_in(version), content={"n": n}) for n in range(250)]
    elsewhere = EVIL.event(version, "!elsewhere:other.test")
    keys = KeysOf(EVIL, OTHER)
    raws = [*[event.raw for event in events], None, {}, events[0].raw, elsewhere.raw]
    checked = await EventChecks(keys, at_once).check_many(raws, version, room_id=room_in(version))
    assert checked == events
    assert keys.asked == 3  # pieces


def test_ancestors_come_first_and_circles_end() -> None:
    version = room_version("1")
    first = EVIL.event(version, room_in(version), event_id="$1:evil.test", prev=["$3:evil.test"])
    second = EVIL.event(version, room_in(version), event_id="$2:evil.test", prev=["$1:evil.test"])
    third = EVIL.event(version, room_in(version), event_id="$3:evil.test", prev=["$2:evil.test", "$1:evil.test"])
    ordered = ancestors_first([third, second, first, third], predecessors_of)
    assert sorted(event.event_id for event in ordered) == ["$1:evil.test", "$2:evil.test", "$3:evil.test"]
    fourth = EVIL.event(version, room_in(version), event_id="$4:evil.test", prev=["$5:evil.test", "$6:evil.test"])
    fifth = EVIL.event(version, room_in(version), event_id="$5:evil.test", prev=["$6:evil.test"])
    sixth = EVIL.event(version, room_in(version), event_id="$6:evil.test", prev=["$0:evil.test"])
    assert ancestors_first([fourth, fifth, sixth], predecessors_of) == [sixth, fifth, fourth]
