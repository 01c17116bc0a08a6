"""How sure a figure is: a paired bootstrap over seeds and test rows together, and McNemar's exact test for one pair.

A draw takes as many test rows as there are, with replacement, and as many seeds; both are the same for every model in
that draw, so what two models share (hard rows, a lucky split) cancels in their difference (the two-way bootstrap of
Owen 2007, doi:10.1214/07-AOAS122). Models with the same number of seeds share the drawn seeds; one with a single seed
is in every draw. The ends are percentiles of the draws.

Three things to know when reading them: the row-by-seed noise is counted more than once, which makes intervals somewhat
wide; few seeds underrate their own spread, which makes them somewhat narrow; and a figure that noise can only worsen
(ECE, the worst class) is drawn worse than it is measured: `centred` takes that bias off.

This file knows figures as functions of weighted sums, and the models by their names; it knows no scorecard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stillroom.evaluation.metrics import Tally, Truth
from stillroom.rows import Array

CHUNK_CELLS = 2_500_000
"""Row weights held at once (10 MB of float32): with fewer the matrix product gets slower, with more nothing faster."""
GAP_STANDARD_ERRORS = 4.0
TEACHER, STUDENT, CONTROL, HARD_TEACHER = "teacher", "student", "control", "hard_teacher"
WORSENED_BY_NOISE = ("ece", "ece_scaled", "worst_class_recall")

Draws = dict[str, dict[str, Array]]
"""model -> figure -> its value in each draw [draws], NaN where a draw leaves it undefined."""


def bootstrap(tallies: Mapping[str, Sequence[Tally]], truth: Truth, *, draws: int = 10_000, seed: int = 0) -> Draws:
    """Every figure of every model in each draw; `tallies` holds one Tally for each seed of a model.

    A model's draws depend on `seed`, its own rows and its number of seeds, not on which other models there are.
    Cost on one core, 10,000 draws: 3 to 4 s for 10,000 rows, 10 classes and 4 models of 5 seeds, 0.3 s for 450 rows.
    Nine tenths of it are two things: drawing rows (draws x rows) and one float32 product of weights and columns.
    """
    columns = {name: [tally.columns().astype(np.float32) for tally in seeds] for name, seeds in tallies.items()}
    return over_draws(
        columns,
        truth.by_class.sums,
        lambda name, place, weight_BN, own_BK, class_BC: tallies[name][place].figures(weight_BN, own_BK, class_BC),
        draws=draws,
        seed=seed,
    )


def over_draws(
    columns: Mapping[str, Sequence[Array]],
    shared_of: Callable[[Array], Array],
    figures_of: Callable[[str, int, Array, Array, Array], Mapping[str, Array]],
    *,
    draws: int,
    seed: int,
) -> Draws:
    """Every figure of every model in each draw, from what is summed over rows: [N, K] for each seed of a model.

    For the weights of B draws, `shared_of(weight_BN)` are the sums that all models share; `figures_of(name, place,
    weight_BN, sums_BK, shared)` are the figures of one seed of one model, each [B].
    """
    whole = {name: np.concatenate(list(several), axis=1) for name, several in columns.items()}
    values: dict[str, list[dict[str, Array]]] = {name: [{} for _ in several] for name, several in columns.items()}
    for start, weight_BN in _row_weights(len(next(iter(whole.values()))), draws, seed):
        shared = shared_of(weight_BN)
        for name, kept in values.items():
            for place, sums_BK in enumerate(np.split(weight_BN @ whole[name], len(kept), axis=1)):
                for figure, value_B in figures_of(name, place, weight_BN, sums_BK, shared).items():
                    kept[place].setdefault(figure, np.empty(draws))[start : start + len(weight_BN)] = value_B
    return {name: _over_seeds(several, draws, seed) for name, several in values.items()}


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
    found: dict[str, Array] = {}
    for name, value_SN in values.items():
        columns = {name: [value_N[:, None] for value_N in value_SN.astype(np.float32)]}
        found[name] = over_draws(
            columns, drawn_rows, lambda _, __, ___, sums_B1, rows_B: {"mean": sums_B1[:, 0] / rows_B},
            draws=draws, seed=seed,
        )[name]["mean"]  # fmt: skip
    return found


def drawn_rows(weight_BN: Array) -> Array:
    """How many rows each draw holds [B]."""
    rows_B: Array = weight_BN.sum(axis=1)
    return rows_B


def interval(value_B: Array) -> list[float] | None:
    """The 2.5th and 97.5th percentile of the draws that are defined; None where none is."""
    defined_B = value_B[np.isfinite(value_B)]
    if not len(defined_B):
        return None
    low, high = np.percentile(defined_B, [2.5, 97.5])
    return [float(low), float(high)]


def figures(per_seed: Sequence[Mapping[str, float]], drawn: Mapping[str, Array]) -> dict[str, Any]:
    """The figures that every seed has: {"mean", "ci95" (more than one seed), "per_seed"}."""
    found: dict[str, Any] = {}
    for name in per_seed[0]:
        if all(name in seed for seed in per_seed):
            values = [seed[name] for seed in per_seed]
            mean = float(np.mean(values))
            ends = interval(centred(name, drawn[name], mean)) if len(values) > 1 else None
            found[name] = {"mean": mean, **({"ci95": ends} if ends is not None else {}), "per_seed": values}
    return found


def centred(name: str, value_B: Array, measured: float) -> Array:
    """Draws of a figure that noise can only worsen, moved so that their mean is what was measured, and kept in [0, 1].

    A resample is noisier than the rows it was drawn from, so its ECE is larger and its worst class worse; plain percentiles
    of such draws can leave the measured value out. The bootstrap's own estimate of that bias is taken off (Efron and
    Tibshirani 1993, chapter 10).
    """
    if name not in WORSENED_BY_NOISE:
        return value_B
    moved_B: Array = np.clip(value_B - (np.nanmean(value_B) - measured), 0.0, 1.0)
    return moved_B


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The student, then the hard-teacher student, then each arm, against what it is to be compared with."""
    arms = [name for name in names if name not in (TEACHER, STUDENT, CONTROL, HARD_TEACHER)]
    found = [(STUDENT, other) for other in (CONTROL, HARD_TEACHER, TEACHER)]
    found += [(TEACHER, CONTROL), (HARD_TEACHER, CONTROL)]
    found += [(arm, other) for arm in arms for other in (CONTROL, STUDENT, HARD_TEACHER, TEACHER)]
    return [(first, second) for first, second in found if first in names and second in names]


def differences(
    models: Mapping[str, Mapping[str, Any]], drawn: Draws, compared: Sequence[str], of: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """ "first-second" -> first - second for each compared figure that both have: {"mean", "ci95"}."""
    found: dict[str, dict[str, Any]] = {}
    for first, second in of:
        one, other = models.get(first, {}), models.get(second, {})
        for name in compared:
            if name in one and name in other:
                apart: dict[str, Any] = {"mean": one[name]["mean"] - other[name]["mean"]}
                if max(len(one[name]["per_seed"]), len(other[name]["per_seed"])) > 1:
                    ends = interval(drawn[first][name] - drawn[second][name])
                    apart |= {"ci95": ends} if ends is not None else {}
                found.setdefault(f"{first}-{second}", {})[name] = apart
    return found


def gaps_recovered(
    models: Mapping[str, Mapping[str, Any]], drawn: Draws, figure: str, words: str, *, lower_is_better: bool = False
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The gap that the student recovers of a figure, and the same for every model besides teacher and control."""
    means = {name: found[figure]["mean"] for name, found in models.items() if figure in found}
    value_B = {name: found[figure] for name, found in drawn.items() if figure in found}
    seeds = {name: len(found[figure]["per_seed"]) for name, found in models.items() if figure in found}

    def gap(model: str) -> dict[str, Any]:
        return gap_recovered(means, value_B, seeds, model, words=words, lower_is_better=lower_is_better)

    gaps = {name: gap(name) for name in models if name not in (TEACHER, CONTROL)}
    return gaps.get(STUDENT) or gap(STUDENT), gaps


def gap_recovered(
    means: Mapping[str, float],
    value_B: Mapping[str, Array],
    seeds: Mapping[str, int],
    model: str = STUDENT,
    *,
    words: str = "accuracy",
    lower_is_better: bool = False,
) -> dict[str, Any]:
    """(model - control) / (teacher - control) of a figure, `words` to a reader: {"mean", "ci95"}, or {"absent": why}.

    `means` and `value_B` hold the figure of each model and its draws, `seeds` its number of seeds. It is given only
    where the gap is real: the lower bound of teacher - control (of control - teacher, where lower is better) is above 0
    and its mean at least 4 standard errors (the deviation of its draws); a ratio over less says nothing.
    """
    for name in (TEACHER, CONTROL, model):
        if name not in means:
            return {"absent": f"{words} of {_the(name)} was not measured"}
    if max(seeds[TEACHER], seeds[CONTROL]) < 2:
        return {"absent": "one seed gives no interval, so the gap between teacher and control may be chance"}
    better, worse = (CONTROL, TEACHER) if lower_is_better else (TEACHER, CONTROL)
    gap, gap_B = means[better] - means[worse], value_B[better] - value_B[worse]
    ends, error = interval(gap_B), float(np.nanstd(gap_B, ddof=1))
    if ends is None:
        return {"absent": f"{words} is defined in no draw of the test rows"}
    told = f"{better} - {worse} is {gap:+.4f} in {words}, 95 % interval {ends[0]:+.4f} to {ends[1]:+.4f}"
    if not ends[0] > 0:
        return {"absent": f"{told}: the lower end is not above 0"}
    if gap < GAP_STANDARD_ERRORS * error:
        # What would round to 4.0 is cut after three decimals: it must not read as a refusal of what was met.
        wide = gap / error
        short = f"{math.floor(1000 * wide) / 1000:.3f}" if round(wide, 1) >= GAP_STANDARD_ERRORS else f"{wide:.1f}"
        return {"absent": f"{told}: only {short} standard errors, {GAP_STANDARD_ERRORS:g} are asked for"}
    ratio_B: Array = np.full(len(gap_B), np.nan)
    np.divide(value_B[model] - value_B[CONTROL], value_B[TEACHER] - value_B[CONTROL], out=ratio_B, where=gap_B > 0)
    return {"mean": (means[model] - means[CONTROL]) / (means[TEACHER] - means[CONTROL]), "ci95": interval(ratio_B)}


def _the(name: str) -> str:
    ours = name in (TEACHER, STUDENT, CONTROL, HARD_TEACHER)
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
