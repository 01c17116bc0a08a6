"""Rewordings: what was just chosen among the questions there are, said in other words by the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stillroom.questions.writing import Example, Writes


class Reword(Writes):
    """The teacher says the questions that a round chose in other words."""

    kind: Literal["reword"] = "reword"

    def after(self, before: Sequence[Example], chosen: Sequence[Example]) -> list[Example]:
        return list(chosen) or list(before)

    def prompt(self, example: Example) -> str:
        return "\n".join(
            [
                f"Reword the text below in {self.variants} ways that mean the same and share few of its words.",
                f'Text: "{example.text}"',
                f"Answer with a JSON list of {self.variants} strings and nothing else.",
            ]
        )
