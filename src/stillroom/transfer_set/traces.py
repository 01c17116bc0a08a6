"""What a teacher wrote, split into thought, solution and answer; and the shortest part of it that derives the answer.

A deterministic reader: the same text, the same trace. It knows these forms, and no language model is asked:

    <think> thought </think> solution                                     also thinking, thought, reasoning
    <|begin_of_thought|> .. <|end_of_thought|> <|begin_of_solution|> .. <|end_of_solution|>
    no marks: the whole text is the solution and there is no thought

and in the solution, the last of the first kind that is found: \\boxed{X}, a line `#### X`, <answer>X</answer>, `Answer: X`
or `the answer is X`, else the last line where it is short. A trace that was cut off, by its length limit or inside a mark
that was never closed, is not complete, and what is not complete is never kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from stillroom.kinds import Verifier
from stillroom.transfer_set.answer_text import group_at
from stillroom.transfer_set.plain_numbers import read_number
from stillroom.transfer_set.verify import judged

Form = Literal["boxed", "hashes", "tag", "named", "last line"]
ENDED = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", ""}
"""Reasons of an API for a text that ended by itself; any other means that it was cut off."""
THOUGHT = "think|thinking|thought|reasoning"
OPEN = re.compile(rf"<(?:{THOUGHT})>|<\|begin_of_thought\|>", re.I)
CLOSE = re.compile(rf"</(?:{THOUGHT})>|<\|end_of_thought\|>", re.I)
BEGIN_SOLUTION, END_SOLUTION = "<|begin_of_solution|>", "<|end_of_solution|>"
BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
BETWEEN = re.compile(r"[\s$,;.]*(?:\\\)|\\\()?(?:,?\s*(?:and|or)\b)?[\s$,;]*(?:\\\()?[\s$]*(?:[A-Za-z]\s*=\s*)?")
HASHES = re.compile(r"^[ \t]*####[ \t]*(.+?)[ \t]*$", re.MULTILINE)
TAG = re.compile(r"<answer>(.*?)</answer>", re.I | re.DOTALL)
NAMED = re.compile(
    r"(?:^|[\s*_#>(])(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s+to\s+[^.:\n]{1,80})?\**\s*(?:[:：=]|is\b|would be\b)\**:?"
    r"[ \t]*(?:\n\s*)?(\S.*?)(?=\n|$|\.\s+(?=[A-Z\"'])|\s+I hope\b)",
    re.I,
)
RESULT = re.compile(r"(?:=|\bis\b|\bgives\b|\bget\b|\bequals\b|→|=>)\s*([^=]{1,80}?)\s*(?:[.!;]?\s*)$", re.I)
LONGEST_LAST_LINE = 200
"""Characters of a last line that may be an answer."""


@dataclass(frozen=True)
class Trace:
    """One sampled answer, read."""

    thought: str
    """What stood between the marks of a thought; empty where there were none."""
    solution: str
    """What stood after it, the answer included."""
    answer: str | None
    """The final answer alone; None where none was found."""
    form: Form | None = None
    """How the answer was found."""
    cut: str = ""
    """Why the trace is not complete; empty where it is."""

    @property
    def complete(self) -> bool:
        """It was not cut off and says an answer; only such traces are judged and kept."""
        return not self.cut and self.answer is not None

    @property
    def length(self) -> int:
        """Words of thought and solution."""
        return len(self.thought.split()) + len(self.solution.split())


def read_trace(text: str, finish_reason: str | None = "stop") -> Trace:
    """Split what a teacher wrote. `finish_reason` is the API's, None where it gives none: length means it was cut off."""
    thought, solution, cut = _parts(text)
    if (finish_reason or "") not in ENDED:
        how = (
            "it reached its length limit"
            if finish_reason in ("length", "max_tokens")
            else f"it ended by {finish_reason}"
        )
        cut = how
    answer, form = final_answer(solution)
    if not cut and _open_box(solution):
        cut = "its answer is in a box that is never closed"
    return Trace(thought.strip(), solution.strip(), answer, form, cut)


def final_answer(text: str) -> tuple[str | None, Form | None]:
    """The final answer a text says, as it stands there, and how it was found. Of several boxes side by side, all."""
    boxes = list(_boxes(text))
    if boxes:
        last = [boxes[-1]]
        for box in boxes[-2::-1]:
            if not BETWEEN.fullmatch(text[box[1] : last[0][0]]):
                break
            last.insert(0, box)
        inner = ", ".join(one[2].strip() for one in last)
        return (inner or None), "boxed"
    for pattern, form in ((HASHES, "hashes"), (TAG, "tag"), (NAMED, "named")):
        found = pattern.findall(text)
        if found and found[-1].strip(" *_"):
            return found[-1].strip(" *_"), form  # type: ignore[return-value]
    lines = [line.strip() for line in text.splitlines() if line.strip(" *_-#")]
    if not lines or len(lines[-1]) > LONGEST_LAST_LINE:
        return None, None
    return lines[-1].rpartition("=")[2].strip(" *_") or None, "last line"


def shortened(trace: Trace, gold: str, verifier: Verifier, solutions: int = 1) -> Trace:
    """The trace with its thought cut after the first place where the right answer is derived.

    A place is a line, or a sentence of a thought without lines, that ends in the answer as a result, says that it is the
    answer, or holds it in a box. `solutions` 2 keeps the thought to the second such place, a check of the first (NovaSky's
    FCS+1). A thought without such a place stays whole; the solution always does.
    """
    left = solutions
    for end, step in _steps(trace.thought):
        if any(_is_right(result, gold, verifier) for result in _results(step)):
            left -= 1
            if not left:
                return replace(trace, thought=trace.thought[:end].rstrip())
    return trace


def _parts(text: str) -> tuple[str, str, str]:
    """Thought, solution, and why the text is cut off."""
    closes = list(CLOSE.finditer(text))
    opens = list(OPEN.finditer(text))
    if opens and (not closes or opens[-1].start() > closes[-1].start()):
        before = text[: opens[-1].start()] if closes else ""
        return OPEN.sub("", CLOSE.sub("", before + text[opens[-1].end() :])), "", "its thought is never closed"
    thought, rest = ("", text)
    if closes:
        thought, rest = text[: closes[-1].start()], text[closes[-1].end() :]
        thought = OPEN.sub("", CLOSE.sub("\n", thought))
    if BEGIN_SOLUTION not in rest:
        return thought, rest.replace(END_SOLUTION, ""), ""
    before, _, solution = rest.partition(BEGIN_SOLUTION)
    cut = "" if END_SOLUTION in solution else "its solution is never closed"
    return (thought or before), solution.partition(END_SOLUTION)[0], cut


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and content of each closed box, inner ones left out."""
    place = 0
    while (found := BOXED.search(text, place)) is not None:
        inner, place = group_at(text, found.end() - 1)
        if text[place - 1 : place] == "}" and place - found.end() == len(inner) + 1:
            yield found.start(), place, inner


def _open_box(text: str) -> bool:
    return len(BOXED.findall(text)) > 0 and sum(len(BOXED.findall(inner)) + 1 for *_, inner in _boxes(text)) < len(
        BOXED.findall(text)
    )


def _steps(thought: str) -> Iterator[tuple[int, str]]:
    """Where each line ends and what it says; sentences where there are hardly any lines."""
    lines = [found for found in re.finditer(r"[^\n]+", thought) if found[0].strip()]
    if len(lines) < 3:
        lines = [found for found in re.finditer(r".+?(?:[.!?](?=\s)|\n|$)", thought, re.DOTALL) if found[0].strip()]
    for found in lines:
        yield found.end(), found[0].strip()


def _results(step: str) -> Iterator[str]:
    """What a step may say the answer is."""
    answer, form = final_answer(step)
    if answer is not None and form != "last line":
        yield answer
    found = RESULT.search(step)
    if found is not None:
        yield found[1]


def _is_right(result: str, gold: str, verifier: Verifier) -> bool:
    """Accepted; a text is not shown to the verifier where the gold answer is a number and it is none."""
    if read_number(gold) is not None and read_number(result) is None:
        return False
    return judged(verifier, [result], gold)[0].accepted
