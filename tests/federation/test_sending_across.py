"""Servers that send each other what happens in their rooms, over lines that break."""

from __future__ import annotations

import random
from typing import Any

from pytest_twisted import ensureDeferred

from tests.support.postgres import PostgresServer
from tests.support.two_servers import PORT, Network, federation

C = "/_matrix/client/v3"


class Town:
    """A user on each server, all in a room of the first one's."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.tokens: dict[str, str] = {}
        self.room_id = ""
        self._count = 0

    @classmethod
    async def make(cls, net: Network) -> Town:
        town = cls(net)
        first, *others = net.servers
        for name in net.servers:
            town.tokens[name] = await net[name].client.register(name)
        body = {"preset": "public_chat", "initial_state": [_history("joined")]}
        town.room_id = (await town.ask(first, "POST", "/createRoom", body))["room_id"]
        for name in others:
            await town.ask(name, "POST", f"/join/{town.room_id}?server_name={first}.test:{PORT}", {})

        async def all_know() -> bool:
            path = f"/rooms/{town.room_id}/joined_members"
            return all([len((await town.ask(name, "GET", path))["joined"]) == len(net.servers) for name in net.servers])

        await net.until(all_know)
        return town

    async def ask(self, name: str, method: str, path: str, body: Any = None) -> Any:
        code, answer = await self.net[name].client.request(method, f"{C}{path}", body, self.tokens[name])
        assert code == 200, answer
        return answer

    async def say(self, name: str, text: str) -> None:
        self._count += 1
        path = f"/rooms/{self.room_id}/send/m.room.message/{self._count}"
        await self.ask(name, "PUT", path, {"msgtype": "m.text", "body": text})

    async def heard(self, name: str) -> list[str]:
        """What a server has been told, in its order."""
        page = await self.ask(name, "GET", f"/rooms/{self.room_id}/messages?dir=b&limit=200")
        return [each["content"]["body"] for each in reversed(page["chunk"]) if each["type"] == "m.room.message"]

    async def until_all_heard(self, texts: set[str]) -> None:
        async def all_have() -> bool:
            return all([set(await self.heard(name)) >= texts for name in self.net.servers])

        await self.net.until(all_have)


def _history(visibility: str) -> dict[str, Any]:
    return {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": visibility}}


@ensureDeferred
async def test_everybody_hears_everybody_in_order(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two", "three") as net:
        town = await Town.make(net)
        for number in range(6):
            await town.say("one", f"one {number}")
        await town.say("two", "two")
        await town.say("three", "three")
        await town.until_all_heard({*(f"one {number}" for number in range(6)), "two", "three"})
        for name in net.servers:
            heard = [text for text in await town.heard(name) if text.startswith("one")]
            assert heard == [f"one {number}" for number in range(6)]


@ensureDeferred
async def test_nothing_is_lost_when_answers_are(postgres: PostgresServer) -> None:
    """Every other answer to a transaction never arrives, though the transaction did."""
    async with federation(postgres, "one", "two") as net:
        town, chance = await Town.make(net), random.Random(1)
        net.lose_answer = lambda asked: "/send/" in asked.path and chance.random() < 0.5
        for number in range(8):
            await town.say(("one", "two")[number % 2], str(number))
        await town.until_all_heard({str(number) for number in range(8)})
        for name in net.servers:
            assert len(await town.heard(name)) == 8, "and nothing is heard twice"


@ensureDeferred
async def test_what_was_said_while_the_line_was_cut_is_heard_afterwards(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        town = await Town.make(net)
        net.cut("one", "two")
        for number in range(5):
            await town.say("one", f"one {number}")
            await town.say("two", f"two {number}")
        assert not any(text.startswith("one") for text in await town.heard("two"))
        net.mend()
        await town.until_all_heard({f"{name} {number}" for name in ("one", "two") for number in range(5)})


@ensureDeferred
async def test_who_is_put_out_hears_of_it_and_of_nothing_that_follows(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        town = await Town.make(net)
        await town.say("one", "before")
        await town.ask("one", "POST", f"/rooms/{town.room_id}/ban", {"user_id": f"@two:two.test:{PORT}"})

        async def is_out() -> bool:
            return town.room_id not in (await town.ask("two", "GET", "/joined_rooms"))["joined_rooms"]

        await net.until(is_out)
        await net.settled()
        sent = len(net.asked)
        await town.say("one", "after")
        await net.pause(0.2)
        await net.settled()
        assert not [asked for asked in net.asked[sent:] if "/send/" in asked.path]
