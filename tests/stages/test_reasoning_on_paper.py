"""The cost of a recipe whose data, weights and keys are not here yet, by the figures that it states."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import DataError
from stillroom.flow import plan
from stillroom.recipe import Recipe

SHIPPED = Path(__file__).parents[2] / "recipes" / "sky_t1.yaml"


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without data, keys or a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("STILLROOM_DATA", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def timed(tree: Recipe, folder: Path) -> tuple[dict[str, Any], str]:
    """Figures and notes of a plan, which is made in seconds."""
    started = time.process_time()
    found = plan(tree, folder)
    assert time.process_time() - started < 10
    assert "piloted" not in found
    return found["figures"], " ".join(found["notes"])


def test_the_recipe_at_full_scale_tells_its_cost_without_anything_of_it_being_here(tmp_path: Path) -> None:
    figures, notes = timed(Recipe.load(SHIPPED), tmp_path)
    assert figures["training questions"] == figures["teacher calls"] == 45_800
    assert figures["teacher_usd"] == pytest.approx(45_800 * (200 * 0.15 + 5000 * 0.60) / 1e6, abs=0.01)
    kept = round(0.37 * 45_800)
    assert figures["calls for rewriting"] == figures["traces kept"] == kept
    assert figures["rewriting_usd"] == pytest.approx(kept * (5200 * 0.15 + 5000 * 0.60) / 1e6, abs=0.01)
    hours = 4 * 32.8e9 * 3 * 0.37 * 45_800 * 5200 / 100e12 / 3600
    assert f"student {hours:.1f}, control " in figures["machine hours"]
    assert figures["training_usd of the student alone"] == pytest.approx(2.96 * hours, abs=0.01)
    paid = figures["teacher_usd"] + figures["rewriting_usd"] + figures["training_usd"]
    assert figures["usd"] == pytest.approx(paid, abs=0.02)
    for told in ("152 H100 hours, $450", "about $100 for rewriting", "about a third", "sky_t1/train.jsonl", "OPENAI_API_KEY",
                 "accept_terms", "hf:Qwen/Qwen2.5-32B-Instruct", "nothing was asked, timed or fetched"):  # fmt: skip
        assert told in notes


def test_questions_that_are_here_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "data" / "sky_t1"
    home.mkdir(parents=True)
    rows = [
        json.dumps({"question": f"What is {row} plus {row + 1}?", "answer": str(2 * row + 1)}) for row in range(45_830)
    ]
    (home / "train.jsonl").write_text("\n".join(rows[:45_800]))
    (home / "test.jsonl").write_text("\n".join(rows[45_800:]))
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    tree = Recipe.load(SHIPPED, ["traces.expect.questions=7"])
    figures, notes = timed(tree, tmp_path)
    assert figures["training questions"] == figures["teacher calls"] == 45_800
    assert figures["teacher tokens"] == pytest.approx(45_800 * (5000 + 27 / 4), rel=1e-3)
    assert "the questions are counted" in notes
    assert "train.jsonl" not in notes


def test_a_file_that_is_not_there_is_an_error_where_nothing_is_stated(tmp_path: Path) -> None:
    stated = Recipe.load(SHIPPED)
    silent = stated.model_copy(update={"traces": stated.traces.model_copy(update={"expect": None})})
    with pytest.raises(DataError, match=r"train\.jsonl"):
        plan(silent, tmp_path)
    with pytest.raises(DataError, match=r"train\.jsonl"):
        plan(stated, tmp_path, pilot=20)


def test_where_nothing_is_lacking_all_is_looked_at(tmp_path: Path) -> None:
    model = {"kind": "transformers", "task": "causal", "tokenizer": "characters",
             "config": {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                        "num_attention_heads": 2, "max_position_embeddings": 256}}  # fmt: skip
    tree: dict[str, Any] = {
        "name": "here",
        "questions": {"kind": "dataset", "source": "builtin:sums", "rows": {"train": 40, "test": 12}},
        "teacher": {"kind": "openai_api", "task": "reasoning", "base_url": "http://127.0.0.1:9/v1", "model": "m",
                    "prompt": "{question}", "max_tokens": 100},
        "traces": {"overlap": 0, "expect": {"questions": 7, "trace_tokens": 7, "parameters": 7}},
        "student": {"kind": "fresh", "model": model},
        "training": {"epochs": 1, "batch_size": 16},
    }  # fmt: skip
    figures, notes = timed(Recipe.from_tree(tree), tmp_path)
    assert figures["training questions"] == 40
    assert "roles" in figures
    assert "on paper" not in notes
