"""Views of a question: shifted, mirrored or noisy rows, or rows with hidden tokens. View 0 is the row as it was given.

What happens to a row follows from its content key, the list of views and the view's number alone (dice.py), so an answer
stored for (key, view id) is the answer to just the rows that a student will be shown, in whatever order and batch it meets
them. This file knows rows; it does not know how many views a run makes, or who looks at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided
from pydantic import Field, PrivateAttr

from stillroom.errors import ModelError, RecipeError
from stillroom.kinds import View
from stillroom.questions.dice import GOLDEN, draws, mix, normals, seeds, whole_numbers
from stillroom.rows import PADDING, PLAIN_VIEW, Array, Raw
from stillroom.rundir import fingerprint

CHUNK = 4096
"""Rows padded or made noisy at a time, so that a whole data set needs little room beside its copy."""
NUMBER_BITS = 20
"""Of a view id that hold its number; the other 43 hold what the views are, and the sign stays free."""
DRAWN = 1
"""How views roll their dice; a change of that makes other rows, so their answers must get other ids."""


def view_id(views: Sequence[View], number: int) -> int:
    """What the answers to view `number` > 0 of these views are kept under, at least 2**20 and less than 2**63.

    Shifted by 2 and shifted by 4 are different questions, so the id is made of what the views are and of the number.
    Without views, or for number 0, it is PLAIN_VIEW.
    """
    if not views or number == PLAIN_VIEW:
        return PLAIN_VIEW
    assert 0 < number < 1 << NUMBER_BITS, "questions.views is bounded below that"
    chain = int(fingerprint("views", DRAWN, [view.model_dump(mode="json") for view in views])[:16], 16)
    # No chain is 0, so an id is never taken for a plain number.
    return (chain % ((1 << 63 - NUMBER_BITS) - 1) + 1) << NUMBER_BITS | number


def view_number(view: int) -> int:
    """The number in a view id; a plain number stays what it is."""
    return view & (1 << NUMBER_BITS) - 1


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


@dataclass(frozen=True, eq=False)
class Alphabet:
    """What masking must know of a tokenizer: its mask token, and the ids [V] that a random token is drawn from."""

    mask: int
    plain_V: Array


class Mask(View):
    """Hide tokens to be predicted (Devlin et al. 2018): of those chosen 80 % become the mask token, 10 % a random one.

    It is for windows of a masked model (see windows.py): raw `ids` [N, T] and `target` [N, T], where the target is the id
    that stands there, or -1 where none may be chosen. Afterwards only chosen positions have a target.
    """

    kind: Literal["mask"] = "mask"
    share: float = Field(default=0.15, gt=0, lt=1)
    """Of a row's tokens, that are chosen; at least one is."""
    _alphabet: Alphabet | None = PrivateAttr(None)

    def for_tokenizer(self, tokenizer: Any) -> Mask:
        """The same view, able to hide this tokenizer's tokens. Raises ModelError where it has no mask token."""
        mask = tokenizer.mask_token_id
        if mask is None:
            raise ModelError(
                "this tokenizer has no mask token, so its model cannot be asked for hidden tokens",
                where="questions.augment",
                cure="Take the view mask out for a causal model, or use a masked model's tokenizer",
            )
        bound = self.model_copy()
        plain = {*tokenizer.get_vocab().values()} - {mask, *tokenizer.all_special_ids}
        bound._alphabet = Alphabet(mask, np.array(sorted(plain), np.int32))
        return bound

    def apply(self, raw: Raw, key_N: Array, view: int) -> Raw:
        if view == PLAIN_VIEW:
            return raw
        if not isinstance(raw, dict) or not {"ids", "target"} <= set(raw):
            raise RecipeError(
                "the view 'mask' hides tokens of running text, and these rows are none",
                where="questions.augment",
                cure="Take this view out",
            )
        if self._alphabet is None:
            raise RecipeError(
                "the view 'mask' has not been told the tokenizer",
                where="questions.augment",
                cure="Use Mask.for_tokenizer(tokenizer), which gives a view that has",
            )
        ids, target = raw["ids"].copy(), np.full_like(raw["target"], PADDING)
        seed_N = seeds(key_N)
        for first in range(0, len(ids), CHUNK):
            rows = slice(first, first + CHUNK)
            self._hide(ids[rows], target[rows], raw["target"][rows], seed_N[rows], view, self._alphabet)
        return {**raw, "ids": ids, "target": target}

    def _hide(self, ids: Array, target: Array, there: Array, seed_N: Array, view: int, alphabet: Alphabet) -> None:
        """Choose positions of some rows, and write ids and targets of the chosen."""
        width = ids.shape[1]
        rank, action, other = np.split(draws(seed_N, self.kind, view, 3 * width), 3, axis=1)
        # Positions that may not be chosen rank last; all draws of a row differ, up to a chance of 1 in 2^50.
        order = np.argsort(np.where(there >= 0, rank >> np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)), axis=1)
        count_N = (there >= 0).sum(1)
        wanted_N = np.minimum(np.maximum(np.rint(self.share * count_N), 1), count_N)
        chosen = np.zeros(ids.shape, bool)
        np.put_along_axis(chosen, order, np.arange(width) < wanted_N[:, None], axis=1)
        target[chosen] = there[chosen]
        tenth = whole_numbers(action[chosen], 10)
        random = alphabet.plain_V[whole_numbers(other[chosen], len(alphabet.plain_V))]
        ids[chosen] = np.where(tenth < 8, alphabet.mask, np.where(tenth == 8, random, ids[chosen]))


def apply_views(views: Sequence[View], raw: Raw, key_N: Array, view: int) -> Raw:
    """The rows as view number `view` of the whole list shows them; two views of one kind roll independently."""
    if view == PLAIN_VIEW:
        return raw
    for place, part in enumerate(views):
        raw = part.apply(raw, _keys_for(key_N, place), view)
    return raw


def for_tokenizer(views: Sequence[View], tokenizer: Any) -> tuple[View, ...]:
    """The same views, those that hide tokens able to hide this tokenizer's. Raises ModelError, as Mask.for_tokenizer."""
    return tuple(view.for_tokenizer(tokenizer) if isinstance(view, Mask) else view for view in views)


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
