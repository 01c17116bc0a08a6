"""A language model's kept answers for other programs: a row for each position, with what of it needs no basis to be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.questions.views import view_number
from stillroom.stages.opening import Run, views_of

if TYPE_CHECKING:
    from stillroom.rows import Questions
    from stillroom.transfer_set.store import Kept

WINDOWS = 64
"""Told at once."""


def token_answers(run: Run, kept: Kept) -> Iterator[Any]:
    """Arrow tables of the answers to the run's training windows, window after window, view after view.

    Columns: key, split, view, place (of the position in its window), token (that stands there), head_ids and head_log_p, most
    probable first, tail_mass, entropy and forced_log_p (of that token). Logarithms are natural.
    """
    seen, train = run.seen_as(run.recipe.questions.augment), run.splits.train
    for view in views_of(run.recipe):
        there = train.take(np.flatnonzero(kept.answered(train.key_N, view)))
        for start in range(0, len(there), WINDOWS):
            part = there.take(np.arange(start, min(start + WINDOWS, len(there))))
            yield _table(kept, part, seen(part, view), view)


def _table(kept: Kept, part: Questions, shown: Questions, view: int) -> Any:
    """Of these windows; `shown`: as the view has them."""
    import pyarrow as pa

    from stillroom.transfer_set.recording import opened
    from stillroom.transfer_set.sparse_logits import decode

    assert kept.header.layout is not None, "only kept positions are told"
    assert isinstance(shown.raw, dict), "windows are named arrays"
    layout, fitted = opened(kept.folder, kept.header.layout)
    said = decode(layout, fitted, kept.position_reader(part.key_N, view).take(np.arange(len(part))))
    target_NT = shown.raw["target"]
    window_P, place_P = np.nonzero(target_NT >= 0)
    keys = [key.tobytes().hex() for key in part.key_N]
    return pa.table(
        {
            "key": [keys[window] for window in window_P],
            "split": ["train"] * len(window_P),
            "view": [view_number(view)] * len(window_P),
            "place": place_P,
            "token": target_NT[window_P, place_P],
            "head_ids": list(said.ids_PK.int().numpy()),
            "head_log_p": list(said.log_p_PK.numpy()),
            "tail_mass": said.tail_log_mass_P.exp().numpy(),
            "entropy": said.entropy_P.numpy(),
            "forced_log_p": said.forced_log_p_P.numpy(),
        }
    )
