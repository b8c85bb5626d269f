"""Addresses of users, and the sessions that prove them."""

from __future__ import annotations

import pytest_twisted

from synapse.storage.database import Database
from synapse.storage.threepid_sessions import MAX_TOKENS, ThreepidSessionStore, Wish
from synapse.storage.threepids import Adding, Binding, Threepid, ThreepidStore
from synapse.storage.users import NewUser, UserStore

ALICE, BOB = "@alice:test", "@bob:test"
WISH = Wish("add_threepid", "email", "alice@example.org", b"secret", None)


@pytest_twisted.ensureDeferred
async def test_an_address_has_one_owner(database: Database) -> None:
    store, users = ThreepidStore(database), UserStore(database)
    for user_id in (ALICE, BOB):
        await users.create(NewUser(user_id, None, 1, None))
    assert await store.add(ALICE, "email", "a@b.c", 5, 6)
    assert await store.add(ALICE, "msisdn", "447700900001", 3, 4)
    assert not await store.add(BOB, "email", "a@b.c", 7, 8)
    assert await store.add(ALICE, "email", "a@b.c", 9, 10), "validated anew"
    assert await store.of_user(ALICE) == [
        Threepid("msisdn", "447700900001", 3, 4),
        Threepid("email", "a@b.c", 9, 6),
    ]
    assert await store.owner("email", "a@b.c") == ALICE
    assert await store.owner("msisdn", "a@b.c") is None
    assert not await store.remove(BOB, "email", "a@b.c")
    assert await store.remove(ALICE, "email", "a@b.c")
    assert await store.add(BOB, "email", "a@b.c", 7, 8)
    assert not await store.add("@nobody:test", "email", "x@b.c", 7, 8)


@pytest_twisted.ensureDeferred
async def test_a_proof_goes_with_the_address(database: Database) -> None:
    store, users, sessions = ThreepidStore(database), UserStore(database), ThreepidSessionStore(database)
    for user_id in (ALICE, BOB):
        await users.create(NewUser(user_id, None, 1, None))
    threepid = Threepid("email", "alice@example.org", 5, 6)
    await sessions.begin("one", WISH, 0, 100)
    assert await store.add_proved(ALICE, threepid, "one") is Adding.ADDED
    assert await sessions.get("one") is None
    assert await store.add_proved(ALICE, threepid, "one") is Adding.ADDED, "the same request, made again"
    assert await store.add_proved(ALICE, threepid._replace(added_ts=7), "one") is Adding.USED_UP
    assert await store.add_proved(BOB, threepid, "one") is Adding.USED_UP
    await sessions.begin("two", WISH, 0, 100)
    assert await store.add_proved(BOB, threepid, "two") is Adding.TAKEN
    assert await store.of_user(ALICE) == [threepid]


@pytest_twisted.ensureDeferred
async def test_bindings_are_remembered_by_identity_server(database: Database) -> None:
    store = ThreepidStore(database)
    first, second = Binding("email", "a@b.c", "one.example"), Binding("email", "a@b.c", "two.example")
    for binding in (second, first, second):
        await store.bound(ALICE, binding)
    assert await store.bindings(ALICE) == [first, second]
    await store.unbound(ALICE, first)
    assert await store.bindings(ALICE) == [second]
    assert await store.bindings(BOB) == []


@pytest_twisted.ensureDeferred
async def test_equal_wishes_are_one_session_until_it_expires(database: Database) -> None:
    store = ThreepidSessionStore(database)
    first = await store.begin("one", WISH, 0, 100)
    assert (first.session_id, first.client_secret_hash, first.token_hashes) == ("one", b"secret", ())
    again = await store.begin("two", WISH._replace(next_link="https://x"), 100, 200)
    assert (again.session_id, again.next_link) == ("one", "https://x")
    for other in (WISH._replace(purpose="registration"), WISH._replace(client_secret_hash=b"other")):
        assert (await store.begin(f"of {other}", other, 100, 200)).session_id == f"of {other}"
    assert (await store.begin("three", WISH, 101, 200)).session_id == "three"
    assert await store.get("one") is None
    await store.forget(201)
    assert await store.get("three") is None


@pytest_twisted.ensureDeferred
async def test_attempts_to_send_are_made_once(database: Database) -> None:
    store = ThreepidSessionStore(database)
    await store.begin("one", WISH, 0, 100)
    assert await store.reserve("one", 5)
    assert not await store.reserve("one", 5)
    assert not await store.reserve("one", 4)
    await store.release("one", 5, None)
    assert await store.reserve("one", 4)
    await store.release("one", 5, None)  # of somebody who was overtaken
    assert not await store.reserve("one", 4)


@pytest_twisted.ensureDeferred
async def test_tokens_are_kept_newest_first_or_alone(database: Database) -> None:
    store = ThreepidSessionStore(database)
    await store.begin("one", WISH, 0, 100)
    for number in range(MAX_TOKENS + 2):
        await store.sent("one", b"%d" % number, 150, alone=False)
    session = await store.get("one")
    assert session is not None
    assert session.token_hashes == tuple(b"%d" % number for number in range(MAX_TOKENS + 1, 1, -1))
    assert session.expires_ts == 150
    assert [await store.attempt("one", 2) for _ in range(3)] == [True, True, False]
    await store.sent("one", b"new", 120, alone=True)
    session = await store.get("one")
    assert session is not None
    assert (session.token_hashes, session.attempts, session.expires_ts) == ((b"new",), 0, 150)
    await store.validate("one", 130, 1000)
    await store.validate("one", 140, 1000)
    session = await store.get("one")
    assert session is not None
    assert (session.validated_ts, session.expires_ts) == (130, 1000)
    assert await store.delete("one")
    assert not await store.delete("one")
