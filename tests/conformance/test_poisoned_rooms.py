"""Events whose content is nonsense: refused, or taken as the room version allows, and then nothing stumbles over them.

Content is anybody's. Whoever reads a room, lists it, joins it or upgrades it meets what its members have put there.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted

from tests.conformance.town import V3, Town

V1 = "/_matrix/client/v1"
NONSENSE: tuple[Any, ...] = (5, None, True, "", "\0", "x" * 2000, [], [None], {}, {"\0": None}, {"a": {"b": [[]]}})

# A property of each of these is nonsense in one of the ways above.
APPEARANCE = {
    "m.room.name": ("name",),
    "m.room.topic": ("topic", "m.topic"),
    "m.room.avatar": ("url", "info"),
    "m.room.canonical_alias": ("alias", "alt_aliases"),
    "m.room.encryption": ("algorithm", "rotation_period_ms"),
    "m.room.member": (
        "displayname",
        "avatar_url",
        "third_party_invite",
        "join_authorised_via_users_server",
        "is_direct",
    ),
    "m.room.tombstone": ("replacement_room", "body"),
    "m.room.pinned_events": ("pinned",),
    "m.room.third_party_invite": ("public_key", "public_keys", "key_validity_url", "display_name"),
    "m.space.child": ("via", "order", "suggested"),
    "m.space.parent": ("via", "canonical"),
    "m.room.policy": ("via", "public_key", "public_keys"),
    "m.policy.rule.user": ("entity", "recommendation"),
    "org.example": ("anything",),
}
ACCESS = {
    "m.room.power_levels": ("users", "events", "users_default", "ban", "invite", "notifications"),
    "m.room.history_visibility": ("history_visibility",),
    "m.room.guest_access": ("guest_access",),
    "m.room.server_acl": ("allow", "deny", "allow_ip_literals"),
    "m.room.join_rules": ("join_rule", "allow"),
}
# What has to be there besides, for the nonsense to be looked at.
BESIDES: dict[str, dict[str, Any]] = {
    "m.room.join_rules": {"join_rule": "restricted"},
    "m.space.child": {"via": ["test"]},
}
KEYS = {"m.room.member": "@alice:test", "m.space.child": "!x:test", "m.space.parent": "!x:test"}
MESSAGES: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("m.room.message", {"msgtype": "m.text", "body": value}) for value in NONSENSE),
    *(("m.room.message", {"msgtype": value, "body": "x"}) for value in NONSENSE),
    *(("m.room.message", {"body": "x", "m.relates_to": value}) for value in NONSENSE),
    *(("m.room.message", {"body": "x", "m.relates_to": {"rel_type": value}}) for value in NONSENSE),
    *(
        ("m.room.message", {"body": "x", "m.relates_to": {"event_id": value, "rel_type": "m.thread"}})
        for value in NONSENSE
    ),
    *(("m.room.message", {"body": "x", "m.relates_to": {"event_id": "$x", "rel_type": value}}) for value in NONSENSE),
    *(("m.room.message", {"body": "x", "m.relates_to": {"m.in_reply_to": value}}) for value in NONSENSE),
    *(("m.room.message", {"body": "x", "m.relates_to": {"m.in_reply_to": {"event_id": value}}}) for value in NONSENSE),
    *(
        ("m.room.message", {"body": "x", "m.new_content": value, "m.relates_to": {"rel_type": "m.replace"}})
        for value in NONSENSE
    ),
    *(("m.room.message", {"body": "x", "m.mentions": value, "url": value}) for value in NONSENSE),
    *(("m.room.message", {"body": "x", "m.mentions": {"user_ids": value, "room": value}}) for value in NONSENSE),
    *(
        ("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$x", "key": value}})
        for value in NONSENSE
    ),
    *(("m.room.redaction", {"redacts": value}) for value in NONSENSE),
    *(("m.room.encrypted", {"algorithm": value, "ciphertext": value}) for value in NONSENSE),
    *(("m.poll.start", {"m.poll": value}) for value in NONSENSE),
)
CREATION: tuple[dict[str, Any], ...] = tuple(
    {name: value} for name in ("type", "predecessor", "m.federate", "additional_creators") for value in NONSENSE
)
LAZY = '{"room":{"timeline":{"lazy_load_members":true}}}'
VERSIONS = ("1", "11", "12")


Way = tuple[str, str, Any]


def _of_the_room(room: str, event: str | None) -> list[Way]:
    """All ways to read a room, and an event in it."""
    place = f"rooms/{quote(room)}"
    ways: list[Way] = [
        *(("GET", f"{V3}/{place}/{what}", None) for what in ("state", "members", "joined_members", "initialSync")),
        ("GET", f"{V3}/{place}/messages?dir=b&limit=50", None),
        *(("GET", f"{V1}/{place}/{what}", None) for what in ("threads", "hierarchy", "timestamp_to_event?ts=1&dir=f")),
        ("GET", f"{V1}/room_summary/{quote(room)}", None),
    ]
    if event is not None:
        at = quote(event)
        ways += [
            ("GET", f"{V3}/{place}/context/{at}?limit=5", None),
            ("GET", f"{V3}/{place}/event/{at}", None),
            ("GET", f"{V1}/{place}/relations/{at}?recurse=true", None),
            ("POST", f"{V3}/{place}/receipt/m.read/{at}", {}),
            ("PUT", f"{V3}/{place}/redact/{at}/{{txn}}", {}),
        ]
    return ways


def _of_all_rooms(since: str) -> list[Way]:
    """All ways to read many rooms."""
    return [
        ("GET", f"{V3}/sync?filter={quote(LAZY)}", None),
        ("GET", f"{V3}/sync?full_state=true&use_state_after=true&since={since}", None),
        ("GET", f"{V3}/initialSync?limit=5", None),
        ("GET", f"{V3}/events?from={since}&timeout=0", None),
        ("GET", f"{V3}/publicRooms?limit=500", None),
        ("POST", f"{V3}/publicRooms", {"filter": {"generic_search_term": "x", "room_types": [None, "x"]}}),
        ("POST", f"{V3}/search", {"search_categories": {"room_events": {"search_term": "x", "include_state": True}}}),
        ("POST", f"{V3}/user_directory/search", {"search_term": "a"}),
    ]


def _comings(room: str) -> list[tuple[str, *Way]]:
    """What people do with a room."""
    place = f"rooms/{quote(room)}"
    return [
        ("carol", "POST", f"{V3}/{place}/join", {}),
        ("carol", "POST", f"{V3}/{place}/leave", {}),
        ("carol", "POST", f"{V3}/knock/{quote(room)}", {}),
        ("alice", "POST", f"{V3}/{place}/invite", {"user_id": "@carol:test"}),
        ("alice", "PUT", f"{V3}/{place}/send/m.room.message/{{txn}}", {"msgtype": "m.text", "body": "@room"}),
        ("alice", "POST", f"{V3}/{place}/ban", {"user_id": "@carol:test"}),
        ("alice", "POST", f"{V3}/{place}/upgrade", {"new_version": "12"}),
    ]


async def _look_around(town: Town, room: str, event: str | None) -> list[str]:
    """Does everything with a room, as a member and as a stranger; answers what failed."""
    ways = _of_the_room(room, event)
    people = [(user, *way) for way in ways for user in ("alice", "carol")]
    return [problem for asked in (*people, *_comings(room)) if (problem := await _problem(town, *asked))]


async def _look_everywhere(town: Town) -> list[str]:
    """Reads all rooms together; answers what failed."""
    ways = _of_all_rooms(await town.supply("since"))
    people = [(user, *way) for way in ways for user in ("alice", "carol")]
    return [problem for asked in people if (problem := await _problem(town, *asked))]


async def _problem(town: Town, user: str, method: str, target: str, body: Any) -> str | None:
    town.forget(("txn",))
    sent = b"" if body is None else orjson.dumps(body)
    try:
        answer = await town.handle(method, await town.filled(target), sent, user)
    except AssertionError as e:
        return str(e)
    return None if answer.code < 500 else f"{user} {method} {target}: {answer.body!r}"


async def _poison(town: Town, room: str, method: str, path: str, body: Any) -> str | None:
    """Sends something; the event's id if it was taken. What is refused leaves nothing behind."""
    town.forget(("txn",))
    before = await town.traces()
    target = f"{V3}/rooms/{quote(room)}/{path}"
    answer = await town.handle(method, await town.filled(target), orjson.dumps(body), "alice")
    assert answer.code < 500, (path, body, answer)
    if answer.code != 200:
        assert await town.traces() == before
        return None
    return str(orjson.loads(answer.body)["event_id"])


async def _room(town: Town, version: str, **wish: Any) -> str:
    """A public room in the directory with alice and bob."""
    made = await town.post("alice", "/createRoom", {"preset": "public_chat", "room_version": version, **wish})
    await town.post("bob", f"/rooms/{quote(made['room_id'])}/join")
    await town.put("alice", f"/directory/list/room/{quote(made['room_id'])}", {"visibility": "public"})
    return str(made["room_id"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kinds", [APPEARANCE, ACCESS], ids=["appearance", "access"])
@pytest_twisted.ensureDeferred
async def test_state(
    town: Town, kinds: dict[str, tuple[str, ...]], version: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    problems = []
    for value in NONSENSE:
        room, last = await _room(town, version), None
        for event_type, names in kinds.items():
            key = KEYS.get(event_type, "")
            for wrong in (*({name: value} for name in names), dict.fromkeys(names, value)):
                content = {**BESIDES.get(event_type, {}), **wrong}
                last = await _poison(town, room, "PUT", f"state/{event_type}/{key}", content) or last
        problems += [f"{value!r:.40}: {problem}" for problem in await _look_around(town, room, last)]
    problems += await _look_everywhere(town)
    assert not problems, "\n".join(problems)
    assert not caplog.records


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_messages(town: Town, version: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    room = await _room(town, version)
    event = None
    for event_type, content in MESSAGES:
        event = await _poison(town, room, "PUT", f"send/{event_type}/{{txn}}", content) or event
    assert event is not None
    assert not await _look_around(town, room, event)
    assert not await _look_everywhere(town)
    assert not caplog.records


@pytest.mark.parametrize("version", VERSIONS)
@pytest_twisted.ensureDeferred
async def test_creation(town: Town, version: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    for content in CREATION:
        before = await town.traces()
        wish = {"room_version": version, "preset": "public_chat", "visibility": "public", "creation_content": content}
        answer = await town.handle("POST", f"{V3}/createRoom", orjson.dumps(wish), "alice")
        assert answer.code < 500, (content, answer)
        if answer.code == 200:
            assert not await _look_around(town, orjson.loads(answer.body)["room_id"], None), content
        else:
            assert await town.traces() == before
    assert not await _look_everywhere(town)
    assert not caplog.records
