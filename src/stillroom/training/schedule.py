"""The learning rate at each step, as a share of the recipe's. A pure function, so there is nothing to save."""

from __future__ import annotations

import math
from typing import Literal


def share(
    step: int, steps: int, schedule: Literal["one_cycle", "cosine", "linear", "constant"], warmup: float
) -> float:
    """Rises linearly over the warm-up, then falls: one_cycle and cosine along a half cosine, linear straight, to 0.

    The line of the warm-up begins one step before the first, at 0; that of one_cycle at 1/25 of the peak, as PyTorch's
    OneCycleLR has it (the idea: Smith and Topin 2017, arXiv:1708.07120).
    """
    rising = round(warmup * steps)
    if step < rising:
        start = 0.04 if schedule == "one_cycle" else 0.0
        return start + (1 - start) * (step + 1) / rising
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(1, steps - rising)
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
