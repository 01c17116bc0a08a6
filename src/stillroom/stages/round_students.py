"""The students of a round: trained from scratch on what was asked so far, and what they say of other questions.

Each is trained as the recipe says, but for the epochs: a round on few rows takes as many steps as the last one will, or
its students would be judged, and choose, half trained. What they are made of names their folder, so strategies that
asked the same questions share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.kinds import AskedTeacher
from stillroom.recipe import Training
from stillroom.rows import Array, Pool, Questions, Splits
from stillroom.rundir import fingerprint
from stillroom.stages.opening import Run
from stillroom.stages.train import Role, train_one
from stillroom.training.steps import steps_in

if TYPE_CHECKING:
    from stillroom.models.classifier import Classifier
    from stillroom.transfer_set.store import Kept

FOLDER = ".work/rounds"


def as_long(knobs: Training, rows: int, most: int) -> Training:
    """The same training for so many steps on these rows as it takes on `most` of them."""
    wanted = steps_in(knobs, most) * knobs.accumulate
    epochs = max(knobs.epochs, -(-wanted // -(-rows // min(knobs.batch_size, rows))))
    patience = knobs.patience and max(1, knobs.patience * epochs // knobs.epochs)
    return knobs.model_copy(update={"epochs": epochs, "patience": patience})


def narrowed(run: Run, learned: Questions, most: int | None = None) -> Run:
    """The run as if these were its training rows; trained as long as on `most` of them, where that is given."""
    splits, recipe = run.splits, run.recipe
    if most is not None:
        training = as_long(recipe.training, max(1, len(learned)), max(len(learned), most))
        recipe = recipe.model_copy(update={"training": training})
    found = replace(run, recipe=recipe)
    found.__dict__["splits"] = replace(splits, train=learned)
    found.__dict__["device"] = run.device
    return found


def asking_only(run: Run, questions: Questions) -> Run:
    """The run as if these questions were all it has."""
    nothing = questions.take(np.arange(0))
    found = narrowed(run, questions)
    found.__dict__["splits"] = Splits(questions, nothing, nothing, nothing, run.splits.classes)
    return found


@dataclass
class Students:
    """One student or a committee of them, trained on the same rows from different seeds."""

    folders: list[Path]
    run: Run

    @classmethod
    def trained(
        cls, run: Run, asked: AskedTeacher, kept: Kept, learned: Questions, most: int, count: int, words: str
    ) -> Students:
        """Train what is not trained yet. Raises BudgetReached and whatever a training raises."""
        part = narrowed(run, learned, most)
        role = Role("student", part, part.recipe.objectives)
        name = f"{FOLDER}/{fingerprint(learned.fingerprint())[:16]}"
        for seed in range(count):
            told = f"{words}, member {seed + 1} of {count}" if count > 1 else words
            train_one(role, role.objectives, asked, kept, seed, f"{name}/{seed}", told)
        return cls([run.dir.path / name / str(seed) for seed in range(count)], run)

    @cached_property
    def models(self) -> list[Classifier]:
        """At work."""
        from stillroom.models.classifier import Classifier

        return [Classifier.load(folder, self.run.device) for folder in self.folders]

    def said(self, questions: Questions) -> Array:
        """The class [N] that each question most likely has, as a place among the classes."""
        if not len(questions):
            return np.empty(0, np.int64)
        found: Array = np.mean([np.exp(one.log_probabilities(questions.raw)) for one in self.models], axis=0).argmax(1)
        return found

    def look(self, pool: Questions, asked_before: Questions, wants: frozenset[str]) -> Pool:
        """The pool as a strategy sees it; nobody looks where it wants nothing."""
        if not wants or not len(pool):
            return Pool(len(pool))
        outputs = [one.forward(pool.raw) for one in self.models]
        logits = [output.logits_BC for output in outputs if output.logits_BC is not None]
        said_SNC = np.stack([part.softmax(1).cpu().numpy() for part in logits])
        first = outputs[0].hidden_BH
        if "features" not in wants or first is None:
            return Pool(len(pool), said_SNC)
        before = self.models[0].forward(asked_before.raw).hidden_BH
        assert before is not None, "it has a hidden layer for the pool"
        return Pool(len(pool), said_SNC, first.cpu().numpy(), before.cpu().numpy())

    def accuracy(self, questions: Questions) -> float | None:
        """The share of the labelled ones whose label they name; None where none has a label."""
        known = questions.take(np.flatnonzero(questions.labelled_N))
        return float((self.said(known) == known.label_N).mean()) if len(known) else None


def taken(questions: Questions, ids: Sequence[int]) -> Questions:
    """The questions with these places."""
    return questions.take(np.array(ids, np.int64))
