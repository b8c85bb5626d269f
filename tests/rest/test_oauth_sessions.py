"""What who comes with a token of an OAuth 2.0 authorization server can do, and waiting for news with one."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from synapse.handlers.auth import Authenticator
from synapse.http.request import RawRequest, Request
from synapse.storage.database import Database
from tests.rest.accounts import START, Server, admin_of, error
from tests.rest.oauth import API, PHONE, WHOAMI, AuthorizationServer, server_of
from tests.rest.test_cross_signing import UPLOAD, Identity

ALICE = "@alice:test"


# -- the other API's operations --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/logout", {}),
        ("POST", "/logout/all", {}),
        ("POST", "/account/password", {"new_password": "another one"}),
        ("POST", "/account/deactivate", {}),
        ("DELETE", "/devices/PHONE", {}),
        ("POST", "/delete_devices", {"devices": ["PHONE"]}),
        ("POST", "/account/3pid/add", {"sid": "1", "client_secret": "x"}),
        ("POST", "/account/3pid/delete", {"medium": "email", "address": "a@example.org"}),
    ],
    ids=lambda one: str(one),
)
@pytest_twisted.ensureDeferred
async def test_what_is_done_at_the_authorization_server(
    database: Database, away: AuthorizationServer, method: str, path: str, body: Any
) -> None:
    server = server_of(database, away)
    token = away.issue()
    reply = await server.call(method, path, body, token)
    assert (error(reply), "authorization server" in reply.json["error"]) == ((403, "M_FORBIDDEN"), True)
    assert (await server.call("GET", WHOAMI, user=token)).json["device_id"] == "PHONE"


@pytest_twisted.ensureDeferred
async def test_what_is_done_here(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token = away.issue()
    found = (await server.call("GET", "/capabilities", user=token)).json["capabilities"]
    assert [found[f"m.{name}"]["enabled"] for name in ("change_password", "3pid_changes", "get_login_token")] == [
        False,
        False,
        False,
    ]
    assert (await server.call("PUT", "/devices/PHONE", {"display_name": "My phone"}, token)).code == 200
    assert (await server.call("GET", "/devices/PHONE", user=token)).json["display_name"] == "My phone"
    assert (await server.call("GET", "/account/3pid", user=token)).json == {"threepids": []}
    refresh = await server.call("POST", "/refresh", {"refresh_token": away.issue()})
    assert error(refresh) == (401, "M_UNKNOWN_TOKEN")


@pytest_twisted.ensureDeferred
async def test_the_other_api_stays_beside(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    own = await server.register("carol")
    found = (await server.call("GET", "/capabilities", user=own)).json["capabilities"]
    assert found["m.change_password"]["enabled"] is True
    assert (await server.login("carol")).code == 200
    assert (await server.call("POST", "/logout", {}, own)).code == 200
    assert away.process.asked() == []


# -- replacing cross-signing keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("resent", [True, False], ids=["with the keys again", "with the session alone"])
@pytest_twisted.ensureDeferred
async def test_replacing_keys(database: Database, away: AuthorizationServer, resent: bool) -> None:
    server = server_of(database, away)
    token, boss = away.issue(), away.issue("boss", f"{API} {PHONE} urn:synapse:admin:*", username="boss")
    assert (await server.call("POST", UPLOAD, Identity().body(), token)).code == 200
    new = Identity().body()
    reply = await server.call("POST", UPLOAD, new, token)
    assert (reply.code, reply.json["flows"]) == (401, [{"stages": ["m.oauth"]}])
    url = "https://account.test/manage?theme=dark&action=org.matrix.cross_signing_reset"
    assert reply.json["params"] == {"m.oauth": {"url": url}}
    auth = {"session": reply.json["session"]}
    body = {"auth": auth, **(new if resent else {})}
    again = await server.call("POST", UPLOAD, body, token)
    assert (again.code, again.json["session"], again.json["completed"]) == (401, auth["session"], [])
    # Nothing else proves it.
    password = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "x"}
    assert (await server.call("POST", UPLOAD, {**new, "auth": {**password, **auth}}, token)).code == 400
    path = f"/_synapse/admin/v1/users/{ALICE}/_allow_cross_signing_replacement_without_uia"
    assert (await server.call("POST", path, {}, boss)).code == 200
    done = await server.call("POST", UPLOAD, body, token)
    assert (done.code, done.json) == (200, {})
    known = await server.call("POST", "/keys/query", {"device_keys": {ALICE: []}}, token)
    assert known.json["master_keys"][ALICE]["keys"] == new["master_key"]["keys"]


@pytest_twisted.ensureDeferred
async def test_the_leave_to_replace_them_ends(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token, boss = away.issue(), await admin_of(server)
    assert (await server.call("POST", UPLOAD, Identity().body(), token)).code == 200
    begun = await server.call("POST", UPLOAD, Identity().body(), token)
    path = f"/_synapse/admin/v1/users/{ALICE}/_allow_cross_signing_replacement_without_uia"
    assert (await server.call("POST", path, {}, boss)).code == 200
    server.clock.advance(600)
    auth = {"session": begun.json["session"]}
    assert (await server.call("POST", UPLOAD, {"auth": auth}, token)).code == 401
    # Of another user's session, nobody makes anything.
    other = away.issue("bob-there", username="bob")
    assert error(await server.call("POST", UPLOAD, {"auth": auth}, other)) == (403, "M_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_a_server_without_pages(database: Database, away: AuthorizationServer) -> None:
    away.set(metadata={"account_management_uri": None})
    server = server_of(database, away)
    token = away.issue()
    assert (await server.call("POST", UPLOAD, Identity().body(), token)).code == 200
    assert error(await server.call("POST", UPLOAD, Identity().body(), token)) == (403, "M_FORBIDDEN")


# -- waiting for news ------------------------------------------------------------------------------------------------


class Waiting:
    """A request that waits for news with a token, as a sync does."""

    def __init__(self, server: Server, token: str) -> None:
        self.news: Deferred[str] = Deferred()
        self._authenticator: Authenticator = server.accounts.authenticator
        self._token = token
        self.request = Request(RawRequest("GET", "/sync", {"authorization": f"Bearer {token}"}), name="sync")
        self.answer: Deferred[Any] = Deferred()

    async def begin(self) -> Waiting:
        self.request.requester = await self._authenticator.authenticate(self._token, self.request)
        self.answer = Deferred.fromCoroutine(self._authenticator.while_valid(self.request, self._wait()))
        self.ended: list[Any] = []
        self.answer.addBoth(self.ended.append)
        return self

    async def _wait(self) -> str:
        return await self.news

    async def end(self) -> Any:
        """What the request is answered with: a result, or the error."""
        await self.answer
        return self.ended[0]


async def waiting(server: Server, token: str) -> Waiting:
    return await Waiting(server, token).begin()


async def settled(server: Server, token: str) -> int:
    """Until what was asked about the token is answered: the status that who asks gets."""
    return (await server.call("GET", WHOAMI, user=token)).code


@pytest_twisted.ensureDeferred
async def test_who_waits_goes_on_while_the_token_is_good(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token = away.issue()
    waits = await waiting(server, token)
    for minute in (1, 2, 3):
        server.clock.advance(60)
        assert await settled(server, token) == 200
        assert (len(away.questions), waits.ended) == (1 + minute, [])
    waits.news.callback("news")
    assert await waits.end() == "news"
    server.clock.advance(60)
    assert len(away.questions) == 4  # nobody waits any more


@pytest_twisted.ensureDeferred
async def test_who_waits_is_told_that_the_token_is_revoked(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token = away.issue()
    waits = await waiting(server, token)
    away.revoke(token)
    server.clock.advance(59)
    assert (await settled(server, token), waits.ended) == (200, [])
    server.clock.advance(1)
    assert (await waits.end()).value.errcode == "M_UNKNOWN_TOKEN"


@pytest_twisted.ensureDeferred
async def test_news_are_not_told_before_it_is_clear_to_whom(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token = away.issue()
    waits = await waiting(server, token)
    away.revoke(token)
    server.clock.advance(60)
    waits.news.callback("news")  # while the authorization server is being asked
    assert (await waits.end()).value.errcode == "M_UNKNOWN_TOKEN"


@pytest_twisted.ensureDeferred
async def test_who_waits_hears_when_the_token_expires(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    waits = await waiting(server, away.issue(exp=START + 30))
    server.clock.advance(30)
    refused = (await waits.end()).value
    assert (refused.errcode, refused.body()["soft_logout"]) == ("M_UNKNOWN_TOKEN", True)


@pytest_twisted.ensureDeferred
async def test_who_waits_while_it_goes_away(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    waits = await waiting(server, away.issue())
    away.set(down=True)
    server.clock.advance(60)
    assert (await waits.end()).value.code == 503


@pytest_twisted.ensureDeferred
async def test_who_waits_is_cut_off_with_the_device(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    waits = await waiting(server, away.issue())
    await server.accounts.devices.delete(ALICE, ["PHONE"])
    assert (await waits.end()).value.errcode == "M_UNKNOWN_TOKEN"
