"""A language run that is killed at a commit point and run again: the very same answers and students, byte for byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import events
from killing import came_to_its_end, commit_points
from stillroom import flow
from stillroom.transfer_set.store import open_kept
from tiny_language import causal, kept_files, text, write_text

pytestmark = pytest.mark.kill
CHOSEN = 5
"""Points of a run's hundreds at which it is killed here."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A hidden tail that is fitted, too poor at first; hidden states kept; two shards; a checkpoint after every step."""
    home = tmp_path_factory.mktemp("killed")
    write_text(home)
    found = causal(
        home,
        objectives=[{"kind": "soft_target", "temperature": 1}, {"kind": "hidden"}],
        transfer_set={"tail_bytes": 4, "fidelity": {"kl": 0.05}},
        training={"epochs": 1, "batch_size": 32, "checkpoint_seconds": 0},
    )
    (home / "train.txt").write_text(text(5))
    found["questions"]["window"] = 16
    return found


@pytest.fixture(scope="module")
def expected(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nobody disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    flow.distill(tree, run, until="train")
    found = kept_files(run)
    assert sum(name.endswith("records.u8") for name in found) == 2
    assert sum(name.endswith("hidden.f16") for name in found) == 2
    assert sum(name.endswith("model.safetensors") for name in found) == 3
    return found


def work(tree: dict[str, Any], run: Path) -> Callable[[], object]:
    return lambda: flow.distill(tree, run, until="train")


def test_killed_at_a_commit_point(tree: dict[str, Any], expected: dict[str, bytes], tmp_path: Path) -> None:
    points = commit_points(work(tree, tmp_path / "counted"), tmp_path / "points.txt")
    assert kept_files(tmp_path / "counted") == expected
    for point in sorted(random.Random(7).sample(range(1, points), CHOSEN)):
        run = tmp_path / str(point)
        assert not came_to_its_end(work(tree, run), point)
        flow.distill(tree, run, until="train")
        assert kept_files(run) == expected, f"killed at commit point {point} of {points}"


def test_killed_again_and_again(tree: dict[str, Any], expected: dict[str, bytes], tmp_path: Path) -> None:
    """Each time a little further along than the longest shard is; no window is kept twice."""
    run, kills = tmp_path / "run", 0
    while not came_to_its_end(work(tree, run), 97):
        kills += 1
        assert kills < 20, "a run that is killed must still get on"
    assert kills > 2
    assert kept_files(run) == expected
    asked = json.loads((run / "transfer_set" / "asked.json").read_text())["answers"]
    windows = len(open_kept(run / "transfer_set" / asked))
    assert 0 < sum(event["calls"] for event in events(run, "asked")) <= windows
