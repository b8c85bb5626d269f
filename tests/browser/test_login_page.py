"""The page for clients that know no way of logging in: it does it all, and tells the client."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route, expect

from tests.browser.chromium import Chromium
from tests.browser.site import PASSWORD, Site

PAGE = "/_matrix/static/client/login/"
LOGIN = "**/_matrix/client/v3/login"
HEARD = "() => { window.matrixLogin.onLogin = response => { window.heard = response; }; }"


def test_logging_in_by_password(chromium: Chromium, site: Site) -> None:
    site.account("lola")

    def log_in(page: Page) -> None:
        page.goto(f"{site.url}{PAGE}?device_id=KITCHEN&initial_device_display_name=The%20fridge&password=nonsense")
        page.evaluate(HEARD)
        page.get_by_label("User name").fill("lola")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("password")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#done")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_hidden()
        heard = page.evaluate("window.heard")
        assert heard["user_id"].startswith("@lola:")
        assert heard["device_id"] == "KITCHEN"
        code, device = site.ask("GET", "/v3/devices/KITCHEN", token=heard["access_token"])
        assert (code, device["display_name"]) == (200, "The fridge")

    chromium.visit(log_in)


def test_a_client_may_say_late_where_it_wants_to_hear_of_it(chromium: Chromium, site: Site) -> None:
    site.account("lars")

    def log_in(page: Page) -> None:
        page.goto(f"{site.url}{PAGE.rstrip('/')}")
        page.get_by_label("User name").fill("lars")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#done")).to_be_visible()
        page.evaluate(HEARD)
        assert page.evaluate("window.heard")["user_id"].startswith("@lars:")

    chromium.visit(log_in)


def test_single_sign_on_comes_back_to_the_page_with_a_token(chromium: Chromium, site: Site) -> None:
    asked: list[dict[str, str]] = []

    def answer(route: Route) -> None:
        if route.request.method == "GET":
            providers = [{"id": "oidc-work", "name": "<b>Work</b>"}]
            flows = [{"type": "m.login.sso", "identity_providers": providers}, {"type": "m.login.token"}]
            route.fulfill(json={"flows": flows})
        else:
            asked.append(json.loads(route.request.post_data or ""))
            if len(asked) == 1:
                route.fulfill(status=403, json={"errcode": "M_FORBIDDEN", "error": "The token is too old."})
            else:
                route.fulfill(json={"user_id": "@lina:test"})

    def log_in(page: Page) -> None:
        page.route(LOGIN, answer)
        page.goto(f"{site.url}{PAGE}?device_id=D&loginToken=secret%2B1")
        expect(page.get_by_role("alert")).to_have_text("The token is too old.")
        link = page.get_by_role("link", name="Continue with <b>Work</b>")
        target = urlsplit(link.get_attribute("href") or "")
        assert target.path == "/_matrix/client/v3/login/sso/redirect/oidc-work"
        [back] = parse_qs(target.query)["redirectUrl"]
        assert back == f"{site.url}{PAGE}?device_id=D", "the token that was no good is not sent on"
        assert "secret" not in page.url
        page.goto(f"{back}&loginToken=better")
        expect(page.locator("#done")).to_be_visible()
        expect(page.get_by_role("link")).to_have_count(0)

    chromium.visit(log_in)
    wanted = [{"device_id": "D", "type": "m.login.token", "token": token} for token in ("secret+1", "better")]
    assert asked == wanted
