"""A student that goes on from weights which an earlier training left in a folder."""

from __future__ import annotations

from pathlib import Path

from stillroom.kinds import Student
from stillroom.students.lora import Lora
from stillroom.students.pretrained import Pretrained


def going_on(student: Student, folder: Path) -> Student:
    """The student whose first weights are those in a folder. Low-rank matrices were merged into them, and begin anew."""
    if isinstance(student, Lora):
        return student.model_copy(update={"source": str(folder.absolute())})
    return Pretrained.model_validate({"from": str(folder.absolute()), "task": "causal"})
