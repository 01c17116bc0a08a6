"""YAML or JSON -> a frozen Recipe. `check()` compares what objectives need with what the teacher gives.

This file knows the sections and their defaults. What a kind's knobs are stands with the kind; what the data and models
look like is `flow.plan()`'s to find out.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from stillroom.errors import RecipeError, did_you_mean
from stillroom.kinds import (
    AnyObjective,
    AnyQuestions,
    AnyStrategy,
    AnyStudent,
    AnyTeacher,
    AnyVerifier,
    Knobs,
    parse,
)
from stillroom.knob_errors import Located, first_error, place_of
from stillroom.reasoning_knobs import Traces
from stillroom.recipe_file import apply_override, locate, read_tree

METRICS = ("accuracy", "agreement", "calibration", "speed", "size", "cost")
DTypes = Literal["auto", "float32", "bfloat16"]


class Training(Knobs):
    """How a network is trained; the control, the hard-teacher student and every arm get the very same."""

    epochs: int = Field(default=60, ge=1)
    """Passes over the transfer set; the control gets the same number of steps."""
    batch_size: int = Field(default=128, ge=1)
    """Rows a micro-batch."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of `batch_size` rows before each step of the optimiser."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), or SGD with momentum."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """At the peak of the schedule."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled for adamw."""
    schedule: Literal["one_cycle", "cosine", "linear", "constant"] = "one_cycle"
    """How the learning rate falls after the warm-up: along a half cosine, straight, or not at all."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from near 0."""
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient over all weights."""
    max_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the weights into one hidden unit (Hinton and others 2012, arXiv:1207.0580)."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better validation loss, and keep the best weights; none: the last epoch."""
    mixup: float = Field(default=0.0, ge=0)
    """Beta(a, a) mixing of inputs (Zhang and others 2017, arXiv:1710.09412); wants a live teacher."""
    class_prior: Literal["none", "labels", "teacher", "uniform"] = "none"
    """After training, move the class biases until the mean probability of each class on unlabelled rows matches this."""
    checkpoint_seconds: float = Field(default=20.0, ge=0)
    """How much work a kill may cost, in seconds."""


class TransferSet(Knobs):
    """Where answers are kept and how they are read."""

    store: Path | None = None
    """A store that several runs share; none: the run's own `transfer_set/`."""
    live: bool = False
    """Ask the teacher anew for each batch and keep nothing: for endless views and for mixup."""
    wrong_classes: Literal["teacher", "permuted", "uniform"] = "teacher"
    """Experiments: permute the wrong classes' probabilities, or spread them evenly at equal mean entropy."""
    head: int = Field(default=8, ge=1, le=1024)
    """Of a language model: most probable tokens of each position, kept exactly."""
    tail: Literal["hidden", "sample", "bucket"] = "hidden"
    """All other tokens: as the teacher's hidden state in a few bits a component, as an unbiased sample, or their mass alone."""
    tail_bytes: int = Field(default=32, ge=1, le=4096)
    """For the tail of one position, hidden or sample."""
    fidelity: Fidelity | None = None
    """What must be kept of a language model's answers, or more is spent."""
    verify: AnyVerifier | None = None
    """How the answer of a teacher that reasons is checked, by its kind alone or with knobs; none: numeric where every gold
    answer is a number, else exact."""


class Fidelity(Knobs):
    """How close to the teacher a language model's kept answers must be."""

    kl: float = Field(gt=0)
    """Largest mean KL(teacher, kept), nats a position, on training and on validation text; more bytes are spent to meet it."""


class Price(Knobs):
    """What an hour of the machine costs."""

    usd_per_hour: float = Field(gt=0)
    """Of the machine that measures."""


class Evaluation(Knobs):
    """What is measured, all of it on predictions made once."""

    metrics: tuple[Literal["accuracy", "agreement", "calibration", "speed", "size", "cost"], ...] = METRICS  # type: ignore[assignment]
    """What to measure; the default is all."""
    price: Price | None = None
    """Without it nothing is said in USD."""
    groups: dict[str, tuple[Any, ...]] | None = None
    """Classes that are alike, by group: a mistake within a group is half as severe as one across."""
    independent_teacher: AnyTeacher | None = None
    """A teacher that the student did not learn from: the check that agreement is more than accuracy."""


class Budget(Knobs):
    """Hard stops. What was bought before one is kept."""

    minutes: float | None = Field(default=None, gt=0)
    """Of work, all attempts of the run together."""
    usd: float | None = Field(default=None, ge=0)
    """What a teacher that is paid by the call may charge; of any other, machine time at evaluation.price."""
    teacher_tokens: int | None = Field(default=None, ge=0)
    """Of teachers that count tokens; classifiers use none."""
    calls: int | None = Field(default=None, ge=0)
    """Of a teacher that is paid by the call."""


class Stop(Knobs):
    """When rounds end before the last budget."""

    target: float | None = Field(default=None, gt=0, le=1)
    """Accuracy on the audit slice that is enough."""
    plateau: float | None = Field(default=None, ge=0)
    """End when a round raises accuracy on the audit slice by less than this."""


class Rounds(Knobs):
    """Ask, train, look, ask again: what a teacher is asked next. With on_policy, what the student itself writes."""

    strategy: AnyStrategy
    """How the next questions are found, by its kind alone or as a mapping with knobs."""
    start: int = Field(default=32, ge=1)
    """Questions drawn at random for the first round."""
    budgets: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Calls in all by the end of each round, start and audit slice included; of on_policy, windows each student wrote; rising."""
    audit: float = Field(default=0.1, ge=0, lt=1)
    """Share of every budget that is spent on random questions, which are never learned from and judge the rounds."""
    stop: Stop = Stop()
    """When to end before the last budget."""
    compare: tuple[AnyStrategy, ...] = ()
    """Further strategies to draw beside it, such as random; their calls are charged too."""

    @model_validator(mode="after")
    def _fits(self) -> Rounds:
        if list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError("budgets should rise from each round to the next")
        if "text" not in self.strategy.wants and self.start > self.budgets[0] * (1 - self.audit) + 1e-9:
            raise ValueError("the first of budgets should have room for start and its share of the audit slice")
        return self


class Cascade(Knobs):
    """The student answers where it is sure enough, and the teacher elsewhere."""

    risk: float = Field(gt=0, lt=1)
    """Largest share of answers that may differ from the teacher's; the threshold is set for it on held-out answers."""


class AcceptedTerms(Knobs):
    """Who agreed to a teacher's terms, for terms that are known to forbid or to bind distillation."""

    who: str = Field(min_length=1)
    """A person or a firm."""
    when: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    """The day, as YYYY-MM-DD."""
    url: str = Field(min_length=1)
    """Where the terms stand."""
    version: str = Field(min_length=1)
    """Of the terms, as they call it."""

    @field_validator("when", "version", mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:  # YAML reads 2026-01-31 as a day, and 2025 as a number
        return str(value) if isinstance(value, date | int) and not isinstance(value, bool) else value


LONGEST_NAME = 200
"""Bytes; folders of a file system take 255."""


def _a_name(name: str) -> str:
    plain = name.isprintable() and name == name.strip() and not name.startswith(".")
    if not name or not plain or any(letter in name for letter in "/\\") or len(name.encode()) > LONGEST_NAME:
        raise ValueError("should be a plain word that can name a folder")
    return name


class Recipe(Knobs):
    """A whole distillation, as data: the same object in YAML, JSON and Python."""

    name: Annotated[str, AfterValidator(_a_name)]
    """Of the run and, by default, of its folder."""
    notes: tuple[str, ...] = ()
    """What a reader should know: printed by `check`, and in the report."""
    seeds: int = Field(default=5, ge=1)
    """How many students are trained: initialisation and order of rows; never the split or the labelled rows."""
    questions: AnyQuestions
    """Where the questions come from."""
    teacher: AnyTeacher
    """Who answers them."""
    student: AnyStudent
    """Who learns from the answers."""
    objectives: tuple[AnyObjective, ...] = Field(default=(), validate_default=True)
    """What the student is trained towards, as a weighted sum."""
    training: Training = Training()
    """How it is trained."""
    transfer_set: TransferSet = TransferSet()
    """How the answers are kept."""
    traces: Traces = Traces()
    """Of a teacher that reasons: how its reasoning is sampled, and what of it is taught."""
    evaluation: Evaluation = Evaluation()
    """What is measured."""
    budget: Budget = Budget()
    """Where to stop."""
    rounds: Rounds | None = None
    """Ask in rounds, each time what the student doubts most, or what it writes itself; none: every question is asked."""
    cascade: Cascade | None = None
    """Keep beside the student when it should leave a question to the teacher."""
    accept_terms: AcceptedTerms | None = None
    """That somebody agreed to the teacher's terms."""
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further students for comparison: any section of the recipe, by name."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processor threads to train with; auto: one, and for networks of a million weights or more as many as torch takes."""
    dtype: DTypes = "auto"
    """Of matrix products; auto: bfloat16 where the processor gains from it and the network is large enough."""

    @model_validator(mode="before")
    @classmethod
    def _locate(cls, value: Any) -> Any:
        return locate(value) if isinstance(value, dict) and not isinstance(value, Located) else value

    @field_validator("objectives", mode="before")
    @classmethod
    def _default_objectives(cls, value: Any, info: ValidationInfo) -> Any:
        if value == []:
            raise ValueError("names none, so nothing would be learned; without the section there is a usual one")
        if value == ():
            teacher = info.data.get("teacher")
            if teacher is not None and teacher.solves() == "reasoning":
                return (parse("objective", {"kind": "trace"}),)
            return (parse("objective", {"kind": "soft_target", "temperature": 4}),)
        return value

    @field_validator("arms")
    @classmethod
    def _arms(cls, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, sections in arms.items():
            if name in ("teacher", "student", "control", "hard_teacher", "before"):
                raise ValueError(f"the arm {name!r} would hide the model of that name")
            _a_name(name)
            shared = next((key for key in ("name", "seeds", "evaluation", "budget", "arms") if key in sections), None)
            if shared is not None:
                raise ValueError(f"the arm {name!r} cannot have its own {shared}; all models of a run share it")
            if isinstance(sections.get("transfer_set"), dict) and "store" in sections["transfer_set"]:
                raise ValueError(f"the arm {name!r} cannot have its own store; all models of a run share it")
        return arms

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
        """Read a recipe file and apply `section.key=value` overrides. Raises RecipeError."""
        tree = read_tree(Path(path))
        for override in overrides:
            apply_override(tree, override)
        return cls.from_tree(tree)

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Recipe:
        """Validate a mapping. Raises RecipeError with the place of the first thing wrong."""
        located = tree if isinstance(tree, Located) else locate(tree)
        try:
            recipe = cls.model_validate(located)
        except ValidationError as error:
            raise first_error(error, located, "") from None
        for name in recipe.arms:
            try:
                recipe.arm(name)
            except RecipeError as error:
                keys = error.where.split(", ")[0].split(".")
                where = place_of(located, "arms", name, *(int(key) if key.isdigit() else key for key in keys))
                raise RecipeError(error.what, where=where, cure=error.cure) from None
        return recipe

    def to_tree(self) -> dict[str, Any]:
        """Plain data that `from_tree` turns back into an equal recipe."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)

    def arm(self, name: str) -> Recipe:
        """The recipe of a named arm: this one with the arm's sections laid over it."""
        if name not in self.arms:
            raise RecipeError(f"there is no arm {name!r}", where="arms", cure=did_you_mean(name, self.arms))
        tree = {key: value for key, value in self.to_tree().items() if key != "arms"}
        return Recipe.from_tree(_lay_over(tree, self.arms[name]))

    def check(self, gives: frozenset[str] | None = None) -> None:
        """Refuse what cannot work whatever the data: needs against gives, live against stored. Spends nothing.

        `gives` is what a teacher gives that has been looked at, where that is less than its kind can give.
        """
        gives = self.teacher.gives if gives is None else gives & self.teacher.gives
        if self.is_reasoning:
            gives = frozenset({"text"})
        needs = frozenset[str]().union(*(objective.required() for objective in self.objectives))
        missing = sorted(needs - gives)
        if missing:
            raise RecipeError(
                f"the objectives need {', '.join(missing)} of the teacher, and a teacher of kind "
                f"{self.teacher.kind!r} gives {', '.join(sorted(gives))} here",
                where="objectives",
                cure="Take out that objective, or choose a teacher that gives it",
            )
        if sum(objective.weight for objective in self.objectives) == 0:
            raise RecipeError("all weights are 0, so nothing would be learned", where="objectives", cure="Raise one")
        if self.training.mixup and not self.transfer_set.live:
            raise RecipeError(
                "mixup makes new questions in each batch, and stored answers do not cover them",
                where="training.mixup",
                cure="Set mixup: 0" + ("" if self.teacher.kind == "recorded" else ", or transfer_set.live: true"),
            )
        if self.transfer_set.live and self.transfer_set.wrong_classes != "teacher":
            raise RecipeError(
                "wrong classes are spoiled in stored answers, and a live teacher has none",
                where="transfer_set.wrong_classes",
                cure="Set transfer_set.live: false",
            )
        paid = any(teacher.costs for teacher in self.teacher.each())
        if self.budget.usd is not None and self.evaluation.price is None and not paid:
            raise RecipeError(
                "a budget in USD needs a price",
                where="budget.usd",
                cure="Add evaluation: {price: {usd_per_hour: ..}}, or budget minutes",
            )
        self._check_language()
        for name in self.arms:
            self.arm(name).check()

    @property
    def is_language(self) -> bool:
        """True where the teacher is a language model whose probabilities are kept."""
        return self.teacher.solves() in ("causal", "masked")

    @property
    def is_reasoning(self) -> bool:
        """True where the teacher's own text is what is learned."""
        return self.teacher.solves() == "reasoning"

    def _check_language(self) -> None:
        """What a language model cannot do, whatever the data."""
        task = "causal" if self.is_reasoning else self.teacher.solves()
        if self.student.architecture().solves() != task and self.student.kind == "fresh":
            raise RecipeError(
                f"the student is for {self.student.architecture().solves()} and the teacher for {self.teacher.solves()}",
                where="student.model.task",
                cure=f"Set task: {task}",
            )
        if not self.is_language and not self.is_reasoning:
            return
        soft = [one for one in self.objectives if one.heat() is not None]
        if any(one.heat() == "auto" for one in soft):
            raise RecipeError(
                "a temperature is not yet chosen by itself for language models",
                where="objectives",
                cure="Set temperature: 1, or 2 as DistilBERT did",
            )
        for knob, is_set in {
            "objectives: standardise": any(getattr(one, "standardise", False) for one in soft),
            "training.mixup": self.training.mixup > 0,
            "training.class_prior": self.training.class_prior != "none",
            "transfer_set.wrong_classes": self.transfer_set.wrong_classes != "teacher",
        }.items():
            if is_set:
                raise RecipeError("this is for classifiers", where=knob, cure="Take it out")


def _lay_over(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        below = merged.get(key)
        same_kind = (
            isinstance(value, dict)
            and isinstance(below, dict)
            and value.get("kind", below.get("kind")) == below.get("kind")
        )
        merged[key] = _lay_over(below, value) if same_kind and isinstance(below, dict) else value
    return merged
