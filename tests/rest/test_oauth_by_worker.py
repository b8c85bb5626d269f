"""Access tokens of an OAuth 2.0 authorization server in several processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.storage.pool import PoolSettings
from tests.rest.oauth import API, CLIENT, ISSUER, PHONE, AuthorizationServer
from tests.rest.people import V3
from tests.support.homeserver import Client, Cluster, cluster

WHOAMI = f"{V3}/account/whoami"


@pytest_twisted.async_yield_fixture
async def hs(database_settings: PoolSettings, away: AuthorizationServer) -> AsyncIterator[Cluster]:
    away.process.set()  # these processes have the system's time
    oauth = {"issuer": ISSUER, **CLIENT, "introspection_endpoint": f"{away.url}/introspect"}
    async with cluster(database_settings, "client_reader", oauth=oauth) as hs:
        yield hs


def processes(hs: Cluster) -> list[Client]:
    return [hs.main.client, hs.workers["client_reader"].client]


async def who(client: Client, token: str) -> Any:
    """Whose token it is, as a process finds it."""
    code, answer = await client.get(WHOAMI, token)
    return (answer["user_id"], answer["device_id"]) if code == 200 else code


async def status(client: Client, token: str) -> int:
    """What a request with the token gets that every process serves."""
    code, _ = await client.get(f"{V3}/account/3pid", token)
    return code


@pytest_twisted.ensureDeferred
async def test_first_sight_in_a_worker(hs: Cluster, away: AuthorizationServer) -> None:
    main, reader = processes(hs)
    token = away.issue()
    assert await status(reader, token) == 200
    devices = await hs.main.hs.accounts.device_store.of_user("@alice:test")
    assert [device.device_id for device in devices] == ["PHONE"]
    assert await who(main, token) == ("@alice:test", "PHONE")
    # Who is deactivated is nobody in any process, whatever was said of the token.
    boss = away.issue("boss", f"{API} {PHONE} urn:synapse:admin:*", username="boss")
    code, _ = await main.post("/_synapse/admin/v1/deactivate/@alice:test", {}, boss)
    assert code == 200
    await hs.caught_up()
    assert [await status(client, token) for client in (reader, main)] == [401, 401]


@pytest_twisted.ensureDeferred
async def test_first_sight_in_all_processes_at_once(hs: Cluster, away: AuthorizationServer) -> None:
    for number in range(3):
        tokens = [away.issue(f"there{number}", f"{API} {PHONE}", username=f"user{number}") for _ in range(2)]
        asked = [status(client, token) for client in processes(hs) for token in tokens]
        assert await gatherResults([Deferred.fromCoroutine(one) for one in asked]) == [200] * 4
        user_id = f"@user{number}:test"
        assert {await who(hs.main.client, token) for token in tokens} == {(user_id, "PHONE")}
        devices = await hs.main.hs.accounts.device_store.of_user(user_id)
        assert [device.device_id for device in devices] == ["PHONE"]
