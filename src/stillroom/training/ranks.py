"""One process on a CPU trains bare; a GPU or several ranks train through Accelerate. The loop sees this interface only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stillroom.errors import NotYet, RecipeError
from stillroom.rows import Batch, Tokens

if TYPE_CHECKING:
    import torch

    from stillroom.models.device import Device


class Alone:
    """One process: nothing to share, nothing wrapped."""

    main = True
    count = 1

    def prepare(self, network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> tuple[torch.nn.Module, Any]:
        """The network to call and the optimiser to step."""
        return network, optimiser

    def share(self, batch: Batch) -> Batch:
        """This rank's rows of a batch."""
        return batch

    def total(self, count: float) -> float:
        """A count added up over all ranks."""
        return count

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def gather(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Make the gradients of weights that stand outside the network those of all ranks."""

    def close(self) -> None:
        """Nothing was opened."""


class Accelerated:
    """Through Accelerate: each rank takes every n-th row of a batch; gradients are summed over the ranks."""

    def __init__(self) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise RecipeError(
                "training on a GPU or on several ranks needs Accelerate",
                where="device",
                cure="pip install stillroom[gpu], or use device: cpu",
            ) from error
        self._accelerator = Accelerator(cpu=os.environ.get("ACCELERATE_USE_CPU") == "true")
        self.main: bool = self._accelerator.is_main_process
        self.count: int = self._accelerator.num_processes

    def prepare(self, network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> tuple[torch.nn.Module, Any]:
        wrapped, stepped = self._accelerator.prepare(network, optimiser)
        return wrapped, stepped

    def share(self, batch: Batch) -> Batch:
        if self.count == 1:
            return batch
        if isinstance(batch.input, Tokens):
            raise NotYet("language models on several ranks", where="device", cure="Train on one device")
        rank, ranks = self._accelerator.process_index, self.count

        def mine(rows: torch.Tensor | None) -> torch.Tensor | None:
            return None if rows is None else rows[rank::ranks]

        input_B = batch.input[rank::ranks]
        return Batch(
            input_B,
            mine(batch.label_B),
            batch.all_labelled,
            mine(batch.weight_B),
            mine(batch.log_probabilities_BC),
            mine(batch.hidden_BH),
            mine(batch.mixed_label_B),
            batch.mix,
        )

    def total(self, count: float) -> float:
        import torch

        if self.count == 1:  # asking a GPU for a number waits for all that it was given to do
            return count
        counted = torch.tensor(count, dtype=torch.float64, device=self._accelerator.device)
        return float(self._accelerator.reduce(counted, "sum"))

    def backward(self, loss: torch.Tensor) -> None:
        # Distributed data parallel takes the mean of the ranks' gradients; a sum is that times their number.
        self._accelerator.backward(loss * self.count)

    def gather(self, weights: Sequence[torch.nn.Parameter]) -> None:
        # `prepare` wraps the network alone; an objective's own weights would go their own way on each rank.
        for weight in weights:
            if weight.grad is not None:
                weight.grad = self._accelerator.reduce(weight.grad, "mean")

    def close(self) -> None:
        """Wait for every rank, then leave the group."""
        self._accelerator.wait_for_everyone()
        self._accelerator.end_training()


def ranks_for(device: Device) -> Alone | Accelerated:
    """Bare on one CPU process, Accelerate for anything else."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerated() if several or not device.name.startswith("cpu") else Alone()
