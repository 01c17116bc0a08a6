"""Training students on a teacher's traces: what each role is taught, for how many steps, and the training itself."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from stillroom.errors import ModelError
from stillroom.kinds import AskedTeacher
from stillroom.reasoning_knobs import Learn
from stillroom.reasoning_knobs import Traces as Knobs
from stillroom.rows import Questions
from stillroom.rundir import fingerprint, write_json
from stillroom.stages.opening import Run, working
from stillroom.stages.reasoning import ask_traces, asked_of, judging, verifier_of
from stillroom.stages.teach import teach
from stillroom.stages.train import Role, begun_from, roles
from stillroom.training.steps import steps_in

if TYPE_CHECKING:
    import torch

    from stillroom.transfer_set.lessons import Chosen, Pair
    from stillroom.transfer_set.sampling import Traces

T = TypeVar("T")
LESSON = "lesson.json"
"""In a student's folder: in which form it was taught, and how much."""


@dataclass(frozen=True)
class Taught:
    """What one role learns from: rows of tokens, how many optimiser steps, and that in words and numbers."""

    windows: Questions
    steps: int
    facts: dict[str, Any]


def knobs_of(role: Role) -> Knobs:
    """What a role is taught; the control hears the answers of the student's own traces, and nothing else."""
    knobs = role.run.recipe.traces
    return knobs.model_copy(update={"learn": "answer"}) if role.labels_alone else knobs


def train_traces(run: Run, asked: AskedTeacher, traces: Traces) -> None:
    """Train every role over all seeds. An arm that samples otherwise, or another teacher, first has its own traces."""
    main: Taught | None = None
    for role in roles(run):
        own = traces
        if role.run.has_own_teacher:
            own = ask_traces(role.run, teach(role.run))
        elif role.run.arm and _samples_otherwise(role.run, run):
            own = ask_traces(role.run, asked)
        taught = lesson_of(role, own, main)
        main = main or taught
        for seed in range(run.recipe.seeds):
            train_one(role, taught, seed)
    shutil.rmtree(run.dir.work, ignore_errors=True)


def _samples_otherwise(arm: Run, run: Run) -> bool:
    def how(one: Run) -> tuple[Any, ...]:
        knobs = one.recipe.traces
        # What is written again are the traces that were chosen.
        rewritten = None if knobs.rewrite is None else (knobs.rewrite, knobs.length, knobs.count)
        return knobs.samples, knobs.keep, rewritten, one.recipe.transfer_set.verify

    return how(arm) != how(run)


def lesson_of(role: Role, traces: Traces, main: Taught | None) -> Taught:
    """What a role is taught. `main`: what the student is, whose steps or tokens it gets as well; None: it is the student."""
    from stillroom.questions.dialogues import dialogues
    from stillroom.transfer_set.lessons import length_in

    run, knobs = role.run, knobs_of(role)
    tokenizer, context = reads(run)
    room = most_tokens(run, context)
    pairs, left_out = _pairs(role, knobs, traces, _Reader(tokenizer, room, length_in(tokenizer)))
    weight_N = np.array([pair.weight for pair in pairs], np.float32)
    at = f"arms.{run.arm}.questions" if run.arm else "questions"
    windows = dialogues(
        tokenizer,
        [(pair.question, pair.text) for pair in pairs],
        room,
        weight_N=weight_N,
        where=at,
    )
    facts = _counted(windows, knobs)
    if left_out:
        facts["left_out"] = left_out
    student_rows = main.facts["rows"] if main is not None else len(pairs)
    steps = steps_in(run.recipe.training, student_rows)
    if main is not None and knobs.equal == "tokens":
        steps = max(1, round(steps * main.facts["tokens_per_row"] / facts["tokens_per_row"]))
    batch = min(run.recipe.training.batch_size, len(pairs)) * run.recipe.training.accumulate
    read = round(steps * batch * facts["tokens_per_row"])
    return Taught(windows, steps, {**facts, "steps": steps, "tokens_read": read})


class _Reader(NamedTuple):
    """How the student reads: its tokenizer, the most tokens of a row, and how long a text is in its tokens."""

    tokenizer: Any
    room: int
    length_of: Callable[[str], int]

    def misfits(self, pairs: list[Pair]) -> list[str]:
        """Why each cannot be taught; "" where it can."""
        from stillroom.questions.dialogues import misfits

        return misfits(self.tokenizer, [(pair.question, pair.text) for pair in pairs], self.room)


def _readable(chosen: list[Chosen], learn: Learn, reader: _Reader) -> tuple[list[Chosen], dict[str, int]]:
    """The traces that can be taught in this form, and how many others there were by reason: they are paid for already.

    Where it is all of them they stay, and making rows of them says what is wrong.
    """
    from stillroom.transfer_set.lessons import pairs_of

    several = [pairs_of(learn, [one], {}, str, reader.length_of) for one in chosen]
    why = iter(reader.misfits([pair for pairs in several for pair in pairs]))
    return _fitting(chosen, [next(filter(None, [next(why) for _ in pairs]), "") for pairs in several])


def _fitting(several: list[T], reasons: list[str]) -> tuple[list[T], dict[str, int]]:
    """Those that have no reason to be left out, and how many have which; all of them where there would be none."""
    if all(reasons):
        return several, {}
    left = [one for one, reason in zip(several, reasons, strict=True) if not reason]
    return left, dict(Counter(filter(None, reasons)))


def most_tokens(run: Run, context: int) -> int:
    """Most tokens of a row: what the student looks at, or fewer where the recipe says so."""
    window: int | None = getattr(run.recipe.questions, "window", None)
    return context if window is None else min(window, context)


def reads(run: Run) -> tuple[Any, int]:
    """The student's tokenizer, and the most tokens it can look at; its network is built without memory for its weights."""
    import torch

    from stillroom.models.language import context_of

    ground, part = run.ground(untaught=True), run.recipe.student
    learned = run.inputs(part, run.splits.train.raw, ground)
    with torch.device("meta"):
        network: Any = part.network(learned, 0, ground)
    return network.tokenizer, context_of(network.model, network.tokenizer)


def _counted(windows: Questions, knobs: Knobs) -> dict[str, Any]:
    assert isinstance(windows.raw, dict)
    rows, tokens = len(windows), int((windows.raw["ids"] >= 0).sum())
    said_N = (windows.raw["target"] >= 0).sum(1)
    return {
        "learn": knobs.learn, "of": knobs.of, "length": knobs.length, "shorten": knobs.shorten, "equal": knobs.equal,
        "rows": rows, "tokens": tokens, "tokens_per_row": tokens / rows, "said_tokens_per_row": float(said_N.mean()),
        "longest": int(said_N.max()),
    }  # fmt: skip


def _pairs(role: Role, knobs: Knobs, traces: Traces, reader: _Reader) -> tuple[list[Pair], dict[str, int]]:
    """What a role learns from, and how many traces its student cannot read, by reason.

    The control hears the answers of those traces alone that the student reads whole.
    """
    from stillroom.transfer_set.lessons import pairs_of

    run = role.run
    asked = asked_of(run.splits.train)
    gold = {
        key: answer
        for key, answer in ((key.hex(), answer) for key, answer in (run.splits.gold or {}).items())
        if key in asked
    }
    chosen = [] if knobs.learn == "gold" else chosen_of(run, knobs, traces, asked, gold)
    if not chosen and (knobs.learn != "gold" or not gold):
        what = {"accepted": "accepted", "rejected": "rejected", "every": "complete"}[knobs.of]
        raise ModelError(
            "there is no gold answer to learn from"
            if knobs.learn == "gold"
            else f"there is no {what} trace to learn from",
            where=f"arms.{run.arm}.traces" if run.arm else "traces",
            cure="Take this arm out, or sample more",
        )
    learn = run.recipe.traces.learn
    chosen, left_out = _readable(chosen, learn, reader) if learn != "gold" else (chosen, {})
    pairs = pairs_of(knobs.learn, chosen, gold, lambda key: asked[key], reader.length_of)
    return _fitting(pairs, reader.misfits(pairs)) if learn == "gold" else (pairs, left_out)


def chosen_of(run: Run, knobs: Knobs, traces: Traces, asked: dict[str, str], gold: dict[str, str]) -> list[Chosen]:
    """The traces that are learned from, each with its question."""
    from stillroom.transfer_set.lessons import Chosen
    from stillroom.transfer_set.traces import shortened

    found, verifier = [], judging(verifier_of(run))
    for one in traces.choose(knobs.of, knobs.length, knobs.count):
        trace = one.trace
        if knobs.shorten:
            right = gold.get(one.key, trace.answer or "")
            trace = shortened(trace, right, verifier, knobs.shorten)
        if one.key in asked:
            found.append(Chosen(one.key, asked[one.key], trace))
    return found


def prompted(learn: Learn) -> Callable[[str], str]:
    """How a question is put to a student that was taught in this form."""
    from stillroom.transfer_set.lessons import asked_as

    return lambda question: asked_as(learn, question)


def train_one(role: Role, taught: Taught, seed: int) -> None:
    """Train one role's student of one seed into its folder."""
    from stillroom.training.fit import Lesson, fit
    from stillroom.training.language_batches import WindowSource

    run, recipe = role.run, role.run.recipe
    ground = run.ground(untaught=True)
    learned = run.inputs(recipe.student, run.splits.train.raw, ground)

    def first_weights() -> torch.nn.Module:
        return recipe.student.network(learned, 0, ground)

    name = role.folder(seed)
    made_from = fingerprint(
        recipe.student.model_dump(mode="json"), [one.model_dump(mode="json") for one in role.objectives],
        recipe.training.model_dump(mode="json", exclude={"checkpoint_seconds"}), learned.fingerprint,
        taught.windows.fingerprint(), taught.facts, seed, recipe.dtype, begun_from(recipe.student, ground),
    )  # fmt: skip
    with run.dir.stage(name, made_from) as folder:
        if folder is None:
            return
        none = taught.windows.take(np.arange(0))
        lesson = Lesson(
            recipe.student.architecture(), first_weights, role.objectives, recipe.training, WindowSource(taught.windows),
            [], none, seed, taught.steps, run.device, recipe.dtype,
        )  # fmt: skip
        with working(run, name, made_from, f"{role.name}, seed {seed}", taught.steps) as (work, hooks):
            history = fit(lesson, folder, work, hooks)
        write_json(folder / LESSON, taught.facts)
        run.dir.event("trained", name=name, seconds=round(history.seconds, 3))
