"""The page in a real browser: quiet console, no requests, nothing wider than the screen, a theme button that works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from report.language_run import language_run
from report.text_run import text_run
from stillroom.report.page import render, render_panels

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Run = tuple[dict[str, Any], dict[str, Any]]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def page_file(few_labels: Run, unseen_three: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    panels = [("Few labels", "A hundred labels.", *few_labels), ("Never seen", "No 3.", *unseen_three)]
    path.write_text(render_panels("Two runs", "What they show.", panels), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def other_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("others")
    runs = {"causal": language_run("causal"), "masked": language_run("masked"), "text": text_run()}
    found = {}
    for name, run in runs.items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(render(*run), encoding="utf-8")
    return found


WIDER = """() => {
  const wide = document.documentElement.clientWidth;
  const inside = (node) => node.closest('.scroll, pre, .skip, thead, title, desc');
  return [...document.querySelectorAll('main *, header *')]
    .filter((node) => !inside(node) && node.getBoundingClientRect().right > wide + 1)
    .map((node) => node.tagName + ' ' + (node.getAttribute('class') || '') + ' ' + node.textContent.slice(0, 40));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_opens_offline_and_fits(browser: Any, page_file: Path, scheme: str, width: int) -> None:
    opens_and_fits(browser, page_file, scheme, width)


@pytest.mark.parametrize(("scheme", "width"), [("dark", 320), ("light", 1280)])
@pytest.mark.parametrize("name", ["causal", "masked", "text"])
def test_other_runs_open_and_fit(
    browser: Any, other_files: dict[str, Path], name: str, scheme: str, width: int
) -> None:
    opens_and_fits(browser, other_files[name], scheme, width)


def opens_and_fits(browser: Any, page_file: Path, scheme: str, width: int) -> None:
    """A quiet console, no request, and nothing wider than the screen, with all that folds unfolded."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = context.new_page()
    noise: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(WIDER) == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert noise == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (min(int(part) for part in paper[4:-1].split(",")) > 200) is (scheme == "light")
    context.close()


def test_the_theme_button_switches_by_keyboard(browser: Any, page_file: Path) -> None:
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    page.goto(page_file.as_uri())
    button = page.get_by_role("button", name="Theme: auto")
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Theme: dark").is_visible()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.reload()
    assert page.get_by_role("button", name="Theme: dark").is_visible(), "it is remembered"
    context.close()


def test_it_reads_without_javascript(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.get_by_role("heading", name="The models, side by side").first.is_visible()
    assert page.get_by_role("img", name="Accuracy against size").first.is_visible()
    assert not page.locator("#theme").is_visible()
    context.close()


def test_it_prints_on_paper(browser: Any, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 720, "height": 1000}, color_scheme="dark")
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.querySelector('details pre').getBoundingClientRect().height") > 0, "all is open"
    context.close()
