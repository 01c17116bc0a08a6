"""The view `mask`: hidden tokens that hang on key and view alone, in the shares of the paper."""

from __future__ import annotations

import numpy as np
import pytest

from questions import tiny_tokenizers as tiny
from stillroom.errors import ModelError, RecipeError
from stillroom.kinds import View
from stillroom.questions.views import Flip, Mask, apply_views, for_tokenizer
from stillroom.rows import Array, content_keys


class Alphabet:
    """As much of a tokenizer as a mask asks for: 1,000 tokens, of which the first five are special."""

    mask_token_id: int | None = 4
    all_special_ids = (0, 1, 2, 3, 4)

    def get_vocab(self) -> dict[str, int]:
        return {str(token): token for token in range(1000)}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def rows(rng: np.random.Generator, count: int = 300, width: int = 40) -> dict[str, Array]:
    """Windows of a masked model: 2 begins, 3 ends, -1 pads."""
    ids = rng.integers(5, 1000, (count, width)).astype(np.int32)
    length = rng.integers(3, width + 1, count)
    place = np.arange(width)
    ids[place >= length[:, None]] = -1
    ids[:, 0], ids[np.arange(count), length - 1] = 2, 3
    return {"ids": ids, "target": np.where(ids >= 5, ids, -1)}


def shown(view: View, raw: dict[str, Array], number: int, keys: Array | None = None) -> dict[str, Array]:
    found = view.apply(raw, content_keys(raw) if keys is None else keys, number)
    assert isinstance(found, dict)
    return found


def test_each_row_hides_its_share_and_at_least_one_token(rng: np.random.Generator) -> None:
    raw = rows(rng)
    for share in (0.01, 0.15, 0.5):
        found = shown(Mask(share=share).for_tokenizer(Alphabet()), raw, 1)
        able, chosen = raw["target"] >= 0, found["target"] >= 0
        assert not (chosen & ~able).any()
        np.testing.assert_array_equal(chosen.sum(1), np.maximum(1, np.rint(share * able.sum(1))))
        np.testing.assert_array_equal(found["target"][chosen], raw["ids"][chosen])
        np.testing.assert_array_equal(found["ids"][~chosen], raw["ids"][~chosen])
        assert found["ids"].dtype == found["target"].dtype == np.int32
    none = {"ids": raw["ids"], "target": np.full_like(raw["target"], -1)}
    for name, column in shown(Mask().for_tokenizer(Alphabet()), none, 1).items():
        np.testing.assert_array_equal(column, none[name])


def test_of_the_chosen_eight_in_ten_are_masked_one_is_random_and_one_stays(rng: np.random.Generator) -> None:
    raw = rows(rng, 4000)
    view, keys = Mask(share=0.5).for_tokenizer(Alphabet()), content_keys(raw)
    found = shown(view, raw, 3, keys)
    chosen = found["target"] >= 0
    now, before = found["ids"][chosen], raw["ids"][chosen]
    masked, same = now == 4, now == before
    assert masked.mean() == pytest.approx(0.8, abs=0.01)
    assert same.mean() == pytest.approx(0.1, abs=0.01)
    drawn = now[~masked & ~same]
    assert drawn.min() >= 5
    assert len(np.unique(drawn)) > 900
    places = chosen.sum(0) / (raw["target"] >= 0).sum(0).clip(1)
    assert np.ptp(places[1:30]) < 0.1, "every place is as likely"
    again = (chosen & (shown(view, raw, 4, keys)["target"] >= 0)).sum() / chosen.sum()
    assert again == pytest.approx(0.5, abs=0.02), "views are unrelated"


def test_a_row_hides_the_same_in_any_order_and_batch(rng: np.random.Generator) -> None:
    raw = rows(rng, 5000)
    keys, view = content_keys(raw), Mask().for_tokenizer(Alphabet())
    whole = shown(view, raw, 2, keys)
    order = rng.permutation(5000)[:700]
    part = shown(view, {name: column[order] for name, column in raw.items()}, 2, keys[order])
    one = shown(view, {name: column[7:8] for name, column in raw.items()}, 2, keys[7:8])
    for name in raw:
        np.testing.assert_array_equal(part[name], whole[name][order])
        np.testing.assert_array_equal(one[name], whole[name][7:8])
    kept = {name: column.copy() for name, column in raw.items()}
    assert apply_views([view], raw, keys, 0) is raw
    assert view.apply(raw, keys, 0) is raw
    for name in raw:
        np.testing.assert_array_equal(raw[name], kept[name])


def test_a_list_of_views_is_told_the_tokenizer() -> None:
    flip, mask = for_tokenizer([Flip(), Mask(share=0.3)], Alphabet())
    assert flip == Flip()
    assert isinstance(mask, Mask)
    assert mask.model_dump() == {"kind": "mask", "share": 0.3}
    assert mask.for_tokenizer(Alphabet()).share == 0.3


def test_what_a_mask_cannot_hide_is_refused(rng: np.random.Generator) -> None:
    raw = rows(rng, 3)
    keys = content_keys(raw)
    with pytest.raises(RecipeError, match="has not been told the tokenizer"):
        Mask().apply(raw, keys, 1)
    for other in (np.zeros((3, 4)), {"text": np.array(["a"], object)}):
        with pytest.raises(RecipeError, match="hides tokens of running text, and these rows are none"):
            Mask().for_tokenizer(Alphabet()).apply(other, keys, 1)
    causal = Alphabet()
    causal.mask_token_id = None
    with pytest.raises(ModelError, match="no mask token"):
        Mask().for_tokenizer(causal)
    for share in (0, 1, -0.1):
        with pytest.raises(ValueError, match="share"):
            Mask(share=share)


def test_a_real_tokenizer_masks_with_its_own_token() -> None:
    tokenizer = tiny.word_piece()
    ids = np.array([[2, *range(5, 25), 3]], np.int32)
    raw = {"ids": ids, "target": np.where(ids >= 5, ids, -1)}
    found = [shown(Mask().for_tokenizer(tokenizer), raw, view) for view in range(1, 60)]
    assert {int((one["target"] >= 0).sum()) for one in found} == {3}
    assert sum((one["ids"] == tokenizer.mask_token_id).any() for one in found) > 50
    assert max(int(one["ids"].max()) for one in found) < len(tokenizer)
