"""A teacher given from Python: a torch module that gives logits, or any callable that gives probabilities.

`stillroom.distill(recipe, teacher=model.predict_proba)`. A callable has no content to take a fingerprint of, so its
fingerprint is that of its answers to the first questions it is asked about: other answers, another teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stillroom.errors import ModelError
from stillroom.kinds import AskedTeacher, Teacher
from stillroom.rows import Answers, Array, Questions, Raw
from stillroom.rundir import fingerprint
from stillroom.teachers.probabilities import log_of_probabilities

if TYPE_CHECKING:
    from stillroom.models.device import Device


class Python(Teacher):
    """A module or callable handed to `distill`; a recipe file cannot name one."""

    kind: Literal["python"] = "python"
    name: str = ""
    given: Any = Field(default=None, exclude=True, repr=False)

    @classmethod
    def of(cls, given: Any) -> Python:
        """The knobs around what was handed over."""
        owner = getattr(given, "__self__", given)
        return cls(name=getattr(owner, "__qualname__", type(owner).__qualname__), given=given)

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Device | None = None) -> AskedTeacher:
        if self.given is None:
            raise ModelError(
                "this recipe's teacher is given from Python",
                where="teacher",
                cure="Call stillroom.distill(recipe, teacher=...) with a torch module or a callable",
            )
        return CallableTeacher(self.given, classes)


class CallableTeacher:
    """Asks a torch module (logits of raw rows as a float tensor) or a callable (probabilities of raw rows)."""

    hidden_width: int | None = None
    gives = frozenset({"answers", "probabilities"})
    by_key = False

    def __init__(self, given: Any, classes: list[Any]) -> None:
        self.classes = classes
        owner = getattr(given, "__self__", None)
        known = getattr(owner, "classes_", None)
        if not callable(given):
            raise ModelError(
                f"a {type(given).__name__} is no teacher",
                where="teacher",
                cure="Give a torch module or a callable, such as model.predict_proba",
            )
        if known is not None and np.asarray(known).tolist() != list(classes):
            raise ModelError(
                f"the teacher's classes {np.asarray(known).tolist()[:12]} are not the data's {classes[:12]}",
                where="teacher",
                cure="Fit the teacher on the same labels",
            )
        self._flat = hasattr(owner, "n_features_in_")
        self._module = given if _is_module(given) else None
        self._call: Callable[[Any], Any] = self._module_answers if _is_module(given) else given
        self.fingerprint = _module_fingerprint(given) if _is_module(given) else ""

    def identify(self, questions: Questions) -> None:
        """Give a callable its fingerprint, from its answers to these questions; a module has one already."""
        if self._module is None:
            probe = questions.take(np.arange(min(256, len(questions))))
            self.fingerprint = fingerprint("callable", np.round(self.answer(probe).log_probabilities_NC, 4).tolist())

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """Log-probabilities of these rows. Raises ModelError for answers that are no probabilities."""
        try:
            said = np.asarray(self._call(self._rows_for(questions.raw)), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the teacher cannot answer these rows: {error}",
                where="teacher",
                cure="It is given a 2-D array of number columns, a DataFrame where some are texts, a list of texts, or "
                "the images as they are; wrap it in a function that takes that",
            ) from error
        if said.shape != (len(questions), len(self.classes)):
            raise ModelError(
                f"the teacher answered with shape {list(said.shape)}, not [{len(questions)}, {len(self.classes)}]",
                where="teacher",
                cure="It should give one probability for each row and class, classes sorted",
            )
        if self._module is None:
            said = log_of_probabilities(said)
        return Answers(said.astype(np.float32))

    def _rows_for(self, raw: Raw) -> Any:
        """Rows in the form their own library would read them in; scikit-learn takes images as flat rows."""
        if not isinstance(raw, dict):
            return raw.reshape(len(raw), -1) if self._flat else raw
        if all(column.dtype.kind == "f" for column in raw.values()):
            return np.stack(list(raw.values()), 1)
        if len(raw) == 1:
            return next(iter(raw.values())).tolist()
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ModelError(
                "rows with texts among their columns go to a teacher from Python as a DataFrame",
                where="teacher",
                cure="pip install pandas",
            ) from error
        return DataFrame(raw)

    def _module_answers(self, raw: Any) -> Array:
        import torch

        from stillroom.models.classifier import evaluating

        module = self._module
        assert module is not None
        with evaluating(module):
            try:
                output = module(torch.from_numpy(raw.astype(np.float32)))
            except RuntimeError as error:
                raise ModelError(
                    f"the teacher's module cannot take rows of shape {list(raw.shape[1:])}: {error}",
                    where="teacher",
                    cure="Wrap it in a callable that reshapes the rows and gives probabilities",
                ) from error
            logits = output if isinstance(output, torch.Tensor) else output[0]
            found: Array = logits.float().log_softmax(1).cpu().numpy()
            return found


def _is_module(given: Any) -> bool:
    try:
        import torch
    except ImportError:
        return False
    return isinstance(given, torch.nn.Module)


def _module_fingerprint(module: Any) -> str:
    import hashlib

    digest = hashlib.sha256(str(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
