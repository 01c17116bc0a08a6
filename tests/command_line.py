"""The real command line in this process, and the small data and recipes that its tests share."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom import cli

METRICS = ["accuracy", "agreement", "calibration", "size", "cost"]


@dataclass(frozen=True)
class Told:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error; progress lines may stand before it."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert self.err.splitlines()[-1] == lines[0], self.err
        assert "Traceback" not in self.err
        return lines[0]


@contextmanager
def _words(words: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["stillroom", *words]
    try:
        yield
    finally:
        sys.argv = before


def stillroom(*words: Any) -> Told:
    """Run a command through the program's own entry point."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with _words([str(word) for word in words]), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Told(status, out.getvalue(), err.getvalue())


def done(*words: Any) -> Told:
    """Run a command that must end well."""
    told = stillroom(*words)
    assert told.status == 0, told.err
    return told


def rows_of(count: int = 90, classes: tuple[Any, ...] = ("ham", "spam"), seed: int = 0) -> list[dict[str, Any]]:
    """Rows of two numbers and a word, whose label follows from the numbers; every class is there."""
    rng = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        code = place % len(classes)
        length, weight = rng.normal(code * 1.5, 1.0, 2).round(4).tolist()
        word = ["red", "green", "blue"][int(rng.integers(3))]
        rows.append({"length": length, "weight": weight, "colour": word, "label": classes[code]})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as a .csv whose columns are those of the first row."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def recipe(**sections: Any) -> dict[str, Any]:
    """A recipe that runs in a second: one small trained teacher, one seed, two epochs; over data.csv."""
    whole = {
        "name": "tiny",
        "seeds": 1,
        "questions": {"kind": "dataset", "source": "data.csv"},
        "teacher": {"kind": "trained", "model": {"kind": "mlp", "hidden": [8]}, "epochs": 2},
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [4]}},
        "objectives": [{"kind": "soft_target", "temperature": 2}],
        "training": {"epochs": 2, "batch_size": 32},
        "evaluation": {"metrics": METRICS},
    }
    return {key: value for key, value in {**whole, **sections}.items() if value is not None}


def write_recipe(path: Path, tree: Any) -> Path:
    """Write a recipe as JSON, which is YAML too; so the tests' line numbers are those of `indent=1`."""
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree, indent=1), encoding="utf-8")
    return path


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind that a run has written."""
    lines = (run / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]
