"""What soft targets know beyond the answer: which classes are alike, how much goes to wrong ones, where models differ.

All of it is read from log-probabilities [N, C]; everything that `dark_knowledge` returns is plain data for a page. This
file knows no model, no interval and no plot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stillroom.errors import RecipeError, did_you_mean
from stillroom.evaluation.metrics import BINS, at_temperature, bins_of, kl_divergence
from stillroom.rows import UNLABELLED, Array

SAME_GROUP = 0.5
ENTROPY_BINS = 20


def class_of_rows(log_probabilities_NC: Array, label_N: Array) -> Array:
    """The class a row stands for [N]: its label, or where it has none the most probable class."""
    class_N: Array = np.where(label_N == UNLABELLED, log_probabilities_NC.argmax(axis=1), label_N)
    return class_N


def soft_confusion(
    log_probabilities_NC: Array, label_N: Array, *, temperature: float = 1.0, symmetric: bool = False
) -> Array:
    """How the probability given to wrong classes is shared among them [C, C], for rows of each class.

    Entry (i, j) is the mean probability of class j over rows that stand for class i, divided by that of all j != i:
    each line adds up to 1, the diagonal is 0. A line is NaN where no row stands for its class, or where wrong classes
    get no probability. `symmetric` gives the mean of (i, j) and (j, i), or the one that is measured where the other is
    not. That these ratios hold a similarity of classes: Hinton and others 2015, arXiv:1503.02531, section 1.
    """
    classes = log_probabilities_NC.shape[1]
    p_NC = np.exp(at_temperature(log_probabilities_NC, temperature))
    total_CC = np.zeros((classes, classes))
    np.add.at(total_CC, class_of_rows(log_probabilities_NC, label_N), p_NC)
    np.fill_diagonal(total_CC, 0.0)
    wrong_C1 = total_CC.sum(axis=1, keepdims=True)
    shared_CC: Array = np.full_like(total_CC, np.nan)
    np.divide(total_CC, wrong_C1, out=shared_CC, where=wrong_C1 > 0)
    if not symmetric:
        return shared_CC
    known_CC = np.isfinite(shared_CC).astype(np.int64)
    known_CC = known_CC + known_CC.T
    filled_CC = np.nan_to_num(shared_CC)
    both_CC: Array = np.full_like(total_CC, np.nan)
    np.divide(filled_CC + filled_CC.T, known_CC, out=both_CC, where=known_CC > 0)
    return both_CC


def ensemble_similarity(log_probabilities_NC: Array, label_N: Array) -> Array:
    """How alike classes are to a model that was not the teacher: [C, C] in [0, 1], 1 on the diagonal, symmetric.

    Its symmetric soft confusion at T = 1, over the largest entry: the pair it confuses most has 1, a pair it confuses a
    third as often 1/3, one it says nothing of 0. So a mistake between its most alike classes has severity 0.
    """
    alike_CC = np.nan_to_num(soft_confusion(log_probabilities_NC, label_N, symmetric=True))
    largest = alike_CC.max(initial=0.0)
    if largest > 0:
        alike_CC /= largest
    np.fill_diagonal(alike_CC, 1.0)
    return alike_CC


def group_similarity(groups: Mapping[str, Sequence[Any]], classes: Sequence[Any]) -> Array:
    """How alike classes are by a recipe's `groups`: [C, C], 1 for the same class, 0.5 within a group, 0 otherwise.

    A class may be in several groups or in none. Raises RecipeError for a class that the data does not have.
    """
    place = {name: number for number, name in enumerate(classes)}
    by_text = {str(name): number for name, number in place.items()}
    similarity_CC = np.eye(len(classes))
    for group, members in groups.items():
        unknown = [member for member in members if str(member) not in by_text]
        if unknown:
            raise RecipeError(
                f"the data has no class {unknown[0]!r}",
                where=f"evaluation.groups.{group}",
                cure=did_you_mean(str(unknown[0]), by_text),
            )
        rows = np.array([place.get(member, by_text[str(member)]) for member in members], np.int64)
        similarity_CC[np.ix_(rows, rows)] = np.maximum(similarity_CC[np.ix_(rows, rows)], SAME_GROUP)
    return similarity_CC


def spearman(first_CC: Array, second_CC: Array) -> float | None:
    """Spearman's rank correlation of the off-diagonal entries that two matrices [C, C] both have.

    None with fewer than 3 of them, or where one matrix has no spread.
    """
    off_CC = ~np.eye(len(first_CC), dtype=bool) & np.isfinite(first_CC) & np.isfinite(second_CC)
    if off_CC.sum() < 3:
        return None
    first_E, second_E = _ranks(first_CC[off_CC]), _ranks(second_CC[off_CC])
    first_E, second_E = first_E - first_E.mean(), second_E - second_E.mean()
    spread = float(np.sqrt((first_E**2).sum() * (second_E**2).sum()))
    return float((first_E * second_E).sum()) / spread if spread > 0 else None


def _ranks(value_E: Array) -> Array:
    """Ranks from 1; equal values share the mean of theirs."""
    _, which_E, count_U = np.unique(value_E, return_inverse=True, return_counts=True)
    last_U = np.cumsum(count_U)
    rank_E: Array = (last_U - (count_U - 1) / 2)[which_E]
    return rank_E


def entropy(log_probabilities_NC: Array, temperature: float = 1.0) -> Array:
    """The entropy of each row's soft target at a temperature [N], nats, between 0 and ln C."""
    log_p_NC = at_temperature(log_probabilities_NC, temperature)
    p_NC = np.exp(log_p_NC)
    entropy_N: Array = -(p_NC * np.where(p_NC > 0, log_p_NC, 0.0)).sum(axis=1)
    return np.maximum(entropy_N, 0.0)


def entropy_histogram(
    log_probabilities_NC: Array, temperature: float = 1.0, bins: int = ENTROPY_BINS
) -> dict[str, Any]:
    """{"mean", "edges" [bins + 1], "counts" [bins]}: equal-width bins of entropy from 0 to ln C, nats."""
    entropy_N = entropy(log_probabilities_NC, temperature)
    most = float(np.log(log_probabilities_NC.shape[1]))
    count_G, edge_G = np.histogram(np.minimum(entropy_N, most), bins=bins, range=(0.0, most if most > 0 else 1.0))
    return {"mean": float(entropy_N.mean()), "edges": edge_G.tolist(), "counts": count_G.tolist()}


def wrong_mass(log_probabilities_NC: Array, label_N: Array, temperature: float = 1.0) -> float:
    """The mean probability that rows give at a temperature to other classes than the one they stand for."""
    p_NC = np.exp(at_temperature(log_probabilities_NC, temperature))
    own_N = p_NC[np.arange(len(p_NC)), class_of_rows(log_probabilities_NC, label_N)]
    return float(np.mean(1.0 - own_N))


def jensen_shannon(first_NC: Array, second_NC: Array) -> Array:
    """The Jensen-Shannon divergence of two models on each row [N], nats, 0 to ln 2 (Lin 1991, doi:10.1109/18.61115)."""
    first_NC, second_NC = at_temperature(first_NC, 1.0), at_temperature(second_NC, 1.0)
    middle_NC = np.logaddexp(first_NC, second_NC) - np.log(2)
    return np.maximum((kl_divergence(first_NC, middle_NC) + kl_divergence(second_NC, middle_NC)) / 2, 0.0)


def most_different(
    first_NC: Array, second_NC: Array, label_N: Array, classes: Sequence[Any], *, count: int = 12
) -> list[dict[str, Any]]:
    """The rows on which two models differ most, by Jensen-Shannon divergence, the most different first.

    Each: {"row": place among the N, "divergence": nats, "label" where there is one, "first", "second": the three most
    probable classes of each model as [[class, probability], ..]}. Rows on which they agree exactly are not listed.
    """
    apart_N = jensen_shannon(first_NC, second_NC)
    order_N = np.argsort(-apart_N, kind="stable")[:count]
    found = []
    for row in (int(row) for row in order_N if apart_N[row] > 0):
        example: dict[str, Any] = {"row": row, "divergence": float(apart_N[row])}
        if label_N[row] != UNLABELLED:
            example["label"] = _plain(classes[label_N[row]])
        example |= {"first": _top(first_NC[row], classes), "second": _top(second_NC[row], classes)}
        found.append(example)
    return found


def _top(log_p_C: Array, classes: Sequence[Any], count: int = 3) -> list[list[Any]]:
    p_C = np.exp(at_temperature(log_p_C[None], 1.0)[0])
    return [[_plain(classes[place]), float(p_C[place])] for place in np.argsort(-p_C, kind="stable")[:count]]


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python value that JSON can hold."""
    return value.item() if isinstance(value, np.generic) else value


def reliability(
    log_probabilities_NC: Array, label_N: Array, *, temperature: float = 1.0, bins: int = BINS
) -> list[dict[str, float]]:
    """A reliability diagram: {"low", "high", "confidence", "accuracy", "count"} of each bin that has labelled rows.

    The same bins as `ece`, which is the sum over them of |accuracy - confidence| count / all.
    """
    known_N = label_N != UNLABELLED
    log_p_NC, label_N = at_temperature(log_probabilities_NC[known_N], temperature), label_N[known_N]
    confidence_N, right_N = np.exp(log_p_NC.max(axis=1, initial=-np.inf)), log_p_NC.argmax(axis=1) == label_N
    bin_N = bins_of(confidence_N, bins)
    points = []
    for place in range(bins):
        here_N = bin_N == place
        if here_N.any():
            point = {"low": place / bins, "high": (place + 1) / bins, "confidence": float(confidence_N[here_N].mean())}
            points.append(point | {"accuracy": float(right_N[here_N].mean()), "count": int(here_N.sum())})
    return points


def dark_knowledge(
    said: Mapping[str, Array],
    label_N: Array,
    classes: Sequence[Any],
    *,
    temperature: float,
    temperatures: Mapping[str, float] | None = None,
    examples: int = 12,
) -> dict[str, Any]:
    """What a page shows of each model's soft answers on the same N rows, as plain data.

    `said` is model -> log-probabilities [N, C] of one seed; `temperature` is the one it was distilled at;
    `temperatures` those fitted on validation, for the scaled reliability diagram. Returns {"temperature", "rows",
    "models": model -> {"similarity": {"classes", "matrix"}, "entropy", "wrong_mass", "reliability",
    "reliability_scaled", "spearman_to_teacher"}, "most_different": teacher against control}; what could not be measured
    is not in it. The matrix is cut to the classes that some row stands for.
    """
    matrices = {name: soft_confusion(log_p_NC, label_N, temperature=temperature) for name, log_p_NC in said.items()}
    models: dict[str, dict[str, Any]] = {}
    for name, log_p_NC in said.items():
        known_C = np.asarray(np.isfinite(matrices[name]).all(axis=1))
        cut = matrices[name][np.ix_(known_C, known_C)]
        shown: dict[str, Any] = {
            "entropy": entropy_histogram(log_p_NC, temperature),
            "wrong_mass": wrong_mass(log_p_NC, label_N, temperature),
        }
        if known_C.any():
            names = [_plain(label) for label, known in zip(classes, known_C, strict=True) if known]
            shown["similarity"] = {"classes": names, "matrix": cut.tolist()}
        if points := reliability(log_p_NC, label_N):
            shown["reliability"] = points
            if temperatures and name in temperatures:
                shown["reliability_scaled"] = reliability(log_p_NC, label_N, temperature=temperatures[name])
        if name != "teacher" and "teacher" in said:
            rank = spearman(matrices["teacher"], matrices[name])
            shown |= {} if rank is None else {"spearman_to_teacher": rank}
        models[name] = shown
    result: dict[str, Any] = {"temperature": float(temperature), "rows": len(label_N), "models": models}
    if {"teacher", "control"} <= set(said):
        result["most_different"] = most_different(said["teacher"], said["control"], label_N, classes, count=examples)
    return result
