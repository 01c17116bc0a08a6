"""Killed at any commit point, or at any moment, and run again: the very same student, and nothing asked twice for nothing."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from killing import came_to_its_end, commit_points
from stillroom import flow
from stillroom.rundir import RunDir, commit_point

pytestmark = pytest.mark.kill


def recipe(data: Path, checkpoint_seconds: float = 0.0, epochs: int = 2) -> dict[str, Any]:
    """Two members, one seed, three roles; a checkpoint after every step."""
    training = {"epochs": epochs, "batch_size": 30, "checkpoint_seconds": checkpoint_seconds}
    return {
        "name": "killed",
        "seeds": 1,
        "questions": {"kind": "dataset", "source": str(data), "split": {"validation": 8}},
        "teacher": {
            "kind": "ensemble",
            "size": 2,
            "member": {"kind": "trained", "model": {"kind": "mlp", "hidden": [6], "dropout": 0.2}, **training},
        },
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [4], "dropout": 0.1}},
        "objectives": [{"kind": "soft_target", "temperature": 2}],
        "training": training,
        "evaluation": {"metrics": ["accuracy"]},
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    path = tmp_path / "rows.npz"
    x = rng.normal(size=(80, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    np.savez(path, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    return path


def digests(run: Path) -> dict[str, str]:
    """The sha256 of every weights file and answer, by its place in the run."""
    files = [*run.rglob("model.safetensors"), *run.rglob("*.f16"), *run.rglob("*.f32")]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def work(tree: dict[str, Any], run: Path) -> Callable[[], object]:
    return lambda: flow.distill(tree, run, until="evaluate")


def test_a_crash_is_neither_a_kill_nor_an_end(capfd: pytest.CaptureFixture[str]) -> None:
    def crash() -> None:
        raise ValueError("it broke")

    assert came_to_its_end(lambda: None)
    assert not came_to_its_end(commit_point, 1)
    with pytest.raises(AssertionError, match="failed before it was killed"):
        came_to_its_end(crash)
    assert "ValueError: it broke" in capfd.readouterr().err


def test_killed_again_and_again(tmp_path: Path, data: Path) -> None:
    tree = recipe(data)
    flow.distill(tree, tmp_path / "whole", until="evaluate")
    expected = digests(tmp_path / "whole")
    points = commit_points(work(tree, tmp_path / "counted"), tmp_path / "points.txt")
    assert points > 300
    assert digests(tmp_path / "counted") == expected
    # Killed again and again, each time a little further along than the longest stage is.
    run, kills = tmp_path / "again", 0
    while not came_to_its_end(work(tree, run), 97):
        kills += 1
        assert kills < 50, "a run that is killed must still get on"
    assert kills > 3
    assert digests(run) == expected


def test_killed_once_at_each_of_many_points(tmp_path: Path, data: Path) -> None:
    tree = recipe(data)
    flow.distill(tree, tmp_path / "whole", until="evaluate")
    expected = digests(tmp_path / "whole")
    points = commit_points(work(tree, tmp_path / "counted"), tmp_path / "points.txt")
    chosen = sorted({*range(1, 40, 2), *random.Random(1).sample(range(40, points), 20)})
    for point in chosen:
        run = tmp_path / str(point)
        assert not came_to_its_end(work(tree, run), point)
        flow.distill(tree, run, until="evaluate")
        assert digests(run) == expected, f"killed at commit point {point} of {points}"


def test_a_checkpoint_outlives_its_stage_until_it_is_sealed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with pytest.raises(KeyboardInterrupt), run.stage("student", "this"):
        run.work_of("student", "this").mkdir(parents=True)
        raise KeyboardInterrupt
    assert run.work_of("student", "this").is_dir()
    with run.stage("student", "this") as folder:
        assert folder is not None
        assert run.work_of("student", "this").is_dir()
    assert not run.work_of("student", "this").exists()


def test_killed_at_random_moments(tmp_path: Path, data: Path) -> None:
    """A real process, a real SIGKILL from outside, at moments nobody chose."""
    tree = recipe(data, checkpoint_seconds=0.2, epochs=1500)
    flow.distill(tree, tmp_path / "whole", until="evaluate")
    expected = digests(tmp_path / "whole")
    import yaml

    file = tmp_path / "killed.yaml"
    file.write_text(yaml.safe_dump(tree))
    run, chance, kills = tmp_path / "run", random.Random(5), 0
    while kills < 6:
        process = subprocess.Popen(
            [sys.executable, "-m", "stillroom", "distill", str(file), "--run", str(run)], stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(1.5 + 2 * chance.random())
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    flow.distill(tree, run, until="evaluate")
    assert kills > 0
    assert digests(run) == expected
