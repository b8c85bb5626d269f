"""What administrators decide about /sync, and under which names clients ask for the forms of its answer."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from synapse.storage.pool import PoolSettings
from tests.support.homeserver import homeserver

V3 = "/_matrix/client/v3"


@pytest_twisted.ensureDeferred
async def test_timelines_are_as_long_as_administrators_allow(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings, filter_timeline_limit=3) as server:
        token = await server.client.register("alice")

        async def ask(method: str, path: str, body: Any = None) -> Any:
            code, answer = await server.client.request(method, V3 + path, body, token)
            assert code == 200, answer
            return answer

        room = (await ask("POST", "/createRoom", {}))["room_id"]
        for number in range(4):
            content = {"msgtype": "m.text", "body": str(number)}
            await ask("PUT", f"/rooms/{room}/send/m.room.message/{number}", content)
        for limit, told in ((2, ["2", "3"]), (50, ["1", "2", "3"])):
            asked = f'{{"room":{{"timeline":{{"limit":{limit}}}}}}}'
            timeline = (await ask("GET", f"/sync?filter={asked}"))["rooms"]["join"][room]["timeline"]
            assert [event["content"]["body"] for event in timeline["events"]] == told
            assert timeline["limited"] is True


@pytest_twisted.ensureDeferred
async def test_the_state_after_a_timeline_is_told_under_the_name_by_which_it_is_asked_for(
    database_settings: PoolSettings,
) -> None:
    async with homeserver(database_settings) as server:
        token = await server.client.register("alice")
        code, room = await server.client.request("POST", f"{V3}/createRoom", {"name": "After"}, token)
        assert code == 200, room
        names = {"state", "state_after", "org.matrix.msc4222.state_after"}
        for query, name in (
            ("", "state"),
            ("?use_state_after=false", "state"),
            ("?use_state_after=true", "state_after"),
            ("?org.matrix.msc4222.use_state_after=true", "org.matrix.msc4222.state_after"),
            ("?use_state_after=true&org.matrix.msc4222.use_state_after=true", "state_after"),
        ):
            code, answer = await server.client.request("GET", f"{V3}/sync{query}", None, token)
            assert code == 200, answer
            told = answer["rooms"]["join"][room["room_id"]]
            assert names & set(told) == {name}, query
            types = {event["type"] for event in told[name]["events"]}
            assert ("m.room.name" in types) is (name != "state"), query  # else it is in the timeline
