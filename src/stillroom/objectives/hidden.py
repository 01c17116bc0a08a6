"""Feature matching: the student's hidden layers, through a learned projection, towards the teacher's.

Romero and others 2014 (arXiv:1412.6550) for the squared error; Sanh and others 2019 (arXiv:1910.01108) for the cosine of
the last layer; Sun and others 2019 (arXiv:1908.09355) for several layers, of a classifier at the token it answers from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from stillroom.errors import RecipeError
from stillroom.kinds import Loss, Objective, Setting

if TYPE_CHECKING:
    import torch

    from stillroom.rows import Batch, Output

Distance = Literal["mse", "cosine"]
Layer = Annotated[int, Field(ge=0)]


class Hidden(Objective):
    """Distance between hidden layers: mean squared error over units, or 1 - cosine; the mean over the pairs of layers."""

    kind: Literal["hidden"] = "hidden"
    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    distance: Distance = "mse"
    """Mean squared error over units, or 1 - cosine."""
    layers: Literal["last", "even"] | Annotated[dict[Layer, Layer], Field(min_length=1)] = "last"
    """The last hidden layer; {student's layer: teacher's layer}, counted from 0; or even: all of the student's layers, each
    with one of the teacher's at even distances."""
    projection: Literal["auto", "always"] = "auto"
    """A learned linear map of the student's layers: where widths differ, or always."""

    @model_serializer(mode="wrap")
    def _told(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without knobs that came later, where they are not used: what was trained before they came stays trained."""
        told: dict[str, Any] = handler(self)
        later = {"layers": "last", "projection": "auto"}
        return {name: value for name, value in told.items() if name not in later or value != later[name]}

    def pairs(self, student: int, teacher: int) -> dict[int, int]:
        """Student's layer -> teacher's, of a student and a teacher of so many layers; none where only the last is looked at.

        Raises RecipeError for layers that are not there.
        """
        if self.layers == "last":
            return {}
        if isinstance(self.layers, Mapping):
            for name, layer, count in (
                *(("student", layer, student) for layer in self.layers),
                *(("teacher", layer, teacher) for layer in self.layers.values()),
            ):
                if layer >= count:
                    raise RecipeError(
                        f"there is no layer {layer}: the {name} has {count}, 0 to {count - 1}",
                        where="layers",
                        cure="Choose among these",
                    )
            return dict(self.layers)
        if student > teacher:
            raise RecipeError(
                f"the student has {student} layers and the teacher {teacher}, so they cannot be paired evenly",
                where="layers",
                cure="Name the pairs: {student's layer: teacher's layer}",
            )
        from stillroom.models.shrinking import evenly_spaced

        return dict(enumerate(evenly_spaced(teacher, student)))

    def build(self, setting: Setting) -> Loss:
        if setting.student_hidden is None or setting.teacher_hidden is None:
            raise RecipeError(
                "the student or the teacher shows no hidden layer",
                where="objectives, kind hidden",
                cure="Use a model kind of Stillroom's for both, or take the objective out",
            )
        shown = setting.shown
        further = 0 if shown is None else len(shown.teacher) * shown.teacher_width
        last = setting.teacher_hidden - further
        if self.layers == "last":
            return HiddenLoss(self, [(None, slice(0, last))], setting.student_hidden, last)
        assert isinstance(self.layers, Mapping), "flow settles even before training"
        assert shown is not None, "who asks for layers is shown them"
        places = [
            (shown.student.index(ours), last + shown.teacher.index(theirs) * shown.teacher_width)
            for ours, theirs in sorted(self.layers.items())
        ]
        pairs = [(place, slice(start, start + shown.teacher_width)) for place, start in places]
        return HiddenLoss(self, pairs, shown.student_width, shown.teacher_width)


def layers_of(objectives: Sequence[Objective]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The layers of the student and those of the teacher that these objectives look at, rising; the last left aside."""
    maps = [one.layers for one in objectives if isinstance(one, Hidden) and isinstance(one.layers, Mapping)]
    ours = {layer for pairs in maps for layer in pairs}
    theirs = {layer for pairs in maps for layer in pairs.values()}
    return tuple(sorted(ours)), tuple(sorted(theirs))


Pair = tuple[int | None, slice]
"""The place of the student's layer among those it shows (None: the last hidden layer), and the teacher's columns."""


class HiddenLoss:
    """Each pair of layers has a projection of its own; without one, layers are compared as they are."""

    def __init__(self, knobs: Hidden, pairs: Sequence[Pair], student: int, teacher: int) -> None:
        from torch import nn

        self.distance, self.pairs = knobs.distance, list(pairs)
        mapped = student != teacher or knobs.projection == "always"
        self.projections = [nn.Linear(student, teacher, bias=False) for _ in pairs] if mapped else []

    def count(self, batch: Batch) -> float:
        return float(batch.rows) if batch.weight_B is None else float(batch.weight_B.sum())

    def sum(self, output: Output, batch: Batch) -> torch.Tensor:
        import torch

        assert batch.hidden_BH is not None
        rows = []
        for number, (place, columns) in enumerate(self.pairs):
            seen_BH = output.hidden_BH if place is None else output.layers[place]
            assert seen_BH is not None
            student_BG = seen_BH.float()
            if self.projections:
                student_BG = self.projections[number].to(student_BG.device)(
                    student_BG
                )  # the loop moves them; others may not
            rows.append(self._apart(student_BG, batch.hidden_BH[:, columns]))
        row_B = rows[0] if len(rows) == 1 else torch.stack(rows).mean(0)
        return row_B.sum() if batch.weight_B is None else (row_B * batch.weight_B).sum()

    def _apart(self, student_BG: torch.Tensor, teacher_BG: torch.Tensor) -> torch.Tensor:
        """The distance of each row [B]."""
        from torch.nn import functional

        if self.distance == "mse":
            return (student_BG - teacher_BG).square().mean(1)
        return 1 - functional.cosine_similarity(student_BG, teacher_BG, dim=1)

    def parameters(self) -> list[torch.nn.Parameter]:
        return [weights for projection in self.projections for weights in projection.parameters()]
