"""What administrators see of other servers, and having one tried again."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred

from synapse.storage.pool import PoolSettings
from tests.federation.sending.test_sending import Made, made
from tests.support.far_users import put_into_room

PATH = "/_synapse/admin/v1/federation/destinations"


async def administrator(it: Made) -> str:
    sql = "UPDATE users SET admin = true WHERE user_id = '@root:test'"
    token = await it.server.client.register("root")
    await it.hs.database.write("make an administrator", lambda txn: txn.execute(sql))
    return token


async def ask(it: Made, path: str, token: str, code: int = 200, method: str = "GET") -> Any:
    found, body = await it.server.client.request(method, f"{PATH}{path}", {} if method == "POST" else None, token)
    assert found == code, body
    return body


@ensureDeferred
async def test_servers_are_listed_with_how_far_they_are_and_whether_they_answer(
    database_settings: PoolSettings,
) -> None:
    async with made(database_settings, "b.test", "c.test", federation={"max_long_retries": 0}) as it:
        root = await administrator(it)
        it.peers.away.add("c.test")
        await it.room.say("hello")
        await it.until(lambda: "c.test" in it.peers.tried and it.peers.texts("b.test"))
        await it.settled(0.2)
        answer = await ask(it, "", root)
        assert answer["total"] == 2
        b, c = answer["destinations"]
        assert b == {
            "destination": "b.test",
            "retry_last_ts": 0,
            "retry_interval": 0,
            "failure_ts": None,
            "last_successful_stream_ordering": it.hs.notifier.position("events"),
        }
        assert (c["destination"], c["retry_interval"]) == ("c.test", 600_000)
        assert c["failure_ts"] == c["retry_last_ts"] > 1_700_000_000_000 - 1
        assert await ask(it, "/c.test", root) == c
        page = await ask(it, "?limit=1&order_by=retry_interval&dir=b", root)
        assert page == {"destinations": [c], "total": 2, "next_token": "1"}
        assert (await ask(it, "?from=1&limit=1", root))["destinations"] == [c]
        assert (await ask(it, "?destination=b.t", root)) == {"destinations": [b], "total": 1}
        assert (await ask(it, "?from=5", root)) == {"destinations": [], "total": 2}


@ensureDeferred
async def test_a_server_that_is_left_alone_is_tried_again(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test", federation={"max_long_retries": 0}) as it:
        root = await administrator(it)
        it.peers.away.add("b.test")
        await it.room.say("hello")
        await it.until(lambda: "b.test" in it.peers.tried)
        await it.settled(0.2)
        it.peers.away.clear()
        assert it.peers.texts("b.test") == []
        assert await ask(it, "/b.test/reset_connection", root, method="POST") == {}
        await it.until(lambda: it.peers.texts("b.test") == ["hello"])
        await it.settled(0.2)
        error = await ask(it, "/b.test/reset_connection", root, 400, "POST")
        assert error["errcode"] == "M_UNKNOWN"


@ensureDeferred
async def test_the_rooms_of_a_server(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        root = await administrator(it)
        other = await it.room.another()
        await put_into_room(it.hs, other.id, "@u:b.test")
        await it.room.say("hello")
        await it.settled(0.2)
        answer = await ask(it, "/b.test/rooms", root)
        rooms = {room["room_id"]: room["stream_ordering"] for room in answer["rooms"]}
        assert answer["total"] == 2
        assert set(rooms) == {it.room.id, other.id}
        assert rooms[it.room.id] == it.hs.notifier.position("events")
        first = await ask(it, "/b.test/rooms?limit=1&dir=b", root)
        assert ([room["room_id"] for room in first["rooms"]], first["next_token"]) == ([max(rooms)], "1")


@ensureDeferred
async def test_what_is_not_known_and_what_is_not_allowed(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        root = await administrator(it)
        for path, method in (("/x.test", "GET"), ("/x.test/rooms", "GET"), ("/x.test/reset_connection", "POST")):
            assert (await ask(it, path, root, 404, method))["errcode"] == "M_NOT_FOUND"
            assert (await ask(it, path, it.room.token, 403, method))["errcode"] == "M_FORBIDDEN"
        for query in ("order_by=color", "dir=up", "limit=-1", "from=x", "destination=%00"):
            assert (await ask(it, f"?{query}", root, 400))["errcode"] == "M_INVALID_PARAM"
        assert (await ask(it, "?from=999999999999999999", root))["destinations"] == []
