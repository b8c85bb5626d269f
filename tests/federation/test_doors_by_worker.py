"""A worker that lets other servers' users in, and hands what is to be written to the main process."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
import pytest_twisted
from signedjson.key import generate_signing_key

from synapse.api.room_versions import room_version
from synapse.events.builder import build, seal
from synapse.federation.client import authorization
from synapse.http.request import RawRequest
from synapse.storage.pool import PoolSettings
from synapse.storage.server_keys import StoredKey
from tests.rest.people import person
from tests.support.homeserver import TestServer, cluster
from tests.support.postgres import SERVER_NAME

FAR = "far.example"
KEY = generate_signing_key("far")
VERSION = room_version("11")
EVE = f"@eve:{FAR}"


async def ask(server: TestServer, method: str, path: str, body: Any = None) -> Any:
    """What FAR is answered."""
    path = f"/_matrix/federation/{path}"
    headers = {"authorization": authorization(FAR, KEY, SERVER_NAME, method, path, body)}
    sent = b"" if body is None else orjson.dumps(body)
    answer = await server.hs.router.handle(RawRequest(method, path, headers, sent))
    assert answer.code == 200, answer
    return orjson.loads(answer.body)


@pytest_twisted.ensureDeferred
async def test_a_worker_lets_in(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "federation_reader") as hs:
        keys = {"ed25519:far": StoredKey(KEY.verify_key.encode(), 2**52)}
        await hs.main.hs.federation.key_store.store(FAR, keys, 0)
        alice, worker = await person(hs.main, "alice"), hs.workers["federation_reader"]
        for step in range(3):  # rooms that the worker has not heard of, or has
            room = await alice.room(room_version="11")
            template = await ask(worker, "GET", f"v1/make_join/{quote(room)}/{quote(EVE)}?ver=11")
            event = seal(template["event"], VERSION, FAR, KEY)
            await alice.state(room, "m.room.topic", topic=f"number {step}")
            path = f"v2/send_join/{quote(room)}/{quote(event.event_id)}"
            answer = await ask(worker, "PUT", path, event.raw)
            assert answer["event"]["state_key"] == EVE
            members = await alice.get(f"/rooms/{room}/joined_members")
            assert EVE in members["joined"]
            template = await ask(worker, "GET", f"v1/make_leave/{quote(room)}/{quote(EVE)}")
            event = seal(template["event"], VERSION, FAR, KEY)
            assert await ask(worker, "PUT", f"v2/send_leave/{quote(room)}/{quote(event.event_id)}", event.raw) == {}
            assert EVE not in (await alice.get(f"/rooms/{room}/joined_members"))["joined"]


@pytest_twisted.ensureDeferred
async def test_a_worker_takes_invites(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "federation_reader") as hs:
        keys = {"ed25519:far": StoredKey(KEY.verify_key.encode(), 2**52)}
        await hs.main.hs.federation.key_store.store(FAR, keys, 0)
        alice = await person(hs.main, "alice")
        room = f"!there:{FAR}"
        event = build(
            VERSION,
            room_id=room,
            sender=EVE,
            type="m.room.member",
            content={"membership": "invite"},
            prev_events=["$" + "p" * 43],
            auth_events=["$" + "a" * 43],
            depth=7,
            origin_server_ts=1_700_000_000_000,
            server_name=FAR,
            signing_key=KEY,
            state_key=alice.id,
        )
        body = {"room_version": "11", "event": event.raw, "invite_room_state": []}
        answer = await ask(hs.workers["federation_reader"], "PUT", f"v2/invite/{room}/{event.event_id}", body)
        assert set(answer["event"]["signatures"]) == {FAR, SERVER_NAME}
        assert room in (await alice.get("/sync"))["rooms"]["invite"]
        assert await _notified(hs.main) == [(alice.id, room, event.event_id, True)]


async def _notified(server: TestServer) -> list[Any]:
    def read(txn: Any) -> list[Any]:
        txn.execute("SELECT user_id, room_id, event_id, notify FROM push_actions")
        return list(txn.rows())

    return await server.hs.database.read("test.notified", read)
