"""Reading what a teacher wrote: thought, solution, answer; what was cut off; and the part that derives the answer."""

from __future__ import annotations

import pytest

from stillroom.transfer_set.rewriting import read_rewrite, rewrite_messages
from stillroom.transfer_set.traces import Trace, final_answer, read_trace, shortened
from stillroom.transfer_set.verify import Numeric

THOUGHT = """She has 16 eggs.
16 - 3 - 4 = 9 eggs are left.
9 * 2 = 18 dollars.
Wait, let me check.
Again, 9 * 2 = 18.
So that is it."""


@pytest.mark.parametrize(
    ("text", "thought", "solution", "answer"),
    [
        ("<think>\na\n</think>\n\nb\n#### 5", "a", "b\n#### 5", "5"),
        ("a</think>The answer is 5.", "a", "The answer is 5.", "5."),
        ("<thinking>a</thinking><answer> 5 </answer>", "a", "<answer> 5 </answer>", "5"),
        ("<think>a</think> b <think>c</think> d\n#### 5", "a\n b c", "d\n#### 5", "5"),
        (
            "<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>\\boxed{5}<|end_of_solution|>",
            "a",
            "\\boxed{5}",
            "5",
        ),
        ("a\n#### 1,234", "", "a\n#### 1,234", "1,234"),
    ],
)
def test_thought_and_solution_stand_apart(text: str, thought: str, solution: str, answer: str) -> None:
    trace = read_trace(text)
    assert (trace.thought, trace.solution, trace.answer) == (thought, solution, answer)
    assert trace.complete


@pytest.mark.parametrize(
    ("text", "answer", "form"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}", "boxed"),
        ("\\boxed{9}. But then \\boxed{3}", "3", "boxed"),
        ("\\boxed{2} and \\boxed{3}", "2, 3", "boxed"),
        ("$x=\\boxed{2}$ or $x=\\boxed{3}$", "2, 3", "boxed"),
        ("#### 5\nAnswer: 6", "5", "hashes"),
        ("✅ Final Answer: **73**", "73", "named"),
        ("**Answer:** 18", "18", "named"),
        ("Answer:\n\n12 apples", "12 apples", "named"),
        ("The final answer is 42. I hope it is correct.", "42", "named"),
        ("The final answer is 3.5\nDone", "3.5", "named"),
        ("Thus the answer is 1. No, the answer is 2.", "2.", "named"),
        ("first\nShe makes 9 * 2 = $18", "$18", "last line"),
        ("\\boxed{}", None, "boxed"),
        ("", None, None),
        ("word " * 100, None, None),
    ],
)
def test_the_final_answer(text: str, answer: str | None, form: str | None) -> None:
    assert final_answer(text) == (answer, form)


@pytest.mark.parametrize(
    ("text", "reason", "why"),
    [
        ("a\n#### 5", "length", "its length limit"),
        ("a\n#### 5", "content_filter", "content_filter"),
        ("<think>a\n#### 5", "stop", "thought is never closed"),
        ("<think>a</think>b <think> c\n#### 5", "stop", "thought is never closed"),
        ("<|begin_of_solution|>a \\boxed{5}", "stop", "solution is never closed"),
        ("so \\boxed{5", "stop", "box that is never closed"),
        ("\\boxed{1} then \\boxed{5", "stop", "box that is never closed"),
    ],
)
def test_what_was_cut_off_is_not_complete(text: str, reason: str, why: str) -> None:
    trace = read_trace(text, reason)
    assert why in trace.cut
    assert not trace.complete


def test_an_answer_that_is_not_said_is_not_complete() -> None:
    assert not read_trace("<think>so 5</think>").complete
    assert not read_trace("").complete
    assert read_trace("#### 5", None).complete
    assert read_trace("\\boxed{\\boxed{5}}").complete


def test_a_thought_is_cut_after_the_first_place_that_derives_the_answer() -> None:
    trace = Trace(THOUGHT, "#### 18", "18", "hashes")
    once = shortened(trace, "18", Numeric())
    assert once.thought.splitlines()[-1] == "9 * 2 = 18 dollars."
    assert once.solution == trace.solution
    twice = shortened(trace, "18", Numeric(), solutions=2)
    assert twice.thought.splitlines()[-1] == "Again, 9 * 2 = 18."
    assert shortened(trace, "18", Numeric(), solutions=3) == trace
    assert shortened(trace, "19", Numeric()) == trace
    assert shortened(trace, "16", Numeric()) == trace, "a number that is given is not derived"


def test_a_thought_without_lines_is_cut_by_sentences() -> None:
    trace = Trace("It has 3. Then 3*4 = 12. So 12+1 = 13. Check: that is right. Again.", "#### 13", "13", "hashes")
    assert shortened(trace, "13", Numeric()).thought == "It has 3. Then 3*4 = 12. So 12+1 = 13."


def test_a_rewritten_trace_takes_its_place_only_where_it_says_the_same() -> None:
    original = Trace(THOUGHT, "#### 18", "18", "hashes")
    messages = rewrite_messages("How much?", original)
    assert [one["role"] for one in messages] == ["system", "user"]
    assert "How much?" in messages[1]["content"]
    assert "9 * 2 = 18" in messages[1]["content"]

    def told(text: str, reason: str = "stop") -> str:
        found = read_rewrite(text, original, "18", Numeric(), reason)
        assert (found.trace == original) == bool(found.kept_because)
        return found.kept_because

    assert told("<think>16-3-4 = 9, 9*2 = 18</think>\n#### 18") == ""
    assert "rejected" in told("<think>16-3-4 = 9</think>\n#### 9")
    assert "not complete" in told("<think>16-3-4 = 9</think>\n#### 18", "length")
    assert "no thought" in told("#### 18")
    assert "longer" in told("<think>" + "very " * 200 + "</think>\n#### 18")
    with pytest.raises(ValueError, match="cut off"):
        rewrite_messages("?", read_trace("<think>"))
