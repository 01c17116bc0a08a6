"""Every extension point on one page: which kinds there are, and the base class of each.

A recipe says `kind: NAME`; `find` turns the name into a class, and is the only dynamic import that a recipe reaches. To add a
kind, write one file with one class and add one line to TABLE. Other packages add theirs as entry points in the group
`stillroom.teacher`, `stillroom.objective`, and so on. A recipe never names an import path.

A kind is a frozen pydantic model whose fields are its knobs. It is given nothing but those, and builds what works:

    questions   build(folders)                -> Splits
    teacher     build(home, folders, classes) -> an AskedTeacher, which answers
    model       inputs(raw, ground), network(inputs, classes, ground) -> a torch Module whose forward gives rows.Output
    student     the same two, with a student's first weights
    objective   build(setting)                -> a Loss, which gives a sum; only the loop divides
    strategy    choose(pool, count, seed)     -> which of the pool's questions to ask next
    verifier    verify(answer, gold)          -> a Verdict: accepted, rejected or unsure, and why
    view        apply(raw, keys, view)        -> the same rows, augmented
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError
from pydantic_core import PydanticCustomError

from stillroom.errors import RecipeError, did_you_mean
from stillroom.knob_errors import Knobs as Knobs
from stillroom.knob_errors import Located, first_error, place_of

if TYPE_CHECKING:
    import torch

    from stillroom.inputs import Inputs
    from stillroom.models.device import Device
    from stillroom.rows import Answers, Array, Batch, Output, Pool, Questions, Raw, Shown, Splits, Verdict

TABLE: dict[str, dict[str, str]] = {
    "questions": {
        "dataset": "stillroom.questions.dataset:Dataset",
    },
    "view": {
        "shift": "stillroom.questions.views:Shift",
        "flip": "stillroom.questions.views:Flip",
        "noise": "stillroom.questions.views:Noise",
        "mask": "stillroom.questions.views:Mask",
    },
    "teacher": {
        "trained": "stillroom.teachers.trained:Trained",
        "saved": "stillroom.teachers.saved:Saved",
        "recorded": "stillroom.teachers.recorded:Recorded",
        "ensemble": "stillroom.teachers.ensemble:Ensemble",
        "python": "stillroom.teachers.python:Python",
        "transformers": "stillroom.teachers.transformers:Transformers",
        "openai_api": "stillroom.teachers.openai_api:OpenAIApi",
    },
    "model": {
        "mlp": "stillroom.models.mlp:Mlp",
        "convnet": "stillroom.models.convnet:Convnet",
        "transformers": "stillroom.models.transformers:Transformers",
    },
    "student": {
        "fresh": "stillroom.students.fresh:Fresh",
        "pretrained": "stillroom.students.pretrained:Pretrained",
        "shrink": "stillroom.students.shrink:Shrink",
        "lora": "stillroom.students.lora:Lora",
    },
    "objective": {
        "hard_label": "stillroom.objectives.hard_label:HardLabel",
        "soft_target": "stillroom.objectives.soft_target:SoftTarget",
        "hidden": "stillroom.objectives.hidden:Hidden",
        "trace": "stillroom.objectives.trace:Trace",
    },
    "strategy": {
        "random": "stillroom.questions.choosing:Random",
        "entropy": "stillroom.questions.choosing:Entropy",
        "margin": "stillroom.questions.choosing:Margin",
        "committee": "stillroom.questions.choosing:Committee",
        "diverse": "stillroom.questions.choosing:Diverse",
        "margin_diverse": "stillroom.questions.choosing:MarginDiverse",
        "teacher_written": "stillroom.questions.teacher_written:TeacherWritten",
        "reword": "stillroom.questions.reword:Reword",
        "on_policy": "stillroom.questions.on_policy:OnPolicy",
    },
    "verifier": {
        "exact": "stillroom.transfer_set.verify:Exact",
        "numeric": "stillroom.transfer_set.verify:Numeric",
        "math": "stillroom.transfer_set.verify_maths:Maths",
        "majority": "stillroom.transfer_set.verify_majority:Majority",
    },
}

NetworkTask: TypeAlias = Literal["classification", "causal", "masked"]
Task: TypeAlias = NetworkTask | Literal["reasoning"]


class Part(Knobs):
    """A knob group that is looked up by its `kind`."""

    kind: str


class View(Part):
    """An augmentation: view v of a question is the same rows for whoever asks, in any order and batch."""

    def apply(self, raw: Raw, key_N: Array, view: int) -> Raw:
        """The rows of `raw` as view `view` > 0 shows them; depends on each row's key and the view, nothing else."""
        raise NotImplementedError


AnyView = Annotated[SerializeAsAny[View], BeforeValidator(lambda value: parse("view", value))]


class QuestionSource(Part):
    """Where the questions come from."""

    licence: str | None = None
    """Of the data or the teacher, as you know it; what is not said is printed as unknown."""
    scale: Literal["standard", "unit"] = "standard"
    """Images: mean 0 and standard deviation 1 a channel, or just 0 to 1. Columns are always standardised."""
    texts: tuple[str, ...] = ()
    """Input columns that are free text however short; others are where they have twenty letters or more on average."""
    augment: Annotated[tuple[AnyView, ...], BeforeValidator(lambda it: it if type(it) in (list, tuple) else (it,))] = ()
    """Augmentations of the questions, in order; teacher and student see the same augmented row."""
    views: int = Field(default=1, ge=1, le=100_000)
    """Augmented views kept of each question; epochs go round them. A live teacher sees a new view each epoch."""

    def build(self, folders: list[Path]) -> Splits:
        """Read and split; a relative path is looked for in `folders`, in order."""
        raise NotImplementedError


class AskedTeacher(Protocol):
    """A teacher at work."""

    @property
    def fingerprint(self) -> str:
        """A digest of what decides its answers; equal fingerprints, equal answers."""

    classes: list[Any]
    hidden_width: int | None
    gives: frozenset[str]
    """What its answers hold; may be less than its kind can give."""
    by_key: bool
    """It looks answers up by a question's key, so it knows no new question and has no speed of its own."""

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """Log-probabilities [N, C] in the order of `classes`, of rows already shown as `view`; the same rows, the same."""


class Teacher(Part):
    """What is asked. `gives` says what its answers hold: answers (a chosen class), probabilities, hidden."""

    gives: ClassVar[frozenset[str]] = frozenset({"answers", "probabilities"})
    trains: ClassVar[bool] = False
    """True where `flow` must train it before it can be built."""
    costs: ClassVar[bool] = False
    """True where it is paid by the call, so that its calls go through a ledger."""
    licence: str | None = None
    """Of the data or the teacher, as you know it; what is not said is printed as unknown."""

    def each(self) -> list[Teacher]:
        """The teachers that are asked, one by one; only an ensemble has several."""
        return [self]

    def describe(self) -> str:
        """What it is, for a report."""
        return self.kind

    def weights_at(self, home: Path, folders: list[Path]) -> Path | None:
        """The folder of its weights; None where it is no model of ours."""
        return None

    def untaught(self, home: Path, folders: list[Path]) -> Path | None:
        """Its weights before this run trained it: what a student made from it starts from in the control."""
        return self.weights_at(home, folders)

    def solves(self) -> Task:
        """What it is asked for."""
        return "classification"

    def reads(self, folders: list[Path]) -> tuple[Any, int] | None:
        """Its tokenizer and the most tokens it can look at; None where it reads no text."""
        return None

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Device | None = None) -> AskedTeacher:
        """The teacher at work; `home` is where the run keeps what it trained, `folders` where paths are looked for.

        A model of ours answers on `device`; none: on the CPU, in float32.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Ground:
    """What a network stands on before its first weights: where references are looked for, and the run it is for."""

    folders: list[Path]
    task: NetworkTask = "classification"
    teacher: Path | None = None
    """The weights of the run's teacher; None where it has none that stand in a folder."""
    design: Model | None = None
    """The teacher's architecture, where the run trains it: what a student is cut out of before it has weights."""
    texts: Callable[[], list[str]] = list
    """The training texts, for a vocabulary cut to what they use."""


class Model(Part):
    """An architecture."""

    def solves(self) -> NetworkTask:
        """What its networks are for."""
        return "classification"

    def inputs(self, raw: Raw, ground: Ground) -> Inputs | None:
        """What it must know of raw rows where it has a say in that; None: what inputs.learn finds in them."""
        return None

    def network(self, inputs: Inputs, classes: int, ground: Ground) -> torch.nn.Module:
        """The network with its first weights; the caller has seeded torch. Plain architectures write `build` alone."""
        return self.build(tuple(inputs.shape), classes)

    def build(self, input_shape: tuple[int, ...], classes: int) -> torch.nn.Module:
        """A freshly initialised network: forward(input [B, *input_shape]) -> Output."""
        raise NotImplementedError

    def kept(self) -> Model:
        """How it is described in the folder of a network of its kind."""
        return self

    def describe(self) -> str:
        """The architecture as a person would say it: mlp, hidden 32."""
        knobs = self.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
        told = [f"{name} {'-'.join(map(str, it)) if isinstance(it, list) else it}" for name, it in knobs.items()]
        return ", ".join([self.kind, *told])


class Student(Part):
    """Where a student's first weights come from."""

    def architecture(self) -> Model:
        """What the student's folder says it is."""
        raise NotImplementedError

    def inputs(self, raw: Raw, ground: Ground) -> Inputs | None:
        """See Model."""
        return self.architecture().inputs(raw, ground)

    def network(self, inputs: Inputs, classes: int, ground: Ground) -> torch.nn.Module:
        """The network before its first step; the caller has seeded torch."""
        return self.architecture().network(inputs, classes, ground)

    def describe(self) -> str:
        """What it is, for a report."""
        return f"{self.kind} {self.architecture().describe()}"


@dataclass(frozen=True)
class Setting:
    """What an objective may know before the first batch."""

    classes: int
    student_hidden: int | None
    teacher_hidden: int | None
    log_probabilities_NC: Array | None
    """The teacher's answers on the training questions, for objectives that need their mean."""
    shown: Shown | None = None
    """The layers beside the last whose hidden states outputs and batches hold; None where nobody asks for any."""


class Loss(Protocol):
    """An objective at work. The loop divides `sum` by `count`, over all micro-batches and ranks."""

    def count(self, batch: Batch) -> float:
        """The weight of the rows in this batch that the objective looks at; needs no forward pass."""

    def sum(self, output: Output, batch: Batch) -> torch.Tensor:
        """The loss summed over those rows, a scalar with gradient."""

    def parameters(self) -> list[torch.nn.Parameter]:
        """Weights of its own that are trained beside the student's, such as a projection."""


class Objective(Part):
    """A term of the loss. `needs` says what it asks of the teacher: nothing, answers, probabilities, hidden."""

    needs: ClassVar[frozenset[str]] = frozenset()
    weight: float = Field(default=1.0, ge=0)
    """In the sum of all objectives."""

    def build(self, setting: Setting) -> Loss:
        """The loss at work."""
        raise NotImplementedError

    def required(self) -> frozenset[str]:
        """What this instance needs of the teacher; a knob may change what its kind needs."""
        return self.needs

    def heat(self) -> float | Literal["auto"] | None:
        """The temperature it softens answers with; None where it does not."""
        return None


class Strategy(Part):
    """How the next questions to ask are found among those that were not asked yet; a pure function of what it is given."""

    wants: ClassVar[frozenset[str]] = frozenset()
    """What it looks at: probabilities and features of a student's, or of several's; text: what a student itself writes."""

    def choose(self, pool: Pool, count: int, seed: int) -> Array:
        """Positions in the pool of `count` questions, int64 [count], each once; all of them where there are no more."""
        raise NotImplementedError


class Verifier(Part):
    """Whether an answer is right. What could not be found out, such as after a timeout, is unsure and never rejected."""

    needs_gold: ClassVar[bool] = True
    """False where answers to one question are judged by each other."""

    def verify(self, answer: str, gold: str | None) -> Verdict:
        """Accepted, rejected or unsure, and why; `gold` is the right answer where one is known."""
        raise NotImplementedError

    def judge(self, answers: Sequence[str | None], gold: str | None) -> list[Verdict]:
        """All answers to one question, in order; None stands for a sample that says no answer."""
        return [self.verify(answer or "", gold) for answer in answers]

    def check_gold(self, gold: str) -> Verdict:
        """Whether a gold answer can be read and equals itself; anything but accepted is a bad gold."""
        return self.verify(gold, gold)


BASES: dict[str, type[Part]] = {
    "questions": QuestionSource,
    "view": View,
    "teacher": Teacher,
    "model": Model,
    "student": Student,
    "objective": Objective,
    "strategy": Strategy,
    "verifier": Verifier,
}

P = TypeVar("P", bound=Part)


@cache
def table(group: str) -> dict[str, str]:
    """name -> "module:Class" of a group: ours, then other packages' entry points; ours win."""
    others = {point.name: point.value for point in entry_points(group=f"stillroom.{group}")}
    return {**others, **TABLE[group]}


def find(group: str, kind: str) -> type[Part]:
    """The class behind a kind. Raises RecipeError with the nearest known name."""
    known = table(group)
    if kind not in known:
        raise RecipeError(f"there is no {group} of kind {kind!r}", cure=did_you_mean(kind, known))
    module, _, name = known[kind].partition(":")
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, BASES[group]), f"{known[kind]} is no {BASES[group].__name__}"
    return found  # type: ignore[no-any-return]


def parse(group: str, value: Any) -> Any:
    """Turn a mapping with a `kind` into its part; a part stays as it is."""
    if isinstance(value, BASES[group]):
        return value
    if not isinstance(value, Mapping) or "kind" not in value:
        example = f"{{kind: {next(iter(table(group)))}}}"
        raise PydanticCustomError("no_kind", "should be a mapping with a kind, such as {example}", {"example": example})
    path = value.path if isinstance(value, Located) else ""
    try:
        return find(group, str(value["kind"])).model_validate(value)
    except RecipeError as error:
        where = error.where or place_of(value, "kind")
        raise RecipeError(error.what, where=where, cure=error.cure) from None
    except ValidationError as error:
        raise first_error(error, value, path) from None


AnyQuestions = Annotated[SerializeAsAny[QuestionSource], BeforeValidator(lambda value: parse("questions", value))]
AnyTeacher = Annotated[SerializeAsAny[Teacher], BeforeValidator(lambda value: parse("teacher", value))]
AnyModel = Annotated[SerializeAsAny[Model], BeforeValidator(lambda value: parse("model", value))]
AnyStudent = Annotated[SerializeAsAny[Student], BeforeValidator(lambda value: parse("student", value))]
AnyObjective = Annotated[SerializeAsAny[Objective], BeforeValidator(lambda value: parse("objective", value))]
AnyStrategy = Annotated[
    SerializeAsAny[Strategy],
    BeforeValidator(lambda value: parse("strategy", {"kind": value} if isinstance(value, str) else value)),
]
AnyVerifier = Annotated[
    SerializeAsAny[Verifier],
    BeforeValidator(lambda value: parse("verifier", {"kind": value} if isinstance(value, str) else value)),
]
