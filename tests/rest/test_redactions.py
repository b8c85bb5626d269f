"""What is left of redacted events, wherever they are read, in old and in new room versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.storage.pool import PoolSettings
from tests.support.homeserver import Client, homeserver

V3 = "/_matrix/client/v3"


class Room:
    """A room of `alice`'s with `bob` and `carol` in it."""

    def __init__(self, client: Client, tokens: dict[str, str], room_id: str) -> None:
        self.client = client
        self.tokens = tokens
        self.room_id = room_id
        self._sent = 0

    async def put(self, user: str, path: str, content: dict[str, Any]) -> Any:
        return await self.client.put(f"{V3}/rooms/{self.room_id}{path}", content, self.tokens[user])

    async def say(self, user: str, body: str = "secret") -> str:
        self._sent += 1
        code, answer = await self.put(user, f"/send/m.room.message/{self._sent}", {"msgtype": "m.text", "body": body})
        assert code == 200, answer
        return str(answer["event_id"])

    async def redact(self, user: str, event_id: str, reason: str = "slip") -> tuple[int, Any]:
        self._sent += 1
        return await self.put(user, f"/redact/{quote(event_id)}/{self._sent}", {"reason": reason})

    async def get(self, path: str, user: str = "alice") -> Any:
        code, answer = await self.client.get(f"{V3}/rooms/{self.room_id}{path}", self.tokens[user])
        assert code == 200, answer
        return answer

    async def everywhere(self, event_id: str, user: str = "alice") -> Any:
        """The event as all endpoints agree to tell it."""
        event = await self.get(f"/event/{quote(event_id)}", user)
        around = await self.get(f"/context/{quote(event_id)}?limit=0", user)
        page = await self.get("/messages?dir=b&limit=100", user)
        _, answer = await self.client.get(f"{V3}/sync?filter={quote(_LONG)}", self.tokens[user])
        timeline = answer["rooms"]["join"][self.room_id]["timeline"]["events"]
        for events in ([around["event"]], page["chunk"], timeline):
            told = next(each for each in events if each["event_id"] == event_id)
            for each in (told, event):
                each.pop("room_id", None)
                each["unsigned"].pop("age", None)
                each["unsigned"].get("redacted_because", {}).pop("room_id", None)
                each["unsigned"].get("redacted_because", {}).pop("unsigned", None)
            assert told == event
        return event


_LONG = '{"room":{"timeline":{"limit":100}}}'


@pytest_twisted.async_yield_fixture(params=["10", "12"])
async def room(database_settings: PoolSettings, request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    async with homeserver(database_settings, rc_message={"per_second": 1000, "burst_count": 1000}) as hs:
        tokens = {name: await hs.client.register(name) for name in ("alice", "bob", "carol")}
        body = {"preset": "public_chat", "room_version": request.param, "name": "A name"}
        _, made = await hs.client.post(f"{V3}/createRoom", body, tokens["alice"])
        for name in ("bob", "carol"):
            await hs.client.post(f"{V3}/rooms/{made['room_id']}/join", {}, tokens[name])
        yield Room(hs.client, tokens, made["room_id"])


@pytest_twisted.ensureDeferred
async def test_a_message_is_redacted_once_and_for_all(room: Room) -> None:
    sent = await room.say("bob")
    code, answer = await room.redact("carol", sent)
    assert (code, answer["errcode"]) == (403, "M_FORBIDDEN")
    assert (await room.get(f"/event/{quote(sent)}"))["content"]["body"] == "secret"
    code, first = await room.redact("bob", sent)
    assert code == 200
    event = await room.everywhere(sent)
    assert event["content"] == {}
    because = event["unsigned"]["redacted_because"]
    assert (because["event_id"], because["sender"], because["type"]) == (
        first["event_id"],
        "@bob:test",
        "m.room.redaction",
    )
    assert because["content"] == {"reason": "slip", "redacts": sent}
    assert because["redacts"] == sent
    code, second = await room.redact("alice", sent, "again")
    assert code == 200
    assert (await room.everywhere(sent))["unsigned"]["redacted_because"]["event_id"] == first["event_id"]
    redaction = await room.everywhere(second["event_id"])
    assert (redaction["redacts"], redaction["content"]) == (sent, {"reason": "again", "redacts": sent})


@pytest_twisted.ensureDeferred
async def test_redacting_a_redaction_takes_the_reason_and_brings_nothing_back(room: Room) -> None:
    sent = await room.say("bob")
    _, redaction = await room.redact("alice", sent, "rude words")
    code, _ = await room.redact("bob", redaction["event_id"])
    assert code == 403
    code, over = await room.redact("alice", redaction["event_id"])
    assert code == 200
    event = await room.everywhere(redaction["event_id"])
    assert "reason" not in event["content"]
    assert event["unsigned"]["redacted_because"]["event_id"] == over["event_id"]
    event = await room.everywhere(sent)
    assert event["content"] == {}
    assert "reason" not in event["unsigned"]["redacted_because"]["content"]


@pytest_twisted.ensureDeferred
async def test_redacted_state_stays_in_force_without_what_it_said(room: Room) -> None:
    state = await room.get("/state")
    ids = {(event["type"], event["state_key"]): event["event_id"] for event in state}
    for key in (("m.room.name", ""), ("m.room.member", "@bob:test")):
        code, answer = await room.redact("alice", ids[key])
        assert code == 200, answer
    assert await room.get("/state/m.room.name") == {}
    assert await room.get("/state/m.room.member/@bob:test") == {"membership": "join"}
    event = await room.get("/state/m.room.name?format=event")
    assert (event["event_id"], event["content"]) == (ids["m.room.name", ""], {})
    state = await room.get("/state")
    assert {(e["type"], e["state_key"]): e["event_id"] for e in state} == ids
    assert next(e["content"] for e in state if e["type"] == "m.room.name") == {}
    members = (await room.get("/members"))["chunk"]
    assert next(e["content"] for e in members if e["state_key"] == "@bob:test") == {"membership": "join"}
    assert (await room.get("/joined_members"))["joined"]["@bob:test"] == {}
    assert (await room.everywhere(ids["m.room.name", ""]))["content"] == {}
    # What replaces it does not bring back what it said.
    code, answer = await room.put("alice", "/state/m.room.name/", {"name": "Another"})
    unsigned = (await room.everywhere(answer["event_id"]))["unsigned"]
    assert unsigned["replaces_state"] == ids["m.room.name", ""]
    assert "prev_content" not in unsigned


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_redacted(room: Room) -> None:
    sent = await room.say("alice")
    _, other = await room.client.post(f"{V3}/createRoom", {}, room.tokens["alice"])
    elsewhere = Room(room.client, room.tokens, other["room_id"])
    for target, who, code, errcode in (
        (sent, elsewhere, 400, "M_INVALID_PARAM"),
        ("$nothing", room, 404, "M_NOT_FOUND"),
        ("nothing", room, 400, "M_INVALID_PARAM"),
    ):
        got, answer = await who.redact("alice", target)
        assert (got, answer["errcode"]) == (code, errcode), answer
    assert (await room.everywhere(sent))["content"]["body"] == "secret"
    got, answer = await room.put("alice", f"/redact/{quote(sent)}/same", {})
    assert await room.put("alice", f"/redact/{quote(sent)}/same", {}) == (got, answer)
