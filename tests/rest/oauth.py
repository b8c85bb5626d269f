"""An OAuth 2.0 authorization server that runs as a process of its own, and servers that take its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from synapse.http.addresses import AddressFilter
from synapse.http.client import ClientAnswer
from synapse.http.outside import OutsideClient, Trust
from synapse.storage.database import Database
from tests.rest.accounts import START, Server
from tests.rest.sso import _elsewhere
from tests.support.providers import Provider, running
from tests.support.reactor import HeldReactor

ISSUER = "https://account.test/"
CLIENT = {"client_id": "matrix", "client_secret": "the:client/secret of thirty-two letters"}
API = "urn:matrix:client:api:*"
PHONE = "urn:matrix:client:device:PHONE"
WHOAMI = "/account/whoami"


@pytest.fixture(scope="module")
def oauth_process() -> Iterator[Provider]:
    with running("oauth_server") as provider:
        yield provider


class AuthorizationServer:
    """The authorization server, at the time of the tests' clocks."""

    def __init__(self, process: Provider) -> None:
        self.process = process
        self.url = process.url

    def set(self, **behaviour: Any) -> None:
        self.process.set(**{"now": START, **behaviour})

    def issue(self, subject: str = "alice-there", scope: str = f"openid {API} {PHONE}", **claims: Any) -> str:
        """A new access token."""
        claims = {"sub": subject, "scope": scope, "username": "alice", **claims}
        claims = {name: value for name, value in claims.items() if value is not None}
        return _elsewhere(f"{self.url}/issue?{urlencode({'claims': json.dumps(claims)})}", None).body.decode()

    def revoke(self, token: str) -> None:
        assert _elsewhere(f"{self.url}/revoke", urlencode({"token": token}).encode()).code == 200

    @property
    def questions(self) -> list[dict[str, Any]]:
        """What it was asked about tokens since `set`."""
        return [one for one in self.process.asked() if one["path"] == "/introspect"]


@pytest.fixture
def away(oauth_process: Provider) -> AuthorizationServer:
    found = AuthorizationServer(oauth_process)
    found.set()
    return found


class Client:
    """The real client for requests, but that `https://account.test/` is at the process."""

    def __init__(self, reactor: HeldReactor, url: str) -> None:
        self._client = OutsideClient(reactor, AddressFilter((), ()), Trust())
        self.url = url

    async def request(self, method: str, url: str, *args: Any, **kw: Any) -> ClientAnswer:
        return await self._client.request(method, url.replace(ISSUER, f"{self.url}/"), *args, **kw)


def server_of(
    database: Database,
    away: AuthorizationServer,
    *,
    limited: bool = False,
    reactor: HeldReactor | None = None,
    **options: Any,
) -> Server:
    reactor = reactor or HeldReactor()
    oauth = {"issuer": ISSUER, **CLIENT, **options}
    server = Server(database, limited=limited, reactor=reactor, oauth=oauth)
    services: Any = server.sso
    services._provider_client = Client(reactor, away.url)
    return server
