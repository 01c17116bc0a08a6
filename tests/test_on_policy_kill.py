"""A run on policy that is killed in the middle of its rounds and run again: the very same words, answers and students."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import events
from killing import came_to_its_end, commit_points
from stillroom import flow
from stillroom.stages import on_policy_writing
from tiny_language import causal, kept_files, text, write_text

pytestmark = pytest.mark.kill
CHOSEN = 6
"""Points within the rounds at which a run is killed here."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One seed, two rounds, what is written kept in pieces of four, a checkpoint after every step."""
    home = tmp_path_factory.mktemp("killed")
    (home / "train.txt").write_text(text(3))
    write_text(home)
    return causal(
        home,
        rounds={"strategy": {"kind": "on_policy", "prompt": 6}, "budgets": [6, 12]},
        training={"epochs": 1, "batch_size": 8, "checkpoint_seconds": 0},
    )


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_policy_writing, "PIECE", 4)


def work(tree: dict[str, Any], run: Path) -> Callable[[], object]:
    return lambda: flow.distill(tree, run, until="train")


def all_files(run: Path) -> dict[str, bytes]:
    """Weights and answers, and what was written."""
    written = {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("written.jsonl"))}
    return kept_files(run) | written


def test_killed_within_the_rounds(tree: dict[str, Any], tmp_path: Path) -> None:
    asked_alone = flow.distill(tree, tmp_path / "asked", until="ask")
    assert not (asked_alone.path / "rounds").exists()
    points = commit_points(work(tree, tmp_path / "whole"), tmp_path / "points.txt")
    expected = all_files(tmp_path / "whole")
    assert sum(name.endswith("written.jsonl") for name in expected) == 2
    assert sum(name.endswith("model.safetensors") for name in expected) == 3
    whole_calls = sum(event["calls"] for event in events(tmp_path / "whole", "asked"))
    reached = set()
    for point in sorted(random.Random(3).sample(range(points // 6, points), CHOSEN)):
        run = tmp_path / str(point)
        assert not came_to_its_end(work(tree, run), point)
        reached.add(len(list(run.rglob("written.jsonl"))))
        flow.distill(tree, run, until="train")
        assert all_files(run) == expected, f"killed at commit point {point} of {points}"
        assert whole_calls - 64 <= sum(event["calls"] for event in events(run, "asked")) <= whole_calls
        assert not (run / ".work").exists()
    assert len(reached) > 1, "some kills fall between the rounds"


def test_killed_again_and_again(tree: dict[str, Any], tmp_path: Path) -> None:
    flow.distill(tree, tmp_path / "whole", until="train")
    run, kills = tmp_path / "run", 0
    while not came_to_its_end(work(tree, run), 83):
        kills += 1
        assert kills < 25, "a run that is killed must still get on"
    assert kills > 3
    assert all_files(run) == all_files(tmp_path / "whole")
