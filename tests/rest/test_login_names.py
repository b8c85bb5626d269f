"""Logging in under all the names that an account has, and what those learn who try names that are nobody's."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.api.errors import limit_exceeded
from synapse.handlers import password_hashes
from synapse.storage.database import Database, Transaction
from tests.rest.accounts import Server, error
from tests.rest.driver import Reply

ALICE = "@alice:test"
MAIL = {"type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org"}
PHONE = {"type": "m.id.phone", "country": "GB", "phone": "07700 900 123"}
NAMES: list[dict[str, Any]] = [
    {"identifier": {"type": "m.id.user", "user": "alice"}},
    {"identifier": {"type": "m.id.user", "user": "@Alice:test"}},
    {"identifier": MAIL},
    {"identifier": {**MAIL, "address": " Alice@EXAMPLE.org"}},
    {"identifier": PHONE},
    {"identifier": {**PHONE, "country": "FR", "phone": "+44 7700 900123"}},
    {"identifier": {"type": "m.id.phone", "country": "gb", "number": "(07700) 900-123"}},
    {"identifier": {"type": "m.id.thirdparty", "medium": "msisdn", "address": "447700900123"}},
    {"user": "alice"},
    {"user": ALICE},
    {"medium": "email", "address": "alice@example.org"},
]
NOBODY: list[dict[str, Any]] = [
    {"identifier": {"type": "m.id.user", "user": "nobody"}},
    {"identifier": {"type": "m.id.user", "user": ""}},
    {"identifier": {"type": "m.id.user", "user": "@alice:elsewhere"}},
    {"identifier": {"type": "m.id.user", "user": "x" * 5000}},
    {"identifier": {**MAIL, "address": "nobody@example.org"}},
    {"identifier": {**PHONE, "phone": "07700 900 124"}},
    {"user": "@alice"},
]


async def log_in(server: Server, name: dict[str, Any], password: str = "password") -> Reply:
    return await server.call("POST", "/login", {"type": "m.login.password", "password": password, **name})


async def with_addresses(server: Server) -> None:
    await server.register("alice")
    for medium, address in (("email", "alice@example.org"), ("msisdn", "447700900123")):
        assert await server.accounts.contacts.store.add(ALICE, medium, address, 1, 1)


@pytest_twisted.ensureDeferred
async def test_every_name_of_an_account_logs_in(server: Server) -> None:
    await with_addresses(server)
    for name in NAMES:
        reply = await log_in(server, name)
        assert (reply.code, reply.json.get("user_id")) == (200, ALICE), (name, reply)


@pytest_twisted.ensureDeferred
async def test_a_login_tells_where_the_server_is(server: Server, database: Database) -> None:
    await server.register("alice")
    assert "well_known" not in (await log_in(server, {"user": "alice"})).json
    there = Server(database, public_baseurl="https://matrix.example.org/", default_identity_server="https://id.test")
    assert (await log_in(there, {"user": "alice"})).json["well_known"] == {
        "m.homeserver": {"base_url": "https://matrix.example.org"},
        "m.identity_server": {"base_url": "https://id.test"},
    }


@pytest_twisted.ensureDeferred
async def test_who_is_nobody_is_told_the_same_after_the_same_work(
    server: Server, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_addresses(server)
    await server.register("gone")
    await server.register("sso")

    def without_password(txn: Transaction) -> None:
        txn.execute("UPDATE users SET deactivated = true, password_hash = NULL WHERE user_id = '@gone:test'")
        txn.execute("UPDATE users SET password_hash = NULL WHERE user_id = '@sso:test'")

    await database.write("test", without_password)
    checks: list[str] = []

    def counting(digest: bytes, stored: str) -> bool:
        checks.append(stored)
        return check(digest, stored)

    check = password_hashes.check
    monkeypatch.setattr(password_hashes, "check", counting)
    wrong = await log_in(server, {"user": "alice"}, "wrong")
    assert error(wrong) == (403, "M_FORBIDDEN")
    for name in [*NOBODY, {"user": "gone"}, {"user": "sso"}]:
        checks.clear()
        reply = await log_in(server, name)
        assert (reply.code, reply.body) == (wrong.code, wrong.body), name
        assert len(checks) == 1, name


@pytest_twisted.ensureDeferred
async def test_all_names_of_an_account_share_its_limits(database: Database) -> None:
    server = Server(database, limited=True)
    await with_addresses(server)
    for name in NAMES[:5]:
        assert error(await log_in(server, name, "wrong")) == (403, "M_FORBIDDEN")
    for name in NAMES:
        assert error(await log_in(server, name)) == (429, "M_LIMIT_EXCEEDED")
    for _ in range(5):
        assert error(await log_in(server, NOBODY[4])) == (403, "M_FORBIDDEN")
    assert error(await log_in(server, NOBODY[4])) == (429, "M_LIMIT_EXCEEDED"), "as an account would be"
    assert error(await log_in(server, NOBODY[5])) == (403, "M_FORBIDDEN")
    server.clock.advance(120)
    for _ in range(8):
        assert (await log_in(server, NAMES[2])).code == 200, "what succeeds is no failure"


@pytest_twisted.ensureDeferred
async def test_what_was_not_even_tried_is_no_failure(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(database, limited=True, rc_login={"account": {"per_second": 100, "burst_count": 100}})
    await with_addresses(server)
    passwords = server.accounts.passwords

    async def busy(*args: Any) -> Any:
        raise limit_exceeded(1000)

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "matches", busy)
        for _ in range(6):
            assert error(await log_in(server, {"user": "alice"})) == (429, "M_LIMIT_EXCEEDED")
    monkeypatch.setattr(passwords, "renewed", busy)
    assert (await log_in(server, {"user": "alice"})).code == 200, "though its hash could not be made anew"


@pytest_twisted.ensureDeferred
async def test_guesses_at_a_stage_are_limited_as_those_at_the_login_are(database: Database) -> None:
    server = Server(database, limited=True)
    token = await server.register("alice")
    for secret in ("a", "b", "c"):
        auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": secret}
        reply = await server.call("POST", "/delete_devices", {"devices": [], "auth": auth}, token)
        assert (reply.code, reply.errcode) == (401, "M_FORBIDDEN")
    for _ in range(2):
        assert error(await log_in(server, {"user": "alice"}, "wrong")) == (403, "M_FORBIDDEN")
    auth["password"] = "password"
    limited = await server.call("POST", "/delete_devices", {"devices": [], "auth": auth}, token)
    assert error(limited) == (429, "M_LIMIT_EXCEEDED")


@pytest_twisted.ensureDeferred
async def test_a_login_brings_the_hash_up_to_date(server: Server, database: Database) -> None:
    await server.register("alice")

    def stored(txn: Transaction) -> str:
        txn.execute("SELECT password_hash FROM users WHERE user_id = %s", (ALICE,))
        return str(txn.one()[0])

    before = await database.read("test", stored)
    assert (await log_in(server, {"user": "alice"})).code == 200
    assert await database.read("test", stored) == before
    cheap = {"algorithm": "argon2", "argon2": {"time_cost": 1, "memory_cost": "1M", "parallelism": 1}}
    other = Server(database, password_config=cheap)
    assert error(await log_in(other, {"user": "alice"}, "wrong")) == (403, "M_FORBIDDEN")
    assert await database.read("test", stored) == before
    assert (await log_in(other, {"user": "alice"})).code == 200
    assert (await database.read("test", stored)).startswith("$argon2id$v=19$m=1024,t=1,p=1$")
    assert (await log_in(other, {"user": "alice"})).code == 200
    assert (await log_in(server, {"user": "alice"})).code == 200
    assert (await database.read("test", stored)).startswith("$2b$04$")


@pytest.mark.parametrize(
    ("options", "logs_in", "proves"),
    [
        ({"enabled": False}, False, False),
        ({"localdb_enabled": False}, False, False),
        ({"enabled": "only_for_reauth"}, False, True),
        ({"enabled": True}, True, True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_passwords_can_be_switched_off(
    database: Database, options: dict[str, Any], logs_in: bool, proves: bool
) -> None:
    server = Server(database, password_config=options)
    token = await server.register("alice")
    kinds = [flow["type"] for flow in (await server.call("GET", "/login")).json["flows"]]
    assert ("m.login.password" in kinds) == logs_in
    assert (await log_in(server, {"user": "alice"})).code == (200 if logs_in else 400)
    capabilities = (await server.call("GET", "/capabilities", user=token)).json["capabilities"]
    assert capabilities["m.change_password"] == {"enabled": proves}
    auth = {"type": "m.login.password", "user": "alice", "password": "password"}
    changed = await server.call("POST", "/account/password", {"new_password": "better", "auth": auth}, token)
    assert changed.code == (200 if proves else 403)


@pytest.mark.parametrize(
    ("identifier", "errcode"),
    [
        ({"type": "m.id.thirdparty"}, "M_MISSING_PARAM"),
        ({"type": "m.id.thirdparty", "medium": "email"}, "M_MISSING_PARAM"),
        ({"type": "m.id.thirdparty", "medium": "email", "address": "nothing"}, "M_INVALID_PARAM"),
        ({"type": "m.id.thirdparty", "medium": "post", "address": "x"}, "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
        ({"type": "m.id.thirdparty", "medium": "email", "address": ["x"]}, "M_BAD_JSON"),
        ({"type": "m.id.phone", "phone": "1"}, "M_MISSING_PARAM"),
        ({"type": "m.id.phone", "country": "XX", "phone": "07700900123"}, "M_INVALID_PARAM"),
        ({"type": "m.id.phone", "country": "GB", "phone": "beef"}, "M_INVALID_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_names_that_cannot_be(server: Server, identifier: Any, errcode: str) -> None:
    assert error(await log_in(server, {"identifier": identifier})) == (400, errcode)
