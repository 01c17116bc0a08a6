"""A teacher that is paid by the call: its ledger stands beside the answers, and each call is charged to a purpose.

What it does not answer is left out of every split, and said so. A recipe without such a teacher passes by here unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.budget import NANO, Limits, Paid
from stillroom.errors import InputError, ModelError, RunError
from stillroom.kinds import AskedTeacher, Teacher
from stillroom.progress import Telling
from stillroom.rows import Questions
from stillroom.teachers.ensemble import members_of

if TYPE_CHECKING:
    from stillroom.recipe import Recipe
    from stillroom.stages.opening import Run
    from stillroom.transfer_set.store import Kept

LEDGER = "ledger.sqlite"
LABEL, SCORE = "label", "score"
"""What a call is for: an answer that students learn from, or one on held-out rows that shows how good the teacher is."""


def is_paid(recipe: Recipe) -> bool:
    """Some teacher of the recipe is paid by the call."""
    return any(teacher.costs for teacher in recipe.teacher.each())


def limits_of(recipe: Recipe) -> Limits:
    """The hard stops on what a run spends on calls."""
    budget = recipe.budget
    return Limits(budget.usd, budget.teacher_tokens, budget.calls)


def ledger_path(run: Run) -> Path:
    """Beside the answers, so that runs that share a store pay once."""
    shared = run.recipe.transfer_set.store
    return (run.dir.path / "transfer_set" if shared is None else run.folders[0] / shared) / LEDGER


def check_paid(run: Run, teacher: Teacher, built: Any) -> None:
    """What can be seen of a teacher that is paid by the call without asking it: its prompt and its price.

    Raises RecipeError.
    """
    teacher.check_budget(limits_of(run.recipe))  # type: ignore[attr-defined]
    built.check(run.splits.train.raw)


@contextmanager
def paying(run: Run) -> Iterator[None]:
    """Hold the ledger of a run that has a teacher to pay, while the block runs.

    An InputError says that nothing was spent. One that comes when calls were paid for leaves as a RunError.
    """
    if not is_paid(run.recipe) and not any(is_paid(arm.recipe) for arm in run.arms.values()):
        yield
        return
    from stillroom.ledger import opened

    with opened(ledger_path(run), run.recipe.name, limits_of(run.recipe), run.clock.check) as run.ledger:
        before = run.ledger.bought().calls
        try:
            yield
        except InputError as error:
            if run.ledger.bought().calls == before:
                raise
            raise RunError(error.what, where=error.where, cure=error.cure) from error


def is_charged(run: Run, asked: Any) -> bool:
    """Each call to this teacher at work is charged."""
    return (run.main or run).ledger is not None and hasattr(asked, "charge")


def charged(run: Run, asked: Any, purpose: str, progress: Callable[[int], None] | None = None) -> AskedTeacher:
    """The teacher, its calls charged to this purpose where it is paid by the call; `progress` hears of each then."""
    ledger = (run.main or run).ledger
    if ledger is None or not is_charged(run, asked):
        return asked  # type: ignore[no-any-return]
    told: dict[str, Any] = {} if progress is None else {"progress": progress}
    if isinstance(run.show, Telling):
        told["tell"] = run.show.note
    found: AskedTeacher = asked.charge(ledger, purpose, **told)
    return found


def keep_answered(run: Run, kept: Kept, asked: AskedTeacher) -> None:
    """Leave out of every split what a paid teacher did not answer. Raises ModelError where it answered nothing."""
    if not is_paid(run.recipe):
        return
    splits, left = run.splits, {}

    def answered(name: str, questions: Questions) -> Questions:
        there_N = kept.answered(questions.key_N)
        left[name] = int((~there_N).sum())
        return questions.take(np.flatnonzero(there_N)) if left[name] else questions

    found = replace(
        splits,
        train=answered("training", splits.train),
        validation=answered("validation", splits.validation),
        test=answered("test", splits.test),
    )
    sizes = {"training": len(found.train), "test": len(found.test)}
    part = next((name for name, size in sizes.items() if not size and left[name]), None)
    if part is not None:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in _reasons([asked]).most_common())
        raise ModelError(
            f"the teacher answered none of the {left[part]:,} {part} rows as asked{reasons and f': {reasons}'}",
            where="teacher",
            cure="Look at prompt, labels and read; what was answered is kept, and is read again without asking",
        )
    if splits.slice_N is not None:
        found = replace(found, slice_N=splits.slice_N[kept.answered(splits.test.key_N)])
    missing = ", ".join(f"{count:,} {name}" for name, count in left.items() if count)
    if missing:
        note = f"rows that the teacher refused, or answered so that it could not be read, are left out: {missing}"
        found = replace(found, notes=[*splits.notes, note])
    for each in [run, *run.arms.values()]:
        if each.splits is splits:  # an arm with questions of its own asks, and narrows, them itself
            each.__dict__["splits"] = found


def asking_facts(run: Run, asked: AskedTeacher) -> dict[str, Any]:
    """What a run's calls took and cost, by what they were for, and what was refused; empty where no teacher is paid.

    `usd`, and what follows from it, is left out where no price is known.
    """
    ledger = (run.main or run).ledger
    if ledger is None:
        return {}
    priced = all(getattr(teacher, "price", None) is not None for teacher in run.recipe.teacher.each() if teacher.costs)
    purposes = {name: _figures(spent, priced) for name, spent in ledger.purposes().items()}
    found = {**_figures(ledger.spent(), priced), "purposes": purposes}
    lost = ledger.lost()
    if lost.calls:
        found["lost"] = _figures(lost, priced)
    reasons = _reasons(members_of(asked))
    if reasons:
        found["refused"] = dict(reasons.most_common())
    seconds_N = ledger.latencies_s()
    if len(seconds_N):
        p50, p95 = np.percentile(1000 * np.asarray(seconds_N), [50, 95])
        found |= {"latency_ms_p50": float(p50), "latency_ms_p95": float(p95)}
    rows = sum(spent.calls for name, spent in ledger.purposes().items() if name in (LABEL, SCORE))
    if priced and rows:
        usd = sum(purposes[name]["usd"] for name in (LABEL, SCORE) if name in purposes)
        found["usd_per_million_rows"] = 1e6 * usd / rows
    return found


def _reasons(asked: Sequence[AskedTeacher]) -> Counter[str]:
    """How many answers gave nothing to learn from, by reason."""
    return Counter(reason for one in asked for _, reason, _ in getattr(one, "refused", []))


def _figures(spent: Paid, priced: bool) -> dict[str, Any]:
    tokens = spent.tokens_in + spent.tokens_out
    found: dict[str, Any] = {"calls": spent.calls, "tokens": tokens, "tokens_in": spent.tokens_in}
    return found | ({"usd": spent.nano_usd / NANO} if priced else {})
