"""Addresses that prove something: who registers with one has it, and who has forgotten the password gets another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.handlers.validations import PASSWORD_RESET, REGISTRATION
from synapse.storage.database import Database
from tests.rest.accounts import Server, error

EMAIL, TERMS, DUMMY = "m.login.email.identity", "m.login.terms", "m.login.dummy"
SECRET = "client.secret"
ADDRESS = "alice@example.org"
OPTIONS = {"email": {"notif_from": "Synapse <noreply@test>"}, "public_baseurl": "https://test.example/"}


@pytest.fixture
def server(database: Database) -> Server:
    required = {"enable_registration_without_verification": False, "registrations_require_3pid": ["email"]}
    return Server(database, **OPTIONS, **required)


async def validated(server: Server, purpose: str = REGISTRATION, address: str = ADDRESS, secret: str = SECRET) -> str:
    """A session in which somebody has proven to have the address."""
    validations, sent = server.accounts.contacts.validations, []

    async def deliver(token: str) -> None:
        sent.append(token)

    session = await validations.begin(purpose, "email", address, secret)
    await validations.send(session, 1, deliver)
    await validations.submit(session.session_id, secret, sent[0])
    return session.session_id


def proof(sid: str, secret: str = SECRET, **more: Any) -> dict[str, Any]:
    return {"type": EMAIL, "threepid_creds": {"sid": sid, "client_secret": secret}, **more}


@pytest_twisted.ensureDeferred
async def test_who_proves_an_address_has_it(server: Server) -> None:
    first = await server.call("POST", "/register", {"username": "alice", "password": "secret"})
    assert first.json["flows"] == [{"stages": [EMAIL]}]
    session, sid = first.json["session"], await validated(server)
    for wrong in (proof("nope"), proof(sid, "wrong.secret")):
        reply = await server.call("POST", "/register", {"auth": {**wrong, "session": session}})
        assert (reply.code, reply.errcode, reply.json["completed"]) == (401, "M_UNAUTHORIZED", [])
    done = await server.call("POST", "/register", {"auth": proof(sid, session=session)})
    assert done.code == 200
    [threepid] = await server.accounts.contacts.store.of_user("@alice:test")
    assert (threepid.medium, threepid.address) == ("email", ADDRESS)
    again = await server.call("POST", "/register", {"username": "bob", "auth": proof(sid)})
    assert (again.code, again.errcode) == (401, "M_UNAUTHORIZED"), "a validation is good once"
    other = await validated(server, secret="another.secret")
    taken = await server.call("POST", "/register", {"username": "bob", "auth": proof(other, "another.secret")})
    assert error(taken) == (400, "M_THREEPID_IN_USE")


@pytest.mark.parametrize(
    ("auth", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"threepid_creds": 5}, "M_BAD_JSON"),
        ({"threepid_creds": {}}, "M_MISSING_PARAM"),
        ({"threepid_creds": {"sid": "x"}}, "M_MISSING_PARAM"),
        ({"threepid_creds": {"sid": 5, "client_secret": "x"}}, "M_MISSING_PARAM"),
        ({"threepid_creds": {"sid": "x", "client_secret": "no spaces"}}, "M_INVALID_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_credentials_that_are_none(server: Server, auth: dict[str, Any], errcode: str) -> None:
    reply = await server.call("POST", "/register", {"auth": {"type": EMAIL, **auth}})
    assert error(reply) == (400, errcode)


@pytest_twisted.ensureDeferred
async def test_two_cannot_have_one_address(server: Server) -> None:
    sids = [(await validated(server, secret=secret), secret) for secret in ("one", "two", "three")]
    bodies = [{"username": f"user{secret}", "auth": proof(sid, secret)} for sid, secret in sids]
    replies = await gatherResults([Deferred.fromCoroutine(server.call("POST", "/register", body)) for body in bodies])
    assert sorted(reply.code for reply in replies) == [200, 400, 400]
    assert {reply.errcode for reply in replies if reply.code == 400} == {"M_THREEPID_IN_USE"}


@pytest_twisted.ensureDeferred
async def test_an_address_may_be_proven_where_nobody_has_to(database: Database) -> None:
    server = Server(database, **OPTIONS)
    first = await server.call("POST", "/register", {"username": "alice"})
    assert first.json["flows"] == [{"stages": [DUMMY]}, {"stages": [EMAIL]}]


# -- forgotten passwords -----------------------------------------------------------------------------------------------

PASSWORD = "/account/password"


async def registered(server: Server) -> str:
    body = {"username": "alice", "password": "password", "auth": proof(await validated(server))}
    return str((await server.call("POST", "/register", body)).json["access_token"])


@pytest_twisted.ensureDeferred
async def test_who_has_forgotten_the_password_proves_to_have_the_address(server: Server) -> None:
    token = await registered(server)
    first = await server.call("POST", PASSWORD, {"new_password": "better"})
    assert (first.code, first.json["flows"]) == (401, [{"stages": [EMAIL]}])
    sid = await validated(server, PASSWORD_RESET)
    of_registration = await validated(server, REGISTRATION, secret="other")
    auth = {**proof(of_registration, "other"), "session": first.json["session"]}
    assert (await server.call("POST", PASSWORD, {"auth": auth})).code == 401, "that was for something else"
    done = await server.call("POST", PASSWORD, {"auth": proof(sid, session=first.json["session"])})
    assert (done.code, done.json) == (200, {})
    assert not await server.is_logged_in(token)
    assert error(await server.login("alice")) == (403, "M_FORBIDDEN")
    assert (await server.login("alice", "better")).code == 200
    again = await server.call("POST", PASSWORD, {"new_password": "mine", "auth": proof(sid)})
    assert (again.code, again.errcode) == (401, "M_UNAUTHORIZED"), "a proof is good once"


@pytest_twisted.ensureDeferred
async def test_sessions_may_stay_when_a_password_is_reset(server: Server) -> None:
    token = await registered(server)
    sid = await validated(server, PASSWORD_RESET)
    body = {"new_password": "better", "logout_devices": False, "auth": proof(sid)}
    assert (await server.call("POST", PASSWORD, body)).code == 200
    assert await server.is_logged_in(token)


@pytest_twisted.ensureDeferred
async def test_an_address_that_nobody_has_resets_nothing(server: Server) -> None:
    sid = await validated(server, PASSWORD_RESET, "nobody@example.org")
    reply = await server.call("POST", PASSWORD, {"new_password": "better", "auth": proof(sid)})
    assert error(reply) == (400, "M_THREEPID_NOT_FOUND")


@pytest_twisted.ensureDeferred
async def test_without_mail_there_is_no_way_for_who_is_not_logged_in(database: Database) -> None:
    server = Server(database)
    assert error(await server.call("POST", PASSWORD, {"new_password": "x"})) == (401, "M_MISSING_TOKEN")


# -- terms -------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_new_users_agree_to_the_policy(database: Database, tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "1.0.html").write_text("be nice")
    consent = {"template_dir": str(tmp_path), "version": "1.0", "require_at_registration": True}
    server = Server(database, user_consent=consent, form_secret="secret", public_baseurl="https://test.example/")
    first = await server.call("POST", "/register", {"username": "alice"})
    assert first.json["flows"] == [{"stages": [TERMS, DUMMY]}]
    policy = first.json["params"][TERMS]["policies"]["privacy_policy"]
    assert policy["version"] == "1.0"
    assert policy["en"]["url"].startswith("https://test.example/_matrix/consent?")
    half = await server.call("POST", "/register", {"auth": {"type": TERMS, "session": first.json["session"]}})
    assert half.json["completed"] == [TERMS]
    done = await server.call("POST", "/register", {"auth": {"type": DUMMY, "session": first.json["session"]}})
    assert done.code == 200
    user = await server.accounts.users.get("@alice:test")
    assert user is not None
    assert user.consent_version == "1.0"
