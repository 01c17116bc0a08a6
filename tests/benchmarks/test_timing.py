"""Blocks take turns; a ratio is taken within a round, its median and interval over rounds."""

from __future__ import annotations

import pytest
from benchmarks.timing import middle, paired_difference, paired_ratio, rounds


def test_every_block_runs_once_a_round_and_each_round_starts_with_another() -> None:
    order: list[str] = []
    blocks = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = rounds(blocks, 3)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert len(order) == 12  # one round before the first is not counted
    assert [order[place] for place in (3, 6, 9)] == ["a", "b", "c"]


def test_a_slow_round_slows_both_and_leaves_the_ratio() -> None:
    plain = [1.0, 1.0, 9.0, 1.0, 1.0]
    ratio, ends = paired_ratio([2 * one for one in plain], plain)
    assert ratio == 2.0
    assert ends == [2.0, 2.0]
    assert paired_difference([3.0, 4.0], [1.0, 2.0])[0] == 2.0


@pytest.mark.parametrize(("count", "place"), [(1, 0), (5, 0), (6, 0), (9, 1), (20, 5)])
def test_the_interval_is_of_order_statistics(count: int, place: int) -> None:
    _, ends = middle([float(value) for value in range(count)])
    assert ends == [place, count - 1 - place]
