"""What has no shape in OpenAI's interface: predictions, recipes, runs, kinds, savings."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
import yaml
from benchmarks.service_process import Served
from sqlalchemy import insert

from service import students
from stillroom.models.loading import load_model
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.tables import jobs


@pytest.fixture(scope="module")
def digits(service: Served) -> str:
    return students.put(service, students.of_digits(), "classifier")


@pytest.fixture(scope="module")
def texts(service: Served) -> str:
    return students.put(service, students.of_texts() / "student", "classifier")


def images(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 17, (count, 8, 8))


def test_images_are_labelled_as_the_model_itself_does(service: Served, digits: str) -> None:
    rows = images(5)
    answer = service.http().post("/api/predict", json={"model": digits, "rows": rows.tolist()}, timeout=180)
    assert answer.status_code == 200, answer.text
    told, own = answer.json(), load_model(students.of_digits()).predict(rows)  # type: ignore[union-attr]
    assert told["classes"] == own.classes
    assert [one["label"] for one in told["data"]] == own.label.tolist()
    np.testing.assert_allclose([one["probabilities"] for one in told["data"]], own.probabilities, atol=2e-6)


def test_texts_and_tables_are_labelled(service: Served, texts: str) -> None:
    http, known = service.http(), students.texts(12)
    for rows in ([text for text, _ in known], [{"text": text} for text, _ in known]):
        told = http.post("/api/predict", json={"model": texts, "rows": rows}, timeout=180).json()
        assert [one["label"] for one in told["data"]] == [label for _, label in known]
        assert all(sum(one["probabilities"]) == pytest.approx(1, abs=1e-5) for one in told["data"])


@pytest.mark.parametrize(
    ("rows", "param"),
    [([], "rows"), (["a", 1], "rows"), ([None], "rows"), ([[1, 2], [3]], "rows"), ([[["a"]]], "rows"), ("x", "rows")],
)
def test_rows_that_are_none(service: Served, digits: str, rows: Any, param: str) -> None:
    answer = service.http().post("/api/predict", json={"model": digits, "rows": rows})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "rows", [[[1, 2]], np.zeros((1, 9, 8), int).tolist(), ["a text"], [{"a": 1}], (images(1) * 300).tolist()]
)
def test_rows_of_another_shape(service: Served, digits: str, rows: Any) -> None:
    answer = service.http().post("/api/predict", json={"model": digits, "rows": rows})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_who_is_asked_for_labels(service: Served, digits: str) -> None:
    letters = students.put(service, students.of_letters(), "language")
    told = service.http().post("/api/predict", json={"model": letters, "rows": ["x"]}).json()["error"]
    assert told["code"] == "model_not_a_classifier"
    other = service.http(service.key("other", project=service.project()))
    for name in (digits, "ft:no:such:one:abcdefgh"):
        answer = other.post("/api/predict", json={"model": name, "rows": ["x"]})
        assert (answer.status_code, answer.json()["error"]["message"]) == (404, f"No such model: '{name}'")


def test_starters_are_recipes(service: Served) -> None:
    http = service.http()
    listed = http.get("/api/recipes").json()["data"]
    assert {one["id"] for one in listed} >= {"ensemble", "compress", "language", "label", "socratic", "reasoning"}
    for one in listed:
        assert "questions" in yaml.safe_load(one["yaml"])
        assert http.get(f"/api/recipes/{one['id']}").json() == one
    assert http.get("/api/recipes/none").json()["error"]["code"] == "recipe_not_found"


RECIPE = {
    "name": "mine", "questions": {"kind": "dataset", "source": "builtin:digits"},
    "teacher": {"kind": "trained", "model": {"kind": "mlp", "hidden": [8]}},
    "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [8]}}, "objectives": [{"kind": "soft_target"}],
}  # fmt: skip


def test_a_recipe_is_checked(service: Served) -> None:
    told = service.http().post("/api/recipes/check", json={"recipe": RECIPE})
    assert told.status_code == 200, told.text
    assert told.json()["valid"] is True
    assert told.json()["recipe"]["seeds"] == 5


@pytest.mark.parametrize(
    ("more", "within"),
    [
        ({"student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": []}}}, "hidden"),
        ({"questions": {"kind": "dataset", "source": "/etc/passwd"}}, "source"),
        ({"teacher": {"kind": "openai_api", "model": "x", "base_url": "http://127.0.0.1/"}}, "teacher"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_recipe_that_could_not_be_run(service: Served, more: dict[str, Any], within: str) -> None:
    answer = service.http().post("/api/recipes/check", json={"recipe": {**RECIPE, **more}})
    assert answer.status_code == 400
    assert within in (answer.json()["error"]["param"] or "") + answer.json()["error"]["message"]


def test_finished_runs_have_their_scorecards(service: Served) -> None:
    job = new_id("ftjob")
    row = {
        "id": job, "project_id": service.first_project(), "created_at": int(time.time()), "finished_at": int(time.time()),
        "status": "succeeded", "model": "small-text-classifier", "training_file": "", "seed": 0, "hyperparameters": {},
        "asked": {}, "recipe": {}, "phases": {}, "figures": {}, "fine_tuned_model": "ft:x",
    }  # fmt: skip
    with service.rows.writing() as rows:
        rows.execute(insert(jobs).values(**row))
        rows.execute(insert(jobs).values(**{**row, "id": new_id("ftjob"), "status": "failed"}))
    folder = service.root / "jobs" / job / "run"
    folder.mkdir(parents=True)
    scorecard = json.loads((students.of_texts() / "scorecard.json").read_text())
    (folder / "scorecard.json").write_text(json.dumps(scorecard))
    http = service.http()
    (one,) = http.get("/api/runs").json()["data"]
    assert (one["id"], one["model"], one["scorecard"]) == (job, "ft:x", scorecard)
    assert http.get(f"/api/runs/{job}").json() == one
    for name in (new_id("ftjob"), "x"):
        assert http.get(f"/api/runs/{name}").status_code == 404
    other = service.http(service.key("runs", project=service.project()))
    assert other.get(f"/api/runs/{job}").status_code == 404
    assert other.get("/api/runs").json()["data"] == []


def test_the_catalogue(service: Served) -> None:
    from stillroom.catalogue import catalogue

    http = service.http()
    assert http.get("/api/kinds").json() == catalogue()
    assert http.get("/api/kinds/mlp").json() == catalogue("mlp")
    assert http.get("/api/kinds/objective").json() == catalogue("objective")
    assert http.get("/api/kinds/none").json()["error"]["code"] == "kind_not_found"


def test_savings_of_nobody(service: Served) -> None:
    fresh = service.http(service.key("fresh", project=service.project()))
    assert fresh.get("/api/savings").json() == {
        "object": "savings",
        "calls": 0,
        "usd": 0.0,
        "saved_usd": 0.0,
        "data": [],
        "jobs_usd": 0.0,
        "jobs": [],
    }
    assert fresh.get("/api/savings", params={"since": -1}).status_code == 400


def test_every_route_is_in_the_document(service: Served) -> None:
    told = service.http().get("/api/openapi.json").json()["paths"]
    for path in ("/api/predict", "/api/recipes", "/api/recipes/check", "/api/runs", "/api/kinds", "/api/savings",
                 "/api/teachers", "/v1/models", "/v1/chat/completions"):  # fmt: skip
        assert path in told
