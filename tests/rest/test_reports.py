"""Reporting events, rooms and users, and what administrators read of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted

from synapse.storage.pool import PoolSettings
from tests.rest.crowd import ALICE, BOB, CAROL, UNLIMITED, People, people

ADMIN = "/_synapse/admin/v1"


@pytest_twisted.async_yield_fixture
async def p(database_settings: PoolSettings) -> AsyncIterator[People]:
    async with people(database_settings, rc_reports=UNLIMITED) as made:
        sql = "UPDATE users SET admin = true WHERE user_id = %s"
        await made.hs.database.write("make an administrator", lambda txn: txn.execute(sql, [CAROL]))
        yield made


async def report(p: People, path: str, body: Any, user: str = BOB) -> None:
    assert await p.ok("POST", f"v3/{path}", body, user) == {}


async def listed(p: People, kind: str = "event", **query: Any) -> list[Any]:
    answer = await p.ok("GET", f"{ADMIN}/{kind}_reports", None, CAROL, **query)
    assert "next_token" not in answer
    assert answer["total"] == len(answer[f"{kind}_reports"]) + int(query.get("from", 0))
    reports: list[Any] = answer[f"{kind}_reports"]
    return reports


@pytest_twisted.ensureDeferred
async def test_a_reported_event_is_shown_to_administrators(p: People) -> None:
    room = await p.room(name="Den", room_alias_name="den", joined=(BOB,))
    bad = await p.say(room, "something bad")
    await report(p, f"rooms/{room}/report/{bad}", {"reason": "it is bad", "score": -100})
    await report(p, f"rooms/{room}/report/{bad}", {}, ALICE)
    second, first = await listed(p)
    assert (second["reason"], second["score"], second["user_id"]) == (None, None, ALICE)
    assert isinstance(first.pop("received_ts"), int)
    expected = {
        "id": first["id"],
        "event_id": bad,
        "room_id": room,
        "name": "Den",
        "canonical_alias": "#den:test",
        "sender": ALICE,
        "user_id": BOB,
        "reason": "it is bad",
        "score": -100,
    }
    assert first == expected
    path = f"{ADMIN}/event_reports/{first['id']}"
    one = await p.ok("GET", path, None, CAROL)
    assert one["event_json"]["content"]["body"] == "something bad"
    assert {name: one[name] for name in expected} == expected
    await p.redact(room, bad)
    assert (await p.ok("GET", path, None, CAROL))["event_json"]["content"] == {}
    assert await p.ok("DELETE", path, None, CAROL) == {}
    for method in ("GET", "DELETE"):
        assert await p.error(method, path, None, CAROL) == "404 M_NOT_FOUND"
    assert [each["id"] for each in await listed(p)] == [second["id"]]


@pytest_twisted.ensureDeferred
async def test_only_who_is_in_the_room_can_report_an_event_and_nobody_else_learns_of_it(p: People) -> None:
    room = await p.room()
    other = await p.room(joined=(BOB,))
    hidden = await p.say(room, "before bob")
    answers = []
    for path in (f"{room}/report/{hidden}", f"{room}/report/$nothing", f"!none:test/report/{hidden}"):
        answers.append(await p.call("POST", f"v3/rooms/{path}", {"reason": ""}, BOB))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == 404
    assert answers[0][1]["errcode"] == "M_NOT_FOUND"
    assert await p.error("POST", f"v3/rooms/{other}/report/{hidden}", {}, BOB) == "404 M_NOT_FOUND"
    await p.set(room, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden = await p.say(room, "before bob")
    await p.ok("POST", f"v3/rooms/{room}/join", {}, BOB)
    assert await p.error("POST", f"v3/rooms/{room}/report/{hidden}", {}, BOB) == "404 M_NOT_FOUND"
    assert await listed(p) == []


@pytest_twisted.ensureDeferred
async def test_rooms_and_users_are_reported_by_whom_they_do_not_concern(p: People) -> None:
    room = await p.room(preset="private_chat", name="Odd")
    await report(p, f"rooms/{room}/report", {"reason": ""})
    (told,) = await listed(p, "room")
    assert (told["room_id"], told["name"], told["user_id"], told["reason"]) == (room, "Odd", BOB, "")
    assert await p.error("POST", "v3/rooms/!none:test/report", {"reason": ""}) == "404 M_NOT_FOUND"
    await report(p, f"users/{ALICE}/report", {"reason": "rude"})
    (told,) = await listed(p, "user")
    assert (told["target_user_id"], told["user_id"], told["reason"]) == (ALICE, BOB, "rude")
    for stranger in ("@nobody:test", "@alice:elsewhere.example"):
        assert await p.error("POST", f"v3/users/{stranger}/report", {"reason": ""}) == "404 M_NOT_FOUND"
    await p.ok("POST", f"v3/rooms/{room}/ban", {"user_id": "@alice:elsewhere.example"})
    await report(p, "users/@alice:elsewhere.example/report", {"reason": ""})
    for kind in ("room", "user"):
        number = (await listed(p, kind))[0]["id"]
        one = await p.ok("GET", f"{ADMIN}/{kind}_reports/{number}", None, CAROL)
        assert one == (await listed(p, kind))[0]
        await p.ok("DELETE", f"{ADMIN}/{kind}_reports/{number}", None, CAROL)
        assert await p.error("GET", f"{ADMIN}/{kind}_reports/{number}", None, CAROL) == "404 M_NOT_FOUND"


@pytest_twisted.ensureDeferred
async def test_reports_are_filtered_and_come_in_pages(p: People) -> None:
    rooms = [await p.room(joined=(BOB,)) for _ in range(2)]
    for room in rooms:
        for user in (ALICE, BOB):
            sent = await p.say(room, "x", user)
            await report(p, f"rooms/{room}/report/{sent}", {"reason": user}, ALICE if user == BOB else BOB)
    everything = [each["id"] for each in await listed(p)]
    assert len(everything) == 4
    assert [each["id"] for each in await listed(p, dir="f")] == everything[::-1]
    assert {each["room_id"] for each in await listed(p, room_id=rooms[0])} == {rooms[0]}
    assert {each["user_id"] for each in await listed(p, user_id="bob")} == {BOB}
    assert {each["sender"] for each in await listed(p, event_sender_user_id=BOB)} == {BOB}
    assert await listed(p, user_id="%") == []
    page = await p.ok("GET", f"{ADMIN}/event_reports", None, CAROL, limit=3)
    assert ([each["id"] for each in page["event_reports"]], page["total"]) == (everything[:3], 4)
    assert [each["id"] for each in await listed(p, **{"from": page["next_token"]})] == everything[3:]
    page = await p.ok("GET", f"{ADMIN}/event_reports", None, CAROL, **{"from": 9})
    assert page == {"event_reports": [], "total": 4}


@pytest_twisted.ensureDeferred
async def test_bad_reports_are_refused(p: People) -> None:
    room = await p.room()
    sent = await p.say(room, "x")
    for body in ({"reason": 5}, {"score": "0"}, {"score": 1}, {"score": -101}, {"reason": "x\0"}, [], b"{"):
        assert (await p.error("POST", f"v3/rooms/{room}/report/{sent}", body)).startswith("400 M_"), body
    for body in ({}, {"reason": None}, {"reason": "x" * 10_001}, None):
        assert (await p.error("POST", f"v3/rooms/{room}/report", body)).startswith("400 M_"), body
        assert (await p.error("POST", f"v3/users/{BOB}/report", body)).startswith("400 M_"), body
    assert await p.error("POST", f"v3/rooms/{room}/report/nonsense", {}) == "400 M_INVALID_PARAM"
    assert await p.error("POST", "v3/users/nonsense/report", {"reason": ""}) == "400 M_INVALID_PARAM"
    assert await p.error("POST", f"v3/rooms/{room}/report", {"reason": ""}, None) == "401 M_MISSING_TOKEN"
    assert await listed(p) == []


@pytest_twisted.ensureDeferred
async def test_administrators_alone_read_reports(p: People) -> None:
    for path in ("event_reports", "room_reports", "user_reports", "event_reports/1"):
        assert await p.error("GET", f"{ADMIN}/{path}", None, ALICE) == "403 M_FORBIDDEN"
        assert await p.error("GET", f"{ADMIN}/{path}", None, None) == "401 M_MISSING_TOKEN"
    for query in ({"from": -1}, {"limit": -1}, {"dir": "x"}, {"from": "x"}):
        assert await p.error("GET", f"{ADMIN}/event_reports", None, CAROL, **query) == "400 M_INVALID_PARAM"
    for number in ("x", "-1", "1e3", "9" * 30):
        assert await p.error("GET", f"{ADMIN}/event_reports/{number}", None, CAROL) == "400 M_INVALID_PARAM"


@pytest_twisted.ensureDeferred
async def test_nobody_reports_without_end(database_settings: PoolSettings) -> None:
    async with people(database_settings, "alice", rc_reports={"per_second": 0.01, "burst_count": 2}) as p:
        room = await p.room()
        for _ in range(2):
            await p.ok("POST", f"v3/rooms/{room}/report", {"reason": ""})
        assert await p.error("POST", f"v3/rooms/{room}/report", {"reason": ""}) == "429 M_LIMIT_EXCEEDED"
