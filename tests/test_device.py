"""Threads and number formats are settled by the size of a network, and what a recipe says goes first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stillroom.models.device import Device, choose, gains_from_bfloat16, threads
from stillroom.models.mlp import Mlp
from stillroom.recipe import Recipe, Training
from stillroom.stages.opening import opened
from stillroom.training import loop
from stillroom.training.ranks import Alone


def test_small_networks_take_one_thread_and_wide_ones_what_torch_takes() -> None:
    with threads(2):
        device = choose("cpu", "auto")
    assert device.for_size(2_410, "auto").threads == 1
    assert device.for_size(2_400_000, "auto").threads == 2


def test_a_recipe_that_names_a_number_gets_it() -> None:
    device = choose("cpu", 3)
    assert {device.for_size(size, "auto").threads for size in (10, 10_000_000)} == {3}


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("first", ["run", "arm"])
def test_a_run_at_work_computes_with_few_threads_and_an_arm_of_it_may_take_all(tmp_path: Path, first: str) -> None:
    tree = {
        "name": "threads",
        "questions": {"kind": "dataset", "source": "builtin:digits"},
        "teacher": {"kind": "trained", "model": {"kind": "mlp", "hidden": [4]}},
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [4]}},
        "objectives": [{"kind": "soft_target", "temperature": 2}],
        "arms": {"wide": {"student": {"model": {"kind": "mlp", "hidden": [8]}}}},
    }
    with threads(2):
        with opened(Recipe.from_tree(tree), tmp_path / "run", tmp_path) as run:
            for one in (run, run.arms["wide"])[:: 1 if first == "run" else -1]:
                assert one.device.wide_threads == 2
                assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("hidden", [(5,), (7, 3)])
def test_the_weights_of_a_plain_network_are_counted_without_building_it(hidden: tuple[int, ...]) -> None:
    model = Mlp(hidden=hidden)
    assert model.weights((3, 4), 6) == sum(one.numel() for one in model.build((3, 4), 6).parameters())


def test_bfloat16_is_taken_where_it_gains_or_is_asked_for() -> None:
    assert Device().for_size(10, "auto").dtype == "float32"
    wide = Device().for_size(10_000_000, "auto").dtype
    assert wide == ("bfloat16" if gains_from_bfloat16("cpu") else "float32")
    assert Device().for_size(10, "bfloat16").dtype == "bfloat16"
    assert Device().for_size(10_000_000, "float32").dtype == "float32"


@pytest.mark.parametrize(
    ("flags", "gains"),
    [
        ({}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "avx512_fp16": True}, False),
        ({"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": True}, True),
        ({"arm_bf16": True}, True),
    ],
)
def test_bfloat16_gains_by_what_the_processor_reports(
    flags: dict[str, bool], gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert gains_from_bfloat16.__wrapped__("cpu") is gains
    assert not gains_from_bfloat16.__wrapped__("mps")


class Weights:
    """A term's own, which write down where they are taken."""

    def __init__(self) -> None:
        self.data, self.there = self, "cpu"

    def to(self, device: str) -> Weights:
        self.there = device
        return self


def test_a_terms_own_weights_are_where_the_network_is_before_the_optimiser_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that is read again is put beside the weights it is of."""
    weights, seen = Weights(), list[str]()
    monkeypatch.setattr(loop, "ranks_for", lambda device: Alone())
    monkeypatch.setattr(loop, "optimiser_of", lambda *given: seen.append(weights.there))
    loss: Any = SimpleNamespace(parameters=lambda: [weights])
    batches: Any = None
    loop.Trainer(torch.nn.Linear(2, 2), loss, batches, Training(), 1, Device("cuda:1"), tmp_path, loop.Hooks())
    assert seen == ["cuda:1"]
