"""A recipe's objectives as one. Each term keeps its own sum and count, so that each is divided by its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillroom.kinds import Loss, Objective, Setting

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Term:
    """One objective at work, with the weight that stands in the recipe."""

    name: str
    weight: float
    loss: Loss


class WeightedSum:
    """The terms of a loss; terms of weight 0 are left out."""

    def __init__(self, objectives: Sequence[Objective], setting: Setting) -> None:
        self.terms: list[Term] = []
        for objective in objectives:
            if objective.weight > 0:
                place = sum(term.name.split("#")[0] == objective.kind for term in self.terms)
                name = objective.kind if not place else f"{objective.kind}#{place + 1}"
                self.terms.append(Term(name, objective.weight, objective.build(setting)))

    def parameters(self) -> list[torch.nn.Parameter]:
        """Weights of the terms themselves, such as projections."""
        return [weight for term in self.terms for weight in term.loss.parameters()]
