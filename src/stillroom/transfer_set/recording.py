"""A language model's answers as they are kept: calibrated once on the run's own questions, then packed position by position.

Which form is kept is a Layout's to say (sparse_logits.py); what it is decoded with stands beside the answers in
basis.safetensors. Fidelity is measured before the asking, so that too thin a record is found before it is paid for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stillroom.errors import CorruptFile
from stillroom.questions.dice import GOLDEN, mix, seeds
from stillroom.rows import Array, Head, Output, PositionAnswers, Questions, SparseTargets
from stillroom.rundir import fingerprint
from stillroom.teachers.language import AskedLanguageModel, Speaks, hidden_of, in_order
from stillroom.transfer_set.basis import FittedBasis
from stillroom.transfer_set.fidelity import fidelity, joined, summary
from stillroom.transfer_set.sparse_logits import Layout, decode, encode

BASIS = "basis.safetensors"
CALIBRATION_POSITIONS = 40_000
"""Hidden states that the basis is fitted on, of windows drawn at random over the run's own training questions; fewer where
there are no more."""
FIDELITY_POSITIONS = 4_096


class Packer(Protocol):
    """A language teacher, or the mean of several, with the form in which its answers are kept."""

    @property
    def fingerprint(self) -> str:
        """A digest of who answers, and in which form it is kept."""
        ...

    @property
    def teacher(self) -> Speaks:
        """Who answers."""
        ...

    @property
    def layout(self) -> Layout:
        """What a record holds."""
        ...

    def pack(self, output: Output, target_P: torch.Tensor, seed_P: Array) -> Array:
        """Records [P, R] of an output of the teacher."""
        ...

    def unpacked(self, records_PR: Array) -> SparseTargets:
        """What records hold."""
        ...


class Recorder:
    """A language model that packs what it says; to the store, a teacher like any other."""

    by_key = False
    classes: list[Any] = []  # noqa: RUF012 - a language model has none
    shard_rows = 64

    def __init__(
        self, teacher: Speaks, layout: Layout, fitted: FittedBasis | None, with_hidden: bool,
        augment: Sequence[Any] = (), text: str | None = None,
    ) -> None:  # fmt: skip
        """`text`: a digest of the questions whose own basis this is, where the store has one of other text already."""
        self.teacher, self.layout, self.fitted, self.text = teacher, layout, fitted, text
        self.hidden_width = teacher.hidden_width if with_hidden else None
        # The views are part of it: answers in view 1 of another masking are answers to other questions.
        layers = list(getattr(teacher, "layers", ())) if with_hidden else []
        further: list[Any] = [layers] if layers else []  # equal widths may be of other layers
        further += [] if text is None else [{"basis of": text}]
        self.fingerprint = fingerprint(
            teacher.fingerprint, layout.to_json(), self.hidden_width, list(augment), *further
        )
        self.gives = teacher.gives

    @property
    def made_of(self) -> dict[str, str]:
        """Digests of what the teacher consists of, for a header."""
        return self.teacher.made_of

    @property
    def written(self) -> dict[str, Any]:
        """The layout for a header, with the basis that records are decoded with: another would read something else."""
        return self.layout.to_json() | ({} if self.fitted is None else {"basis": self.fitted.fingerprint})

    def answer(self, questions: Questions, view: int = 0) -> PositionAnswers:
        """Packed records of every scored position. Raises NotFinite."""
        records, heard, hidden = [], [], []
        word_N = seeds(questions.key_N)
        for place_B, count_B, output, target_P in self.teacher.outputs(questions):
            records.append(self.pack(output, target_P, position_seeds(word_N[place_B], count_B, view)))
            heard.append((place_B, count_B))
            if self.hidden_width:
                hidden.append(hidden_of(output).float().cpu().numpy().astype(np.float16))
        index_P, count_N = in_order(heard)
        return PositionAnswers(
            np.concatenate(records)[index_P], count_N, np.concatenate(hidden)[index_P] if hidden else None
        )

    def pack(self, output: Output, target_P: torch.Tensor, seed_P: Array) -> Array:
        """Records [P, R] of an output of the teacher. Raises NotFinite."""
        assert output.hidden_BH is not None
        assert isinstance(output.head, Head), "several teachers are merged from what is kept of each"
        return encode(self.layout, self.fitted, output.hidden_BH, output.head, target_P, seed_P)

    def unpacked(self, records_PR: Array) -> SparseTargets:
        """What records hold."""
        return decode(self.layout, self.fitted, records_PR)


def position_seeds(word_B: Array, count_B: Array, view: int) -> Array:
    """A seed for each position from its question's key, its place and the view, whatever batch it is in."""
    place_P = np.concatenate([np.arange(count) for count in count_B]).astype(np.uint64)
    seed_P: Array = mix(np.repeat(word_B, count_B) + place_P * np.uint64(GOLDEN) + np.uint64(view))
    return seed_P


def some(questions: Questions, windows: int, seed: int) -> Questions:
    """So many windows, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(questions))[:windows]
    return questions.take(np.sort(order))


def calibrate(teacher: AskedLanguageModel, questions: Questions) -> Array:
    """Hidden states float32 [N, G] of so many windows, drawn at random, as hold CALIBRATION_POSITIONS; for fitting a basis."""
    assert isinstance(questions.raw, dict), "windows are named arrays"
    order = np.random.default_rng(0).permutation(len(questions))
    held = np.cumsum((questions.raw["target"] >= 0).sum(1)[order])
    enough = int(np.searchsorted(held, CALIBRATION_POSITIONS)) + 1
    found = []
    for one in teacher.outputs(questions.take(np.sort(order[:enough]))):
        assert one.output.hidden_BH is not None
        found.append(one.output.hidden_BH.float().cpu().numpy())
    hidden_NG: Array = np.concatenate(found)[:CALIBRATION_POSITIONS]
    return hidden_NG


def measured(recorder: Packer, questions: Questions, positions: int = FIDELITY_POSITIONS) -> dict[str, float]:
    """KL(teacher, kept) in nats, total variation and bias, over positions of windows drawn at random.

    A sample leaves tokens out, so its KL is infinite, and is not told.
    """
    assert isinstance(questions.raw, dict), "windows are named arrays"
    windows = max(1, positions // questions.raw["ids"].shape[1])
    parts: list[dict[str, Array]] = []
    for _, count_B, output, target_P in recorder.teacher.outputs(some(questions, windows, 2)):
        assert output.hidden_BH is not None
        assert output.head is not None
        seed_P = position_seeds(np.zeros(len(count_B), np.uint64), count_B, len(parts))
        kept = recorder.unpacked(recorder.pack(output, target_P, seed_P))
        parts.append(fidelity(output.hidden_BH, output.head, kept))
    return {name: value for name, value in summary(joined(parts)).items() if math.isfinite(value)}


def opened(folder: Path, layout: dict[str, Any]) -> tuple[Layout, FittedBasis | None]:
    """What the records in a teacher's folder are decoded with."""
    path = folder / BASIS
    fitted = FittedBasis.load(path) if path.is_file() else None
    if layout.get("basis") != (None if fitted is None else fitted.fingerprint):
        raise CorruptFile(
            "these answers were kept with another basis than the one beside them",
            where=str(path),
            cure="Put the right file back, or remove the folder to ask again",
        )
    return Layout.from_json(layout), fitted
