"""What is left of redacted events, wherever they are read, in old and in new room versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.storage.pool import PoolSettings
from tests.rest.people import Person, person
from tests.support.homeserver import homeserver

_LONG = quote('{"room":{"timeline":{"limit":100}}}')
_numbers = count()


class Room(NamedTuple):
    """A room of `alice`'s with `bob` and `carol` in it."""

    id: str
    alice: Person
    bob: Person
    carol: Person

    async def redact(self, who: Person, event_id: str, reason: str = "slip") -> tuple[int, Any]:
        path = f"/rooms/{self.id}/redact/{quote(event_id)}/{next(_numbers)}"
        return await who.ask("PUT", path, {"reason": reason})

    async def get(self, path: str) -> Any:
        return await self.alice.get(f"/rooms/{self.id}{path}")

    async def everywhere(self, event_id: str) -> Any:
        """The event as all endpoints agree to tell it."""
        event = await self.get(f"/event/{quote(event_id)}")
        around = await self.get(f"/context/{quote(event_id)}?limit=0")
        page = await self.get("/messages?dir=b&limit=100")
        timeline = (await self.alice.get(f"/sync?filter={_LONG}"))["rooms"]["join"][self.id]["timeline"]
        for events in ([around["event"]], page["chunk"], timeline["events"]):
            told = next(each for each in events if each["event_id"] == event_id)
            for each in (told, event):
                each.pop("room_id", None)
                each["unsigned"].pop("age", None)
                each["unsigned"].get("redacted_because", {}).pop("room_id", None)
                each["unsigned"].get("redacted_because", {}).pop("unsigned", None)
            assert told == event
        return event


@pytest_twisted.async_yield_fixture(params=["10", "12"])
async def room(database_settings: PoolSettings, request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    async with homeserver(database_settings, rc_message={"per_second": 1000, "burst_count": 1000}) as server:
        alice, bob, carol = [await person(server, name) for name in ("alice", "bob", "carol")]
        room_id = await alice.room(room_version=request.param, name="A name")
        for other in (bob, carol):
            await other.join(room_id)
        yield Room(room_id, alice, bob, carol)


@pytest_twisted.ensureDeferred
async def test_a_message_is_redacted_once_and_for_all(room: Room) -> None:
    sent = await room.bob.say(room.id, "secret")
    code, answer = await room.redact(room.carol, sent)
    assert (code, answer["errcode"]) == (403, "M_FORBIDDEN")
    assert (await room.get(f"/event/{quote(sent)}"))["content"]["body"] == "secret"
    code, first = await room.redact(room.bob, sent)
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
    code, second = await room.redact(room.alice, sent, "again")
    assert code == 200
    assert (await room.everywhere(sent))["unsigned"]["redacted_because"]["event_id"] == first["event_id"]
    redaction = await room.everywhere(second["event_id"])
    assert (redaction["redacts"], redaction["content"]) == (sent, {"reason": "again", "redacts": sent})


@pytest_twisted.ensureDeferred
async def test_redacting_a_redaction_takes_the_reason_and_brings_nothing_back(room: Room) -> None:
    sent = await room.bob.say(room.id, "secret")
    _, redaction = await room.redact(room.alice, sent, "rude words")
    code, _ = await room.redact(room.bob, redaction["event_id"])
    assert code == 403
    code, over = await room.redact(room.alice, redaction["event_id"])
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
        code, answer = await room.redact(room.alice, ids[key])
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
    replacing = await room.alice.state(room.id, "m.room.name", name="Another")
    unsigned = (await room.everywhere(replacing))["unsigned"]
    assert unsigned["replaces_state"] == ids["m.room.name", ""]
    assert "prev_content" not in unsigned


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_redacted(room: Room) -> None:
    sent = await room.alice.say(room.id, "secret")
    elsewhere = room._replace(id=await room.alice.room())
    for who, target, where, code, errcode in (
        (room.alice, sent, elsewhere, 400, "M_INVALID_PARAM"),
        (room.bob, "$nothing", room, 404, "M_NOT_FOUND"),
        (room.alice, "nothing", room, 400, "M_INVALID_PARAM"),
    ):
        got, answer = await where.redact(who, target)
        assert (got, answer["errcode"]) == (code, errcode), answer
    assert (await room.everywhere(sent))["content"]["body"] == "secret"
    path = f"/rooms/{room.id}/redact/{quote(sent)}/same"
    assert await room.alice.put(path, {}) == await room.alice.put(path, {})
