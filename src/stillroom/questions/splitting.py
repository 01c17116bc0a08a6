"""Which rows go where: stratified draws that hang on a seed and the rows' content, not on their order.

A row's rank is a hash of its content key, the seed and the purpose (dice.py); of each class the rows of lowest rank are
drawn. So the same rows are drawn from a shuffled file, and almost the same from one that grew. Rows that depend on each
other, such as the phrases of a sentence, are drawn by whole groups, whose rank is that of a key they share. This file
knows codes and keys; it knows no file and no label.
"""

from __future__ import annotations

import numpy as np

from stillroom.errors import DataError
from stillroom.questions.dice import GOLDEN, draws, mix, seeds
from stillroom.rows import Array


def wanted_rows(amount: float, labelled: int) -> int:
    """How many rows a knob asks for: a share of the labelled rows where it is below 1 (at least one), else a count."""
    return int(amount) if amount >= 1 else max(1, round(amount * labelled))


def draw(code_N: Array, key_N: Array, wanted: int, keep: int, seed: int, purpose: str) -> Array:
    """Indices, in order, of `wanted` labelled rows, stratified; of each class `keep` rows stay where there are more.

    A class with just `keep` rows or fewer still gives all but one of them. Every class gives at least one row where it
    can. Raises DataError where so many rows cannot be given.
    """
    count_C = np.bincount(code_N[code_N >= 0])
    most_C = np.where(count_C > keep, count_C - keep, np.maximum(count_C - 1, 0)) if keep else count_C
    if wanted > most_C.sum():
        raise DataError(
            f"{purpose} asks for {wanted:,} labelled {'row' if wanted == 1 else 'rows'}, and {most_C.sum():,} of "
            f"{count_C.sum():,} can go there if every class keeps some for training",
            where=f"questions.{purpose}",
            cure="Give more labelled rows, or ask for fewer",
        )
    take_C = quotas(count_C, most_C, wanted)
    rank_N = _rank(key_N, seed, purpose)
    chosen = []
    for code, take in enumerate(take_C):
        of_class = np.flatnonzero(code_N == code)
        chosen.append(of_class[np.argsort(rank_N[of_class], kind="stable")[:take]])
    return np.sort(np.concatenate(chosen))


def draw_groups(key_N: Array, size_N: Array, wanted: float, keep: int, seed: int, purpose: str) -> Array:
    """Indices, in order, of whole groups: by rank, each that brings the sum of their sizes nearer to `wanted`.

    Rows of equal `key_N` [N, 16] are one group; its size is the sum of `size_N`, and a group of size 0 is not drawn. At
    least one group is drawn, and `keep` of them stay. Raises DataError where there are too few, or `wanted` is too much.
    """
    key_G, group_N = np.unique(key_N, axis=0, return_inverse=True)
    size_G = np.bincount(group_N.reshape(-1), size_N, minlength=len(key_G))
    able = np.flatnonzero(size_G > 0)
    if len(able) <= keep:
        raise DataError(
            f"{purpose} wants whole groups or documents, and there {_are(len(able))} in the training rows, copies counted "
            "once",
            where=f"questions.{purpose}",
            cure="Give the rows of this split in a file of their own: source: {train: .., validation: .., test: ..}",
        )
    most = size_G.sum() - np.sort(size_G[able])[:keep].sum()
    if wanted > most:
        raise DataError(
            f"{purpose} asks for {wanted:,.0f}, and {most:,.0f} of {size_G.sum():,.0f} can go there if whole groups are "
            "kept together and some stay for training",
            where=f"questions.{purpose}",
            cure="Ask for fewer, or give more rows",
        )
    chosen: list[int] = []
    missing = wanted
    for group in able[np.argsort(_rank(key_G[able], seed, purpose), kind="stable")].tolist():
        if size_G[group] < 2 * missing and len(chosen) < len(able) - keep:
            chosen.append(group)
            missing -= size_G[group]
    chosen = chosen or [int(able[np.argmin(size_G[able])])]
    return np.flatnonzero(np.isin(group_N.reshape(-1), chosen))


def _are(count: int) -> str:
    return "is just one" if count == 1 else f"are just {count:,}"


def quotas(count_C: Array, most_C: Array, wanted: int) -> Array:
    """How many rows each class gives: in proportion to `count_C`, at most `most_C`, at least one, together `wanted`."""
    share_C = wanted * count_C / count_C.sum()
    take_C: Array = np.minimum(np.maximum(np.floor(share_C).astype(np.int64), 1), most_C)
    while (missing := wanted - take_C.sum()) > 0:
        behind_C = np.where(take_C < most_C, share_C - take_C, -np.inf)
        able = np.argsort(-behind_C, kind="stable")[: np.count_nonzero(take_C < most_C)]
        take_C[able[:missing]] += 1
    while (over := take_C.sum() - wanted) > 0:
        # First from classes that give several; from the others only where there are more classes than rows wanted.
        ahead_C = np.where(take_C > 1, take_C - share_C + count_C.sum(), take_C - share_C)
        ahead_C[take_C == 0] = -np.inf
        spare = np.count_nonzero(take_C > 1) or np.count_nonzero(take_C)
        take_C[np.argsort(-ahead_C, kind="stable")[: min(spare, over)]] -= 1
    return take_C


def _rank(key_N: Array, seed: int, purpose: str) -> Array:
    """A hash for each row; copies of one row are told apart by their count, so that they do not all go one way."""
    word_N = seeds(key_N)
    order = np.argsort(word_N, kind="stable")
    ordered = word_N[order]
    first_N = np.searchsorted(ordered, ordered, side="left")
    copy_N = np.empty(len(word_N), np.uint64)
    copy_N[order] = np.arange(len(word_N)) - first_N
    rank_N: Array = draws(mix(word_N + copy_N * np.uint64(GOLDEN)), purpose, seed, 1)[:, 0]
    return rank_N
