"""Timing language models with a clock that only moves when they work; and memory, where a process fails to tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from language_double import Double, Words, Written, double, windows
from stillroom.evaluation.language_memory import peak_memory_mib
from stillroom.evaluation.language_predictions import Windows
from stillroom.evaluation.language_speed import measure_language
from stillroom.models.device import Device
from stillroom.rows import Output, Tokens


class World:
    """A clock, and models that take a known time on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now


class Slow(Double):
    """Takes `token_s` for each token it reads or writes, and `first_s` before it writes any; ends after `most` tokens."""

    def __init__(self, world: World, name: str, token_s: float, first_s: float = 0.0, most: int = 99) -> None:
        self.inner = double(1).network

        class Network(torch.nn.Module):
            def forward(network, tokens: Tokens) -> Output:
                world.now += token_s * int((tokens.ids_BT >= 0).sum())
                world.calls.append(name)
                found: Output = self.inner(tokens)
                return found

        self.network, self.tokenizer, self.context = Network(), Words(20), 64  # type: ignore[assignment]
        self.world, self.token_s, self.first_s, self.most = world, token_s, first_s, most

    def generate(
        self, prompts: Sequence[list[int]], max_new_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Written]:
        assert [len(prompt) for prompt in prompts] == [32]
        count = min(max_new_tokens, self.most)
        self.world.now += self.first_s + self.token_s * count
        return [Written([1] * count, "w1 " * count)]


def part(length: int) -> Windows:
    return Windows.of(windows(1, 9, length=length), "test")


def test_each_figure_is_what_the_clock_says() -> None:
    world = World()
    found = measure_language({"m": Slow(world, "m", 1e-3, 0.5)}, part(40), "causal", Device(), clock=world.clock)["m"]
    assert found["latency_ms_p50"]["mean"] == pytest.approx(40)
    assert found["tokens_per_s"]["mean"] == pytest.approx(1000)
    assert found["latency_ms_first_token"]["mean"] == pytest.approx(501)
    assert found["latency_ms_per_token"]["mean"] == pytest.approx(1)
    assert all(len(figure["per_seed"]) == 9 and "ci95" in figure for figure in found.values())


def test_models_take_turns_and_slow_ones_few() -> None:
    world = World()
    models = {"a": Slow(world, "a", 1.0), "b": Slow(world, "b", 1e-3)}
    found = measure_language(models, part(40), "causal", Device(), seconds=10, clock=world.clock)
    assert len(found["b"]["latency_ms_p50"]["per_seed"]) == 3
    assert world.calls == [*"aabb", *"aabb", *"bbaa", *"aabb"]


def test_a_model_that_ends_early_is_timed_on_what_it_said() -> None:
    world = World()
    models = {"m": Slow(world, "m", 1e-3, 0.5, most=11), "mute": Slow(world, "mute", 1e-3, most=1)}
    found = measure_language(models, part(40), "causal", Device(), clock=world.clock)
    assert found["m"]["latency_ms_per_token"]["mean"] == pytest.approx(1)
    assert "latency_ms_per_token" not in found["mute"]
    assert "latency_ms_first_token" in found["mute"]


@pytest.mark.parametrize(("architecture", "length"), [("masked", 40), ("causal", 12)])
def test_what_cannot_be_generated_is_not_timed(architecture: Any, length: int) -> None:
    world = World()
    small = Slow(world, "small", 1e-3)
    small.context = 63
    models = {"m": Slow(world, "m", 1e-3), "small": small}
    found = measure_language(models, part(length), architecture, Device(), clock=world.clock)
    assert set(found["m"]) == set(found["small"]) == {"latency_ms_p50", "tokens_per_s"}


def test_memory_that_could_not_be_measured_is_unknown(tmp_path: Path) -> None:
    assert peak_memory_mib(tmp_path, "causal", Device(), np.arange(8).tolist(), limit_s=1) is None
