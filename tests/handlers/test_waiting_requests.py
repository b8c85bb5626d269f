"""Requests that wait for news end when the session that they belong to does, in whichever process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from synapse.handlers.tokens import hash_token
from synapse.storage.database import Transaction
from synapse.storage.errors import OutcomeUnknown
from synapse.storage.pool import PoolSettings
from tests.support.homeserver import TestServer, cluster, homeserver
from tests.support.reactor import real_reactor
from tests.sync.test_waiting import V3, People


@pytest_twisted.async_yield_fixture
async def people(database_settings: PoolSettings) -> AsyncIterator[People]:
    async with homeserver(database_settings, use_presence=False) as server:
        yield People(server, {name: await server.client.register(name) for name in ("alice", "bob")})


async def set_locked(hs: Any, locked: bool) -> None:
    await hs.accounts.authenticator.forget(await hs.conduct.standing_store.mark("@bob:test", "locked", locked))


def refused(waiting: Deferred[Any]) -> Deferred[tuple[int, str, bool]]:
    def told(answer: tuple[int, Any]) -> tuple[int, str, bool]:
        code, body = answer
        return code, body.get("errcode", ""), body.get("soft_logout", False)

    return waiting.addCallback(told)


def request(server: TestServer, path: str, token: str) -> Deferred[Any]:
    return Deferred.fromCoroutine(server.client.get(V3 + path, token))


async def another_session(people: People, user: str, **more: Any) -> dict[str, Any]:
    body = {"type": "m.login.password", "user": user, "password": "a password", **more}
    code, answer = await people.server.client.post(V3 + "/login", body)
    assert code == 200
    return dict(answer)


GONE = (401, "M_UNKNOWN_TOKEN", False)
EXPIRED = (401, "M_UNKNOWN_TOKEN", True)


async def waiting_sync(people: People, token: str) -> Deferred[Any]:
    """A sync by that token which waits."""
    since = await people.settled("bob")
    waiting = request(people.server, f"/sync?since={since}&timeout=30000", token)
    while not people.server.hs.notifier.waiting:
        await deferLater(real_reactor(), 0.0)
    return waiting


@pytest.mark.parametrize("path", ["/sync?since={since}&timeout=30000", "/events?from={since}&timeout=30000"])
@pytest_twisted.ensureDeferred
async def test_who_logs_out_hears_no_more(people: People, path: str) -> None:
    other = (await another_session(people, "bob"))["access_token"]
    for token, logout in ((other, "/logout"), (people.tokens["bob"], "/logout/all")):
        waiting = request(people.server, path.format(since=await people.settled("bob")), token)
        while not people.server.hs.notifier.waiting:
            await deferLater(real_reactor(), 0.0)
        assert (await people.server.client.post(V3 + logout, {}, token))[0] == 200
        assert await refused(waiting) == GONE, "and nothing of the news that a device is gone"
        assert people.server.hs.notifier.waiting == 0


@pytest_twisted.ensureDeferred
async def test_a_device_that_is_deleted_hears_no_more(people: People) -> None:
    other = await another_session(people, "bob")
    waiting = await waiting_sync(people, other["access_token"])
    auth = {"type": "m.login.password", "user": "bob", "password": "a password"}
    await people.ask("bob", "DELETE", f"/devices/{other['device_id']}", {"auth": auth})
    assert await refused(waiting) == GONE


@pytest_twisted.ensureDeferred
async def test_other_devices_hear_no_more_after_a_change_of_password(people: People) -> None:
    waiting = await waiting_sync(people, (await another_session(people, "bob"))["access_token"])
    auth = {"type": "m.login.password", "user": "bob", "password": "a password"}
    await people.ask("bob", "POST", "/account/password", {"new_password": "another", "auth": auth})
    assert await refused(waiting) == GONE


@pytest_twisted.ensureDeferred
async def test_who_is_deactivated_hears_no_more(people: People) -> None:
    waiting = await waiting_sync(people, people.tokens["bob"])
    auth = {"type": "m.login.password", "user": "bob", "password": "a password"}
    await people.ask("bob", "POST", "/account/deactivate", {"auth": auth})
    assert await refused(waiting) == GONE


@pytest_twisted.ensureDeferred
async def test_who_is_locked_is_told_so_and_the_session_stays(people: People) -> None:
    hs = people.server.hs
    waiting = await waiting_sync(people, people.tokens["bob"])
    await set_locked(hs, True)
    assert await refused(waiting) == (401, "M_USER_LOCKED", True)
    await set_locked(hs, False)
    await people.ask("bob", "GET", "/account/whoami")


@pytest_twisted.ensureDeferred
async def test_a_wait_ends_when_its_token_expires(people: People) -> None:
    session = await another_session(people, "bob", refresh_token=True)
    hs = people.server.hs
    waiting = await waiting_sync(people, session["access_token"])
    await people.server.client.post(V3 + "/refresh", {"refresh_token": session["refresh_token"]})
    await deferLater(real_reactor(), 0.0)
    assert not waiting.called, "both tokens are good until the new one is used"
    ends = [call.getTime() - real_reactor().seconds() for call in real_reactor().getDelayedCalls()]
    assert any(200 < end <= 300 for end in ends), "five minutes after the login, however long that is ago"
    key = hash_token(session["access_token"])

    def expire(txn: Transaction) -> None:
        txn.execute("UPDATE access_tokens SET expires_ts = 1 WHERE token_hash = %s", (key,))

    await hs.database.write("test", expire)
    await hs.accounts.authenticator.forget([key])
    assert await refused(waiting) == EXPIRED


@pytest_twisted.ensureDeferred
async def test_what_changes_nothing_does_not_wake_who_waits(people: People) -> None:
    waiting = await waiting_sync(people, people.tokens["bob"])
    hs = people.server.hs
    with hs.database.counted() as counted:
        await hs.accounts.authenticator.forget([hash_token(people.tokens["bob"])])
        hs.caches.forget_shared()
        await people.ask("alice", "GET", "/account/whoami")
        for _ in range(20):
            await deferLater(real_reactor(), 0.0)
    assert not waiting.called
    assert counted.read["access_tokens.lookup"] <= 4
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()


@pytest_twisted.ensureDeferred
async def test_who_logs_out_hears_no_more_in_other_processes(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron", use_presence=False) as servers:
        token = await servers.main.client.register("alice")
        await servers.caught_up()
        sync = servers.workers["synchrotron"]
        _, first = await sync.client.get(f"{V3}/sync", token)
        waiting = request(sync, f"/sync?since={first['next_batch']}&timeout=30000", token)
        while not sync.hs.notifier.waiting:
            assert not waiting.called, "there is news"
            await deferLater(real_reactor(), 0.0)
        await servers.main.client.post(f"{V3}/logout", {}, token)
        assert await refused(waiting) == GONE


@pytest_twisted.ensureDeferred
async def test_tokens_are_looked_up_anew_when_nobody_knows_whether_they_were_revoked(people: People) -> None:
    hs = people.server.hs
    waiting = await waiting_sync(people, people.tokens["bob"])

    async def lost() -> None:
        def revoke(txn: Transaction) -> None:
            txn.execute("DELETE FROM access_tokens WHERE user_id = '@bob:test'")

        await hs.database.write("test", revoke)
        raise OutcomeUnknown("the connection broke during COMMIT")

    with pytest.raises(OutcomeUnknown):
        await hs.accounts.authenticator.revoking(lost())
    assert await refused(waiting) == GONE
    await people.ask("alice", "GET", "/account/whoami")
