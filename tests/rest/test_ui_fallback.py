"""The fallback pages of interactive authentication, as a browser without JavaScript sees them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_twisted

from synapse.storage.database import Database
from tests.rest.accounts import Server, admin_of
from tests.rest.driver import Reply
from tests.rest.test_threepid_proofs import OPTIONS

DUMMY, PASSWORD, TOKEN = "m.login.dummy", "m.login.password", "m.login.registration_token"
CAPTCHA, TERMS, EMAIL, MSISDN = "m.login.recaptcha", "m.login.terms", "m.login.email.identity", "m.login.msisdn"
_FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


class Browser:
    """Opens a stage's page and sends its form."""

    def __init__(self, server: Server, stage: str, session: str) -> None:
        self.server = server
        self.path = f"/auth/{stage}/fallback/web"
        self.session = session
        self.page = ""

    async def open(self) -> Reply:
        return self._seen(await self.server.call("GET", self.path, query={"session": self.session}))

    async def send(self, **fields: str) -> Reply:
        """Sends the form of the page, what is hidden in it included."""
        hidden = dict(_FIELD.findall(self.page))
        body = urlencode({**hidden, **fields}).encode()
        return self._seen(await self.server.call("POST", self.path, body, query={"session": self.session}))

    def _seen(self, reply: Reply) -> Reply:
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        self.page = reply.body.decode()
        assert "{{" not in self.page
        return reply

    @property
    def is_done(self) -> bool:
        return 'window.opener.postMessage("authDone", "*")' in self.page and "window.onAuthDone()" in self.page


async def begun(server: Server, body: dict[str, Any] | None = None) -> tuple[str, Any]:
    """A session of a registration, and the 401."""
    reply = await server.call("POST", "/register", body or {"username": "alice", "password": "secret"})
    assert reply.code == 401, reply
    return str(reply.json["session"]), reply.json


@pytest_twisted.ensureDeferred
async def test_a_client_that_knows_no_stage_registers_somebody(server: Server) -> None:
    session, _ = await begun(server)
    browser = Browser(server, DUMMY, session)
    assert (await browser.open()).code == 200
    assert not browser.is_done
    assert (await browser.send()).code == 200
    assert browser.is_done
    await browser.open()
    assert browser.is_done, "that it was passed already is as good"
    done = await server.call("POST", "/register", {"auth": {"session": session}})
    assert done.code == 200
    assert (await server.login("alice", "secret")).code == 200


@pytest_twisted.ensureDeferred
async def test_the_password_is_asked_for_what_is_to_be_done(server: Server) -> None:
    token = await server.register("alice", device="PHONE")
    await server.login("alice", device_id="LAPTOP")
    asked = await server.call("DELETE", "/devices/LAPTOP", {}, token)
    browser = Browser(server, PASSWORD, asked.json["session"])
    await browser.open()
    assert "@alice:test" in browser.page
    assert "delete a device" in browser.page
    assert (await browser.send(password="wrong")).code == 401
    assert "The password is wrong." in browser.page
    await browser.send(password="password")
    assert browser.is_done
    done = await server.call("DELETE", "/devices/LAPTOP", {"auth": {"session": asked.json["session"]}}, token)
    assert (done.code, done.json) == (200, {})


@pytest_twisted.ensureDeferred
async def test_a_registration_token(database: Database) -> None:
    server = Server(database, registration_requires_token=True)
    admin = await admin_of(server)
    await server.call("POST", "/_synapse/admin/v1/registration_tokens/new", {"token": "good"}, admin)
    session, _ = await begun(server)
    browser = Browser(server, TOKEN, session)
    await browser.open()
    assert (await browser.send(token="bad")).code == 401
    await browser.send(token=" good ")
    assert browser.is_done
    asked = await server.call("POST", "/register", {"auth": {"session": session}})
    assert asked.json["completed"] == [TOKEN]


@pytest_twisted.ensureDeferred
async def test_terms_have_to_be_accepted(database: Database, tmp_path: Path) -> None:
    for language in ("de", "en"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "1.0.html").write_text("be nice")
    consent = {"template_dir": str(tmp_path), "version": "1.0", "policy_name": "Be <nice>"}
    required = {**consent, "require_at_registration": True}
    server = Server(database, user_consent=required, form_secret="s", public_baseurl="https://test.example/")
    session, _ = await begun(server)
    browser = Browser(server, TERMS, session)
    await browser.open()
    assert "Be &lt;nice&gt;" in browser.page
    assert "lang=en" in browser.page
    assert (await browser.send()).code == 400
    await browser.send(accept="true")
    assert browser.is_done


@pytest_twisted.ensureDeferred
async def test_the_captchas_script_may_run(database: Database) -> None:
    keys = {"recaptcha_public_key": "the-public-key", "recaptcha_private_key": "private"}
    server = Server(database, enable_registration_captcha=True, **keys)
    session, _ = await begun(server)
    browser = Browser(server, CAPTCHA, session)
    policy = (await browser.open()).headers["content-security-policy"]
    assert re.search(r"script-src 'nonce-[^']+' https://www\.recaptcha\.net ", policy)
    assert 'src="https://www.recaptcha.net/recaptcha/api.js"' in browser.page
    assert 'data-sitekey="the-public-key"' in browser.page
    assert (await browser.send()).code == 401
    assert "captcha&#39;s response is needed" in browser.page


@pytest_twisted.ensureDeferred
async def test_an_address_is_written_to(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(database, **OPTIONS)
    links: list[str] = []

    async def send(to: str, subject: str, template: str, values: dict[str, Any]) -> None:
        assert (to, template) == ("alice@example.org", "registration")
        links.append(values["link"])

    monkeypatch.setattr(server.accounts.contacts.mailer, "send", send)
    session, _ = await begun(server)
    browser = Browser(server, EMAIL, session)
    await browser.open()
    assert (await browser.send(address="nonsense")).code == 400
    assert (await browser.send(address="Alice@example.org ")).code == 200
    assert "We have sent a mail" in browser.page
    assert (await browser.send()).code == 401, "nobody has followed the link yet"
    parts = dict(re.findall(r"(token|client_secret|sid)=([^&]+)", links[0]))
    await server.accounts.contacts.validations.submit(parts["sid"], parts["client_secret"], parts["token"])
    await browser.send()
    assert browser.is_done
    done = await server.call("POST", "/register", {"auth": {"session": session}})
    assert done.code == 200
    [threepid] = await server.accounts.contacts.store.of_user("@alice:test")
    assert threepid.address == "alice@example.org"


@pytest_twisted.ensureDeferred
async def test_a_phone_is_written_to(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(database, sms={"url": "https://sms.example/", "secret": "s"})
    codes: list[str] = []

    async def send(validations: Any, session: Any, client_secret: str, attempt: int) -> None:
        async def deliver(code: str) -> None:
            codes.append(code)

        await validations.send(session, attempt, deliver)

    monkeypatch.setattr(server.accounts.contacts.tokens._messenger, "send", send)
    session, asked = await begun(server)
    assert {"stages": [MSISDN]} in asked["flows"]
    browser = Browser(server, MSISDN, session)
    await browser.open()
    assert (await browser.send(country="ZZ", address="07700 900123")).code == 400
    assert (await browser.send(country="gb", address="07700 900123")).code == 200
    wrong = "000000" if codes[0] != "000000" else "111111"
    assert (await browser.send(code=wrong)).code == 400
    await browser.send(code=codes[0])
    assert browser.is_done
    assert (await server.call("POST", "/register", {"auth": {"session": session}})).code == 200


@pytest.mark.parametrize(
    ("stage", "query", "code"),
    [
        (DUMMY, {}, 400),
        (DUMMY, {"session": "nope"}, 400),
        (DUMMY, {"session": ""}, 400),
        ("m.login.unheard.of", None, 404),
        (TOKEN, None, 404),
        ("a<b", None, 404),
    ],
)
@pytest_twisted.ensureDeferred
async def test_pages_that_are_not_there(server: Server, stage: str, query: Any, code: int) -> None:
    session, _ = await begun(server)
    path = f"/auth/{stage.replace('<', '%3C')}/fallback/web"
    for method in ("GET", "POST"):
        reply = await server.call(method, path, query={"session": session} if query is None else query)
        assert reply.code == code, method
        assert b"This did not work" in reply.body
        assert b"a<b" not in reply.body


@pytest.mark.parametrize("body", [b"\xff", b"session=%ff", b"&".join(b"a=%d" % n for n in range(300)), b"session=a%00"])
@pytest_twisted.ensureDeferred
async def test_forms_that_are_none(server: Server, body: bytes) -> None:
    reply = await server.call("POST", f"/auth/{DUMMY}/fallback/web", body)
    assert reply.code == 400
    assert b"This did not work" in reply.body


@pytest_twisted.ensureDeferred
async def test_nobody_is_confirmed_who_is_not_logged_in(server: Server) -> None:
    session, _ = await begun(server)
    browser = Browser(server, PASSWORD, session)
    await browser.open()
    assert "nobody is logged in" in browser.page
    assert (await browser.send(password="x")).code == 400


@pytest.mark.parametrize("end", ["", "/"])
@pytest_twisted.ensureDeferred
async def test_the_page_for_logging_in(server: Server, end: str) -> None:
    reply = await server.call("GET", f"/_matrix/static/client/login{end}", query={"device_id": "<script>"})
    assert (reply.code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"Log in to test" in reply.body
    assert reply.body.count(b"<script") == 1
