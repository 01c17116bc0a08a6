"""Whatever model stands in a folder of ours: a classifier, or a language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.models.classifier import BESIDE, Classifier
from stillroom.rundir import read_json

if TYPE_CHECKING:
    from stillroom.models.language import LanguageModel


def load_model(folder: Path) -> Classifier | LanguageModel:
    """Read a folder that Stillroom wrote.

    Raises ModelError for what is none, or holds a pickle; CorruptFile where it is damaged.
    """
    beside = folder / BESIDE
    if beside.is_file() and read_json(beside).get("task") == "language":
        from stillroom.models.language import LanguageModel

        return LanguageModel.load(folder)
    return Classifier.load(folder)
