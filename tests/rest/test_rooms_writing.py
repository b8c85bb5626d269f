"""The endpoints that write rooms, as a client calls them: bodies, answers, and errors as the specification wants
them."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.rest.client.room_directory import RoomAliases, RoomDirectory
from synapse.rest.client.room_membership import RoomMembership
from synapse.rest.client.room_writing import RoomCreate, RoomWriting
from synapse.storage.database import Database
from tests.rest.driver import Driver
from tests.support.rooms import RoomProcess, start

ALICE, BOB = "@alice:test", "@bob:test"
V3 = "/_matrix/client/v3"


class Client:
    """Calls endpoints and looks at the status."""

    def __init__(self, process: RoomProcess) -> None:
        self.process = process
        self._driver = Driver(
            RoomCreate(process.rooms, process.upgrades),
            RoomWriting(process.creation, process.redactions, process.memberships),
            RoomMembership(process.memberships),
            RoomAliases(process.aliases),
            RoomDirectory(process.directory),
        )

    async def ok(self, method: str, path: str, body: Any = None, user: str | None = ALICE, **query: Any) -> Any:
        reply = await self._driver.call(method, V3 + path, body, user=user, query=query)
        assert reply.code == 200, (path, reply)
        return reply.json

    async def error(self, method: str, path: str, body: Any = None, user: str | None = ALICE, **query: Any) -> str:
        reply = await self._driver.call(method, V3 + path, body, user=user, query=query)
        assert reply.json["error"]
        return f"{reply.code} {reply.errcode}"


@pytest_twisted.ensureDeferred
async def test_a_conversation(database: Database) -> None:
    client = Client((await start(database)).main)
    created = await client.ok("POST", "/createRoom", {"preset": "public_chat", "room_alias_name": "here"})
    room_id = created["room_id"]
    assert created["room_alias"] == "#here:test"
    assert await client.ok("POST", "/join/%23here:test", user=BOB) == {"room_id": room_id}
    assert await client.ok("POST", f"/rooms/{room_id}/join", {}, BOB) == {"room_id": room_id}
    assert await client.ok("GET", "/joined_rooms", user=BOB) == {"joined_rooms": [room_id]}
    sent = await client.ok("PUT", f"/rooms/{room_id}/send/m.room.message/1", {"body": "hi"}, BOB)
    assert await client.ok("PUT", f"/rooms/{room_id}/send/m.room.message/1", {"body": "hi"}, BOB) == sent
    redacted = await client.ok("PUT", f"/rooms/{room_id}/redact/{sent['event_id']}/2", {"reason": "x"})
    assert redacted["event_id"] != sent["event_id"]
    await client.ok("PUT", f"/rooms/{room_id}/redact/{sent['event_id']}/3")
    as_event = {"redacts": sent["event_id"]}
    await client.ok("PUT", f"/rooms/{room_id}/send/m.room.redaction/4", as_event)
    for path in ("m.room.topic", "m.room.topic/", "custom/a%2Fb"):
        assert "event_id" in await client.ok("PUT", f"/rooms/{room_id}/state/{path}", {"topic": "t"})
    assert ("custom", "a/b") in await client.process.state.current_ids(room_id)
    assert await client.ok("POST", f"/rooms/{room_id}/kick", {"user_id": BOB}) == {}
    assert await client.ok("POST", f"/rooms/{room_id}/ban", {"user_id": BOB}) == {}
    assert await client.ok("POST", f"/rooms/{room_id}/unban", {"user_id": BOB}) == {}
    assert await client.ok("POST", f"/rooms/{room_id}/invite", {"user_id": BOB}) == {}
    assert await client.ok("POST", f"/rooms/{room_id}/leave", user=BOB) == {}
    assert await client.ok("POST", f"/rooms/{room_id}/forget", user=BOB) == {}
    assert await client.ok("GET", "/joined_rooms", user=BOB) == {"joined_rooms": []}


@pytest_twisted.ensureDeferred
async def test_events_without_a_transaction_are_new_each_time(database: Database) -> None:
    client = Client((await start(database)).main)
    room_id = (await client.ok("POST", "/createRoom", {"preset": "public_chat"}))["room_id"]
    path = f"/rooms/{room_id}/send/m.room.message"
    sent = [(await client.ok("POST", path, {"body": "hi"}))["event_id"] for _ in range(2)]
    assert sent[0] != sent[1]
    by_event = await client.ok("POST", f"/rooms/{room_id}/redact/{sent[0]}", {"reason": "x"})
    by_content = await client.ok("POST", f"/rooms/{room_id}/send/m.room.redaction", {"redacts": sent[1]})
    redacted = await client.process.events.get_many(sent)
    assert [redacted[event_id].redacted_by for event_id in sent] == [by_event["event_id"], by_content["event_id"]]


@pytest_twisted.ensureDeferred
async def test_the_directory(database: Database) -> None:
    client = Client((await start(database)).main)
    room_id = (await client.ok("POST", "/createRoom", {"preset": "public_chat"}))["room_id"]
    path = "/directory/room/%23here:test"
    assert await client.ok("PUT", path, {"room_id": room_id}) == {}
    assert await client.ok("GET", path, user=None) == {"room_id": room_id, "servers": ["test"]}
    assert await client.ok("GET", f"/rooms/{room_id}/aliases") == {"aliases": ["#here:test"]}
    listing = f"/directory/list/room/{room_id}"
    assert await client.ok("GET", listing, user=None) == {"visibility": "private"}
    assert await client.ok("PUT", listing, {"visibility": "public"}) == {}
    assert await client.ok("GET", listing, user=None) == {"visibility": "public"}
    rooms = await client.ok("GET", "/publicRooms", user=None, limit=5)
    assert [room["room_id"] for room in rooms["chunk"]] == [room_id]
    body = {"limit": 5, "filter": {"generic_search_term": "nothing like it", "room_types": [None]}}
    assert (await client.ok("POST", "/publicRooms", body))["chunk"] == []
    assert (await client.ok("POST", "/publicRooms", {}))["total_room_count_estimate"] == 1
    assert await client.ok("DELETE", path) == {}
    assert await client.error("GET", path) == "404 M_NOT_FOUND"


def _signed_for_bob(**signed: Any) -> dict[str, Any]:
    proof = {"mxid": BOB, "signatures": {"x": {"ed25519:0": "AAAA"}}, **signed}
    return {"membership": "invite", "third_party_invite": {"display_name": "b", "signed": proof}}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/createRoom", b"{", "400 M_NOT_JSON"),
        ("POST", "/createRoom", {"invite": "x"}, "400 M_BAD_JSON"),
        ("POST", "/createRoom", {"initial_state": [{"content": {}}]}, "400 M_MISSING_PARAM"),
        ("POST", "/createRoom", {"room_version": "77"}, "400 M_UNSUPPORTED_ROOM_VERSION"),
        ("PUT", "/rooms/{room}/send/m.room.message/1", b"nonsense", "400 M_NOT_JSON"),
        ("PUT", "/rooms/{room}/send/m.room.message/1", [1], "400 M_BAD_JSON"),
        ("PUT", "/rooms/{room}/send/m.room.message/1", {"a": 0.5}, "400 M_BAD_JSON"),
        ("PUT", "/rooms/{room}/send/m.room.message/1", {"a": "x" * 66_000}, "413 M_TOO_LARGE"),
        ("PUT", "/rooms/{room}/send/m.room.redaction/1", {}, "400 M_MISSING_PARAM"),
        ("PUT", "/rooms/!no:test/send/m.room.message/1", {}, "403 M_FORBIDDEN"),
        ("PUT", "/rooms/%00/send/m.room.message/1", {}, "400 M_INVALID_PARAM"),
        ("PUT", "/rooms/{room}/send/m.room.message/%00", {}, "400 M_INVALID_PARAM"),
        ("PUT", "/rooms/{room}/send/a%00/1", {}, "400 M_INVALID_PARAM"),
        ("PUT", "/rooms/{room}/redact/%00/1", {}, "400 M_INVALID_PARAM"),
        ("POST", "/join/%23%00:test", {}, "400 M_INVALID_PARAM"),
        ("POST", "/rooms/%23here:test/join", {}, "400 M_INVALID_PARAM"),
        ("POST", "/knock/!no:test?via=elsewhere.example", {}, "502 M_CONNECTION_FAILED"),
        ("POST", "/rooms/{room}/invite", {"user_id": "@\x00:test"}, "400 M_INVALID_PARAM"),
        ("PUT", "/rooms/{room}/send/m.room.message/" + "x" * 5000, {}, "400 M_INVALID_PARAM"),
        ("POST", "/createRoom", {"room_alias_name": "\x00"}, "400 M_BAD_JSON"),
        ("POST", "/publicRooms", {"filter": {"generic_search_term": "\x00"}}, "400 M_BAD_JSON"),
        ("POST", "/publicRooms", {"filter": {"room_types": ["\x00"]}}, "400 M_BAD_JSON"),
        ("PUT", "/rooms/{room}/state/m.room.member/@bob:test", {"membership": "join"}, "403 M_FORBIDDEN"),
        ("PUT", "/rooms/{room}/state/m.room.member/@alice:test", {}, "400 M_BAD_JSON"),
        ("PUT", "/rooms/{room}/state/m.room.join_rules", {"join_rule": 5}, "400 M_BAD_JSON"),
        ("PUT", "/rooms/{room}/state/m.room.member/@bob:test", _signed_for_bob(token="\x00"), "403 M_FORBIDDEN"),
        ("PUT", "/rooms/{room}/state/m.room.member/@bob:test", _signed_for_bob(token=5), "403 M_FORBIDDEN"),
        ("PUT", "/rooms/{room}/state/m.room.member/@bob:test", _signed_for_bob(token="x" * 300), "403 M_FORBIDDEN"),
        ("POST", "/rooms/{room}/upgrade", {}, "400 M_MISSING_PARAM"),
        ("POST", "/rooms/{room}/upgrade", {"new_version": 12}, "400 M_BAD_JSON"),
        ("POST", "/rooms/{room}/upgrade", {"new_version": "\x00"}, "400 M_BAD_JSON"),
        ("POST", "/rooms/{room}/upgrade", {"new_version": "x" * 9000}, "400 M_UNSUPPORTED_ROOM_VERSION"),
        ("POST", "/rooms/{room}/upgrade", {"new_version": "12", "additional_creators": BOB}, "400 M_BAD_JSON"),
        ("POST", "/rooms/{room}/upgrade", {"new_version": "12", "additional_creators": ["bob"]}, "400 M_BAD_JSON"),
        ("POST", "/rooms/!no:test/upgrade", {"new_version": "12"}, "404 M_NOT_FOUND"),
        ("POST", "/rooms/{room}/invite", {"medium": "email"}, "400 M_MISSING_PARAM"),
        ("POST", "/createRoom", {"invite_3pid": [{"medium": "email"}]}, "400 M_MISSING_PARAM"),
        ("POST", "/createRoom", {"invite_3pid": [5]}, "400 M_BAD_JSON"),
        ("POST", "/createRoom", {"creation_content": {"m.federate": 0}}, "400 M_BAD_JSON"),
        ("POST", "/createRoom", {"power_level_content_override": {"users": {ALICE: "100"}}}, "400 M_BAD_JSON"),
        ("POST", "/createRoom", {"is_direct": "yes"}, "400 M_BAD_JSON"),
        ("POST", "/createRoom", {"topic": {}}, "400 M_BAD_JSON"),
        ("POST", "/rooms/{room}/invite", {}, "400 M_MISSING_PARAM"),
        ("POST", "/rooms/{room}/invite", {"user_id": "bob"}, "400 M_INVALID_PARAM"),
        ("POST", "/rooms/{room}/kick", {"user_id": BOB}, "403 M_FORBIDDEN"),
        ("POST", "/rooms/{room}/forget", {}, "400 M_UNKNOWN"),
        ("POST", "/join/!no:test", {}, "404 M_NOT_FOUND"),
        ("POST", "/join/%23no:test", {}, "404 M_NOT_FOUND"),
        ("POST", "/join/nonsense", {}, "400 M_INVALID_PARAM"),
        ("POST", "/knock/{room}", {}, "403 M_FORBIDDEN"),
        ("PUT", "/directory/room/%23x:test", {}, "400 M_MISSING_PARAM"),
        ("PUT", "/directory/room/x", {"room_id": "!a:test"}, "400 M_INVALID_PARAM"),
        ("PUT", "/directory/list/room/{room}", {"visibility": "secret"}, "400 M_INVALID_PARAM"),
        ("POST", "/publicRooms", {"limit": "x"}, "400 M_BAD_JSON"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_errors(database: Database, method: str, path: str, body: Any, expected: str) -> None:
    process = (await start(database)).main
    client = Client(process)
    room_id = await process.room()
    assert await client.error(method, path.replace("{room}", room_id), body) == expected


@pytest.mark.parametrize("token", ["\x00", "", "x" * 300, 5, None, {}])
@pytest_twisted.ensureDeferred
async def test_proofs_that_are_nonsense(database: Database, token: Any) -> None:
    client = Client((await start(database)).main)
    room_id = (await client.ok("POST", "/createRoom", {}))["room_id"]
    signed = {"mxid": BOB, "sender": ALICE, "token": token, "signatures": {}}
    error = await client.error("POST", f"/join/{room_id}", {"third_party_signed": signed}, BOB)
    assert error in ("400 M_BAD_JSON", "400 M_INVALID_PARAM")
