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


def _agree(page: Page, user_id: str) -> None:
    """To the terms, as new users have to."""
    expect(page.locator("#user")).to_have_text(user_id)
    with page.expect_popup() as opened:
        page.get_by_role("link", name="terms").click()
    expect(opened.value.get_by_role("heading")).to_have_text("Policy")
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Continue").click()


def _continue(page: Page, site: Site, user_id: str) -> str:
    """Back to the client; answers the token with which it is gone back to."""
    expect(page.locator("#user")).to_have_text(user_id)
    expect(page.locator("#destination")).to_contain_text(site.services.client)
    page.get_by_role("link", name="Continue").click()
    expect(page).to_have_title("A client")
    (token,) = parse_qs(urlsplit(page.url).query)["loginToken"]
    return token


def _logged_in(chromium: Chromium, site: Site, name: str, *, new: bool = False) -> dict[str, Any]:
    """Log in through the provider; answers what the client is told in the end."""
    tokens: list[str] = []

    def log_in(page: Page) -> None:
        page.goto(site.url + _REDIRECT + quote(site.services.client))
        _log_in_there(page, name)
        if new:
            _agree(page, f"@{name}:localhost")
        tokens.append(_continue(page, site, f"@{name}:localhost"))

    chromium.visit(log_in, scripts=False)
    (token,) = tokens
    code, answer = site.ask("POST", "/v3/login", {"type": "m.login.token", "token": token})
    assert code == 200, answer
    assert site.ask("POST", "/v3/login", {"type": "m.login.token", "token": token})[0] == 403, "a token is good once"
    return dict(answer)


def test_logging_in(chromium: Chromium, site: Site) -> None:
    first = _logged_in(chromium, site, "sonja", new=True)
    again = _logged_in(chromium, site, "sonja")
    assert first["user_id"] == again["user_id"] == "@sonja:localhost"
    assert first["device_id"] != again["device_id"]


def test_choosing_a_provider_and_a_name(chromium: Chromium, site: Site) -> None:
    site.account("taken")
    site.oidc.set(user={"name": "Simone <b>Somebody</b>"})
    tokens: list[str] = []

    def log_in(page: Page) -> None:
        page.goto(site.url + "/_matrix/client/v3/login/sso/redirect?redirectUrl=" + quote(site.services.client))
        expect(page.get_by_role("button", name="The university")).to_be_visible()
        page.get_by_role("button", name="The city").click()
        page.get_by_label("User name").fill("taken")
        expect(page.get_by_role("alert")).to_contain_text("taken")  # before the form is sent
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).to_contain_text("taken")
        page.get_by_label("User name").fill("simone")
        expect(page.get_by_label("Be shown as “Simone <b>Somebody</b>”")).to_be_checked()
        page.get_by_role("button", name="Continue").click()
        _agree(page, "@simone:localhost")
        tokens.append(_continue(page, site, "@simone:localhost"))

    chromium.visit(log_in)
    code, answer = site.ask("POST", "/v3/login", {"type": "m.login.token", "token": tokens[0]})
    assert (code, answer["user_id"]) == (200, "@simone:localhost")
    assert site.ask("GET", "/v3/profile/@simone:localhost/displayname")[1]["displayname"] == "Simone <b>Somebody</b>"


def test_a_login_is_completed_where_it_was_begun(chromium: Chromium, site: Site) -> None:
    site.oidc.set(user={"sub": "stefan", "name": "Stefan"})
    stolen: list[str] = []

    def begin(page: Page) -> None:
        page.goto(
            f"{site.url}/_matrix/client/v3/login/sso/redirect/oidc-city?redirectUrl={quote(site.services.client)}"
        )
        expect(page.get_by_label("User name")).to_be_visible()
        stolen.append(page.url)

    def go_on_elsewhere(page: Page) -> None:
        page.goto(stolen[0])
        expect(page.get_by_role("heading")).to_have_text("Please begin again")
        expect(page.get_by_label("User name")).to_have_count(0)

    chromium.visit(begin)
    chromium.visit(go_on_elsewhere)


def test_confirming_what_needs_confirmation(chromium: Chromium, site: Site) -> None:
    old, new = _logged_in(chromium, site, "sven", new=True), _logged_in(chromium, site, "sven")
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
        _agree(page, "@selma:localhost")
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
