"""The figures on pages: what a job will take, what students are beside each other, what was paid."""

from __future__ import annotations

import copy
import json
import re
import time
from typing import Any

import httpx2
import pytest

from service import students
from service.pages.site import Site, put_finished, put_job
from stillroom.service.pages.words import figure, mean, share, size


@pytest.fixture
def http(site: Site) -> httpx2.Client:
    return site.served.http()


def cells(text: str, name: str) -> list[str]:
    """The words of the cells in the row of a table with this name."""
    row = text.split(f'<th scope="row">{name}</th>')[1].split("</tr>")[0]
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall("<td[^>]*>(.*?)</td>", row)]


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


def test_students_are_compared(site: Site, http: httpx2.Client) -> None:
    job_id, model_id = put_finished(site.served, students.of_texts(), "a second one")
    path = site.served.root / "jobs" / job_id / "run" / "scorecard.json"
    card = json.loads(path.read_text())
    models = copy.deepcopy(card["models"])
    card["models"]["student"] |= {"latency_ms_p50": {"mean": 0.00125}, "size_bytes": 1_234_567,
                                  "usd_per_million_rows": {"mean": 3.25}}  # fmt: skip
    card["models"]["teacher"] |= {
        "latency_ms_p50": {"mean": 420.0},
        "size_bytes": 7,
        "usd_per_million_rows": {"mean": 88.5},
    }
    card["models"]["control"] |= {"latency_ms_p50": {"mean": 0.5}, "size_bytes": 2_000}
    card["models"]["control"].pop("usd_per_million_rows", None)
    card.setdefault("cost", {})["teacher_usd"] = 0.75
    path.write_text(json.dumps(card))
    chosen = [site.paths["model"].rpartition("/")[2], model_id]
    text = http.get("/compare", params={"model": chosen}).text
    assert "a second one" in text
    assert text.count("checked") == 2
    first, second = cells(text, "Milliseconds a row")
    assert first == "0.00125 best teacher 420 control 0.5"
    assert second.startswith(figure(mean(models["student"], "latency_ms_p50")) + " teacher ")
    first, second = cells(text, "Size")
    assert first == "1.2 MB teacher 7 bytes control 2.0 KB"
    assert second.startswith(size(models["student"]["size_bytes"]) + " best teacher ")
    assert cells(text, "USD a million rows") == ["$3.25 teacher $88.50", "–"]
    assert cells(text, "Paid to the teacher") == ["$0.75", "–"]
    agreement = share(mean(models["student"], "agreement"))
    assert all(one.startswith(f"{agreement} best") for one in cells(text, "Like its teacher"))
    accuracy = share(mean(models["student"], "accuracy"))
    assert all(one.startswith(f"{accuracy} best teacher ") for one in cells(text, "Right answers"))


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
