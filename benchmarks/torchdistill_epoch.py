"""Times torchdistill's DistillationBox beside a bare supervised loop, in a Python of its own that has torchdistill.

The speed bench starts this file with the Python that $STILLROOM_TORCHDISTILL_PYTHON names and reads the JSON it prints:
{"plain": [seconds ..], "torchdistill": [..], "versions": {..}}. It imports nothing of Stillroom.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ROWS, BATCH = 12_800, 128


def network(*widths: int) -> nn.Module:
    """Linear and ReLU layers from 784 inputs to 10 classes."""
    sizes = [784, *widths]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


def plain(input_N: torch.Tensor, label_N: torch.Tensor) -> Any:
    """The bare supervised epoch."""
    student = network(800, 800)

    def block() -> None:
        optimiser = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9, fused=True)
        order_N = torch.randperm(len(input_N))
        for start in range(0, len(input_N), BATCH):
            index_B = order_N[start : start + BATCH]
            loss = functional.cross_entropy(student(input_N[index_B]), label_N[index_B])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    return block


def distilled(input_N: torch.Tensor, label_N: torch.Tensor) -> Any:
    """torchdistill's epoch, as its examples write it: its loader, its box, its loss."""
    from torch.utils.data import RandomSampler, TensorDataset
    from torchdistill.core.distillation import get_distillation_box

    loss = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": ".", "student_module_io": "output", "teacher_module_path": ".",
            "teacher_module_io": "output", "temperature": 4.0, "alpha": 0.0,
        },
    }  # fmt: skip
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train", "sampler": {"class_or_func": RandomSampler}, "kwargs": {"batch_size": BATCH},
        },
        "val_data_loader": {},
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.01, "momentum": 0.9, "fused": True}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
    }  # fmt: skip
    box = get_distillation_box(
        network(1200, 1200).eval(), network(800, 800), {"train": TensorDataset(input_N, label_N)}, config,
        torch.device("cpu"), None, False, 1,
    )  # fmt: skip

    def block() -> None:
        box.pre_epoch_process(epoch=0)
        for sample_B, target_B, supp in box.train_data_loader:
            box.pre_forward_process()
            total = box.forward_process(sample_B, targets=target_B, supp_dict=supp)
            box.post_forward_process(loss=total)

    return block


def main(count: int) -> None:
    """Alternate the two blocks; print their processor seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    input_N, label_N = torch.rand(ROWS, 784), torch.randint(0, 10, (ROWS,))
    blocks = {"plain": plain(input_N, label_N), "torchdistill": distilled(input_N, label_N)}
    names, seconds = list(blocks), {name: [] for name in blocks}
    for turn in range(-1, count):
        for name in names if turn % 2 else names[::-1]:
            began = time.process_time()
            blocks[name]()
            if turn >= 0:
                seconds[name].append(time.process_time() - began)
    versions = {name: version(name) for name in ("torchdistill", "torch")}
    print(json.dumps({**seconds, "versions": versions}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
