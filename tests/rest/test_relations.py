"""Relations, threads and moments through the endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.storage.pool import PoolSettings
from tests.support.homeserver import Client, homeserver

V1, V3 = "/_matrix/client/v1", "/_matrix/client/v3"


class Room:
    """A room with `alice` and `bob` in it."""

    def __init__(self, client: Client, tokens: dict[str, str], room_id: str) -> None:
        self.client = client
        self.tokens = tokens
        self.room_id = room_id
        self._sent = 0

    async def send(self, user: str, content: dict[str, Any], kind: str = "m.room.message") -> str:
        self._sent += 1
        path = f"{V3}/rooms/{self.room_id}/send/{kind}/{self._sent}"
        code, answer = await self.client.put(path, content, self.tokens[user])
        assert code == 200, answer
        return str(answer["event_id"])

    async def relate(self, user: str, rel_type: str, event_id: str, kind: str = "m.room.message", **more: Any) -> str:
        relates_to = {"rel_type": rel_type, "event_id": event_id, **more.pop("relation", {})}
        return await self.send(user, {"msgtype": "m.text", "body": "x", "m.relates_to": relates_to, **more}, kind)

    async def redact(self, user: str, event_id: str) -> Any:
        path = f"{V3}/rooms/{self.room_id}/redact/{quote(event_id)}/r{event_id[1:5]}"
        code, answer = await self.client.put(path, {}, self.tokens[user])
        assert code == 200, answer
        return answer["event_id"]

    async def get(self, path: str, user: str = "alice", version: str = V1) -> Any:
        code, answer = await self.client.get(f"{version}/rooms/{self.room_id}{path}", self.tokens[user])
        assert code == 200, answer
        return answer


@pytest_twisted.async_yield_fixture
async def room(database_settings: PoolSettings) -> AsyncIterator[Room]:
    async with homeserver(database_settings) as hs:
        tokens = {name: await hs.client.register(name) for name in ("alice", "bob", "carol")}
        _, made = await hs.client.post(f"{V3}/createRoom", {"preset": "public_chat"}, tokens["alice"])
        await hs.client.post(f"{V3}/rooms/{made['room_id']}/join", {}, tokens["bob"])
        yield Room(hs.client, tokens, made["room_id"])


def ids(answer: Any) -> list[str]:
    return [event["event_id"] for event in answer["chunk"]]


@pytest_twisted.ensureDeferred
async def test_a_thread_with_edits_and_reactions(room: Room) -> None:
    root = await room.send("alice", {"msgtype": "m.text", "body": "root"})
    reply = await room.relate("bob", "m.thread", root)
    edit = await room.relate("bob", "m.replace", reply, **{"m.new_content": {"msgtype": "m.text", "body": "y"}})
    reaction = await room.relate("alice", "m.annotation", reply, "m.reaction", relation={"key": "!"})
    path = f"/relations/{quote(root)}"
    assert ids(await room.get(path)) == [reply]
    assert ids(await room.get(f"{path}/m.thread")) == ids(await room.get(f"{path}/m.thread/m.room.message")) == [reply]
    assert ids(await room.get(f"{path}/m.thread/members", version="/_matrix/client/unstable")) == []
    every = await room.get(f"{path}?recurse=true&limit=2")
    assert (ids(every), every["recursion_depth"]) == ([reaction, edit], 3)
    every = await room.get(f"{path}?recurse=true&limit=2&from={every['next_batch']}")
    assert ids(every) == [reply]
    assert ids(await room.get(f"{path}?dir=f&limit=1")) == [reply]
    told = (await room.get("/threads"))["chunk"][0]
    for event in (told, await room.get(f"/event/{quote(root)}", version=V3)):
        thread = event["unsigned"]["m.relations"]["m.thread"]
        assert (thread["count"], thread["current_user_participated"]) == (1, True)
        assert thread["latest_event"]["event_id"] == reply
        assert thread["latest_event"]["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit
    around = await room.get(f"/context/{quote(root)}?limit=2", version=V3)
    assert "m.thread" in around["event"]["unsigned"]["m.relations"]
    assert ids(await room.get("/threads?include=participated", "bob")) == [root]
    await room.redact("bob", edit)
    thread = (await room.get("/threads"))["chunk"][0]["unsigned"]["m.relations"]["m.thread"]
    assert "m.relations" not in thread["latest_event"]["unsigned"]
    await room.redact("bob", reply)
    assert await room.get("/threads") == {"chunk": []}
    assert ids(await room.get(f"{path}?recurse=true")) == []
    event = await room.get(f"/event/{quote(root)}", version=V3)
    assert "m.relations" not in event["unsigned"]


@pytest_twisted.ensureDeferred
async def test_moments_and_events_of_old(room: Room) -> None:
    sent = await room.send("alice", {"msgtype": "m.text", "body": "x"})
    event = await room.get(f"/event/{quote(sent)}", version=V3)
    ts = event["origin_server_ts"]
    assert await room.get(f"/timestamp_to_event?ts={ts}&dir=b") == {"event_id": sent, "origin_server_ts": ts}
    for version in ("api/v1", "r0", "v3"):
        path = f"/_matrix/client/{version}/events/{quote(sent)}"
        code, old = await room.client.get(path, room.tokens["bob"])
        assert (code, old["event_id"], old["content"], old["user_id"]) == (200, sent, event["content"], "@alice:test")
        code, refused = await room.client.get(path, room.tokens["carol"])
        assert (code, refused["errcode"]) == (404, "M_NOT_FOUND")
    code, refused = await room.client.get("/_matrix/client/r0/events/nothing", room.tokens["bob"])
    assert (code, refused["errcode"]) == (404, "M_NOT_FOUND")


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
    got, answer = await room.client.get(f"{V1}/rooms{path.replace('{room}', room.room_id)}", room.tokens["alice"])
    assert (got, answer["errcode"]) == (code, errcode), answer
    assert answer["error"].endswith(".")
