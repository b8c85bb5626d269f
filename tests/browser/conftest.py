"""What tests with a browser share: the browser, and a server whose every page has something to show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import chromium as browsers
from tests.browser.chromium import Chromium
from tests.browser.site import Site, running_site


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    executable = browsers.found()
    if executable is None:
        pytest.skip(browsers.MISSING)
    browser = Chromium(executable)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def site(chromium: Chromium) -> Iterator[Site]:
    with running_site() as site:
        yield site
