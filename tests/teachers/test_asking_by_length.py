"""A language teacher is asked windows of like length together, and answers as if they had come in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.models.language import LanguageModel
from stillroom.rows import PADDING, Array, Output, Questions, Tokens
from stillroom.teachers import language
from stillroom.teachers.language import AskedLanguageModel
from stillroom.transfer_set.recording import Recorder
from stillroom.transfer_set.sparse_logits import Layout
from tiny_language import write_model

LENGTHS = (5, 32, 3, 17, 32, 4, 9, 30, 6, 16, 3)


class Watched(AskedLanguageModel):
    """Remembers how large the batches were that it saw."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self.seen: list[tuple[int, int]] = []

    def output(self, tokens: Tokens) -> Output:
        rows, width = tokens.ids_BT.shape
        self.seen.append((rows, width))
        return super().output(tokens)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(LanguageModel.load(Path(write_model(tmp_path_factory.mktemp("teacher"))), "causal"))


@pytest.fixture
def asked(teacher: Watched, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(language, "FORWARD_TOKENS", 64)
    teacher.seen.clear()
    return teacher


def windows(lengths: tuple[int, ...] = LENGTHS, scored: float = 0.7) -> Questions:
    """Random tokens; some positions are not scored, as those of a prompt."""
    roll, width = np.random.default_rng(0), max(lengths)
    ids_NT = np.full((len(lengths), width), PADDING, np.int32)
    target_NT = ids_NT.copy()
    for row, length in enumerate(lengths):
        ids_NT[row, :length] = roll.integers(1, 60, length)
        target_NT[row, : length - 1] = np.where(roll.random(length - 1) < scored, ids_NT[row, 1:length], PADDING)
        target_NT[row, length - 1] = 1
    return Questions.of({"ids": ids_NT, "target": target_NT})


def recorder(asked: AskedLanguageModel, tail: Any) -> Recorder:
    return Recorder(asked, Layout.of(asked.model.vocabulary, 4, tail, 8), None, with_hidden=True)


@pytest.mark.parametrize("tail", ["bucket", "sample"])
@pytest.mark.parametrize("view", [0, 3])
def test_records_are_those_of_windows_asked_one_by_one(asked: Watched, tail: Any, view: int) -> None:
    questions, packer = windows(), recorder(asked, tail)
    together = packer.answer(questions, view)
    alone = [packer.answer(questions.take(np.array([place])), view) for place in range(len(questions))]
    assert together.count_N.tolist() == [int(one.count_N[0]) for one in alone]
    assert together.hidden_PG is not None
    hidden_PG = np.concatenate([one.hidden_PG for one in alone])
    np.testing.assert_allclose(
        together.hidden_PG.astype(np.float32), hidden_PG.astype(np.float32), atol=2e-3, rtol=2e-3
    )
    one, other = (
        packer.unpacked(records) for records in (together.records_PR, np.concatenate([a.records_PR for a in alone]))
    )
    assert torch.equal(one.ids_PK, other.ids_PK)
    torch.testing.assert_close(one.log_p_PK, other.log_p_PK, atol=0.1, rtol=0)
    torch.testing.assert_close(one.forced_log_p_P, other.forced_log_p_P, atol=1e-2, rtol=1e-2)
    if tail == "sample":
        assert one.sample_ids_PS is not None
        assert other.sample_ids_PS is not None
        assert (
            one.sample_ids_PS == other.sample_ids_PS
        ).float().mean() > 0.98  # a point on an edge may fall to either side


def test_short_windows_are_not_padded_to_the_longest(asked: Watched) -> None:
    recorder(asked, "bucket").answer(windows())
    assert all(rows * width <= language.FORWARD_TOKENS or rows == 1 for rows, width in asked.seen)
    assert sum(rows for rows, _ in asked.seen) == len(LENGTHS)
    in_their_order = [LENGTHS[start : start + 2] for start in range(0, len(LENGTHS), 2)]
    padded = sum(rows * width for rows, width in asked.seen) - sum(LENGTHS)
    assert padded < sum(len(part) * max(part) for part in in_their_order) - sum(LENGTHS)
    assert len(asked.seen) < len(in_their_order)


def test_full_windows_come_in_their_order(asked: Watched) -> None:
    places: Array = np.concatenate([one.place_B for one in asked.outputs(windows((32,) * 5))])
    assert places.tolist() == [0, 1, 2, 3, 4]
    assert asked.seen == [(2, 32), (2, 32), (1, 32)]


def test_what_comes_next_is_told_window_by_window(asked: Watched) -> None:
    questions = windows()
    together = asked.answer(questions).log_probabilities_NC
    alone = [asked.answer(questions.take(np.array([place]))).log_probabilities_NC for place in range(len(questions))]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)
