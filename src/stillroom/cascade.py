"""The student where it is sure, else the teacher, and what the teacher says is kept and learned.

    cascade = Cascade(student, deferral, ask)          # ask(questions) -> Answers: any teacher at work
    cascade = Cascade.load("runs/NAME", ask)           # as a run with `cascade: {risk: ..}` left it
    said = cascade.answer(rows)                        # a Prediction, and said.asked_N: which rows the teacher answered
    cascade.save("mail")                               # the student, the threshold, and all that the teacher said
    cascade = Cascade.load("mail", ask, learn=True)    # goes on from there

With `learn` it goes on learning: after every so many answers a student is trained anew on all that was said. A threshold
is worth what its held-out rows are worth, and those that the student left to the teacher are no sample of what comes. So
a part of what is asked is spent, as in rounds, on an audit: rows drawn at random, sure or not, that nobody learns from.
The threshold is set anew on the last of these, and follows when what is asked changes. One that a run left stands, with
its student, until there are enough of them to set another. Knows no recipe and no stage.

A saved cascade is a folder: cascade.json, written last, names the folder beside it that holds all else: student/ (where
there is one), told.npz and held_out.npz (questions, and the teacher's log-probabilities), and a manifest.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom import inputs as inputs_
from stillroom.columns import objects
from stillroom.errors import CorruptFile, InputError
from stillroom.evaluation.deferral import Deferral
from stillroom.inputs import Inputs
from stillroom.kinds import Model, Objective, parse
from stillroom.recipe import Training
from stillroom.rows import Answers, Array, Prediction, Questions, Raw, joined
from stillroom.rundir import disk_errors, make_folder, path_errors, read_json, seal, verify, write_file, write_json

if TYPE_CHECKING:
    from stillroom.models.classifier import Classifier
    from stillroom.models.device import Device

FILE = "cascade.json"
LEARN = "learn.json"
AT = "saved_at"
"""In cascade.json of a saved cascade: the folder beside it, numbered, that holds the rest."""
LEAST_AUDIT = 0.005
"""Share of rows that is audited however few are asked, so that a change is noticed."""
MEMORY_ROWS = 500
"""Over about so many rows the share that is left to the teacher is averaged."""
Ask = Callable[[Questions], Answers]
Learn = Callable[[Questions, Array], "Classifier"]
"""A student from questions and the teacher's log-probabilities [N, C]."""


def is_sure(kept: Mapping[str, Any], log_probabilities_NC: Array) -> Array:
    """Of which rows [N] a student answers by itself, by what its run left in cascade.json."""
    return Deferral.of(dict(kept)).sure(log_probabilities_NC)


@dataclass(frozen=True)
class Deferred(Prediction):
    """What a cascade says of N rows, and for which of them the teacher was asked."""

    asked_N: Array = field(default_factory=lambda: np.empty(0, bool))


@dataclass
class Told:
    """Questions, and what the teacher said of them."""

    questions: Questions | None = None
    logs_NC: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.logs_NC)

    def add(self, questions: Questions, logs_NC: Array, last: int | None = None) -> None:
        """More of them; only the `last` are kept, where that is said."""
        if not len(questions):
            return
        self.questions = questions if self.questions is None else joined(self.questions, questions)
        self.logs_NC = np.concatenate([self.logs_NC, logs_NC]) if len(self) else logs_NC
        if last is not None and len(self) > last:
            self.questions = self.questions.take(np.arange(len(self) - last, len(self)))
            self.logs_NC = self.logs_NC[-last:]

    def write(self, path: Path) -> None:
        """As one .npz without pickles; texts stand in it as JSON."""
        if self.questions is None:
            return
        raw = self.questions.raw
        named = raw if isinstance(raw, dict) else {"": raw}
        texts = [name for name, column in named.items() if column.dtype.kind == "O"]
        arrays: dict[str, Any] = {f"column_{place}": _plain(column) for place, column in enumerate(named.values())}
        about = {"columns": list(named) if isinstance(raw, dict) else None, "texts": texts}
        file = io.BytesIO()
        np.savez(file, logs=self.logs_NC, about=np.array(json.dumps(about)), **arrays)
        write_file(path, file.getvalue())

    @classmethod
    def read(cls, path: Path) -> Told:
        """What `write` wrote; nothing where there was nothing."""
        if not path.is_file():
            return cls()
        with np.load(path, allow_pickle=False) as kept:
            about = json.loads(str(kept["about"]))
            names = about["columns"] or [""]
            named = {name: kept[f"column_{place}"] for place, name in enumerate(names)}
            logs_NC = kept["logs"]
        for name in about["texts"]:
            named[name] = objects(json.loads(str(named[name])))
        return cls(Questions.of(named[""] if about["columns"] is None else named), logs_NC)


def _plain(column: Array) -> Array:
    return np.array(json.dumps(column.tolist())) if column.dtype.kind == "O" else column


class Cascade:
    """A student and a threshold before a teacher.

    `student`: None where the first has yet to be learned from `classes`; everything is asked until then. `learn`: trains
    the next student, `every` so many new answers; `told`: what was said before this cascade began. `audit`: share of what
    is asked that is spent on rows drawn at random, while it learns; `held_out`: those from before; `last`: how many of them
    a threshold is set on at most.
    """

    def __init__(
        self, student: Classifier | None, deferral: Deferral, ask: Ask, *, classes: Sequence[Any] = (),
        learn: Learn | None = None, every: int = 100, audit: float = 0.25, last: int = 500, held_out: Told | None = None,
        told: Told | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.student, self.deferral, self._ask = student, deferral, ask
        self.classes = list(classes) if student is None else student.classes
        self.learn, self.every, self.audit, self.last = learn, every, audit, last
        self.told, self.held_out = told or Told(), held_out or Told()
        self.calls = self.rows = self.trained = 0
        self._new, self._deferred = 0, 1.0
        self._chance = np.random.default_rng(seed)

    @classmethod
    def load(cls, path: str | Path, ask: Ask, *, learn: Learn | bool | None = None, **options: Any) -> Cascade:
        """What `save` wrote, to go on from there, or what a run left in its student's folder.

        `learn`: a function, or True for the FromScratch that it was saved with; without it nothing is learned. `options`
        (`every`, `audit`, ..) stand over those it was saved with. Raises InputError for a folder without a cascade.
        """
        from stillroom.models.classifier import Classifier

        folder = Path(path) / "student" if (Path(path) / "student").is_dir() else Path(path)
        if not (folder / FILE).is_file():
            raise InputError(
                "this student has no threshold below which it leaves a question to its teacher", where=str(folder / FILE),
                cure="Add cascade: {risk: 0.01} to the recipe and run it again",
            )  # fmt: skip
        kept = read_json(folder / FILE)
        saved = folder / str(kept[AT]) if AT in kept else None
        if saved is not None:
            _verify(saved)
        learn = _learner(kept, saved, learn, folder)
        deferral = Deferral.of(kept)
        if saved is None:
            return cls(Classifier.load(folder), deferral, ask, learn=learn, **options)
        there = (saved / "student").is_dir()
        told = {name: Told.read(saved / f"{name}.npz") for name in ("told", "held_out")}
        whole = {**kept["options"], **told, **options}
        found = cls(Classifier.load(saved / "student") if there else None, deferral, ask, learn=learn, **whole)
        found.calls, found.rows, found.trained, found._new = (
            kept[name] for name in ("calls", "rows", "trained", "new")
        )
        found._deferred = kept["deferred"]
        if "seed" not in options:
            found._chance.bit_generator.state = kept["chance"]
        return found

    def save(self, path: str | Path) -> None:
        """Write all that `load` needs to go on, into a new folder or one that a cascade was saved in.

        Stopped at any moment, the folder holds what was saved before or what is saved now. Raises InputError for a folder
        that holds something else.
        """
        path = Path(path)
        before = _saved_before(path)
        saved = path / str(before + 1)
        with path_errors(path), disk_errors(path):
            shutil.rmtree(saved, ignore_errors=True)  # of a save that was stopped
            make_folder(saved)
            if self.student is not None:
                make_folder(saved / "student")
                self.student.save(saved / "student")
            self.told.write(saved / "told.npz")
            self.held_out.write(saved / "held_out.npz")
            if isinstance(self.learn, FromScratch):
                write_json(saved / LEARN, self.learn.to_json())
            seal(saved, FILE)
            write_json(path / FILE, {**self.deferral.to_json(), AT: before + 1, **self._state()})
            shutil.rmtree(path / str(before), ignore_errors=True)

    def _state(self) -> dict[str, Any]:
        return {
            "options": {"classes": self.classes, "every": self.every, "audit": self.audit, "last": self.last},
            "calls": self.calls, "rows": self.rows, "trained": self.trained, "new": self._new,
            "deferred": self._deferred, "chance": self._chance.bit_generator.state,
        }  # fmt: skip

    def answer(self, rows: Any) -> Deferred:
        """Answer rows as `predict` takes them; what the teacher refuses the student answers. Raises what asking raises."""
        raw: Raw = rows if self.student is None else self.student.inputs.as_raw(rows)
        questions = Questions.of(raw)
        logs_NC, sure_N = self._look(questions)
        self._deferred += (float((~sure_N).mean()) - self._deferred) * min(1.0, len(questions) / MEMORY_ROWS)
        audited_N = self._chance.random(len(questions)) < self._audit_share()
        asked_N = ~sure_N | audited_N
        if asked_N.any():
            wanted = questions.take(np.flatnonzero(asked_N))
            said = self._ask(wanted)
            there_n = np.ones(len(wanted), bool) if said.answered_N is None else said.answered_N
            logs_NC[np.flatnonzero(asked_N)[there_n]] = said.log_probabilities_NC[there_n]
            self._keep(wanted, said.log_probabilities_NC, there_n, audited_N[asked_N])
        self.calls, self.rows = self.calls + int(asked_N.sum()), self.rows + len(questions)
        if self.learn is not None and self._new >= self.every and self._may_settle():
            self._learn(self.learn)
        names = np.empty(len(self.classes), object)
        names[:] = self.classes
        return Deferred(names[logs_NC.argmax(1)], np.exp(logs_NC).astype(np.float32), self.classes, asked_N)

    def _look(self, questions: Questions) -> tuple[Array, Array]:
        """What the student says, and of which rows it is sure."""
        if self.student is None:
            level = np.full((len(questions), len(self.classes)), -np.log(max(1, len(self.classes))), np.float32)
            return level, np.zeros(len(questions), bool)
        logs_NC = self.student.log_probabilities(questions.raw)
        return logs_NC, self.deferral.sure(logs_NC)

    def _audit_share(self) -> float:
        return 0.0 if self.learn is None else max(LEAST_AUDIT, self.audit * self._deferred)

    def _keep(self, questions: Questions, logs_NC: Array, there_N: Array, audited_N: Array) -> None:
        if self.learn is None:
            return
        for chosen_N, to, last in (
            (there_N & ~audited_N, self.told, None),
            (there_N & audited_N, self.held_out, self.last),
        ):
            to.add(questions.take(np.flatnonzero(chosen_N)), logs_NC[chosen_N], last)
        self._new += int((there_N & ~audited_N).sum())
        if (there_N & audited_N).any() and self._may_settle():
            self.settle()

    def _may_settle(self) -> bool:
        """No threshold stands, or there are held-out rows enough to set another."""
        return self.deferral.threshold_nats is None or Deferral.allowed(len(self.held_out), self.deferral.risk) >= 0

    def _learn(self, learn: Learn) -> None:
        """A new student from all that was said, and its threshold from what was held out."""
        assert self.told.questions is not None, "there are new answers"
        self.student = learn(self.told.questions, self.told.logs_NC)
        self._new, self.trained = 0, self.trained + 1
        self.settle()

    def settle(self) -> None:
        """Set the threshold anew on what was held out."""
        if self.student is None or self.held_out.questions is None:
            return
        logs_NC = self.student.log_probabilities(self.held_out.questions.raw)
        self.deferral = Deferral.settle(logs_NC, self.held_out.logs_NC.argmax(1), self.deferral.risk)


def _saved_before(path: Path) -> int:
    """The number of what was saved in a folder last; 0 in a new one. Raises InputError where it holds something else."""
    kept = read_json(path / FILE) if (path / FILE).is_file() else {}
    if (
        AT not in kept
        and path.exists()
        and (not path.is_dir() or any(not one.name.isdigit() for one in path.iterdir()))
    ):
        raise InputError(
            "a cascade was not saved here, and there is something else",
            where=str(path),
            cure="Name a folder that is new",
        )
    return int(kept.get(AT, 0))


def _verify(saved: Path) -> None:
    try:
        verify(saved)
    except (CorruptFile, FileNotFoundError) as error:
        where = getattr(error, "where", "") or str(saved)
        raise CorruptFile(
            "this saved cascade is not whole", where=where, cure="Copy the whole folder again, or save it anew"
        ) from error


def _learner(kept: Mapping[str, Any], saved: Path | None, learn: Learn | bool | None, folder: Path) -> Learn | None:
    """How to learn, handed over or as it was saved. Raises InputError where True is said and nothing was saved."""
    if not isinstance(learn, bool):
        return learn
    if not learn:
        return None
    if saved is None or not (saved / LEARN).is_file():
        raise InputError(
            "how this cascade learns is not kept with it", where=str(folder),
            cure="Pass learn=FromScratch(..), or the function that it learned by",
        )  # fmt: skip
    return FromScratch.of(read_json(saved / LEARN), kept["options"]["classes"])


@dataclass
class FromScratch:
    """Learns by training a network from its first weights, for so many steps, on all that was said."""

    model: Model
    inputs: Inputs
    classes: list[Any]
    objectives: Sequence[Objective]
    knobs: Training
    steps: int
    device: Device
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the classes and the device."""
        return {
            "model": self.model.model_dump(mode="json", by_alias=True),
            "inputs": self.inputs.model_dump(mode="json"),
            "objectives": [one.model_dump(mode="json", by_alias=True) for one in self.objectives],
            "training": self.knobs.model_dump(mode="json"),
            "steps": self.steps,
            "seed": self.seed,
        }

    @classmethod
    def of(cls, tree: dict[str, Any], classes: list[Any]) -> FromScratch:
        """From what `to_json` gave; it trains on the processor, wherever it did before."""
        from stillroom.models.device import Device

        model, objectives = parse("model", tree["model"]), [parse("objective", one) for one in tree["objectives"]]
        knobs, inputs = Training.model_validate(tree["training"]), inputs_.from_json(tree["inputs"])
        return cls(model, inputs, classes, objectives, knobs, tree["steps"], Device(), tree["seed"])

    def __call__(self, questions: Questions, logs_NC: Array) -> Classifier:
        from stillroom.models.classifier import Classifier
        from stillroom.training.batches import Source
        from stillroom.training.fit import Lesson, fit
        from stillroom.training.loop import Hooks
        from stillroom.transfer_set.store import Reader

        rows = np.arange(len(questions))
        reader = Reader([{"log_probabilities": logs_NC.astype(np.float16)}], np.zeros(len(rows), np.int32), rows)
        shape, classes = tuple(self.inputs.shape), len(self.classes)
        lesson = Lesson(
            self.model, lambda: self.model.build(shape, classes), self.objectives, self.knobs,
            Source(questions, self.inputs, [reader]), self.classes, questions.take(rows[:0]), self.seed, self.steps, self.device,
        )  # fmt: skip
        with TemporaryDirectory() as folder:
            fit(lesson, Path(folder) / "student", Path(folder) / "work", Hooks())
            return Classifier.load(Path(folder) / "student", self.device)
