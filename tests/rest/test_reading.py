"""Reading and following rooms through the endpoints: in one process, and on the workers that serve them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from synapse.storage.pool import PoolSettings
from tests.support.homeserver import Client, cluster, homeserver

V3 = "/_matrix/client/v3"
ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


@dataclass
class Clients:
    """`sync` and `read` may be workers; `main` is the main process."""

    main: Client
    sync: Client
    read: Client
    tokens: dict[str, str]
    caught_up: Any

    async def post(self, user: str, path: str, body: Any = None) -> Any:
        code, answer = await self.main.post(f"{V3}{path}", {} if body is None else body, self.tokens[user])
        assert code == 200, answer
        return answer

    async def put(self, user: str, path: str, body: Any) -> Any:
        code, answer = await self.main.put(f"{V3}{path}", body, self.tokens[user])
        assert code == 200, answer
        return answer

    async def get(self, user: str, path: str) -> Any:
        await self.caught_up()
        client = self.sync if path.startswith(("/sync", "/events")) or "nitialSync" in path else self.read
        code, answer = await client.get(f"{V3}{path}", self.tokens[user])
        assert code == 200, answer
        return answer

    async def refused(self, user: str, path: str, client: Client | None = None) -> tuple[int, str]:
        await self.caught_up()
        code, answer = await (client or self.main).get(f"{V3}{path}", self.tokens[user])
        return code, answer["errcode"]

    async def room(self, user: str = ALICE, **options: Any) -> str:
        return str((await self.post(user, "/createRoom", {"preset": "public_chat", **options}))["room_id"])

    async def say(self, user: str, room: str, body: str, txn: str = "") -> str:
        path = f"/rooms/{room}/send/m.room.message/{txn or body}"
        return str((await self.put(user, path, {"msgtype": "m.text", "body": body}))["event_id"])


async def register(client: Client) -> dict[str, str]:
    return {f"@{name}:test": await client.register(name) for name in ("alice", "bob", "carol")}


async def nothing() -> None:
    pass


@pytest_twisted.async_yield_fixture(params=["one process", "workers"])
async def c(database_settings: PoolSettings, request: pytest.FixtureRequest) -> AsyncIterator[Clients]:
    if request.param == "one process":
        async with homeserver(database_settings) as hs:
            yield Clients(hs.client, hs.client, hs.client, await register(hs.client), nothing)
    else:
        async with cluster(database_settings, "synchrotron", "client_reader") as hs:
            main = hs.main.client
            tokens = await register(main)
            yield Clients(main, hs["synchrotron"].client, hs["client_reader"].client, tokens, hs.caught_up)


def bodies(events: list[dict[str, Any]]) -> list[str]:
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


@pytest_twisted.ensureDeferred
async def test_a_conversation(c: Clients) -> None:
    room = await c.room(name="Tea")
    await c.post(ALICE, f"/rooms/{room}/invite", {"user_id": BOB})
    invited = (await c.get(BOB, "/sync"))["rooms"]["invite"][room]["invite_state"]["events"]
    assert {"m.room.create", "m.room.name", "m.room.member"} <= {event["type"] for event in invited}
    await c.post(BOB, f"/rooms/{room}/join")
    alice = await c.get(ALICE, "/sync")
    bob = await c.get(BOB, "/sync")
    assert bob["rooms"]["join"][room]["summary"]["m.joined_member_count"] == 2
    waiting = Deferred.fromCoroutine(c.get(BOB, f"/sync?since={bob['next_batch']}&timeout=20000"))
    sent = await c.say(ALICE, room, "hello")
    told = (await waiting)["rooms"]["join"][room]
    assert [event["event_id"] for event in told["timeline"]["events"]] == [sent]
    assert told["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    mine = (await c.get(ALICE, f"/sync?since={alice['next_batch']}"))["rooms"]["join"][room]["timeline"]["events"]
    assert mine[-1]["unsigned"]["transaction_id"] == "hello"
    assert mine[-1]["unsigned"]["membership"] == "join"


@pytest_twisted.ensureDeferred
async def test_typing_and_receipts_show(c: Clients) -> None:
    room = await c.room()
    await c.post(BOB, f"/rooms/{room}/join")
    sent = await c.say(ALICE, room, "one")
    since = (await c.get(ALICE, "/sync"))["next_batch"]
    await c.put(BOB, f"/rooms/{room}/typing/{BOB}", {"typing": True, "timeout": 100_000})
    answer = await c.get(ALICE, f"/sync?since={since}&timeout=5000")
    typing = {"type": "m.typing", "content": {"user_ids": [BOB]}}
    assert answer["rooms"]["join"][room]["ephemeral"]["events"] == [typing]
    unread = (await c.get(BOB, "/sync"))["rooms"]["join"][room]["unread_notifications"]
    assert unread["notification_count"] == 1
    await c.post(BOB, f"/rooms/{room}/receipt/m.read/{quote(sent)}")
    answer = await c.get(ALICE, f"/sync?since={answer['next_batch']}&timeout=5000")
    receipt = answer["rooms"]["join"][room]["ephemeral"]["events"][0]
    assert receipt["content"][sent]["m.read"][BOB].keys() == {"ts"}
    unread = (await c.get(BOB, "/sync"))["rooms"]["join"][room]["unread_notifications"]
    assert unread["notification_count"] == 0
    await c.post(BOB, f"/rooms/{room}/read_markers", {"m.fully_read": sent, "m.read.private": sent})
    bob = (await c.get(BOB, "/sync"))["rooms"]["join"][room]
    assert {"type": "m.fully_read", "content": {"event_id": sent}} in bob["account_data"]["events"]
    # A message leaves the typing as it is; who has left types no longer.
    await c.say(BOB, room, "two")
    await c.post(BOB, f"/rooms/{room}/leave")
    answer = await c.get(ALICE, f"/sync?since={answer['next_batch']}&timeout=5000")
    told = answer["rooms"]["join"][room]
    while not told["ephemeral"]["events"]:
        answer = await c.get(ALICE, f"/sync?since={answer['next_batch']}&timeout=5000")
        told = answer["rooms"]["join"][room]
    assert {"type": "m.typing", "content": {"user_ids": []}} in told["ephemeral"]["events"]


@pytest_twisted.ensureDeferred
async def test_own_messages_count_as_read_up_to_there(c: Clients) -> None:
    room = await c.room()
    await c.post(BOB, f"/rooms/{room}/join")
    await c.say(ALICE, room, "one")
    await c.say(BOB, room, "two")
    await c.say(ALICE, room, "three")
    unread = (await c.get(BOB, "/sync"))["rooms"]["join"][room]["unread_notifications"]
    assert unread["notification_count"] == 1


@pytest_twisted.ensureDeferred
async def test_presence_shows(c: Clients) -> None:
    room = await c.room()
    await c.post(BOB, f"/rooms/{room}/join")
    since = (await c.get(ALICE, "/sync"))["next_batch"]
    await c.put(BOB, f"/presence/{BOB}/status", {"presence": "unavailable", "status_msg": "out"})
    for _ in range(5):
        answer = await c.get(ALICE, f"/sync?since={since}&timeout=5000")
        since = answer["next_batch"]
        seen = [e for e in answer.get("presence", {"events": []})["events"] if e["sender"] == BOB]
        if seen:
            break
    assert (seen[-1]["content"]["presence"], seen[-1]["content"]["status_msg"]) == ("unavailable", "out")
    code, status = await c.main.get(f"{V3}/presence/{BOB}/status", c.tokens[ALICE])
    assert (code, status["presence"]) == (200, "unavailable")
    assert (await c.refused(CAROL, f"/presence/{BOB}/status"))[0] == 403


@pytest_twisted.ensureDeferred
async def test_state_members_and_events(c: Clients) -> None:
    room = await c.room(name="Tea")
    await c.post(BOB, f"/rooms/{room}/join")
    sent = await c.say(ALICE, room, "seen")
    await c.post(BOB, f"/rooms/{room}/leave")
    await c.put(ALICE, f"/rooms/{room}/state/m.room.name", {"name": "Coffee"})
    hidden = await c.say(ALICE, room, "unseen")

    async def name(user: str) -> str:
        state = {(e["type"], e["state_key"]): e for e in await c.get(user, f"/rooms/{room}/state")}
        assert all(e["room_id"] == room for e in state.values())
        return str(state["m.room.name", ""]["content"]["name"])

    assert (await name(ALICE), await name(BOB)) == ("Coffee", "Tea")
    code, content = await c.main.get(f"{V3}/rooms/{room}/state/m.room.name", c.tokens[BOB])
    assert (code, content) == (200, {"name": "Tea"})
    code, event = await c.main.get(f"{V3}/rooms/{room}/state/m.room.name/?format=event", c.tokens[ALICE])
    assert (code, event["content"], event["room_id"]) == (200, {"name": "Coffee"}, room)
    assert await c.refused(ALICE, f"/rooms/{room}/state/m.room.topic") == (404, "M_NOT_FOUND")
    assert await c.refused(ALICE, f"/rooms/{room}/state/m.room.name?format=x") == (400, "M_INVALID_PARAM")
    members = (await c.get(ALICE, f"/rooms/{room}/members"))["chunk"]
    assert {e["state_key"]: e["content"]["membership"] for e in members} == {ALICE: "join", BOB: "leave"}
    for query, expected in (
        ("membership=join", {ALICE}),
        ("not_membership=leave", {ALICE}),
        ("membership=leave&not_membership=leave", {ALICE, BOB}),
    ):
        chunk = (await c.get(ALICE, f"/rooms/{room}/members?{query}"))["chunk"]
        assert {e["state_key"] for e in chunk} == expected, query
    assert (await c.refused(ALICE, f"/rooms/{room}/members?membership=x"))[1] == "M_INVALID_PARAM"
    assert (await c.get(ALICE, f"/rooms/{room}/joined_members"))["joined"] == {ALICE: {"display_name": "alice"}}
    assert await c.refused(BOB, f"/rooms/{room}/joined_members") == (403, "M_FORBIDDEN")
    code, event = await c.main.get(f"{V3}/rooms/{room}/event/{quote(sent)}", c.tokens[BOB])
    assert (code, event["content"]["body"], event["room_id"]) == (200, "seen", room)
    for user, event_id in ((BOB, hidden), (CAROL, sent), (ALICE, "$nothing")):
        assert await c.refused(user, f"/rooms/{room}/event/{quote(event_id)}") == (404, "M_NOT_FOUND")


@pytest_twisted.ensureDeferred
async def test_members_at_a_point_of_sync(c: Clients) -> None:
    room = await c.room()
    then = (await c.get(ALICE, "/sync"))["next_batch"]
    await c.post(BOB, f"/rooms/{room}/join")
    chunk = (await c.get(ALICE, f"/rooms/{room}/members?at={then}"))["chunk"]
    assert [e["state_key"] for e in chunk] == [ALICE]


@pytest_twisted.ensureDeferred
async def test_messages_and_context(c: Clients) -> None:
    room = await c.room()
    sent = [await c.say(ALICE, room, f"m{number}") for number in range(9)]
    page = await c.get(ALICE, f"/rooms/{room}/messages?dir=b&limit=4")
    assert bodies(page["chunk"]) == ["m8", "m7", "m6", "m5"]
    page = await c.get(ALICE, f"/rooms/{room}/messages?dir=b&limit=4&from={page['end']}")
    assert bodies(page["chunk"]) == ["m4", "m3", "m2", "m1"]
    around = await c.get(ALICE, f"/rooms/{room}/context/{quote(sent[4])}?limit=4")
    assert around["event"]["event_id"] == sent[4]
    assert bodies(around["events_before"]) == ["m3", "m2"]
    assert bodies(around["events_after"]) == ["m5", "m6"]
    assert {"m.room.create", "m.room.member"} <= {e["type"] for e in around["state"]}
    back = await c.get(ALICE, f"/rooms/{room}/messages?dir=b&limit=1&from={around['start']}")
    assert bodies(back["chunk"]) == ["m1"]
    on = await c.get(ALICE, f"/rooms/{room}/messages?dir=f&limit=1&from={around['end']}")
    assert bodies(on["chunk"]) == ["m7"]
    alone = await c.get(ALICE, f"/rooms/{room}/context/{quote(sent[4])}?limit=0")
    assert alone["events_before"] == alone["events_after"] == []
    lazy = quote(orjson.dumps({"lazy_load_members": True, "types": ["m.room.mess*", "m.room.member"]}))
    around = await c.get(ALICE, f"/rooms/{room}/context/{quote(sent[8])}?filter={lazy}")
    assert [e["type"] for e in around["state"]] == ["m.room.member"]
    code, _ = await c.read.get(f"{V3}/rooms/{room}/context/{quote(sent[4])}", c.tokens[CAROL])
    assert code == 403


@pytest_twisted.ensureDeferred
async def test_redacted_messages_are_read_as_redacted(c: Clients) -> None:
    room = await c.room()
    since = (await c.get(ALICE, "/sync"))["next_batch"]
    sent = await c.say(ALICE, room, "secret")
    await c.put(ALICE, f"/rooms/{room}/redact/{quote(sent)}/r1", {"reason": "slip"})
    for events in (
        (await c.get(ALICE, f"/rooms/{room}/messages?dir=b"))["chunk"][::-1],
        (await c.get(ALICE, f"/sync?since={since}"))["rooms"]["join"][room]["timeline"]["events"],
    ):
        event = next(e for e in events if e["event_id"] == sent)
        assert event["content"] == {}
        assert event["unsigned"]["redacted_because"]["content"]["reason"] == "slip"


@pytest_twisted.ensureDeferred
async def test_how_clients_followed_before_sync(c: Clients) -> None:
    room = await c.room(name="Old")
    await c.post(BOB, f"/rooms/{room}/join")
    other = await c.room(BOB)
    await c.post(BOB, f"/rooms/{other}/invite", {"user_id": ALICE})
    code, first = await c.sync.get("/_matrix/client/r0/initialSync?limit=3", c.tokens[ALICE])
    assert code == 200
    by_room = {each["room_id"]: each for each in first["rooms"]}
    assert by_room[room]["membership"] == "join"
    assert len(by_room[room]["messages"]["chunk"]) == 3
    assert by_room[room]["messages"]["chunk"][0]["room_id"] == room
    assert "m.room.create" in {e["type"] for e in by_room[room]["state"]}
    assert by_room[other]["invite"]["content"]["membership"] == "invite"
    waiting = Deferred.fromCoroutine(c.get(ALICE, f"/events?from={first['end']}&timeout=20000"))
    sent = await c.say(BOB, room, "news")
    answer = await waiting
    while "m.room.message" not in {e["type"] for e in answer["chunk"]}:
        answer = await c.get(ALICE, f"/events?from={answer['end']}&timeout=20000")
    event = next(e for e in answer["chunk"] if e["type"] == "m.room.message")
    assert (event["event_id"], event["room_id"]) == (sent, room)
    code, one = await c.sync.get(f"/_matrix/client/api/v1/rooms/{room}/initialSync?limit=2", c.tokens[ALICE])
    assert code == 200
    assert (one["room_id"], one["membership"], one["visibility"]) == (room, "join", "private")
    assert bodies(one["messages"]["chunk"]) == ["news"]
    code, none = await c.sync.get(f"/_matrix/client/r0/rooms/{room}/initialSync?limit=0", c.tokens[ALICE])
    assert (code, none["messages"]["chunk"]) == (200, [])
    code, all_rooms = await c.sync.get("/_matrix/client/r0/initialSync?limit=0", c.tokens[ALICE])
    chunks = [each["messages"]["chunk"] for each in all_rooms["rooms"] if each["membership"] == "join"]
    assert (code, chunks) == (200, [[]])
    assert all(each["state"] for each in all_rooms["rooms"] if each["membership"] == "join")
    quiet = await c.get(ALICE, f"/events?from={answer['end']}&timeout=0")
    assert quiet["chunk"] == [] or all(e["type"] == "m.presence" for e in quiet["chunk"])


@pytest_twisted.ensureDeferred
async def test_filters_by_id_and_inline(c: Clients) -> None:
    room = await c.room()
    definition = {"room": {"timeline": {"limit": 1}}}
    made = await c.post(ALICE, f"/user/{ALICE}/filter", definition)
    for text in (made["filter_id"], quote(orjson.dumps(definition))):
        answer = await c.get(ALICE, f"/sync?filter={text}")
        assert len(answer["rooms"]["join"][room]["timeline"]["events"]) == 1


@pytest.mark.parametrize(
    ("path", "code", "errcode"),
    [
        ("/sync?since=x", 400, "M_INVALID_PARAM"),
        ("/sync?since=s1_2_3_4_5_6_7_8_9", 400, "M_INVALID_PARAM"),
        ("/sync?timeout=x", 400, "M_INVALID_PARAM"),
        ("/sync?timeout=-1", 400, "M_INVALID_PARAM"),
        ("/sync?full_state=1", 400, "M_INVALID_PARAM"),
        ("/sync?set_presence=busy", 400, "M_INVALID_PARAM"),
        ("/sync?use_state_after=yes", 400, "M_INVALID_PARAM"),
        ("/sync?filter=%7B", 400, "M_NOT_JSON"),
        ("/sync?filter=%7B%22room%22%3A1%7D", 400, "M_INVALID_PARAM"),
        ("/sync?filter=%7B%22room%22%3A%7B%22rooms%22%3A%5B%22%5Cu0000%22%5D%7D%7D", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/messages?dir=b&filter=%7B%22types%22%3A%5B%22%5Cu0000%22%5D%7D", 400, "M_INVALID_PARAM"),
        ("/sync?filter=77", 400, "M_INVALID_PARAM"),
        ("/sync?filter=nonsense", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/messages", 400, "M_MISSING_PARAM"),
        ("/rooms/!x:test/messages?dir=x", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/messages?dir=b&from=x", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/messages?dir=b&to=t1", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/messages?dir=b&limit=0", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/messages?dir=b&limit=many", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/messages?dir=b&filter=%5B", 400, "M_NOT_JSON"),
        ("/rooms/!x:test/messages?dir=b&filter=%5B%5D", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/messages?dir=b", 403, "M_FORBIDDEN"),
        ("/rooms/nonsense/messages?dir=b", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/state", 403, "M_FORBIDDEN"),
        ("/rooms/!x:test/state/m.room.name", 403, "M_FORBIDDEN"),
        ("/rooms/!x:test/members", 403, "M_FORBIDDEN"),
        ("/rooms/!x:test/members?at=x", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/joined_members", 403, "M_FORBIDDEN"),
        ("/rooms/!x:test/event/$x", 404, "M_NOT_FOUND"),
        ("/rooms/!x:test/context/$x", 403, "M_FORBIDDEN"),
        ("/rooms/!x:test/context/$x?limit=x", 400, "M_INVALID_PARAM"),
        ("/events?from=x", 400, "M_INVALID_PARAM"),
        ("/events?room_id=x", 400, "M_INVALID_PARAM"),
        ("/events?room_id=!x:test&timeout=0", 403, "M_FORBIDDEN"),
        ("/initialSync?limit=-1", 400, "M_INVALID_PARAM"),
        ("/rooms/!x:test/initialSync", 403, "M_FORBIDDEN"),
        ("/presence/nobody/status", 400, "M_INVALID_PARAM"),
        ("/presence/@nobody:test/status", 403, "M_FORBIDDEN"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_questions(reading: tuple[Client, str], path: str, code: int, errcode: str) -> None:
    client, token = reading
    got, answer = await client.get(V3 + path, token)
    assert (got, answer["errcode"]) == (code, errcode), answer
    assert answer["error"].endswith(".")


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "errcode"),
    [
        ("PUT", "/rooms/{room}/typing/@alice:test", {}, 400, "M_MISSING_PARAM"),
        ("PUT", "/rooms/{room}/typing/@alice:test", {"typing": 1}, 400, "M_BAD_JSON"),
        ("PUT", "/rooms/{room}/typing/@alice:test", {"typing": True, "timeout": "x"}, 400, "M_BAD_JSON"),
        ("PUT", "/rooms/{room}/typing/@bob:test", {"typing": True}, 403, "M_FORBIDDEN"),
        ("PUT", "/rooms/!x:test/typing/@alice:test", {"typing": True}, 403, "M_FORBIDDEN"),
        ("POST", "/rooms/{room}/receipt/m.other/$x", {}, 400, "M_INVALID_PARAM"),
        ("POST", "/rooms/{room}/receipt/m.read/x", {}, 400, "M_INVALID_PARAM"),
        ("POST", "/rooms/{room}/receipt/m.read/$x", {}, 404, "M_NOT_FOUND"),
        ("POST", "/rooms/!x:test/receipt/m.read/$x", {}, 403, "M_FORBIDDEN"),
        ("POST", "/rooms/{room}/receipt/m.read/$x", {"thread_id": ""}, 400, "M_INVALID_PARAM"),
        ("POST", "/rooms/{room}/receipt/m.read/$x", {"thread_id": 5}, 400, "M_INVALID_PARAM"),
        ("POST", "/rooms/{room}/receipt/m.fully_read/$x", {"thread_id": "main"}, 400, "M_INVALID_PARAM"),
        ("POST", "/rooms/{room}/receipt/m.read/{event}", {"thread_id": "$other"}, 400, "M_INVALID_PARAM"),
        ("POST", "/rooms/{room}/read_markers", {"m.read": 5}, 400, "M_BAD_JSON"),
        ("POST", "/rooms/{room}/read_markers", {"m.fully_read": "x"}, 400, "M_INVALID_PARAM"),
        ("POST", "/rooms/{room}/read_markers", {"m.fully_read": "$x"}, 404, "M_NOT_FOUND"),
        ("PUT", "/presence/@alice:test/status", {}, 400, "M_MISSING_PARAM"),
        ("PUT", "/presence/@alice:test/status", {"presence": "busy"}, 400, "M_INVALID_PARAM"),
        ("PUT", "/presence/@alice:test/status", {"presence": "online", "status_msg": 5}, 400, "M_BAD_JSON"),
        ("PUT", "/presence/@alice:test/status", {"presence": "online", "status_msg": "\0"}, 400, "M_INVALID_PARAM"),
        ("PUT", "/presence/@bob:test/status", {"presence": "online"}, 403, "M_FORBIDDEN"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_words(
    reading: tuple[Client, str], method: str, path: str, body: Any, code: int, errcode: str
) -> None:
    client, token = reading
    _, room = await client.post(f"{V3}/createRoom", {}, token)
    _, sent = await client.put(f"{V3}/rooms/{room['room_id']}/send/m.room.message/1", {"body": "x"}, token)
    path = V3 + path.replace("{room}", room["room_id"]).replace("{event}", sent["event_id"])
    got, answer = await client.request(method, path, body, token)
    assert (got, answer["errcode"]) == (code, errcode), answer
    assert answer["error"].endswith(".")


@pytest_twisted.async_yield_fixture
async def reading(database_settings: PoolSettings) -> AsyncIterator[tuple[Client, str]]:
    async with homeserver(database_settings) as hs:
        yield hs.client, await hs.client.register("alice")


@pytest_twisted.ensureDeferred
async def test_presence_switched_off(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings, use_presence=False) as hs:
        token = await hs.client.register("alice")
        path = f"{V3}/presence/{ALICE}/status"
        assert await hs.client.put(path, {"presence": "online"}, token) == (200, {})
        assert await hs.client.get(path, token) == (200, {"presence": "offline"})
        _, answer = await hs.client.get(f"{V3}/sync", token)
        assert "presence" not in answer


@pytest_twisted.ensureDeferred
async def test_a_forgotten_room_is_gone_everywhere(c: Clients) -> None:
    room = await c.room()
    await c.post(BOB, f"/rooms/{room}/join")
    await c.post(BOB, f"/rooms/{room}/leave")
    left = quote(orjson.dumps({"room": {"include_leave": True}}))
    assert room in (await c.get(BOB, f"/sync?filter={left}"))["rooms"]["leave"]
    await c.post(BOB, f"/rooms/{room}/forget")
    await c.caught_up()
    assert "rooms" not in await c.get(BOB, f"/sync?filter={left}")
    assert await c.refused(BOB, f"/rooms/{room}/messages?dir=b", c.read) == (403, "M_FORBIDDEN")
