"""Chromium as the tests drive it: one process for all of them, a fresh profile for each.

Playwright drives it on a thread of its own, since it leaves an event loop running wherever it is started.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

MISSING = "No Chromium was found (`chromium` on PATH, or where $CHROMIUM says): pages are not seen by a browser."
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
_PATIENCE = 15_000  # milliseconds until something on a page is given up
# Whoever else a page turns to is made up: a test says what is there.
Elsewhere = dict[str, Callable[[Route], None]]


def found() -> str | None:
    """The Chromium of this machine."""
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)


class Chromium:
    """The browser."""

    def __init__(self, executable: str) -> None:
        self._thread = ThreadPoolExecutor(1, "chromium")
        self._playwright: Any = None
        self._browser: Browser = self._thread.submit(self._start, executable).result()

    def _start(self, executable: str) -> Browser:
        self._playwright = sync_playwright().start()
        expect.set_options(timeout=_PATIENCE)
        started: Browser = self._playwright.chromium.launch(executable_path=executable, args=list(_FLAGS))
        return started

    def visit(
        self,
        scenario: Callable[[Page], None],
        *,
        elsewhere: Elsewhere | None = None,
        scripts: bool = True,
        at: tuple[str, ...] = (),
    ) -> None:
        """Run a scenario in a new profile.

        It fails as well if a page runs into an error or its own policy, or if the last one cannot be read by everybody.

        :param elsewhere: hosts that the pages may turn to besides loopback, by host, with what they answer.
        :param scripts: whether JavaScript runs.
        :param at: what is known to be said on the console as an error; parts of it.
        """
        self._thread.submit(self._visit, scenario, elsewhere or {}, scripts, at).result()

    def _visit(
        self, scenario: Callable[[Page], None], elsewhere: Elsewhere, scripts: bool, known: tuple[str, ...]
    ) -> None:
        context = self._browser.new_context(java_script_enabled=scripts)
        complaints: list[str] = []
        try:
            page = self._page(context, complaints, elsewhere)
            scenario(page)
            _check_readable(page)
        finally:
            context.close()
        complaints = [complaint for complaint in complaints if not any(part in complaint for part in known)]
        assert not complaints, complaints

    def _page(self, context: BrowserContext, complaints: list[str], elsewhere: Elsewhere) -> Page:
        def route(request: Route) -> None:
            host = urlsplit(request.request.url).hostname or ""
            if host in ("127.0.0.1", "localhost"):
                request.continue_()
            elif host in elsewhere:
                elsewhere[host](request)
            else:
                complaints.append(f"turned to {request.request.url}")
                request.abort()

        context.set_default_timeout(_PATIENCE)
        context.route("**/*", route)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: _hear(complaints, said))
        return page

    def close(self) -> None:
        """End the browser."""
        self._thread.submit(self._stop).result()
        self._thread.shutdown()

    def _stop(self) -> None:
        self._browser.close()
        self._playwright.stop()


def _hear(complaints: list[str], said: Any) -> None:
    # That an answer is an error, as 401 is, is not the page's fault.
    if said.type == "error" and "Failed to load resource" not in said.text:
        complaints.append(said.text)


def _check_readable(page: Page) -> None:
    """A page has a title, a heading and a language, and whatever can be filled in says what it is for."""
    assert page.title()
    assert page.locator("h1").count() == 1
    assert page.locator("html").get_attribute("lang")
    for field in page.locator("input:not([type=hidden]):not([type=submit]), select, textarea").all():
        names = field.evaluate("field => [...field.labels].map(label => label.textContent.trim()).join()")
        assert names or field.get_attribute("aria-label"), field.evaluate("field => field.outerHTML")
