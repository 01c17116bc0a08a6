"""From an application's calls to its own student, then a cascade, and what that saves: docs/how-to/flywheel.md, step by step."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks.service_process import Served

from service.conftest import AsClient
from stillroom.loopback.serving import Loopback
from stillroom.questions.intents import ROWS, intents
from stillroom.service.pages.words import share, usd

STORED, LATER, CALLERS = 500, 400, 8
TEXTS, INTENTS = intents(ROWS, 0)
SPEC: dict[str, Any] = {
    "model": "large", "mind": {"kind": "rule", "source": "builtin:intents", "error_rate": 0.0},
    "price": {"input": 5.0, "output": 20.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """A teacher that is paid by the token; it knows the intent of each text."""
    found = Loopback(SPEC, tmp_path_factory.mktemp("teacher"))
    found.url = found.start()  # type: ignore[attr-defined]
    yield found
    found.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, teacher: Any) -> Iterator[Served]:
    place = teacher.url.split("/")[2]
    with Served(tmp_path_factory.mktemp("served"), "--allow-teacher", place) as found:
        http = found.http()
        made = {"name": "helpdesk-teacher", "base_url": teacher.url, "model": "large", "price": SPEC["price"]}
        http.post("/api/teachers", json={**made, "key": "any-key-of-it"}).raise_for_status()
        http.post(f"/api/projects/{found.first_project()}", json={"trains_on_stored": True}).raise_for_status()
        yield found


@pytest.fixture(scope="module")
def client(as_client: AsClient) -> openai.OpenAI:
    """An application's: it tries again by itself, and waits for a student that is loaded."""
    return as_client(max_retries=2, timeout=300.0)


def ask(client: openai.OpenAI, model: str, text: str) -> tuple[str, str]:
    """What is said to a text, and by whom; it is stored."""
    answer = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": text}], store=True, metadata={"app": "helpdesk"}
    )
    return answer.parse().choices[0].message.content or "", answer.headers["x-stillroom-answered-by"]


def all_asked(client: openai.OpenAI, model: str, texts: list[str]) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(lambda text: ask(client, model, text), texts))


def savings_of(service: Served, model: str) -> dict[str, Any]:
    """The line of a model in what a project saved."""
    found = service.http().get("/api/savings").json()["data"]
    return next(one for one in found if one["model"] == model)


def told_of(service: Served, model: str) -> list[str]:
    """What the page says of a model's calls: all, the student's and the teacher's, dollars paid and saved, agreement."""
    row = service.http().get("/keys").text.split(f'<th scope="row">{model}</th>')[1].split("</tr>")[0]
    said = dict(re.findall('data-name="([^"]+)">([^<]*)</td>', row))
    return [said[name] for name in ("Calls", "By student", "By teacher", "Paid", "Saved", "Agreement")]


def test_the_flywheel(service: Served, client: openai.OpenAI, teacher: Any) -> None:
    # An application calls a teacher through the service, and its answers are stored.
    answers = all_asked(client, "helpdesk-teacher", TEXTS[:STORED])
    assert [one[0] for one in answers] == INTENTS[:STORED]
    assert {one[1] for one in answers} == {"teacher"}
    stored = client.chat.completions.list(metadata={"app": "helpdesk"}, limit=100)
    assert len({one.id for one in stored}) == STORED
    paid = savings_of(service, "helpdesk-teacher")
    assert (paid["calls"], paid["by_teacher"], paid["by_student"]) == (STORED, STORED, 0)
    assert paid["usd"] > 0

    # A distillation is started from them by metadata; nothing is asked again.
    job = client.fine_tuning.jobs.create(
        model="small-text-classifier", training_file="stored_completions", suffix="helpdesk", seed=1,
        extra_body={
            "distillation": {
                "teacher": "helpdesk-teacher", "seeds": 1, "cascade": {"risk": 0.1},
                "source": {"stored_completions": {"metadata": {"app": "helpdesk"}}},
            }
        },
    )  # fmt: skip
    done = service.wait(job.id, within_s=400)
    assert done["status"] == "succeeded", (done["error"], done)
    assert done["distillation"]["teacher_tokens"] == 0
    assert savings_of(service, "helpdesk-teacher")["calls"] == STORED

    # The student is served under its own name, and where it came from is known.
    student = done["fine_tuned_model"]
    new = TEXTS[STORED : STORED + 100]
    said = all_asked(client, student, new)
    assert {one[1] for one in said} == {"student"}
    right = sum(one[0] == label for one, label in zip(said, INTENTS[STORED:], strict=False))
    most = Counter(INTENTS[STORED : STORED + 100]).most_common(1)[0][1]
    assert right > most, "the student is no better than the most frequent answer"
    made_from = service.http().get(f"/api/lineage/models/{student}", params={"limit": 1}).json()
    assert made_from["data"]
    lately = savings_of(service, student)
    assert (lately["by_student"], lately["by_teacher"], lately["usd"]) == (100, 0, 0.0)
    assert lately["saved_usd"] > 0

    # Then as a cascade: it answers when it is sure, and the teacher otherwise, whose answers are stored too.
    cascade = f"{student}:cascade"
    later = TEXTS[STORED : STORED + LATER]
    said = all_asked(client, cascade, later)
    by = Counter(one[1] for one in said)
    assert set(by) == {"student", "teacher"}, by
    right_of_cascade = sum(one[0] == label for one, label in zip(said, INTENTS[STORED:], strict=False))
    assert right_of_cascade / LATER > right / 100

    # What it saved, and how often the two agree where both were asked.
    line, before = savings_of(service, cascade), {}
    while line != before:  # the last answers may still be audited: the teacher is asked behind them
        time.sleep(1.0)
        line, before = savings_of(service, cascade), line
    assert line["calls"] == LATER
    assert (line["by_student"], line["by_teacher"]) == (by["student"], by["teacher"])
    assert line["saved_usd"] > 0
    assert line["usd"] > 0
    assert 0 < line["audited"] <= by["student"]
    assert line["agreement"] == line["agreed"] / line["audited"]
    assert told_of(service, cascade) == [
        f"{LATER}", f"{by['student']}", f"{by['teacher']}", usd(line["usd"]), usd(line["saved_usd"]),
        f"{share(line['agreement'])} of {line['audited']}",
    ]  # fmt: skip
    assert line["agreement"] > 0.5, "the student that answers when it is sure says mostly what its teacher says"


def test_what_is_deleted_is_told(service: Served, client: openai.OpenAI) -> None:
    """A person's row is deleted: the student that was made from it says so until it is made anew."""
    models = [one.id for one in client.models.list() if one.id.startswith("ft:") and not one.id.endswith(":cascade")]
    if not models:
        pytest.fail("the test above made no student")
    (student,) = models
    assert client.models.retrieve(student).model_extra["contains_deleted"] == 0  # type: ignore[index]
    row = service.http().get(f"/api/lineage/models/{student}", params={"limit": 1}).json()["data"][0]
    client.chat.completions.delete(row["source_id"])
    assert client.models.retrieve(student).model_extra["contains_deleted"] == 1  # type: ignore[index]


def test_the_page_of_the_tutorial_has_these_steps() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "flywheel.md").read_text()
    for words in (
        "store=True",
        "trains_on_stored",
        "stored_completions",
        ":cascade",
        "/api/savings",
        "contains_deleted",
    ):
        assert words in page
