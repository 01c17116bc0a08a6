"""What travels between stages: Questions, Answers, Batch, Prediction, and the Arrow schema of a key.

The shape legend, used as suffix of every array name:

    N rows   B rows of a batch   C classes   D input columns   H hidden width   S seeds   K members of an ensemble
    T tokens of a row   P scored positions of a batch   V vocabulary   G teacher's hidden width   L layers
    of sparse soft targets: K head   M components of the tail   S samples of the tail   R bytes of a record

This file knows no model, no loss and no file layout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

Array: TypeAlias = npt.NDArray[Any]
Raw: TypeAlias = Array | dict[str, Array]
"""Rows as they were given: one array [N, ...], or named columns of [N] values each."""

KEY_BYTES = 16
UNLABELLED = -1
PLAIN_VIEW = 0
"""View 0 is the question as it was given; view v > 0 is its v-th augmentation."""


PADDING = -1
"""Stands where a row of tokens has ended."""


class Tokens(NamedTuple):
    """A batch of token rows: ids [B, T], PADDING at the end, and which positions' outputs are scored, bool [B, T].

    A causal model's output at t predicts the token at t + 1, a masked model's the one that stood at t before masking.
    """

    ids_BT: torch.Tensor
    scored_BT: torch.Tensor


class Head(NamedTuple):
    """A language model's output layer: logits [.., V] = cap(hidden @ weight.T + bias), where cap(x) = c tanh(x / c)."""

    weight_VH: torch.Tensor
    bias_V: torch.Tensor | None = None
    soft_cap: float | None = None

    @property
    def vocabulary(self) -> int:
        """V."""
        return len(self.weight_VH)


Mean: TypeAlias = Literal["arithmetic", "geometric"]
"""Of probabilities, or of log-probabilities."""


class MixedHead(NamedTuple):
    """The output layers of several models over one vocabulary as one: their hidden states stand side by side [.., H + H + ..].

    What it says is the mean of the models' distributions, a geometric one renormalised.
    """

    heads: tuple[Head, ...]
    share_K: tuple[float, ...]
    """Of each model; together 1."""
    mean: Mean

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.heads[0].vocabulary

    @property
    def widths(self) -> list[int]:
        """H of each model."""
        return [head.weight_VH.shape[1] for head in self.heads]


class Output(NamedTuple):
    """What a model's forward pass gives.

    A classifier: logits [B, C] and its last hidden layer [B, H]. A language model: no logits, which are never whole in
    memory, but the last hidden layer of the P scored positions [P, H] and the output layer. An ensemble's is mixed.
    """

    logits_BC: torch.Tensor | None
    hidden_BH: torch.Tensor | None = None
    head: Head | MixedHead | None = None
    layers: tuple[torch.Tensor, ...] = ()
    """Hidden states [B, H] or [P, H] after the layers that were asked for, in their order."""


class Shown(NamedTuple):
    """Which layers, counted from 0, are shown beside the last hidden layer, and the width of each."""

    student: tuple[int, ...]
    student_width: int
    teacher: tuple[int, ...]
    teacher_width: int


class Basis(NamedTuple):
    """What turns kept components into tail logits [P, V] = cap(components [P, M] @ matrix.T + bias), capped as a Head's are."""

    matrix_VM: torch.Tensor
    bias_V: torch.Tensor
    soft_cap: float | None = None


@dataclass(slots=True)
class SparseTargets:
    """A teacher's distribution at P positions as it was kept: an exact head, and a tail of one of three forms."""

    ids_PK: torch.Tensor
    """Of the head, int64, most probable first."""
    log_p_PK: torch.Tensor
    """Of the head, float32, nats."""
    tail_log_mass_P: torch.Tensor
    """Log of the probability outside the head; -inf where there is none."""
    entropy_P: torch.Tensor
    """Of the whole distribution, nats."""
    forced_log_p_P: torch.Tensor
    """Of the token that stands there in the text."""
    tail: Literal["hidden", "sample", "bucket"]
    """A compressed hidden state, an unbiased sample, or the mass alone."""
    components_PM: torch.Tensor | None = None
    basis: Basis | None = None
    sample_ids_PS: torch.Tensor | None = None
    sample_log_weight_PS: torch.Tensor | None = None
    """Log of each drawn token's weight; together they weigh as much as the tail. -inf where nothing was drawn."""


def row_count(raw: Raw) -> int:
    """How many rows `raw` holds."""
    return len(next(iter(raw.values()))) if isinstance(raw, dict) else len(raw)


def take_rows(raw: Raw, index_B: Array) -> Raw:
    """The rows of `raw` at `index_B`, in that order."""
    if isinstance(raw, dict):
        return {name: column[index_B] for name, column in raw.items()}
    return raw[index_B]


def content_keys(raw: Raw) -> Array:
    """The key of each question: the first 16 bytes of the sha256 of its content, uint8 [N, 16].

    A column's name belongs to the content, the place of the row and of the file does not; so the same question has the
    same key under any shuffle, split or neighbour. Numbers are hashed as float64, uint8 images as they are; rows with
    named columns and rows of a bare array are different questions.
    """
    if isinstance(raw, dict):
        parts = {name: _canonical(raw[name]) for name in sorted(raw)}
        if all(column.dtype == np.float64 for column in parts.values()):
            head = "\0".join([*parts, "f"]).encode()
            return _digests(head, (row.tobytes() for row in np.stack(list(parts.values()), 1)))
        heads = {name: f"{name}\0{column.dtype.kind}\0".encode() for name, column in parts.items()}
        keys = bytearray()
        for row in range(row_count(raw)):
            digest = hashlib.sha256()
            for name, column in parts.items():
                value = column[row]
                body = str(value).encode() if column.dtype.kind in "OU" else value.tobytes()
                digest.update(heads[name] + len(body).to_bytes(4, "little") + body)
            keys += digest.digest()[:KEY_BYTES]
        return np.frombuffer(bytes(keys), np.uint8).reshape(-1, KEY_BYTES)
    array = np.ascontiguousarray(_canonical(raw))
    head = f"{array.dtype.kind}{array.shape[1:]}\0".encode()
    as_text = array.dtype.kind in "OU"
    return _digests(head, (str(value).encode() if as_text else value.tobytes() for value in array))


def _digests(head: bytes, bodies: Iterable[bytes]) -> Array:
    joined = b"".join(hashlib.sha256(head + body).digest()[:KEY_BYTES] for body in bodies)
    return np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)


def _canonical(column: Array) -> Array:
    if column.dtype.kind in "fiub" and column.dtype != np.uint8:
        return column.astype(np.float64)
    return column


@dataclass(frozen=True)
class Questions:
    """Rows to ask about: raw inputs, content keys [N, 16], labels [N] (-1 where there is none) and weights [N]."""

    raw: Raw
    key_N: Array
    label_N: Array
    weight_N: Array
    row_N: Array
    """The row's place in its source, for error messages and example tables."""

    @classmethod
    def of(cls, raw: Raw, label_N: Array | None = None, row_N: Array | None = None) -> Questions:
        """Questions with keys made from their content; no label where none is given."""
        count = row_count(raw)
        return cls(
            raw,
            content_keys(raw),
            np.full(count, UNLABELLED, np.int64) if label_N is None else label_N.astype(np.int64),
            np.ones(count, np.float32),
            np.arange(count) if row_N is None else row_N,
        )

    def __len__(self) -> int:
        return len(self.label_N)

    def take(self, index: Array) -> Questions:
        """These rows, in this order."""
        return Questions(
            take_rows(self.raw, index), self.key_N[index], self.label_N[index], self.weight_N[index], self.row_N[index]
        )

    @property
    def labelled_N(self) -> Array:
        """True where the row has a label."""
        known_N: Array = self.label_N != UNLABELLED
        return known_N

    def fingerprint(self) -> str:
        """A digest of keys, labels and weights, in order."""
        digest = hashlib.sha256(self.key_N.tobytes())
        digest.update(self.label_N.tobytes())
        digest.update(self.weight_N.tobytes())
        return digest.hexdigest()


def joined(first: Questions, second: Questions) -> Questions:
    """The rows of both, in order."""
    if not len(second):
        return first
    if isinstance(first.raw, dict) and isinstance(second.raw, dict):
        other = second.raw
        raw: Raw = {name: np.concatenate([column, other[name]]) for name, column in first.raw.items()}
    else:
        raw = np.concatenate([first.raw, second.raw])
    pairs = [(first.key_N, second.key_N), (first.label_N, second.label_N), (first.weight_N, second.weight_N)]
    key_N, label_N, weight_N = (np.concatenate(pair) for pair in pairs)
    return Questions(raw, key_N, label_N, weight_N, np.concatenate([first.row_N, second.row_N]))


@dataclass(frozen=True)
class Splits:
    """All questions of a run. `omitted` are the training rows of classes the student must not see: a trained teacher
    learns their labels, a student is given no more than their inputs, and those only to match a class prior."""

    train: Questions
    validation: Questions
    test: Questions
    omitted: Questions
    classes: list[Any]
    notes: list[str] = field(default_factory=list)
    """What a reader of the report must know about how the rows were split."""
    slice_N: Array | None = None
    """The slice that each test row belongs to, [N] objects as a column gives them; None where no column does."""
    gold: dict[bytes, str] | None = None
    """Of problems: the right answer as text, by the question's key; a question without one is not in it."""

    def fingerprint(self) -> str:
        """A digest of every split, and of the classes or the gold answers."""
        parts = [self.train, self.validation, self.test, self.omitted]
        text = "".join(part.fingerprint() for part in parts) + repr(self.classes)
        if self.gold is not None:
            text += repr(sorted(self.gold.items()))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Answers:
    """What a teacher said: log-probabilities [N, C] and, where asked for, its last hidden layer [N, H]."""

    log_probabilities_NC: Array
    hidden_NH: Array | None = None

    answered_N: Array | None = None
    """False where a teacher that can only be asked refused, or could not be read; None: all were answered."""

    def given(self) -> Answers:
        """Those that were answered, alone."""
        if self.answered_N is None:
            return self
        hidden_NH = None if self.hidden_NH is None else self.hidden_NH[self.answered_N]
        return Answers(self.log_probabilities_NC[self.answered_N], hidden_NH)


@dataclass(frozen=True)
class Pool:
    """Questions that were not asked yet, as students see them: probabilities [S, N, C] of a committee of S students, the
    last hidden layer of its first [N, H], and that of the questions asked before [M, H]. None where nobody looks."""

    count: int
    probabilities_SNC: Array | None = None
    features_NH: Array | None = None
    asked_features_MH: Array | None = None


class Verdict(NamedTuple):
    """What a verifier says of one answer, and why."""

    outcome: Literal["accepted", "rejected", "unsure"]
    reason: str = ""

    @property
    def accepted(self) -> bool:
        """Only such answers are learned from."""
        return self.outcome == "accepted"


@dataclass(frozen=True)
class PositionAnswers:
    """What a language model said: one packed record [P, R] a scored position, and how many each question has [N]."""

    records_PR: Array
    count_N: Array
    hidden_PG: Array | None = None


@dataclass(slots=True)
class Batch:
    """What the loop hands to a student and its objectives. Fields that a recipe does not use are None.

    Of a language model, B stands for the P scored positions in every field but `input`, and a label is a token.
    """

    input: torch.Tensor | Tokens
    label_B: torch.Tensor | None = None
    all_labelled: bool = False
    """Known beforehand that every row has a label, so that nobody needs to count."""
    weight_B: torch.Tensor | None = None
    log_probabilities_BC: torch.Tensor | None = None
    hidden_BH: torch.Tensor | None = None
    """The teacher's last hidden layer and, side by side with it, the further ones that are shown (see Shown)."""
    mixed_label_B: torch.Tensor | None = None
    """Mixup: the label of the row mixed in, with share 1 - `mix`."""
    mix: float = 1.0
    sparse: SparseTargets | None = None
    """The teacher's kept distributions."""
    teacher: Output | None = None
    """The teacher's last hidden layer [P, G] and output layer, where it is live."""

    @property
    def rows(self) -> int:
        """How many rows, or scored positions, there are."""
        assert self.label_B is not None
        return len(self.label_B)


@dataclass(frozen=True)
class Prediction:
    """What a student says of N rows: the original labels [N], probabilities [N, C] float32, and the classes [C]."""

    label: Array
    probabilities: Array
    classes: list[Any]

    def __len__(self) -> int:
        return len(self.label)

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(str(name))}</th>" for name in ["label", *self.classes])
        body = "".join(
            f"<tr><td>{escape(str(label))}</td>" + "".join(f"<td>{p:.3f}</td>" for p in row) + "</tr>"
            for label, row in zip(self.label[:20], self.probabilities[:20], strict=True)
        )
        more = f"<p>{len(self) - 20:,} more rows</p>" if len(self) > 20 else ""
        return f"<table><tr>{head}</tr>{body}</table>{more}"


def key_schema(positions: bool = False) -> pa.Schema:
    """The Arrow schema of a shard's keys: content key (16 bytes), view and, for a language model, scored positions."""
    import pyarrow as pa

    counts = [("positions", pa.int32())] if positions else []
    return pa.schema([("key", pa.binary(KEY_BYTES)), ("view", pa.int64()), *counts])
