"""What clients are told of an OAuth 2.0 authorization server."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_twisted

from synapse.http.client import ClientAnswer, NotSent
from synapse.storage.database import Database
from tests.rest.accounts import Server, error

PATH = "/_matrix/client/v1/auth_metadata"
ISSUER = "https://account.test/realm/"
METADATA: dict[str, Any] = {
    "issuer": ISSUER,
    **{name: f"https://account.test/{name}" for name in ("authorization_endpoint", "token_endpoint")},
    **{name: f"https://account.test/{name}" for name in ("revocation_endpoint", "registration_endpoint")},
    "response_types_supported": ["code"],
    "grant_types_supported": ["authorization_code", "refresh_token"],
    "response_modes_supported": ["query", "fragment"],
    "code_challenge_methods_supported": ["S256"],
    "account_management_uri": "https://account.test/manage",
}
RFC = "/.well-known/oauth-authorization-server/realm"
OPENID = "/realm/.well-known/openid-configuration"


class Account:
    """Takes the place of the client for requests; the authorization server answers what `told` has by path."""

    def __init__(self, told: dict[str, Any] | None) -> None:
        self.told = told
        self.asked: list[str] = []

    async def request(self, method: str, url: str, **_: Any) -> ClientAnswer:
        parts = urlsplit(url)
        self.asked.append(parts.path)
        if self.told is None or parts.netloc != "account.test":
            raise NotSent("not there")
        found = self.told.get(parts.path)
        return ClientAnswer(404, {}, b"") if found is None else ClientAnswer(200, {}, _json(found))


def _json(value: Any) -> bytes:
    import orjson

    return orjson.dumps(value)


def server_of(database: Database, account: Account) -> Server:
    server = Server(database, oauth={"issuer": ISSUER})
    services: Any = server.sso
    services._provider_client = account
    return server


@pytest_twisted.ensureDeferred
async def test_none_is_configured(server: Server) -> None:
    for path in (PATH, "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata"):
        assert error(await server.call("GET", path)) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize("place", [RFC, OPENID])
@pytest_twisted.ensureDeferred
async def test_metadata_is_told_and_kept(database: Database, place: str) -> None:
    account = Account({place: METADATA})
    server = server_of(database, account)
    for _ in range(2):
        reply = await server.call("GET", PATH)
        assert (reply.code, reply.json) == (200, METADATA)
        assert reply.headers["cache-control"] == "public, max-age=3600"
    assert account.asked == [RFC, OPENID][: 1 + (place == OPENID)]
    account.told = None  # what is known is better than nothing
    server.clock.advance(3600)
    assert (await server.call("GET", PATH)).json == METADATA
    server.clock.advance(30)
    account.told = {RFC: {**METADATA, "token_endpoint": "https://account.test/new"}}
    assert (await server.call("GET", PATH)).json["token_endpoint"] == "https://account.test/new"


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://evil.test/"},
        {"token_endpoint": None},
        {"registration_endpoint": 5},
        {"code_challenge_methods_supported": ["plain"]},
        {"grant_types_supported": "authorization_code refresh_token"},
        {"response_types_supported": [{}]},
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_metadata_that_clients_could_not_use(database: Database, changed: Any) -> None:
    account = Account({RFC: {**METADATA, **changed}})
    server = server_of(database, account)
    assert error(await server.call("GET", PATH)) == (502, "M_UNKNOWN")
    account.told = {RFC: METADATA}
    assert (await server.call("GET", PATH)).code == 502  # it was asked just now
    server.clock.advance(30)
    assert (await server.call("GET", PATH)).code == 200


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there(database: Database) -> None:
    assert error(await server_of(database, Account(None)).call("GET", PATH)) == (502, "M_UNKNOWN")
