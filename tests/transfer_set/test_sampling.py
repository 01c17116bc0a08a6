"""Sampling until enough is accepted: how often a question is asked, what is kept, and when to give up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoner import Said
from stillroom.columns import objects
from stillroom.errors import CorruptFile, ModelError
from stillroom.kinds import Verifier, parse
from stillroom.rows import Questions, Verdict
from stillroom.transfer_set.sampling import Sampled, Traces, facts_of, reasons, rewritten, sample
from stillroom.transfer_set.verify import bad_golds

NUMERIC: Verifier = parse("verifier", {"kind": "numeric"})


class Script:
    """Says what stands in a list, question by question; None is a sample that failed."""

    def __init__(self, said: dict[str, list[str | None]], by_key: bool = False) -> None:
        self.said, self.by_key, self.calls = said, by_key, list[tuple[int, int, int]]()

    def samples(
        self, questions: Questions, n: int, purpose: str | None = None, first: int = 0
    ) -> Sequence[Sequence[Said]]:
        assert isinstance(questions.raw, dict)
        self.calls.append((len(questions), n, first))
        rows = [self.said[str(text)][first : first + n] for text in questions.raw["question"]]
        return [[Said(one) for one in row if one is not None] for row in rows]


def asked(*texts: str) -> Questions:
    return Questions.of({"question": objects(list(texts))})


def gold_of(questions: Questions, *answers: str) -> dict[bytes, str]:
    return {key.tobytes(): answer for key, answer in zip(questions.key_N, answers, strict=True)}


def run(teacher: Any, questions: Questions, gold: dict[bytes, str], **knobs: Any) -> list[Sampled]:
    given = {"most": 4, "wanted": 1, "purpose": "trace", **knobs}
    return sample(teacher, questions, gold, given.pop("verifier", NUMERIC), **given)


def test_a_question_is_asked_no_more_once_an_answer_is_accepted() -> None:
    teacher = Script({"a": ["#### 1"] * 4, "b": ["#### 9", "#### 2", "#### 2", "#### 2"]})
    questions = asked("a", "b")
    found = run(teacher, questions, gold_of(questions, "1", "2"))
    assert [(one.place, one.outcome) for one in found] == [(0, "accepted"), (0, "rejected"), (1, "accepted")]
    assert teacher.calls == [(2, 1, 0), (1, 1, 1)]


def test_a_failed_sample_counts_as_asked_and_drops_no_row() -> None:
    teacher = Script({"a": [None, "#### 1"], "b": ["#### 2"]})
    questions = asked("a", "b")
    found = run(teacher, questions, gold_of(questions, "1", "2"))
    assert [one.outcome for one in found] == ["accepted", "accepted"]
    assert teacher.calls[-1] == (1, 1, 1)


def test_a_recorded_teacher_is_not_asked_for_more_than_it_has() -> None:
    teacher = Script({"a": ["#### 9"], "b": [], "c": ["#### 3"]}, by_key=True)
    questions = asked("a", "b", "c")
    found = run(teacher, questions, gold_of(questions, "1", "2", "3"))
    assert [one.outcome for one in found] == ["rejected", "accepted"]
    assert len(teacher.calls) <= 2


def test_a_thought_that_is_given_apart_is_part_of_the_text() -> None:
    class Apart(Script):
        def samples(
            self, questions: Questions, n: int, purpose: str | None = None, first: int = 0
        ) -> Sequence[Sequence[Said]]:
            return [[Said("#### 3", thought="1 and 2")] * n for _ in range(len(questions))]

    questions = asked("a")
    (one,) = run(Apart({}), questions, gold_of(questions, "3"))
    assert (one.trace.thought, one.trace.answer) == ("1 and 2", "3")


def test_where_no_gold_is_known_samples_judge_each_other() -> None:
    teacher = Script({"a": ["#### 1", "#### 2", "#### 1", "#### 1"]})
    majority = parse("verifier", {"kind": "majority"})
    found = run(teacher, asked("a"), {}, verifier=majority, wanted=2, most=4)
    assert [one.outcome for one in found if one.trace.answer == "1"][:2] == ["accepted", "accepted"]


class Breaking(Verifier):
    """Breaks down on the answer 9."""

    def verify(self, answer: str, gold: str | None) -> Verdict:
        if answer == "9":
            raise ZeroDivisionError("nine")
        return Verdict("accepted" if answer == gold else "rejected", "it looked")


def test_an_answer_on_which_a_verifier_breaks_down_is_unsure_and_the_others_are_judged() -> None:
    teacher = Script({"a": ["#### 9", "#### 1", "#### 2"]})
    questions = asked("a")
    found = run(teacher, questions, gold_of(questions, "1"), verifier=Breaking(kind="breaking"), most=3, wanted=3)
    assert [(one.outcome, one.reason) for one in found] == [
        ("unsure", "the verifier broke down: ZeroDivisionError: nine"), ("accepted", "it looked"), ("rejected", "it looked"),
    ]  # fmt: skip


def test_a_question_is_left_out_on_whose_gold_answer_a_verifier_breaks_down() -> None:
    (bad,) = bad_golds(Breaking(kind="breaking"), ["1", "9", "2"])
    assert (bad.row, bad.gold, bad.reason) == (1, "9", "the verifier broke down: ZeroDivisionError: nine")


def test_all_rejected_stops_early_and_says_why() -> None:
    texts = [f"q{place}" for place in range(400)]
    questions = asked(*texts)
    teacher = Script({text: ["#### 9"] * 4 for text in texts})
    with pytest.raises(ModelError, match=r"none of the first 100 .*rejected: 9 is not 1 \(100\)"):
        run(teacher, questions, gold_of(questions, *["1"] * 400))
    assert sum(rows * n for rows, n, _ in teacher.calls) == 100, "no more was bought than that"
    # Where rejected ones are wanted it goes on, but asks none again: another sample would not be accepted either.
    assert len(run(teacher, questions, gold_of(questions, *["1"] * 400), must_accept=False)) == 400


def several() -> Traces:
    texts = ["<think>a b c</think>#### 1", "<think>a</think>#### 1", "<think>a</think>#### 1", "<think>z</think>#### 2"]
    outcomes = ["accepted", "accepted", "accepted", "rejected"]
    rows = [
        Sampled("00" * 16, place, text, "stop", 10, 20, 0.5, outcome, "'2' is not '1'")
        for place, (text, outcome) in enumerate(zip(texts, outcomes, strict=True))
    ]
    return Traces([*rows, Sampled("11" * 16, 0, "<think>a", "length", 10, 20, 0.5, "unsure", "it was cut")])


def test_what_is_chosen() -> None:
    traces = several()
    assert [one.place for one in traces.choose("accepted", "first", None)] == [0, 1]  # each text once
    assert [one.place for one in traces.choose("accepted", "short", 1)] == [1]
    assert [one.place for one in traces.choose("accepted", "long", 1)] == [0]
    assert [one.place for one in traces.choose("rejected", "first", None)] == [3]
    assert [one.place for one in traces.choose("every", "first", None)] == [0, 1, 3]  # what was cut is never chosen


def test_the_cost_of_one_kept_trace_counts_the_rejected_ones() -> None:
    facts = facts_of(several(), 2)
    assert (facts["samples"], facts["kept"], facts["questions"]) == (5, 2, 2)
    assert facts["usd_per_kept"] == pytest.approx(1.25)
    assert facts["tokens_per_kept"] == pytest.approx(75)
    assert facts["outcomes"] == {"accepted": 3, "rejected": 1, "unsure": 1}
    assert reasons(several().samples)["rejected"] == {"another answer than the gold one": 1}


def test_traces_come_back_from_their_file(tmp_path: Path) -> None:
    traces = several()
    traces.write(tmp_path)
    assert Traces.read(tmp_path).samples == traces.samples
    odd = Traces([Sampled("00" * 16, 0, "a\u2028b\u2029c\u0085d\x0be\r\nf #### 1", "stop", 1, 2, 0.5, "accepted", "")])
    odd.write(tmp_path)
    assert Traces.read(tmp_path).samples == odd.samples, "a text holds what some take for the end of a line"
    (tmp_path / "traces.jsonl").write_text('{"key": 1')
    with pytest.raises(CorruptFile, match="no whole traces"):
        Traces.read(tmp_path)


def test_a_rewritten_trace_takes_the_place_of_one_with_the_same_answer_alone() -> None:
    traces = several()
    chosen = traces.choose("accepted", "first", None)
    said = [Said("<think>a c</think>\n#### 1", tokens_out=7), Said("<think>a</think>\n#### 3", tokens_out=7)]
    found = {(one.key, one.place): one for one in rewritten(traces, chosen, said, NUMERIC, {bytes(16): "1"}).samples}
    first, second = (found["00" * 16, one.place] for one in chosen)
    assert first.trace.thought == "a c"
    assert second.rewritten == ""
    assert first.tokens_out == second.tokens_out == 27  # both were paid for
    assert len(found) == len(traces.samples)
    assert np.isclose(first.usd, 0.501)


def test_traces_written_again_are_those_that_were_chosen_for_it() -> None:
    """The first is the shorter as it was sampled, and the longer one as it was written again."""
    texts = ["<think>a b c d</think>#### 1", "<think>a b c d e f</think>#### 1"]
    traces = Traces([Sampled("00" * 16, n, text, "stop", 10, 20, 0.5, "accepted", "") for n, text in enumerate(texts)])
    (chosen,) = traces.choose("accepted", "short", 1)
    again = rewritten(traces, [chosen], [Said("<think>a b c d e</think>\n#### 1")], NUMERIC, {bytes(16): "1"})
    longer = [Said("<think>a b c d e</think>\n#### 1"), Said("<think>a</think>\n#### 1")]
    assert again.choose("accepted", "short", 1)[0].trace.thought == "a b c d e"
    both = rewritten(traces, traces.choose("accepted", "first", None), longer, NUMERIC, {bytes(16): "1"})
    assert [one.place for one in both.choose("accepted", "short", 1)] == [0]
