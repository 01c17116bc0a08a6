"""Rows that stand or fall together in a split: those of one value, or the phrases of one sentence.

A phrase belongs to the longest row whose text contains it, word for word; so a split by such groups never trains on the
pieces of a sentence it is validated on. Each group has a key made of its value or its longest text, so that groups, like
rows, are drawn by their content. This file knows texts and keys; it knows no split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from stillroom.columns import objects
from stillroom.questions.dice import mix
from stillroom.rows import Array, content_keys

WORD = re.compile(r"\w+|[^\w\s]")
"""A word, or one mark that is none; upper and lower case are the same."""
BASE = 0x9E3779B97F4A7C15 | 1


def value_keys(value_N: Array, key_N: Array) -> Array:
    """The key of each row's group [N, 16], where rows of one value are a group; a row without one is its own (`key_N`)."""
    values = ["" if value is None or value != value else str(value) for value in value_N.tolist()]
    keys = content_keys(objects(values))
    alone_N = np.array([not value.strip() for value in values], bool)
    return np.where(alone_N[:, None], key_N, keys)


def containing_keys(texts: Sequence[str]) -> Array:
    """The key of each row's group [N, 16], where a group is a text that no other contains and all phrases in it."""
    phrases = [_phrase(text) for text in texts]
    longest = containers(phrases)
    return content_keys(objects([longest[phrase] for phrase in phrases]))


def contained(texts: Sequence[str], others: Sequence[str]) -> Array:
    """True where a text stands, word for word, in one of `others`, bool [N]."""
    within = {_phrase(text) for text in others}
    phrases = [_phrase(text) for text in texts]
    longest = containers([*phrases, *within], within)
    return np.fromiter((longest[phrase] in within for phrase in phrases), bool, len(phrases))


def _phrase(text: str) -> str:
    """The words of a text, with one blank between them."""
    return " ".join(WORD.findall(text.casefold()))


def containers(phrases: Sequence[str], among: set[str] | None = None) -> dict[str, str]:
    """For each phrase, the longest one that contains it as a run of words; of equally long ones the first by the alphabet.

    Phrases, words with one blank between them, are looked at from the longest down, and only those that stand in no other
    are looked into, since whatever stands in a phrase stands in its container. Only phrases of `among` are looked into
    where it is given.
    """
    length_of = {phrase: phrase.count(" ") + 1 if phrase else 0 for phrase in phrases}
    rows = sorted(sorted(length_of), key=length_of.__getitem__, reverse=True)
    lines = _Lines([length_of[row] for row in rows], " ".join(rows).split())
    found: dict[str, str] = {}
    for length in sorted(set(length_of.values()), reverse=True):
        of_length = np.flatnonzero(lines.length_R == length)
        container_R = lines.find(of_length, length) if length else np.full(len(of_length), -1)
        for row, container in zip(of_length.tolist(), container_R.tolist(), strict=True):
            found[rows[row]] = rows[container if container >= 0 else row]
            if container < 0 and (among is None or rows[row] in among):
                lines.open(row)
    return found


def _powers(base: int, count: int) -> Array:
    """base^0 .. base^(count - 1), modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    powers: Array = np.cumprod(factors)
    return powers


class _Lines:
    """All phrases one after another as numbers, and the places of those that are looked into."""

    def __init__(self, lengths: Sequence[int], words: Sequence[str]) -> None:
        number = {word: place for place, word in enumerate(dict.fromkeys(words))}
        self.length_R = np.array(lengths, np.int64)
        self.start_R = np.cumsum(self.length_R) - self.length_R
        self.row_I = np.repeat(np.arange(len(lengths)), self.length_R)
        self.word_I = np.fromiter(map(number.__getitem__, words), np.int64, len(words))
        self.into: list[Array] = []
        # A run of words is hashed as a difference of sums of word x base^place, brought to place 0; all modulo 2^64.
        count = len(self.word_I)
        self.back_I = _powers(pow(BASE, -1, 1 << 64), count)
        self.sum_I = np.zeros(count + 1, np.uint64)
        np.cumsum(mix(self.word_I.astype(np.uint64) + np.uint64(1)) * _powers(BASE, count), out=self.sum_I[1:])

    def open(self, row: int) -> None:
        """Look into this phrase from now on."""
        self.into.append(np.arange(self.start_R[row], self.start_R[row] + self.length_R[row]))

    def _hashes(self, start: Array, length: int) -> Array:
        hashes: Array = (self.sum_I[start + length] - self.sum_I[start]) * self.back_I[start]
        return hashes

    def find(self, row_P: Array, length: int) -> Array:
        """The first phrase looked into that contains each of these phrases of `length` words, [P]; -1 where none does."""
        container_P = np.full(len(row_P), -1)
        if not self.into:
            return container_P
        start = np.concatenate(self.into)
        start = start[start + length <= (self.start_R + self.length_R)[self.row_I[start]]]
        hash_P = self._hashes(self.start_R[row_P], length)
        order = np.argsort(hash_P, kind="stable")
        hashes = self._hashes(start, length)
        place = np.minimum(np.searchsorted(hash_P[order], hashes), len(order) - 1)
        hit = np.flatnonzero(hash_P[order[place]] == hashes)
        start, phrase = start[hit], order[place[hit]]
        # Equal hashes are taken for equal words only where the words are.
        step = np.arange(length)
        same = (self.word_I[start[:, None] + step] == self.word_I[self.start_R[row_P[phrase]][:, None] + step]).all(1)
        first, at = np.unique(phrase[same], return_index=True)
        container_P[first] = self.row_I[start[same][at]]
        return container_P
