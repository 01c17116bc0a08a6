"""What a scorecard says of a language model's predictions: figures with intervals, differences, and the gap recovered.

    nll             nats a scored token; perplexity is its exponential
    bits_per_byte   all nats over all UTF-8 bytes of the scored tokens, in bits: comparable between tokenizers
    accuracy        share of the scored tokens that are the model's first choice
    agreement       share of the positions where its first choice is the teacher's
    kl_to_teacher   KL(teacher, model), nats a position, on a sample of whole windows

A draw of the bootstrap takes as many documents as there are, with replacement, since what stands in one depends on its
neighbours; all figures are ratios of sums over documents, so a draw is a weight for each of them. Seeds are drawn beside
them, as in intervals.py. A text of one document has windows drawn instead. Knows no model, no folder, no speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stillroom.errors import WrongAnswer
from stillroom.evaluation.intervals import TEACHER, differences, figures, gaps_recovered, over_draws, pairs
from stillroom.evaluation.scores import Scores
from stillroom.rows import Array

COMPARED = ("nll", "perplexity", "bits_per_byte", "accuracy")
LOG_2 = float(np.log(2))


@dataclass(frozen=True)
class Spoken:
    """What the seeds of one model said of P positions: loss and first choice [S, P], divergence [S, Q] at the sample."""

    nll_SP: Array
    top_SP: Array
    kl_SQ: Array | None = None

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.nll_SP)


@dataclass(frozen=True)
class Text:
    """The P scored positions of the test split, and the U units that are drawn: documents, or windows of a single one."""

    target_P: Array
    unit_P: Array
    """Place of the unit it stands in, 0..U-1."""
    sample_Q: Array
    """The sampled positions, as places among the P."""
    bytes_U: Array | None
    """UTF-8 bytes of each unit's scored tokens; None where tokens stand for none, as hidden ones do."""
    drawn: str = "documents"

    @classmethod
    def of(
        cls, target_P: Array, window_P: Array, document_N: Array, sample_Q: Array, bytes_N: Array | None = None
    ) -> Text:
        """From the window of each position, and the document and the bytes of each window."""
        documents, unit_P = np.unique(document_N[window_P], return_inverse=True)
        single = len(documents) < 2
        if single:
            unit_P = np.unique(window_P, return_inverse=True)[1]
        window_U, first_U = np.unique(window_P, return_index=True)
        bytes_U = None if bytes_N is None else np.bincount(unit_P[first_U], weights=bytes_N[window_U])
        return cls(target_P, unit_P, sample_Q, bytes_U, "windows" if single else "documents")

    @property
    def units(self) -> int:
        """How many units are drawn; each holds a scored position."""
        return int(self.unit_P.max()) + 1

    def sums(self, value_P: Array) -> Array:
        """The sum over each unit's positions [U]."""
        return np.bincount(self.unit_P, weights=value_P, minlength=self.units)

    def sampled_sums(self, value_Q: Array) -> Array:
        """The sum over each unit's sampled positions [U]."""
        return np.bincount(self.unit_P[self.sample_Q], weights=value_Q, minlength=self.units)


def score_language(said: Mapping[str, Spoken], text: Text, *, draws: int = 10_000, seed: int = 0) -> Scores:
    """Score every model on the same positions; the fields of what is returned are as in scores.py.

    `said` is keyed by "teacher", "student", "control", "hard_teacher" and the arms' names, any of which may be missing.
    The teacher has one seed, and without it `agreement` and `kl_to_teacher` are absent. The gap is that of bits per
    byte, and of `nll` where there are no bytes. Raises WrongAnswer for predictions that are not of these positions.
    """
    teacher_P = said[TEACHER].top_SP[0] if TEACHER in said else None
    sums = {
        name: [_sums(name, model, place, text, teacher_P) for place in range(model.seeds)]
        for name, model in said.items()
    }
    shared_U3 = np.stack(
        [
            text.sums(np.ones(len(text.unit_P))),
            text.sampled_sums(np.ones(len(text.sample_Q))),
            np.zeros(text.units) if text.bytes_U is None else text.bytes_U,
        ],
        axis=1,
    )
    measured = {
        name: [
            {
                figure: float(value_1[0])
                for figure, value_1 in _figures_of(sums_U4.sum(0)[None], shared_U3.sum(0)[None]).items()
                if np.isfinite(value_1[0])
            }
            for sums_U4 in several
        ]
        for name, several in sums.items()
    }
    drawn = {}
    if max((model.seeds for model in said.values()), default=0) > 1:
        drawn = over_draws(
            sums, lambda weight_BU: weight_BU @ shared_U3,
            lambda _name, _place, _weight_BU, sums_B4, shared_B3: _figures_of(sums_B4, shared_B3),
            draws=draws, seed=seed,
        )  # fmt: skip
    models = {name: figures(measured[name], drawn.get(name, {})) for name in said}
    figure = "nll" if text.bytes_U is None else "bits_per_byte"
    student, gaps = gaps_recovered(models, drawn, figure, figure.replace("_", " "), lower_is_better=True)
    return Scores(models, differences(models, drawn, COMPARED, pairs(list(said))), student, gaps)


def _sums(name: str, model: Spoken, place: int, text: Text, teacher_P: Array | None) -> Array:
    """The sums of one seed over each unit [U, 4]; NaN where there is nothing to sum."""
    nll_P, top_P = model.nll_SP[place], model.top_SP[place]
    kl_Q = None if model.kl_SQ is None else model.kl_SQ[place]
    if len(nll_P) != len(text.target_P) or (kl_Q is not None and len(kl_Q) != len(text.sample_Q)):
        raise WrongAnswer(
            f"{len(nll_P):,} predictions for {len(text.target_P):,} scored positions", where=name, cure="Evaluate again"
        )
    unknown_U = np.full(text.units, np.nan)
    compared = name != TEACHER and teacher_P is not None
    return np.stack(
        [
            text.sums(nll_P.astype(np.float64)),
            text.sums(top_P == text.target_P),
            text.sums(top_P == teacher_P) if compared else unknown_U,
            text.sampled_sums(kl_Q.astype(np.float64)) if compared and kl_Q is not None else unknown_U,
        ],
        axis=1,
    )


def _figures_of(sums_B4: Array, shared_B3: Array) -> dict[str, Array]:
    """Every figure of one seed [B], from its sums and those that all share; NaN where it is not defined."""
    nats_B, right_B, same_B, apart_B = sums_B4.T
    count_B, sampled_B, bytes_B = shared_B3.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        nll_B = nats_B / count_B
        return {
            "nll": nll_B,
            "perplexity": np.exp(nll_B),
            "bits_per_byte": np.where(bytes_B > 0, nats_B / (bytes_B * LOG_2), np.nan),
            "accuracy": right_B / count_B,
            "agreement": same_B / count_B,
            "kl_to_teacher": apart_B / sampled_B,
        }
