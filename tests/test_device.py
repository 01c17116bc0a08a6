"""Threads and number formats are settled by the size of a network, and what a recipe says goes first."""

from __future__ import annotations

import torch

from stillroom.models.device import Device, choose, gains_from_bfloat16, threads


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


def test_bfloat16_is_taken_where_it_gains_or_is_asked_for() -> None:
    assert Device().for_size(10, "auto").dtype == "float32"
    wide = Device().for_size(10_000_000, "auto").dtype
    assert wide == ("bfloat16" if gains_from_bfloat16("cpu") else "float32")
    assert Device().for_size(10, "bfloat16").dtype == "bfloat16"
    assert Device().for_size(10_000_000, "float32").dtype == "float32"
