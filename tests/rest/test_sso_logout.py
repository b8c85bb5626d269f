"""Logging out at an OpenID Connect provider, which logs out here: back-channel logout."""

from __future__ import annotations

import json
from typing import Any

import pytest_twisted

from synapse.storage.database import Database, Transaction
from tests.rest.accounts import START, Server
from tests.rest.oidc import Idp, server_of
from tests.rest.sso import Browser, login_token

LOGOUT = "/_synapse/client/oidc/backchannel_logout"


async def _log_out(server: Server, idp: Idp, **claims: Any) -> int:
    browser = Browser(server)
    token = (await browser.get(f"{idp.url}/logout_token", claims=json.dumps(claims))).body.decode()
    return (await browser.post(LOGOUT, {"logout_token": token})).code


async def _device(server: Server, device_id: str) -> str:
    body = {"type": "m.login.token", "token": login_token(await Browser(server).log_in()), "device_id": device_id}
    return str((await server.call("POST", "/login", body)).json["access_token"])


@pytest_twisted.ensureDeferred
async def test_who_logs_out_there_is_logged_out_here(database: Database, idp: Idp) -> None:
    server = server_of(database, idp, backchannel_logout_enabled=True)
    phone = await _device(server, "PHONE")
    idp.set(claims={"sid": "another session"})
    laptop = await _device(server, "LAPTOP")
    idp.set()
    waiting = login_token(await Browser(server).log_in())
    assert await _log_out(server, idp) == 200
    assert not await server.is_logged_in(phone)
    assert await server.is_logged_in(laptop)
    used = await server.call("POST", "/login", {"type": "m.login.token", "token": waiting})
    assert used.code == 403  # it came of that session too
    assert await _log_out(server, idp) == 200  # once more does no harm
    assert await _log_out(server, idp, sid="another session") == 200
    assert not await server.is_logged_in(laptop)


@pytest_twisted.ensureDeferred
async def test_a_device_ends_with_the_session_that_it_was_last_logged_in_by(database: Database, idp: Idp) -> None:
    server = server_of(database, idp, backchannel_logout_enabled=True)
    await _device(server, "PHONE")
    idp.set(claims={"sid": None})
    phone = await _device(server, "PHONE")
    idp.set()
    assert await _log_out(server, idp) == 200
    assert await server.is_logged_in(phone)


LOGOUTS: list[dict[str, Any]] = [
    {"iss": "https://evil.example"},
    {"aud": "another"},
    {"iat": START - 601},
    {"iat": START + 121},
    {"iat": None},
    {"exp": START - 121},
    {"jti": None},
    {"events": None},
    {"events": {"another": {}}},
    {"nonce": "x"},
    {"sid": None},
    {"sid": 5},
    {"sid": "a\x00"},
]


@pytest_twisted.ensureDeferred
async def test_logouts_that_are_not_believed(database: Database, idp: Idp) -> None:
    server = server_of(database, idp, backchannel_logout_enabled=True)
    phone = await _device(server, "PHONE")
    for claims in LOGOUTS:
        assert (claims, await _log_out(server, idp, **claims)) == (claims, 400)
    for wrong in ({"alg": "none"}, {"alg": "HS256"}, {"alg": "confused"}, {"key": "other"}):
        idp.set(**wrong)
        assert (wrong, await _log_out(server, idp)) == (wrong, 400)
    idp.set()
    for form in ({}, {"logout_token": ""}, {"logout_token": "a.b.c"}, {"logout_token": "é" * 70_000}):
        assert (await Browser(server).post(LOGOUT, form)).code == 400
    assert await _log_out(server, idp, sub="somebody else") == 200  # who has no such session
    assert await server.is_logged_in(phone)
    off = server_of(database, idp)
    assert await _log_out(off, idp) == 400
    assert await server.is_logged_in(phone)
    careless = server_of(database, idp, backchannel_logout_enabled=True, backchannel_logout_ignore_sub=True)
    careless.stream_writer("device_lists").position = server.stream_writer("device_lists").position
    assert await _log_out(careless, idp, sub="somebody else") == 200
    assert await database.read("test", _devices) == []


def _devices(txn: Transaction) -> list[Any]:
    txn.execute("SELECT device_id FROM devices UNION ALL SELECT device_id FROM sso_devices")
    return txn.rows()
