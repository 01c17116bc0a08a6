"""When a student should leave a question to its teacher: a threshold on how sure it is, set for a risk on held-out answers.

A student is as sure as its likeliest class is likelier than the second, in nats: log p1 - log p2. A temperature would
divide all of them by the same number, and change neither order nor choice, so none is fitted and no row is spent on it.

The threshold is the smallest at which conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2022,
arXiv:2208.02814) allows the risk: of n held-out rows, k on which the student is sure and says other than the teacher,
(k + 1) / (n + 1) <= risk. The share of all answers that differ from the teacher's is then at most the risk, in
expectation over held-out and coming rows, whatever student and teacher are, as long as they come from one distribution.

Plain arithmetic on log-probabilities; knows no model and no teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.evaluation.intervals import interval, row_means
from stillroom.evaluation.proportions import clopper_pearson
from stillroom.rows import Array


def sureness(log_probabilities_NC: Array) -> Array:
    """How many nats the likeliest class is ahead of the second [N]; infinite where there is one class alone."""
    if log_probabilities_NC.shape[1] < 2:
        return np.full(len(log_probabilities_NC), np.inf)
    top_N2 = np.partition(log_probabilities_NC.astype(np.float64), -2, axis=1)[:, -2:]
    found: Array = top_N2[:, 1] - top_N2[:, 0]
    return found


@dataclass(frozen=True)
class Deferral:
    """A threshold and what it was set on."""

    threshold_nats: float | None
    """The student answers where it is surer than this; None: too few held-out rows for the risk, so it never does."""
    risk: float
    """What it was set for."""
    rows: int
    """Held-out rows it was set on."""
    coverage: float
    """The share of them that the student answers."""
    differs: float
    """The share of them that the student answers, and otherwise than the teacher."""
    below: float
    """What that share is below in 95 of 100 cases (Clopper and Pearson), were the threshold not chosen on these rows."""

    @staticmethod
    def allowed(rows: int, risk: float) -> int:
        """On how many of so many held-out rows the student may be sure and differ; below 0: too few for any threshold."""
        return int(np.floor(risk * (rows + 1) - 1 + 1e-9))

    @classmethod
    def settle(cls, log_probabilities_NC: Array, teacher_N: Array, risk: float) -> Deferral:
        """The smallest threshold for a risk, from what the student says of held-out rows and what the teacher chose."""
        rows, sure_N = len(teacher_N), sureness(log_probabilities_NC)
        differs_N = log_probabilities_NC.argmax(1) != teacher_N
        allowed = cls.allowed(rows, risk)
        if allowed < 0:
            return cls(None, risk, rows, 0.0, 0.0, clopper_pearson(0, rows) if rows else 1.0)
        wrong = np.sort(sure_N[differs_N])[::-1]
        # Sure means above the threshold, so at the next wrong row's own sureness that row is left to the teacher.
        threshold = float(wrong[allowed]) if len(wrong) > allowed else 0.0
        answered_N = sure_N > threshold
        count = int((answered_N & differs_N).sum())
        return cls(threshold, risk, rows, float(answered_N.mean()), count / rows, clopper_pearson(count, rows))

    @classmethod
    def of(cls, tree: dict[str, Any]) -> Deferral:
        """From what `to_json` gave."""
        return cls(**{name: tree[name] for name in cls.__dataclass_fields__})

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(self.__dict__)

    def sure(self, log_probabilities_NC: Array) -> Array:
        """True for each row [N] that the student should answer by itself."""
        if self.threshold_nats is None:
            return np.zeros(len(log_probabilities_NC), bool)
        found: Array = sureness(log_probabilities_NC) > self.threshold_nats
        return found


def figures(sure_SN: Array, student_SN: Array, teacher_N: Array, label_N: Array) -> dict[str, Any]:
    """What cascades of S students do on N test rows: {"mean", "ci95" (several seeds), "per_seed"} of each figure.

    coverage     the share that the student answers
    risk         the share of all answers that differ from the teacher's
    accuracy     of the answers; and, less the teacher's, what it costs: accuracy_lost. Of labelled rows alone
    """
    differs_SN = sure_SN & (student_SN != teacher_N)
    said_SN = np.where(sure_SN, student_SN, teacher_N)
    values = {"coverage": sure_SN.astype(float), "risk": differs_SN.astype(float)}
    known_N = label_N >= 0
    if known_N.any():
        right_SN = (said_SN == label_N)[:, known_N]
        values["accuracy"] = right_SN.astype(float)
        values["accuracy_lost"] = (teacher_N == label_N)[known_N].astype(float) - right_SN
    drawn = row_means(values) if len(sure_SN) > 1 else {}
    found: dict[str, Any] = {}
    for name, value_SN in values.items():
        found[name] = {"mean": float(value_SN.mean())}
        if name in drawn:
            found[name]["ci95"] = interval(drawn[name])
        found[name]["per_seed"] = value_SN.mean(1).tolist()
    return found
