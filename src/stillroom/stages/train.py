"""Stage train: the student, its controls and the arms, each over all seeds, each in its own folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.evaluation.processes import give_back
from stillroom.kinds import AskedTeacher, Ground, Objective, Student, parse
from stillroom.recipe import TransferSet
from stillroom.rows import UNLABELLED, joined
from stillroom.rundir import fingerprint, read_json, write_json
from stillroom.stages.ask import ask_answers
from stillroom.stages.language_text import is_recorded
from stillroom.stages.layers import further_width, mapped, showing_layers, shown_layers
from stillroom.stages.on_policy_rounds import policy_of
from stillroom.stages.opening import Run, tell_done_before, views_of, working
from stillroom.stages.teach import teach
from stillroom.training.steps import steps_in

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from stillroom.inputs import Inputs
    from stillroom.training.batches import Source
    from stillroom.training.fit import Lesson, Prior
    from stillroom.training.language_batches import WindowSource
    from stillroom.transfer_set.sampling import Traces
    from stillroom.transfer_set.store import Kept

BEFORE = "before"
"""A student that begins with trained weights, before its first step."""
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)
"""What `temperature: auto` tries: small students want 2 to 4, wide ones 8 and more (Hinton and others 2015)."""


@dataclass(frozen=True)
class Role:
    """One of the models that are compared: under which run's recipe, by which objectives, on labels alone or not."""

    name: str
    run: Run
    objectives: tuple[Objective, ...]
    labels_alone: bool = False
    untrained: bool = False
    """It stays as it begins: what was there before anything was learned."""

    @property
    def seeds(self) -> int:
        """How many there are; weights that stand somewhere are the same for all."""
        return 1 if self.untrained else self.run.recipe.seeds

    def folder(self, seed: int) -> str:
        """Where this role's model of a seed stands; the first seed at the top level."""
        name = f"arms/{self.name}" if self.run.arm else self.name
        return name if seed == 0 else f"seeds/{seed}/{name}"


def roles(run: Run) -> list[Role]:
    """The student, its controls, and the arms. A control that makes no sense for the recipe is left out."""
    recipe, objectives = run.recipe, mapped(run)
    found = [Role("student", run, objectives)]
    if recipe.is_reasoning:  # the same traces' answers, without the reasoning
        found.append(Role("control", run, recipe.objectives, labels_alone=True))
    elif is_recorded(recipe.teacher):
        found += _beside_words(run)
    elif run.splits.train.labelled_N.any() or run.recipe.is_language:  # a text's own tokens are its labels
        found.append(Role("control", run, (parse("objective", {"kind": "hard_label"}),), labels_alone=True))
    if any(_is_soft(objective) for objective in recipe.objectives):
        found.append(Role("hard_teacher", run, tuple(_hardened(objective) for objective in objectives)))
    return found + [Role(name, arm, mapped(arm)) for name, arm in run.arms.items()]


def _beside_words(run: Run) -> list[Role]:
    """What stands beside a student of recorded words, whose control would be itself: one of the questions' own words, where
    they are others, and the student before its first step, where it begins with weights that know something."""
    hard = (parse("objective", {"kind": "hard_label"}),)
    found = [] if run.own_words is None else [Role("control", run, hard, labels_alone=True)]
    if run.recipe.student.kind != "fresh" and getattr(run.recipe.student, "weights", "kept") == "kept":
        found.append(Role(BEFORE, run, hard, labels_alone=True, untrained=True))
    return found


def _is_soft(objective: Objective) -> bool:
    """It learns from more of the teacher's probabilities than their top."""
    return "probabilities" in objective.required()


def _hardened(objective: Objective) -> Objective:
    if not _is_soft(objective):
        return objective
    found: Objective = parse("objective", {"kind": "hard_label", "from": "teacher", "weight": objective.weight})
    return found


def train(run: Run, asked: AskedTeacher, kept: Kept | Traces) -> None:
    """Train every role over all seeds. An arm with another teacher, or other questions, first has its own asked."""
    from stillroom.transfer_set.sampling import Traces

    if isinstance(kept, Traces):
        from stillroom.stages.reasoning_training import train_traces

        return train_traces(run, asked, kept)
    from stillroom.stages.on_policy import train_on_policy

    for role in roles(run):
        teacher, answers = asked, kept
        if role.run.has_own_teacher:
            teacher = teach(role.run)
            answers = ask_answers(role.run, teacher)
        elif role.run.arm and _asks_for_more(role.run, run):
            answers = ask_answers(role.run, teacher)
        objectives = settled(role, teacher, answers)
        for seed in range(role.seeds):
            if policy_of(role.run) is not None and not role.untrained:
                train_on_policy(role, objectives, teacher, answers, seed)
                continue
            train_one(role, objectives, teacher, answers, seed, role.folder(seed), f"{role.name}, seed {seed}")
    shutil.rmtree(run.dir.work, ignore_errors=True)


def _asks_for_more(arm: Run, run: Run) -> bool:
    """An arm may want stored answers where the student's teacher is live, in another form, or a class prior of the teacher's."""
    ours, theirs = arm.recipe.transfer_set, run.recipe.transfer_set
    stored = not ours.live and theirs.live
    other_form = arm.recipe.is_language and not ours.live and _form(ours) != _form(theirs)
    return stored or other_form or arm.recipe.training.class_prior == "teacher" != run.recipe.training.class_prior


def _form(knobs: TransferSet) -> tuple[Any, ...]:
    """In which form a language model's answers are kept."""
    return knobs.head, knobs.tail, knobs.tail_bytes, knobs.fidelity


def settled(role: Role, asked: AskedTeacher, kept: Kept) -> tuple[Objective, ...]:
    """The objectives with `temperature: auto` settled: one student a temperature, the fewest validation errors wins."""
    if not any(objective.heat() == "auto" for objective in role.objectives):
        return role.objectives
    run, tried = role.run, {}
    for heat in TEMPERATURES:
        name = f"tuning/{role.name}/{heat:g}"
        train_one(role, _heated(role.objectives, heat), asked, kept, 0, name, f"{role.name} at temperature {heat:g}")
        curve = read_json(run.dir.path / name / "history.json")["curve"]
        # With patience the weights that are kept are those of the lowest loss, not the last.
        kept_at = min(curve, key=lambda point: point["validation_loss"]) if run.recipe.training.patience else curve[-1]
        tried[heat] = (-kept_at["validation_accuracy"], kept_at["validation_loss"])
    best = min(tried, key=lambda heat: tried[heat])
    found = {"temperature": best, "tried": {f"{heat:g}": {"accuracy": -a, "loss": b} for heat, (a, b) in tried.items()}}
    write_json(run.dir.path / "tuning" / role.name / "chosen.json", found)
    return _heated(role.objectives, best)


def _heated(objectives: Sequence[Objective], heat: float) -> tuple[Objective, ...]:
    return tuple(
        objective.model_copy(update={"temperature": heat}) if objective.heat() == "auto" else objective
        for objective in objectives
    )


@dataclass(frozen=True)
class After:
    """An earlier training that another goes on from: its folder, and what that was made from."""

    folder: Path
    made_from: str
    own: int = 0
    """So many of the first windows the student wrote itself: their tokens are no labels."""


@dataclass(frozen=True)
class Prepared:
    """A training that may begin, or be found finished: what it is made from, and all that it is made of."""

    role: Role
    name: str
    made_from: str
    lesson: Lesson


def train_one(
    role: Role, objectives: tuple[Objective, ...], asked: AskedTeacher, kept: Kept, seed: int, name: str, words: str
) -> None:
    """Train one role's model of one seed into its folder; the control gets the student's number of steps."""
    carry_out(prepared(role, objectives, asked, kept, seed, name), words)


def prepared(
    role: Role, objectives: tuple[Objective, ...], asked: AskedTeacher, kept: Kept, seed: int, name: str,
    after: After | None = None,
) -> Prepared:  # fmt: skip
    """What a training is made of; nothing is read of the weights it goes on from before it begins."""
    from stillroom.students.going_on import going_on
    from stillroom.training.fit import Lesson

    recipe, splits, knobs = role.run.recipe, role.run.splits, role.run.recipe.training
    student = recipe.student if after is None else going_on(recipe.student, after.folder)
    steps = 0 if role.untrained else steps_in(knobs, len(splits.train))
    ground = role.run.ground(untaught=role.labels_alone)
    learned = role.run.inputs(recipe.student, splits.train.raw, ground)
    source = _source(role, learned, objectives, asked, kept, seed, 0 if after is None else after.own)
    prior = _prior(role.run, kept)
    learns_from = source.questions if recipe.is_language else splits.train

    def first_weights() -> torch.nn.Module:
        return student.network(learned, len(splits.classes), ground)

    made_from = fingerprint(
        recipe.student.model_dump(mode="json"), [objective.model_dump(mode="json") for objective in objectives],
        knobs.model_dump(mode="json", exclude={"checkpoint_seconds"}), learned.fingerprint,
        recipe.questions.model_dump(mode="json", include={"augment", "views"}),
        [part.fingerprint() for part in (learns_from, splits.validation, splits.omitted)], splits.classes, seed, recipe.dtype,
        begun_from(recipe.student, ground) if after is None else [after.made_from, after.own],
        None if kept.header.layout is None or role.labels_alone else kept.header.layout,
        None if role.labels_alone else [asked.fingerprint, recipe.transfer_set.model_dump(mode="json", exclude={"store"})],
        None if prior is None else [prior.share_C.tolist(), prior.moved],
    )  # fmt: skip
    lesson = Lesson(
        recipe.student.architecture(), first_weights, objectives, knobs, source, splits.classes,
        splits.validation, seed, steps, role.run.device, recipe.dtype, prior,
        compared=name.startswith("tuning/"), after=None if after is None else after.folder,
    )  # fmt: skip
    return Prepared(role, name, made_from, lesson)


def carry_out(one: Prepared, words: str) -> None:
    """Train into the folder, unless it is finished."""
    from stillroom.training.fit import fit

    run = one.role.run
    with run.dir.stage(one.name, one.made_from) as folder:
        if folder is None:
            tell_done_before(run, words, one.lesson.steps)
            return
        give_back()
        with working(run, one.name, one.made_from, words, one.lesson.steps) as (work, hooks):
            history = fit(one.lesson, folder, work, hooks)
        source = one.lesson.source
        # An arm's own teacher is not the one whose calls the scorecard counts.
        live = source.live is not None and history.curve and not run.has_own_teacher
        rows = round(history.curve[-1]["epoch"] * len(source.questions)) if live else 0
        run.dir.event("trained", name=one.name, seconds=round(history.seconds, 3), asked=rows)


def begun_from(student: Student, ground: Ground) -> list[Any]:
    """What a student's first weights are read from, so that other weights at the same place are another beginning."""
    from stillroom.models.references import resolve

    source = getattr(student, "source", None)
    if source is None:
        return []
    path = ground.teacher if source == "teacher" else resolve(source, ground.folders)
    if path is None:
        return [None if ground.design is None else ground.design.model_dump(mode="json")]
    from stillroom.models.pretrained import fingerprint_of

    return [fingerprint_of(path)]


def _source(
    role: Role, learned: Inputs, objectives: tuple[Objective, ...], asked: AskedTeacher, kept: Kept, seed: int, own: int
) -> Source | WindowSource:
    from stillroom.stages.language import window_source

    if role.run.recipe.is_language:
        return window_source(role.run, objectives, asked, kept, role.labels_alone, own)
    if role.labels_alone:
        return _labels_alone(role.run, learned)
    return _transfer_set(role.run, learned, objectives, asked, kept, seed)


def _labels_alone(run: Run, learned: Inputs) -> Source:
    from stillroom.training.batches import Source

    splits, augment = run.splits, run.recipe.questions.augment
    known = splits.train.take(np.flatnonzero(splits.train.labelled_N))
    return Source(known, learned, seen=run.seen_as(augment) if augment else None)


def _transfer_set(
    run: Run, learned: Inputs, objectives: Sequence[Objective], asked: AskedTeacher, kept: Kept, seed: int
) -> Source:
    from stillroom.training.batches import Source
    from stillroom.transfer_set import wrong_classes

    recipe, train = run.recipe, run.splits.train
    seen = run.seen_as(recipe.questions.augment) if recipe.questions.augment else None
    needs = frozenset[str]().union(*(objective.required() for objective in objectives))
    hidden = "hidden" in needs
    layers = shown_layers(run) if hidden else ()
    width = further_width(run) // len(layers) if layers else 0
    if recipe.transfer_set.live:
        asks = asked if needs else None  # labels alone: the teacher would answer each batch for nothing
        live = showing_layers(run, asked) if hidden else asks
        return Source(train, learned, live=live, seen=seen, with_hidden=hidden, layers=layers, layer_width=width)
    heat = next((float(one.heat() or 1.0) for one in objectives if one.heat() is not None), 1.0)
    spoil = {
        "teacher": None,
        "permuted": lambda logs_NC: wrong_classes.permuted(logs_NC, seed),
        "uniform": lambda logs_NC: wrong_classes.uniform(logs_NC, heat),
    }[recipe.transfer_set.wrong_classes]
    views = views_of(recipe)
    readers = [kept.reader(train.key_N, view) for view in views] if needs else []
    return Source(train, learned, readers, None, views, seen, hidden, spoil, layers, width)


def _prior(run: Run, kept: Kept) -> Prior | None:
    """The unlabelled questions and the class prior to match on them, where the recipe asks for it."""
    from stillroom.training.fit import Prior

    wanted, splits = run.recipe.training.class_prior, run.splits
    if wanted == "none":
        return None
    pool, classes = joined(splits.train, splits.omitted), len(splits.classes)
    if wanted == "uniform":
        share_C = np.full(classes, 1 / classes)
    elif wanted == "labels":
        share_C = np.bincount(pool.label_N[pool.labelled_N], minlength=classes) / max(1, pool.labelled_N.sum())
    else:
        share_C = np.exp(kept.reader(pool.key_N).all()).mean(0)
    unseen = sorted(set(splits.omitted.label_N.tolist()) - {UNLABELLED})
    return Prior(pool, share_C, unseen or None)
