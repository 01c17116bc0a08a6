"""THE loop. It alone divides: each term's sum by that term's count over all micro-batches and ranks of a step.

It sees batches, objectives and a network; no teacher, no recipe, no file but its checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stillroom.errors import NotFinite
from stillroom.models.classifier import autocast
from stillroom.models.device import Device
from stillroom.objectives.weighted_sum import WeightedSum
from stillroom.recipe import Training
from stillroom.rows import Batch
from stillroom.training import checkpoint
from stillroom.training.optimisers import optimiser_of
from stillroom.training.ranks import Accelerated, Alone, ranks_for
from stillroom.training.schedule import share

LOOKS = 20
"""How often a training looks at the validation split when nothing depends on it."""
NORM_LOOKS = 4
"""How often the terms' gradient norms are measured."""


@dataclass
class History:
    """What a training went through: curve points and, by term, gradient norms."""

    curve: list[dict[str, float]] = field(default_factory=list)
    gradient_norms: dict[str, list[float]] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None


@dataclass(frozen=True)
class Hooks:
    """What the loop tells and asks: looks at validation, counts steps, is told to stop (by raising).

    `resumed` is told once how many steps an earlier attempt had done, `stepped` of each step of this one.
    """

    validate: Callable[[torch.nn.Module], dict[str, float]] | None = None
    stepped: Callable[[int], None] = lambda steps: None
    resumed: Callable[[int], None] = lambda steps: None
    may_go_on: Callable[[], None] = lambda: None
    looked: Callable[[dict[str, float]], None] = lambda point: None
    """Told each point of the curve when it is found."""
    looks: int = LOOKS


class Trainer:
    """One training of one network, resumable at its last checkpoint."""

    def __init__(
        self,
        network: torch.nn.Module,
        loss: WeightedSum,
        batches: Callable[[int], Batch],
        knobs: Training,
        steps: int,
        device: Device,
        work: Path,
        hooks: Hooks,
    ) -> None:
        self.network, self.loss, self.batches, self.knobs = network, loss, batches, knobs
        self.steps, self.device, self.work, self.hooks = steps, device, work, hooks
        for weights in loss.parameters():  # before the optimiser's state is made, or read again, beside them
            weights.data = weights.data.to(device.name)
        self.ranks: Alone | Accelerated = ranks_for(device)
        self.parameters = [*network.parameters(), *loss.parameters()]
        self.optimiser = optimiser_of(knobs, self.parameters)
        self.history = History()
        self.best: dict[str, torch.Tensor] = {}
        self.best_loss, self.best_step = math.inf, 0
        self.limited = [layer for name, layer in network.named_modules() if _feeds_hidden_units(name, layer)]

    def train(self) -> History:
        """Train to the last step, or to the end of patience. Raises NotFinite, and whatever `may_go_on` raises."""
        started = time.monotonic()
        first = self._resume()
        if first:
            self.hooks.resumed(first)
        resumed = self.history.seconds
        saved = time.monotonic()
        call, optimiser = self.ranks.prepare(self.network, self.optimiser)
        self.network.train()
        for step in range(first, self.steps):
            total = self._step(call, optimiser, step)
            self.hooks.stepped(1)
            if self._looks_at(step):
                self._look(step, total)
            ended = self._out_of_patience(step)
            now = time.monotonic()
            if now - saved > self.knobs.checkpoint_seconds and step + 1 < self.steps and not ended:
                self.history.seconds, saved = resumed + now - started, now
                self._save(step + 1)
            if ended:
                break
            try:
                self.hooks.may_go_on()
            except BaseException:
                self.history.seconds = resumed + now - started
                self._save(step + 1)
                raise
        if self.best:
            self.network.load_state_dict(self.best)
            self.history.best_epoch = math.ceil(self._epochs(self.best_step + 1))
        self.history.seconds = resumed + time.monotonic() - started
        return self.history

    def _epochs(self, steps: int) -> float:
        """How many epochs so many steps are. A control on few labels takes the student's steps, so its epochs too:

        counted in passes over its own rows, its patience would end after a fraction of the student's.
        """
        return steps * self.knobs.epochs / self.steps

    def _step(self, call: torch.nn.Module, optimiser: torch.optim.Optimizer, step: int) -> torch.Tensor:
        """One optimiser step over `accumulate` micro-batches. Returns the loss, still a tensor: reading it is a cost."""
        knobs, terms = self.knobs, self.loss.terms
        micro = [self.ranks.share(self.batches(step * knobs.accumulate + place)) for place in range(knobs.accumulate)]
        counts = [self.ranks.total(sum(term.loss.count(batch) for batch in micro)) for term in terms]
        for group in optimiser.param_groups:
            group["lr"] = knobs.learning_rate * share(step, self.steps, knobs.schedule, knobs.warmup)
        for weights in self.parameters:  # what zero_grad does, at a tenth of its cost for a small network
            weights.grad = None
        total: torch.Tensor | None = None
        for batch in micro:
            parts = self._parts(call, batch, counts)
            loss = parts[0] if len(parts) == 1 else torch.stack(parts).sum()
            if step % max(1, self.steps // NORM_LOOKS) == 0 and len(terms) > 1 and batch is micro[0]:
                self._measure_norms(parts)
            self.ranks.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        self.ranks.gather(self.loss.parameters())
        if knobs.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, knobs.clip)
        optimiser.step()
        if knobs.max_norm is not None:
            self._limit_norms(knobs.max_norm)
        assert total is not None
        return total

    def _parts(self, call: torch.nn.Module, batch: Batch, counts: list[float]) -> list[torch.Tensor]:
        """Each term's weighted share of this step's loss."""
        with autocast(self.device):
            output = call(batch.input)
        parts = [
            term.loss.sum(output, batch) * (term.weight / count)
            for term, count in zip(self.loss.terms, counts, strict=True)
            if count > 0
        ]
        # A batch in which no term looks at any row moves nothing, but keeps the graph whole.
        seen = output.logits_BC if output.logits_BC is not None else output.hidden_BH
        return parts or [seen.sum() * 0.0]

    def _measure_norms(self, parts: list[torch.Tensor]) -> None:
        if len(parts) != len(self.loss.terms):
            return
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        for term, part in zip(self.loss.terms, parts, strict=True):
            found = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
            squares = sum(float(gradient.square().sum()) for gradient in found if gradient is not None)
            self.history.gradient_norms.setdefault(term.name, []).append(math.sqrt(squares))

    @torch.no_grad()
    def _limit_norms(self, largest: float) -> None:
        for layer in self.limited:
            norm_O = layer.weight.flatten(1).norm(dim=1)
            layer.weight.mul_((largest / norm_O).clamp_(max=1).view(-1, *[1] * (layer.weight.ndim - 1)))

    def _looks_at(self, step: int) -> bool:
        epoch_ends = math.floor(self._epochs(step + 1)) > math.floor(self._epochs(step))
        if step + 1 == self.steps or (self.knobs.patience is not None and epoch_ends):
            return True
        return (step + 1) % max(1, self.steps // self.hooks.looks) == 0

    def _look(self, step: int, total: torch.Tensor) -> None:
        point = {"step": step + 1, "epoch": self._epochs(step + 1), "loss": float(total)}
        if self.hooks.validate is not None:
            point |= self.hooks.validate(self.network)
        wrong = next((name for name, value in point.items() if not math.isfinite(value)), None)
        if wrong is not None:
            named = "training loss" if wrong == "loss" else wrong.replace("_", " ")
            raise NotFinite(
                f"the {named} became {point[wrong]} at step {step + 1:,}",
                where="training",
                cure="Lower training.learning_rate, set training.clip: 1.0, or look for extreme values in the inputs",
            )
        self.history.curve.append(point)
        self.hooks.looked(point)
        self.history.steps = step + 1
        if self.knobs.patience is not None and point.get("validation_loss", math.inf) < self.best_loss:
            self.best_loss, self.best_step = point["validation_loss"], step
            self.best = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def _out_of_patience(self, step: int) -> bool:
        patience = self.knobs.patience
        return patience is not None and bool(self.best) and self._epochs(step - self.best_step) >= patience

    def _save(self, next_step: int) -> None:
        if not self.ranks.main:
            return
        tensors = {
            "network": dict(self.network.state_dict()),
            "optimiser": checkpoint.optimiser_tensors(self.optimiser),
        }
        tensors["terms"] = {str(place): weight for place, weight in enumerate(self.loss.parameters())}
        tensors["best"] = self.best
        best = None if math.isinf(self.best_loss) else self.best_loss
        facts = {"next": next_step, "best_loss": best, "best_step": self.best_step, "history": self.history.__dict__}
        checkpoint.write(self.work, tensors, facts)

    def _resume(self) -> int:
        """Restore the last checkpoint. Returns the step to go on with."""
        found = checkpoint.read(self.work)
        if found is None:
            return 0
        tensors, facts = found
        self.network.load_state_dict(tensors["network"])
        with torch.no_grad():
            for place, weight in enumerate(self.loss.parameters()):
                weight.copy_(tensors["terms"][str(place)])
        checkpoint.restore_optimiser(self.optimiser, tensors["optimiser"])
        self.best = tensors.get("best", {})
        self.best_loss = math.inf if facts["best_loss"] is None else facts["best_loss"]
        self.best_step = facts["best_step"]
        self.history = History(**facts["history"])
        next_step: int = facts["next"]
        return next_step


def _feeds_hidden_units(name: str, layer: Any) -> bool:
    """Linear and convolution layers into hidden units; the output layer, called head, keeps its scale."""
    return isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and name != "head"
