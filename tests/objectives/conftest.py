"""Losses are computed where $STILLROOM_TEST_DEVICE says, the processor where it says nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with torch.device(os.environ.get("STILLROOM_TEST_DEVICE", "cpu")):
        yield
