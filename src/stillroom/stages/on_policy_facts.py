"""What rounds on policy came to, for the report: what was written, round by round, and the loss on validation text after each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.rows import Questions, joined
from stillroom.rundir import read_json
from stillroom.stages.on_policy import writes, written_folder
from stillroom.stages.on_policy_rounds import policy_of
from stillroom.stages.on_policy_writing import read_rows, read_windows
from stillroom.stages.train import Role, roles

if TYPE_CHECKING:
    from stillroom.stages.opening import Run

SHOWN = 2
"""Samples of each round; of the first and the last alone, where there are many."""
HISTORY = "history.json"
Tree = dict[str, Any]


def on_policy_facts(run: Run, models: Mapping[str, Sequence[Path]]) -> Tree:
    """{"on_policy": {"knobs", "seeds", "rounds", "validation_loss", "samples"}}, or nothing of a run without such rounds.

    Losses are by model and seed, nats a token: before the rounds and after each.
    """
    policy = policy_of(run)
    if policy is None:
        return {}
    student, rounds, samples = roles(run)[0], list[Tree](), list[Tree]()
    for number, part in enumerate(policy.parts, 1):
        found = [read_rows(run.dir.path / written_folder(student, seed, number)) for seed in range(student.seeds)]
        rows = [row for one in found for row in one]
        rounds.append(
            {
                "windows": len(rows),
                "tokens": sum(len(row["written_ids"]) for row in rows),
                "ended": sum(row["ended"] for row in rows),
                "beside": part.beside * student.seeds,
            }
        )
        if number in (1, len(policy.parts)):
            samples += [
                {"round": number, "prompt": row["prompt"], "written": row["written"]} for row in found[0][:SHOWN]
            ]
    losses = {name: [_losses(folder) for folder in folders] for name, folders in models.items()}
    told = {
        "knobs": policy.knobs.model_dump(mode="json"),
        "seeds": student.seeds,
        "rounds": rounds,
        "validation_loss": {name: found for name, found in losses.items() if all(found)},
        "samples": samples,
    }
    return {"on_policy": told}


def _losses(folder: Path) -> list[float]:
    """The loss on validation text at the end of each training that a model went through; empty where it was not looked at."""
    history = read_json(folder / HISTORY)
    known = {point["step"]: point.get("validation_loss") for point in history["curve"]}
    found = [known.get(step) for step in history.get("rounds", [])]
    return [loss for loss in found if loss is not None] if None not in found else []


def windows_written(run: Run) -> Questions | None:
    """All that was written in a run and that its own teacher was asked about, each window once; None where nobody writes."""
    found = [one for role in roles(run) if not role.run.has_own_teacher for one in _written_by(role)]
    if not found:
        return None
    whole = found[0]
    for one in found[1:]:
        whole = joined(whole, one)
    _, first = np.unique(whole.key_N, axis=0, return_index=True)
    return whole.take(np.sort(first))


def _written_by(role: Role) -> list[Questions]:
    """What a role wrote, of every seed and round."""
    policy, raw = policy_of(role.run), role.run.splits.train.raw
    if policy is None or not writes(role):
        return []
    assert isinstance(raw, dict), "windows are named arrays"
    places = [(seed, number) for seed in range(role.seeds) for number in range(1, len(policy.parts) + 1)]
    return [read_windows(role.run.dir.path / written_folder(role, *place), raw["ids"].shape[1]) for place in places]
