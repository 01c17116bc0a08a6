"""An option that costs: a language model rewrites a trace so that its thought and its solution stand apart.

Only prompts and their reading: whoever asks pays, under the ledger's purpose "rewrite". A rewritten trace counts only
where it still says the answer that was verified, is complete, and is not much longer than the original; else the original
is kept, and the reason says why.
"""

from __future__ import annotations

from typing import NamedTuple

from stillroom.kinds import Verifier
from stillroom.transfer_set.traces import Trace, read_trace

SYSTEM = (
    "You are given a question and somebody's worked answer. Write the same reasoning again, step by step, without adding, "
    "correcting or dropping a step, and leave out only repetitions and remarks to oneself. Put it between <think> and "
    "</think>. After that, write a short solution that ends with the line: #### ANSWER, where ANSWER is the final answer "
    "alone, unchanged."
)
LONGEST = 1.5
"""A rewritten trace may be so many times as long as the original."""


class Rewritten(NamedTuple):
    """The trace to use, and why it is not the rewritten one; empty where it is."""

    trace: Trace
    kept_because: str


def rewrite_messages(question: str, trace: Trace) -> list[dict[str, str]]:
    """The chat that asks for a trace to be rewritten. Raises ValueError for a trace that is not complete."""
    if not trace.complete:
        raise ValueError("a trace that was cut off is not rewritten")
    worked = f"{trace.thought}\n\n{trace.solution}".strip()
    asked = f"Question:\n{question}\n\nWorked answer:\n{worked}\n\nFinal answer:\n{trace.answer}"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]


def read_rewrite(
    text: str, original: Trace, gold: str, verifier: Verifier, finish_reason: str | None = "stop"
) -> Rewritten:
    """What a model made of a trace, where it may take the original's place."""
    trace = read_trace(text, finish_reason)
    if trace.cut or trace.answer is None:
        return Rewritten(original, f"the rewritten trace is not complete: {trace.cut or 'it says no answer'}")
    if not trace.thought:
        return Rewritten(original, "the rewritten trace has no thought")
    if trace.length > LONGEST * original.length:
        return Rewritten(original, f"the rewritten trace is longer than {LONGEST:g} times the original")
    verdict = verifier.verify(trace.answer, gold)
    if not verdict.accepted:
        return Rewritten(original, f"the rewritten answer is {verdict.outcome}: {verdict.reason}")
    return Rewritten(trace, "")
