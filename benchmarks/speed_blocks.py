"""What the speed bench times: the same training once as a bare PyTorch loop, once through Stillroom's own loop.

Both sides have the same network, rows, batch size, optimiser and number format. The bare loop is the leanest that is
usual: rows indexed out of one tensor, gradients set to None, the fused optimiser.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stillroom import inputs
from stillroom.kinds import Objective, parse
from stillroom.models.classifier import Classifier
from stillroom.models.device import Device
from stillroom.models.mlp import Mlp
from stillroom.recipe import Training
from stillroom.rows import Questions
from stillroom.training.batches import Batches, Source
from stillroom.training.fit import Lesson, prepare
from stillroom.training.loop import Hooks, Trainer
from stillroom.training.steps import steps_in
from stillroom.transfer_set.ask import ask
from stillroom.transfer_set.store import Store

Block = Callable[[], None]
CLASSES = 10


@dataclass(frozen=True)
class Shape:
    """A student, its teacher, and how both are trained; `rows` make one block of an epoch's share."""

    pixels: int
    student: tuple[int, ...]
    teacher: tuple[int, ...]
    batch_size: int
    rows: int


WIDE = Shape(28, (800, 800), (1200, 1200), 128, 12_800)
"""784-800-800-10 and 784-1200-1200-10: a block is 100 steps."""
SMALL = Shape(8, (32,), (256, 256), 32, 19_200)
"""64-32-10, batch 32, with `[32]` as its hidden layer: a block is 600 steps."""


def questions(shape: Shape) -> Questions:
    """Random images with random labels: timing needs no meaning."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (shape.rows, shape.pixels, shape.pixels), dtype=np.uint8)
    return Questions.of(images, generator.integers(0, CLASSES, shape.rows))


def knobs(shape: Shape) -> Training:
    """One epoch over a block's rows by momentum SGD; no clipping, no accumulation."""
    return Training(
        epochs=1, batch_size=shape.batch_size, optimiser="sgd", learning_rate=0.01, schedule="constant", warmup=0.0,
        checkpoint_seconds=3600,
    )  # fmt: skip


def products(shape: Shape, dtype: torch.dtype) -> Block:
    """The matrix products of a block's steps and nothing else: outputs, gradients of weights, gradients of hidden layers."""
    widths = [shape.pixels**2, *shape.student, CLASSES]
    layers = [
        (torch.randn(shape.batch_size, before, dtype=dtype), torch.randn(after, before, dtype=dtype))
        for before, after in itertools.pairwise(widths)
    ]

    def block() -> None:
        for _ in range(shape.rows // shape.batch_size):
            for place, (input_BI, weight_OI) in enumerate(layers):
                output_BO = input_BI @ weight_OI.T
                output_BO.T @ input_BI
                if place:
                    output_BO @ weight_OI

    return block


class Bench:
    """The blocks of one shape; stored answers are kept in `folder`."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.shape, self.rows, self.folder = shape, questions(shape), folder
        self.learned = inputs.learn(self.rows.raw, "unit")

    def plain(self, dtype: str = "float32") -> Block:
        """Supervised epoch: the bare loop on the labels."""
        label_N = torch.from_numpy(self.rows.label_N)

        def loss(logits_BC: torch.Tensor, index_B: torch.Tensor) -> torch.Tensor:
            return functional.cross_entropy(logits_BC, label_N[index_B])

        return self._bare(loss, dtype)

    def plain_soft(self, heat: float = 4.0) -> Block:
        """The bare loop on soft targets that lie in memory."""
        log_p_NC = torch.from_numpy(self.teacher("float32").log_probabilities(self.rows.raw))

        def loss(logits_BC: torch.Tensor, index_B: torch.Tensor) -> torch.Tensor:
            wanted_BC = (log_p_NC[index_B] / heat).log_softmax(1)
            given_BC = (logits_BC / heat).log_softmax(1)
            return heat**2 * functional.kl_div(given_BC, wanted_BC, reduction="batchmean", log_target=True)

        return self._bare(loss, "float32")

    def _bare(self, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], dtype: str) -> Block:
        network = self._bare_network()
        input_N = torch.from_numpy(self.learned.encode(self.rows.raw))
        size, narrow = self.shape.batch_size, dtype == "bfloat16"

        def block() -> None:
            optimiser = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, fused=True)
            order_N = torch.randperm(len(input_N))
            for start in range(0, len(input_N), size):
                index_B = order_N[start : start + size]
                with torch.autocast("cpu", torch.bfloat16) if narrow else nullcontext():
                    logits_BC = network(input_N[index_B])
                loss = loss_of(logits_BC.float(), index_B)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()

        return block

    def _bare_network(self) -> nn.Module:
        torch.manual_seed(0)
        widths = [self.shape.pixels**2, *self.shape.student]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES))

    def teacher(self, dtype: str) -> Classifier:
        """An untrained teacher at work in a number format."""
        torch.manual_seed(1)
        model = Mlp(hidden=self.shape.teacher)
        network = model.build(tuple(self.learned.shape), CLASSES)
        device = Device("cpu", "bfloat16" if dtype == "bfloat16" else "float32")
        found = Classifier(model, network, self.learned, list(range(CLASSES)), device)
        found.fingerprint = f"speed-{self.shape.teacher}"
        found.network.eval()
        return found

    def stored(self, dtype: str = "float32") -> Block:
        """Epoch on stored soft targets, read from their memory map, through Stillroom's loop."""
        teacher = self.teacher("float32")
        kept = ask(
            Store(self.folder), teacher, self.rows, kind="python", licences={}, views=(0,),
            seen=lambda rows, view: rows,
        )  # fmt: skip
        source = Source(self.rows, self.learned, [kept.reader(self.rows.key_N)])
        return self._trained(source, parse("objective", {"kind": "soft_target", "temperature": 4}), dtype)

    def live(self, dtype: str) -> Block:
        """Epoch with the teacher asked anew for each batch, in this number format; student and loss stay float32."""
        source = Source(self.rows, self.learned, live=self.teacher(dtype))
        return self._trained(source, parse("objective", {"kind": "soft_target", "temperature": 4}), "float32")

    def supervised(self) -> Block:
        """Epoch on the labels through Stillroom's loop."""
        return self._trained(Source(self.rows, self.learned), parse("objective", {"kind": "hard_label"}), "float32")

    def _trained(self, source: Source, objective: Objective, dtype: str) -> Block:
        training, model = knobs(self.shape), Mlp(hidden=self.shape.student)
        steps = steps_in(training, len(self.rows))
        lesson = Lesson(
            model,
            lambda: model.build(tuple(self.learned.shape), CLASSES),
            (objective,),
            training,
            source,
            list(range(CLASSES)),
            self.rows,
            0,
            steps,
            Device(),
            dtype,
        )
        classifier, loss = prepare(lesson)
        batches = Batches(source, training.batch_size, 0, classifier.device)
        work = self.folder / "work"

        def block() -> None:
            Trainer(classifier.network, loss, batches, training, steps, classifier.device, work, Hooks()).train()

        return block
