"""Training rows that repeat each other, and training rows that give a test question away."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillroom.rows import Array

WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[+\-*/=^<>%$\\]")
SHINGLE = 5
"""Words of a run that two texts may share."""
DASHES = {ord(sign): "-" for sign in "‐‑‒–—−"} | {ord("×"): "*", ord("÷"): "/"}
BANDS, ROWS = 16, 4
"""Of the min-hashes that find texts which may be alike: two that share 0.9 of their runs are missed once in 25 million."""


MULTIPLIERS: Array = np.random.default_rng(0).integers(0, 2**63, BANDS * ROWS, dtype=np.uint64) * 2 + 1


@dataclass(frozen=True)
class Overlap:
    """A training row that shares text with a test row."""

    row: int
    test_row: int
    shared: str
    """The first shared run of words, or the whole question."""


@dataclass(frozen=True)
class Repeat:
    """A row that repeats an earlier one."""

    row: int
    of: int
    likeness: float
    """Share of word runs that both have (Jaccard); 1 where the texts are the same."""


def overlaps(texts: Sequence[str], tests: Sequence[str], n: int = 8) -> list[Overlap]:
    """Rows of `texts` that share a run of `n` words with a test row, one entry each, in order.

    Words are compared without case, accents of typography and punctuation; numbers and operators are words. A test question
    of fewer than `n` words, such as 12 * 34, counts only when a text is that very question, character by character
    without spaces. n = 0: only whole questions count, for questions made from templates, which share long runs of words and
    differ in their numbers. 8 is open-r1's figure, 13 GPT-3's (Brown et al. 2020, arXiv:2005.14165).
    """
    found: list[Overlap] = []
    runs: dict[tuple[str, ...], int] = {}
    whole: dict[str, int] = {}
    for place, test in enumerate(tests):
        read = words(test)
        if n == 0 or len(read) < n:
            whole.setdefault(normalised(test), place)
        else:
            for start in range(len(read) - n + 1):
                runs.setdefault(tuple(read[start : start + n]), place)
    whole.pop("", None)
    for row, text in enumerate(texts):
        same = whole.get(normalised(text))
        if same is not None:
            found.append(Overlap(row, same, tests[same]))
            continue
        read = words(text) if runs else []
        for start in range(len(read) - n + 1):
            run = tuple(read[start : start + n])
            if run in runs:
                found.append(Overlap(row, runs[run], " ".join(run)))
                break
    return found


def words(text: str) -> list[str]:
    """Words, numbers and operators of a text, in one case."""
    return WORD.findall(unicodedata.normalize("NFKC", text).translate(DASHES).casefold())


def normalised(text: str) -> str:
    """A text whose spaces, case, typography and last mark make no difference; every other character does."""
    return "".join(unicodedata.normalize("NFKC", text).translate(DASHES).casefold().split()).rstrip("=?.!:;,")


def repeats(texts: Sequence[str], groups: Sequence[str] | None = None, near: float = 0.9) -> list[Repeat]:
    """Rows that repeat an earlier row, so that all others are each other's only copy.

    Equal after normalisation anywhere; nearly equal, by at least `near` of their runs of 5 words, only within a group
    (such as a question), and only where they hold the same numbers. near = 1: equal texts alone.
    """
    found: list[Repeat] = []
    first: dict[str, int] = {}
    left: list[int] = []
    for row, text in enumerate(texts):
        of = first.setdefault(normalised(text), row)
        if of == row:
            left.append(row)
        else:
            found.append(Repeat(row, of, 1.0))
    if near < 1:
        sizes = Counter(groups[row] if groups is not None else "" for row in left)
        alike = [
            row for row in left if sizes[groups[row] if groups is not None else ""] > 1
        ]  # alone in its group, like none
        found += _nearly_equal(texts, alike, groups, near)
    return sorted(found, key=lambda one: one.row)


def _nearly_equal(texts: Sequence[str], rows: list[int], groups: Sequence[str] | None, near: float) -> list[Repeat]:
    """Of texts that are all different: those nearly equal to an earlier one that is no repeat itself."""
    found: list[Repeat] = []
    shingles: dict[int, frozenset[int]] = {}
    buckets: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for row in rows:
        read = words(texts[row])
        shingles[row] = _shingles(read)
        numbers = tuple(sorted(Counter(word for word in read if word[0].isdigit()).items()))
        group = groups[row] if groups is not None else ""
        keys = [(group, numbers, band, value) for band, value in enumerate(_bands(shingles[row]))]
        earlier = sorted({other for key in keys for other in buckets[key]})
        likeness = [(_jaccard(shingles[row], shingles[other]), other) for other in earlier]
        best = max(likeness, key=lambda one: (one[0], -one[1]), default=(0.0, -1))
        if best[0] >= near:
            found.append(Repeat(row, best[1], best[0]))
            continue
        for key in keys:
            buckets[key].append(row)
    return found


def _shingles(read: list[str]) -> frozenset[int]:
    runs = [" ".join(read[start : start + SHINGLE]) for start in range(max(1, len(read) - SHINGLE + 1))]
    return frozenset(int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "big") for run in runs)


def _bands(shingles: frozenset[int]) -> list[bytes]:
    """The min-hashes of a text, a band of several each."""
    hashes = np.fromiter(shingles, np.uint64, len(shingles))
    least: Array = ((hashes[:, None] * MULTIPLIERS) >> np.uint64(11)).min(0)
    return [least[band * ROWS : (band + 1) * ROWS].tobytes() for band in range(BANDS)]


def _jaccard(one: frozenset[int], two: frozenset[int]) -> float:
    return len(one & two) / len(one | two)
