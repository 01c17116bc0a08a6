"""Experiments on what soft targets carry: keep the teacher's top answer, and spoil what it says of the wrong classes.

`permuted` shuffles the wrong classes' probabilities within each row: the entropy stays, the meaning goes. `uniform` is
label smoothing with the teacher's top answer, at the teacher's own mean entropy (Szegedy and others 2015,
arXiv:1512.00567). Both work on the targets at the temperature the objective softens them with.
"""

from __future__ import annotations

import numpy as np

from stillroom.rows import Array


def permuted(log_probabilities_NC: Array, seed: int) -> Array:
    """The same values a row, those below the top in random order over the other classes."""
    rows, classes = log_probabilities_NC.shape
    top_N = log_probabilities_NC.argmax(1)
    order_NC = np.random.default_rng(seed).random((rows, classes)).argsort(1)
    wrong_NW = order_NC[order_NC != top_N[:, None]].reshape(rows, classes - 1)
    others_NW = np.argsort(np.where(np.arange(classes) == top_N[:, None], -1, np.arange(classes)), 1)[:, 1:]
    found = log_probabilities_NC.copy()
    np.put_along_axis(found, others_NW, np.take_along_axis(log_probabilities_NC, wrong_NW, 1), 1)
    return found


def uniform(log_probabilities_NC: Array, temperature: float) -> Array:
    """One smoothed target a class, such that its entropy at `temperature` is the teacher's mean entropy there, nats."""
    classes = log_probabilities_NC.shape[1]
    scaled = log_probabilities_NC.astype(np.float64) / temperature
    scaled -= scaled.max(1, keepdims=True)
    soft = np.exp(scaled)
    soft /= soft.sum(1, keepdims=True)
    entropy = float(-(soft * np.log(np.maximum(soft, 1e-300))).sum(1).mean())
    wrong = _share_with_entropy(entropy, classes)
    target = np.full(log_probabilities_NC.shape, np.log(wrong / (classes - 1)), np.float64)
    np.put_along_axis(target, log_probabilities_NC.argmax(1)[:, None], np.log1p(-wrong), 1)
    # The objective divides by the temperature, so that the softened target is the smoothed one.
    return (target * temperature).astype(np.float32)


def _share_with_entropy(entropy: float, classes: int) -> float:
    """The mass spread over the wrong classes that gives this entropy; it grows with the mass, so bisection finds it."""
    low, high = 1e-12, 1 - 1 / classes
    for _ in range(100):
        middle = (low + high) / 2
        found = -(1 - middle) * np.log1p(-middle) - middle * np.log(middle / (classes - 1))
        low, high = (middle, high) if found < entropy else (low, middle)
    return (low + high) / 2
