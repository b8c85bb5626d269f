"""The pages behind the links of mails: a new password is confirmed, an address is proved."""

from __future__ import annotations

import json
import urllib.request

from playwright.sync_api import Page, expect

from tests.browser.chromium import Chromium
from tests.browser.site import Site

SECRET = "a.client.secret"


def _with_address(site: Site, name: str) -> str:
    """An account with an address that the user has proved; answers the access token."""
    token = site.account(name)
    wish = {"client_secret": SECRET, "email": f"{name}@example.org", "send_attempt": 1}
    code, asked = site.ask("POST", "/v3/account/3pid/email/requestToken", wish, token)
    assert code == 200, asked
    with urllib.request.urlopen(site.link()) as page:
        assert page.status == 200
    proof = {"sid": asked["sid"], "client_secret": SECRET}
    _, needed = site.ask("POST", "/v3/account/3pid/add", proof, token)
    identifier = {"type": "m.id.user", "user": name}
    auth = {"type": "m.login.password", "identifier": identifier, "password": "a long password"}
    code, added = site.ask(
        "POST", "/v3/account/3pid/add", {**proof, "auth": auth | {"session": needed["session"]}}, token
    )
    assert code == 200, added
    return token


def _new_password(site: Site, name: str, sid: str) -> int:
    auth = {"type": "m.login.email.identity", "threepid_creds": {"sid": sid, "client_secret": SECRET}}
    _, needed = site.ask("POST", "/v3/account/password", {"new_password": "another password"})
    auth["session"] = needed["session"]
    return site.ask("POST", "/v3/account/password", {"new_password": "another password", "auth": auth})[0]


def test_a_password_is_reset(chromium: Chromium, site: Site) -> None:
    _with_address(site, "pia")
    wish = {"client_secret": SECRET, "email": "pia@example.org", "send_attempt": 1}
    code, asked = site.ask("POST", "/v3/account/password/email/requestToken", wish)
    assert code == 200, json.dumps(asked)
    link = site.link()

    def confirm(page: Page) -> None:
        page.goto(link)
        expect(page.get_by_role("heading")).to_have_text("Reset your password?")
        assert _new_password(site, "pia", asked["sid"]) == 401, "looking at the page confirms nothing"
        page.get_by_role("button", name="Yes, it was me").click()
        expect(page.get_by_role("heading")).to_be_visible()
        expect(page.get_by_role("button")).to_have_count(0)

    chromium.visit(confirm, scripts=False)
    assert _new_password(site, "pia", asked["sid"]) == 200
    assert site.logs_in("pia", "another password")
    assert not site.logs_in("pia", "a long password")


def test_a_link_that_was_tampered_with_says_so(chromium: Chromium, site: Site) -> None:
    _with_address(site, "paul")
    wish = {"client_secret": SECRET, "email": "paul@example.org", "send_attempt": 1}
    site.ask("POST", "/v3/account/password/email/requestToken", wish)
    link = site.link().replace("token=", "token=%3Cscript%3Ealert(1)%3C/script%3E")

    def look(page: Page) -> None:
        page.goto(link)
        if page.get_by_role("button").count():
            page.get_by_role("button").click()
        expect(page.get_by_role("heading")).to_be_visible()
        assert "<script>alert" not in page.content()

    chromium.visit(look)


def test_an_account_is_renewed(chromium: Chromium, site: Site) -> None:
    token = _with_address(site, "petra")
    path = "/unstable/account_validity/send_mail"
    assert site.ask("POST", path, {}, token) == (200, {})
    link = site.link()

    def renew(page: Page) -> None:
        page.goto(link)
        expect(page.get_by_role("heading")).to_have_text("Your account is renewed")
        page.goto(link.replace("token=", "token=%3Cb%3E"))
        expect(page.get_by_role("heading")).to_have_text("This link is not valid")
        expect(page.locator("b")).to_have_count(0)

    chromium.visit(renew, scripts=False)
