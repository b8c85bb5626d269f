"""Login tokens: for the further device of somebody who is logged in, and good once whoever asks."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList

from synapse.api.errors import MatrixError
from synapse.storage.database import Database
from tests.rest.accounts import Server, error
from tests.rest.driver import Reply

PATH = "/_matrix/client/v1/login/get_token"
ALICE = "@alice:test"
PROOF = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "password"}


def server_with(database: Database, *, limited: bool = False, **options: Any) -> Server:
    return Server(database, limited=limited, login_via_existing_session={"enabled": True, **options})


async def get(server: Server, token: str, body: dict[str, Any] | None = None) -> Reply:
    return await server.call("POST", PATH, {"auth": PROOF} if body is None else body, token)


async def whose(server: Server, token: str) -> str | None:
    try:
        return (await server.sso.login_tokens.redeem(token)).user_id
    except MatrixError as refused:
        return None if (refused.code, refused.errcode) == (403, "M_FORBIDDEN") else str(refused)


@pytest_twisted.ensureDeferred
async def test_a_token_is_given_to_who_proves_to_be_themselves_and_good_once(database: Database) -> None:
    server = server_with(database)
    token = await server.register("alice")
    asked = await get(server, token, {})
    assert (asked.code, asked.json["flows"]) == (401, [{"stages": ["m.login.password"]}])
    given = await get(server, token, {"auth": {**PROOF, "session": asked.json["session"]}})
    assert (given.code, given.json["expires_in_ms"]) == (200, 300_000)
    login_token = given.json["login_token"]
    assert (await get(server, token, {})).code == 401  # each further one needs proof of its own
    assert await whose(server, login_token) == ALICE
    assert await whose(server, login_token) is None


@pytest_twisted.ensureDeferred
async def test_who_has_just_proven_something_else_is_asked_again(database: Database) -> None:
    """Client-server API, `POST /login/get_token`: "servers MUST always re-prompt"."""
    enabled = {"enabled": True}
    server = Server(database, login_via_existing_session=enabled, ui_auth={"session_timeout": "1h"})
    token = await server.register("alice")
    assert (await server.call("POST", "/delete_devices", {"devices": [], "auth": PROOF}, token)).code == 200
    assert (await server.call("POST", "/delete_devices", {"devices": []}, token)).code == 200
    assert (await get(server, token, {})).code == 401


@pytest_twisted.ensureDeferred
async def test_of_many_who_redeem_at_once_one_succeeds(database: Database) -> None:
    """Each with services of its own, as in several processes."""
    servers = [Server(database) for _ in range(4)]
    login_token = await servers[0].sso.login_tokens.issue(ALICE)
    asked = [Deferred.fromCoroutine(whose(server, login_token)) for server in servers * 4]
    found = [user for _, user in await DeferredList(asked)]
    assert sorted(map(str, found)) == [ALICE, *["None"] * 15]


@pytest_twisted.ensureDeferred
async def test_tokens_expire(database: Database) -> None:
    server = server_with(database, token_timeout="30s", require_ui_auth=False)
    token = await server.register("alice")
    given = await get(server, token, {})
    assert (given.code, given.json["expires_in_ms"]) == (200, 30_000)
    server.clock.advance(29)
    other = (await get(server, token, {})).json["login_token"]
    server.clock.advance(1)
    assert await whose(server, given.json["login_token"]) is None
    assert await whose(server, other) == ALICE


@pytest_twisted.ensureDeferred
async def test_tokens_that_are_none(server: Server) -> None:
    for nonsense in ("", "syl_", "syl_\x00", "x" * 10_000, "syl_" + "\ud800"):
        assert await whose(server, nonsense) is None


@pytest_twisted.ensureDeferred
async def test_only_the_hash_is_stored(server: Server, database: Database) -> None:
    login_token = await server.sso.login_tokens.issue(ALICE)
    kept = await database.read("test", lambda txn: (txn.execute("SELECT * FROM login_tokens"), txn.rows())[1])
    assert len(kept) == 1
    assert login_token not in str([bytes(v) if isinstance(v, memoryview) else v for v in kept[0]])


@pytest_twisted.ensureDeferred
async def test_off_by_default(server: Server) -> None:
    token = await server.register("alice")
    assert error(await get(server, token)) == (404, "M_UNRECOGNIZED")
    capabilities = (await server.call("GET", "/capabilities", user=token)).json["capabilities"]
    assert capabilities["m.get_login_token"] == {"enabled": False}


@pytest_twisted.ensureDeferred
async def test_who_may_have_one_is_told_so(database: Database) -> None:
    server = Server(database, login_via_existing_session={"enabled": True}, allow_guest_access=True)
    token = await server.register("alice")
    guest = (await server.call("POST", "/register", {}, query={"kind": "guest"})).json["access_token"]
    for asking, enabled in ((token, True), (guest, False)):
        capabilities = (await server.call("GET", "/capabilities", user=asking)).json["capabilities"]
        assert capabilities["m.get_login_token"] == {"enabled": enabled}
    assert error(await get(server, guest)) == (403, "M_GUEST_ACCESS_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_tokens_are_rate_limited(database: Database) -> None:
    server = server_with(database, limited=True, require_ui_auth=False)
    token = await server.register("alice")
    codes = [(await get(server, token, {})).code for _ in range(6)]
    assert codes == [200] * 5 + [429]


@pytest_twisted.ensureDeferred
async def test_deactivation_voids_tokens(server: Server) -> None:
    await server.register("alice")
    login_token = await server.sso.login_tokens.issue(ALICE)
    await server.accounts.deactivation.deactivate(ALICE, erase=False)
    assert await whose(server, login_token) is None


@pytest_twisted.ensureDeferred
async def test_logging_in_by_a_token(database: Database) -> None:
    server = server_with(database)
    token = await server.register("alice", device="PHONE")
    login_token = (await get(server, token)).json["login_token"]
    body = {"type": "m.login.token", "token": login_token, "device_id": "LAPTOP"}
    done = await server.call("POST", "/login", body)
    assert (done.code, done.json["user_id"], done.json["device_id"]) == (200, ALICE, "LAPTOP")
    assert await server.is_logged_in(done.json["access_token"])
    assert await server.is_logged_in(token)
    assert error(await server.call("POST", "/login", body)) == (403, "M_FORBIDDEN")
    assert error(await server.call("POST", "/login", {**body, "token": 5})) == (400, "M_BAD_JSON")
    assert error(await server.call("POST", "/login", {"type": "m.login.token"})) == (400, "M_MISSING_PARAM")


@pytest_twisted.ensureDeferred
async def test_clients_are_told_where_they_may_ask_for_one(server: Server, database: Database) -> None:
    kinds = [flow["type"] for flow in (await server.call("GET", "/login")).json["flows"]]
    assert "m.login.token" not in kinds
    told = (await server_with(database).call("GET", "/login")).json["flows"]
    assert {"type": "m.login.token", "get_login_token": True} in told
