"""Parts of the reasoning bench without a bar: products that answers alone do not learn, and word problems for SmolLM2.

Both learn from recorded traces, written by rule: the one shows how far gold scratchpads go, the other that the same recipe
tunes a pretrained language model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import stillroom
from benchmarks.reasoning_data import SEED, named, word_files, written
from benchmarks.reasoning_sizes import PRESETS, Sizes
from benchmarks.results import Row, Table
from stillroom.questions.arithmetic import Problem, problems

WRITE = {"arithmetic": 120, "words": 120}
FIRST_SHOWN = (
    " Each digit's product and sum stands there by itself. With scratchpads of the two parts and their sum alone, which came "
    "first and are no longer in the bench, traces reached 15.4 %, answers alone 1.1 %."
)


def recorded(name: str, source: dict[str, str], answers: str, column: str, **sections: Any) -> dict[str, Any]:
    """A recipe whose teacher is a file."""
    return {
        "name": name,
        "threads": 1,
        "questions": {"kind": "dataset", "source": source, "input": "question", "label": "answer"},
        "teacher": {"kind": "recorded", "task": "reasoning", "source": answers, "answer": column},
        "transfer_set": {"verify": "numeric"},
        "evaluation": {"metrics": ["accuracy", "size", "cost"]},
        **sections,
    }


def illustration(sizes: Sizes, base: Path) -> Row:
    """Products of three and two digits: gold scratchpads beside the answers alone, one seed."""
    assert sizes.shown is not None, "left out at this preset"
    home = base / "shown"
    home.mkdir(parents=True, exist_ok=True)
    train = problems(sizes.shown, sizes.shown_questions, SEED)
    test = problems(sizes.shown, sizes.test, SEED, held_out=True)
    source = {name: _rows(rows, home / f"{name}.jsonl") for name, rows in (("train", train), ("test", test))}
    tree = recorded(
        "shown", source, source["train"], "worked", seeds=1,
        traces={"samples": 1, "overlap": 0, "score": 0, "write": WRITE["arithmetic"]},
        student={"kind": "fresh", "model": sizes.shown_student.model},
        training={"epochs": sizes.shown_epochs, "batch_size": sizes.batch, "learning_rate": 1e-3, "clip": 1.0},
    )  # fmt: skip
    card = stillroom.distill(tree, home / "run").scorecard
    title = f"{named(sizes.shown).capitalize()}, from gold scratchpads"
    return Row({}, {"shown": _table(title, card, FIRST_SHOWN if sizes == PRESETS["full"] else "")})


def _rows(several: list[Problem], path: Path) -> str:
    lines = [
        json.dumps({"question": one.question, "answer": one.answer, "worked": written(one, "short")}) for one in several
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path.resolve())


def words(sizes: Sizes, base: Path) -> Row:
    """Word problems of two to four steps: a pretrained model through adapters, on rationales or on answers, one seed."""
    home = base / "words"
    source = word_files(sizes.words, sizes.words_test, home)
    tree = recorded(
        "words", source, source["train"], "rationale", seeds=1,
        traces={"samples": 1, "overlap": 0, "score": 0, "write": WRITE["words"]},
        student={"kind": "lora", "from": sizes.words_model, "task": "causal", "rank": 16},
        training={"epochs": 1, "batch_size": 4, "accumulate": 2, "learning_rate": 5e-4, "clip": 1.0, "schedule": "cosine"},
    )  # fmt: skip
    card = stillroom.distill(tree, home / "run").scorecard
    return Row({}, {"words": _table(f"Word problems: {sizes.words_model} through adapters of rank 16", card)})


def _table(title: str, card: dict[str, Any], further: str = "") -> Table:
    told = {"student": "traces", "control": "answers alone, as many steps"}
    rows = [
        [name, told[name], card["models"][name]["exact_match"]["mean"], card["models"][name]["answer_tokens"]["mean"]]
        for name in ("student", "control")
    ]
    rows_of, weights = card["rows"], card["models"]["student"]["parameters"]
    note = (
        f"One seed, {weights:,} weights, {rows_of['test']:,} test questions, {rows_of['train']:,} to learn from; traces written "
        f"by rule.{further}"
    )
    return Table(title, ["", "learned from", "exact match", "tokens written"], rows, note)
