"""What `check` tells of memory and disk, held against a real run: its process's peak, and what its folder takes.

Each run is a process of its own, measured by the system, with models wide enough to weigh beside the libraries.
What a run holds hardly varies: the same recipe again differs by one or two hundredths, so a fifth is no matter of chance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.tiny_models import byte_pairs

from command_line import recipe, rows_of, write_csv, write_recipe
from rehearsals import rehearsed_once
from stillroom import flow
from stillroom.errors import ModelError
from stillroom.recipe import Recipe
from stillroom.stages import plan as planning
from stillroom.stages import room
from stillroom.stages.dress_rehearsal import Rehearsed
from tiny_language import causal, write_model

MIB = 1 << 20
WITHIN = 0.2


def taken(folder: Path) -> int:
    """Bytes that a folder takes, in whole blocks of the disk; what goes while it is looked at counts for nothing."""
    total = 0
    for place, _, names in os.walk(folder):  # unlike rglob it passes over a folder that is gone
        for path in [Path(place), *(Path(place) / name for name in names)]:
            with suppress(FileNotFoundError):
                total += 512 * path.lstat().st_blocks
    return total


def held_at_most(number: int) -> int:
    """Bytes that a process has held at most since it began; 0 where it is gone or the system does not tell.

    Not ru_maxrss: Linux hands the most that this process ever held on to its child, and after other tests that is much.
    """
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def held(tree: dict[str, Any], home: Path) -> dict[str, float]:
    """Run the recipe in a process of its own: the same figures as `check` tells, measured."""
    file, run = write_recipe(home / f"{tree['name']}.json", tree), home / "run"
    began = subprocess.Popen(
        [sys.executable, "-m", "stillroom", "distill", str(file), "--run", str(run)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    most, memory = 0, 0
    while began.poll() is None:
        most, memory = max(most, taken(run)), max(memory, held_at_most(began.pid))
        time.sleep(0.02)
    assert began.stderr is not None
    assert began.returncode == 0, began.stderr.read().decode()
    began.stderr.close()
    done = taken(run)
    told_by_the_system = {"peak_memory_mib": memory / MIB} if memory else {}
    return {
        **told_by_the_system,
        "disk_mib": done / MIB,
        "peak_disk_mib": max(most, done) / MIB,
    }


def told(tree: dict[str, Any], home: Path) -> dict[str, Any]:
    figures: dict[str, Any] = flow.plan(Recipe.from_tree(tree), home)["figures"]
    return figures


ALONE = """
import json, sys
from pathlib import Path
from stillroom import flow
from stillroom.evaluation.processes import collect_seldom
from stillroom.recipe import Recipe
collect_seldom()
recipe = Recipe.from_tree(json.load(sys.stdin))
print(json.dumps(flow.plan(recipe, Path(sys.argv[1]), alone=True)["figures"]))
"""


def told_alone(tree: dict[str, Any], home: Path) -> dict[str, Any]:
    """As a process tells it that does nothing else, and so rehearses in itself."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-c", ALONE, str(home)]
    ended = subprocess.run(words, input=json.dumps(tree), env=env, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def classes(home: Path) -> dict[str, Any]:
    """Two teachers of 2.1 million weights into a student of half a million, which writes a checkpoint at every step."""
    write_csv(home / "data.csv", rows_of(600))
    member = {"kind": "trained", "model": {"kind": "mlp", "hidden": [1400, 1400]}, "epochs": 1}
    return recipe(
        name="classes",
        seeds=2,
        teacher={"kind": "ensemble", "size": 2, "member": member},
        student={"kind": "fresh", "model": {"kind": "mlp", "hidden": [700, 700]}},
        training={"epochs": 2, "batch_size": 64, "checkpoint_seconds": 0},
        arms={"wide": {"student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [2000, 2000]}}}},
    )


def language(home: Path) -> dict[str, Any]:
    """A random Llama of 13 million weights, asked once, into one of its two layers."""
    wide = {"hidden_size": 256, "intermediate_size": 8000, "num_attention_heads": 4}
    write_model(home / "llama", "llama", tokenizer=byte_pairs(300), layers=2, **wide)
    return causal(home, name="language", objectives=[{"kind": "soft_target"}, {"kind": "hidden", "distance": "cosine"}])


def images(home: Path) -> dict[str, Any]:
    """A convolutional network of half a million weights into a narrower one, on images of 28 x 28."""
    rng = np.random.default_rng(0)
    code_N = np.arange(700) % 3
    image_N = (rng.integers(0, 156, (700, 28, 28)) + 45 * code_N[:, None, None]).astype(np.uint8)
    parts = {"x_train": image_N[:600], "y_train": code_N[:600], "x_test": image_N[600:], "y_test": code_N[600:]}
    np.savez(home / "images.npz", **parts)
    return recipe(
        name="images",
        questions={"kind": "dataset", "source": str(home / "images.npz")},
        teacher={"kind": "trained", "model": {"kind": "convnet", "channels": [32, 64]}, "epochs": 1, "batch_size": 128},
        student={"kind": "fresh", "model": {"kind": "convnet", "channels": [16, 32]}},
        training={"epochs": 1, "batch_size": 128},
    )


@pytest.mark.parametrize("made", [classes, images, language])
def test_memory_and_disk_are_told_within_a_fifth(made: Any, tmp_path: Path) -> None:
    tree = made(tmp_path)
    measured = held(tree, tmp_path)
    for figures in (told(tree, tmp_path), told_alone(tree, tmp_path)):
        ratio = {name: figures[name] / value for name, value in measured.items()}
        assert all(1 - WITHIN <= one <= 1 + WITHIN for one in ratio.values()), (ratio, figures, measured)


def test_a_larger_student_is_told_to_hold_as_much_more_as_its_weights_do(tmp_path: Path) -> None:
    """Beside libraries that take hundreds of megabytes, a ratio alone would let a student's own share go unnoticed."""
    write_csv(tmp_path / "data.csv", rows_of(200))
    tree = recipe(evaluation={"metrics": ["accuracy"]}, dtype="float32")
    wide = {**tree, "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [3500, 3500]}}}
    little, much = told(tree, tmp_path), told(wide, tmp_path)
    weights = 3500 * 3500 + 3500 * 3500 / 500
    # Weights, gradients and two running means while training: 16 bytes of each.
    assert much["peak_memory_mib"] - little["peak_memory_mib"] == pytest.approx(16 * weights / MIB, rel=0.25)
    # In folders of the student, the control, and the student of the top answers: 4 bytes of each.
    assert much["disk_mib"] - little["disk_mib"] == pytest.approx(3 * 4 * weights / MIB, rel=0.05)


@pytest.fixture(scope="module")
def found() -> list[Rehearsed]:
    """What a rehearsal of the smallest recipe found, once there was one: its room and its store make no difference to that."""
    return []


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_what_will_not_fit_is_refused_before_anything_is_spent(
    what: str, found: list[Rehearsed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "data.csv", rows_of())
    monkeypatch.chdir(tmp_path)
    there = {"memory": room.Memory(64 * MIB, 64 * MIB), "disk": MIB // 8}[what]
    monkeypatch.setattr(room, {"memory": "memory", "disk": "free_bytes"}[what], lambda *given: there)
    said = {"memory": "this machine has", "disk": "there are"}[what]
    match = f"this takes .* of {what}, and {said} "
    with rehearsed_once(found), pytest.raises(ModelError, match=match) as refused:
        told(recipe(), tmp_path)
    assert refused.value.where.partition(",")[0] == what
    assert not (tmp_path / "runs").exists()


def test_a_shared_store_is_looked_for_on_its_own_disk(
    found: list[Rehearsed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "data.csv", rows_of())
    looked: list[dict[Path, int]] = []
    monkeypatch.setattr(planning, "refuse_full_disks", looked.append)
    stores: list[dict[str, str]] = [{}, {"store": str(tmp_path / "kept")}]
    with rehearsed_once(found):
        disk_mib = [told(recipe(transfer_set=knobs), tmp_path)["peak_disk_mib"] for knobs in stores]
    alone, shared = looked
    assert set(alone) == {Path("runs/tiny")}
    assert set(shared) == {Path("runs/tiny"), tmp_path / "kept"}
    assert sum(alone.values()) == sum(shared.values()) == pytest.approx(disk_mib[0] * MIB, abs=0.01 * MIB)
    assert shared[tmp_path / "kept"] > 4096


def test_check_leaves_nothing_behind_and_asks_no_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "data.csv", rows_of())
    write_recipe(tmp_path / "tiny.json", recipe())
    monkeypatch.chdir(tmp_path)
    told(recipe(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "tiny.json"]
    json.loads((tmp_path / "tiny.json").read_text())
