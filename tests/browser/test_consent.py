"""A user agrees to the policy on the page that a refusal leads to."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.chromium import Chromium
from tests.browser.site import Site


def test_a_user_agrees(chromium: Chromium, site: Site) -> None:
    token = site.account("cora")
    code, refused = site.ask("POST", "/v3/createRoom", {}, token)
    assert (code, refused["errcode"]) == (403, "M_CONSENT_NOT_GIVEN")

    def agree(page: Page) -> None:
        page.goto(refused["consent_uri"])
        expect(page.get_by_role("heading")).to_have_text("Policy")
        page.get_by_role("button", name="I agree").click()
        expect(page.get_by_role("heading")).to_have_text("Thank you")

    chromium.visit(agree, scripts=False)
    assert site.ask("POST", "/v3/createRoom", {}, token)[0] == 200

    def come_again(page: Page) -> None:
        page.goto(refused["consent_uri"])
        expect(page.get_by_role("heading")).to_have_text("Policy")
        expect(page.get_by_role("button")).to_have_count(0)

    chromium.visit(come_again)


def test_nobody_agrees_for_another(chromium: Chromium, site: Site) -> None:
    site.account("celia")
    carl = site.account("carl")
    _, refused = site.ask("POST", "/v3/createRoom", {}, carl)

    def forge(page: Page) -> None:
        page.goto(refused["consent_uri"].replace("carl", "celia"))
        expect(page.get_by_role("heading")).to_be_visible()
        expect(page.get_by_role("button")).to_have_count(0)

    chromium.visit(forge)
