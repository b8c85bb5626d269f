"""Who may read a room through which endpoint: members, those who have left, were invited, or look in from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest_twisted

from synapse.storage.pool import PoolSettings
from tests.rest.people import Person, guest, person
from tests.support.homeserver import homeserver

V1 = "/_matrix/client/v1"
MEMBER, LEFT, BANNED, INVITED, STRANGER, GUEST = "alice", "leaver", "banned", "invited", "stranger", "guest"
EVERYBODY = (MEMBER, LEFT, BANNED, INVITED, STRANGER, GUEST)

People = dict[str, Person]


@pytest_twisted.async_yield_fixture
async def people(database_settings: PoolSettings) -> AsyncIterator[People]:
    many = {"per_second": 1000, "burst_count": 1000}
    options = {"rc_registration": many, "rc_joins": {"local": many}, "rc_message": many}
    async with homeserver(database_settings, allow_guest_access=True, **options) as server:
        yield {name: await person(server, name) for name in EVERYBODY if name != GUEST} | {GUEST: await guest(server)}


async def make_room(people: People, visibility: str) -> tuple[str, str, str]:
    """A room with that history visibility; a message before the others left, and one after it, in its thread."""
    alice = people[MEMBER]
    state = [{"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}]
    room = await alice.room(initial_state=state)
    for user in (LEFT, BANNED):
        await people[user].join(room)
    early = await alice.say(room, "early")
    await people[LEFT].post(f"/rooms/{room}/leave")
    await alice.post(f"/rooms/{room}/ban", {"user_id": people[BANNED].id})
    await alice.post(f"/rooms/{room}/invite", {"user_id": people[INVITED].id})
    content = {"msgtype": "m.text", "body": "late", "m.relates_to": {"rel_type": "m.thread", "event_id": early}}
    late = await alice.put(f"/rooms/{room}/send/m.room.message/late", content)
    return room, early, late["event_id"]


OUTSIDE = frozenset({INVITED, STRANGER, GUEST})
PATHS = {
    "/rooms/ROOM/state": 403,
    "/rooms/ROOM/state/m.room.join_rules": 403,
    "/rooms/ROOM/state/m.room.join_rules/?format=event": 403,
    "/rooms/ROOM/members": 403,
    "/rooms/ROOM/messages?dir=b": 403,
    "/rooms/ROOM/messages?dir=f": 403,
    "/rooms/ROOM/context/EARLY": 403,
    "/rooms/ROOM/event/EARLY": 404,
    "/rooms/ROOM/initialSync": 403,
    f"{V1}/rooms/ROOM/relations/EARLY": 404,
    f"{V1}/rooms/ROOM/threads": 403,
    f"{V1}/rooms/ROOM/timestamp_to_event?ts=1&dir=f": 403,
    "/rooms/ROOM/aliases": 403,
}
"""What is refused to those outside, and with which code."""
STATE = ("/rooms/ROOM/state", "/rooms/ROOM/members", "/rooms/ROOM/initialSync")
"""What those who are banned get no more, though who left does."""
NOT_FOR_GUESTS = ("relations", "threads", "timestamp_to_event", "aliases")


@pytest_twisted.ensureDeferred
async def test_who_may_read_a_room(people: People) -> None:
    for visibility in ("shared", "world_readable"):
        room, early, late = await make_room(people, visibility)
        for template, refusal in PATHS.items():
            path = template.replace("ROOM", room).replace("EARLY", quote(early))
            for user in EVERYBODY:
                code, answer = await people[user].ask("GET", path)
                expected = refusal if user in OUTSIDE and visibility == "shared" else 200
                if user == BANNED and template.startswith(STATE) and visibility == "shared":
                    expected = 403
                if user == GUEST and any(word in path for word in NOT_FOR_GUESTS):
                    expected = 403
                if "aliases" in path and user in (LEFT, BANNED) and visibility == "shared":
                    expected = 403
                assert code == expected, (visibility, user, path, answer)
                if "threads" in path and code == 200:
                    assert bool(answer["chunk"]) is (user not in (LEFT, BANNED)), (user, path)
                if user in (LEFT, BANNED):
                    assert late not in str(answer), (user, path)
        for user in EVERYBODY:
            code, _ = await people[user].ask("GET", f"/rooms/{room}/joined_members")
            assert code == (200 if user == MEMBER else 403), user
            code, _ = await people[user].ask("GET", f"/rooms/{room}/event/{quote(late)}")
            assert code == (200 if user == MEMBER or (user in OUTSIDE and visibility != "shared") else 404), user


@pytest_twisted.ensureDeferred
async def test_who_comes_back_sees_what_was_open_meanwhile(people: People) -> None:
    for visibility, sees in (("shared", True), ("joined", False), ("invited", False)):
        room, early, late = await make_room(people, visibility)
        reader = people[LEFT]
        await reader.join(room)
        told = [event["event_id"] for event in (await reader.get(f"/rooms/{room}/messages?dir=b&limit=50"))["chunk"]]
        assert early in told
        assert (late in told) is sees, visibility
        relations = await reader.get(f"{V1}/rooms/{room}/relations/{quote(early)}")
        assert [event["event_id"] for event in relations["chunk"]] == ([late] if sees else [])
        threads = await reader.get(f"{V1}/rooms/{room}/threads")
        assert [event["event_id"] for event in threads["chunk"]] == ([early] if sees else [])
        event = await reader.get(f"/rooms/{room}/event/{quote(early)}")
        assert ("m.relations" in event["unsigned"]) is sees
