"""Accounts in the hands of administrators."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.storage.database import Database, Transaction
from tests.rest.accounts import Server, error
from tests.rest.driver import Reply

V1, V2 = "/_synapse/admin/v1", "/_synapse/admin/v2"
ALICE, ROOT = "@alice:test", "@root:test"


class Office:
    """An administrator at work."""

    def __init__(self, server: Server, token: str) -> None:
        self.server = server
        self.token = token

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Reply:
        return await self.server.call(method, path, body, self.token, query=query)

    async def put(self, user_id: str = ALICE, **change: Any) -> Reply:
        return await self.ask("PUT", f"{V2}/users/{user_id}", change)

    async def get(self, user_id: str = ALICE) -> Any:
        return (await self.ask("GET", f"{V2}/users/{user_id}")).json

    async def names(self, **query: Any) -> list[str]:
        reply = await self.ask("GET", f"{V2}/users", **query)
        assert reply.code == 200, reply
        return [user["name"].partition(":")[0] for user in reply.json["users"]]


async def office_of(server: Server, database: Database) -> Office:
    token = await server.register("root")

    def promote(txn: Transaction) -> None:
        txn.execute("UPDATE users SET admin = true WHERE user_id = %s", (ROOT,))

    await database.write("test", promote)
    return Office(server, token)


@pytest_twisted.ensureDeferred
async def test_only_administrators_may(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    alice = await server.register("alice")
    for method, path in (
        *(("GET", f"{V2}/users"), ("GET", f"{V2}/users/{ALICE}"), ("PUT", f"{V2}/users/{ALICE}")),
        *(("POST", f"{V1}/reset_password/{ROOT}"), ("POST", f"{V1}/users/{ROOT}/login")),
        *(("PUT", f"{V1}/users/{ALICE}/admin"), ("GET", f"{V2}/users/{ROOT}/devices")),
        ("POST", f"{V2}/users/{ROOT}/delete_devices"),
    ):
        assert error(await server.call(method, path, {"admin": True, "devices": []}, alice)) == (403, "M_FORBIDDEN")
        assert error(await server.call(method, path, {"admin": True})) == (401, "M_MISSING_TOKEN")
    assert (await office.ask("GET", f"{V2}/users")).code == 200


@pytest_twisted.ensureDeferred
async def test_an_account_is_made_and_looked_at(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    addresses = [{"medium": "email", "address": "Alice@Example.org"}, {"medium": "msisdn", "address": "447700900123"}]
    made = await office.put(
        password="x", displayname="Alice", avatar_url="mxc://test/a", threepids=addresses, user_type="bot"
    )
    assert made.code == 201, made
    told = made.json
    assert told == await office.get()
    assert {one["address"] for one in told["threepids"]} == {"alice@example.org", "447700900123"}
    assert set(told["threepids"][0]) == {"medium", "address", "validated_at", "added_at"}
    del told["threepids"]
    del told["external_ids"]
    assert told == {
        "name": ALICE,
        "displayname": "Alice",
        "avatar_url": "mxc://test/a",
        "is_guest": False,
        "admin": False,
        "deactivated": False,
        "erased": False,
        "locked": False,
        "suspended": False,
        "shadow_banned": False,
        "user_type": "bot",
        "creation_ts": int(server.clock.seconds()),
        "last_seen_ts": None,
        "appservice_id": None,
        "consent_version": None,
        "consent_ts": None,
        "consent_server_notice_sent": None,
    }
    assert (await server.login("alice", "x")).code == 200


@pytest_twisted.ensureDeferred
async def test_an_account_is_changed_in_what_is_said(database: Database) -> None:
    server = Server(database, enable_set_displayname=False)
    office = await office_of(server, database)
    token = await server.register("alice")
    assert (await office.put(displayname="Alice", admin=True)).code == 200
    told = await office.get()
    assert (told["displayname"], told["admin"], told["avatar_url"]) == ("Alice", True, None)
    assert await server.is_logged_in(token)
    assert (await server.call("GET", f"{V2}/users", user=token)).code == 200, "as an administrator, at once"
    assert (await office.put(displayname="", admin=False, user_type="support")).code == 200
    told = await office.get()
    assert (told["displayname"], told["admin"], told["user_type"]) == (None, False, "support")
    assert error(await server.call("GET", f"{V2}/users", user=token)) == (403, "M_FORBIDDEN")
    assert (await office.put(user_type=None)).json["user_type"] is None
    assert server.propagated == [ALICE, ALICE]


@pytest_twisted.ensureDeferred
async def test_a_new_password_ends_the_sessions_unless_it_is_told_not_to(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    token = await server.register("alice")
    assert (await office.put(password="second", logout_devices=False)).code == 200
    assert await server.is_logged_in(token)
    assert (await office.put(password="third")).code == 200
    assert not await server.is_logged_in(token)
    assert error(await server.login("alice", "second")) == (403, "M_FORBIDDEN")
    token = (await server.login("alice", "third")).json["access_token"]
    path = f"{V1}/reset_password/{ALICE}"
    reset = await office.ask("POST", path, {"new_password": "fourth", "logout_devices": False})
    assert (reset.code, reset.json) == (200, {})
    assert await server.is_logged_in(token)
    assert (await office.ask("POST", path, {"new_password": "fifth"})).code == 200
    assert not await server.is_logged_in(token)
    assert (await server.login("alice", "fifth")).code == 200


@pytest_twisted.ensureDeferred
async def test_addresses_are_those_that_are_named(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    await server.register("alice")
    await server.register("bob")
    mail = {"medium": "email", "address": "a@example.org"}
    assert (await office.put(threepids=[mail])).code == 200
    assert error(await office.put("@bob:test", threepids=[mail])) == (400, "M_THREEPID_IN_USE")
    assert [one["address"] for one in (await office.put(displayname="x")).json["threepids"]] == ["a@example.org"]
    other = {"medium": "email", "address": "b@example.org"}
    assert [one["address"] for one in (await office.put(threepids=[other])).json["threepids"]] == ["b@example.org"]
    assert (await office.put(threepids=[])).json["threepids"] == []


@pytest_twisted.ensureDeferred
async def test_external_identities_are_those_that_are_named(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    await server.register("bob")
    at_work, elsewhere = ({"auth_provider": name, "external_id": "a"} for name in ("oidc-work", "cas"))
    assert (await office.put(password="x", external_ids=[at_work])).json["external_ids"] == [at_work]
    assert error(await office.put("@bob:test", external_ids=[at_work])) == (400, "M_UNKNOWN")
    assert (await office.put(external_ids=[elsewhere, elsewhere])).json["external_ids"] == [elsewhere]
    assert (await office.put("@bob:test", external_ids=[at_work])).json["external_ids"] == [at_work]
    assert (await office.put(external_ids=[])).json["external_ids"] == []


@pytest_twisted.ensureDeferred
async def test_accounts_are_taken_out_of_use_and_brought_back(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    token = await server.register("alice")
    assert (await office.put(deactivated=True)).json["deactivated"] is True
    assert server.gone == [ALICE]
    assert not await server.is_logged_in(token)
    assert error(await office.ask("POST", f"{V1}/reset_password/{ALICE}", {"new_password": "x"})) == (
        *(403, "M_USER_DEACTIVATED"),
    )
    assert error(await office.ask("POST", f"{V1}/users/{ALICE}/login", {})) == (403, "M_USER_DEACTIVATED")
    assert error(await office.put(password="x")) == (400, "M_INVALID_PARAM")
    assert error(await office.put(deactivated=False)) == (400, "M_MISSING_PARAM")
    back = await office.put(deactivated=False, password="new", displayname="Alice again")
    assert (back.code, back.json["deactivated"], back.json["displayname"]) == (200, False, "Alice again")
    assert ("erased_users", ALICE) in server.forgotten
    assert (await server.login("alice", "new")).code == 200
    found = await server.call("POST", "/user_directory/search", {"search_term": "again"}, office.token)
    assert [one["user_id"] for one in found.json["results"]] == [ALICE]


@pytest_twisted.ensureDeferred
async def test_an_account_that_is_erased_can_be_looked_at_and_changed(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    await server.register("alice")
    assert (await office.ask("POST", f"{V1}/deactivate/{ALICE}", {"erase": True})).code == 200
    assert (await office.get())["erased"] is True
    for change in ({"displayname": "x"}, {"admin": False}, {"deactivated": True}, {"locked": False}):
        assert (await office.put(**change)).code == 200, change
    assert error(await office.put(locked=True)) == (400, "M_INVALID_PARAM")
    assert (await office.put(deactivated=False, password="x", displayname="back")).json["displayname"] == "back"


@pytest_twisted.ensureDeferred
async def test_accounts_are_locked(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    token = await server.register("alice")
    assert (await office.put(locked=True)).json["locked"] is True
    assert error(await server.call("GET", "/account/whoami", user=token)) == (401, "M_USER_LOCKED")
    assert await office.names() == ["@root"]
    assert await office.names(locked="true") == ["@alice", "@root"]
    assert (await office.put(locked=False)).json["locked"] is False
    assert await server.is_logged_in(token)


@pytest_twisted.ensureDeferred
async def test_lists_have_pages_orders_and_filters(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    for number, name in enumerate(("carol", "alice", "bob")):
        server.clock.advance(60)
        await office.put(f"@{name}:test", password="x", displayname=f"{number} somebody")
    await office.put("@bob:test", user_type="bot")
    assert await office.names() == ["@alice", "@bob", "@carol", "@root"]
    page = (await office.ask("GET", f"{V2}/users", limit=2)).json
    assert (page["total"], page["next_token"], len(page["users"])) == (4, "2", 2)
    assert page["users"][0]["creation_ts"] > 10**12, "in milliseconds"
    last = (await office.ask("GET", f"{V2}/users", limit=2, **{"from": page["next_token"]})).json
    assert [user["name"] for user in last["users"]] == ["@carol:test", ROOT]
    assert "next_token" not in last
    assert await office.names(order_by="creation_ts", dir="b") == ["@bob", "@alice", "@carol", "@root"]
    assert await office.names(order_by="displayname", dir="f", admins="false") == ["@carol", "@alice", "@bob"]
    assert await office.names(user_id="ALI") == ["@alice"]
    assert await office.names(name="1 some") == ["@alice"]
    assert await office.names(name="%") == []
    assert await office.names(admins="true") == ["@root"]
    assert await office.names(not_user_type="bot") == ["@alice", "@carol", "@root"]
    await office.put("@carol:test", deactivated=True)
    assert await office.names(admins="false") == ["@alice", "@bob"]
    assert await office.names(deactivated="true", order_by="deactivated", dir="b") == [
        *("@carol", "@alice", "@bob", "@root"),
    ]
    for query, names in (
        ({}, ["@alice:test", "@bob:test", "@carol:test", ROOT]),
        ({"deactivated": "true"}, ["@carol:test"]),
        ({"deactivated": "false"}, ["@alice:test", "@bob:test", ROOT]),
    ):
        told = (await office.ask("GET", "/_synapse/admin/v3/users", **query)).json
        assert [user["name"] for user in told["users"]] == names
    for query in ({"order_by": "password_hash"}, {"dir": "x"}, {"from": "-1"}, {"limit": "x"}, {"guests": "1"}):
        assert error(await office.ask("GET", f"{V2}/users", **query)) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_administrators_log_in_as_users(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    await server.register("alice", device="PHONE")
    until = int(server.clock.seconds() * 1000) + 60_000
    token = (await office.ask("POST", f"{V1}/users/{ALICE}/login", {"valid_until_ms": until})).json["access_token"]
    lasting = (await office.ask("POST", f"{V1}/users/{ALICE}/login")).json["access_token"]
    who = await server.call("GET", "/account/whoami", user=token)
    assert who.json == {"user_id": ALICE, "is_guest": False}
    devices = (await server.call("GET", "/devices", user=token)).json["devices"]
    assert [device["device_id"] for device in devices] == ["PHONE"]
    server.clock.advance(60)
    assert not await server.is_logged_in(token)
    assert await server.is_logged_in(lasting)
    assert (await server.call("POST", "/logout", {}, lasting)).code == 200
    assert not await server.is_logged_in(lasting)
    for body in ({"valid_until_ms": 5}, {"valid_until_ms": -5}, {"valid_until_ms": "soon"}):
        assert (await office.ask("POST", f"{V1}/users/{ALICE}/login", body)).code == 400
    assert error(await office.ask("POST", f"{V1}/users/{ROOT}/login")) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_tokens_that_nobody_sees_are_forgotten_when_they_have_expired(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    await server.register("alice")
    until = int(server.clock.seconds() * 1000) + 60_000
    for body in ({"valid_until_ms": until}, {}):
        await office.ask("POST", f"{V1}/users/{ALICE}/login", body)

    def count(txn: Transaction) -> Any:
        txn.execute("SELECT count(*) FROM access_tokens WHERE user_id = %s", (ALICE,))
        return txn.one()[0]

    for seconds, left in ((59, 3), (2, 2)):
        server.clock.advance(seconds)
        await server.accounts.tokens.forget_expired(int(server.clock.seconds() * 1000))
        assert await database.read("test", count) == left


@pytest_twisted.ensureDeferred
async def test_ranks(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    await server.register("alice")
    path = f"{V1}/users/{ALICE}/admin"
    assert (await office.ask("GET", path)).json == {"admin": False}
    assert (await office.ask("PUT", path, {"admin": True})).json == {}
    assert (await office.ask("GET", path)).json == {"admin": True}
    assert error(await office.ask("PUT", f"{V1}/users/{ROOT}/admin", {"admin": False})) == (403, "M_FORBIDDEN")
    assert error(await office.ask("PUT", path, {"admin": "yes"})) == (400, "M_BAD_JSON")


@pytest_twisted.ensureDeferred
async def test_devices_of_a_user(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    token = await server.register("alice", device="PHONE")
    other = (await server.login("alice", device_id="LAPTOP")).json["access_token"]
    await server.call("GET", "/account/whoami", user=token)
    await server.accounts.sightings.flush()
    path = f"{V2}/users/{ALICE}/devices"
    told = (await office.ask("GET", path)).json
    assert told["total"] == 2
    phone = next(device for device in told["devices"] if device["device_id"] == "PHONE")
    assert phone["user_id"] == ALICE
    assert phone["last_seen_ts"] == int(server.clock.seconds() * 1000)
    assert phone["last_seen_ip"] is not None
    assert (await office.ask("PUT", f"{path}/PHONE", {"display_name": "the phone"})).json == {}
    assert (await office.ask("GET", f"{path}/PHONE")).json == {**phone, "display_name": "the phone"}
    assert error(await office.ask("GET", f"{path}/NONE")) == (404, "M_NOT_FOUND")
    assert (await office.ask("POST", path, {"device_id": "NEW"})).code == 201
    assert (await office.ask("DELETE", f"{path}/PHONE")).code == 200
    assert not await server.is_logged_in(token)
    assert (await office.ask("POST", f"{V2}/users/{ALICE}/delete_devices", {"devices": ["LAPTOP", "NEW"]})).code == 200
    assert not await server.is_logged_in(other)
    assert (await office.ask("GET", path)).json == {"devices": [], "total": 0}


@pytest.mark.parametrize(
    ("user_id", "change", "expected"),
    [
        ("alice", {}, (400, "M_INVALID_PARAM")),
        ("@alice:elsewhere", {}, (400, "M_INVALID_PARAM")),
        ("@Alice:test", {}, (400, "M_INVALID_USERNAME")),
        ("@al ice:test", {}, (400, "M_INVALID_USERNAME")),
        (ALICE, {"password": ""}, (400, "M_WEAK_PASSWORD")),
        (ALICE, {"password": 5}, (400, "M_BAD_JSON")),
        (ALICE, {"displayname": "x" * 300}, (400, "M_INVALID_PARAM")),
        (ALICE, {"displayname": ["x"]}, (400, "M_BAD_JSON")),
        (ALICE, {"user_type": "cat"}, (400, "M_INVALID_PARAM")),
        (ALICE, {"threepids": [{"medium": "email"}]}, (400, "M_MISSING_PARAM")),
        (ALICE, {"threepids": [{"medium": "email", "address": "x"}]}, (400, "M_INVALID_PARAM")),
        (ALICE, {"threepids": [{"medium": "email", "address": "x@y"}] * 101}, (400, "M_INVALID_PARAM")),
        (ALICE, {"external_ids": [{"auth_provider": "", "external_id": "x"}]}, (400, "M_INVALID_PARAM")),
        (ALICE, {"external_ids": [{"auth_provider": "x", "external_id": "a\x00b"}]}, (400, "M_BAD_JSON")),
        (ALICE, {"displayname": "a\x00b"}, (400, "M_BAD_JSON")),
        (ALICE, {"threepids": [{"medium": "email", "address": "a\x00@b"}]}, (400, "M_BAD_JSON")),
        (ALICE, {"external_ids": [{"auth_provider": "x"}]}, (400, "M_MISSING_PARAM")),
        (ALICE, {"deactivated": True}, (400, "M_INVALID_PARAM")),
        (ROOT, {"admin": False}, (403, "M_FORBIDDEN")),
        (ROOT, {"deactivated": True}, (403, "M_FORBIDDEN")),
        (ROOT, {"locked": True}, (403, "M_FORBIDDEN")),
        (ALICE, {"password": "x", "admin": True, "locked": True}, (403, "M_FORBIDDEN")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_change_that_cannot_be_leaves_nothing_behind(
    server: Server, database: Database, user_id: str, change: Any, expected: tuple[int, str]
) -> None:
    office = await office_of(server, database)
    assert error(await office.put(user_id.replace(" ", "%20"), **change)) == expected
    assert await office.names(deactivated="true", locked="true") == ["@root"]


@pytest_twisted.ensureDeferred
async def test_who_does_not_exist(server: Server, database: Database) -> None:
    office = await office_of(server, database)
    for method, path, body in (
        ("GET", f"{V2}/users/@nobody:test", None),
        ("GET", f"{V2}/users/@nobody:test/devices", None),
        ("POST", f"{V1}/users/@nobody:test/login", {}),
        ("PUT", f"{V1}/users/@nobody:test/admin", {"admin": True}),
        ("POST", f"{V1}/reset_password/@nobody:test", {"new_password": "x"}),
    ):
        assert error(await office.ask(method, path, body)) == (404, "M_NOT_FOUND"), path
