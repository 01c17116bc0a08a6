"""Questions written after what the students get wrong: variants of their mistakes, by the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stillroom.questions.writing import Example, Writes


class TeacherWritten(Writes):
    """The teacher writes variants of what the students took for something else before it was asked (Jiang and others 2023)."""

    kind: Literal["teacher_written"] = "teacher_written"

    def after(self, before: Sequence[Example], chosen: Sequence[Example]) -> list[Example]:
        return [one for one in before if one.is_mistake] or list(before)

    def prompt(self, example: Example) -> str:
        lines = [
            f"Write {self.variants} new texts of the same kind as the one below, about as hard to tell what they are. "
            "Each should be worded by itself, not copied.",
            f'Text: "{example.text}"',
        ]
        if example.is_mistake:
            lines.append(f'It is "{example.answered}", and was mistaken for "{example.guessed}".')
        return "\n".join([*lines, f"Answer with a JSON list of {self.variants} strings and nothing else."])
