"""Where a window is cut for going on from, what a round draws, and windows made of what was written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.models.tiny_models import byte_pairs

from stillroom.questions.on_policy import OnPolicy
from stillroom.questions.windows import prompt_lengths, questions_of, written_windows
from stillroom.recipe import Rounds
from stillroom.rows import Array
from stillroom.stages.on_policy_rounds import Part, drawn, parts_of
from stillroom.training.language_history import gone_on


def rows(*pairs: tuple[list[int], list[int]], length: int = 8) -> Any:
    """Windows of these ids and targets, padded."""
    raw = {
        name: np.array([(one[place] + [-1] * length)[:length] for one in pairs], np.int32)
        for place, name in enumerate(("ids", "target"))
    }
    return questions_of(raw, np.arange(len(pairs)))


def test_where_a_window_is_gone_on_from() -> None:
    tokenizer = byte_pairs(300)
    whole = ([1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6, 7, 8, -1])
    short = ([1, 2, 3], [2, 3, -1])
    spoken = ([1, 2, 3, 4, 5, 6], [-1, -1, -1, 5, 6, -1])
    nothing = ([1, 2, 3, 4, 5], [-1, -1, -1, -1, -1])
    found = prompt_lengths(rows(whole, short, spoken, nothing), 4, tokenizer)
    assert found.tolist() == [4, 0, 4, 0]
    assert prompt_lengths(rows(whole, short, spoken), 3, tokenizer).tolist() == [3, 3, 4]
    assert prompt_lengths(rows(whole, short), 8, tokenizer).tolist() == [0, 0]


def test_windows_of_what_was_written() -> None:
    found = written_windows([[1, 2, 3], [4]], [[5, 6], [7, 8, 9]], 6, np.array([3, 0]))
    assert isinstance(found.raw, dict)
    assert found.raw["ids"].tolist() == [[1, 2, 3, 5, 6, -1], [4, 7, 8, 9, -1, -1]]
    assert found.raw["target"].tolist() == [[-1, -1, 5, 6, -1, -1], [7, 8, 9, -1, -1, -1]]
    assert found.row_N.tolist() == [3, 0]
    again = written_windows([[1, 2, 3]], [[5, 6]], 6, np.array([9]))
    assert again.key_N[0].tobytes() == found.key_N[0].tobytes()
    other_cut = written_windows([[1, 2]], [[3, 5, 6]], 6, np.array([9]))
    assert other_cut.key_N[0].tobytes() != found.key_N[0].tobytes()


@pytest.mark.parametrize(
    ("share", "budgets", "expected"),
    [
        (0.5, [10, 30], [Part(10, 10), Part(20, 20)]),
        (1.0, [4, 5], [Part(4, 0), Part(1, 0)]),
        (0.25, [8], [Part(8, 24)]),
        (0.75, [3, 12], [Part(3, 1), Part(9, 3)]),
    ],
)
def test_the_windows_of_each_round(share: float, budgets: list[int], expected: list[Part]) -> None:
    knobs = OnPolicy(share=share)
    rounds = Rounds.model_validate({"strategy": knobs, "budgets": budgets})
    assert parts_of(rounds, knobs) == expected


def test_a_round_draws_what_can_be_gone_on_from_each_once_before_any_comes_again() -> None:
    prompt_N = np.array([0, 4, 4, 0, 4, 4])
    found = drawn(prompt_N, OnPolicy(), Part(6, 3), 0, 1)
    assert len(found) == 9
    assert sorted(found[:4].tolist()) == sorted(found[4:8].tolist()) == [1, 2, 4, 5]
    assert set(found.tolist()) == {1, 2, 4, 5}
    many = np.full(500, 4)
    draws = [drawn(many, OnPolicy(), Part(20, 20), seed, number) for seed in range(2) for number in (1, 2)]
    assert len({draw.tobytes() for draw in draws}) == 4
    again: Array = drawn(many, OnPolicy(), Part(20, 20), 1, 2)
    np.testing.assert_array_equal(again, draws[3])


def history(steps: int, rounds: list[int] | None = None) -> dict[str, Any]:
    curve = [{"step": float(step), "epoch": step / steps, "loss": 1.0 / step} for step in range(1, steps + 1)]
    found = {
        "curve": curve,
        "gradient_norms": {"soft_target": [1.0]},
        "steps": steps,
        "seconds": 2.0,
        "best_epoch": None,
    }
    return found | ({} if rounds is None else {"rounds": rounds})


def test_histories_are_put_one_after_another() -> None:
    found = gone_on(gone_on(history(3), history(2)), history(4))
    assert [point["step"] for point in found["curve"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [point["epoch"] for point in found["curve"]][-1] == 3
    assert (found["rounds"], found["steps"], found["seconds"]) == ([3, 5, 9], 9, 6.0)
    assert found["gradient_norms"] == {"soft_target": [1.0, 1.0, 1.0]}
