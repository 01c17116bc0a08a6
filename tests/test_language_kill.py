"""A language run that is killed at a commit point and run again: the very same answers and students, byte for byte."""

from __future__ import annotations

import json
import random
import shutil
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


def test_killed_where_a_basis_of_other_text_keeps_too_little(tree: dict[str, Any], tmp_path: Path) -> None:
    """The store has one of other text; before more bytes are spent one of the run's own is fitted, at any point or none."""
    other, numbers = tmp_path / "other", " ".join(str(31 * place % 9973) for place in range(400))
    other.mkdir()
    for name in ("train", "valid", "test"):
        (other / f"{name}.txt").write_text(
            f" = {name} one = \n\n {numbers} \n\n = {name} two = \n\n {numbers[::-1]} \n\n"
        )
    source = {
        role: str(other / f"{name}.txt")
        for role, name in (("train", "train"), ("validation", "valid"), ("test", "test"))
    }
    lent = {**tree, "questions": {**tree["questions"], "source": source}, "transfer_set": {"tail_bytes": 4}}
    flow.distill({**lent, "name": "lent"}, tmp_path / "lent", until="ask")

    def asking(name: str) -> Callable[[], object]:
        """Ask with a store of its own that has the other run's answers."""
        store = tmp_path / f"{name} store"
        if not store.exists():
            shutil.copytree(tmp_path / "lent" / "transfer_set", store, ignore=shutil.ignore_patterns(".lock"))
        whole = {**tree, "transfer_set": {**tree["transfer_set"], "store": str(store)}}
        return lambda: flow.distill(whole, tmp_path / name, until="ask")

    points = commit_points(asking("counted"), tmp_path / "points.txt")
    expected = kept_files(tmp_path / "counted store")
    tried = json.loads((tmp_path / "counted" / "transfer_set" / "fidelity.json").read_text())["tried"]
    assert len([name for name in tried if "basis of" in name]) == 1, "the one that was there, and then the run's own"
    for point in sorted(random.Random(8).sample(range(1, points), CHOSEN)):
        assert not came_to_its_end(asking(str(point)), point)
        asking(str(point))()
        assert kept_files(tmp_path / f"{point} store") == expected, f"killed at commit point {point} of {points}"


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
