"""OpenID tokens: from the user who gets one to the service that asks whose it is."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from synapse.api.routes import resources_of
from synapse.handlers import openid
from tests.rest.accounts import Server, error
from tests.rest.driver import Reply

REQUEST = "/user/@alice:test/openid/request_token"
USER_INFO = "/_matrix/federation/v1/openid/userinfo"


async def ask(server: Server, token: str) -> Reply:
    return await server.call("GET", USER_INFO, query={"access_token": token})


@pytest_twisted.ensureDeferred
async def test_a_token_says_who_got_it(server: Server) -> None:
    alice = await server.register("alice")
    tokens = []
    for body in ({}, None):
        issued = (await server.call("POST", REQUEST, body, alice)).json
        tokens.append(issued.pop("access_token"))
        assert issued == {"token_type": "Bearer", "matrix_server_name": "test", "expires_in": 3600}
    assert len(set(tokens)) == 2
    for token in tokens:
        assert (await ask(server, token)).json == {"sub": "@alice:test"}, "anybody may ask, and more than once"
    assert not await server.is_logged_in(tokens[0]), "it opens nothing"
    assert error(await server.call("POST", REQUEST, {}, tokens[0])) == (401, "M_UNKNOWN_TOKEN")
    assert error(await ask(server, alice)) == (401, "M_UNKNOWN_TOKEN"), "an access token is none"


@pytest_twisted.ensureDeferred
async def test_tokens_expire(server: Server) -> None:
    alice = await server.register("alice")
    token = (await server.call("POST", REQUEST, {}, alice)).json["access_token"]
    server.clock.advance(3599)
    assert (await ask(server, token)).code == 200
    server.clock.advance(1)
    assert error(await ask(server, token)) == (401, "M_UNKNOWN_TOKEN")
    assert len(await stored(server)) == 1
    await server.extras.openid.forget_old()
    assert await stored(server) == []


@pytest_twisted.ensureDeferred
async def test_what_is_refused(server: Server) -> None:
    await server.register("alice")
    bob = await server.register("bob")
    assert error(await server.call("POST", REQUEST, {}, bob)) == (403, "M_FORBIDDEN")
    assert error(await server.call("POST", REQUEST, {})) == (401, "M_MISSING_TOKEN")
    assert error(await server.call("GET", USER_INFO)) == (401, "M_MISSING_TOKEN")
    for token in ("", "x", "x" * 5000, "ü\udc80".encode("utf-8", "replace").decode()):
        assert error(await ask(server, token)) == (401, "M_UNKNOWN_TOKEN")


@pytest_twisted.ensureDeferred
async def test_tokens_are_not_stored_and_not_without_limit(server: Server) -> None:
    alice = await server.register("alice")
    tokens = []
    for _ in range(openid.MAX_TOKENS + 2):
        server.clock.advance(0.001)
        tokens.append((await server.call("POST", REQUEST, {}, alice)).json["access_token"])
    kept = await stored(server)
    assert len(kept) == openid.MAX_TOKENS
    assert all(token.encode() not in row for token in tokens for row in kept)
    assert [(await ask(server, token)).code for token in tokens[:3]] == [401, 401, 200]


@pytest_twisted.ensureDeferred
async def test_deactivation_takes_tokens_away(server: Server) -> None:
    alice = await server.register("alice")
    token = (await server.call("POST", REQUEST, {}, alice)).json["access_token"]
    auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "password"}
    assert (await server.call("POST", "/account/deactivate", {"auth": auth}, alice)).code == 200
    assert error(await ask(server, token)) == (401, "M_UNKNOWN_TOKEN")


@pytest_twisted.ensureDeferred
async def test_a_locked_user_proves_nothing(server: Server) -> None:
    alice = await server.register("alice")
    token = (await server.call("POST", REQUEST, {}, alice)).json["access_token"]
    for locked, code in ((True, 401), (False, 200)):
        sql = f"UPDATE users SET locked = {locked} WHERE user_id = '@alice:test'"
        await server.database.write("test.lock", lambda txn, sql=sql: txn.execute(sql))
        assert (await ask(server, token)).code == code


async def stored(server: Server) -> list[bytes]:
    def read(txn: Any) -> list[bytes]:
        txn.execute("SELECT token_hash FROM openid_tokens")
        return [bytes(token_hash) for (token_hash,) in txn.rows()]

    return await server.database.read("test.stored", read)


def test_a_listener_may_serve_that_alone() -> None:
    assert resources_of(["openid"]) == {"openid", "health"}
    assert "openid" in resources_of(["federation"])
