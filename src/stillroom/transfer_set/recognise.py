"""Is this callable the one whose answers are kept? It is asked a few of those questions again, and must say the same.

What can be seen of a callable is its code and its arrays (teachers/python.py). Two that look the same may still differ in
what cannot be seen, a number in a file or a model behind an address, so each gets a place of its own among them. Adding
questions changes none of that, as a fingerprint made of answers would.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stillroom.rows import Questions
from stillroom.teachers.python import CallableTeacher
from stillroom.transfer_set.ask import Seen
from stillroom.transfer_set.store import HEADER, Kept, Store, open_kept

PROBED = 256
"""Questions that are asked again, drawn evenly from all that both were asked."""
RELATIVE, ABSOLUTE = 2**-9, 1e-4
"""How far log-probabilities may lie apart: two steps of the 16 bits that are kept."""


def recognise(
    store: Store, teacher: CallableTeacher, asking: Sequence[tuple[Questions, Sequence[int]]], seen: Seen
) -> None:
    """Give a callable the fingerprint under which its answers are kept, or one that is free.

    `asking`: the questions it will be asked, each with its views. Raises RunBusy, CorruptFile, ModelError.
    """
    with store.hold():
        for place in range(1 + len(list(store.root.glob(f"*/{HEADER}")))):
            teacher.fingerprint = teacher.numbered(place)
            folder = store.root / teacher.fingerprint[:16]
            if not (folder / HEADER).is_file() or _says_the_same(teacher, open_kept(folder), asking, seen):
                return


def _says_the_same(
    teacher: CallableTeacher, kept: Kept, asking: Sequence[tuple[Questions, Sequence[int]]], seen: Seen
) -> bool:
    """A folder without an answer is anybody's; one with answers to other questions alone, nobody's that we know."""
    if not len(kept):
        return True
    if kept.header.classes != teacher.classes:
        return False
    pairs = [(questions, view) for questions, views in asking for view in views]
    both = [(questions.take(np.flatnonzero(kept.answered(questions.key_N, view))), view) for questions, view in pairs]
    total = sum(len(questions) for questions, _ in both)
    for questions, view in both:
        count = -(-PROBED * len(questions) // max(1, total))
        chosen = questions.take(np.unique(np.linspace(0, len(questions) - 1, min(count, len(questions))).astype(int)))
        if not len(chosen):
            continue
        said_NC = teacher.answer(seen(chosen, view), view).log_probabilities_NC
        if not np.allclose(said_NC, kept.reader(chosen.key_N, view).all(), RELATIVE, ABSOLUTE):
            return False
    return total > 0
