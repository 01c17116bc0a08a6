"""What `shrink` does: take the larger model, keep some layers, cut the vocabulary. Knows no recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillroom.errors import ModelError, RecipeError
from stillroom.kinds import Ground
from stillroom.models import shrinking, vocabulary
from stillroom.models.transformers import Transformers

if TYPE_CHECKING:
    from stillroom.students.shrink import Shrink


def model_and_tokenizer(knobs: Shrink, classes: int, ground: Ground) -> tuple[Any, Any]:
    """The cut model with its tokenizer."""
    model, tokenizer = larger(knobs, ground).model_and_tokenizer(classes, ground)
    if knobs.layers is not None:
        total = shrinking.layer_count(model)
        layers = list(knobs.layers) if isinstance(knobs.layers, tuple) else shrinking.evenly_spaced(total, knobs.layers)
        model = shrinking.keep_layers(model, layers)
    if knobs.vocabulary == "cut":
        if ground.task != "classification":
            raise ModelError(
                "a language model with fewer tokens than its teacher cannot learn its soft targets",
                where="vocabulary",
                cure="Set vocabulary: whole",
            )
        model, tokenizer, _ = vocabulary.cut(model, tokenizer, ground.texts())
    return model, tokenizer


def larger(knobs: Shrink, ground: Ground) -> Transformers:
    """The model that is cut: the teacher, as it stands or as the run would begin to train it, or any other."""
    if knobs.source != "teacher":
        return Transformers.model_validate({"task": ground.task, "from": knobs.source})
    if ground.teacher is not None:
        return Transformers.model_validate({"task": ground.task, "from": str(ground.teacher)})
    if isinstance(ground.design, Transformers):
        return ground.design
    raise RecipeError(
        "the student is to be cut out of the teacher, and the teacher is no model of the transformers library",
        where="student.from",
        cure="Give from: a reference to a model, or a teacher of kind trained or transformers",
    )
