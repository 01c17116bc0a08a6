"""What a count of rows says of a share: intervals for one proportion. Plain arithmetic."""

from __future__ import annotations

import math

CONFIDENCE_Z = 1.959963984540054


def wilson(right: int, rows: int) -> list[float]:
    """The 95 % interval [low, high] of a share of which `right` of `rows` were seen (Wilson 1927)."""
    z, share = CONFIDENCE_Z, right / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return [max(0.0, middle - half), min(1.0, middle + half)]


def clopper_pearson(wrong: int, rows: int, doubt: float = 0.05) -> float:
    """What the share is below, but for a chance of `doubt`, where `wrong` of `rows` were seen (Clopper and Pearson 1934)."""
    if wrong >= rows:
        return 1.0
    low, high = wrong / rows, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(wrong, rows, middle) > doubt else (low, middle)
    return high


def at_most(wrong: int, rows: int, share: float) -> float:
    """The chance that no more than `wrong` of `rows` are, where each is with this chance."""
    if share <= 0 or share >= 1:
        return 1.0 if share <= 0 or wrong >= rows else 0.0
    logs = (
        math.lgamma(rows + 1) - math.lgamma(k + 1) - math.lgamma(rows - k + 1)
        + k * math.log(share) + (rows - k) * math.log1p(-share)
        for k in range(wrong + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))
