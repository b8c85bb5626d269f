"""Single sign-on by a CAS server, which runs as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_twisted

from synapse.storage.database import Database
from tests.rest.accounts import Server
from tests.rest.sso import (
    BASE,
    CLIENT,
    LOGIN,
    Browser,
    Impatient,
    fields,
    login_token,
    redeem,
    server_with,
    text,
    user_of,
)
from tests.support.providers import Provider, running

PHONE = {"device_id": "PHONE"}


@pytest.fixture(scope="module")
def process() -> Iterator[Provider]:
    with running("cas_server") as provider:
        yield provider


@pytest.fixture
def cas(process: Provider) -> Provider:
    process.set(user="alice")
    return process


def server_of(database: Database, cas: Provider, sso: Any = None, reactor: Any = None, **options: Any) -> Server:
    config = {"enabled": True, "server_url": f"{cas.url}/cas", **options}
    return server_with(database, cas_config=config, sso=sso or {}, reactor=reactor)


@pytest_twisted.ensureDeferred
async def test_a_new_user_and_the_same_again(database: Database, cas: Provider) -> None:
    server = server_of(database, cas)
    flows = (await server.call("GET", "/login")).json["flows"]
    assert {"type": "m.login.sso", "identity_providers": [{"id": "cas", "name": "CAS"}]} in flows
    assert {"type": "m.login.cas"} in flows
    assert {"type": "m.login.token"} in flows
    page = await Browser(server).log_in()
    assert (page.code, text(page, "user"), text(page, "destination")) == (200, "@alice:test", "https://client.test/")
    assert await user_of(server, page) == "@alice:test"
    cas.set(user="Alice!")  # another subject, whose name becomes another one
    assert await user_of(server, await Browser(server).log_in("cas")) == "@alice=21:test"
    cas.set(user="alice")
    again = await Browser(server).log_in()
    assert await user_of(server, again) == "@alice:test"
    assert (await redeem(server, login_token(again))).code == 403


@pytest_twisted.ensureDeferred
async def test_trusted_clients_are_gone_back_to_at_once(database: Database, cas: Provider) -> None:
    server = server_of(database, cas, {"client_whitelist": ["https://client.test/"]})
    browser = Browser(server)
    back = await browser.log_in()
    assert back.code == 302
    assert back.headers["location"].startswith(CLIENT + "&loginToken=")
    assert back.headers["cache-control"] == "no-store"
    assert await user_of(server, back) == "@alice:test"
    # … but only in the browser that was sent to the provider, or else anybody could log others in as themselves.
    ticket = (await browser.get(f"{cas.url}/cas/login", service=_service(CLIENT))).headers["location"]
    assert (await Browser(server).get(ticket)).code == 200


def _service(url: str) -> str:
    return f"{BASE}/_matrix/client/r0/login/cas/ticket?{urlencode({'redirectUrl': url})}"


@pytest_twisted.ensureDeferred
async def test_a_ticket_is_good_once(database: Database, cas: Provider) -> None:
    server = server_of(database, cas)
    browser = Browser(server)
    await browser.log_in()
    again = await browser.get(browser.url)
    assert (again.code, "does not confirm" in text(again, "error")) == (400, True)


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"broken": "no XML"}, 502),
        ({"broken": "", "code": 500}, 502),
        ({"broken": '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'}, 502),
        ({"broken": "<serviceResponse/>"}, 400),
        ({"broken": "<x><authenticationSuccess><user>alice</user></authenticationSuccess></x>"}, 400),
        ({"broken": "<serviceResponse><authenticationSuccess><user/></authenticationSuccess></serviceResponse>"}, 400),
        ({"user": "alice", "proxies": True}, 400),
        ({"user": "12345"}, 403),
        ({"user": "x" * 300}, 400),
    ],
)
@pytest_twisted.ensureDeferred
async def test_answers_that_let_nobody_in(database: Database, cas: Provider, behaviour: Any, code: int) -> None:
    server = server_of(database, cas)
    cas.set(**behaviour)
    page = await Browser(server).log_in()
    assert page.code == code, page
    assert text(page, "error")
    assert b"loginToken" not in page.body


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there(database: Database) -> None:
    with running("cas_server") as gone:
        server = server_of(database, gone, reactor=Impatient())
        browser = Browser(server)
        reply = await browser.get(LOGIN, redirectUrl=CLIENT)
        ticket = await browser.get(reply.headers["location"])
    page = await browser.get(ticket.headers["location"])
    assert (page.code, "cannot be reached" in text(page, "error")) == (502, True)


@pytest_twisted.ensureDeferred
async def test_versions_attributes_and_numbers(database: Database, cas: Provider) -> None:
    server = server_of(
        database,
        cas,
        protocol_version=3,
        displayname_attribute="name",
        required_attributes={"group": "staff", "office": None},
        allow_numeric_ids=True,
    )
    cas.set(user="007", attributes={"name": ["James"], "group": ["spies", "staff"], "office": ["London"]})
    page = await Browser(server).log_in()
    assert await user_of(server, page) == "@u007:test"
    assert "James" in page.body.decode()
    for missing in ({"group": ["spies"], "office": ["London"]}, {"group": ["staff"]}, {}):
        cas.set(user="007", attributes=missing)
        assert (await Browser(server).log_in()).code == 403
    assert {asked["path"] for asked in cas.asked()} == {"/cas/login", "/cas/p3/proxyValidate"}
    old = server_of(database, cas, protocol_version=1)
    cas.set(user="bob")
    assert await user_of(old, await Browser(old).log_in()) == "@bob:test"


@pytest_twisted.ensureDeferred
async def test_existing_accounts_belong_to_those_of_their_name(database: Database, cas: Provider) -> None:
    server = server_of(database, cas)
    await server.register("alice")
    assert await user_of(server, await Browser(server).log_in()) == "@alice:test"
    await server.accounts.deactivation.deactivate("@alice:test", erase=False)
    page = await Browser(server).log_in()
    assert (page.code, "deactivated" in text(page, "error")) == (403, True)


@pytest_twisted.ensureDeferred
async def test_no_accounts_for_strangers(database: Database, cas: Provider) -> None:
    server = server_of(database, cas, enable_registration=False)
    page = await Browser(server).log_in()
    assert (page.code, "no account" in text(page, "error")) == (403, True)


# -- confirming --------------------------------------------------------------------------------------------------------


async def _logged_in(server: Server) -> str:
    token = login_token(await Browser(server).log_in())
    reply = await server.call("POST", "/login", {"type": "m.login.token", "token": token, **PHONE})
    return str(reply.json["access_token"])


async def _delete(server: Server, token: str, auth: Any = None) -> Any:
    body = {} if auth is None else {"auth": auth}
    return await server.call("DELETE", "/devices/PHONE", body, token)


@pytest_twisted.ensureDeferred
async def test_confirming_by_single_sign_on(database: Database, cas: Provider) -> None:
    server = server_of(database, cas)
    token = await _logged_in(server)
    asked = await _delete(server, token)
    assert (asked.code, asked.json["flows"]) == (401, [{"stages": ["m.login.sso"]}])
    auth = {"session": asked.json["session"]}
    browser = Browser(server)
    page = await browser.get("/_matrix/client/v3/auth/m.login.sso/fallback/web", **auth)
    assert (page.code, text(page, "user"), text(page, "description")) == (200, "@alice:test", "delete a device")
    assert (await _delete(server, token, auth)).code == 401
    form = {**fields(page), "idp": "cas"}
    stolen = await Browser(server).post("/_matrix/client/v3/auth/m.login.sso/fallback/web", form)
    assert stolen.code == 400
    done = await browser.follow(await browser.post("/_matrix/client/v3/auth/m.login.sso/fallback/web", form))
    assert (done.code, text(done, "done")) == (200, "Thank you")
    assert b"postMessage" in done.body
    assert (await _delete(server, token, auth)).code == 200
    assert not await server.is_logged_in(token)


@pytest_twisted.ensureDeferred
async def test_somebody_else_confirms_nothing(database: Database, cas: Provider) -> None:
    server = server_of(database, cas)
    token = await _logged_in(server)
    auth = {"session": (await _delete(server, token)).json["session"]}
    cas.set(user="mallory")
    browser = Browser(server)
    page = await browser.get("/_matrix/client/v3/auth/m.login.sso/fallback/web", **auth)
    sent = await browser.post("/_matrix/client/v3/auth/m.login.sso/fallback/web", {**fields(page), "idp": "cas"})
    done = await browser.follow(sent)
    assert (done.code, "@alice:test" in text(done, "error")) == (200, True)
    assert (await _delete(server, token, auth)).code == 403
    assert await server.is_logged_in(token)


@pytest_twisted.ensureDeferred
async def test_a_link_that_somebody_was_sent_confirms_nothing(database: Database, cas: Provider) -> None:
    """Whoever has stolen a token would have its owner log in, who need not even see it."""
    server = server_of(database, cas)
    token = await _logged_in(server)
    auth = {"session": (await _delete(server, token)).json["session"]}
    link = f"{cas.url}/cas/login"
    service = f"{BASE}/_matrix/client/r0/login/cas/ticket?session={auth['session']}"
    victim = Browser(server, address="203.0.113.9")
    page = await victim.follow(await victim.get(link, service=service))
    assert page.code == 403
    assert (await _delete(server, token, auth)).code == 401
