"""Single sign-on as people see it: at the provider, on the way back to the client, and to confirm what they do."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from playwright.sync_api import Page, expect

from tests.browser.chromium import Chromium
from tests.browser.site import Site

_REDIRECT = "/_matrix/client/v3/login/sso/redirect/cas?redirectUrl="


def _log_in_there(page: Page, name: str) -> None:
    """At the provider."""
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Log in").click()


def _logged_in(chromium: Chromium, site: Site, name: str) -> dict[str, Any]:
    """Log in through the provider; answers what the client is told in the end."""
    tokens: list[str] = []

    def log_in(page: Page) -> None:
        page.goto(site.url + _REDIRECT + quote(site.services.client))
        _log_in_there(page, name)
        expect(page.locator("#user")).to_have_text(f"@{name}:localhost")
        expect(page.locator("#destination")).to_contain_text(site.services.client)
        page.get_by_role("link", name="Continue").click()
        expect(page).to_have_title("A client")
        tokens.extend(parse_qs(urlsplit(page.url).query)["loginToken"])

    chromium.visit(log_in, scripts=False)
    (token,) = tokens
    code, answer = site.ask("POST", "/v3/login", {"type": "m.login.token", "token": token})
    assert code == 200, answer
    assert site.ask("POST", "/v3/login", {"type": "m.login.token", "token": token})[0] == 403, "a token is good once"
    return dict(answer)


def test_logging_in(chromium: Chromium, site: Site) -> None:
    first = _logged_in(chromium, site, "sonja")
    again = _logged_in(chromium, site, "sonja")
    assert first["user_id"] == again["user_id"] == "@sonja:localhost"
    assert first["device_id"] != again["device_id"]


def test_confirming_what_needs_confirmation(chromium: Chromium, site: Site) -> None:
    old, new = _logged_in(chromium, site, "sven"), _logged_in(chromium, site, "sven")
    path, token = f"/v3/devices/{old['device_id']}", str(new["access_token"])

    def confirmed_as(name: str, heading: str) -> tuple[int, Any]:
        code, needed = site.ask("DELETE", path, {}, token)
        assert code == 401
        assert {"stages": ["m.login.sso"]} in needed["flows"]

        def confirm(page: Page) -> None:
            page.goto(f"{site.url}/_matrix/client/v3/auth/m.login.sso/fallback/web?session={needed['session']}")
            expect(page.locator("#user")).to_have_text("@sven:localhost")
            expect(page.locator("#description")).to_be_visible()
            page.get_by_role("button", name="Continue with The university").click()
            _log_in_there(page, name)
            expect(page.get_by_role("heading")).to_have_text(heading)

        chromium.visit(confirm)
        return site.ask("DELETE", path, {"auth": {"session": needed["session"]}}, token)

    code, refused = confirmed_as("somebody.else", "That is another account")
    assert (code, refused["errcode"]) == (403, "M_FORBIDDEN")
    assert confirmed_as("sven", "Thank you") == (200, {})
    assert site.ask("GET", "/v3/account/whoami", None, str(old["access_token"]))[0] == 401


def test_pages_show_names_and_run_none(chromium: Chromium, site: Site) -> None:
    nasty = "<img src=x onerror=alert(1)>"

    def look(page: Page) -> None:
        page.goto(site.url + _REDIRECT + quote(f"https://client.example/{nasty}", safe=""))
        expect(page.locator("img")).to_have_count(0)
        page.goto(site.url + _REDIRECT + quote(f"https://client.example/?a={quote(nasty)}", safe=""))
        _log_in_there(page, "selma")
        expect(page.locator("#destination")).to_contain_text("client.example")
        expect(page.locator("img")).to_have_count(0)

    chromium.visit(look)


def test_a_destination_that_would_run_something_is_refused(chromium: Chromium, site: Site) -> None:
    def try_all(page: Page) -> None:
        for wish in (
            "javascript:alert(1)",
            "data:text/html,<script>alert(1)</script>",
            "java\nscript:alert(1)",
            "//x.example",
            "",
        ):
            page.goto(site.url + _REDIRECT + quote(wish, safe=""))
            expect(page.get_by_role("heading")).to_be_visible()
            expect(page.get_by_label("Name")).to_have_count(0)

    chromium.visit(try_all)
