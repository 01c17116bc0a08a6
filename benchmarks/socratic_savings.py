"""From learning curves to calls saved: a monotone fit, the calls it takes to the anchor, and how sure that is.

A curve of one seed goes up and down with chance, so its isotonic regression over the budgets is read, straight between
them on a scale where a doubling is one step. A curve that does not reach the anchor is censored at its last budget: the
saving is then at most what is counted, and the number of such seeds is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.socratic_curves import Curve
from stillroom.rows import Array

DRAWS = 10_000


def monotone(accuracy: Sequence[float]) -> Array:
    """The least squares fit that never falls (isotonic regression)."""
    from sklearn.isotonic import IsotonicRegression

    found: Array = IsotonicRegression().fit_transform(np.arange(len(accuracy)), np.asarray(accuracy, float))
    return found


def at(calls: Sequence[int], fitted: Array, budget: int) -> float:
    """What the fit gives for so many calls."""
    return float(np.interp(np.log2(budget), np.log2(calls), fitted))


def needed(calls: Sequence[int], fitted: Array, wanted: float) -> tuple[float, bool]:
    """The fewest calls at which the fit reaches this accuracy, and False where it does not: then the last budget."""
    if fitted[-1] < wanted:
        return float(calls[-1]), False
    place = int(np.flatnonzero(fitted >= wanted)[0])
    if place == 0:
        return float(calls[0]), True
    low, high = fitted[place - 1], fitted[place]
    share = (wanted - low) / (high - low)
    ends = np.log2([calls[place - 1], calls[place]])
    return float(2 ** (ends[0] + share * (ends[1] - ends[0]))), True


@dataclass(frozen=True)
class Saving:
    """Of the seeds of one strategy against random: calls saved on the way to random's accuracy at the anchor."""

    per_seed: Array
    censored: int
    """Seeds that never got there."""
    p: float
    """Of a saving of nothing or less (Wilcoxon's signed ranks, one-sided)."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(self.per_seed.mean())

    @property
    def ci95(self) -> list[float]:
        """Of the mean, by a bootstrap over seeds."""
        return interval(self.per_seed)


def interval(per_seed: Array) -> list[float]:
    """The 2.5th and 97.5th percentile of the mean over drawn seeds."""
    picked = np.random.default_rng(0).integers(0, len(per_seed), (DRAWS, len(per_seed)))
    return [float(end) for end in np.percentile(per_seed[picked].mean(1), [2.5, 97.5])]


def saving(random: Sequence[Curve], other: Sequence[Curve], anchor: int) -> Saving:
    """Seed by seed: 1 - calls needed / calls that random itself needs for what it has at the anchor."""
    found, censored = [], 0
    for one, two in zip(random, other, strict=True):
        fitted = monotone(one.accuracy)
        wanted = at(one.calls, fitted, anchor)
        without, _ = needed(one.calls, fitted, wanted)
        with_it, reached = needed(two.calls, monotone(two.accuracy), wanted)
        censored += not reached
        found.append(1.0 - with_it / without)
    per_seed = np.array(found)
    return Saving(per_seed, censored, _signed_ranks(per_seed))


def _signed_ranks(per_seed: Array) -> float:
    from scipy.stats import wilcoxon

    if not np.any(per_seed):
        return 1.0
    return float(wilcoxon(per_seed, alternative="greater").pvalue)


def of_the_mean_curve(random: Sequence[Curve], other: Sequence[Curve], anchor: int) -> float:
    """The same of the curves' means over seeds: what it would be without the chance of single seeds."""
    means = [
        Curve(curves[0].calls, accuracy=np.mean([one.accuracy for one in curves], 0).tolist())
        for curves in (random, other)
    ]
    return float(saving([means[0]], [means[1]], anchor).per_seed[0])


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p of each of several tests (Holm 1979)."""
    found, most = {}, 0.0
    for place, name in enumerate(sorted(p, key=lambda name: p[name])):
        most = max(most, min(1.0, (len(p) - place) * p[name]))
        found[name] = most
    return {name: found[name] for name in p}
