"""A federation_reader that nobody asks follows no streams; what it answers from the first request on is right."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest_twisted
from signedjson.key import generate_signing_key

from synapse.federation.client import authorization
from synapse.http.request import RawRequest
from synapse.rest import late
from synapse.storage.pool import PoolSettings
from synapse.storage.server_keys import StoredKey
from tests.rest.people import person
from tests.support.homeserver import Cluster, TestServer, cluster
from tests.support.postgres import SERVER_NAME

FAR = "far.example"
KEY = generate_signing_key("far")
READER = "federation_reader"


async def ask(server: TestServer, path: str, key: Any = KEY) -> tuple[int, str]:
    """How FAR is answered: status and body."""
    path = f"/_matrix/federation/v1/{path}"
    headers = {"authorization": authorization(FAR, key, SERVER_NAME, "GET", path, None)}
    answer = await server.hs.router.handle(RawRequest("GET", path, headers, b""))
    return answer.code, answer.body.decode()


async def know_far(made: Cluster) -> None:
    keys = {"ed25519:far": StoredKey(KEY.verify_key.encode(), 2**52)}
    await made.main.hs.federation.key_store.store(FAR, keys, 0)


@pytest_twisted.ensureDeferred
async def test_it_follows_streams_from_the_first_request_on(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, READER) as made:
        await know_far(made)
        worker, alice = made[READER], await person(made.main, "alice")
        room = await alice.room(room_version="11")
        assert worker.hs.notifier.listened_to == ["caches"]
        for path in ("/health", "/_matrix/key/v2/query/nobody.example", "/_matrix/federation/v1/event/$x"):
            await worker.hs.router.handle(RawRequest("GET", path))
        assert (await ask(worker, "query/directory?room_alias=%23a%3Atest", generate_signing_key("far")))[0] == 401
        assert worker.hs.notifier.listened_to == ["caches"]
        join = f"make_join/{quote(room)}/{quote('@eve:far.example')}?ver=11"
        await alice.state(room, "m.room.join_rules", join_rule="invite")
        assert (await ask(worker, join))[0] == 403
        assert "events" in worker.hs.notifier.listened_to
        assert worker.hs.notifier.position("events") == made.main.hs.notifier.position("events")
        for rule, code in (("public", 200), ("invite", 403)):
            await alice.state(room, "m.room.join_rules", join_rule=rule)
            await made.caught_up()
            assert (await ask(worker, join))[0] == code


@pytest_twisted.ensureDeferred
async def test_what_happened_before_the_first_request_is_known(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, READER) as made:
        await know_far(made)
        worker, alice = made[READER], await person(made.main, "alice")
        room = await alice.room(room_version="11", preset="public_chat")
        last = await alice.say(room, "the last word")
        code, template = await ask(worker, f"make_join/{quote(room)}/{quote('@eve:far.example')}?ver=11")
        assert code == 200
        assert last in template


@pytest_twisted.ensureDeferred
async def test_a_first_request_waits_for_the_main_process(database_settings: PoolSettings, monkeypatch: Any) -> None:
    async with cluster(database_settings, READER) as made:
        await know_far(made)
        monkeypatch.setattr(late, "PATIENCE", 0.01)
        worker = made[READER]
        alice = await person(made.main, "alice")
        room = await alice.room(room_version="11", preset="public_chat")
        follow, worker.hs.notifier.on_first_listener = worker.hs.notifier.on_first_listener, lambda stream: None
        join = f"make_join/{quote(room)}/{quote('@eve:far.example')}?ver=11"
        code, body = await ask(worker, join)
        assert (code, "main process" in body) == (503, True)
        monkeypatch.undo()
        for stream in worker.hs.notifier.listened_to:
            follow(stream)
        assert (await ask(worker, join))[0] == 200
