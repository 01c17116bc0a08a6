"""Every error Stillroom raises on purpose, as one tree. Each says what, where, and how to mend it.

StillroomError            exit status
├── InputError                2   the recipe, data or model is wrong; nothing was spent
│   ├── RecipeError               a section, knob or kind of the recipe
│   ├── DataError                 a file or a row of the data
│   ├── ModelError                a model folder or a teacher
│   ├── ForeignRun                the folder belongs to another run
│   └── NotYet                    a task Stillroom cannot do yet
├── RunError                  1   something failed while running; what was done is kept
│   ├── RunBusy                   another process holds the folder
│   ├── CorruptFile               a file does not match its checksum
│   ├── WrongAnswer               an answer would be read against another question
│   ├── NotFinite                 a loss or a prediction is NaN or infinite
│   ├── DiskFull                  no room to write
│   └── Overbilled                a call was billed above what a budget had set aside for it
├── BudgetReached             3   a hard stop of the recipe; what was bought is kept
└── Interrupted             130   stopped by hand; run again to go on
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class StillroomError(Exception):
    """An error for people: `what` happened, `where` (recipe key, file and line or row), and the `cure`."""

    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", cure: str = "") -> None:
        super().__init__(what, where, cure)
        self.what, self.where, self.cure = what, where, cure

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        mend = f" {self.cure.rstrip('.')}." if self.cure else ""
        return f"{self.what.rstrip('.')}{place}.{mend}"


class InputError(StillroomError):
    """The recipe, data or model is wrong; nothing was spent."""

    exit_status = 2


class RecipeError(InputError):
    """A section, knob or kind of the recipe is wrong."""


class DataError(InputError):
    """A data file, or a row of it, cannot be used as it is."""


class ModelError(InputError):
    """A model folder or a teacher cannot be used as it is."""


class ForeignRun(InputError):
    """The run folder belongs to a run of another name."""


class NotYet(InputError):
    """A task that Stillroom cannot do yet."""


class RunError(StillroomError):
    """Something failed while running; what was done is kept."""


class RunBusy(RunError):
    """Another process holds the run folder or the store."""


class CorruptFile(RunError):
    """A file does not match the checksum in its manifest."""


class WrongAnswer(RunError):
    """An answer would have been read against a question it was not given for."""


class NotFinite(RunError):
    """A loss, gradient or prediction is NaN or infinite."""


class DiskFull(RunError):
    """There is no room left to write; everything finished before stays."""


class Overbilled(RunError):
    """An endpoint billed more for a call than was set aside for it, so the budget cannot be kept by asking on."""


class BudgetReached(StillroomError):
    """A budget of the recipe was reached; what was bought is kept."""

    exit_status = 3


class Interrupted(StillroomError):
    """Stopped by hand; the same command goes on where it was."""

    exit_status = 130


def did_you_mean(word: str, known: Iterable[str], listed: str = "Known") -> str:
    """The cure for an unknown word: the nearest known one, then the whole list, under the word `listed`."""
    names = sorted(known)
    near = max(names, key=lambda name: _likeness(word, name), default="")
    guess = f"Did you mean {near!r}? " if near and _likeness(word, near) >= 0.5 else ""
    return f"{guess}{listed}: {', '.join(names)}"


def _likeness(word: str, name: str) -> float:
    """From 0 to 1; a word that is like one part of a name (soft, of soft_target) is like the name."""
    alike = [difflib.SequenceMatcher(None, word, part).ratio() for part in (name, *name.split("_"))]
    return max(alike)
