"""Logging in by JSON web tokens."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import orjson
import pytest
import pytest_twisted
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from synapse.config import ConfigError, from_options
from synapse.storage.database import Database
from tests.rest.accounts import OPTIONS, START, Server, error
from tests.rest.driver import Reply

KIND = "org.matrix.login.jwt"
SECRET = "a secret that nobody guesses, as it is long"
RSA = RSAKey.generate_key(2048, private=True)
EC = ECKey.generate_key("P-256", private=True)


def server_with(database: Database, **options: Any) -> Server:
    config = {"enabled": True, "secret": SECRET, "algorithm": "HS256", **options}
    return Server(database, enable_registration=False, jwt_config=config)


def token(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    key = OctKey.import_key(key) if isinstance(key, str) else key
    return jwt.encode({"alg": algorithm, **header}, claims, key, algorithms=[algorithm])


async def login(server: Server, text: Any, **body: Any) -> Reply:
    return await server.call("POST", "/login", {"type": KIND, "token": text, **body})


def by_hand(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None = None) -> str:
    """A token that no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    signature = b"" if secret is None else hmac.digest(secret, ".".join(parts).encode(), "sha256")
    return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])


@pytest_twisted.ensureDeferred
async def test_who_has_a_token_logs_in(database: Database) -> None:
    server = server_with(database, display_name_claim="name")
    assert {"type": KIND} in (await server.call("GET", "/login")).json["flows"]
    first = await login(server, token({"sub": "Alice", "name": "Älice"}), device_id="PHONE", refresh_token=True)
    assert first.code == 200, first
    assert (first.json["user_id"], first.json["device_id"]) == ("@alice:test", "PHONE")
    assert "refresh_token" in first.json
    assert (await server.call("GET", "/profile/@alice:test")).json == {"displayname": "Älice"}
    again = await login(server, token({"sub": "alice", "name": "other"}))
    assert again.json["user_id"] == "@alice:test"
    assert (await server.call("GET", "/profile/@alice:test")).json == {"displayname": "Älice"}
    for reply in (first, again):
        assert await server.is_logged_in(reply.json["access_token"])
    assert error(await server.login("alice", "")) == (403, "M_FORBIDDEN"), "there is no password"


@pytest_twisted.ensureDeferred
async def test_it_is_offered_only_where_it_is_configured(server: Server) -> None:
    assert {"type": KIND} not in (await server.call("GET", "/login")).json["flows"]
    assert error(await login(server, token({"sub": "alice"}))) == (400, "M_UNKNOWN")


@pytest.mark.parametrize(
    ("algorithm", "key"), [("RS256", RSA), ("PS512", RSA), ("ES256", EC)], ids=lambda v: str(v)[:6]
)
@pytest_twisted.ensureDeferred
async def test_other_algorithms(database: Database, algorithm: str, key: Any) -> None:
    public = key.as_pem(private=False).decode()
    server = server_with(database, secret=public, algorithm=algorithm)
    assert (await login(server, token({"sub": "alice"}, key, algorithm))).code == 200
    other = type(key).generate_key({"RSA": 2048, "EC": "P-256"}[key.key_type], private=True)
    assert error(await login(server, token({"sub": "alice"}, other, algorithm))) == (403, "M_FORBIDDEN")
    # The public key is no secret: who takes it for one, and has the token say so, proves nothing.
    confused = by_hand({"alg": "HS256", "typ": "JWT"}, {"sub": "alice"}, public.encode())
    assert error(await login(server, confused)) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "forged",
    [
        token({"sub": "alice"}, "another secret that nobody guesses as well"),
        token({"sub": "alice"}, algorithm="HS512"),
        token({"sub": "alice"}, RSA, "RS256"),
        by_hand({"alg": "none"}, {"sub": "alice"}),
        by_hand({"alg": "None", "typ": "JWT"}, {"sub": "alice"}),
        by_hand({"alg": "HS256"}, {"sub": "alice"}),
        by_hand({"alg": "HS256", "crit": ["x"], "x": 1}, {"sub": "alice"}, SECRET.encode()),
        by_hand({}, {"sub": "alice"}, SECRET.encode()),
        token({"sub": "alice"})[:-2],
        token({"sub": "alice"}).rpartition(".")[0] + ".",
        token({"sub": "alice"}).replace(".", "."[:0], 1),
        token({"sub": "alice", "exp": START}),
        token({"sub": "alice", "exp": "soon"}),
        token({"sub": "alice", "nbf": START + 1}),
        token({"sub": "alice", "nbf": "now"}),
        token({"sub": "alice", "aud": "somebody"}),
        token({"sub": "alice", "aud": ["test"]}),
        token({}),
        token({"sub": ""}),
        token({"sub": "a b"}),
        token({"sub": "alice:test"}),
        token({"sub": "x" * 300}),
        token({"sub": "alice\x00"}),
        by_hand({"alg": "HS256"}, {"sub": 5}, SECRET.encode()),
        by_hand({"alg": "HS256"}, {"sub": ["alice"]}, SECRET.encode()),
        by_hand({"alg": "HS256"}, ["alice"], SECRET.encode()),  # type: ignore[arg-type]  # no claims at all
        "",
        "x",
        "..",
        "ü.ü.ü",
        "a" * 20_000,
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_proves_nothing(database: Database, forged: str) -> None:
    server = server_with(database)
    await server.accounts.registration.register("alice", None, None)
    reply = await login(server, forged)
    assert error(reply) == (403, "M_FORBIDDEN")
    assert SECRET not in reply.json["error"]


@pytest_twisted.ensureDeferred
async def test_times(database: Database) -> None:
    server = server_with(database)
    good = token({"sub": "alice", "exp": START + 60, "nbf": START})
    assert (await login(server, good)).code == 200
    server.clock.advance(60)
    reply = await login(server, good)
    assert error(reply) == (403, "M_FORBIDDEN")
    assert "expired" in reply.json["error"]


@pytest_twisted.ensureDeferred
async def test_issuer_and_audience(database: Database) -> None:
    server = server_with(database, issuer="https://i", audiences=["a", "b"], subject_claim="who")
    good = {"who": "alice", "iss": "https://i", "aud": "a"}
    for change in ({}, {"aud": ["x", "b"]}):
        assert (await login(server, token({**good, **change}))).code == 200
    wrong: list[dict[str, Any]] = [
        {"iss": "https://j"},
        {"iss": None},
        {"aud": "x"},
        {"aud": ["x"]},
        {"aud": None},
        {"aud": []},
        {"who": None, "sub": "alice"},
    ]
    for change in wrong:
        claims = {name: value for name, value in {**good, **change}.items() if value is not None}
        assert error(await login(server, token(claims))) == (403, "M_FORBIDDEN"), change


@pytest_twisted.ensureDeferred
async def test_bodies_that_are_none(database: Database) -> None:
    server = server_with(database)
    assert error(await server.call("POST", "/login", {"type": KIND})) == (400, "M_MISSING_PARAM")
    assert error(await login(server, 5)) == (400, "M_BAD_JSON")


@pytest_twisted.ensureDeferred
async def test_a_deactivated_user_stays_out(database: Database) -> None:
    server = server_with(database)
    await login(server, token({"sub": "alice"}))
    await server.accounts.deactivation.deactivate("@alice:test", erase=False)
    assert error(await login(server, token({"sub": "alice"}))) == (403, "M_USER_DEACTIVATED")


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"algorithm": None}, "jwt_config.algorithm"),
        ({"algorithm": "none"}, "jwt_config.algorithm"),
        ({"algorithm": "HS257"}, "jwt_config.algorithm"),
        ({"secret": None}, "jwt_config.secret"),
        ({"algorithm": "RS256"}, "jwt_config.secret"),
        ({"algorithm": "RS256", "secret": EC.as_pem(private=False).decode()}, "jwt_config.secret"),
        ({"algorithm": "RS256", "secret": RSA.as_pem(private=True).decode()}, "jwt_config.secret"),
        ({"algorithm": "HS256", "secret": RSA.as_pem(private=False).decode()}, "jwt_config.secret"),
    ],
)
def test_mistakes(change: dict[str, Any], option: str) -> None:
    given = {"enabled": True, "secret": SECRET, "algorithm": "HS256", **change}
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(ConfigError) as refused:
        from_options({**OPTIONS, "jwt_config": given})
    assert refused.value.option == option
    assert "BEGIN" not in str(refused.value)


def test_a_short_secret_is_warned_of() -> None:
    config = from_options({**OPTIONS, "jwt_config": {"enabled": True, "secret": "short", "algorithm": "HS256"}})
    assert "jwt_config.secret" in "".join(config.warnings)
    assert orjson.dumps(list(config.warnings)).find(b"'short'") == -1
