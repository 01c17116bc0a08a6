"""Stage teach: train the teachers that the recipe has trained, each in its own folder, and build the teacher."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.evaluation.processes import give_back
from stillroom.kinds import AskedTeacher, Teacher, parse
from stillroom.recipe import Training
from stillroom.rows import joined
from stillroom.rundir import fingerprint
from stillroom.stages.ask import answers_of
from stillroom.stages.opening import ASKED, Run, tell_done_before, working
from stillroom.teachers.python import Python
from stillroom.training.steps import steps_in


def teach(run: Run) -> AskedTeacher:
    """Train the recipe's teacher where it must be, and build it; one given from Python earlier answers from what is kept."""
    teacher = run.recipe.teacher
    if isinstance(teacher, Python) and teacher.given is None and (run.dir.path / ASKED).is_file():
        from stillroom.transfer_set.ask import KeptTeacher

        return KeptTeacher(answers_of(run.dir.path))
    return trained_and_built(run, teacher, run.teacher_home, "teacher")


def trained_and_built(run: Run, teacher: Teacher, home: str, words: str) -> AskedTeacher:
    """Train the members that must be, each in its own folder below `home`, and build the teacher."""
    members = teacher.each()
    for place, member in enumerate(members):
        if member.trains:
            name = f"{home}/{place}" if len(members) > 1 else home
            train_teacher(run, member, name, f"{words} {place + 1} of {len(members)}")
    return built(run, teacher, home)


def built(run: Run, teacher: Teacher, home: str) -> AskedTeacher:
    """The teacher ready to be asked; what had to be trained stands in its folders below `home`."""
    give_back()
    # A teacher behind an API computes nothing here, and loading torch would keep its first request waiting.
    device = None if all(member.costs for member in teacher.each()) else run.device
    asked = teacher.build(run.dir.path / home, run.folders, run.splits.classes, device)
    if run.recipe.transfer_set.live:
        _narrow(asked, run.recipe.dtype)
    return asked


def _narrow(asked: AskedTeacher, dtype: str) -> None:
    """A live teacher answers in each step, so it computes in the format the recipe asks for; kept answers are float32."""
    from stillroom.models.classifier import Classifier
    from stillroom.teachers.ensemble import members_of

    for one in members_of(asked):
        # A language model is a network with its tokenizer, inside of what is asked.
        found = one if isinstance(one, Classifier) else getattr(one, "model", None)
        if found is not None:
            found.device = found.device.for_size(found.parameters, dtype)


def train_teacher(run: Run, member: Any, name: str, words: str) -> None:
    """A `trained` teacher learns from the labels of all training rows, those that the student must not see included."""
    from stillroom.models.device import Device
    from stillroom.training.batches import Source
    from stillroom.training.fit import Lesson, fit
    from stillroom.training.language_batches import WindowSource

    known = joined(run.splits.train, run.splits.omitted)
    if not run.recipe.is_language:
        known = known.take(np.flatnonzero(known.labelled_N))
    knobs: Training = member.training()
    ground = run.ground(untaught=True)
    learned = run.inputs(member.model, known.raw, ground)
    # A masked model learns from new maskings each epoch, hidden as those of the questions.
    augment = member.augment or (run.recipe.questions.augment if run.recipe.is_language else ())
    seen = run.seen_as(augment) if augment else None
    source = WindowSource(known, seen=seen) if run.recipe.is_language else Source(known, learned, seen=seen)
    device: Device = run.device
    steps = steps_in(knobs, len(known))
    made_from = fingerprint(
        member.model_dump(mode="json", exclude={"licence", "checkpoint_seconds"}), learned.fingerprint, run.recipe.dtype,
        known.fingerprint(), run.splits.validation.fingerprint(), run.splits.classes,
    )  # fmt: skip
    with run.dir.stage(name, made_from) as folder:
        if folder is None:
            tell_done_before(run, words, steps)
            return
        hard = (parse("objective", {"kind": "hard_label"}),)
        lesson = Lesson(
            member.model, lambda: member.model.network(learned, len(run.splits.classes), ground), hard, knobs, source,
            run.splits.classes, run.splits.validation, member.seed, steps, device, run.recipe.dtype,
        )  # fmt: skip
        give_back()
        with working(run, name, made_from, words, steps) as (work, hooks):
            history = fit(lesson, folder, work, hooks)
        run.dir.event("taught", name=name, seconds=round(history.seconds, 3))
