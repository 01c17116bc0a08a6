"""A teacher that stands trained in a folder: a student or teacher of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stillroom.errors import ModelError
from stillroom.kinds import AskedTeacher, Teacher

if TYPE_CHECKING:
    from stillroom.models.device import Device


class Saved(Teacher):
    """The model in a folder (a path, or package:MODULE/FOLDER)."""

    kind: Literal["saved"] = "saved"
    gives: ClassVar[frozenset[str]] = frozenset({"answers", "probabilities", "hidden"})
    model: str
    """A folder, or package:MODULE/FOLDER."""

    def describe(self) -> str:
        return f"saved {self.model}"

    def weights_at(self, home: Path, folders: list[Path]) -> Path | None:
        from stillroom.models.references import resolve

        return resolve(self.model, folders)

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Device | None = None) -> AskedTeacher:
        from stillroom.models.classifier import Classifier
        from stillroom.models.references import resolve

        folder = resolve(self.model, folders)
        found = Classifier.load(folder, device)
        if found.classes != classes:
            raise ModelError(
                f"the teacher knows {len(found.classes)} classes {found.classes[:12]}, the data has "
                f"{len(classes)}: {classes[:12]}",
                where=f"teacher.model, {folder}",
                cure="Use a teacher and data with the same classes",
            )
        return found
