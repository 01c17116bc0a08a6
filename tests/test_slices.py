"""Whole runs with `slice: COLUMN`: every model is scored on each slice of the test rows or text, and the report shows it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.tiny_models import byte_pairs

import stillroom
from command_line import recipe, rows_of, write_csv
from stillroom.rundir import read_json
from tiny_language import causal, document, write_model

SAID = ("nll", "perplexity", "bits_per_byte", "accuracy")


def test_a_classifier_is_scored_on_each_slice(tmp_path: Path) -> None:
    """Slices are the classes here, so that accuracy on one is a class's recall, which is known from elsewhere."""
    rows = [{**row, "kind": f"all {row['label']}"} for row in rows_of(120)]
    data = write_csv(tmp_path / "data.csv", rows)
    questions = {"kind": "dataset", "source": str(data), "slice": "kind"}
    run = stillroom.distill(recipe(seeds=2, questions=questions), tmp_path / "run")
    card = run.scorecard
    assert set(card["slices"]) == set(card["models"])
    for name, slices in card["slices"].items():
        assert set(slices) == {"all ham", "all spam"}
        assert sum(one["rows"] for one in slices.values()) == card["rows"]["test"]
        per_seed = np.array([one["accuracy"]["per_seed"] for one in slices.values()])
        assert per_seed.min(0).tolist() == card["models"][name]["worst_class_recall"]["per_seed"]
    page = (run.path / "report.html").read_text()
    assert "Slice by slice" in page
    assert "all spam" in page


def texts(home: Path) -> dict[str, str]:
    """Documents of words that follow from one another, and documents of digits, which no model has seen."""
    digits = np.random.default_rng(5)
    lines = {"train": [{"text": document(one), "kind": "plain"} for one in range(6)]}
    for name, first in (("validation", 20), ("test", 40)):
        plain = [{"text": document(first + one), "kind": "plain"} for one in range(3)]
        strange = [{"text": " ".join(map(str, digits.integers(10**6, size=9))), "kind": "strange"} for _ in range(2)]
        lines[name] = [*plain, *strange]
    for name, rows in lines.items():
        (home / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {name: str(home / f"{name}.jsonl") for name in lines}


def talks(home: Path) -> dict[str, str]:
    """The same as what an assistant says."""
    found = texts(home)
    for name, path in found.items():
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        for place, row in enumerate(rows):
            words = row.pop("text").split()[: 8 if row["kind"] == "plain" else 2]
            said = [{"role": "user", "content": f"{name} {place}"}, {"role": "assistant", "content": " ".join(words)}]
            row["messages"] = said
        Path(path).write_text("\n".join(map(json.dumps, rows)))
    return found


@pytest.mark.parametrize("made", [texts, talks])
def test_a_language_model_is_scored_on_each_slice(made: Any, tmp_path: Path) -> None:
    write_model(tmp_path / "llama", "llama", tokenizer=byte_pairs(300), layers=2)
    questions = {"kind": "dataset", "source": made(tmp_path), "window": 64, "slice": "kind"}
    run = stillroom.distill(
        causal(tmp_path, name=made.__name__, seeds=2, questions=questions, training={"epochs": 3, "batch_size": 4}),
        tmp_path / "run",
    )
    card = run.scorecard
    assert set(card["slices"]) == set(card["models"])
    said = run.path / "evaluation" / "predictions"
    window_P, document_P = (
        np.fromfile(said / f"test.{name}", kind)
        for name, kind in (("window.i32", np.int32), ("document.i64", np.int64))
    )
    strange_P = document_P >= 3  # the first three test documents are plain ones
    for name, slices in card["slices"].items():
        assert set(slices) == {"plain", "strange"}
        for kind, at_P in (("plain", ~strange_P), ("strange", strange_P)):
            one = slices[kind]
            assert set(one) == {*SAID, "rows", "tokens"}
            assert (one["tokens"], one["rows"]) == (at_P.sum(), len(np.unique(window_P[at_P])))
            for seed, nll in enumerate(one["nll"]["per_seed"]):
                nll_P = np.fromfile(said / f"{name}.{seed}.test.nll.f32", np.float32)
                assert nll == pytest.approx(float(nll_P[at_P].mean(dtype=np.float64)), abs=1e-6)
                assert one["perplexity"]["per_seed"][seed] == pytest.approx(math.exp(nll))
        nats = sum(one["nll"]["mean"] * one["tokens"] for one in slices.values())
        assert nats / len(strange_P) == pytest.approx(card["models"][name]["nll"]["mean"])
    bits = {kind: one["bits_per_byte"]["mean"] for kind, one in card["slices"]["student"].items()}
    lowest, highest = sorted(bits.values())
    assert lowest < card["models"]["student"]["bits_per_byte"]["mean"] < highest
    _fidelity_is_told_too(run.path, card)


def _fidelity_is_told_too(run: Path, card: dict[str, Any]) -> None:
    """Of what is kept of the teacher's answers, on each slice of the test text."""
    fidelity = card["transfer_set"]["fidelity"]
    assert set(fidelity["by_slice"]) == {"plain", "strange"}
    mean = sum(
        fidelity["by_slice"][kind]["kl"] * card["slices"]["teacher"][kind]["tokens"] for kind in ("plain", "strange")
    )
    tokens = sum(one["tokens"] for one in card["slices"]["teacher"].values())
    assert mean / tokens == pytest.approx(fidelity["kl"], rel=0.02)
    assert fidelity["by_slice"]["plain"]["kl"] != pytest.approx(fidelity["by_slice"]["strange"]["kl"], rel=0.02)
    page = (run / "report.html").read_text()
    for words in ("Slice by slice", "on each slice of the test text", "Test text, strange"):
        assert words in page
    assert read_json(run / "evaluation" / "scorecard.json")["slices"] == card["slices"]
