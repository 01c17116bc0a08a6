"""The figures on pages: what a job will take, what students are beside each other, what was paid."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from service import students
from service.pages.site import Site, put_finished, put_job
from stillroom.service.pages import models_page
from stillroom.service.rows.tables import jobs, models


@pytest.fixture
def http(site: Site) -> httpx2.Client:
    return site.served.http()


def cells(text: str, name: str) -> list[str]:
    """The words of the cells in the row of a table with this name."""
    row = text.split(f'<th scope="row">{name}</th>')[1].split("</tr>")[0]
    return [
        " ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall("<td[^>]*>(.*?)</td>", row, re.DOTALL)
    ]


@pytest.mark.parametrize(
    ("estimate", "told"),
    [
        ({"teacher_calls": 9}, "none: it is not paid by the call"),
        ({"teacher_calls_low": 9, "teacher_calls_high": 9, "teacher_tokens_low": 1, "teacher_tokens_high": 2},
         "not known: it has no price"),
    ],
)  # fmt: skip
def test_an_estimate_says_why_it_has_no_dollars(
    site: Site, http: httpx2.Client, estimate: dict[str, Any], told: str
) -> None:
    held = {"asked": {"distillation": {"hold": True}}, "estimate": {"minutes": 1, **estimate}}
    text = http.get(f"/jobs/{put_job(site.served, 'paused', **held)}").text
    assert f"<dt>Dollars for the teacher</dt><dd>{told}</dd>" in text


def measured(latency_ms: float, size_bytes: int, usd: float | None) -> dict[str, Any]:
    """A model's figures beside how good it is; USD None where no price was given."""
    priced = {} if usd is None else {"usd_per_million_rows": {"mean": usd}}
    return {"latency_ms_p50": {"mean": latency_ms}, "size_bytes": size_bytes, **priced}


def compared(
    site: Site,
    title: str,
    paid: float,
    accuracy: float,
    rows: dict[str, str] | None = None,
    questions: Any = None,
    **roles: dict[str, Any],
) -> str:
    """A finished student whose scorecard says this; its id. `rows`: digests that differ of what it was tested on; {}: none."""
    job_id, model_id = put_finished(site.served, students.of_texts(), title)
    with site.served.rows.writing() as begun:
        recipe = {"teacher": {"kind": "openai_api"}, "questions": questions}
        begun.execute(update(jobs).where(jobs.c.id == job_id).values(recipe=recipe, training_file="file-one"))
    manifest = site.served.root / "jobs" / job_id / "run" / "evaluation" / "manifest.json"
    told = json.loads(manifest.read_text())
    assert "predictions/test.keys.u8" in told["files"]
    told["files"] = {} if rows == {} else {**told["files"], **(rows or {})}
    manifest.write_text(json.dumps(told))
    path = site.served.root / "jobs" / job_id / "run" / "scorecard.json"
    card = json.loads(path.read_text())
    for role, figures in roles.items():
        card["models"][role] |= figures
    card["models"]["student"] |= {"accuracy": {"mean": accuracy}, "agreement": {"mean": accuracy - 0.125}}
    card.setdefault("cost", {})["teacher_usd"] = paid
    path.write_text(json.dumps(card))
    return model_id


@pytest.mark.parametrize(
    ("values", "best"),
    [((1.0, 1.05), ""), ((1.0, 1.05, 1.2), "yes yes no"), ((1.0, 1.2), "yes no"), ((1.0, 1.0, 0.0), "no no yes")],
)
def test_times_that_differ_by_chance_are_equally_good(values: tuple[float, ...], best: str) -> None:
    columns = [{"student": {"latency_ms_p50": {"mean": value}}, "teacher": {}, "control": {}} for value in values]
    told = models_page._metric(columns, "latency_ms_p50", "", "figure", False, False)
    assert told["values"] == list(values)
    assert told["best"] == [value for value, is_best in zip(values, best.split(), strict=False) if is_best == "yes"]


@pytest.mark.parametrize(
    ("values", "best"), [((0.5, 0.5), []), ((0.91234, 0.91231), []), ((0.91234, 0.91231, 0.9), [0.91234, 0.91231])]
)
def test_figures_that_are_written_alike_are_equally_good(values: tuple[float, ...], best: list[float]) -> None:
    columns = [{"student": {"accuracy": {"mean": value}}, "teacher": {}, "control": {}} for value in values]
    assert models_page._metric(columns, "accuracy", "", "share", True, True)["best"] == best


def test_figures_of_several_students_are_told_as_means(site: Site, http: httpx2.Client) -> None:
    told = "The student was trained from 3 different starts, and its figures are means."
    model_id = compared(site, "three starts", 0.5, 0.75)
    with site.served.rows.reading() as rows:
        job_id = rows.execute(select(models.c.job_id).where(models.c.id == model_id)).scalar_one()
    path = site.served.root / "jobs" / job_id / "run" / "scorecard.json"
    card = json.loads(path.read_text())
    assert card["seeds"] == [0]
    for seeds, is_told in (([0], False), ([0, 1, 2], True)):
        path.write_text(json.dumps({**card, "seeds": seeds}))
        for page in (f"/models/{model_id}", f"/jobs/{job_id}"):
            assert (told in http.get(page).text) is is_told


def test_students_are_compared(site: Site, http: httpx2.Client) -> None:
    first = compared(
        site, "the first one", 0.75, 0.875, student=measured(0.00125, 1_234_567, 3.25), teacher=measured(420.0, 7, 88.5),
        control=measured(0.5, 2_000, None),
    )  # fmt: skip
    second = compared(
        site, "the second one", 12.5, 0.75, student=measured(0.25, 999, 4.0), teacher=measured(410.0, 3_000_000, 80.0),
        control=measured(0.75, 1_000, None),
    )  # fmt: skip
    text = http.get("/compare", params={"model": [first, second]}).text
    assert text.count("checked") == 2
    assert text.index(">the second one</a>") < text.index(">the first one</a>"), "the newest stands first"
    assert cells(text, "Milliseconds a row") == [
        "0.25 teacher 410 control 0.75",
        "0.00125 best teacher 420 control 0.5",
    ]
    assert cells(text, "Size") == [
        "999 bytes best teacher 3.0 MB control 1.0 KB",
        "1.2 MB teacher 7 bytes control 2.0 KB",
    ]
    assert cells(text, "USD a million rows") == ["$4.00 teacher $80.00", "$3.25 best teacher $88.50"]
    assert cells(text, "Paid to the teacher") == ["$12.50", "$0.75"]
    good = cells(text, "Right answers")
    assert good[0].startswith("75.0 % teacher ")
    assert good[1].startswith("87.5 % best teacher ")
    alike = cells(text, "Like its teacher")
    assert alike[0].startswith("62.5 % control ")
    assert alike[1].startswith("75.0 % best control ")
    other = compared(
        site, "of other data", 0.5, 0.99, {"predictions/test.keys.u8": "other"}, student=measured(0.1, 500, 9.0)
    )
    text = http.get("/compare", params={"model": [first, other]}).text
    assert [found for found in cells(text, "Right answers") if "best" in found] == [], "tested on other rows"
    assert "500 bytes best" in cells(text, "Size")[0]
    for title in ("the first one", "of other data"):
        assert f"<strong>{title}</strong>" in text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("recorded", "Answers taken from the data"),
        ("ensemble", "Answers of the teacher, on this machine"),
        ("openai_api", "Calls to the teacher"),
    ],
)
def test_a_page_says_who_answered(site: Site, http: httpx2.Client, kind: str, words: str) -> None:
    job_id, model_id = put_finished(site.served, students.of_texts())
    with site.served.rows.writing() as rows:
        told = {"recipe": {"teacher": {"kind": kind}}, "figures": {"teacher_calls": 12, "usd": 0.5}}
        rows.execute(update(jobs).where(jobs.c.id == job_id).values(**told))
    page = http.get(f"/jobs/{job_id}").text
    assert f"<dt>{words}</dt><dd>12</dd>" in page
    assert ("<dt>Spent on the teacher</dt>" in page) is (kind == "openai_api")
    for text in (page, http.get(f"/models/{model_id}").text):
        assert ("Teacher: right answers" in text) is (kind != "recorded"), "right by definition where it is the data"
        assert ("Student: answers as in the data" in text) is (kind == "recorded")
        assert ("answers like its teacher" in text) is (kind != "recorded"), "that is the same figure"


def test_a_recorded_teacher_of_a_recipe_has_a_figure(site: Site, http: httpx2.Client) -> None:
    job_id, _ = put_finished(site.served, students.of_texts())
    asked = {"distillation": {"recipe": {"teacher": {"kind": "recorded"}}}}
    with site.served.rows.writing() as rows:
        told = {"recipe": {"teacher": {"kind": "recorded"}}, "asked": asked}
        rows.execute(update(jobs).where(jobs.c.id == job_id).values(**told))
    assert "Teacher: right answers" in http.get(f"/jobs/{job_id}").text, "it may differ from what is right"


ONE, OTHER = (f"file-{letter * 24}.jsonl" for letter in "ab")


@pytest.mark.parametrize(
    ("rows", "several", "is_known"),
    [
        (None, [None, None], True),
        ({"predictions/test.labels.i64": "of another column"}, [None, None], False),
        ({}, [{"source": ONE}, {"source": ONE}], True),
        ({}, [{"source": "builtin:sums", "seed": 1}, {"source": "builtin:sums", "seed": 1}], True),
        ({}, [{"source": ONE, "seed": 1}, {"source": ONE, "seed": 2}], False),
        ({}, [{"source": {"train": ONE, "test": ONE}}, {"source": {"train": ONE, "test": OTHER}}], False),
        ({}, [{"source": "rows.jsonl"}, {"source": "rows.jsonl"}], False),
        ({}, [None, None], False),
    ],
    ids=["same", "label", "file", "builtin", "seed", "test file", "drafted", "nothing"],
)
def test_students_are_called_alike_where_their_test_rows_are(
    site: Site, http: httpx2.Client, rows: dict[str, str] | None, several: list[Any], is_known: bool
) -> None:
    first = compared(site, "one", 0.5, 0.5, None if rows else rows, several[0], student=measured(1.0, 9, None))
    second = compared(site, "two", 0.5, 0.75, rows, several[1], student=measured(1.0, 9, None))
    text = http.get("/compare", params={"model": [first, second]}).text
    assert ("All were tested on the same rows" in text) is is_known
    assert ("tested on different rows, or it is not known" in text) is not is_known
    assert any("best" in found for found in cells(text, "Right answers")) is is_known


def test_pages_tell_of_a_cascade(site: Site, http: httpx2.Client) -> None:
    job_id, model_id = put_finished(site.served, students.of_texts())
    path = site.served.root / "jobs" / job_id / "run" / "scorecard.json"
    card = json.loads(path.read_text())
    for risk, is_more in ((0.19, True), (0.04, False)):
        card["cascade"] = {"risk_allowed": 0.1, "risk": {"mean": risk}, "coverage": {"mean": 0.75}}
        path.write_text(json.dumps(card))
        for address in (f"/jobs/{job_id}", f"/models/{model_id}"):
            text = http.get(address).text
            assert f"<code>{model_id}:cascade</code>" in text
            assert "75.0 % of the questions itself" in text
            assert f"{100 * risk:.1f} % of all answers" in text
            assert ("more than allowed" in text) is is_more


def test_usage_is_shown_by_model_and_by_job(site: Site, http: httpx2.Client) -> None:
    spent = {"teacher_calls": 40, "teacher_tokens": 6400, "usd": 0.5, "paid_at": time.time() - 3600}
    job_id = put_job(site.served, "failed", suffix="a paid one", figures=spent)
    put_job(site.served, "failed", suffix="an old one", figures={**spent, "paid_at": time.time() - 3 * 86400})
    put_job(
        site.served,
        "failed",
        suffix="one refused",
        figures={**spent, "teacher_calls": 0, "teacher_tokens": 0, "usd": 0.0},
    )
    put_job(site.served, "failed", suffix="of others", figures=spent, project=site.served.project("payers"))
    text = http.get("/keys?days=1").text
    assert cells(text, "ft:x:cascade") == ["3", "2", "1", "30", "15", "$0.0021", "$0.0018", "50.0 % of 2"]
    assert cells(text, f'<a href="/jobs/{job_id}">a paid one</a>') == ["40", "6,400", "$0.5"]
    assert "$0.0021 for calls, $0.5 by jobs" in text
    assert "<strong>$0.5</strong><span>paid to teachers" in text
    assert "<strong>$0.0018</strong><span>saved</span>" in text
    assert "<strong>50.0 %</strong><span>agreement on the audit slice</span><small>2 calls" in text
    for other in ("an old one", "one refused", "of others"):
        assert other not in text
    assert "an old one" in http.get("/keys?days=7").text
    told = http.get("/api/savings", params={"since": int(time.time()) - 86400}).json()
    assert told["jobs"] == [{"id": job_id, "suffix": "a paid one", "calls": 40, "tokens": 6400, "usd": 0.5}]
    assert told["jobs_usd"] == 0.5
