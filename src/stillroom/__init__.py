"""Stillroom: knowledge distillation with one recipe, one set of stages and one honest report.

A recipe names teachers that answer questions; the answers are the transfer set; students are trained on it under
objectives, then evaluated beside their teacher and a control, and reported.

    import stillroom
    run = stillroom.distill("recipe.yaml")                    # or a stillroom.Recipe, or a mapping
    run = stillroom.distill(recipe, teacher=model.predict_proba)
    student = stillroom.load_student(run.path / "student")
    student.predict(rows).label

Read flow.py first: it is the whole program on one page. recipe.py says what a recipe holds, kinds.py what can be
plugged in, errors.py what can go wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillroom.flow import distill
    from stillroom.recipe import Recipe

__all__ = ["Recipe", "distill", "load_student"]


def load_student(path: str | Path) -> Any:
    """The classifier in a student's folder, or of a run; `.predict(rows)` gives labels and probabilities."""
    from stillroom.models.classifier import Classifier

    folder = Path(path)
    return Classifier.load(folder / "student" if (folder / "student" / "config.json").is_file() else folder)


def __getattr__(name: str) -> Any:
    # Imported when first used, so that `import stillroom` and --help cost nothing.
    if name == "Recipe":
        from stillroom.recipe import Recipe

        return Recipe
    if name == "distill":
        from stillroom.flow import distill

        return distill
    raise AttributeError(f"module 'stillroom' has no attribute {name!r}")
