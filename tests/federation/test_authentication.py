"""Requests of other servers: who has signed what, for whom."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import pytest_twisted
from signedjson.key import generate_signing_key

from synapse.api.errors import MatrixError
from synapse.federation.authentication import RequestSignatures
from synapse.federation.client import authorization
from synapse.http.request import RawRequest, Request
from synapse.storage.database import Database
from tests.federation.key_servers import DAY, HERE, NOW, Ring, base64_of, published

KEY, OLD = generate_signing_key("1"), generate_signing_key("0")
PATH = "/_matrix/federation/v1/send/1?a=%20b"
BODY = {"pdus": [{"content": {"n": 1, "ü": ["\u2028", None]}}]}


class Heard:
    def __init__(self) -> None:
        self.servers: list[str] = []

    def heard_from(self, server: str) -> None:
        self.servers.append(server)


class Gate:
    """What the router asks; servers of the domain `shut.test` are not federated with."""

    def __init__(self, database: Database) -> None:
        self.ring = Ring(database)
        old = {"ed25519:0": {"key": base64_of(OLD), "expired_ts": NOW - DAY}}
        for name in ("a.test", "shut.test"):
            self.ring.servers.answers[name] = published(name, KEY, old=old)
        self.heard = Heard()
        heard: Any = self.heard
        self.signatures = RequestSignatures(
            HERE, self.ring.ring, lambda server: server != "shut.test", heard, self.ring._in_thread, self.ring.clock
        )

    async def origin_of(self, header: str | None, body: bytes = b"", method: str = "PUT", path: str = PATH) -> str:
        headers = {} if header is None else {"authorization": header}
        return await self.signatures.origin_of(Request(RawRequest(method, path, headers, body)))

    async def refused(self, header: str | None, body: bytes = b"", method: str = "PUT", path: str = PATH) -> str:
        with pytest.raises(MatrixError) as caught:
            await self.origin_of(header, body, method, path)
        assert self.heard.servers == []
        return f"{caught.value.code} {caught.value.errcode}"


def signed(content: Any = None, origin: str = "a.test", destination: str = HERE, key: Any = KEY, **other: str) -> str:
    return authorization(origin, key, destination, other.get("method", "PUT"), other.get("path", PATH), content)


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (None, b""),
        (BODY, orjson.dumps(BODY)),
        (BODY, orjson.dumps(BODY, option=orjson.OPT_INDENT_2)),
        ({}, b"{}"),
        (
            {"n": 1.5, "m": 10**18, "huge": 10**30},
            b'{"n": 1.50, "m": 1000000000000000000, "huge": 1' + b"0" * 30 + b"}",
        ),
        ({"long": "x" * 100_000}, orjson.dumps({"long": "x" * 100_000})),
    ],
)
@pytest_twisted.ensureDeferred
async def test_signed_requests_are_their_servers(database: Database, content: Any, body: bytes) -> None:
    gate = Gate(database)
    assert await gate.origin_of(signed(content), body) == "a.test"
    assert gate.heard.servers == ["a.test"]
    assert gate.ring.threads == (len(body) > 65536)


@pytest_twisted.ensureDeferred
async def test_what_is_signed_is_the_whole_request(database: Database) -> None:
    gate = Gate(database)
    header, body = signed(BODY), orjson.dumps(BODY)
    refused = "401 M_UNAUTHORIZED"
    assert await gate.refused(header, b"{}") == refused
    assert await gate.refused(header, b"") == refused
    assert await gate.refused(header, body, method="POST") == refused
    assert await gate.refused(header, body, path="/_matrix/federation/v1/send/2?a=%20b") == refused
    assert await gate.refused(header, body, path="/_matrix/federation/v1/send/1?a=+b") == refused
    assert await gate.refused(header, body, path="/_matrix/federation/v1/send/1") == refused
    assert await gate.refused(header.replace("a.test", "b.test"), body) == refused
    assert await gate.refused(header.replace(f'destination="{HERE}",', ""), body) == refused
    assert await gate.refused(header.replace(":1", ":0"), body) == refused
    assert await gate.origin_of(header, body) == "a.test"


@pytest_twisted.ensureDeferred
async def test_who_is_refused(database: Database) -> None:
    gate = Gate(database)
    assert await gate.refused(None) == "401 M_UNAUTHORIZED"
    assert await gate.refused("Bearer x") == "401 M_UNAUTHORIZED"
    assert await gate.refused(signed(destination="elsewhere.test")) == "401 M_UNAUTHORIZED"
    assert await gate.refused(signed(origin=HERE, key=gate.ring.key)) == "401 M_UNAUTHORIZED"
    assert await gate.refused(signed(origin="localhost:http")) == "400 M_INVALID_PARAM"
    assert await gate.refused(signed(origin="shut.test")) == "403 M_FORBIDDEN"
    assert await gate.refused(signed(origin="gone.test")) == "401 M_UNAUTHORIZED"
    assert await gate.refused(signed(key=OLD)) == "401 M_UNAUTHORIZED", "a key that is out of use signs no requests"
    assert await gate.refused(signed(key=generate_signing_key("1"))) == "401 M_UNAUTHORIZED"
    assert await gate.refused(signed().replace("ed25519:", "rsa:")) == "401 M_UNAUTHORIZED"
    assert await gate.refused(signed(BODY), b"{") == "400 M_NOT_JSON"
    assert await gate.refused(signed(BODY), b'{"a":"\\ud800"}') == "400 M_NOT_JSON"


@pytest_twisted.ensureDeferred
async def test_older_servers_do_not_say_for_whom(database: Database) -> None:
    from signedjson.sign import sign_json

    gate = Gate(database)
    request = sign_json({"method": "PUT", "uri": PATH, "origin": "a.test"}, "a.test", KEY)
    signature = request["signatures"]["a.test"]["ed25519:1"]
    assert await gate.origin_of(f"X-Matrix origin=a.test,key=ed25519:1,sig={signature}") == "a.test"


@pytest_twisted.ensureDeferred
async def test_one_of_several_signatures_must_be_right(database: Database) -> None:
    gate = Gate(database)
    wrong = signed(key=generate_signing_key("2"))
    assert await gate.origin_of(f"{wrong}, {signed()}") == "a.test"


@pytest_twisted.ensureDeferred
async def test_a_known_servers_request_costs_no_statement(database: Database) -> None:
    gate = Gate(database)
    await gate.origin_of(signed())
    with database.counted() as counts:
        await gate.origin_of(signed())
    assert (counts.statements_read, counts.statements_written) == (0, 0)
