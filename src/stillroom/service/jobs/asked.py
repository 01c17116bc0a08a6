"""What a client asks for when it creates a job: OpenAI's fields, and the distillation beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StringConstraints, model_validator

from stillroom.service.door.schemas import NUMBER, Body, Metadata, Strict

LONGEST = 200
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]
Factor = Annotated[float, Field(gt=0, le=1000), NUMBER]
Count = Annotated[int, Field(ge=1, le=100_000), NUMBER]


class Hyperparameters(Body):
    """OpenAI's; auto: what the recipe or the student's preset says."""

    n_epochs: Literal["auto"] | Count = "auto"
    batch_size: Literal["auto"] | Count = "auto"
    learning_rate_multiplier: Literal["auto"] | Factor = "auto"


class Supervised(Body):
    """OpenAI's."""

    hyperparameters: Hyperparameters | None = None


class StoredRows(Strict):
    """Stored completions: those with all of these pairs of metadata, and of this model where one is named."""

    metadata: Metadata = None
    model: Name | None = None


class Source(Strict):
    """Where the rows come from: a file, or stored completions."""

    file: Name | None = None
    stored_completions: StoredRows | None = None

    @model_validator(mode="after")
    def _one(self) -> Source:
        if (self.file is None) == (self.stored_completions is None):
            raise ValueError("name either a file or stored_completions")
        return self


class Budget(Strict):
    """Hard stops, as in a recipe."""

    usd: Annotated[float, Field(ge=0), NUMBER] | None = None
    teacher_tokens: Annotated[int, Field(ge=0), NUMBER] | None = None
    calls: Annotated[int, Field(ge=0), NUMBER] | None = None
    minutes: Annotated[float, Field(gt=0), NUMBER] | None = None


class CascadeAsked(Strict):
    """Keep beside the student when it leaves a question to its teacher."""

    risk: Annotated[float, Field(gt=0, lt=1), NUMBER]


class Distillation(Strict):
    """A distillation: a whole recipe, or a teacher, a student and a source."""

    recipe: dict[str, Any] | None = None
    """As in a file, but with ids of files for paths and names of registered teachers."""
    teacher: Name | None = None
    """A registered one, by name or id; none: the answers in the source are what a teacher said."""
    student: dict[str, Any] | Name | None = None
    """A preset's name, or a student as a recipe has it; none: `model`."""
    source: Source | None = None
    soft_targets: StrictBool = False
    """Learn from log-probabilities: a teacher is asked for them, stored answers came with them."""
    labels: Annotated[list[Name], Field(max_length=1000)] | None = None
    """What the teacher may answer; none: what the answers in the source are."""
    budget: Budget | None = None
    cascade: CascadeAsked | None = None
    seeds: Annotated[int, Field(ge=1, le=20), NUMBER] | None = None
    """How many students are trained to be compared; none: 1, or what the recipe says."""
    hold: StrictBool = False
    """Estimate it, then wait as `paused` until it is resumed."""


class Method(Body):
    """OpenAI's, and `distillation` as another way to ask for one."""

    type: Literal["supervised", "distillation", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    distillation: Distillation | None = None


class CreateJob(Body):
    """A job to create."""

    model: Name
    """A preset student, or a registered base."""
    training_file: Annotated[str, StringConstraints(max_length=LONGEST)] | None = None
    validation_file: Name | None = None
    suffix: Annotated[str, StringConstraints(max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2147483647), NUMBER] | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    metadata: Metadata = None
    integrations: list[dict[str, Any]] | None = None
    distillation: Distillation | None = None

    @property
    def wanted(self) -> Distillation | None:
        """The distillation, wherever it was asked for."""
        return self.distillation or (None if self.method is None else self.method.distillation)

    @property
    def knobs(self) -> Hyperparameters:
        """The hyperparameters, in their new place or their old."""
        given = self.method.supervised if self.method is not None else None
        return (given and given.hyperparameters) or self.hyperparameters or Hyperparameters()
