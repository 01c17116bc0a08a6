"""A server for all tests of pages, with something on every page; and a Chromium whose console must stay quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from benchmarks.service_process import Served

from service.pages.site import Site, filled

BROWSER = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
QUIET_S = 30_000


@pytest.fixture(scope="session")
def pages_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for these tests."""
    with Served(tmp_path_factory.mktemp("pages")) as found:
        yield found


@pytest.fixture(scope="session")
def site(pages_served: Served) -> Site:
    """It, with files, completions, teachers, keys, jobs in every state and students in it."""
    return filled(pages_served)


@pytest.fixture(scope="module")
def playwright_there() -> Iterator[Any]:
    """While it is there, an event loop runs in this thread, so it goes before tests of other files begin."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture
def open_browser(chromium: str, playwright_there: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages in a Chromium of this test's own; what its console says, or a box that opens, fails the test."""
    running = playwright_there.chromium.launch(executable_path=chromium, args=list(BROWSER))
    noise: list[str] = []

    @contextmanager
    def context(*, js: bool = True, scheme: str = "light", width: int = 1200) -> Iterator[Any]:
        found = running.new_context(
            java_script_enabled=js, color_scheme=scheme, viewport={"width": width, "height": 800}
        )
        found.set_default_timeout(QUIET_S)
        page = found.new_page()
        page.on("console", lambda message: noise.append(f"{page.url}: {message.text}"))
        page.on("pageerror", lambda error: noise.append(f"{page.url}: {error}"))
        page.on("dialog", lambda dialog: (noise.append(f"{page.url}: {dialog.message}"), dialog.dismiss()))
        yield page
        found.close()

    yield context
    running.close()
    unwanted = [line for line in noise if "status of 400" not in line and "status of 404" not in line]
    assert unwanted == []
