"""Access tokens of an OAuth 2.0 authorization server, which runs as a process of its own."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.app._accounts import in_thread
from synapse.handlers.oauth.introspection import AT_ONCE
from synapse.http.client import AnswerLate, ClientAnswer
from synapse.storage.database import Database, Transaction
from tests.rest.accounts import START, Server, admin_of, error
from tests.rest.oauth import API, ISSUER, PHONE, WHOAMI, AuthorizationServer, server_of
from tests.rest.sso import Impatient
from tests.rest.sso import _elsewhere as elsewhere
from tests.rest.test_auth_metadata import METADATA

ALICE = "@alice:test"
ADMIN = "urn:synapse:admin:*"


async def whoami(server: Server, token: str) -> Any:
    reply = await server.call("GET", WHOAMI, user=token)
    assert reply.code == 200, reply
    return reply.json


async def stored_hashes(database: Database) -> list[tuple[str, str | None]]:
    def read(txn: Transaction) -> list[tuple[str, str | None]]:
        txn.execute("SELECT user_id, device_id FROM access_tokens ORDER BY user_id, device_id")
        return [(user_id, device_id) for user_id, device_id in txn.rows()]

    return await database.read("test", read)


# -- coming in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"introspection_endpoint": "url"}, {"client_auth_method": "client_secret_post"}],
    ids=["metadata", "option", "post"],
)
@pytest_twisted.ensureDeferred
async def test_a_new_user_and_the_same_again(
    database: Database, away: AuthorizationServer, options: dict[str, str]
) -> None:
    given = {name: f"{away.url}/introspect" if value == "url" else value for name, value in options.items()}
    server = server_of(database, away, **given)
    token = away.issue(exp=START + 3600)
    for _ in range(3):
        assert await whoami(server, token) == {"user_id": ALICE, "device_id": "PHONE", "is_guest": False}
    (asked,) = away.questions
    assert (asked["form"]["token"], asked["form"]["token_type_hint"]) == (token, "access_token")
    devices = (await server.call("GET", "/devices", user=token)).json["devices"]
    assert [device["device_id"] for device in devices] == ["PHONE"]
    assert server.streams["device_lists"].told == [ALICE]
    assert (await server.call("GET", f"/profile/{ALICE}", user=token)).json["displayname"] == "alice"
    renewed = away.issue(username="renamed", token_type="Bearer")
    assert (await whoami(server, renewed))["user_id"] == ALICE
    assert server.streams["device_lists"].told == [ALICE]
    assert await stored_hashes(database) == [(ALICE, "PHONE")]


@pytest_twisted.ensureDeferred
async def test_unstable_scopes_and_two_devices(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    unstable = "urn:matrix:org.matrix.msc2967.client"
    phone, laptop = away.issue(), away.issue(scope=f"{unstable}:api:* {unstable}:device:LAPTOP")
    both = away.issue(scope=f"{API} {PHONE} {unstable}:api:* {unstable}:device:PHONE")
    assert [(await whoami(server, one))["device_id"] for one in (phone, laptop, both)] == ["PHONE", "LAPTOP", "PHONE"]
    assert server.streams["device_lists"].told == [ALICE, ALICE]
    # One device that goes leaves the other; the token of the first, once revoked, does not bring it back.
    away.revoke(phone)
    away.revoke(both)
    boss = await admin_of(server)
    reply = await server.call("DELETE", f"/_synapse/admin/v2/users/{ALICE}/devices/PHONE", user=boss)
    assert reply.code == 200, reply
    assert error(await server.call("GET", WHOAMI, user=phone)) == (401, "M_UNKNOWN_TOKEN")
    assert (await whoami(server, laptop))["device_id"] == "LAPTOP"
    assert [device.device_id for device in await server.accounts.device_store.of_user(ALICE)] == ["LAPTOP"]


@pytest_twisted.ensureDeferred
async def test_a_device_that_goes_while_its_token_is_good(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token = away.issue()
    await whoami(server, token)
    await server.accounts.devices.delete(ALICE, ["PHONE"])
    assert (await whoami(server, token))["device_id"] == "PHONE"
    assert len(away.questions) == 2  # what was said before does not count
    assert server.streams["device_lists"].told == [ALICE] * 3


@pytest_twisted.ensureDeferred
async def test_a_device_ends_what_it_was_logged_in_by_before(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    assert (await whoami(server, away.issue(scope=f"{API} {PHONE}2")))["user_id"] == ALICE
    made = await server.sessions.new_sessions.begin(ALICE, _device("PHONE"), refresh=False)
    assert made.access_token is not None
    assert await server.is_logged_in(made.access_token)
    assert (await whoami(server, away.issue()))["device_id"] == "PHONE"
    assert not await server.is_logged_in(made.access_token)


def _device(device_id: str) -> Any:
    from synapse.handlers.new_sessions import DeviceRequest

    return DeviceRequest(device_id=device_id)


@pytest_twisted.ensureDeferred
async def test_administrators(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    path = f"/_synapse/admin/v2/users/{ALICE}/devices"
    plain, admin = away.issue(), away.issue(scope=f"{API} {PHONE} {ADMIN}")
    assert (await server.call("GET", path, user=admin)).code == 200
    assert error(await server.call("GET", path, user=plain)) == (403, "M_FORBIDDEN")  # on the same device
    # Nor are those administrators by such a token who are by others.
    await admin_of(server)
    boss = away.issue("boss-there", username="boss")
    assert (await server.accounts.users.get("@boss:test")).admin  # type: ignore[union-attr]
    await server.sso.users._identities.add(_identity("boss-there"), "@boss:test")
    assert error(await server.call("GET", path, user=boss)) == (403, "M_FORBIDDEN")


def _identity(subject: str) -> Any:
    from synapse.storage.external_ids import ExternalId

    return ExternalId(ISSUER, subject)


@pytest_twisted.ensureDeferred
async def test_first_sight_in_two_processes_at_once(database: Database, away: AuthorizationServer) -> None:
    """The same person, with two tokens for one device, in two processes that know nothing of each other."""
    servers = [server_of(database, away), server_of(database, away)]
    servers[1].streams["device_lists"] = servers[0].stream_writer("device_lists")
    for round_ in range(3):
        tokens = [away.issue(f"there{round_}", f"{API} {PHONE}{round_}", username=f"user{round_}") for _ in range(2)]
        found = await gatherResults(
            [Deferred.fromCoroutine(whoami(server, token)) for server in servers for token in tokens]
        )
        assert {(one["user_id"], one["device_id"]) for one in found} == {(f"@user{round_}:test", f"PHONE{round_}")}
        for server in servers:
            for token in tokens:
                await whoami(server, token)
    assert await stored_hashes(database) == [(f"@user{one}:test", f"PHONE{one}") for one in range(3)]


# -- refusals --------------------------------------------------------------------------------------------------------

TWO = f"{API} {PHONE} urn:matrix:client:device:OTHER"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"scope": None}, (403, "M_FORBIDDEN")),
        ({"scope": f"openid {PHONE}"}, (403, "M_FORBIDDEN")),
        ({"scope": f"urn:matrix:client:api:read:* {PHONE}"}, (403, "M_FORBIDDEN")),
        ({"scope": API}, (403, "M_FORBIDDEN")),
        ({"scope": TWO}, (403, "M_FORBIDDEN")),
        ({"scope": f"{API} urn:matrix:client:device:"}, (403, "M_FORBIDDEN")),
        ({"scope": f"{API} urn:matrix:client:device:é"}, (403, "M_FORBIDDEN")),
        ({"scope": f'{API} urn:matrix:client:device:"'}, (403, "M_FORBIDDEN")),
        ({"scope": f"{API} urn:matrix:client:device:{'x' * 256}"}, (403, "M_FORBIDDEN")),
        ({"scope": [API, PHONE]}, (403, "M_FORBIDDEN")),
        ({"subject": None}, (403, "M_FORBIDDEN")),
        ({"subject": 5}, (403, "M_FORBIDDEN")),
        ({"subject": ""}, (403, "M_FORBIDDEN")),
        ({"subject": "a\0b"}, (403, "M_FORBIDDEN")),
        ({"subject": "x" * 1025}, (403, "M_FORBIDDEN")),
        ({"username": None}, (403, "M_FORBIDDEN")),
        ({"username": {"a": 1}}, (403, "M_FORBIDDEN")),
        ({"username": "\0"}, (403, "M_FORBIDDEN")),
        ({"exp": "tomorrow"}, (403, "M_FORBIDDEN")),
        ({"exp": 1e300}, (403, "M_FORBIDDEN")),
        ({"nbf": START + 1}, (401, "M_UNKNOWN_TOKEN")),
        ({"exp": START}, (401, "M_UNKNOWN_TOKEN")),
        ({"exp": -1.5}, (403, "M_FORBIDDEN")),
        ({"iss": "https://evil.test/"}, (401, "M_UNKNOWN_TOKEN")),
        ({"token_type": "refresh_token"}, (401, "M_UNKNOWN_TOKEN")),
        ({"token_type": 5}, (401, "M_UNKNOWN_TOKEN")),
    ],
    ids=lambda one: str(one)[:60],
)
@pytest_twisted.ensureDeferred
async def test_tokens_that_are_refused(
    database: Database, away: AuthorizationServer, claims: dict[str, Any], expected: tuple[int, str]
) -> None:
    server = server_of(database, away)
    token = away.issue(**claims)
    for _ in range(2):
        assert error(await server.call("GET", WHOAMI, user=token)) == expected
    assert len(away.questions) == 1
    assert await stored_hashes(database) == []
    assert await server.accounts.users.get(ALICE) is None


@pytest.mark.parametrize("token", ["syt_YWxpY2U_abcdefghijklmnopqrst_000000", "x" * 4097, "tö", "a\x01b"])
@pytest_twisted.ensureDeferred
async def test_what_nobody_is_asked_about(database: Database, away: AuthorizationServer, token: str) -> None:
    server = server_of(database, away)
    assert error(await server.call("GET", WHOAMI, user=token)) == (401, "M_UNKNOWN_TOKEN")
    own = await server.register("carol")
    await whoami(server, own)
    assert away.process.asked() == []


@pytest_twisted.ensureDeferred
async def test_without_credentials_nobody_is_asked(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away, client_id=None, client_secret=None)
    assert error(await server.call("GET", WHOAMI, user=away.issue())) == (401, "M_UNKNOWN_TOKEN")
    assert away.questions == []


@pytest_twisted.ensureDeferred
async def test_names_and_registration(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    await server.register("alice")
    for options in ({}, {"enable_registration": False}):
        refusing = server_of(database, away, **options)
        reply = await refusing.call("GET", WHOAMI, user=away.issue())
        assert (error(reply), "administrator" in reply.json["error"]) == ((403, "M_FORBIDDEN"), True)
    # Whom an administrator has linked needs no name.
    await server.sso.users._identities.add(_identity("alice-there"), ALICE)
    closed = server_of(database, away, enable_registration=False)
    assert (await whoami(closed, away.issue(username=None)))["user_id"] == ALICE
    named = server_of(database, away, localpart_claim="login")
    assert (await whoami(named, away.issue("other", login="Bob Ö")))["user_id"] == "@bob=20=c3=96:test"


@pytest_twisted.ensureDeferred
async def test_accounts_that_are_locked_suspended_or_gone(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token, boss = away.issue(), await admin_of(server)
    await whoami(server, token)

    async def put(what: str, value: bool) -> None:
        path = f"/_matrix/client/v1/admin/{what}/{ALICE}"
        reply = await server.call("PUT", path, {f"{what}ed" if what != "suspend" else "suspended": value}, boss)
        assert reply.code == 200, reply

    await put("lock", True)
    locked = await server.call("GET", WHOAMI, user=token)
    assert (error(locked), locked.json["soft_logout"]) == ((401, "M_USER_LOCKED"), True)
    assert error(await server.call("GET", WHOAMI, user=away.issue(scope=f"{API} {PHONE}2")))[0] == 401
    await put("lock", False)
    await put("suspend", True)
    await whoami(server, token)
    name = await server.call("PUT", f"/profile/{ALICE}/displayname", {"displayname": "x"}, token)
    assert error(name) == (403, "M_USER_SUSPENDED")
    await put("suspend", False)
    assert (await server.call("POST", f"/_synapse/admin/v1/deactivate/{ALICE}", {}, boss)).code == 200
    for one in (token, away.issue()):
        assert error(await server.call("GET", WHOAMI, user=one)) == (401, "M_UNKNOWN_TOKEN")
    assert await server.accounts.device_store.of_user(ALICE) == []


# -- time ------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_revoked_token_goes_on_for_a_minute(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token = away.issue()
    await whoami(server, token)
    away.revoke(token)
    server.clock.advance(59)
    await whoami(server, token)
    server.clock.advance(1)
    reply = await server.call("GET", WHOAMI, user=token)
    assert (error(reply), reply.json.get("soft_logout", False)) == ((401, "M_UNKNOWN_TOKEN"), False)


@pytest_twisted.ensureDeferred
async def test_a_token_ends_when_it_says(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token = away.issue(exp=START + 20)
    await whoami(server, token)
    server.clock.advance(19)
    await whoami(server, token)
    server.clock.advance(1)
    for _ in range(2):
        reply = await server.call("GET", WHOAMI, user=token)
        assert (error(reply), reply.json["soft_logout"]) == ((401, "M_UNKNOWN_TOKEN"), True)
    assert len(away.questions) == 1


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_not_for_ever(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away, enable_registration=False)
    token = away.issue()
    assert error(await server.call("GET", WHOAMI, user=token)) == (403, "M_FORBIDDEN")
    await server.register("alice")
    await server.sso.users._identities.add(_identity("alice-there"), ALICE)
    server.clock.advance(9)
    assert error(await server.call("GET", WHOAMI, user=token)) == (403, "M_FORBIDDEN")
    server.clock.advance(1)
    assert (await whoami(server, token))["user_id"] == ALICE
    assert len(away.questions) == 2


@pytest_twisted.ensureDeferred
async def test_the_same_token_at_once_is_asked_about_once(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    token = away.issue()
    await gatherResults([Deferred.fromCoroutine(whoami(server, token)) for _ in range(10)])
    assert len(away.questions) == 1


@pytest_twisted.ensureDeferred
async def test_garbage_is_limited_and_drives_nobody_out(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away, limited=True)
    token = away.issue()
    await whoami(server, token)
    replies = [await server.call("GET", WHOAMI, user=f"garbage{number}") for number in range(40)]
    assert {reply.code for reply in replies[:30]} == {401}
    assert {error(reply) for reply in replies[31:]} == {(429, "M_LIMIT_EXCEEDED")}
    assert len(away.questions) <= 32
    await whoami(server, token)
    server.clock.advance(60)  # known once, it is not among those that are counted
    for number in range(60):
        await server.call("GET", WHOAMI, user=f"more{number}")
    await whoami(server, token)


# -- the authorization server is away --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        {"down": True},
        {"huge": True},
        {"introspection": [401, {"error": "invalid_client"}]},
        {"introspection": [200, {}]},
        {"introspection": [200, {"active": "yes"}]},
        {"introspection": [200, ["active"]]},
        {"metadata": {"introspection_endpoint": None}},
        {"metadata": {"introspection_endpoint": "http://account.test/introspect"}},
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_it_does_not_say(database: Database, away: AuthorizationServer, behaviour: dict[str, Any]) -> None:
    server = server_of(database, away)
    token = away.issue()
    away.set(**behaviour)
    assert error(await server.call("GET", WHOAMI, user=token)) == (503, "M_UNKNOWN")
    away.set()
    server.clock.advance(3600)
    assert (await whoami(server, token))["user_id"] == ALICE


@pytest_twisted.ensureDeferred
async def test_who_is_known_goes_on_while_it_is_away(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away, reactor=Impatient())
    client: Any = server.sso._provider_client
    known, unknown, own = away.issue(), away.issue(), await server.register("carol")
    await whoami(server, known)
    there, client.url = client.url, "http://127.0.0.1:1"
    assert error(await server.call("GET", WHOAMI, user=unknown)) == (503, "M_UNKNOWN")
    for token in (known, own):
        await whoami(server, token)
    server.clock.advance(60)
    assert error(await server.call("GET", WHOAMI, user=known)) == (503, "M_UNKNOWN")
    client.url = there
    for token in (known, unknown):
        await whoami(server, token)


@pytest_twisted.ensureDeferred
async def test_it_hangs(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away, introspection_endpoint=f"{away.url}/introspect")
    token = away.issue()
    away.set(hangs=True)
    asked = Deferred.fromCoroutine(server.call("GET", WHOAMI, user=token))
    assert (await in_thread(elsewhere, f"{away.url}/arrived", None)).body == b"yes"
    server.clock.advance(9)
    assert not asked.called
    server.clock.advance(1)
    assert error(await asked) == (503, "M_UNKNOWN")
    elsewhere(f"{away.url}/release", None)


@pytest_twisted.ensureDeferred
async def test_only_so_many_questions_are_open(database: Database, away: AuthorizationServer) -> None:
    server = server_of(database, away)
    services: Any = server.sso
    services._provider_client = silent = Silent()
    waiting = [Deferred.fromCoroutine(server.call("GET", WHOAMI, user=f"unknown{number}")) for number in range(AT_ONCE)]
    assert error(await server.call("GET", WHOAMI, user="one more")) == (401, "M_UNKNOWN_TOKEN")  # it has a space
    assert error(await server.call("GET", WHOAMI, user="one-more")) == (503, "M_UNKNOWN")
    for question in silent.asked:
        question.errback(AnswerLate("late"))
    assert len(silent.asked) == AT_ONCE
    assert {error(await one) for one in waiting} == {(503, "M_UNKNOWN")}


class Silent:
    """Takes the place of the client for requests; of tokens, it says nothing by itself."""

    def __init__(self) -> None:
        self.asked: list[Deferred[ClientAnswer]] = []

    async def request(self, method: str, url: str, *_: Any, **__: Any) -> ClientAnswer:
        if url.endswith("oauth-authorization-server"):
            metadata = {"introspection_endpoint": f"{ISSUER}introspect"}
            return ClientAnswer(200, {}, orjson.dumps({**METADATA, "issuer": ISSUER, **metadata}))
        self.asked.append(Deferred())
        return await self.asked[-1]


@pytest_twisted.ensureDeferred
async def test_tokens_and_secrets_are_not_logged(
    database: Database, away: AuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = server_of(database, away)
    good, bad = away.issue(), away.issue(scope=API)
    await whoami(server, good)
    replies = [await server.call("GET", WHOAMI, user=bad)]
    away.set(down=True)
    replies.append(await server.call("GET", WHOAMI, user=away.issue() + "x"))
    text = caplog.text + "".join(reply.body.decode() for reply in replies)
    for secret in (good, bad, "secret of thirty-two", "alice-there"):
        assert secret not in text
