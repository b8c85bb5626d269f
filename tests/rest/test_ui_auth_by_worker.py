"""Interactive authentication whose steps land on different processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.handlers.registration_tokens import Limits, NewToken
from synapse.storage.pool import PoolSettings
from tests.rest.people import V3, Person
from tests.support.homeserver import Client, Cluster, cluster

REGISTER = f"{V3}/register"
TOKEN, DUMMY = "m.login.registration_token", "m.login.dummy"
_MANY = {"per_second": 1000, "burst_count": 1000}


@pytest_twisted.async_yield_fixture
async def hs(database_settings: PoolSettings) -> AsyncIterator[Cluster]:
    options = {"registration_requires_token": True, "rc_registration": _MANY, "rc_login": {"address": _MANY}}
    async with cluster(database_settings, "client_reader", **options) as hs:
        await hs.main.hs.accounts.registration.register("boss", None, None, admin=True)
        yield hs


def processes(hs: Cluster) -> list[Client]:
    return [hs.main.client, hs.workers["client_reader"].client]


async def a_token(hs: Cluster, **limits: Any) -> str:
    tokens = hs.main.hs.accounts.proving.registration_tokens
    return str((await tokens.new(NewToken(**limits)))["token"])


async def begun(client: Client, name: str) -> str:
    code, asked = await client.post(REGISTER, {"username": name, "password": "secret"})
    assert (code, asked["flows"]) == (401, [{"stages": [TOKEN, DUMMY]}])
    return str(asked["session"])


@pytest_twisted.ensureDeferred
async def test_each_step_comes_to_another_process(hs: Cluster) -> None:
    main, reader = processes(hs)
    token = await a_token(hs, uses_allowed=1)
    session = await begun(main, "alice")
    code, asked = await reader.post(REGISTER, {"auth": {"type": TOKEN, "token": token, "session": session}})
    assert (code, asked["completed"]) == (401, [TOKEN])
    code, done = await main.post(REGISTER, {"auth": {"type": DUMMY, "session": session}})
    assert code == 200
    code, again = await reader.post(REGISTER, {"auth": {"session": session}})
    assert (code, again["user_id"]) == (200, done["user_id"])
    assert (await hs.main.hs.accounts.proving.registration_tokens.get(token))["completed"] == 1


@pytest_twisted.ensureDeferred
async def test_the_last_step_in_all_processes_at_once_makes_one_account(hs: Cluster) -> None:
    token = await a_token(hs, uses_allowed=1)
    for name in (None, "alice"):
        await hs.main.hs.accounts.proving.registration_tokens.change(token, Limits(uses_allowed=2))
        body = {"password": "secret"} if name is None else {"username": name, "password": "secret"}
        _, asked = await hs.main.client.post(REGISTER, body)
        session = asked["session"]
        await hs.main.client.post(REGISTER, {"auth": {"type": TOKEN, "token": token, "session": session}})
        last = {"auth": {"type": DUMMY, "session": session}}
        steps = [client.post(REGISTER, last) for client in processes(hs) * 3]
        answers = await gatherResults([Deferred.fromCoroutine(step) for step in steps])
        assert [code for code, _ in answers] == [200] * 6
        assert len({answer["user_id"] for _, answer in answers}) == 1
        users = [Person(hs.main.client, answer["user_id"], answer["access_token"]) for _, answer in answers]
        for user in users:
            assert (await user.get("/account/whoami"))["user_id"] == user.id
    assert (await hs.main.hs.accounts.proving.registration_tokens.get(token))["completed"] == 2
