"""The definition of each figure of quality, fidelity and calibration, written once for a test set and its resamples.

A figure is a function of sums over rows. So the test set itself is the sum with every row once, and a bootstrap draw is
the same sum with each row as often as it was drawn: `Tally.figures` serves both. This file knows no seeds, no intervals
and no model; a figure that is undefined is NaN inside `figures`, and absent from `measure`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.errors import NotFinite, RunError, WrongAnswer
from stillroom.rows import UNLABELLED, Array

BINS = 15
"""Equal-width bins of confidence: bin i holds i/15 < confidence <= (i+1)/15."""
SINGLE = ("nll", "severity", "agree", "kl", "teacher_wrong", "copied")
COLUMNS = len(SINGLE) + 2 * BINS
"""Columns of `Tally.columns`: the single ones, then the bins before and after temperature scaling."""
TEMPERATURES = (0.05, 20.0)
SLACK = 0.05
"""How far the log of a row's total probability may be from 0: bfloat16 answers need some room, logits lie outside."""


def checked(log_probabilities_NC: Array, rows: int, classes: int, whose: str) -> Array:
    """Log-probabilities [N, C] as float64, each row normalised exactly, so that a KL cannot come out below 0.

    Raises WrongAnswer for another shape than [rows, classes], NotFinite for NaN or +inf, RunError for what are no
    log-probabilities. A probability of 0 (-inf) is allowed.
    """
    if log_probabilities_NC.shape != (rows, classes):
        raise WrongAnswer(
            f"predictions of shape {list(log_probabilities_NC.shape)} for {rows} rows and {classes} classes",
            where=whose,
            cure="Predict again on these rows",
        )
    log_p_NC = log_probabilities_NC.astype(np.float64)
    if not np.all(log_p_NC < np.inf):
        raise NotFinite("a prediction is NaN or infinite", where=whose, cure="Train with a smaller learning rate")
    off_N = _log_total(log_p_NC)
    if rows and not np.max(np.abs(off_N)) <= SLACK:
        worst = int(np.argmax(np.abs(off_N)))
        raise RunError(
            f"these are not log-probabilities: row {worst} adds up to {np.exp(min(off_N[worst], 700.0)):.3g}",
            where=whose,
            cure="Apply log_softmax to logits, or log to probabilities",
        )
    return log_p_NC - off_N[:, None]


def _log_total(logits_NC: Array) -> Array:
    """log sum exp over classes [N]; a row of -inf gives -inf."""
    if not logits_NC.size:
        return np.zeros(len(logits_NC))
    top_N = logits_NC.max(axis=1)
    shift_N = np.where(np.isfinite(top_N), top_N, 0.0)
    total_N = np.exp(logits_NC - shift_N[:, None]).sum(axis=1)
    log_N: Array = np.full(len(total_N), -np.inf)
    np.log(total_N, out=log_N, where=total_N > 0)
    return shift_N + log_N


def at_temperature(log_probabilities_NC: Array, temperature: float) -> Array:
    """Log-probabilities [N, C] softened by T: log softmax(z / T) (Hinton and others 2015, arXiv:1503.02531).

    log p serves as the logits z, for a shift of a row cancels.
    """
    scaled_NC = log_probabilities_NC.astype(np.float64) / temperature
    softened_NC: Array = scaled_NC - _log_total(scaled_NC)[:, None]
    return softened_NC


def fit_temperature(log_probabilities_NC: Array, label_N: Array) -> float | None:
    """The temperature in [0.05, 20] that minimises the NLL of labelled rows (Guo and others 2017, arXiv:1706.04599).

    [N, C] log-probabilities, [N] labels, -1 for none. None without a labelled row, or where a label has probability 0,
    for then every temperature is infinitely bad. Where no row is answered wrongly the NLL falls for ever as T goes to
    0, and the lower end of the range is given.
    """
    known_N = label_N != UNLABELLED
    z_NC, label_N = log_probabilities_NC[known_N].astype(np.float64), label_N[known_N]
    if not len(label_N) or not np.all(np.isfinite(z_NC[np.arange(len(label_N)), label_N])):
        return None
    below_NC = z_NC - z_NC.max(axis=1)[:, None]
    finite_NC = np.where(np.isfinite(below_NC), below_NC, 0.0)
    wanted = float(below_NC[np.arange(len(label_N)), label_N].mean())

    def slope(sharpness: float) -> tuple[float, float]:
        """d NLL / d(1/T) = E_p[z] - z_label and its derivative, the variance of z under p; both means over rows."""
        p_NC = np.exp(below_NC * sharpness)
        p_NC /= p_NC.sum(axis=1)[:, None]
        mean_N, square_N = (p_NC * finite_NC).sum(axis=1), (p_NC * finite_NC**2).sum(axis=1)
        return float(mean_N.mean()) - wanted, float((square_N - mean_N**2).mean())

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(high)[0] <= 0:
        return TEMPERATURES[0]
    if slope(low)[0] >= 0:
        return TEMPERATURES[1]
    # The NLL is convex in 1/T, so its slope changes sign once. Newton's step where it stays between the ends known so
    # far, else halve their distance in log T: that cannot miss it, however flat the NLL is elsewhere.
    sharpness = 1.0
    for _ in range(100):
        value, change = slope(sharpness)
        low, high = (sharpness, high) if value < 0 else (low, sharpness)
        step = sharpness - value / change if change > 0 else np.inf
        following = step if low < step < high else float(np.sqrt(low * high))
        if abs(np.log(following / sharpness)) < 1e-10:
            break
        sharpness = following
    return 1 / sharpness


@dataclass(frozen=True)
class Groups:
    """Some rows, sorted by a group each belongs to, so that weights can be summed by group in one pass."""

    row_E: Array
    first_G: Array
    """Where each group that occurs starts in `row_E`."""
    group_G: Array
    count: int

    @classmethod
    def of(cls, row_E: Array, group_E: Array, count: int) -> Groups:
        """Rows [E] and the group of each [E], of `count` groups in all."""
        order_E = np.argsort(group_E, kind="stable")
        group_G, first_G = np.unique(group_E[order_E], return_index=True)
        return cls(row_E[order_E], first_G, group_G, count)

    def sums(self, weight_BN: Array) -> Array:
        """The weight of each group's rows [B, groups], float64."""
        sum_BG = np.zeros((len(weight_BN), self.count))
        if len(self.row_E):
            # np.take is several times faster here than weight_BN[:, rows].
            sum_BG[:, self.group_G] = np.add.reduceat(np.take(weight_BN, self.row_E, axis=1), self.first_G, axis=1)
        return sum_BG


@dataclass(frozen=True)
class Truth:
    """What is known of the test rows whoever answers: labels [N] with -1 for none, and how alike classes are [C, C]."""

    label_N: Array
    classes: int
    similarity_CC: Array | None
    by_class: Groups

    @classmethod
    def of(cls, label_N: Array, classes: int, similarity_CC: Array | None = None) -> Truth:
        """Labels [N] in 0..C-1, or -1; similarity in [0, 1] with 1 on the diagonal."""
        row_E = np.flatnonzero(label_N != UNLABELLED)
        return cls(label_N, classes, similarity_CC, Groups.of(row_E, label_N[row_E], classes))

    @property
    def labelled(self) -> int:
        """How many rows have a label."""
        return len(self.by_class.row_E)


@dataclass(frozen=True)
class Tally:
    """What one model of one seed did on each row, ready to be summed under any weights of the rows."""

    truth: Truth
    missed: Groups
    """The rows answered wrongly, by their true class."""
    mistaken: Groups
    """The same rows, by the class that was answered."""
    single: dict[str, Array]
    """What was measured of SINGLE, each [N]; those that need a label are 0 without one.

    nll: -log p(label). severity: 1 - similarity(label, answer), 0 where right. agree: same answer as the teacher.
    kl: KL(teacher || model). teacher_wrong: the teacher errs. copied: it errs, and the answer is the same.
    """
    bin_N: Array
    excess_N: Array
    """Correct (0 or 1) minus confidence; 0 where there is no label."""
    scaled_bin_N: Array | None
    scaled_excess_N: Array | None

    @classmethod
    def of(
        cls,
        log_p_NC: Array,
        truth: Truth,
        *,
        teacher_log_p_NC: Array | None = None,
        temperature: float | None = None,
    ) -> Tally:
        """From log-probabilities [N, C], those of the teacher [N, C], and the temperature fitted on validation."""
        label_N, said_N = truth.label_N, log_p_NC.argmax(axis=1)
        known_N = label_N != UNLABELLED
        rows_N, wrong_N = np.arange(len(label_N)), known_N & (said_N != label_N)
        single = {"nll": np.where(known_N, -log_p_NC[rows_N, np.where(known_N, label_N, 0)], 0.0)}
        if truth.similarity_CC is not None:
            single["severity"] = np.where(wrong_N, 1.0 - truth.similarity_CC[label_N, said_N], 0.0)
        if teacher_log_p_NC is not None:
            teacher_said_N = teacher_log_p_NC.argmax(axis=1)
            single["agree"] = teacher_said_N == said_N
            single["kl"] = kl_divergence(teacher_log_p_NC, log_p_NC)
            single["teacher_wrong"] = known_N & (teacher_said_N != label_N)
            single["copied"] = single["teacher_wrong"] & single["agree"]
        wrong_E = np.flatnonzero(wrong_N)
        bin_N, excess_N = _calibration(log_p_NC, said_N, label_N)
        scaled_bin_N = scaled_excess_N = None
        if temperature is not None:
            scaled_bin_N, scaled_excess_N = _calibration(at_temperature(log_p_NC, temperature), said_N, label_N)
        return cls(
            truth=truth,
            missed=Groups.of(wrong_E, label_N[wrong_E], truth.classes),
            mistaken=Groups.of(wrong_E, said_N[wrong_E], truth.classes),
            single={name: value_N for name, value_N in single.items() if np.all(np.isfinite(value_N))},
            bin_N=bin_N,
            excess_N=excess_N,
            scaled_bin_N=scaled_bin_N,
            scaled_excess_N=scaled_excess_N,
        )

    def columns(self) -> Array:
        """What is summed over all rows, [N, COLUMNS] float64; a column that was not measured is 0 and not looked at.

        The width is the same for every model, so that equal models go through equal arithmetic and differ by exactly 0.
        """
        rows_N = np.arange(len(self.truth.label_N))
        column_NK = np.zeros((len(rows_N), COLUMNS))
        for name, value_N in self.single.items():
            column_NK[:, SINGLE.index(name)] = value_N
        column_NK[rows_N, len(SINGLE) + self.bin_N] = self.excess_N
        if self.scaled_bin_N is not None:
            column_NK[rows_N, len(SINGLE) + BINS + self.scaled_bin_N] = self.scaled_excess_N
        return column_NK

    def figures(self, weight_BN: Array, column_BK: Array, class_BC: Array) -> dict[str, Array]:
        """Each measured figure [B] under row weights [B, N] that add up to N; NaN where a draw leaves it undefined.

        `column_BK` is `weight_BN @ columns()`, `class_BC` the weight of each class, `truth.by_class.sums(weight_BN)`.
        """
        figures: dict[str, Array] = {}
        rows, labelled_B = len(self.truth.label_N), class_BC.sum(axis=1)
        sums = {
            name: column_BK[:, place].astype(np.float64) for place, name in enumerate(SINGLE) if name in self.single
        }
        if self.truth.labelled:
            missed_BC, mistaken_BC = self.missed.sums(weight_BN), self.mistaken.sums(weight_BN)
            wrong_B, right_BC = missed_BC.sum(axis=1), class_BC - missed_BC
            figures["accuracy"] = _ratio(labelled_B - wrong_B, labelled_B)
            figures["errors"] = wrong_B * _ratio(np.full_like(labelled_B, self.truth.labelled), labelled_B)
            figures["macro_f1"] = _macro_f1(class_BC, right_BC, mistaken_BC)
            figures["worst_class_recall"] = _worst_recall(class_BC, right_BC)
            if "nll" in sums:
                figures["nll"] = _ratio(sums["nll"], labelled_B)
            apart_BG = np.abs(column_BK[:, len(SINGLE) :])
            figures["ece"] = _ratio(apart_BG[:, :BINS].sum(axis=1, dtype=np.float64), labelled_B)
            if self.scaled_bin_N is not None:
                figures["ece_scaled"] = _ratio(apart_BG[:, BINS:].sum(axis=1, dtype=np.float64), labelled_B)
            if "severity" in sums:
                figures["mistake_severity"] = _ratio(sums["severity"], wrong_B)
            if "copied" in sums:
                figures["error_agreement"] = _ratio(sums["copied"], sums["teacher_wrong"])
        if "agree" in sums:
            figures["agreement"] = sums["agree"] / rows
        if "kl" in sums:
            figures["kl_to_teacher"] = sums["kl"] / rows
        return figures

    def measure(self) -> dict[str, float]:
        """Each figure on the rows as they are; what is undefined or was not measured is absent. See `measure`."""
        once_1N = np.ones((1, len(self.truth.label_N)))
        figures = self.figures(once_1N, once_1N @ self.columns(), self.truth.by_class.sums(once_1N))
        return {name: float(value_B[0]) for name, value_B in figures.items() if np.isfinite(value_B[0])}


def measure(
    log_probabilities_NC: Array,
    label_N: Array,
    *,
    teacher_NC: Array | None = None,
    temperature: float | None = None,
    similarity_CC: Array | None = None,
) -> dict[str, float]:
    """Every figure of one model and seed on N rows, from log-probabilities [N, C] and labels [N], -1 for none.

    accuracy            share of labelled rows whose most probable class is the label
    errors              the number of the other labelled rows
    macro_f1            mean F1 over the classes that occur among the labels
    worst_class_recall  the smallest recall among those classes
    nll                 mean -log p(label), nats; absent where a label has probability 0
    ece                 over 15 bins of confidence, |sum of correct - confidence in the bin|, by all labelled rows
                        (Guo and others 2017, arXiv:1706.04599)
    ece_scaled          the same after `temperature`, which must have been fitted on other rows
    mistake_severity    mean over errors of 1 - `similarity_CC`[label, answer]; absent without an error
    agreement           share of all rows, labelled or not, with the teacher's most probable class (Stanton and others
                        2021, arXiv:2106.05945)
    kl_to_teacher       mean KL(teacher || model) over all rows, nats; absent where it is infinite
    error_agreement     of the labelled rows that the teacher gets wrong, the share where the model gives the very same
                        wrong answer; absent where the teacher makes no error

    A tie goes to the first class. Raises as `checked` does.
    """
    rows, classes = log_probabilities_NC.shape
    teacher_log_p_NC = None if teacher_NC is None else checked(teacher_NC, rows, classes, "teacher")
    tally = Tally.of(
        checked(log_probabilities_NC, rows, classes, "model"),
        Truth.of(label_N, classes, similarity_CC),
        teacher_log_p_NC=teacher_log_p_NC,
        temperature=temperature,
    )
    return tally.measure()


def kl_divergence(log_p_NC: Array, log_q_NC: Array) -> Array:
    """KL(p || q) of each row [N], nats; a class that p excludes adds 0, one that q alone excludes makes it infinite."""
    counts_NC = np.isfinite(log_p_NC)
    apart_NC = np.where(counts_NC, log_p_NC, 0.0) - np.where(counts_NC, log_q_NC, 0.0)
    kl_N: Array = (np.exp(log_p_NC) * apart_NC).sum(axis=1)
    return kl_N


def bins_of(confidence_N: Array, bins: int = BINS) -> Array:
    """The bin of each confidence [N]: bin i holds i/bins < confidence <= (i+1)/bins."""
    place_N: Array = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    return place_N


def _calibration(log_p_NC: Array, said_N: Array, label_N: Array) -> tuple[Array, Array]:
    confidence_N = np.exp(log_p_NC[np.arange(len(said_N)), said_N])
    excess_N = np.where(label_N == UNLABELLED, 0.0, (said_N == label_N) - confidence_N)
    return bins_of(confidence_N), excess_N


def _ratio(above_B: Array, below_B: Array) -> Array:
    """above / below in float64, NaN where below is 0."""
    ratio_B: Array = np.full(len(below_B), np.nan)
    return np.divide(above_B, below_B, out=ratio_B, where=below_B > 0)


def _macro_f1(class_BC: Array, right_BC: Array, mistaken_BC: Array) -> Array:
    """F1 = 2 right / (rows of the class + answers of the class), meant over the classes that have a row."""
    present_BC = class_BC > 0
    f1_BC = np.zeros_like(class_BC)
    np.divide(2 * right_BC, class_BC + right_BC + mistaken_BC, out=f1_BC, where=present_BC)
    return _ratio(f1_BC.sum(axis=1), present_BC.sum(axis=1))


def _worst_recall(class_BC: Array, right_BC: Array) -> Array:
    recall_BC = np.full(class_BC.shape, np.inf)
    np.divide(right_BC, class_BC, out=recall_BC, where=class_BC > 0)
    worst_B = recall_BC.min(axis=1)
    return np.where(np.isfinite(worst_B), worst_B, np.nan)
