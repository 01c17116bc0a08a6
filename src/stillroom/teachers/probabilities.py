"""Probabilities as a teacher gives them -> log-probabilities that a store can keep. Knows no teacher."""

from __future__ import annotations

import numpy as np

from stillroom.errors import ModelError
from stillroom.rows import Array

LEAST_LOG_PROBABILITY = -1e4
"""Stands for log 0: small enough to be nothing at any temperature, and finite in float16."""


def log_of_probabilities(said: Array, where: str = "teacher") -> Array:
    """Logs [N, C] of probabilities [N, C], each row normalised. Raises ModelError for what are none.

    Rows that are not finite pass through: the store refuses them with the name of the question.
    """
    wrong = np.flatnonzero(~np.isclose(said.sum(1), 1, atol=1e-3) | (said < 0).any(1))
    if len(wrong) and np.isfinite(said).all():
        raise ModelError(
            f"the teacher's answer is no probability distribution: {said[wrong[0]][:6].round(4).tolist()}",
            where=f"{where}, row {wrong[0] + 1}",
            cure="Give probabilities that are at least 0 and add up to 1 in each row, such as predict_proba",
        )
    with np.errstate(divide="ignore"):
        logs: Array = np.maximum(np.log(said / said.sum(1, keepdims=True)), LEAST_LOG_PROBABILITY)
    return logs
