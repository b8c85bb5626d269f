"""What clients may put into events, room version by room version: numbers, levels, sizes, names.

The same content is tried by every way into a room, and must fare alike: sent, set as state, as part of a new room.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted

from synapse.api.room_versions import ROOM_VERSIONS
from tests.conformance.town import V3, Town

TOLERANT = ("1", "5")  # until version 6, content may hold any number
STRICT = ("6", "9", "10", "11", "12")

WAYS = ("sent", "set", "made")
OK, BAD, LARGE = "200", "400 M_BAD_JSON", "413 M_TOO_LARGE"

NUMBERS = (1.5, -0.5, 1e300, 2**53, -(2**53), 2**60, {"a": [{"b": 1.5}]}, [2**53])
FINE: tuple[Any, ...] = (
    2**53 - 1,
    -(2**53) + 1,
    0,
    True,
    None,
    "\0",
    "\u2028\uffff\U0010ffff",
    {"": {"\0": []}},
    [[[]]],
)


async def _asked(town: Town, method: str, path: str, body: Any, user: str = "alice") -> str:
    sent = body if isinstance(body, bytes) else orjson.dumps(body)
    town.forget(("txn",))
    answer = await town.handle(method, V3 + await town.filled(path), sent, user)
    return str(answer.code) if answer.code == 200 else f"{answer.code} {orjson.loads(answer.body)['errcode']}"


async def _try(town: Town, way: str, version: str, event_type: str, content: Any, state_key: str = "") -> str:
    """How an event with this content fares. A refused one leaves nothing behind."""
    room = await _room(town, version)
    before = await town.traces()
    if way == "sent":
        result = await _asked(town, "PUT", f"/rooms/{room}/send/{quote(event_type, safe='')}/{{txn}}", content)
    elif way == "set":
        path = f"/rooms/{room}/state/{quote(event_type, safe='')}/{quote(state_key, safe='')}"
        result = await _asked(town, "PUT", path, content)
    else:
        state = {"type": event_type, "state_key": state_key, "content": content}
        result = await _asked(town, "POST", "/createRoom", {"room_version": version, "initial_state": [state]})
    assert result == OK or await town.traces() == before, (way, content)
    return result


_rooms: dict[tuple[int, str], str] = {}


async def _room(town: Town, version: str) -> str:
    key = (id(town), version)
    if key not in _rooms:
        _rooms[key] = quote((await town.post("alice", "/createRoom", {"room_version": version}))["room_id"])
    return _rooms[key]


@pytest.mark.parametrize("version", [*TOLERANT, *STRICT])
@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_numbers(town: Town, way: str, version: str) -> None:
    for value in NUMBERS:
        found = await _try(town, way, version, "org.example", {"a": value})
        assert found == (BAD if version in STRICT else OK), value
    for value in FINE:
        if way == "made" and "\\u0000" in json.dumps(value):
            continue  # the rest of the body may not have it
        assert await _try(town, way, version, "org.example", {"a": value}) == OK, value


@pytest.mark.parametrize("version", ROOM_VERSIONS)
@pytest_twisted.ensureDeferred
async def test_levels_as_strings(town: Town, version: str) -> None:
    """A level that is a string was a number once, and is not to be sent any more; what is no number never was one."""
    for name, value in (("ban", "50"), ("events", {"m.room.name": "50"}), ("users", {"@bob:test": "10"})):
        room = quote((await town.post("alice", "/createRoom", {"room_version": version}))["room_id"])
        content = {"users": {} if version == "12" else {"@alice:test": 100}, name: value}
        if name == "users" and version != "12":
            content["users"] = {"@alice:test": 100, **value}
        found = await _asked(town, "PUT", f"/rooms/{room}/state/m.room.power_levels", content)
        assert found == BAD, (name, found)
    room = await _room(town, version)
    for value in ("x", "", "1.5", "0x10", [], {}, None, True, 1e9, "9" * 400):
        content = {"users": {} if version == "12" else {"@alice:test": 100}, "ban": value}
        before = await town.traces()
        found = await _asked(town, "PUT", f"/rooms/{room}/state/m.room.power_levels", content)
        assert found in (BAD, "403 M_FORBIDDEN", "400 M_INVALID_PARAM"), (value, found)
        assert await town.traces() == before


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_sizes(town: Town, way: str) -> None:
    """65,536 bytes an event, 255 bytes a type and a state key, counted in UTF-8."""
    for content in ({"a": "x" * 66_000}, {"a": "é" * 33_000}, {"a": ["x"] * 20_000}, {"x" * 66_000: 1}):
        assert await _try(town, way, "12", "org.example", content) == LARGE
    assert await _try(town, way, "12", "org.example", {"a": "x" * 60_000}) == OK
    for text in ("x" * 256, "é" * 128, "x" * 5000):
        assert await _try(town, way, "12", text, {}) == LARGE
        if way != "sent":
            assert await _try(town, way, "12", "org.example", {}, text) == LARGE
    assert await _try(town, way, "12", "é" * 127, {}) == OK


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_depth(town: Town, way: str) -> None:
    deep: Any = 1
    for _ in range(150):
        deep = {"a": deep}
    assert await _try(town, way, "12", "org.example", deep) == BAD
    bomb = b'{"a":' * 50_000
    assert (await _asked(town, "PUT", f"/rooms/{await _room(town, '12')}/send/m/{{txn}}", bomb)).startswith("400 ")


@pytest.mark.parametrize(
    "version", ["", "0", "13", "1.0", " 11", "011", "+1", "\u0661", "x" * 40, "org.example.1", "1\0", "latest"]
)
@pytest_twisted.ensureDeferred
async def test_unknown_room_versions(town: Town, version: str) -> None:
    room = await _room(town, "11")
    before = await town.traces()
    expected = ("400 M_UNSUPPORTED_ROOM_VERSION", "400 M_BAD_JSON", "400 M_INVALID_PARAM")
    assert await _asked(town, "POST", "/createRoom", {"room_version": version}) in expected
    assert await _asked(town, "POST", f"/rooms/{room}/upgrade", {"new_version": version}) in expected
    assert await town.traces() == before


@pytest.mark.parametrize(
    ("way", "event_type", "state_key", "content"),
    [
        *(("set", "m.room.member", "@alice:test", {"membership": value}) for value in (5, None, "", "JOIN", "\0", [])),
        ("set", "m.room.member", "@alice:test", {}),
        *(("set", "m.room.member", key, {"membership": "invite"}) for key in ("", "bob", "@bob", "@bob:", "@\0:test")),
        ("set", "m.room.create", "", {}),
        ("set", "m.room.create", "", {"room_version": "1"}),
        ("made", "m.room.create", "", {}),
        ("made", "m.room.member", "@bob:test", {"membership": "join"}),
        ("made", "m.room.power_levels", "", {"users": {"bob": 50}}),
        ("made", "m.room.power_levels", "", {"users": [], "events": 5}),
        ("set", "m.room.power_levels", "", {"users": {"bob": 50}}),
        ("set", "m.room.power_levels", "", {"users": {"@alice:test": 100, "@bob:test": 101}}),
        ("set", "m.room.power_levels", "", {"users": {"@alice:test": 100}, "events": []}),
        ("set", "org.example", "@bob:test", {}),  # a key that is another user's
        ("sent", "m.room.redaction", "", {"redacts": 5}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_events_that_cannot_be(town: Town, way: str, event_type: str, state_key: str, content: Any) -> None:
    for version in ("1", "11", "12"):
        found = await _try(town, way, version, event_type, content, state_key)
        assert found.split()[0] in ("400", "403", "404"), (version, found)


@pytest.mark.parametrize("name", ["membership_less", "unknown", "not an event"])
@pytest_twisted.ensureDeferred
async def test_what_a_room_begins_with_is_all_or_nothing(town: Town, name: str) -> None:
    """One wrong part of a new room, and there is no room, alias, or event."""
    good = {"type": "m.room.topic", "content": {"topic": "t"}}
    wrong: dict[str, Any] = {
        "membership_less": {"type": "m.room.member", "state_key": "@bob:test", "content": {}},
        "unknown": {"type": "m.room.topic", "content": {"topic": 1.5}},
        "not an event": {"type": 5, "content": {}},
    }
    before = await town.traces()
    wish = {"room_alias_name": "half-made", "initial_state": [good, wrong[name], good], "invite": ["@bob:test"]}
    assert (await _asked(town, "POST", "/createRoom", wish)).startswith("400 ")
    assert await town.traces() == before
    assert await _asked(town, "GET", f"/directory/room/{quote('#half-made:test')}", b"") == "404 M_NOT_FOUND"
