"""The example rows of a report show several classes, each rightly answered and in some doubt."""

from __future__ import annotations

import numpy as np

from stillroom.evaluation.details import HESITATING, _hesitating, _least_sure_wrong


def test_one_right_row_of_each_of_the_least_sure_classes() -> None:
    rng = np.random.default_rng(0)
    classes, rows = 9, 400
    label_N = rng.integers(0, classes, rows)
    logits_NC = rng.normal(0, 1, (rows, classes))
    # The higher a class's number, the surer the answers of its rows.
    logits_NC[np.arange(rows), label_N] += 1.0 + label_N
    said_NC = logits_NC - np.log(np.exp(logits_NC).sum(1, keepdims=True))
    chosen = _hesitating(said_NC, label_N)
    assert len(chosen) == HESITATING
    assert (said_NC[chosen].argmax(1) == label_N[chosen]).all()
    assert len(set(label_N[chosen].tolist())) == HESITATING
    sure_C = [
        np.mean([said_NC[row].max() for row in range(rows) if label_N[row] == one == said_NC[row].argmax()])
        for one in range(classes)
    ]
    assert label_N[chosen].tolist() == np.argsort(sure_C)[:HESITATING].tolist()


def test_the_least_sure_wrong_row_is_shown_where_there_is_one() -> None:
    said_NC = np.log(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.55, 0.45]]))
    assert _least_sure_wrong(said_NC, np.array([0, 1, 0, -1])) == 1
    assert _least_sure_wrong(said_NC, np.array([0, 0, 1, -1])) is None
