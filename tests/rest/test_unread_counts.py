"""Unread counts through the whole server: messages, receipts of every kind, redactions, coming and going."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted

from synapse.storage.pool import PoolSettings
from synapse.storage.unread import UnreadStore
from tests.support.homeserver import TestServer, homeserver

V3 = "/_matrix/client/v3"


class Chat:
    """Alice and Bob in a room; Bob's counts are asked for."""

    def __init__(self, server: TestServer, alice: str, bob: str) -> None:
        self.server = server
        self.tokens = {"alice": alice, "bob": bob}
        self.bob = f"@bob:{server.hs.config.server.server_name}"
        self.room = ""
        self.since = ""
        self.txn = 0

    async def ask(self, user: str, method: str, path: str, body: Any = None) -> Any:
        code, answer = await self.server.client.request(method, V3 + path, body, self.tokens[user])
        assert code == 200, answer
        return answer

    async def say(self, user: str = "alice", thread: str | None = None, *, to_bob: bool = False) -> str:
        self.txn += 1
        content: dict[str, Any] = {"msgtype": "m.text", "body": "hello"}
        if to_bob:
            content["m.mentions"] = {"user_ids": [self.bob]}
        if thread is not None:
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": thread}
        path = f"/rooms/{self.room}/send/m.room.message/{self.txn}"
        return str((await self.ask(user, "PUT", path, content))["event_id"])

    async def relate(self, event_id: str, rel_type: str) -> str:
        self.txn += 1
        reaction = rel_type == "m.annotation"
        content: dict[str, Any] = {"m.relates_to": {"rel_type": rel_type, "event_id": event_id}}
        content |= {} if reaction else {"msgtype": "m.text", "body": "about it"}
        content["m.relates_to"] |= {"key": "x"} if reaction else {}
        path = f"/rooms/{self.room}/send/{'m.reaction' if reaction else 'm.room.message'}/{self.txn}"
        return str((await self.ask("alice", "PUT", path, content))["event_id"])

    async def read(self, event_id: str, kind: str = "m.read", thread: str | None = None) -> None:
        body = {} if thread is None else {"thread_id": thread}
        await self.ask("bob", "POST", f"/rooms/{self.room}/receipt/{kind}/{event_id}", body)

    async def redact(self, event_id: str) -> None:
        self.txn += 1
        await self.ask("alice", "PUT", f"/rooms/{self.room}/redact/{event_id}/{self.txn}", {})

    async def counts(self, *, news: bool | None = True) -> tuple[int, int, dict[str, int]]:
        """(notifications, highlights, notifications by thread), told by a first sync and, with `news`, by the next.

        `news` is None where the next may tell it or not.
        """
        by_thread = '{"room":{"timeline":{"unread_thread_notifications":true}}}'
        whole = _counts(await self.ask("bob", "GET", f"/sync?filter={by_thread}"), self.room)
        answer = await self.ask("bob", "GET", f"/sync?filter={by_thread}&since={self.since}")
        self.since = answer["next_batch"]
        told = _counts(answer, self.room)
        assert told in ((whole, None) if news is None else (whole if news else None,))
        assert whole is not None
        return whole


def _counts(answer: Any, room: str) -> tuple[int, int, dict[str, int]] | None:
    told = answer.get("rooms", {}).get("join", {}).get(room)
    if told is None:
        return None
    main = told["unread_notifications"]
    threads = told.get("unread_thread_notifications", {})
    return (
        main["notification_count"],
        main["highlight_count"],
        {thread: counts["notification_count"] for thread, counts in threads.items()},
    )


@pytest_twisted.async_yield_fixture
async def chat(database_settings: PoolSettings) -> AsyncIterator[Chat]:
    many = {"per_second": 1000, "burst_count": 1000}
    async with homeserver(database_settings, rc_message=many, rc_registration=many) as server:
        chat = Chat(server, await server.client.register("alice"), await server.client.register("bob"))
        chat.room = (await chat.ask("alice", "POST", "/createRoom", {"preset": "public_chat", "name": "x"}))["room_id"]
        await chat.ask("bob", "POST", f"/join/{chat.room}", {})
        chat.since = (await chat.ask("bob", "GET", "/sync"))["next_batch"]
        yield chat


@pytest_twisted.ensureDeferred
async def test_a_thread_is_read_up_to_what_is_about_its_root(chat: Chat) -> None:
    """What relates to a root is in the main timeline, and yet clients show it with the thread."""
    root = await chat.say()
    reply = await chat.say(thread=root)
    answer = await chat.relate(root, "m.reference")
    about = await chat.relate(answer, "m.annotation")
    assert (await chat.counts())[2] == {root: 1}
    await chat.read(about, thread=root)
    assert await chat.counts() == (2, 0, {})
    await chat.read(about, thread="main")
    assert await chat.counts() == (0, 0, {})
    for event_id, thread in ((reply, "main"), (await chat.relate(reply, "m.annotation"), "main"), (root, reply)):
        path = f"{V3}/rooms/{chat.room}/receipt/m.read/{event_id}"
        code, refused = await chat.server.client.request("POST", path, {"thread_id": thread}, chat.tokens["bob"])
        assert (code, refused["errcode"]) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_receipts_of_every_kind_move_the_counts(chat: Chat) -> None:
    first, second, third = [await chat.say() for _ in range(3)]
    assert await chat.counts() == (3, 0, {})
    await chat.read(first)
    assert await chat.counts() == (2, 0, {})
    await chat.read(second, "m.read.private")
    assert await chat.counts() == (1, 0, {})
    await chat.read(second)  # public, and no further than the private one
    assert await chat.counts() == (1, 0, {})
    reply = await chat.say(thread=first)
    await chat.say(to_bob=True)
    assert await chat.counts() == (2, 1, {first: 1})
    await chat.read(third, thread="main")
    assert await chat.counts() == (1, 1, {first: 1})
    await chat.read(reply, thread=first)
    assert await chat.counts() == (1, 1, {})
    last = await chat.say(thread=first)
    await chat.read(last)  # unthreaded: everything
    assert await chat.counts() == (0, 0, {})


@pytest_twisted.ensureDeferred
async def test_who_writes_has_read_what_is_before_it(chat: Chat) -> None:
    root = await chat.say()
    await chat.say(thread=root)
    await chat.say("bob")
    assert await chat.counts() == (0, 0, {root: 1})
    await chat.say("bob", thread=root)
    assert await chat.counts() == (0, 0, {})


@pytest_twisted.ensureDeferred
async def test_redacted_events_are_not_unread(chat: Chat) -> None:
    await chat.say()
    wrong = await chat.say(to_bob=True)
    assert await chat.counts() == (2, 1, {})
    await chat.redact(wrong)
    assert await chat.counts() == (1, 0, {})


@pytest_twisted.ensureDeferred
async def test_a_new_name_reads_nothing_and_leaving_forgets_all(chat: Chat) -> None:
    await chat.say()
    path = f"/rooms/{chat.room}/state/m.room.member/{chat.bob}"
    await chat.ask("bob", "PUT", path, {"membership": "join", "displayname": "Robert"})
    assert await chat.counts() == (1, 0, {})
    await chat.ask("bob", "POST", f"/rooms/{chat.room}/leave", {})
    await chat.say()
    await chat.ask("bob", "POST", f"/join/{chat.room}", {})
    assert await chat.counts() == (0, 0, {})
    await chat.say()
    assert await chat.counts() == (1, 0, {})


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_what_is_counted_in_memory_is_what_the_tables_say(chat: Chat, seed: int) -> None:
    rng = random.Random(seed)
    roots = [await chat.say() for _ in range(3)]
    said = list(roots)
    store = UnreadStore(chat.server.hs.database)
    for _ in range(60):
        what = rng.random()
        thread = rng.choice((None, *roots))
        if what < 0.5:
            said.append(await chat.say("alice", thread, to_bob=rng.random() < 0.3))
        elif what < 0.6:
            said.append(await chat.say("bob", thread))
        elif what < 0.8:
            await chat.read(rng.choice(said), rng.choice(("m.read", "m.read.private")))
        elif what < 0.9:
            await chat.redact(said.pop(rng.randrange(3, len(said))) if len(said) > 3 else said[0])
        else:
            body = {"membership": "join", "displayname": f"Bob {rng.random()}"}
            await chat.ask("bob", "PUT", f"/rooms/{chat.room}/state/m.room.member/{chat.bob}", body)
        if rng.random() < 0.7:
            now = chat.server.hs.notifier.position("events")
            rows = await store.counts(chat.bob, {chat.room: 0}, now)
            by_thread = {row.thread_id: row for row in rows}
            main = by_thread.pop("main", None)
            expected = (
                0 if main is None else main.notifications,
                0 if main is None else main.highlights,
                {thread_id: row.notifications for thread_id, row in by_thread.items()},
            )
            assert await chat.counts(news=None) == expected
