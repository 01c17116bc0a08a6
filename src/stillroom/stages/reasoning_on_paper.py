"""What a recipe for a teacher that reasons would cost while data, weights, keys or accepted terms are not here yet.

Reckoned from the figures that `traces.expect` states, and from the questions themselves where their files are here. Nothing is
asked, timed or fetched, so a recipe for a 32B student is told in seconds on a machine that could not hold it. Where nothing is
lacking, or nothing is stated, a plan is made as ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.errors import InputError
from stillroom.models.references import is_here
from stillroom.questions import sources
from stillroom.reasoning_knobs import Expect
from stillroom.stages.notes import licence_notes
from stillroom.stages.reasoning import asked_of
from stillroom.stages.reasoning_pilot import expected_samples
from stillroom.stages.reasoning_plan import bill
from stillroom.teachers.terms import check_terms

if TYPE_CHECKING:
    from stillroom.recipe import Recipe
    from stillroom.stages.opening import Run

WHOLE, ADAPTERS = 6.0, 4.0
"""Operations for each weight and token: forward, and backward to inputs and weights (Kaplan et al. 2020, arXiv:2001.08361);
with frozen weights their own gradients fall away."""
ANSWER_TOKENS = 16
"""Of an answer alone, which the control learns from."""
BYTES_A_TOKEN = 4
"""Of a question that is here."""


@dataclass(frozen=True)
class _Amounts:
    """What there is to ask and to learn from, as far as it is known or stated."""

    questions: int
    question_tokens: float
    calls: int
    kept: float
    counted: bool
    """The questions' files are here."""


def lacking(run: Run) -> list[str]:
    """What is not here that a run would need, each in words; empty where no figures are stated to do without it."""
    recipe = run.recipe
    if recipe.traces.expect is None:
        return []
    found = [] if _has_files(run) else ["the questions: " + ", ".join(_files(run))]
    for name, writer in (("teacher", recipe.teacher), ("traces.rewrite", recipe.traces.rewrite)):
        if writer is None or not writer.costs:
            continue
        asked: Any = writer
        for look in (
            lambda asked=asked, name=name: check_terms(
                asked.licence, asked.base_url, recipe.accept_terms, asked.model, name
            ),
            asked.key,
        ):
            try:
                look()
            except InputError as error:
                found.append(
                    str(type(error)(error.what, where=error.where.replace("teacher", name, 1), cure=error.cure))
                )
    source = getattr(recipe.student, "source", None)
    if source is not None and not is_here(source, run.folders):
        found.append(f"the student's weights: {source}")
    return found


def plan_on_paper(run: Run, missing: list[str]) -> dict[str, Any]:
    """{"name", "figures", "teacher", "notes"} as of any plan, `missing` among the notes."""
    recipe, stated = run.recipe, run.recipe.traces.expect
    assert stated is not None, "figures are stated where something may be lacking"
    amounts = _amounts(run, stated)
    asking, teacher_usd = _asking(recipe, stated, amounts)
    paid = {"calls": asking["teacher calls"] + asking.get("calls for rewriting", 0)} if asking else {}
    paid |= {} if teacher_usd is None else {"usd": round(teacher_usd, 9)}
    hours = _hours(run, stated, amounts)
    figures: dict[str, Any] = {
        "training questions": amounts.questions,
        **asking,
        "traces kept": round(amounts.kept),
        "machine hours": ", ".join(f"{name} {one:,.1f}" for name, one in hours.items()),
    }
    price = recipe.evaluation.price
    if price is not None:
        figures |= bill(sum(hours.values()) * price.usd_per_hour, teacher_usd)
        figures["training_usd of the student alone"] = round(hours["student"] * price.usd_per_hour, 2)
    counted = "the questions are counted, all else" if amounts.counted else "all of it"
    notes = [
        f"on paper: {counted} is what traces.expect states ({stated.accepted:.0%} of samples accepted, {stated.trace_tokens:,} "
        f"tokens a trace, {stated.parameters / 1e9:,.3g} billion weights, {stated.tflops:g} TFLOPS in training); nothing was "
        "asked, timed or fetched",
        *[f"not here yet: {one}" for one in missing],
        *(
            []
            if price is not None
            else ["no price of the machine is given, so no USD of training; add evaluation.price"]
        ),
    ]
    notes += licence_notes(recipe)
    numbers = {name: [value] * 3 for name, value in paid.items()}
    return {"name": recipe.name, "figures": figures, "teacher": numbers, "notes": [*notes, *recipe.notes]}


def _files(run: Run) -> list[str]:
    source: Any = run.recipe.questions.source  # type: ignore[attr-defined]
    return list(source.values()) if isinstance(source, dict) else [str(source)]


def _has_files(run: Run) -> bool:
    """All are here, so they are read, and what is wrong with them is an error."""
    try:
        for name in _files(run):
            if not name.startswith(("builtin:", "hf:")):
                sources.find(name, run.folders)
    except InputError:
        return False
    return True


def _amounts(run: Run, stated: Expect) -> _Amounts:
    knobs = run.recipe.traces
    count, tokens, scored, counted = stated.questions, float(stated.question_tokens), knobs.score or 0, _has_files(run)
    if counted:
        train, test = run.splits.train, len(run.splits.test)
        count = len(train)
        tokens = sum(len(text.encode()) for text in asked_of(train).values()) / BYTES_A_TOKEN / count
        scored = test if knobs.score is None else min(knobs.score, test)
    each = expected_samples(stated.accepted, knobs.samples, knobs.keep)
    return _Amounts(count, tokens, round(count * each) + scored, count * each * stated.accepted, counted)


def _asking(recipe: Recipe, stated: Expect, amounts: _Amounts) -> tuple[dict[str, Any], float | None]:
    """Calls, tokens and USD of the teacher and of whoever writes traces again; their USD in all, None without a price."""
    teacher: Any = recipe.teacher
    writer: Any = recipe.traces.rewrite
    if not teacher.costs:
        return {}, None
    read, written = round(amounts.calls * amounts.question_tokens), amounts.calls * stated.trace_tokens
    figures: dict[str, Any] = {"teacher calls": amounts.calls, "teacher tokens": read + written}
    usd = None
    if teacher.price is not None:
        usd = teacher.rates(teacher.batch).cost(read, written).usd
        figures["teacher_usd"] = round(usd, 2)
    if writer is not None:
        again = round(amounts.kept)
        figures["calls for rewriting"] = again
        if writer.price is not None:
            trace = again * stated.trace_tokens
            paid = writer.rates(writer.batch).cost(round(again * amounts.question_tokens) + trace, trace).usd
            figures["rewriting_usd"] = round(paid, 2)
            usd = (usd or 0.0) + paid
    if usd is not None:
        figures["teacher_usd for a kept trace"] = round(usd / amounts.kept, 5)
    return figures, usd


def _hours(run: Run, stated: Expect, amounts: _Amounts) -> dict[str, float]:
    """Of the machine, for the student, its control and the arms, all seeds together."""
    found = {}
    for name, recipe in (
        ("student", run.recipe),
        ("control", run.recipe),
        *((n, a.recipe) for n, a in run.arms.items()),
    ):
        alone = name == "control" or recipe.traces.learn in ("answer", "gold")
        rows = min(amounts.kept, amounts.questions * (recipe.traces.count or recipe.traces.keep))
        said = ANSWER_TOKENS if alone else stated.trace_tokens
        tokens = recipe.training.epochs * rows * (amounts.question_tokens + said)
        operations = (ADAPTERS if recipe.student.kind == "lora" else WHOLE) * stated.parameters * tokens
        found[name] = run.recipe.seeds * operations / (stated.tflops * 1e12) / 3600
    return found
