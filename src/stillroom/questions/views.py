"""Views of a question: shifted, mirrored or noisy rows. View 0 is the row as it was given.

What happens to a row follows from its content key and the view's number alone (dice.py), so an answer stored for
(key, view) is the answer to just the rows that a student will be shown, in whatever order and batch it meets them.
This file knows rows; it does not know how many views a run makes, or who looks at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided
from pydantic import Field

from stillroom.errors import RecipeError
from stillroom.kinds import View
from stillroom.questions.dice import GOLDEN, draws, mix, normals, seeds, whole_numbers
from stillroom.rows import PLAIN_VIEW, Array, Raw

CHUNK = 4096
"""Rows padded or made noisy at a time, so that a whole data set needs little room beside its copy."""


class Shift(View):
    """Move an image by up to `pixels` in each direction, all moves equally likely; the bared edge is 0."""

    kind: Literal["shift"] = "shift"
    pixels: int = Field(ge=1, le=128)

    def apply(self, raw: Raw, key_N: Array, view: int) -> Raw:
        if view == PLAIN_VIEW:
            return raw
        images = _images(raw, self.kind)
        start_N2 = whole_numbers(draws(seeds(key_N), self.kind, view, 2), 2 * self.pixels + 1)
        shifted = np.empty_like(images)
        for first in range(0, len(images), CHUNK):
            rows = slice(first, first + CHUNK)
            windows = _windows(images[rows], self.pixels)
            shifted[rows] = windows[np.arange(len(windows)), start_N2[rows, 0], start_N2[rows, 1]]
        return shifted


class Flip(View):
    """Mirror an image left to right, every second one by chance."""

    kind: Literal["flip"] = "flip"

    def apply(self, raw: Raw, key_N: Array, view: int) -> Raw:
        if view == PLAIN_VIEW:
            return raw
        images = _images(raw, self.kind)
        flipped = images.copy()
        chosen = np.flatnonzero(whole_numbers(draws(seeds(key_N), self.kind, view, 1)[:, 0], 2))
        flipped[chosen] = images[chosen][:, :, ::-1]
        return flipped


class Noise(View):
    """Add normal noise of standard deviation `std`, in the units of the values themselves."""

    kind: Literal["noise"] = "noise"
    std: float = Field(gt=0)

    def apply(self, raw: Raw, key_N: Array, view: int) -> Raw:
        if view == PLAIN_VIEW:
            return raw
        if isinstance(raw, dict) or raw.dtype.kind not in "fiu":
            raise RecipeError(
                "noise of one size fits arrays, and these rows are named columns, each of its own unit",
                where="questions.augment",
                cure="Take this view out, or give the numbers as an .npz with x and y",
            )
        pixels = raw.dtype == np.uint8 and raw.ndim > 2
        noisy = np.empty(raw.shape, np.uint8 if pixels else np.result_type(raw.dtype, np.float32))
        values = int(np.prod(raw.shape[1:]))
        seed_N = seeds(key_N)
        for first in range(0, len(raw), CHUNK):
            rows = slice(first, first + CHUNK)
            noise = normals(draws(seed_N[rows], self.kind, view, values + values % 2))[:, :values]
            changed = raw[rows] + self.std * noise.reshape(raw[rows].shape)
            noisy[rows] = np.clip(np.rint(changed), 0, 255) if pixels else changed
        return noisy


def apply_views(views: Sequence[View], raw: Raw, key_N: Array, view: int) -> Raw:
    """The rows as view number `view` of the whole list shows them; two views of one kind roll independently."""
    if view == PLAIN_VIEW:
        return raw
    for place, part in enumerate(views):
        raw = part.apply(raw, _keys_for(key_N, place), view)
    return raw


def _keys_for(key_N: Array, place: int) -> Array:
    """Keys for the view at this place of a list: other dice than at any other place, the row's own at the first."""
    if place == 0:
        return key_N
    turned = mix(seeds(key_N) + np.uint64(place * GOLDEN & 0xFFFFFFFFFFFFFFFF))
    return turned.astype("<u8").view(np.uint8).reshape(-1, 8)


def _images(raw: Raw, kind: str) -> Array:
    if isinstance(raw, dict) or raw.ndim not in (3, 4):
        raise RecipeError(
            f"the view {kind!r} is for images, and these rows are none",
            where="questions.augment",
            cure="Take this view out",
        )
    return raw


def _windows(images: Array, pixels: int) -> Array:
    """[N, 2p+1, 2p+1, H, W(, C)]: every move of every image, as a look into one padded copy."""
    count, height, width, *channels = images.shape
    padded = np.zeros((count, height + 2 * pixels, width + 2 * pixels, *channels), images.dtype)
    padded[:, pixels : pixels + height, pixels : pixels + width] = images
    row, down, right, *inner = padded.strides
    return as_strided(
        padded,
        (count, 2 * pixels + 1, 2 * pixels + 1, *images.shape[1:]),
        (row, down, right, down, right, *inner),
        writeable=False,
    )
