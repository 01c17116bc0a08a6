"""`majority`: where no gold answer exists, what most samples of a question agree on (Wang et al. 2022, arXiv:2203.11171).

Agreement is no proof: a mistake that a teacher makes most of the time is accepted. Say so where such traces are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from stillroom.kinds import AnyVerifier, Verifier, parse
from stillroom.rows import Verdict
from stillroom.transfer_set.verify import told


def _numeric() -> Any:
    return parse("verifier", {"kind": "numeric"})


class Majority(Verifier):
    """Where no gold answer exists: what most samples of a question agree on."""

    kind: Literal["majority"] = "majority"
    needs_gold: ClassVar[bool] = False
    same: AnyVerifier = Field(default_factory=_numeric)
    """How two answers are compared, by its kind alone or as a mapping with knobs."""
    share: float = Field(default=0.5, ge=0, lt=1)
    """More than this share of all samples must agree, unreadable ones included."""
    least: int = Field(default=2, ge=2)
    """So many samples must agree at the least."""

    def verify(self, answer: str, gold: str | None) -> Verdict:
        if gold is not None:
            return self.same.verify(answer, gold)
        return Verdict("unsure", "one answer is no majority")

    def judge(self, answers: Sequence[str | None], gold: str | None) -> list[Verdict]:
        """With a gold answer, by that; else accepted where it is the majority's, and as that says of it elsewhere."""
        if gold is not None:
            return self.same.judge(answers, gold)
        votes: dict[str, int] = {}
        for answer in answers:
            if answer and self.same.check_gold(answer).accepted:
                like = next((one for one in votes if self.same.verify(answer, one).accepted), answer)
                votes[like] = votes.get(like, 0) + 1
        ranked = sorted(votes.items(), key=lambda vote: -vote[1])
        most = ranked[0][1] if ranked else 0
        tied = len(ranked) > 1 and ranked[1][1] == most
        if tied or most < self.least or most <= self.share * len(answers):
            return [Verdict("unsure", f"no majority: at most {most} of {len(answers)} agree")] * len(answers)
        winner = ranked[0][0]
        reason = f"{most} of {len(answers)} say {told(winner)}"
        found = []
        for answer in answers:
            verdict = self.same.verify(answer or "", winner)
            found.append(verdict if verdict.outcome == "unsure" else Verdict(verdict.outcome, reason))
        return found

    def check_gold(self, gold: str) -> Verdict:
        return self.same.check_gold(gold)
