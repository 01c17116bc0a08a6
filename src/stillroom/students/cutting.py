"""What `shrink` does: take the larger model, keep some layers, cut the vocabulary. Knows no recipe.

A vocabulary is cut once for the same tokenizer and texts, and found again by every seed, control and arm: that means
reading all the texts twice.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from stillroom.errors import ModelError, RecipeError
from stillroom.kinds import Ground
from stillroom.models import shrinking, vocabulary
from stillroom.models.pretrained import CALLS_ONLY
from stillroom.models.transformers import Transformers
from stillroom.rundir import fingerprint

if TYPE_CHECKING:
    from stillroom.students.shrink import Shrink

MOST_KNOWN = 4
_CUT: OrderedDict[str, tuple[Any, list[int]]] = OrderedDict()
"""What was cut in this process, the latest last."""


def model_and_tokenizer(knobs: Shrink, classes: int, ground: Ground) -> tuple[Any, Any]:
    """The cut model with its tokenizer."""
    model, tokenizer = larger(knobs, ground).model_and_tokenizer(classes, ground)
    if knobs.layers is not None:
        total = shrinking.layer_count(model)
        layers = list(knobs.layers) if isinstance(knobs.layers, tuple) else shrinking.evenly_spaced(total, knobs.layers)
        model = shrinking.keep_layers(model, layers)
    if knobs.vocabulary == "cut":
        tokenizer, kept = cut_tokens(model, tokenizer, ground)
        model = vocabulary.cut_model(model, kept)
    return (shrinking.begun_anew(model) if knobs.weights == "random" else model), tokenizer


def reads(knobs: Shrink, ground: Ground) -> Any:
    """The cut model's tokenizer; of the larger one just the settings are read."""
    import torch

    with torch.device("meta"):
        model, tokenizer = larger(knobs, ground).model_and_tokenizer(2, ground)
    return cut_tokens(model, tokenizer, ground)[0]


def cut_tokens(model: Any, tokenizer: Any, ground: Ground) -> tuple[Any, list[int]]:
    """The cut tokenizer, and the old id of each new token; see vocabulary.cut_tokenizer. Raises ModelError."""
    if ground.task != "classification":
        raise ModelError(
            "a language model with fewer tokens than its teacher cannot learn its soft targets",
            where="vocabulary",
            cure="Set vocabulary: whole",
        )
    kept, texts = sorted(vocabulary.special_ids(model, tokenizer)), ground.texts()
    told = sorted(f"{name}: {value!r}" for name, value in tokenizer.init_kwargs.items() if name not in CALLS_ONLY)
    key = fingerprint(type(tokenizer).__name__, told, tokenizer.backend_tokenizer.to_str(), kept, texts)
    if key not in _CUT:
        _CUT[key] = vocabulary.cut_tokenizer(tokenizer, texts, kept)
    _CUT.move_to_end(key)
    if len(_CUT) > MOST_KNOWN:
        _CUT.popitem(last=False)
    return _CUT[key]


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
