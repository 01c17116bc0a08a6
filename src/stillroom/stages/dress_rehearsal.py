"""A run in small, thrown away: every stage does its work on a few rows, and what it holds and takes is measured.

    python -m stillroom.stages.dress_rehearsal      {"recipe", "folders"} as JSON on stdin; what was found as JSON on stdout

It has a process of its own, which holds what a run holds and nothing else, and then ends. Data and models are whole;
batches are, where that is quick, and otherwise what smaller ones hold is continued in a straight line. What grows with
the number of rows is for footprint.py to add. A teacher that is paid, or given from Python, is not asked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import ModelError
from stillroom.evaluation.processes import (
    collect_seldom,
    end_at_once,
    end_first,
    forget_most,
    give_back,
    held_bytes,
    most_held_bytes,
    package_path,
)
from stillroom.inputs import Texts
from stillroom.kinds import AskedTeacher, Model, Student, Teacher
from stillroom.progress import Silent
from stillroom.recipe import Recipe, Training
from stillroom.rows import Questions, joined
from stillroom.rundir import RunDir
from stillroom.stages.ask import ask_answers
from stillroom.stages.layers import further_width
from stillroom.stages.on_policy_plan import practised
from stillroom.stages.on_policy_rounds import policy_of
from stillroom.stages.opening import Run, clock_of
from stillroom.stages.practice import (
    QUICK_S,
    STEPS,
    Line,
    Sizes,
    StandIn,
    Watch,
    few,
    lengths,
    likeness,
    most_bytes,
    repeated,
    settled_at,
    small_run,
    small_training,
)
from stillroom.stages.practice_exam import answering, sit, timed
from stillroom.stages.teach import built, train_teacher
from stillroom.stages.train import Role, roles, train_one
from stillroom.teachers.ensemble import Ensemble, members_of
from stillroom.teachers.python import Python
from stillroom.teachers.trained import Trained

if TYPE_CHECKING:
    from stillroom.transfer_set.store import Kept

HELD_OUT = 2
"""Rows of each other split that the teacher is asked about."""
VALIDATION_ROWS = 256
"""Rows that a training looks at together (training/fit.py)."""


@dataclass
class Practised:
    """One training: what its process held at most, the seconds of a step, its network's weights, its folder's bytes."""

    most_bytes: int
    before_bytes: int
    """Held before it began."""
    step_s: float
    parameters: int
    folder_bytes: list[int]
    """Of each file."""


@dataclass
class Rehearsed:
    """What a rehearsal found."""

    lessons: dict[str, Practised] = field(default_factory=dict)
    """Of each training, by the folder it has in a run; one seed stands for all."""
    most_bytes: dict[str, int] = field(default_factory=dict)
    """What was held at most in each other stage: open, ask, exam."""
    answer_s: float = 0.0
    """In which all teachers answer a row."""
    student_row_s: float = 0.0
    hidden_width: int = 0
    """Of the teacher's answers, summed over its members."""
    write_s: float = 0.0
    """In which a student writes a token, in rounds on policy."""
    look_bytes: int = 0
    """What a student holds, beside itself, while it answers a batch of validation rows."""


def rehearsed(run: Run, alone: bool = False) -> Rehearsed:
    """What a rehearsal of this run finds; in this very process where the teacher is an object in it.

    `alone`: this process has done nothing but open the run, and will end; so it is as good as one of the rehearsal's own.
    Raises ModelError where memory does not last, and whatever a stage raises.
    """
    recipes = [run.recipe, *(arm.recipe for arm in run.arms.values())]
    if alone or any(isinstance(member, Python) for recipe in recipes for member in recipe.teacher.each()):
        return rehearse(run, alone)
    ended = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps({"recipe": run.recipe.to_tree(), "folders": [str(folder) for folder in run.folders]}),
        env={**os.environ, "PYTHONPATH": package_path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if ended.returncode == -signal.SIGKILL:
        raise ModelError(
            "a rehearsal of this run was ended for want of memory",
            where="memory",
            cure="Choose a smaller model or a smaller training.batch_size, or end other programs",
        )
    if ended.returncode:
        return rehearse(run)  # whatever went wrong there is told properly here
    found = json.loads(ended.stdout.splitlines()[-1])
    found["lessons"] = {name: Practised(**one) for name, one in found["lessons"].items()}
    return Rehearsed(**found)


def rehearse(run: Run, alone: bool = False) -> Rehearsed:
    """Go through all stages in small, in this process. `alone`: what it held so far is of the run, too."""
    from stillroom.models.device import threads

    opened_bytes = most_held_bytes() if alone else 0
    with tempfile.TemporaryDirectory() as place, threads(run.device.threads):
        found = Rehearsal(run, Path(place)).through()
    found.most_bytes["open"] = max(found.most_bytes["open"], opened_bytes)
    return found


class Rehearsal:
    """One run in small at work in a folder."""

    def __init__(self, run: Run, place: Path) -> None:
        self.run, self.place, self.found = run, place, Rehearsed()
        self._like: dict[str, str] = {}
        """likeness -> the lesson that was practised for all that are alike."""
        self._rows: dict[str, Questions] = {}
        """The rows that were asked about: of the run under "", and of each arm that has its own teacher or questions."""

    def through(self) -> Rehearsed:
        """All stages, in the order of a run."""
        with self._stage("open"):
            for part in (self.run, *self.run.arms.values()):
                part.splits  # noqa: B018 - a run holds them all
        recipe = self.run.recipe
        asked = self._taught(self.run, recipe.teacher, "teacher")
        self._timed(asked)
        self.found.hidden_width += further_width(self.run)
        kept = self._asked(self.run, asked)
        held: list[Any] = [self._practised(role, asked, kept) for role in roles(self.run)]
        if recipe.evaluation.independent_teacher is not None:
            held.append(self._taught(self.run, recipe.evaluation.independent_teacher, "independent"))
        folders = {role.name: self.place / role.folder(0) for role in roles(self.run)}
        policy = policy_of(self.run)
        if policy is not None:
            held_in_writing, self.found.write_s = practised(self.run, policy.knobs, folders["student"])
            self._most("write", held_in_writing)
        held_in_exam, line, self.found.student_row_s = sit(self.run, asked, folders, self.place)
        self._most("exam", held_in_exam)
        self.found.look_bytes = (
            0 if recipe.is_language else line.at(min(VALIDATION_ROWS, len(self.run.splits.validation)))
        )
        del held
        return self.found

    def _most(self, stage: str, held: int) -> None:
        self.found.most_bytes[stage] = max(self.found.most_bytes.get(stage, 0), held)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        give_back()
        forget_most()
        yield
        self._most(name, most_held_bytes())

    def _taught(self, run: Run, teacher: Teacher, home: str) -> AskedTeacher:
        """The teacher, its members trained for a few steps where they are trained; one stands for all that are alike."""
        members = teacher.each()
        for place, member in enumerate(members):
            if isinstance(member, Trained):
                self._teach(run, member, f"{home}/{place}" if len(members) > 1 else home)
        with self._stage("ask"):
            if not any(member.costs or isinstance(member, Python) for member in members):
                return built(small_run(run, self.place, Silent(), few(run.splits.train, 1)), teacher, home)
            stand_in: AskedTeacher = StandIn(list(run.splits.classes))
            return teacher.over([stand_in] * len(members)) if isinstance(teacher, Ensemble) else stand_in

    def _teach(self, run: Run, member: Trained, name: str) -> None:
        if self._copied(likeness(member), name):
            return
        known, knobs = joined(run.splits.train, run.splits.omitted), member.training()
        if not run.recipe.is_language:
            known = known.take(np.flatnonzero(known.labelled_N))
        with self._whole_rows(run, member.model, knobs, known) as sizes:

            def lesson(batch: int, folder: str, watch: Watch) -> None:
                rows = few(known, sizes.steps * batch, batch, lengths(known))
                train_teacher(small_run(run, self.place, watch, rows), small_training(member, batch), folder, "")

            self._practise(sizes, name, min(knobs.batch_size, len(known)), lesson)

    def _practised(self, role: Role, asked: AskedTeacher, kept: Kept) -> AskedTeacher | None:
        """Train a role's model for a few steps. Returns the teacher of an arm that has its own, which a run goes on to hold."""
        run, recipe, other = role.run, role.run.recipe, None
        live = recipe.transfer_set.live and not role.labels_alone
        if run.has_own_teacher:
            other = asked = self._taught(run, recipe.teacher, run.teacher_home)
            kept = self._asked(run, asked)
        elif run.arm and recipe.transfer_set.live != self.run.recipe.transfer_set.live:
            kept = self._asked(run, asked)
        like = likeness(recipe.student, recipe.training) + repr((live, run.arm if run.has_own_teacher else ""))
        if self._copied(like, role.folder(0)):
            return other
        train, knobs, objectives = run.splits.train, recipe.training, settled_at(role.objectives, 2.0)
        rows = self._rows[run.arm if run.has_own_teacher else ""]
        with self._whole_rows(run, recipe.student, knobs, train) as sizes:

            def lesson(batch: int, folder: str, watch: Watch) -> None:
                small = small_run(run, self.place, watch, repeated(rows, sizes.steps * batch), batch=batch)
                small_role = Role(role.name, small, objectives, role.labels_alone)
                train_one(small_role, objectives, asked, kept, 0, folder, "")

            self._practise(sizes, role.folder(0), min(knobs.batch_size, len(train)), lesson)
        return other

    def _practise(self, sizes: Sizes, name: str, whole: int, lesson: Callable[[int, str, Watch], None]) -> None:
        """Do a lesson in batches of each size; what it holds and takes in whole batches follows from the last two."""
        from stillroom.models.classifier import description

        give_back()
        held, took, before = [], [], held_bytes()
        for batch in sizes.batches:
            folder, watch = name if batch == sizes.batches[-1] else f"{name}-{batch}", Watch()
            held.append((batch, most_bytes(partial(lesson, batch, folder, watch))))
            took.append((batch, round(watch.typical_s() * 1e9)))
        files = [path.stat().st_size for path in (self.place / name).rglob("*") if path.is_file()]
        weights = int(description(self.place / name)["parameters"])
        step_s = Line.through(took).at(whole) / 1e9
        self.found.lessons[name] = Practised(Line.through(held).at(whole), before, step_s, weights, files)

    def _copied(self, like: str, name: str) -> bool:
        """Where one that is like it was practised before, its folder stands for this one's."""
        if like not in self._like:
            self._like[like] = name
            return False
        (self.place / name).parent.mkdir(parents=True, exist_ok=True)
        (self.place / name).symlink_to(self.place / self._like[like])
        self.found.lessons[name] = self.found.lessons[self._like[like]]
        return True

    @contextmanager
    def _whole_rows(self, run: Run, part: Student | Model, knobs: Training, rows: Questions) -> Iterator[Sizes]:
        """Hold all rows as the network takes them, as a training does that shows them unchanged. Yields what to practise."""
        import torch

        ground = run.ground(untaught=True)
        learned, whole, width = run.inputs(part, rows.raw, ground), None, 0
        if run.recipe.is_language:
            assert isinstance(rows.raw, dict), "windows are named arrays"
            width = rows.raw["ids"].shape[1]
        elif isinstance(learned, Texts) or not run.recipe.questions.augment:
            whole = learned.encode(rows.raw)
            width = whole.shape[1] if isinstance(learned, Texts) else 0
        weights = 0
        if width:
            with torch.device("meta"):
                network = part.network(learned, len(run.splits.classes), ground)
            weights = sum(tensor.numel() for tensor in network.parameters())
        yield Sizes.of(knobs, len(rows), weights, width)
        del whole

    def _asked(self, run: Run, asked: AskedTeacher) -> Kept:
        """Ask about a few rows, as many as are quickly answered; a student's lessons are made of these."""
        train = run.splits.train
        batch = max(role.run.recipe.training.batch_size for role in roles(self.run))
        quick = int(QUICK_S / self.found.answer_s) if self.found.answer_s else len(train)
        rows = few(train, max(1, min(STEPS * batch, quick)), batch, lengths(train))
        self._rows[run.arm if run.has_own_teacher else ""] = rows
        with self._stage("ask"):
            return ask_answers(small_run(run, self.place, Silent(), rows, HELD_OUT), asked)

    def _timed(self, asked: AskedTeacher) -> None:
        """How long the teacher's members take for a row, and what a batch of rows holds while they answer it."""
        known: dict[str, float] = {}
        give_back()
        standing = held_bytes()
        for knobs, member in zip(self.run.recipe.teacher.each(), members_of(asked), strict=True):
            self.found.hidden_width += member.hidden_width or 0
            if isinstance(knobs, Python) and knobs.given is not None:
                given = knobs.build(self.place, self.run.folders, self.run.splits.classes)
                self.found.answer_s += timed(given, self.run.splits.train)
            if member.by_key or isinstance(member, StandIn):
                continue
            like = likeness(knobs)
            if like not in known:
                grown, known[like] = answering(self.run, member)
                self._most("ask", standing + grown)
            self.found.answer_s += known[like]


def main() -> None:
    """The child: rehearses what it is told on stdin."""
    end_first()
    collect_seldom()
    told = json.load(sys.stdin)
    recipe, folders = Recipe.from_tree(told["recipe"]), [Path(folder) for folder in told["folders"]]
    run = Run(recipe, RunDir(Path("runs") / recipe.name), folders, Silent(), clock_of(recipe, Path()))
    sys.stdout.write(f"\n{json.dumps(asdict(rehearse(run)))}\n")  # a line of its own, whatever a library printed


if __name__ == "__main__":
    main()
    end_at_once()
