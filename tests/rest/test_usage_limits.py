"""How many may use the server: monthly active users, and the switch for all."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from synapse.api.errors import MatrixError
from synapse.api.standing import Standing
from synapse.config.errors import ConfigError
from synapse.handlers.account_rules import Applicant
from synapse.http.request import Requester
from synapse.metrics import table
from synapse.storage.active_users import MONTH_MS, ActiveUsersStore, Limit
from synapse.storage.database import Database, Transaction
from synapse.storage.pool import PoolSettings
from synapse.storage.user_ips import Seen
from tests.rest.accounts import START, Server, error
from tests.rest.people import Person, person
from tests.support.deferreds import started
from tests.support.homeserver import cluster

CONTACT = "mailto:admin@test"
LIMITED = {"limit_usage_by_mau": True, "max_mau_value": 2, "admin_contact": CONTACT}
DAY = 24 * 3600


async def syncs(server: Server, name: str, **more: Any) -> bool:
    """Whether somebody of that name may sync."""
    standing = Standing(created_ts=int(more.pop("created", START) * 1000), user_type=more.pop("user_type", None))
    fields = None
    try:
        await server.conduct.rules.check(Requester(f"@{name}:test", standing=standing, **more), "sync", {})
    except MatrixError as refused:
        fields = refused.body()
    if fields is None:
        return True
    assert fields["errcode"] == "M_RESOURCE_LIMIT_EXCEEDED"
    assert (fields["limit_type"], fields["admin_contact"]) == ("monthly_active_user", CONTACT)
    return False


async def counted(database: Database) -> set[str]:
    def read(txn: Transaction) -> set[str]:
        txn.execute("SELECT user_id FROM monthly_active_users")
        return {user_id[1:].partition(":")[0] for (user_id,) in txn.rows()}

    return await database.read("test", read)


# -- who counts --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_there_is_room_for_so_many(database: Database) -> None:
    server = Server(database, **LIMITED)
    assert [await syncs(server, name) for name in ("alice", "bob", "carol", "alice", "bob")] == [
        *(True, True, False),
        *(True, True),
    ]
    with database.counted() as counts:
        assert await syncs(server, "alice")
        assert not await syncs(server, "carol")
    assert (counts.statements_read, counts.statements_written) == (0, 0), counts.sql


@pytest_twisted.ensureDeferred
async def test_who_does_not_count_is_not_limited(database: Database) -> None:
    server = Server(database, **LIMITED)
    assert await syncs(server, "alice")
    assert await syncs(server, "bob")
    assert await syncs(server, "guest", is_guest=True)
    assert await syncs(server, "helper", user_type="support")
    assert await syncs(server, "ghost", app_service="bridge")
    assert await counted(database) == {"alice", "bob"}
    tracking = Server(database, **LIMITED, track_appservice_user_ips=True)
    assert not await syncs(tracking, "ghost", app_service="bridge")


@pytest_twisted.ensureDeferred
async def test_new_accounts_are_on_trial(database: Database) -> None:
    options = {**LIMITED, "mau_trial_days": 2, "mau_appservice_trial_days": {"bridge": 5}}
    server = Server(database, **options, track_appservice_user_ips=True)
    for name in ("alice", "bob", "carol"):
        assert await syncs(server, name)
    assert await counted(database) == set()
    server.clock.advance(3 * DAY)
    assert [await syncs(server, name) for name in ("alice", "bob", "carol")] == [True, True, False]
    assert await syncs(server, "ghost", app_service="bridge")
    assert not await syncs(server, "ghost", app_service="other")


@pytest_twisted.ensureDeferred
async def test_who_is_away_for_a_month_makes_room(database: Database) -> None:
    server = Server(database, **LIMITED)
    for name in ("alice", "bob"):
        assert await syncs(server, name)
    server.clock.advance(20 * DAY)
    now = int(server.clock.seconds() * 1000)
    await server.conduct.seen([Seen("@bob:test", "D", "192.0.2.1", "x", now)])
    server.clock.advance(11 * DAY)
    assert await syncs(server, "alice"), "this process has not forgotten her yet"
    await server.conduct.usage_upkeep.run()
    assert await counted(database) == {"bob"}
    assert await syncs(server, "carol")
    assert not await syncs(server, "alice")


@pytest_twisted.ensureDeferred
async def test_when_the_limit_is_lowered_the_latest_stay(database: Database) -> None:
    server = Server(database, **{**LIMITED, "max_mau_value": 4})
    for name in ("alice", "bob", "carol", "dave"):
        assert await syncs(server, name)
        server.clock.advance(DAY)
    lower = Server(database, **LIMITED)
    lower.clock.advance(5 * DAY)
    await lower.conduct.usage_upkeep.run()
    assert await counted(database) == {"carol", "dave"}
    assert (table.MAU_CURRENT.child().value, table.MAU_MAX.child().value) == (2, 2)


@pytest_twisted.ensureDeferred
async def test_there_is_always_room_for_some(database: Database) -> None:
    reserved = [{"medium": "email", "address": "Boss@Example.org"}]
    server = Server(database, **LIMITED, mau_limit_reserved_threepids=reserved)
    await server.register("boss")
    await server.accounts.contacts.store.add("@boss:test", "email", "boss@example.org", 1, 1)
    for name in ("alice", "bob"):
        assert await syncs(server, name)
    assert not await syncs(server, "carol")
    assert await syncs(server, "boss")
    assert (await server.login("boss")).code == 200
    rules = server.conduct.rules
    for applicant in (
        Applicant([("email", "boss@example.org")]),
        Applicant(),  # who may prove to have the address
        Applicant([], "support"),
        Applicant([], None, "bridge"),
        Applicant(is_guest=True),
    ):
        await rules.check_registration(None, applicant)
    with pytest.raises(MatrixError):
        await rules.check_registration(None, Applicant([("email", "other@example.org")]))
    server.clock.advance(1)
    await server.conduct.usage_upkeep.run()
    assert "boss" in await counted(database)
    assert len(await counted(database)) == 2


@pytest_twisted.ensureDeferred
async def test_counting_alone_limits_nobody(database: Database) -> None:
    server = Server(database, mau_stats_only=True, max_mau_value=1)
    for name in ("alice", "bob"):
        assert await syncs(server, name)
    assert await counted(database) == {"alice", "bob"}
    await server.conduct.usage_upkeep.run()
    assert (table.MAU_CURRENT.child().value, table.MAU_MAX.child().value) == (2, 0)


@pytest_twisted.ensureDeferred
async def test_however_many_come_at_once_there_are_not_too_many(database: Database) -> None:
    store, limit = ActiveUsersStore(database), Limit(5)
    admitted = [started(store.admit(f"@user{number}:test", MONTH_MS, limit)) for number in range(20)]
    assert sum(await gatherResults(admitted)) == 5
    assert await store.count(MONTH_MS) == 5


@pytest_twisted.ensureDeferred
async def test_who_is_deactivated_makes_room(database: Database) -> None:
    server = Server(database, **LIMITED)
    token = await server.register("alice")
    for name in ("alice", "bob"):
        assert await syncs(server, name)
    auth = {"type": "m.login.password", "user": "alice", "password": "password"}
    assert (await server.call("POST", "/account/deactivate", {"auth": auth}, token)).code == 200
    assert await syncs(server, "carol")


# -- who is refused ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_full_server_takes_nobody_else(database: Database) -> None:
    server = Server(database, **LIMITED)
    await server.register("carol")
    assert (await server.login("carol")).code == 200
    for name in ("alice", "bob"):
        assert await syncs(server, name)
    refused = await server.login("carol")
    assert error(refused) == (403, "M_RESOURCE_LIMIT_EXCEEDED")
    assert refused.json["admin_contact"] == CONTACT
    body = {"username": "dave", "password": "p", "auth": {"type": "m.login.dummy"}}
    assert error(await server.call("POST", "/register", body)) == (403, "M_RESOURCE_LIMIT_EXCEEDED")
    assert error(await server.call("POST", "/register", {"username": "dave"})) == (403, "M_RESOURCE_LIMIT_EXCEEDED")


@pytest_twisted.ensureDeferred
async def test_a_disabled_server_serves_nobody(database: Database) -> None:
    before = Server(database)
    token = await before.register("alice")
    closed_with = {"hs_disabled_message": "Closed for today.", "admin_contact": CONTACT}
    server = Server(database, hs_disabled=True, allow_guest_access=True, **closed_with)
    for refused in (
        await server.call("POST", "/register?kind=guest", {}),
        await server.login("alice"),
        await server.call("POST", "/register", {"username": "bob", "auth": {"type": "m.login.dummy"}}),
    ):
        assert error(refused) == (403, "M_RESOURCE_LIMIT_EXCEEDED")
        assert refused.json["limit_type"] == "hs_disabled"
        assert refused.json["error"] == "Closed for today."
    with pytest.raises(MatrixError) as closed:
        await server.conduct.rules.check(Requester("@alice:test"), "room_send", {})
    assert closed.value.fields == {"limit_type": "hs_disabled", "admin_contact": CONTACT}
    assert (await server.call("GET", "/account/whoami", user=token)).code == 200


@pytest_twisted.ensureDeferred
async def test_workers_refuse_too_and_cost_nothing_when_warm(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron", "event_creator", **LIMITED) as made:
        alice, bob, carol = [await person(made.main, name) for name in ("alice", "bob", "carol")]

        def at(who: Person, worker: str) -> Person:
            return Person(made[worker].client, who.id, who.token)

        await at(alice, "synchrotron").get("/sync")
        room = await bob.room()
        assert await at(carol, "synchrotron").refused("GET", "/sync") == (403, "M_RESOURCE_LIMIT_EXCEEDED")
        assert await at(carol, "event_creator").refused("PUT", f"/rooms/{room}/send/a.b/1", {}) == (
            403,
            "M_RESOURCE_LIMIT_EXCEEDED",
        )
        creator = at(bob, "event_creator")
        await creator.put(f"/rooms/{room}/send/a.b/1", {})
        with made["event_creator"].hs.database.counted() as counts:
            await creator.put(f"/rooms/{room}/send/a.b/2", {})
        assert (counts.statements_read, counts.statements_written) == (0, 0), counts.sql


# -- what users are told -----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_users_are_told_while_the_limit_is_reached(database_settings: PoolSettings) -> None:
    options = {**LIMITED, "server_notices": {"system_mxid_localpart": "notices", "auto_join": True}}
    async with cluster(database_settings, **options) as made:
        alice, bob = [await person(made.main, name) for name in ("alice", "bob")]
        upkeep = made.main.hs.conduct.usage_upkeep
        await alice.get("/sync")
        await upkeep.run()
        assert (await alice.get("/joined_rooms"))["joined_rooms"] == []
        await bob.get("/sync")
        sql = "UPDATE server_notice_rooms SET limit_event_id = NULL"
        for _ in range(2):  # once, however often it is looked, and if the process dies before it can write it down
            await upkeep.run()
            await upkeep.run()
            await made.main.hs.database.write("test", lambda txn: txn.execute(sql, ()))
        await upkeep.run()
        for who in (alice, bob):
            (room,) = (await who.get("/joined_rooms"))["joined_rooms"]
            events = (await who.get(f"/rooms/{room}/messages?dir=b"))["chunk"]
            (notice,) = (event for event in events if event["type"] == "m.room.message")
            content = notice["content"]
            assert content.pop("body").endswith(f"administrator: {CONTACT}.")
            assert content == {
                "msgtype": "m.server_notice",
                "server_notice_type": "m.server_notice.usage_limit_reached",
                "limit_type": "monthly_active_user",
                "admin_contact": CONTACT,
            }
            pins = f"/rooms/{room}/state/m.room.pinned_events"
            assert await who.get(pins) == {"pinned": [notice["event_id"]]}
        await made.main.hs.database.write(
            "test", lambda txn: txn.execute("DELETE FROM monthly_active_users WHERE user_id = %s", (bob.id,))
        )
        await upkeep.run()
        for who in (alice, bob):
            (room,) = (await who.get("/joined_rooms"))["joined_rooms"]
            assert await who.get(f"/rooms/{room}/state/m.room.pinned_events") == {"pinned": []}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"limit_usage_by_mau": True}, "max_mau_value"),
        ({"mau_limit_reserved_threepids": [{"medium": "email", "address": "x"}]}, "is no address"),
        ({"mau_limit_reserved_threepids": [{"medium": "fax", "address": "x"}]}, "is no address"),
        ({"mau_limit_reserved_threepids": [{"medium": "email"}]}, "address"),
    ],
)
def test_mistakes(database: Database, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Server(database, **options)
