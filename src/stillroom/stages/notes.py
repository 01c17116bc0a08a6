"""What there is to know of a recipe's data before it is trained on: said by `check`, and by a run before it begins."""

from __future__ import annotations

from stillroom.kinds import Teacher
from stillroom.recipe import Recipe
from stillroom.stages.layers import layer_notes
from stillroom.stages.opening import Run


def data_notes(run: Run) -> list[str]:
    """How the rows were split, what of them can hardly be learned, and how each column is treated."""
    splits = run.splits
    learned = run.inputs(run.recipe.student, splits.train.raw, run.ground(untaught=True))
    inputs = [f"inputs: {learned.describe()}"] if learned.describe() else []
    return [*splits.notes, *inputs, *layer_notes(run)]


def licence_notes(recipe: Recipe) -> list[str]:
    """Which licences are not known; a teacher that this run makes from nothing but the data has none of its own."""
    found = ["the data"] if recipe.questions.licence is None else []
    if recipe.teacher.licence is None and not all(_from_nothing(member) for member in recipe.teacher.each()):
        found.append("the teacher")
    return [f"the licence of {what} is unknown" for what in found]


def _from_nothing(member: Teacher) -> bool:
    """It is trained in this run, and its first weights are nobody's."""
    return member.trains and getattr(getattr(member, "model", None), "source", None) is None
