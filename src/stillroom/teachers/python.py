"""A teacher given from Python: a torch module that gives logits, or any callable that gives probabilities.

`stillroom.distill(recipe, teacher=model.predict_proba)`. A module's fingerprint is that of its weights. A callable shows
less: its code and the arrays it computes with, so what is kept of one that looks the same is held against its answers
(transfer_set/recognise.py): other answers, another teacher.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, NoneType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stillroom.errors import ModelError, StillroomError
from stillroom.kinds import AskedTeacher, Teacher
from stillroom.rows import Answers, Array, Questions, Raw
from stillroom.rundir import fingerprint
from stillroom.teachers.probabilities import log_of_probabilities

if TYPE_CHECKING:
    from stillroom.models.device import Device


GIVEN = (
    "It is given a 2-D array of number columns, a DataFrame where some are texts, a list of texts, or the images as they are; "
    "wrap it in a function that takes that"
)


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
                f"an object of type {type(given).__name__} is no teacher",
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
        self.looks = "" if _is_module(given) else looks_of(given)
        """Of a callable: what can be seen of it."""
        self.fingerprint = _module_fingerprint(given) if _is_module(given) else self.numbered(0)

    def numbered(self, place: int) -> str:
        """The fingerprint of the callable at this place among those that look the same."""
        return fingerprint("callable", self.looks, place)

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """Log-probabilities of these rows. Raises ModelError for answers that are no probabilities."""
        try:
            said = np.asarray(self._call(self._rows_for(questions.raw)), dtype=np.float64)
        except StillroomError:
            raise
        except Exception as error:
            given = isinstance(error, TypeError | ValueError)
            raise ModelError(
                f"the teacher cannot answer these rows: {type(error).__name__}: {error}",
                where="teacher",
                cure=GIVEN if given else "Look at the function: what went wrong in it is the cause of this error",
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
        at = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
        with evaluating(module):
            try:
                output = module(torch.from_numpy(raw.astype(np.float32)).to(at))
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
    torch = sys.modules.get("torch")  # who has a module has imported it
    return torch is not None and isinstance(given, torch.nn.Module)


def _module_fingerprint(module: Any) -> str:
    digest = hashlib.sha256(str(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def looks_of(given: Any) -> str:
    """A digest of a callable's code and of the arrays it computes with; equal in another process of the same Python.

    Numbers and lists are left out where they do not stand in the code, for a function may count in them.
    """
    digest, met = hashlib.sha256(), dict[int, Any]()
    todo: list[tuple[Any, bool]] = [(given, False)]
    while todo:
        value, deep = todo.pop()
        if id(value) not in met:
            met[id(value)] = value  # kept, so that no other value gets its id meanwhile
            deep = deep or hasattr(value, "get_params")  # an estimator: all it holds is what it learned
            todo += [(part, deep) for part in _parts(value, digest.update, deep)]
    return digest.hexdigest()


def _parts(value: Any, note: Callable[[bytes], None], deep: bool) -> list[Any]:
    """Note what a value is by itself; returns what it is made of and has to be looked at too."""
    if isinstance(value, np.ndarray):
        return _parts_of_array(value, note)
    if isinstance(value, FunctionType):
        _note_code(value.__code__, note)
        named = (value.__globals__.get(name) for name in value.__code__.co_names)
        # A function of another module is known by its name; following those would lead through whole libraries.
        near = [one for one in named if getattr(one, "__globals__", value.__globals__) is value.__globals__]
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        return [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *cells, *near]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, tuple(value.keywords.values())]
    if isinstance(value, tuple) or (deep and isinstance(value, list)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values()) if deep else []
    if isinstance(value, type | ModuleType | str | bytes | int | float | list | set | NoneType):
        return []
    return _parts_of_object(value, note, deep)


def _parts_of_object(value: Any, note: Callable[[bytes], None], deep: bool) -> list[Any]:
    """Its class, how that is called, and what it holds: all of an estimator's, and no more than the arrays of another's."""
    kind = type(value)
    note(f"{kind.__module__}.{kind.__qualname__}".encode())
    if _is_module(value):
        note(_module_fingerprint(value).encode())
        return []
    if kind.__module__.startswith("numpy.random"):
        return []
    called = [vars(one)["__call__"] for one in kind.__mro__ if "__call__" in vars(one)][:1]
    held = getattr(value, "__dict__", None)
    if not deep:
        return called + [part for part in (held or {}).values() if _is_learned(part)]
    if held is None:
        try:
            held = value.__getstate__()  # of the compiled parts of an estimator, such as a tree
        except TypeError:
            return called
    return called + [held]


def _is_learned(part: Any) -> bool:
    return isinstance(part, np.ndarray) or hasattr(part, "get_params") or _is_module(part)


def _parts_of_array(value: Array, note: Callable[[bytes], None]) -> list[Any]:
    note(f"{value.dtype}{value.shape}".encode())
    if value.dtype.names:  # between the fields may lie bytes that nobody set
        return [value[name] for name in value.dtype.names]
    if value.dtype.kind == "O":
        return list(value.ravel().tolist())
    note(np.ascontiguousarray(value).tobytes())
    return []


def _note_code(code: CodeType, note: Callable[[bytes], None]) -> None:
    note(code.co_code + "\0".join(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _note_code(constant, note)
        else:  # a set has no order that another process would share
            note(repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode())


def _is_filled(cell: CellType) -> bool:
    """A cell is empty while the function that fills it has not got there."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
