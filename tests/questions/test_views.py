"""Views: the same rows for whoever asks, in any order, batch or process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stillroom.errors import RecipeError
from stillroom.kinds import View, parse
from stillroom.questions.dice import draws, normals, seeds, whole_numbers
from stillroom.questions.views import Flip, Noise, Shift, apply_views
from stillroom.rows import content_keys

IMAGES = {"grey": (40, 9, 8), "colour": (40, 9, 8, 3)}
VIEWS: list[list[View]] = [
    [Shift(pixels=2)],
    [Flip()],
    [Noise(std=20)],
    [Shift(pixels=1), Flip(), Noise(std=3)],
    [Noise(std=3), Noise(std=3)],
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def images(rng: np.random.Generator, form: str = "grey") -> Any:
    return rng.integers(0, 256, IMAGES[form], dtype=np.uint8)


@pytest.mark.parametrize("form", IMAGES)
@pytest.mark.parametrize("views", VIEWS, ids=lambda views: "+".join(view.kind for view in views))
def test_a_row_is_seen_the_same_in_any_order_and_batch(views: list[View], form: str, rng: np.random.Generator) -> None:
    raw = images(rng, form)
    keys = content_keys(raw)
    for view in (1, 2, 2**40 + 7):
        whole = apply_views(views, raw, keys, view)
        assert whole.dtype == raw.dtype
        assert whole.shape == raw.shape
        order = rng.permutation(len(raw))
        np.testing.assert_array_equal(apply_views(views, raw[order], keys[order], view), whole[order])
        for size in (1, 7):
            parts = [apply_views(views, raw[i : i + size], keys[i : i + size], view) for i in range(0, len(raw), size)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert apply_views(views, raw[:0], keys[:0], view).shape == raw[:0].shape


@pytest.mark.parametrize("views", VIEWS, ids=lambda views: "+".join(view.kind for view in views))
def test_view_0_is_the_row_as_given_and_others_differ(views: list[View], rng: np.random.Generator) -> None:
    raw = images(rng)
    kept = raw.copy()
    keys = content_keys(raw)
    assert apply_views(views, raw, keys, 0) is raw
    assert all(view.apply(raw, keys, 0) is raw for view in views)
    seen = [apply_views(views, raw, keys, view) for view in range(4)]
    for one in range(4):
        for other in range(one):
            assert (seen[one] != seen[other]).any()
    np.testing.assert_array_equal(raw, kept)


def test_another_process_sees_the_same_view(rng: np.random.Generator) -> None:
    raw = images(rng)
    program = """
import json, sys
import numpy as np
from stillroom.questions.views import Flip, Shift, apply_views
from stillroom.rows import content_keys
raw = np.array(json.load(sys.stdin), np.uint8)
json.dump(apply_views([Shift(pixels=2), Flip()], raw, content_keys(raw), 3).tolist(), sys.stdout)
"""
    given = json.dumps(raw[::-1].tolist())
    out = subprocess.run(
        [sys.executable, "-c", program], input=given, capture_output=True, text=True, check=True
    ).stdout
    seen = apply_views([Shift(pixels=2), Flip()], raw, content_keys(raw), 3)
    np.testing.assert_array_equal(np.array(json.loads(out))[::-1], seen)


@pytest.mark.parametrize("form", IMAGES)
@pytest.mark.parametrize("pixels", [1, 3, 12])
def test_a_shift_moves_the_image_and_fills_with_0(pixels: int, form: str, rng: np.random.Generator) -> None:
    raw = np.maximum(images(rng, form), 1)
    keys = content_keys(raw)
    shifted = Shift(pixels=pixels).apply(raw, keys, 5)
    start = whole_numbers(draws(seeds(keys), "shift", 5, 2), 2 * pixels + 1)
    for row, (down, right) in enumerate(pixels - start):
        expected = np.zeros_like(raw[row])
        for y in range(raw.shape[1]):
            for x in range(raw.shape[2]):
                if 0 <= y - down < raw.shape[1] and 0 <= x - right < raw.shape[2]:
                    expected[y, x] = raw[row][y - down, x - right]
        np.testing.assert_array_equal(shifted[row], expected)


def test_all_moves_are_equally_likely(rng: np.random.Generator) -> None:
    keys = rng.integers(0, 256, (4000, 16), dtype=np.uint8)
    dot = np.zeros((len(keys), 5, 5), np.uint8)
    dot[:, 2, 2] = 1
    count = Counter(
        np.concatenate([Shift(pixels=2).apply(dot, keys, v).reshape(-1, 25).argmax(1) for v in range(1, 6)])
    )
    assert len(count) == 25
    expected = 5 * len(keys) / 25
    # Chi-squared with 24 degrees of freedom; 70 has a chance of 2 in a million.
    assert sum((seen - expected) ** 2 / expected for seen in count.values()) < 70


def test_half_the_images_are_mirrored(rng: np.random.Generator) -> None:
    raw = rng.integers(0, 256, (2000, 3, 4), dtype=np.uint8)
    flipped = Flip().apply(raw, content_keys(raw), 1)
    same = (flipped == raw).all((1, 2))
    mirrored = (flipped == raw[:, :, ::-1]).all((1, 2))
    assert (same | mirrored).all()
    assert 880 < same.sum() < 1120


@pytest.mark.parametrize("columns", [3, 4])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_noise_has_the_deviation_asked_for(columns: int, dtype: Any, rng: np.random.Generator) -> None:
    raw = rng.normal(0, 50, (5000, columns)).astype(dtype)
    noise = Noise(std=0.5).apply(raw, content_keys(raw), 1) - raw
    assert np.issubdtype(noise.dtype, np.floating)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(noise.std(0), 0.5, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(columns), atol=0.08)


def test_noise_keeps_an_image_within_its_levels(rng: np.random.Generator) -> None:
    raw = rng.choice(np.array([0, 255], np.uint8), (50, 4, 4))
    noisy = Noise(std=30).apply(raw, content_keys(raw), 1).astype(int)
    assert (np.abs(noisy - raw) < 200).all()
    assert (noisy != raw).any()


def test_draws_of_other_purposes_numbers_and_places_are_unrelated(rng: np.random.Generator) -> None:
    seed = seeds(rng.integers(0, 256, (3000, 16), dtype=np.uint8))
    columns = [draws(seed, "a", 1, 2), draws(seed, "a", 2, 2), draws(seed, "b", 1, 2)]
    together = np.concatenate([normals(column) for column in columns], axis=1)
    np.testing.assert_allclose(np.corrcoef(together.T), np.eye(6), atol=0.1)
    assert len(np.unique(np.concatenate(columns, axis=1))) == 6 * len(seed)


def test_two_views_of_one_kind_in_a_list_roll_independently(rng: np.random.Generator) -> None:
    raw = np.zeros((3000, 9, 9), np.uint8)
    raw[:, 4, 4] = 1
    keys = rng.integers(0, 256, (3000, 16), dtype=np.uint8)
    shift = Shift(pixels=1)
    ends = apply_views([shift, shift], raw, keys, 1).reshape(3000, -1).argmax(1)
    twice = Shift(pixels=1).apply(shift.apply(raw, keys, 1), keys, 1).reshape(3000, -1).argmax(1)
    assert (ends != twice).any()
    assert len(set(ends)) == 25
    assert len(set(twice)) == 9


def test_a_view_says_what_rows_it_cannot_show(rng: np.random.Generator) -> None:
    table = {"a": rng.normal(size=3)}
    keys = content_keys(table)
    for view in (Shift(pixels=1), Flip(), Noise(std=1)):
        with pytest.raises(RecipeError, match=r"questions\.augment"):
            view.apply(table, keys, 1)
    with pytest.raises(RecipeError, match="'shift' is for images"):
        Shift(pixels=1).apply(rng.normal(size=(3, 4)), keys, 1)


def test_knobs_are_checked_and_a_recipe_finds_the_views() -> None:
    assert parse("view", {"kind": "shift", "pixels": 2}) == Shift(pixels=2)
    assert parse("view", {"kind": "flip"}) == Flip()
    assert parse("view", {"kind": "noise", "std": 0.1}) == Noise(std=0.1)
    for wrong in (lambda: Shift(pixels=0), lambda: Noise(std=0)):
        with pytest.raises(ValidationError):
            wrong()
