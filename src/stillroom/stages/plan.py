"""Before any stage: what a recipe would do and need. Looks at data and models, rehearses in small, spends nothing.

The figures are estimates. Memory and disk are meant to be right within a fifth: what the run's process holds at most, what
its folder takes when it is done, and at most while it works. Minutes come from a few timed steps on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillroom.progress import Silent
from stillroom.recipe import Recipe
from stillroom.rundir import RunDir
from stillroom.stages.dress_rehearsal import Rehearsed, rehearsed
from stillroom.stages.footprint import disk, memory_bytes_of, places, trainings
from stillroom.stages.language_asking import scored_positions
from stillroom.stages.language_text import is_recorded
from stillroom.stages.notes import data_notes, licence_notes
from stillroom.stages.on_policy_plan import Writing, writing_of
from stillroom.stages.opening import Run, check_data, clock_of, look_in, views_of
from stillroom.stages.paying import is_paid
from stillroom.stages.pricing import expected_calls, figures_of, refuse_pilot, together
from stillroom.stages.reasoning_on_paper import lacking, plan_on_paper
from stillroom.stages.reasoning_plan import plan_reasoning
from stillroom.stages.room import memory_notes, refuse_full_disks
from stillroom.stages.train import roles


def plan(recipe: Recipe, folder: Path, pilot: int = 0, *, alone: bool = False) -> dict[str, Any]:
    """{"name", "figures", "teacher", "notes"}: rows, calls, tokens, USD, disk, peak memory, minutes. Raises StillroomError.

    `teacher`: what those that are paid by the call take all together: {"calls", "tokens", "usd"}, each [low, middle, high];
    empty where none is, and without USD where a price is not known.
    `pilot`: so many calls to a paid teacher may be made; only they cost anything.
    `alone`: this process does nothing else and ends, so it may be the one whose memory is measured; else one is started.
    """
    recipe.check()
    refuse_pilot(pilot, is_paid(recipe))
    run = Run(recipe, RunDir(Path("runs") / recipe.name), look_in(folder), Silent(), clock_of(recipe, Path()))
    missing = lacking(run) if recipe.is_reasoning and not pilot else []
    if missing:
        return plan_on_paper(run, missing)
    check_data(run)
    if recipe.is_reasoning:
        return plan_reasoning(run, pilot)
    splits, members = run.splits, recipe.teacher.each()
    found, asked, written = rehearsed(run, alone), _asked(run), writing_of(run)
    live = sum(one.asked_live for one in trainings(run))
    held, files = memory_bytes_of(run, found), disk(run, found)
    room = memory_notes(held)
    refuse_full_disks(places(run, found))
    seconds = _seconds(run, found, asked + written.windows) + found.write_s * written.tokens
    price = recipe.evaluation.price
    figures = {
        "training rows": len(splits.train),
        "labelled rows": int(splits.train.labelled_N.sum()),
        "validation rows": len(splits.validation),
        "test rows": len(splits.test),
        **({} if recipe.is_language else {"classes": len(splits.classes)}),
        "teachers asked": len(members),
        "teacher calls": (asked + written.windows * (asked > 0) + live) * len(members),
        "teacher tokens": _tokens(run, written) * len(members),
        **({"windows written": written.windows, "tokens written": written.tokens} if written.windows else {}),
        "models trained": sum(one.times for one in trainings(run) if not one.untrained),
        "roles": ", ".join(role.name for role in roles(run)),
        "seeds": recipe.seeds,
        "disk_mib": round(files.done / 2**20, 2),
        "peak_disk_mib": round(files.most / 2**20, 2),
        "peak_memory_mib": round(held / 2**20),
        "minutes": round(seconds / 60 + 0.1, 1),
    }
    if price is not None:
        figures["usd"] = round((seconds / 3600) * price.usd_per_hour, 6)
    notes = [*data_notes(run), *room]
    control_s = next((one.seconds(found) for one in trainings(run) if one.name == "control"), None)
    more, paid = _price(run, figures, pilot, seconds, control_s)
    notes += more
    if price is None:
        notes.append(
            "no price is given for this machine, so no USD for its work; add evaluation: {price: {usd_per_hour: ..}}"
        )
    notes += licence_notes(recipe)
    told = {"name": recipe.name, "figures": figures, "teacher": paid, "notes": notes}
    return {**told, "piloted": pilot} if pilot else told


def _price(
    run: Run, figures: dict[str, Any], pilot: int, seconds: float, control_s: float | None
) -> tuple[list[str], dict[str, list[float]]]:
    """Put what a paid teacher's calls take into the figures; what to say of it, and all teachers' together as numbers."""
    notes, members, each = list[str](), run.recipe.teacher.each(), []
    for place, member in enumerate(members):
        if member.costs:
            found, told = expected_calls(run, member, pilot, control_s)
            each.append(found)
            notes += told
            seconds += 60 * found.minutes.middle
            figures["minutes"] = round(seconds / 60 + 0.1, 1)
            paid = figures_of(found)
            figures |= paid if len(members) == 1 else {f"teacher {place + 1}, {k}": v for k, v in paid.items()}
    return notes, together(each)


def _tokens(run: Run, written: Writing) -> int:
    """For how many tokens each teacher is asked; of a live one they are not counted."""
    positions = scored_positions(run) if run.recipe.is_language else 0
    return positions + written.tokens * (positions > 0)


def _asked(run: Run) -> int:
    """How many rows each teacher is asked."""
    nobody = run.recipe.transfer_set.live or is_recorded(run.recipe.teacher)
    asked = len(run.splits.train) * (0 if nobody else len(views_of(run.recipe)))
    return asked if run.recipe.is_language else asked + len(run.splits.validation) + len(run.splits.test)


def _seconds(run: Run, found: Rehearsed, asked: int) -> float:
    """Of all trainings, of the asking, and of the students' answers in the exam."""
    held_out = len(run.splits.test) + len(run.splits.validation)
    trained = sum(one.times * one.seconds(found) for one in trainings(run))
    answered = found.answer_s * (asked + run.recipe.is_language * held_out)
    return trained + answered + found.student_row_s * held_out * sum(role.seeds for role in roles(run))
