"""Pages in a real Chromium: a first student in five clicks without scripts, and by keyboard; a quiet console; nothing for axe."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.pages.site import Site, put_job, put_steps
from stillroom.service.rows.tables import jobs

pytestmark = pytest.mark.browser
Open = Callable[..., Any]
MOST_CLICKS, MOST_S = 5, 300
LONG_MS = 240_000
NARROW = 320
WIDER = """() => [...document.querySelectorAll('body *')]
  .filter((node) => !node.closest('.scroll, pre, .skip, .unseen, thead, svg, option'))
  .filter((node) => node.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((node) => node.tagName + ' ' + node.textContent.slice(0, 40))"""


def violations(page: Any) -> list[str]:
    """What axe finds on a page, of any impact."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{page.url}: {one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(site: Site, open_browser: Open, scheme: str) -> None:
    with open_browser(scheme=scheme) as page:
        found = []
        for path in site.paths.values():
            page.goto(site.served.url + path)
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            found += violations(page)
        assert found == []  # and no box was opened by a text of somebody's: see open_browser
        page.goto(site.served.url + site.paths["model"])
        page.get_by_label("A text").fill("please refund order 5")
        page.get_by_role("button", name="Ask the student").click()
        page.get_by_role("heading", name="It says: refund").wait_for()
        assert violations(page) == []
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (min(int(part) for part in paper[4:-1].split(",")) > 200) is (scheme == "light")


@pytest.mark.parametrize("js", [True, False])
def test_nothing_is_wider_than_a_narrow_screen(site: Site, open_browser: Open, js: bool) -> None:
    with open_browser(width=NARROW, js=js) as page:
        for name, path in site.paths.items():
            page.goto(site.served.url + path)
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW, name
            assert page.evaluate(WIDER) == [], name


def test_a_first_student_in_five_clicks_without_scripts(site: Site, open_browser: Open) -> None:
    clicks, started = 0, time.monotonic()
    with open_browser(js=False) as page:
        page.goto(site.served.url)

        def click(role: str, name: str) -> None:
            nonlocal clicks
            clicks += 1
            page.get_by_role(role, name=name).click(timeout=LONG_MS)  # the page loads itself anew until it is there

        click("button", "Distil the messages")
        assert "/jobs/ftjob-" in page.url
        page.get_by_role("heading", name="What it will take").wait_for()
        click("button", "Start")
        click("link", "Open the student")
        page.get_by_label("A text").fill("i lost my card in town yesterday")
        click("button", "Ask the student")
        page.get_by_role("heading", name="It says: card_lost").wait_for()
    assert clicks <= MOST_CLICKS
    assert time.monotonic() - started < MOST_S


def test_a_table_becomes_a_student_without_scripts(site: Site, open_browser: Open, tmp_path: Path) -> None:
    table = tmp_path / "fruit.csv"
    rows = [
        f"{weight},{'round' if weight % 3 else 'long'},{'apple' if weight % 3 else 'banana'}"
        for weight in range(90, 180)
    ]
    table.write_text("\n".join(["grams,shape,fruit", *rows]))
    with open_browser(js=False) as page:
        page.goto(f"{site.served.url}/data")
        page.get_by_label("What it is").select_option(
            label="A table with a column to predict (.csv, .tsv, .jsonl, .parquet)"
        )
        page.locator("#file").set_input_files(table)
        page.get_by_role("button", name="Upload").click()
        page.get_by_role("link", name="Distil this table").click()
        page.get_by_label("Column to predict").select_option("fruit")
        page.get_by_role("button", name="Show the estimate").click()
        page.get_by_role("button", name="Start").click(timeout=LONG_MS)
        page.get_by_role("link", name="Open the student").click(timeout=LONG_MS)
        page.get_by_role("textbox", name="grams", exact=True).fill("120")
        page.get_by_role("textbox", name="shape", exact=True).fill("long")
        page.get_by_role("button", name="Ask the student").click()
        page.get_by_role("heading", name="It says: banana").wait_for()


def test_a_first_student_by_keyboard_alone(site: Site, open_browser: Open) -> None:
    with open_browser() as page:
        page.goto(site.served.url)

        def reach(what: str, key: str = "Enter") -> None:
            """Tab until that is focused, and visibly so; then press a key."""
            for _ in range(80):
                page.keyboard.press("Tab")
                words = page.evaluate("(document.activeElement.innerText || document.activeElement.id || '').trim()")
                if words == what:
                    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
                    page.keyboard.press(key)
                    return
            raise AssertionError(f"{what} cannot be reached by Tab on {page.url}")

        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Skip to the page"
        page.keyboard.press("Enter")
        reach("Distil the digits")
        page.get_by_role("button", name="Start").wait_for(timeout=LONG_MS)
        reach("Start")
        page.get_by_role("link", name="Open the student").wait_for(timeout=LONG_MS)
        assert page.locator("#told").inner_text() == "Finished"
        reach("Open the student")
        page.get_by_role("button", name="Wipe").wait_for()
        reach("Mark squares instead, with the keyboard", "Enter")
        page.keyboard.press("Tab")
        for key in ("ArrowRight", "ArrowRight", "ArrowRight", *["Space", "ArrowDown"] * 7, "Space"):
            page.keyboard.press(key)
        assert page.locator("#squares input:checked").count() == 8
        assert page.locator("#squares input:focus").get_attribute("name") == "square-7-3"
        reach("Ask the student")
        page.get_by_role("heading", name="It says: ").wait_for()


def test_a_digit_is_drawn_with_a_pointer(site: Site, open_browser: Open) -> None:
    with open_browser() as page:
        page.goto(site.served.url + site.paths["drawing model"])
        pad = page.locator("#pad")
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 20, steps=8)
        page.mouse.up()
        with page.expect_request(lambda request: request.method == "POST") as sent:
            page.get_by_role("button", name="Ask the student").click()
        page.get_by_role("heading", name="It says: ").wait_for()
        values = sent.value.post_data.split("pixels=")[1].split("&")[0].replace("%2C", ",").split(",")
        assert len(values) == 64
        rows = [[int(value) for value in values[8 * row : 8 * row + 8]] for row in range(8)]
        assert all(max(row[3:5]) > 60 for row in rows), "the stroke goes from top to bottom"
        assert all(row[0] == row[7] == 0 for row in rows)


def test_a_job_page_keeps_up_by_itself(site: Site, open_browser: Open) -> None:
    job_id = put_job(site.served, "running", phases={"training": {"done": 1, "total": 8}})
    with open_browser() as page:
        page.goto(f"{site.served.url}/jobs/{job_id}")
        page.evaluate("window.stays = true")
        assert "1 of 8" in page.inner_text("#live")
        put_steps(site.served, job_id, 30)
        page.locator("svg.chart.wide").wait_for()
        assert not page.locator("svg.chart.narrow").is_visible()
        page.locator("#points summary").click()
        with site.served.rows.writing() as rows:
            rows.execute(update(jobs).where(jobs.c.id == job_id).values(phases={"training": {"done": 5, "total": 8}}))
        page.get_by_text("5 of 8").wait_for()
        assert page.locator("#points").get_attribute("open") is not None, "what was unfolded stays so"
        with site.served.rows.writing() as rows:
            rows.execute(update(jobs).where(jobs.c.id == job_id).values(status="failed", finished_at=int(time.time())))
        page.get_by_text("Failed").first.wait_for()
        assert page.evaluate("window.stays"), "and the page was never loaded anew"
        assert page.locator("#told").inner_text() == "Failed"


def test_a_second_device_sees_the_same(site: Site, open_browser: Open) -> None:
    job_id = put_job(site.served, "running")
    with open_browser() as one, open_browser(js=False, width=NARROW) as other:
        one.goto(f"{site.served.url}/jobs/{job_id}")
        other.goto(f"{site.served.url}/jobs/{job_id}")
        other.get_by_role("button", name="Cancel").click()
        one.get_by_text("Cancelled").first.wait_for()
        one.reload()
        assert "Cancelled" in one.inner_text("main")
        assert "Cancelled" in other.inner_text("main")


def test_a_report_opens_in_its_sandbox(site: Site, open_browser: Open) -> None:
    with open_browser() as page:
        page.goto(site.served.url + site.paths["finished job"])
        page.get_by_role("link", name="Read the report").click()
        page.get_by_role("heading", level=1).wait_for()
        assert page.evaluate("self.origin") == "null", "it is nobody's page, and can ask this service for nothing"
