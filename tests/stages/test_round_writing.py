"""Rounds in which a teacher over HTTP writes questions: what that costs, and that it is asked about what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stillroom import flow
from stillroom.errors import RecipeError
from stillroom.ledger import Limits, opened
from stillroom.loopback.serving import Loopback
from stillroom.recipe import Recipe
from stillroom.rundir import read_json

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SHIPPED = yaml.safe_load((RECIPES / "loopback" / "socratic.yaml").read_text())
MIND = {**SHIPPED["mind"], "error_rate": 0.0}
"""The teacher that ships for recipes/socratic.yaml, so that what it takes for writing fits what it is asked."""


def recipe(url: str, strategy: str, **sections: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "name": "written",
        "seeds": 1,
        "questions": {"kind": "dataset", "source": "builtin:intents", "split": {"validation": 40, "test": 60}},
        "teacher": {
            "kind": "openai_api", "base_url": url, "model": "loopback", "prompt": "Text: {text}",
            "price": {"input": 1, "output": 1},
        },
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [16]}},
        "objectives": [{"kind": "hard_label", "from": "teacher"}],
        "training": {"epochs": 8, "batch_size": 16, "learning_rate": 0.01},
        "rounds": {"strategy": {"kind": strategy, "variants": 3}, "start": 27, "budgets": [60, 100]},
        "evaluation": {"metrics": ["accuracy"]},
    }  # fmt: skip
    return {**tree, **sections}


@pytest.fixture(scope="module")
def teacher() -> Any:
    with Loopback({"mind": MIND}) as url:
        yield url


@pytest.mark.parametrize("strategy", ["teacher_written", "reword"])
def test_a_teacher_writes_and_is_asked_about_it(tmp_path: Path, teacher: str, strategy: str) -> None:
    flow.distill(recipe(teacher, strategy), tmp_path / "run", until="evaluate")
    rounds = read_json(tmp_path / "run" / "rounds" / "rounds.json")["rounds"]
    assert [one["calls"] for one in rounds] == [30, 60, 100]
    written = [text for one in rounds for text in one.get("written", [])]
    assert len(written) > 10
    assert len(set(written)) == len(written)
    pool = 4000 - 100
    chosen = [row for one in rounds for row in one["chosen"]]
    assert [row for row in chosen if row >= pool] == list(range(pool, pool + len(written)))
    assert sum(one.get("write_calls", 0) for one in rounds) + len(chosen) + 10 == 100
    assert all(answer is not None for one in rounds for answer in one["answered"])
    with opened(tmp_path / "run" / "transfer_set" / "ledger.sqlite", "written", Limits()) as ledger:
        spent = {purpose: one.calls for purpose, one in ledger.purposes().items()}
    assert spent["write"] == sum(one.get("write_calls", 0) for one in rounds)
    assert sum(spent.values()) - spent["score"] == 100
    assert rounds[-1]["usd"] > rounds[0]["usd"] > 0
    assert read_json(tmp_path / "run" / "scorecard.json")["rows"]["train"] == 90 - spent["write"]


@pytest.mark.parametrize("strategy", ["teacher_written", "reword"])
def test_the_shipped_recipe_has_texts_written(tmp_path: Path, teacher: str, strategy: str) -> None:
    few = ["rounds.start=27", "rounds.budgets=[60]", "rounds.compare=[]", "training.epochs=2", "seeds=1"]
    few += ["questions.split.validation=30", "questions.split.test=30", f"teacher.base_url={teacher}"]
    loaded = Recipe.load(RECIPES / "socratic.yaml", [f"rounds.strategy={strategy}", *few])
    flow.distill(loaded, tmp_path / "run", folder=RECIPES, until="ask")
    rounds = read_json(tmp_path / "run" / "rounds" / "rounds.json")["rounds"]
    assert len(rounds[-1]["written"]) == loaded.rounds.strategy.variants * rounds[-1]["write_calls"] > 0  # type: ignore[union-attr]


def test_a_budget_of_calls_ends_the_rounds(tmp_path: Path, teacher: str) -> None:
    from stillroom.errors import BudgetReached

    with pytest.raises(BudgetReached):  # nothing is left for the held-out rows
        flow.distill(
            recipe(
                teacher, "margin", budget={"calls": 45}, rounds={"strategy": "margin", "start": 27, "budgets": [60]}
            ),
            tmp_path / "run",
        )
    found = read_json(tmp_path / "run" / "rounds" / "rounds.json")
    assert "the budget of 45 calls" in found["stopped"]
    assert found["rounds"][-1]["calls"] == 45


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"teacher": {"kind": "trained", "model": {"kind": "mlp"}}}, "can be talked to"),
        ({"questions": {"kind": "dataset", "source": "builtin:digits"}}, "only texts can be written"),
    ],
)
def test_who_cannot_write_is_refused_before_anything_is_spent(
    tmp_path: Path, teacher: str, sections: dict[str, Any], told: str
) -> None:
    tree = recipe(teacher, "reword", **sections)
    if "questions" in sections:
        tree["teacher"]["prompt"] = "{input}"
    with pytest.raises(RecipeError, match=told):
        flow.distill(tree, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_example_that_comes_again_is_asked_as_another_sample() -> None:
    from stillroom.stages.round_writing import _said

    asked: list[tuple[list[str], int]] = []

    class Talks:
        def chat(
            self, conversations: Any, purpose: str, *, temperature: Any, max_tokens: int, sample: int
        ) -> list[str]:
            words = [one[0]["content"] for one in conversations]
            asked.append((words, sample))
            return [f"{word}{sample}" for word in words]

    wanted = [[{"role": "user", "content": word}] for word in "abaca"]
    assert _said(Talks(), wanted, 1.0, 9) == ["a0", "b0", "a1", "c0", "a2"]
    assert asked == [(["a", "b", "c"], 0), (["a"], 1), (["a"], 2)]


def test_a_model_that_takes_no_temperature_writes_without_one(tmp_path: Path) -> None:
    from scripted_endpoint import Endpoint, said

    sent: list[dict[str, Any]] = []

    def script(body: Any, number: int) -> Any:
        sent.append(body)
        writes = "labels" not in str(body["messages"][0]) and len(body["messages"]) == 1
        return said("one new text\nanother of them" if writes else "card_arrival", model="loopback")

    with Endpoint(script) as endpoint:
        tree = recipe(endpoint.url, "reword")
        tree["teacher"]["temperature"] = "unset"
        tree["rounds"] |= {"budgets": [40]}
        flow.distill(tree, tmp_path / "run", until="ask")
    assert any(len(one["messages"]) == 1 for one in sent), "questions were written"
    assert not any("temperature" in one for one in sent)
