"""How sure a figure is: a paired bootstrap over seeds and test rows together, and McNemar's exact test for one pair.

A draw takes as many test rows as there are, with replacement, and as many seeds; both are the same for every model in
that draw, so what two models share (hard rows, a lucky split) cancels in their difference (the two-way bootstrap of
Owen 2007, doi:10.1214/07-AOAS122). Models with the same number of seeds share the drawn seeds; one with a single seed
is in every draw. The ends are percentiles of the draws.

Three things to know when reading them: the row-by-seed noise is counted more than once, which makes intervals somewhat
wide; few seeds underrate their own spread, which makes them somewhat narrow; and a figure that noise can only worsen
(ECE, the worst class) is drawn worse than it is measured: scores.py takes that bias off.

This file knows figures as functions of weighted sums (metrics.py) and no scorecard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stillroom.evaluation.metrics import COLUMNS, Tally, Truth
from stillroom.rows import Array

CHUNK_CELLS = 2_500_000
"""Row weights held at once (10 MB of float32): with fewer the matrix product gets slower, with more nothing faster."""
GAP_STANDARD_ERRORS = 4.0

Draws = dict[str, dict[str, Array]]
"""model -> figure -> its value in each draw [draws], NaN where a draw leaves it undefined."""


def bootstrap(tallies: Mapping[str, Sequence[Tally]], truth: Truth, *, draws: int = 10_000, seed: int = 0) -> Draws:
    """Every figure of every model in each draw; `tallies` holds one Tally for each seed of a model.

    A model's draws depend on `seed`, its own rows and its number of seeds, not on which other models there are.
    Cost on one core, 10,000 draws: 3 to 4 s for 10,000 rows, 10 classes and 4 models of 5 seeds, 0.3 s for 450 rows.
    Nine tenths of it are two things: drawing rows (draws x rows) and one float32 product of weights and columns.
    """
    rows = len(truth.label_N)
    columns = {
        name: np.concatenate([tally.columns() for tally in seeds], axis=1).astype(np.float32)
        for name, seeds in tallies.items()
    }
    values: dict[str, list[dict[str, Array]]] = {name: [{} for _ in seeds] for name, seeds in tallies.items()}
    for start, weight_BN in _row_weights(rows, draws, seed):
        class_BC = truth.by_class.sums(weight_BN)
        for name, seeds in tallies.items():
            column_BK = weight_BN @ columns[name]
            for place, tally in enumerate(seeds):
                own_BK = column_BK[:, place * COLUMNS : (place + 1) * COLUMNS]
                for figure, value_B in tally.figures(weight_BN, own_BK, class_BC).items():
                    kept = values[name][place].setdefault(figure, np.empty(draws))
                    kept[start : start + len(weight_BN)] = value_B
    return {name: _over_seeds(seeds, draws, seed) for name, seeds in values.items()}


def _row_weights(rows: int, draws: int, seed: int) -> Iterator[tuple[int, Array]]:
    """How often each row was drawn, float32 [B, N], chunk by chunk, each with the place of its first draw."""
    generator = np.random.default_rng([seed, 0])
    size = max(1, min(draws, CHUNK_CELLS // max(rows, 1)))
    for start in range(0, draws, size):
        weight_BN = np.empty((min(size, draws - start), rows), np.float32)
        for draw, row_N in zip(weight_BN, generator.integers(0, rows, weight_BN.shape, dtype=np.int32), strict=True):
            draw[:] = np.bincount(row_N, minlength=rows)
        yield start, weight_BN


def _over_seeds(values: list[dict[str, Array]], draws: int, seed: int) -> dict[str, Array]:
    """The mean over each draw's seeds, of the figures that every seed has."""
    count = len(values)
    shared = set.intersection(*(set(figures) for figures in values)) if values else set()
    # A generator for each number of seeds: equal numbers share their draws, whatever else is evaluated beside them.
    picked_BS = np.random.default_rng([seed, 1, count]).multinomial(count, np.full(count, 1 / count), size=draws)
    mean: dict[str, Array] = {}
    for figure in values[0] if values else ():
        if figure in shared:
            value_SB = np.stack([figures[figure] for figures in values])
            known_SB = np.isfinite(value_SB)
            weight_SB = picked_BS.T * known_SB
            total_B = (np.where(known_SB, value_SB, 0.0) * weight_SB).sum(axis=0)
            mean_B: Array = np.full(draws, np.nan)
            mean[figure] = np.divide(total_B, weight_SB.sum(axis=0), out=mean_B, where=weight_SB.any(axis=0))
    return mean


def row_means(values: Mapping[str, Array], *, draws: int = 10_000, seed: int = 0) -> dict[str, Array]:
    """The mean over rows and seeds in each draw [draws], of figures that are a mean over rows: name -> values [S, N]."""
    found: dict[str, list[dict[str, Array]]] = {}
    for name, value_SN in values.items():
        per_seed = [{name: np.empty(draws)} for _ in value_SN]
        for start, weight_BN in _row_weights(value_SN.shape[1], draws, seed):
            for place, mean_B in enumerate((weight_BN @ value_SN.T.astype(np.float32) / value_SN.shape[1]).T):
                per_seed[place][name][start : start + len(weight_BN)] = mean_B
        found[name] = per_seed
    return {name: _over_seeds(per_seed, draws, seed)[name] for name, per_seed in found.items()}


def interval(value_B: Array) -> list[float] | None:
    """The 2.5th and 97.5th percentile of the draws that are defined; None where none is."""
    defined_B = value_B[np.isfinite(value_B)]
    if not len(defined_B):
        return None
    low, high = np.percentile(defined_B, [2.5, 97.5])
    return [float(low), float(high)]


def gap_recovered(
    means: Mapping[str, float], accuracy_B: Mapping[str, Array], seeds: Mapping[str, int], model: str = "student"
) -> dict[str, Any]:
    """(model - control) / (teacher - control) on accuracy: {"mean", "ci95"}, or {"absent": why}.

    `means` and `accuracy_B` hold the accuracy of each model and its draws, `seeds` its number of seeds. It is given
    only where the gap is real: the lower bound of teacher - control is above 0 and its mean at least 4 standard errors
    (the deviation of its draws); a ratio over less says nothing.
    """
    for name in ("teacher", "control", model):
        if name not in means:
            return {"absent": f"the accuracy of {_the(name)} was not measured"}
    if max(seeds["teacher"], seeds["control"]) < 2:
        return {"absent": "one seed gives no interval, so the gap between teacher and control may be chance"}
    gap = means["teacher"] - means["control"]
    gap_B = accuracy_B["teacher"] - accuracy_B["control"]
    ends, error = interval(gap_B), float(np.nanstd(gap_B, ddof=1))
    if ends is None:
        return {"absent": "no draw of the test rows holds a label"}
    figures = f"teacher - control is {gap:+.4f} in accuracy, 95 % interval {ends[0]:+.4f} to {ends[1]:+.4f}"
    if not ends[0] > 0:
        return {"absent": f"{figures}: the lower end is not above 0"}
    if gap < GAP_STANDARD_ERRORS * error:
        return {"absent": f"{figures}: only {gap / error:.1f} standard errors, {GAP_STANDARD_ERRORS:g} are asked for"}
    ratio_B: Array = np.full(len(gap_B), np.nan)
    np.divide(accuracy_B[model] - accuracy_B["control"], gap_B, out=ratio_B, where=gap_B > 0)
    return {"mean": (means[model] - means["control"]) / gap, "ci95": interval(ratio_B)}


def _the(name: str) -> str:
    ours = name in ("teacher", "student", "control", "hard_teacher")
    return f"the {name.replace('_', ' ')}" if ours else f"the arm {name!r}"


def mcnemar(correct_first_N: Array, correct_second_N: Array) -> dict[str, Any]:
    """McNemar's exact test of two single models on the same rows: {"only_first", "only_second", "p_value"}.

    Booleans [N]. Two-sided binomial test of whether a row that just one of the two gets right is as likely either's
    (McNemar 1947, doi:10.1007/BF02295996). Not for several seeds or many pairs: use the intervals there.
    """
    first_N, second_N = correct_first_N.astype(bool), correct_second_N.astype(bool)
    only_first, only_second = int((first_N & ~second_N).sum()), int((~first_N & second_N).sum())
    apart, term, tail = only_first + only_second, 1, 0
    for place in range(min(only_first, only_second) + 1):
        tail += term
        term = term * (apart - place) // (place + 1)
    # Whole numbers throughout: Python divides them correctly however large they are.
    return {"only_first": only_first, "only_second": only_second, "p_value": min(1.0, 2 * tail / 2**apart)}
