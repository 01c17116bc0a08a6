"""Before any stage: what a recipe would do and need. Looks at data and models, times a few steps, spends nothing.

The figures are estimates: minutes come from timing a few real steps of each network on this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillroom.errors import ModelError
from stillroom.kinds import Teacher
from stillroom.progress import Silent
from stillroom.recipe import Recipe, Training
from stillroom.rows import joined
from stillroom.rundir import RunDir
from stillroom.stages.language import kept_bytes, scored_positions
from stillroom.stages.opening import Run, check_data, clock_of, look_in, memory_bytes, views_of
from stillroom.stages.rehearsal import answering_s, held_bytes, rehearse
from stillroom.stages.train import TEMPERATURES, roles
from stillroom.teachers.trained import Trained

WEIGHT_BYTES = 4
"""Of each weight in a student's folder."""


def plan(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """{"name", "figures", "notes"}: rows, teacher calls, tokens, USD, disk, peak memory, minutes. Raises StillroomError."""
    recipe.check()
    run = Run(recipe, RunDir(Path("runs") / recipe.name), look_in(folder), Silent(), clock_of(recipe, Path()))
    check_data(run)
    splits, learned = run.splits, run.inputs(recipe.student, run.splits.train.raw, run.ground(untaught=True))
    members = recipe.teacher.each()
    asked, answer_bytes = _asked(run)
    trained, seconds, teacher_row_s = _teachers(run, members)
    found, student_bytes = roles(run), 0
    for role in found:
        arm = role.run.recipe
        cost = rehearse(role.run, arm.student, arm.training)
        tries = sum(one.heat() == "auto" for one in role.objectives) * len(TEMPERATURES)
        seconds += cost.step_s * _steps(arm.training, len(splits.train)) * (recipe.seeds + tries)
        seconds += cost.row_s * (len(splits.test) + len(splits.validation)) * recipe.seeds
        if arm.transfer_set.live and not role.labels_alone:
            answered = min(arm.training.batch_size, len(splits.train)) * arm.training.accumulate
            seconds += teacher_row_s * answered * _steps(arm.training, len(splits.train)) * recipe.seeds
        student_bytes += WEIGHT_BYTES * cost.parameters * (recipe.seeds + tries)
        trained += recipe.seeds + tries
    seconds += teacher_row_s * (asked + recipe.is_language * (len(splits.test) + len(splits.validation)))
    encoded = 0 if recipe.is_language else 4 * (len(splits.train) + len(splits.omitted)) * _size(tuple(learned.shape))
    held = held_bytes() + encoded
    _refuse_what_will_not_fit(held, answer_bytes + student_bytes, Path("runs"))
    price = recipe.evaluation.price
    figures = {
        "training rows": len(splits.train),
        "labelled rows": int(splits.train.labelled_N.sum()),
        "validation rows": len(splits.validation),
        "test rows": len(splits.test),
        **({} if recipe.is_language else {"classes": len(splits.classes)}),
        "teachers asked": len(members),
        "teacher calls": asked * len(members),
        "teacher tokens": scored_positions(run) * len(members) if recipe.is_language else 0,
        "models trained": trained,
        "roles": ", ".join(role.name for role in found),
        "seeds": recipe.seeds,
        "disk_mib": round((answer_bytes + student_bytes) / 2**20 + 1, 1),
        "peak_memory_mib": round(held / 2**20),
        "minutes": round(seconds / 60 + 0.1, 1),
    }
    if price is not None:
        figures["usd"] = round((seconds / 3600) * price.usd_per_hour, 6)
    notes = [*splits.notes, *([f"inputs: {learned.describe()}"] if learned.describe() else [])]
    if price is None:
        notes.append("no price is given, so no USD; add evaluation: {price: {usd_per_hour: ..}}")
    notes += [f"the licence of {what} is unknown" for what, licence in _licences(recipe).items() if licence is None]
    return {"name": recipe.name, "figures": figures, "notes": notes}


def _asked(run: Run) -> tuple[int, int]:
    """How many rows each teacher is asked, and the bytes of all answers that are kept."""
    recipe, splits = run.recipe, run.splits
    asked = len(splits.train) * (0 if recipe.transfer_set.live else len(views_of(recipe)))
    members = len(recipe.teacher.each())
    stores = members + (members > 1)
    if recipe.is_language:
        return asked, 0 if recipe.transfer_set.live else kept_bytes(run, scored_positions(run)) * stores
    asked += len(splits.validation) + len(splits.test)
    return asked, asked * (2 * len(splits.classes) + 24) * stores


def _teachers(run: Run, members: Sequence[Teacher]) -> tuple[int, float, float]:
    """How many are trained, the seconds that takes, and the seconds in which all of them answer a row."""
    known = len(run.splits.train) + len(run.splits.omitted)
    if not run.recipe.is_language:
        known = int(joined(run.splits.train, run.splits.omitted).labelled_N.sum())
    trained, seconds, row_s = 0, 0.0, 0.0
    for member in members:
        if isinstance(member, Trained):
            cost = rehearse(run, member.model, member.training())
            seconds += cost.step_s * _steps(member.training(), known)
            trained, row_s = trained + 1, row_s + cost.row_s
        else:
            row_s += answering_s(run, member)
    return trained, seconds, row_s


def _refuse_what_will_not_fit(held: int, disk: int, place: Path) -> None:
    """Raise ModelError where memory or disk would not last."""
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    for what, needed, room, cure in (
        ("memory", held, memory_bytes(), "Choose a smaller model or a smaller training.batch_size"),
        (
            "disk",
            disk,
            free,
            f"Free some space at {there}, keep fewer seeds or views, or a smaller transfer_set.tail_bytes",
        ),
    ):
        if needed > room:
            raise ModelError(
                f"this takes {needed / 2**30:,.1f} GiB of {what}, and there are {room / 2**30:,.1f}",
                where=what,
                cure=cure,
            )


def _licences(recipe: Recipe) -> dict[str, str | None]:
    return {"the data": recipe.questions.licence, "the teacher": recipe.teacher.licence}


def _steps(knobs: Training, rows: int) -> int:
    from stillroom.training.fit import steps_in

    return steps_in(knobs, max(1, rows))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
