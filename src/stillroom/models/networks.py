"""The torch modules behind `mlp` and `convnet`: forward(input) -> Output(logits [B, C], hidden [B, H])."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from stillroom.rows import Output


class MlpNetwork(nn.Module):
    """Linear and ReLU layers; `hidden` is the last ReLU layer's output."""

    def __init__(self, widths: list[int], classes: int, dropout: float, input_dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)
        self.hidden_width = widths[-1]

    def forward(self, input: torch.Tensor) -> Output:
        hidden_BH = self.body(input.flatten(1))
        return Output(self.head(hidden_BH), hidden_BH)


class ConvNetwork(nn.Module):
    """Convolution blocks, the mean over places, a linear head; `hidden` is that mean."""

    def __init__(self, colours: int, channels: tuple[int, ...], depth: int, classes: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = colours
        for after in channels:
            for _ in range(depth):
                layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(before, classes)
        self.hidden_width = before

    def forward(self, input: torch.Tensor) -> Output:
        hidden_BH = self.body(input).mean((2, 3))
        return Output(self.head(self.dropout(hidden_BH)), hidden_BH)
