"""Somebody registers whose client shows none of the stages: each is passed on its page."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.chromium import Chromium
from tests.browser.site import PASSWORD, Site

STAGES = [
    "m.login.registration_token",
    "m.login.recaptcha",
    "m.login.terms",
    "m.login.msisdn",
    "m.login.email.identity",
]


class Registering:
    """A client that registers, and knows nothing but its session."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.body = {"username": name, "password": PASSWORD}
        code, needed = self._ask(self.body)
        assert code == 401
        assert {"stages": STAGES} in needed["flows"]
        self.session = str(needed["session"])

    def _ask(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return self.site.ask("POST", "/v3/register", body)

    def page(self, stage: str) -> str:
        return f"{self.site.url}/_matrix/client/v3/auth/{stage}/fallback/web?session={self.session}"

    def go_on(self) -> tuple[int, dict[str, Any]]:
        return self._ask({**self.body, "auth": {"session": self.session}})

    @property
    def completed(self) -> set[str]:
        code, answer = self.go_on()
        assert code == 401, answer
        return set(answer["completed"])


def _done(page: Page) -> None:
    expect(page.get_by_role("heading")).to_have_text("Thank you")


def _enter_token(page: Page, client: Registering) -> None:
    page.goto(client.page(STAGES[0]))
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Token").fill(client.site.registration_token())
    page.get_by_role("button").click()
    _done(page)


def _solve_captcha(page: Page, client: Registering) -> None:
    page.goto(client.page(STAGES[1]))
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="I am not a robot").click()
    _done(page)


def _accept_terms(page: Page, client: Registering) -> None:
    page.goto(client.page(STAGES[2]))
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Privacy Policy").click()
    expect(opened.value.get_by_role("heading")).to_have_text("Policy")
    page.get_by_role("checkbox").check()
    page.get_by_role("button").click()
    _done(page)


def _confirm_number(page: Page, client: Registering) -> None:
    page.goto(client.page(STAGES[3]))
    page.get_by_label("Country").fill("GB")
    page.get_by_label("Phone number").fill("07700 900123")
    page.get_by_role("button").click()
    page.get_by_label("Code").fill("000000")
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_be_visible()
    code = re.search(r"\d{4,}", client.site.services.texts.get(timeout=20))
    assert code is not None
    page.get_by_label("Code").fill(code[0])
    page.get_by_role("button").click()
    _done(page)


def _confirm_address(page: Page, client: Registering) -> None:
    page.goto(client.page(STAGES[4]))
    page.get_by_label("E-mail address").fill("rita@example.org")
    page.get_by_role("button").click()
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("alert")).to_be_visible()  # nobody has opened the link
    with page.context.expect_page() as opened:
        page.evaluate("url => window.open(url)", client.site.link())
    expect(opened.value.get_by_role("heading")).to_be_visible()
    page.get_by_role("button", name="Go on").click()
    _done(page)


def test_every_stage_has_a_page(chromium: Chromium, site: Site) -> None:
    client = Registering(site, "rita")
    passing = (_enter_token, _solve_captcha, _accept_terms, _confirm_number, _confirm_address)
    for number, passed in enumerate(passing):
        chromium.visit(lambda page, passed=passed: passed(page, client))
        if number + 1 < len(STAGES):
            assert client.completed == set(STAGES[: number + 1])
    code, answer = client.go_on()
    assert (code, answer["user_id"]) == (200, f"@rita:{answer['user_id'].rpartition(':')[2]}")
    assert site.logs_in("rita", PASSWORD)


def test_the_client_that_opened_a_page_is_told(chromium: Chromium, site: Site) -> None:
    client = Registering(site, "rosi")

    def tell_the_opener(page: Page) -> None:
        page.goto(site.services.client)
        page.evaluate("window.addEventListener('message', event => document.title = event.data)")
        with page.expect_popup() as opened:
            page.evaluate("url => { window.open(url) }", client.page("m.login.terms"))
        opened.value.get_by_role("checkbox").check()
        opened.value.get_by_role("button").click()
        expect(page).to_have_title("authDone")

    def call_the_embedder(page: Page) -> None:
        page.add_init_script("window.onAuthDone = () => { document.documentElement.dataset.told = 'yes' }")
        page.goto(client.page("m.login.terms"))  # which is passed by now
        expect(page.locator("html")).to_have_attribute("data-told", "yes")

    chromium.visit(tell_the_opener)
    chromium.visit(call_the_embedder)


def test_a_session_that_there_is_not(chromium: Chromium, site: Site) -> None:
    def look(page: Page) -> None:
        for session in ("none", "", "%3Cscript%3Ealert(1)%3C/script%3E", "x" * 3000, "%00", "%ff"):
            page.goto(f"{site.url}/_matrix/client/v3/auth/m.login.terms/fallback/web?session={session}")
            expect(page.get_by_role("heading")).to_have_text("This did not work")
            assert "<script>alert" not in page.content()

    chromium.visit(look)
