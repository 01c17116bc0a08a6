"""A teacher of the transformers library: a classifier of texts, or a causal or masked language model, as it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from stillroom.errors import ModelError
from stillroom.kinds import AskedTeacher, Task, Teacher
from stillroom.rundir import fingerprint

if TYPE_CHECKING:
    from stillroom.models.classifier import Classifier
    from stillroom.models.device import Device
    from stillroom.models.language import LanguageModel


class Transformers(Teacher):
    """Weights of the transformers library, by reference; they are never changed."""

    kind: Literal["transformers"] = "transformers"
    gives: ClassVar[frozenset[str]] = frozenset({"answers", "probabilities", "hidden", "text"})
    model: str
    """A folder, hf:ORG/NAME, or package:MODULE/FILE for weights inside a Python package, GGUF included."""
    task: Literal["classification", "causal", "masked"] = "causal"
    """What it is asked: classes of texts, the next token, or hidden tokens."""
    length: int | None = Field(default=None, ge=2)
    """Most tokens a text may have, for a classifier; none: what the model can look at."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Of matrix products while it is asked; auto: bfloat16 where the processor gains from it and the network is large
    enough. Answers in bfloat16 are kept apart from others. A live teacher computes in the recipe's `dtype`."""

    def solves(self) -> Task:
        return self.task

    def describe(self) -> str:
        return f"{self.model} ({self.task})"

    def weights_at(self, home: Path, folders: list[Path]) -> Path | None:
        from stillroom.models.references import resolve

        return resolve(self.model, folders)

    def reads(self, folders: list[Path]) -> tuple[Any, int] | None:
        from stillroom.models.references import resolve
        from stillroom.models.text import context_of, tokenizer_at

        path = resolve(self.model, folders)
        return tokenizer_at(path), context_of(path)

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Device | None = None) -> AskedTeacher:
        from stillroom.models.device import Device
        from stillroom.models.references import resolve

        path = resolve(self.model, folders)
        if self.task != "classification":
            from stillroom.models.language import LanguageModel
            from stillroom.teachers.language import AskedLanguageModel

            model = LanguageModel.load(path, self.task, device or Device())
            self._settle(model)
            return AskedLanguageModel(model, [path])
        return self._classifier(path, folders, classes, device or Device())

    def _settle(self, model: LanguageModel | Classifier) -> None:
        """Have it compute in the format asked for; in bfloat16 it is another teacher, whose answers are others."""
        settled = model.device.for_size(model.parameters, self.dtype).dtype
        if settled == "bfloat16":
            model.device = replace(model.device, dtype=settled)
            model.fingerprint = fingerprint(model.fingerprint, settled)

    def _classifier(self, path: Path, folders: list[Path], classes: list[Any], device: Device) -> AskedTeacher:
        """A sequence classifier whose labels are the data's classes, in whatever order the model has them."""
        from stillroom.models import text
        from stillroom.models.classifier import Classifier
        from stillroom.models.pretrained import fingerprint_of
        from stillroom.models.transformers import Transformers as Architecture

        model, tokenizer = text.loaded(path, "classification", None)
        names = [str(model.config.id2label[place]) for place in range(model.config.num_labels)]
        told = [str(name) for name in classes]
        numbered = names == [f"LABEL_{place}" for place in range(len(names))]
        if sorted(names) != sorted(told) and not (numbered and len(names) == len(told)):
            raise ModelError(
                f"the teacher knows {len(names)} classes {names[:12]}, the data has {len(told)}: {told[:12]}",
                where=f"teacher.model, {path}",
                cure="Use a teacher and data with the same classes",
            )
        if sorted(names) == sorted(told):  # else they are numbered, and in the order of the classes
            text.order_classes(model, [names.index(name) for name in told])
        knobs = Architecture.model_validate({"from": self.model, "length": self.length})
        inputs = text.inputs_for(None, tokenizer, self.length, text.context_of(path))
        found = Classifier(knobs, text.network_of(model, tokenizer, "classification"), inputs, classes, device)
        found.fingerprint = fingerprint_of(path)
        self._settle(found)
        found.network.eval()
        return found
