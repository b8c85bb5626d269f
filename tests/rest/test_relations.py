"""Relations, threads and moments through the endpoints."""

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

V1, V3, UNSTABLE = (f"/_matrix/client/{version}" for version in ("v1", "v3", "unstable"))
_numbers = count()


class Room(NamedTuple):
    """A room with `alice` and `bob` in it, and without `carol`."""

    id: str
    alice: Person
    bob: Person
    carol: Person

    async def relate(self, who: Person, rel_type: str, event_id: str, kind: str = "m.room.message", **more: Any) -> str:
        relates_to = {"rel_type": rel_type, "event_id": event_id, **more.pop("relation", {})}
        content = {"msgtype": "m.text", "body": "x", "m.relates_to": relates_to, **more}
        answer = await who.put(f"/rooms/{self.id}/send/{kind}/{next(_numbers)}", content)
        return str(answer["event_id"])

    async def redact(self, who: Person, event_id: str) -> None:
        await who.put(f"/rooms/{self.id}/redact/{quote(event_id)}/{next(_numbers)}", {})

    async def get(self, path: str, version: str = V1) -> Any:
        return await self.alice.get(f"{version}/rooms/{self.id}{path}")


@pytest_twisted.async_yield_fixture
async def room(database_settings: PoolSettings) -> AsyncIterator[Room]:
    async with homeserver(database_settings) as server:
        alice, bob, carol = [await person(server, name) for name in ("alice", "bob", "carol")]
        room_id = await alice.room()
        await bob.join(room_id)
        yield Room(room_id, alice, bob, carol)


def ids(answer: Any) -> list[str]:
    return [event["event_id"] for event in answer["chunk"]]


@pytest_twisted.ensureDeferred
async def test_a_thread_with_edits_and_reactions(room: Room) -> None:
    root = await room.alice.say(room.id, "root")
    reply = await room.relate(room.bob, "m.thread", root)
    edit = await room.relate(room.bob, "m.replace", reply, **{"m.new_content": {"msgtype": "m.text", "body": "y"}})
    reaction = await room.relate(room.alice, "m.annotation", reply, "m.reaction", relation={"key": "!"})
    path = f"/relations/{quote(root)}"
    assert ids(await room.get(path)) == [reply]
    assert ids(await room.get(f"{path}/m.thread")) == ids(await room.get(f"{path}/m.thread/m.room.message")) == [reply]
    assert ids(await room.get(f"{path}/m.thread/members", UNSTABLE)) == []
    every = await room.get(f"{path}?recurse=true&limit=2")
    assert (ids(every), every["recursion_depth"]) == ([reaction, edit], 3)
    every = await room.get(f"{path}?recurse=true&limit=2&from={every['next_batch']}")
    assert ids(every) == [reply]
    assert ids(await room.get(f"{path}?dir=f&limit=1")) == [reply]
    told = (await room.get("/threads"))["chunk"][0]
    for event in (told, await room.get(f"/event/{quote(root)}", V3)):
        thread = event["unsigned"]["m.relations"]["m.thread"]
        assert (thread["count"], thread["current_user_participated"]) == (1, True)
        assert thread["latest_event"]["event_id"] == reply
        assert thread["latest_event"]["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit
    around = await room.get(f"/context/{quote(root)}?limit=2", V3)
    assert "m.thread" in around["event"]["unsigned"]["m.relations"]
    assert ids(await room.bob.get(f"{V1}/rooms/{room.id}/threads?include=participated")) == [root]
    await room.redact(room.bob, edit)
    thread = (await room.get("/threads"))["chunk"][0]["unsigned"]["m.relations"]["m.thread"]
    assert "m.relations" not in thread["latest_event"]["unsigned"]
    await room.redact(room.bob, reply)
    assert await room.get("/threads") == {"chunk": []}
    assert ids(await room.get(f"{path}?recurse=true")) == []
    event = await room.get(f"/event/{quote(root)}", V3)
    assert "m.relations" not in event["unsigned"]


@pytest_twisted.ensureDeferred
async def test_moments_and_events_of_old(room: Room) -> None:
    sent = await room.alice.say(room.id, "x")
    event = await room.get(f"/event/{quote(sent)}", V3)
    ts = event["origin_server_ts"]
    assert await room.get(f"/timestamp_to_event?ts={ts}&dir=b") == {"event_id": sent, "origin_server_ts": ts}
    for version in ("api/v1", "r0", "v3"):
        path = f"/_matrix/client/{version}/events/{quote(sent)}"
        old = await room.bob.get(path)
        assert (old["event_id"], old["content"], old["user_id"]) == (sent, event["content"], "@alice:test")
        assert await room.carol.refused("GET", path) == (404, "M_NOT_FOUND")
    assert await room.bob.refused("GET", "/_matrix/client/r0/events/nothing") == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "code", "errcode"),
    [
        ("/{room}/relations/x", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$x", 404, "M_NOT_FOUND"),
        ("/!x:test/relations/$x", 404, "M_NOT_FOUND"),
        ("/x/relations/$x", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$x?dir=x", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$x?from=x", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$x?to=t1", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$x?limit=0", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$x?recurse=1", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$x/%00", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$x/m.thread/%00", 400, "M_INVALID_PARAM"),
        ("/{room}/relations/$%00", 400, "M_INVALID_PARAM"),
        ("/!x:test/threads", 403, "M_FORBIDDEN"),
        ("/{room}/threads?include=x", 400, "M_INVALID_PARAM"),
        ("/{room}/threads?from=x", 400, "M_INVALID_PARAM"),
        ("/{room}/threads?from=s1", 400, "M_INVALID_PARAM"),
        ("/{room}/threads?limit=-1", 400, "M_INVALID_PARAM"),
        ("/{room}/timestamp_to_event?dir=b", 400, "M_MISSING_PARAM"),
        ("/{room}/timestamp_to_event?ts=5", 400, "M_MISSING_PARAM"),
        ("/{room}/timestamp_to_event?ts=x&dir=b", 400, "M_INVALID_PARAM"),
        ("/{room}/timestamp_to_event?ts=5&dir=x", 400, "M_INVALID_PARAM"),
        ("/{room}/timestamp_to_event?ts=5&dir=b", 404, "M_NOT_FOUND"),
        ("/{room}/timestamp_to_event?ts=-5&dir=b", 404, "M_NOT_FOUND"),
        ("/{room}/timestamp_to_event?ts=99999999999999999&dir=f", 404, "M_NOT_FOUND"),
        ("/!x:test/timestamp_to_event?ts=5&dir=b", 403, "M_FORBIDDEN"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_questions(room: Room, path: str, code: int, errcode: str) -> None:
    assert await room.alice.refused("GET", f"{V1}/rooms{path.replace('{room}', room.id)}") == (code, errcode)
