"""A teacher that the run trains on the labels first. Holds knobs only; `flow` has it trained, then it loads its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from stillroom.kinds import AnyModel, AnyView, AskedTeacher, Ground, NetworkTask, Teacher
from stillroom.recipe import Training

if TYPE_CHECKING:
    from stillroom.models.device import Device


class Trained(Teacher, Training):
    """A network trained in this run on the labelled rows, with hard labels alone."""

    kind: Literal["trained"] = "trained"
    gives: ClassVar[frozenset[str]] = frozenset({"answers", "probabilities", "hidden"})
    trains: ClassVar[bool] = True
    model: AnyModel
    """Its architecture."""
    seed: int = 0
    """Of its initialisation and order of rows; members of an ensemble count on from it."""
    augment: tuple[AnyView, ...] = ()
    """Augmentations of the teacher's own training rows; the student's are `questions.augment`."""

    @model_validator(mode="after")
    def _no_prior(self) -> Trained:
        if self.class_prior != "none":
            raise ValueError("class_prior is for students; a trained teacher sees every class")
        return self

    def training(self) -> Training:
        """Its training knobs alone."""
        return Training(**{name: getattr(self, name) for name in Training.model_fields})

    def describe(self) -> str:
        return f"trained {self.model.describe()}"

    def weights_at(self, home: Path, folders: list[Path]) -> Path | None:
        return home

    def untaught(self, home: Path, folders: list[Path]) -> Path | None:
        from stillroom.models.references import resolve
        from stillroom.models.transformers import Transformers

        source = self.model.source if isinstance(self.model, Transformers) else None
        return None if source is None else resolve(source, folders)

    def solves(self) -> NetworkTask:
        return self.model.solves()

    def reads(self, folders: list[Path]) -> tuple[Any, int] | None:
        from stillroom.models.transformers import Transformers

        if not isinstance(self.model, Transformers):
            return None
        ground = Ground(folders, self.solves())
        return self.model.reads(ground), self.model.context(ground)

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Device | None = None) -> AskedTeacher:
        task = self.solves()
        if task != "classification":
            from stillroom.models.language import LanguageModel
            from stillroom.teachers.language import AskedLanguageModel

            return AskedLanguageModel(LanguageModel.load(home, task, device), [home])
        from stillroom.models.classifier import Classifier

        return Classifier.load(home, device)
