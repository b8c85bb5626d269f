"""An OpenID Connect provider that runs as a process of its own, and servers that know it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from synapse.storage.database import Database
from tests.rest.accounts import START, Server
from tests.rest.driver import Reply
from tests.rest.sso import server_with, text
from tests.support.providers import Provider, running

SECRET = "the:client/secret of thirty-two letters"
CALLBACK = "/_synapse/client/oidc/callback"
MAPPING = {
    "localpart_template": "{{ user.preferred_username }}",
    "display_name_template": "{{ user.name }}",
    "email_template": "{{ user.email }}",
}
ALICE = {"preferred_username": "alice", "name": "Alice", "email": "alice@example.org"}


@pytest.fixture(scope="module")
def oidc_process() -> Iterator[Provider]:
    with running("oidc_server") as provider:
        yield provider


class Idp:
    """The provider, at the time of the test's clock."""

    def __init__(self, process: Provider) -> None:
        self.process = process
        self.url = process.url

    def set(self, **behaviour: Any) -> None:
        self.process.set(**{"now": START, "user": ALICE, **behaviour})


@pytest.fixture
def idp(oidc_process: Provider) -> Idp:
    idp = Idp(oidc_process)
    idp.set()
    return idp


def provider_of(idp: Any, **options: Any) -> dict[str, Any]:
    return {
        "idp_id": "example",
        "idp_name": "Example",
        "issuer": idp.url,
        "client_id": "matrix",
        "client_secret": SECRET,
        "skip_verification": True,
        "user_mapping_provider": {"config": MAPPING},
        **options,
    }


def server_of(database: Database, idp: Any, *, sso: Any = None, reactor: Any = None, **options: Any) -> Server:
    return server_with(database, oidc_providers=[provider_of(idp, **options)], sso=sso or {}, reactor=reactor)


def refused(page: Reply, code: int, words: str) -> None:
    assert (page.code, words in text(page, "error")) == (code, True), page.body.decode()
    assert b"loginToken" not in page.body
