"""Timing with a clock that only moves when a model works, so that every figure is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stillroom.errors import DataError
from stillroom.evaluation.speed import Timing, measure, measure_together, ratio, time_together
from stillroom.rows import Raw, row_count


class World:
    """A clock, and models that take a known time on it; `load` slows everything, as a busy machine does."""

    def __init__(self) -> None:
        self.now = 0.0
        self.load: Callable[[float], float] = lambda now: 1.0
        self.calls: list[tuple[str, int]] = []

    def clock(self) -> float:
        return self.now

    def model(self, name: str, fixed_s: float, row_s: float) -> Callable[[Raw], Any]:
        def answer(raw: Raw) -> None:
            self.calls.append((name, row_count(raw)))
            self.now += (fixed_s + row_s * row_count(raw)) * self.load(self.now)

        return answer


RAW = np.zeros((50, 3))


def test_each_figure_is_what_the_clock_says() -> None:
    world = World()
    timing = time_together({"m": world.model("m", 1e-3, 1e-4)}, RAW, seconds=4, clock=world.clock)["m"]
    figures = timing.figures()
    assert figures["latency_ms_p50"]["mean"] == pytest.approx(1.1)
    assert figures["latency_ms_p95"]["mean"] == pytest.approx(1.1)
    assert figures["latency_ms_p50_batch32"]["mean"] == pytest.approx(1 + 3.2)
    assert figures["rows_per_s"]["mean"] == pytest.approx(1024 / (1e-3 + 0.1024))
    assert all(len(figure["per_seed"]) == 9 for figure in figures.values())
    assert figures["latency_ms_p50"]["ci95"] == pytest.approx([1.1, 1.1])
    assert 3 < world.now < 4.1


def test_models_take_turns_so_a_busy_machine_leaves_their_ratio_alone() -> None:
    world = World()
    world.load = lambda now: 3.0 if 2.0 < now < 4.0 else 1.0
    models = {"teacher": world.model("teacher", 4e-3, 4e-4), "student": world.model("student", 1e-3, 1e-4)}
    timings = time_together(models, RAW, seconds=8, clock=world.clock)
    found = ratio(timings["teacher"], timings["student"], "latency_ms_p50")
    assert found["mean"] == pytest.approx(4, rel=0.3)
    assert np.median(found["per_round"]) == pytest.approx(4)
    slow = timings["student"].figures()["latency_ms_p50"]
    assert max(slow["per_seed"]) == pytest.approx(3.3, rel=0.01)
    assert slow["ci95"][1] > slow["ci95"][0]
    # In turns: each round changes from one model to the other.
    order = [name for place, (name, _) in enumerate(world.calls) if place == 0 or world.calls[place - 1][0] != name]
    assert len(order) > 9


def test_several_seeds_have_a_value_each() -> None:
    world = World()
    seeds = [world.model(f"seed {seed}", 1e-3 * (seed + 1), 1e-5) for seed in range(3)]
    figures = time_together({"student": seeds}, RAW, seconds=3, clock=world.clock)["student"].figures()
    assert figures["latency_ms_p50"]["per_seed"] == pytest.approx([1.01, 2.01, 3.01])
    low, high = figures["latency_ms_p50"]["ci95"]
    assert low < figures["latency_ms_p50"]["mean"] == pytest.approx(2.01)
    assert high == pytest.approx(3.01)


def test_a_slow_model_is_called_little_and_has_no_tail_to_report() -> None:
    world = World()
    figures = time_together({"slow": world.model("slow", 2.0, 0.0)}, RAW, seconds=20, clock=world.clock)[
        "slow"
    ].figures()
    assert "latency_ms_p95" not in figures
    assert list(figures["latency_ms_p50"]) == ["mean", "per_seed"]
    assert len(figures["latency_ms_p50"]["per_seed"]) == 1
    assert world.now < 40
    assert figures["rows_per_s"]["mean"] == pytest.approx(512)


def test_a_tail_is_measured_even_where_the_time_is_short() -> None:
    """Twenty calls a round at least, in fewer rounds; a row that takes long has no tail rather than a long evaluation."""
    world = World()
    models = {"quick": world.model("quick", 2e-3, 1e-5), "slow": world.model("slow", 0.1, 1e-3)}
    found = time_together(models, RAW, seconds=1, clock=world.clock)
    assert found["quick"].figures()["latency_ms_p95"]["mean"] == pytest.approx(2.01)
    assert found["slow"].figures()["latency_ms_p95"]["mean"] == pytest.approx(101)
    assert world.now < 15


def test_batches_hold_exactly_as_many_rows_as_they_say() -> None:
    world = World()
    raw = {"text": np.array(["a", "b", "c"], object), "number": np.arange(3)}
    time_together({"m": world.model("m", 1e-3, 0)}, raw, seconds=0.3, rounds=2, big_batch=100, clock=world.clock)
    assert {rows for _, rows in world.calls} == {1, 32, 100}
    with pytest.raises(DataError, match="no rows"):
        measure(world.model("m", 1, 1), np.zeros((0, 3)))


def test_real_work_on_a_real_clock_ends_in_time_and_is_plain_data() -> None:
    def quick(raw: Raw) -> Any:
        return np.asarray(raw) @ np.ones((3, 4))

    def slower(raw: Raw) -> Any:
        return [np.asarray(raw) @ np.ones((3, 4)) for _ in range(40)]

    found = measure_together({"quick": quick, "slower": [slower, slower]}, RAW, seconds=0.6, rounds=3, big_batch=64)
    json.dumps(found, allow_nan=False)
    assert found["quick"]["latency_ms_p50"]["mean"] < found["slower"]["latency_ms_p50"]["mean"]
    assert len(found["slower"]["rows_per_s"]["per_seed"]) == 2
    alone = measure(quick, RAW, seconds=0.2, rounds=2, big_batch=64)
    assert set(alone) == {"latency_ms_p50", "latency_ms_p95", "latency_ms_p50_batch32", "rows_per_s"}


def test_the_interval_is_over_seeds_and_rounds_together() -> None:
    generator = np.random.default_rng(0)
    value_SR = 10 + generator.normal(size=(4, 1)) + generator.normal(size=(1, 9)) * 0.1
    low, high = Timing({"rows_per_s": value_SR}).figures()["rows_per_s"]["ci95"]
    means = [value_SR[np.ix_(generator.integers(0, 4, 4), generator.integers(0, 9, 9))].mean() for _ in range(4000)]
    assert [low, high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.06)
