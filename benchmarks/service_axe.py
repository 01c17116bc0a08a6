"""Every page in a real Chromium, light and dark: what axe-core finds on it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import Found, Row, Table
from benchmarks.service_process import Served
from benchmarks.service_sizes import Sizes

TESTS = Path(__file__).resolve().parent.parent / "tests"
THEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def axe(sizes: Sizes, base: Path) -> Row:
    """Violations of any impact, over all pages and both themes."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        return Row({"service-axe": Found(None, why="there is no Chromium on this machine")})
    shutil.rmtree(base / "axe", ignore_errors=True)
    sys.path.insert(0, str(TESTS))
    from service.pages.site import filled

    with Served(base / "axe") as service:
        pages = filled(service).paths
        rows = list(_found(path, service.url, dict(list(pages.items())[: sizes.pages])))
    table = Table("What axe-core found", ["page", "theme", "rule", "impact", "places"], rows)
    return Row({"service-axe": Found(len(rows), n=f"{len(pages)} pages, {len(THEMES)} themes")}, {"axe": table})


def _found(browser: str, url: str, pages: dict[str, str]) -> Iterator[list[Any]]:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for theme in THEMES:
            context = running.new_context(color_scheme=theme, bypass_csp=True)  # axe's own script is not ours
            page = context.new_page()
            for name, path in pages.items():
                page.goto(url + path)
                for one in Axe().run(page).response["violations"]:
                    yield [name, theme, one["id"], one["impact"], len(one["nodes"])]
            context.close()
        running.close()
