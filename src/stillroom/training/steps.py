"""How many steps a training takes. Without torch, for a plan counts them too, and importing it takes longer than the plan."""

from __future__ import annotations

from stillroom.recipe import Training


def steps_in(knobs: Training, rows: int) -> int:
    """Optimiser steps of a training on so many rows."""
    batches = -(-rows // min(knobs.batch_size, rows))
    return -(-knobs.epochs * batches // knobs.accumulate)
