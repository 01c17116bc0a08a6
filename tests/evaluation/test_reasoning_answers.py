"""What students write to test questions: each has the room that its own question leaves, and comes back from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import DataError
from stillroom.evaluation.reasoning_answers import Sheet, Written, answer_all
from stillroom.kinds import Verifier, parse

pytest.importorskip("transformers", reason="the tests of language models need the transformers package")

from stillroom.models.language import Generated

NUMERIC: Verifier = parse("verifier", {"kind": "numeric"})


class Counter:
    """Looks at 20 tokens, and writes as many as it may, of the prompt's first token."""

    context, parameters = 20, 10

    def __init__(self) -> None:
        self.lots: list[tuple[int, int]] = []

    def generate(self, prompts: list[list[int]], max_new_tokens: int, batch: int = 1) -> list[Generated]:
        assert all(len(prompt) + max_new_tokens <= self.context for prompt in prompts)
        self.lots.append((len(prompts), max_new_tokens))
        return [Generated([prompt[0]] * max_new_tokens, f"#### {prompt[0]}", True) for prompt in prompts]


def answered(model: Any, lengths: list[int], most: int) -> Sheet:
    prompts = [[place] * length for place, length in enumerate(lengths)]
    gold = [str(place) for place in range(len(lengths))]
    return answer_all(model, prompts, gold, NUMERIC, most, lambda count: None)


def test_a_long_question_cuts_no_answer_but_its_own() -> None:
    model = Counter()
    sheet = answered(model, [4, 17, 5, 15, 5, 17], 8)
    assert sheet.tokens_N.tolist() == [8, 3, 8, 5, 8, 3]
    assert sheet.right_N.all()
    assert model.lots == [(3, 8), (1, 5), (2, 3)]


def test_a_question_without_room_is_refused() -> None:
    with pytest.raises(DataError, match="a test question has 20 tokens, and the student looks at 20"):
        answered(Counter(), [4, 20], 8)


def test_answers_come_back_whatever_they_hold(tmp_path: Path) -> None:
    sheet = Sheet([Written("a\u2028b\u0085c\x1e", None, "unsure", "", 3, False)], 1.5)
    sheet.write(tmp_path / "student.0.jsonl")
    assert Sheet.read(tmp_path / "student.0.jsonl") == sheet
