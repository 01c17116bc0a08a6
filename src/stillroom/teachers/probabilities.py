"""Probabilities as a teacher gives them -> log-probabilities that a store can keep. Knows no teacher."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stillroom.errors import DataError, ModelError
from stillroom.rows import Array

LEAST_LOG_PROBABILITY = -1e4
"""Stands for log 0: small enough to be nothing at any temperature, and finite in float16."""


def log_of_probabilities(said: Array, where: str = "teacher") -> Array:
    """Logs [N, C] of probabilities [N, C], each row normalised. Raises ModelError for what are none.

    Rows that are not finite pass through: the store refuses them with the name of the question.
    """
    finite_N = np.isfinite(said).all(1)
    wrong = np.flatnonzero(finite_N & (~np.isclose(said.sum(1), 1, atol=1e-3) | (said < 0).any(1)))
    if len(wrong):
        raise ModelError(
            f"the teacher's answer is no probability distribution: {said[wrong[0]][:6].round(4).tolist()}",
            where=f"{where}, row {wrong[0] + 1}",
            cure="Give probabilities that are at least 0 and add up to 1 in each row, such as predict_proba",
        )
    with np.errstate(divide="ignore"):
        logs: Array = np.maximum(np.log(said / said.sum(1, keepdims=True)), LEAST_LOG_PROBABILITY)
    return logs


MORE_THAN_ONE = 1e-3
"""By so much given probabilities may add up to more than 1."""


def log_of_top(said: Sequence[Any], classes: Sequence[Any], where: str) -> Array:
    """Log-probabilities [N, C] from the few most probable labels of each row and their log-probabilities.

    A row is {"label": logprob, ..}, the list of {"token": .., "logprob": ..} that OpenAI's API answers with, a list of
    (label, logprob) pairs, or any of these as a text of JSON; a label whose log-probability is None is not listed. Labels are
    compared without the white space around them, and spellings of one class add up. The mass that is not listed is shared
    evenly by the classes that are not; what is listed and names no class is left out. Raises DataError.
    """
    place = {str(name).strip(): number for number, name in enumerate(classes)}
    log_NC = np.full((len(said), len(classes)), -np.inf)
    for row, value in enumerate(said):
        here = f"{where}, row {row + 1}"
        listed = list(_listed(value, here))
        total = math.fsum(math.exp(log_p) for _, log_p in listed)
        if total > 1 + MORE_THAN_ONE:
            raise DataError(
                f"these probabilities add up to {total:.4g}",
                where=here,
                cure="Give natural logarithms of probabilities",
            )
        for label, log_p in listed:
            if label.strip() in place:
                column = place[label.strip()]
                log_NC[row, column] = np.logaddexp(log_NC[row, column], log_p)
        absent = np.flatnonzero(np.isneginf(log_NC[row]))
        if len(absent) == len(classes):
            raise DataError(
                f"none of {', '.join(repr(label) for label, _ in listed[:4])} is one of the classes",
                where=here,
                cure=f"The classes are {', '.join(map(str, classes[:6]))}",
            )
        if len(absent) and total < 1:
            log_NC[row, absent] = math.log((1 - total) / len(absent))
    log_NC -= np.logaddexp.reduce(log_NC, 1, keepdims=True)
    found: Array = np.maximum(log_NC, LEAST_LOG_PROBABILITY)
    return found


def _listed(value: Any, where: str) -> Iterator[tuple[str, float]]:
    """Labels and log-probabilities of one row, in whatever form."""
    try:
        read = json.loads(value) if isinstance(value, str) else value
        pairs = read.items() if isinstance(read, dict) else [_pair(one) for one in read]
        for label, log_p in pairs:
            if log_p is None:  # a table with a column for each label has gaps where a row lists fewer
                continue
            if isinstance(log_p, bool) or not float(log_p) <= MORE_THAN_ONE:
                raise ValueError(f"{log_p!r} is no log-probability")
            yield str(label), min(0.0, float(log_p))
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(
            f"these are no labels with log-probabilities: {str(error)[:120]}",
            where=where,
            cure='Write {"label": -0.1, ..}, or a list of {"token": .., "logprob": ..}',
        ) from error


def _pair(one: Any) -> tuple[str, Any]:
    if isinstance(one, dict):
        return one["token"], one["logprob"]
    label, log_p = one
    return label, log_p
