"""What is done to an account while something is added to it: whatever came first, nothing of it is left over.

One transaction is held in its middle until the other waits for it, or has been done.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from synapse.storage import access_tokens, pushers, threepids
from synapse.storage.access_tokens import AccessTokenStore, NewSession, hashes_of
from synapse.storage.database import Database, Transaction
from synapse.storage.deactivation import DeactivationStore
from synapse.storage.devices import DeviceStore
from synapse.storage.login_tokens import LoginToken, LoginTokenStore
from synapse.storage.pushers import Pusher, PusherStore
from synapse.storage.standing import StandingStore
from synapse.storage.threepids import Threepid, ThreepidStore
from synapse.storage.users import Kept, NewUser, UserStore

ALICE = "@alice:test"
SESSION = NewSession(ALICE, b"L" * 32, "LATE", None, 6)
EMAIL = Threepid("email", "a@b.c", 5, 6)


@asynccontextmanager
async def held(database: Database, function: Callable[..., Any], *args: Any) -> AsyncIterator[Deferred[Any]]:
    """Within, `function` has done its work and not committed it; at the end, it does when another waits for it."""
    done, go_on = threading.Event(), threading.Event()

    def work(txn: Transaction) -> Any:
        result = function(txn, *args)
        txn.execute("SELECT")  # sends what was left for later
        done.set()
        assert go_on.wait(20)
        return result

    running = Deferred.fromCoroutine(database.write("test.held", work))
    while not done.is_set():
        await database.read("test.wait", _waiting)
    try:
        yield running
        while not await database.read("test.wait", _waiting):
            pass
    finally:
        go_on.set()
    await running


def _waiting(txn: Transaction) -> int:
    txn.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    return int(txn.one()[0])


@pytest_twisted.ensureDeferred
async def test_an_address_does_not_survive_the_account(database: Database) -> None:
    await UserStore(database).create(NewUser(ALICE, "hash", 5, "Alice"))
    async with held(database, threepids._add, ALICE, EMAIL):
        ended = Deferred.fromCoroutine(DeactivationStore(database).deactivate(ALICE, False, 1))
    assert await ended is not None
    assert await ThreepidStore(database).owner("email", "a@b.c") is None


@pytest_twisted.ensureDeferred
async def test_a_login_does_not_survive_the_account(database: Database) -> None:
    await UserStore(database).create(NewUser(ALICE, "hash", 5, "Alice"))
    tokens = AccessTokenStore(database)
    async with held(database, access_tokens._login, SESSION, "hash"):
        ended = Deferred.fromCoroutine(DeactivationStore(database).deactivate(ALICE, False, 1))
    gone = await ended
    assert gone is not None
    assert (gone.device_ids, gone.tokens) == (["LATE"], [SESSION.token_hash])
    assert await tokens.login(SESSION) is None, "nor does one that comes later"
    assert await DeviceStore(database).of_user(ALICE) == []


@pytest.mark.parametrize("keep", [None, Kept("PHONE", None)])
@pytest_twisted.ensureDeferred
async def test_a_login_by_the_old_password_does_not_survive_it(database: Database, keep: Kept | None) -> None:
    users, tokens = UserStore(database), AccessTokenStore(database)
    await users.create(NewUser(ALICE, "old", 5, "Alice", session=NewSession(ALICE, b"P" * 32, "PHONE", None, 5)))
    await LoginTokenStore(database).add(LoginToken(b"T" * 32, ALICE, 100), 1)
    async with held(database, access_tokens._login, SESSION, "old"):
        changed = Deferred.fromCoroutine(users.set_password_and_log_out(ALICE, "new", keep, 1))
    assert "LATE" in (await changed).device_ids
    assert await tokens.login(SESSION, "old") is None
    assert await database.read("test", hashes_of, ALICE) == ([] if keep is None else [b"P" * 32])
    assert await LoginTokenStore(database).take(b"T" * 32, 2) is None
    assert await tokens.login(SESSION, "new") is not None


@pytest_twisted.ensureDeferred
async def test_a_login_while_the_password_is_changed_is_refused(database: Database) -> None:
    users, tokens = UserStore(database), AccessTokenStore(database)
    await users.create(NewUser(ALICE, "old", 5, "Alice"))

    def change(txn: Transaction) -> None:
        txn.execute("UPDATE users SET password_hash = 'new' WHERE user_id = %s", (ALICE,))

    async with held(database, change):
        login = Deferred.fromCoroutine(tokens.login(SESSION, "old"))
    assert await login is None


@pytest_twisted.ensureDeferred
async def test_a_session_that_is_just_beginning_is_told_that_the_account_is_locked(database: Database) -> None:
    await UserStore(database).create(NewUser(ALICE, "hash", 5, "Alice"))
    async with held(database, access_tokens._login, SESSION, "hash"):
        locked = Deferred.fromCoroutine(StandingStore(database).mark(ALICE, "locked", True))
    assert await locked == [SESSION.token_hash]


@pytest_twisted.ensureDeferred
async def test_a_pusher_does_not_survive_its_device(database: Database) -> None:
    store = AccessTokenStore(database)
    await UserStore(database).create(NewUser(ALICE, "hash", 5, "Alice"))
    await store.login(SESSION)
    pusher = Pusher(pushers.Key(ALICE, "app", "key"), "App", "Phone", None, "en", "{}", 7)
    async with held(database, pushers._set, pusher, pushers.Session("LATE", 1), 0, False, 10):
        ended = Deferred.fromCoroutine(DeviceStore(database).delete(ALICE, ["LATE"], 1))
    assert (await ended).device_ids == ["LATE"]
    assert await PusherStore(database).of_user(ALICE) == []
    late = await PusherStore(database).set(pusher, pushers.Session("LATE", 1), 0, append=False, limit=10)
    assert late is None, "the session has ended"
