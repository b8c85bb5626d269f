"""The user directory: words, searches, and who is visible to whom."""

from __future__ import annotations

import pytest
import pytest_twisted

from synapse.storage.database import Database, Transaction
from synapse.storage.profiles import ProfileStore
from synapse.storage.user_directory import Query, UserDirectoryStore, index_words, split_words
from synapse.storage.users import NewUser, UserStore

ALICE, BOB, FAR = "@alice:test", "@bob.smith:test", "@carol:far"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Alice Smith", ["alice", "smith"]),
        ("ŠMITH-jones_2", ["smith", "jones", "2"]),
        ("Straße ﬁn", ["strasse", "fin"]),
        ("田中 太郎", ["田中", "太郎"]),
        ("'); DROP TABLE users; --", ["drop", "table", "users"]),
        ("🦊 \x00 !?", []),
        ("x" * 1000, ["x" * 64]),
    ],
)
def test_text_is_cut_into_folded_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_unspaced_scripts_are_found_from_the_middle() -> None:
    assert index_words("@t:x", "田中太郎") == ["t", "田中太郎", "中太郎", "太郎", "郎"]


def query(term: str, *, limit: int = 10, everybody: bool = True, by: str = ALICE) -> Query:
    return Query(by, term, limit, everybody, None)


async def add_users(database: Database) -> None:
    await UserStore(database).create(NewUser(ALICE, None, 1, "Alice Liddell"))
    await UserStore(database).create(NewUser(BOB, None, 1, "Robert_Smith 100%"))


async def found(database: Database, asked: Query) -> list[str]:
    return [user.user_id for user in await UserDirectoryStore(database).search(asked)]


@pytest_twisted.ensureDeferred
async def test_users_are_found_by_any_beginning_of_a_word(database: Database) -> None:
    await add_users(database)
    for term in ("ALI", "lidd alice", "@alice:te", "@ALICE", "  alice "):
        assert await found(database, query(term)) == [ALICE], term
    for term in ("bob", "smith", "bob.smith", "rob smi", "@bob.smith:test", "100"):
        assert await found(database, query(term)) == [BOB], term
    for term in ("", "   ", "@", "lice", "alice bob", "@%", "@_lice", "!", "'", "\\", "zzz"):
        assert await found(database, query(term)) == [], term


@pytest_twisted.ensureDeferred
async def test_a_new_name_replaces_the_old_one(database: Database) -> None:
    await add_users(database)
    await ProfileStore(database).set_field(BOB, "displayname", "Zaphod", 65_536)
    assert await found(database, query("zaph")) == [BOB]
    assert await found(database, query("robert")) == []
    await ProfileStore(database).delete_field(BOB, "displayname")
    assert await found(database, query("zaph")) == []
    assert await found(database, query("bob")) == [BOB]


@pytest_twisted.ensureDeferred
async def test_exact_matches_come_first_and_the_limit_holds(database: Database) -> None:
    for name in ("annabel", "ann", "anna"):
        await UserStore(database).create(NewUser(f"@{name}:test", None, 1, None))
    assert (await found(database, query("ann")))[0] == "@ann:test"
    assert len(await found(database, query("ann", limit=2))) == 2


MEMBER = "m.room.member"


def join(txn: Transaction, room: str, user: str, at: int, membership: str = "join", name: str | None = None) -> None:
    """What the writer of events leaves behind of a membership."""
    event = f"${at}"
    txn.execute(
        "INSERT INTO memberships VALUES (%s, %s, %s, %s, %s, %s, NULL, %s)",
        (event, room, user, user, membership, name, at),
    )
    txn.execute(
        "INSERT INTO current_state VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (room_id, type, state_key) DO UPDATE"
        " SET event_id = EXCLUDED.event_id, membership = EXCLUDED.membership",
        (room, MEMBER, user, event, membership, at),
    )
    txn.execute("INSERT INTO current_state_deltas VALUES (%s, %s, %s, %s, %s, NULL)", (at, room, MEMBER, user, event))
    if user.endswith(":test"):
        txn.execute(
            "INSERT INTO local_memberships VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (user_id, room_id) DO UPDATE"
            " SET membership = EXCLUDED.membership",
            (user, room, membership, user, event, at),
        )


def two_rooms(txn: Transaction) -> None:
    join(txn, "!private", ALICE, 1)
    join(txn, "!private", FAR, 2, name="Carol")
    join(txn, "!public", BOB, 3)
    txn.execute("INSERT INTO room_stats (room_id, join_rules) VALUES ('!private', 'invite'), ('!public', 'public')")


@pytest_twisted.ensureDeferred
async def test_only_those_in_shared_or_public_rooms_are_visible(database: Database) -> None:
    await add_users(database)
    store = UserDirectoryStore(database)
    await database.write("test", two_rooms)
    assert await store.follow(0, 3, "test", 100) == 3
    assert await found(database, query("carol", everybody=False)) == [FAR]
    assert await found(database, query("bob", everybody=False)) == [BOB], "in a public room"
    assert await found(database, query("alice", everybody=False)) == [], "who is in private rooms only, by herself"
    assert await found(database, query("carol", everybody=False, by=BOB)) == []
    assert await found(database, query("alice", everybody=False, by=BOB)) == []


@pytest_twisted.ensureDeferred
async def test_the_follower_goes_on_where_it_stopped(database: Database) -> None:
    store = UserDirectoryStore(database)
    await database.write("test", two_rooms)
    assert await store.position() == 0
    assert await store.follow(0, 3, "test", 1) == 1
    assert await store.follow(1, 3, "test", 1) == 2
    assert await found(database, query("carol")) == [FAR]
    await database.write("test", join, "!private", FAR, 4, "leave")
    assert await store.follow(2, 4, "test", 1) == 3
    assert await store.follow(3, 4, "test", 10) == 4
    assert await found(database, query("carol")) == []
    assert await store.follow(2, 4, "test", 1) == 3
    assert await store.position() == 4


@pytest_twisted.ensureDeferred
async def test_members_of_rooms_that_this_server_has_left_are_not_found(database: Database) -> None:
    await add_users(database)
    store = UserDirectoryStore(database)

    def room(txn: Transaction) -> None:
        two_rooms(txn)
        join(txn, "!public", FAR, 4, name="Carol")

    await database.write("test", room)
    assert await store.follow(0, 4, "test", 100) == 4
    await database.write("test", join, "!private", ALICE, 5, "leave")
    assert await store.follow(4, 5, "test", 100) == 5
    assert await found(database, query("carol", everybody=False)) == [FAR], "in a public room with Bob"
    await database.write("test", join, "!public", BOB, 6, "leave")
    assert await found(database, query("carol", everybody=False)) == []
    assert await found(database, query("carol")) == [FAR], "until the directory follows"
    assert await store.follow(5, 6, "test", 100) == 6
    assert await found(database, query("carol")) == []


def many_at_once(txn: Transaction) -> None:
    join(txn, "!big", ALICE, 9)
    for n in range(5):
        join(txn, "!big", f"@user{n}:far", 10)
        txn.execute("UPDATE memberships SET event_id = %s WHERE event_id = '$10'", (f"${10}-{n}",))
        txn.execute("UPDATE current_state SET event_id = %s WHERE event_id = '$10'", (f"${10}-{n}",))


@pytest_twisted.ensureDeferred
async def test_what_happened_at_one_position_is_taken_in_whole(database: Database) -> None:
    await database.write("test", many_at_once)
    store = UserDirectoryStore(database)
    assert await store.follow(0, 12, "test", 2) == 10
    assert len(await found(database, query("@user"))) == 5
    assert await store.follow(10, 12, "test", 2) == 12


@pytest_twisted.ensureDeferred
async def test_other_servers_users_may_be_left_out(database: Database) -> None:
    await add_users(database)
    await database.write("test", two_rooms)
    await UserDirectoryStore(database).follow(0, 3, "test", 100)
    assert set(await found(database, query("carol"))) == {FAR}
    assert await found(database, query("carol")._replace(only_domain="test")) == []
    assert await found(database, query("bob")._replace(only_domain="test")) == [BOB]
    assert await found(database, query("bob")._replace(only_domain="st")) == []


@pytest_twisted.ensureDeferred
async def test_locked_users_are_shown_where_that_is_wanted(database: Database) -> None:
    await add_users(database)
    await database.write("test", lambda txn: txn.execute("UPDATE users SET locked = true WHERE user_id = %s", (BOB,)))
    assert await found(database, query("bob")) == []
    assert await found(database, query("bob")._replace(show_locked=True)) == [BOB]
