"""One session over several processes: where it begins, is refreshed, used and seen."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from twisted.internet.task import deferLater

from synapse.storage.pool import PoolSettings
from tests.support.homeserver import TestServer, cluster, homeserver
from tests.support.reactor import real_reactor

V3 = "/_matrix/client/v3"
LOGIN = {"type": "m.login.password", "user": "alice", "password": "a password", "device_id": "PHONE"}


async def whoami(server: TestServer, token: str) -> tuple[int, Any]:
    code, answer = await server.client.get(f"{V3}/account/whoami", token)
    return code, answer.get("soft_logout")


async def uses(server: TestServer, token: str) -> tuple[int, Any]:
    """The same of a process that serves no `whoami`."""
    code, answer = await server.client.get(f"{V3}/sync", token)
    return code, answer.get("soft_logout")


@pytest_twisted.ensureDeferred
async def test_a_session_is_refreshed_wherever_its_tokens_are_used(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "client_reader", "synchrotron") as servers:
        main, reader, sync = servers.main, servers["client_reader"], servers["synchrotron"]
        await main.client.register("alice")
        _, first = await reader.client.post(f"{V3}/login", {**LOGIN, "refresh_token": True})
        assert await uses(sync, first["access_token"]) == (200, None)
        code, second = await main.client.post(f"{V3}/refresh", {"refresh_token": first["refresh_token"]})
        assert code == 200
        assert await uses(sync, first["access_token"]) == (200, None), "nothing of the new has been used"
        assert await uses(sync, second["access_token"]) == (200, None)
        await servers.caught_up()
        for seen in (whoami(main, first["access_token"]), uses(sync, first["access_token"])):
            assert await seen == (401, True)
        code, late = await main.client.post(f"{V3}/refresh", {"refresh_token": first["refresh_token"]})
        assert (code, late["errcode"], late["soft_logout"]) == (401, "M_UNKNOWN_TOKEN", True)
        _, third = await main.client.post(f"{V3}/refresh", {"refresh_token": second["refresh_token"]})
        assert await whoami(main, third["access_token"]) == (200, None)
        await servers.caught_up()
        assert await uses(sync, second["access_token"]) == (401, True)
        # A login anew on the same device, elsewhere, ends it for all.
        assert (await reader.client.post(f"{V3}/login", LOGIN))[0] == 200
        await servers.caught_up()
        assert await uses(sync, third["access_token"]) == (401, False)
        code, gone = await main.client.post(f"{V3}/refresh", {"refresh_token": third["refresh_token"]})
        assert (code, gone["soft_logout"]) == (401, False)


@pytest_twisted.ensureDeferred
async def test_devices_tell_where_they_were_seen_last_by_whichever_process(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "client_reader", "synchrotron") as servers:
        main, sync = servers.main, servers["synchrotron"]
        await main.client.register("alice")
        _, session = await servers["client_reader"].client.post(f"{V3}/login", LOGIN)
        token = session["access_token"]
        for server in (sync, main):
            await uses(server, token)
            before = int(real_reactor().seconds() * 1000)
            await server.hs.accounts.sightings.flush()
            while main is not server and not main.hs.accounts.sightings._waiting:
                await deferLater(real_reactor(), 0.0)
            await main.hs.accounts.sightings.flush()
            _, told = await main.client.get(f"{V3}/devices", token)
            phone = next(device for device in told["devices"] if device["device_id"] == "PHONE")
            assert phone["last_seen_ip"] == "127.0.0.1"
            assert 0 <= before - phone["last_seen_ts"] < 60_000


@pytest_twisted.ensureDeferred
async def test_an_address_has_so_many_attempts_whichever_accounts_it_tries(database_settings: PoolSettings) -> None:
    few = {"address": {"per_second": 0.001, "burst_count": 3}}
    async with homeserver(database_settings, rc_login=few) as server:
        await server.client.register("alice")
        tried = [{**LOGIN, "user": name, "password": "x"} for name in ("alice", "bob", "carol")]
        assert [(await server.client.post(f"{V3}/login", body))[0] for body in tried] == [403] * 3
        code, refused = await server.client.post(f"{V3}/login", LOGIN)
        assert (code, refused["errcode"]) == (429, "M_LIMIT_EXCEEDED")
        assert refused["retry_after_ms"] > 0
