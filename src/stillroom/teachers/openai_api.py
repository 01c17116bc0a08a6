"""A teacher that can only be asked, over an OpenAI-compatible endpoint: OpenAI, vLLM, Ollama, llama.cpp, or our own.

Here are its knobs; what is asked stands in api_prompts.py, the asking in api_asked.py and api_calls.py, the reading of
answers in api_reading.py. A key is never part of a recipe, only the name of the environment variable that holds it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stillroom.budget import Limits as BudgetLimits
from stillroom.budget import Rates
from stillroom.errors import ModelError, RecipeError, did_you_mean
from stillroom.kinds import Knobs, Task, Teacher
from stillroom.teachers import handed
from stillroom.teachers.addresses import checked_url, is_openai

if TYPE_CHECKING:
    from stillroom.models.device import Device
    from stillroom.teachers.api_asked import AskedApi

LABEL_TOKENS = {"exact": 32, "json": 64, "logprobs": 8}
REASONING_TOKENS = 2048
OPENAI_KEY = "OPENAI_API_KEY"


class Price(Knobs):
    """What an endpoint charges, in USD per million tokens."""

    input: float = Field(ge=0)
    """Of what it reads."""
    output: float = Field(ge=0)
    """Of what it writes."""
    batch: float = Field(default=0.5, gt=0, le=1)
    """Share of the price that a batch costs."""


class Limits(Knobs):
    """How fast an endpoint may be asked."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    """Spread evenly, those of a twentieth of a second together."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Read and written together."""
    concurrency: int = Field(default=16, ge=1, le=1024)
    """Requests in flight at once."""


def _described(given: Any) -> Any:
    """A list of labels as labels without a meaning; a label is always text."""
    if isinstance(given, list | tuple):
        return {str(label): "" for label in given}
    if isinstance(given, Mapping):
        return {str(label): "" if meaning is None else str(meaning) for label, meaning in given.items()}
    return given


def _a_list(given: Any) -> Any:
    return given if isinstance(given, list | tuple) else (given,)


class OpenAIApi(Teacher):
    """A model behind an OpenAI-compatible endpoint, asked and paid for answer by answer."""

    kind: Literal["openai_api"] = "openai_api"
    costs: ClassVar[bool] = True
    model: str = Field(min_length=1)
    """Its name at the endpoint."""
    base_url: Annotated[str, AfterValidator(checked_url)] = "https://api.openai.com/v1"
    """Of the endpoint; for a server of your own such as http://localhost:8000/v1."""
    task: Literal["classification", "reasoning"] = "classification"
    """What it is asked for: a label, or an answer with the reasoning that leads to it."""
    prompt: str | None = None
    """The question, with columns in braces: "{text}"; none: all columns by name."""
    system: str | None = None
    """What it is told first; none: the labels, what they mean, and how to answer."""
    labels: Annotated[dict[str, str], BeforeValidator(_described)] = Field(default_factory=dict)
    """What each label means, by label, or a list of labels; none: the labels of the data as they are."""
    examples: tuple[dict[str, Any], ...] = ()
    """Questions with their answers, each with the columns that the prompt names and `label`."""
    read: Literal["exact", "json", "logprobs"] = "exact"
    """An answer is the label and nothing else, or JSON by a schema, or is read from the likeliest tokens."""
    codes: Literal["words", "letters"] = "words"
    """For logprobs: labels are written out and told by their first tokens, or each by a letter."""
    estimator: Literal["renormalised", "bucket", "sampled"] = "bucket"
    """How probabilities are made of the likeliest tokens, or of samples; see the explanation of soft targets from an API."""
    samples: int = Field(default=1, ge=1, le=1000)
    """Answers asked for each question, as requests of their own; several give probabilities."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The most that an answer may have; none: enough for a label, 2,048 for reasoning."""
    limit_as: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """What the endpoint calls that; auto: the newer name at OpenAI's own, the older elsewhere."""
    temperature: float | Literal["auto", "unset"] = "auto"
    """Of sampling; auto: 0 where one answer is asked for, 1 for several; unset: the model's own, for models that take none."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Sample from the likeliest tokens with this mass; none: the endpoint's own."""
    seed: int | None = None
    """Sent with the request, one higher for each further sample; none: not sent."""
    top_logprobs: int = Field(default=20, ge=1, le=20)
    """Tokens that a position tells."""
    price: Price | None = None
    """Needed for a budget in USD."""
    reserve: float = Field(default=1.0, ge=1)
    """For an endpoint that bills more than it is told to read and write: times the most of a call that a budget sets aside."""
    limits: Limits = Limits()
    """How fast it may be asked."""
    timeout_s: float = Field(default=60.0, gt=0)
    """A request that takes longer is cut, counted as paid for, and sent again."""
    api_key_env: str | None = None
    """Name of the environment variable with the key; none: OPENAI_API_KEY at OpenAI's own endpoint, no key elsewhere."""
    accept_model: Annotated[tuple[str, ...], BeforeValidator(_a_list)] = ()
    """Names that answers may give as their model beside the one asked and its dated snapshots; * stands for anything."""
    batch: bool = False
    """Ask through the endpoint's batches: cheaper, and answered within a day."""

    @model_validator(mode="after")
    def _fits(self) -> OpenAIApi:
        if isinstance(self.temperature, float) and not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature should be from 0 to 2, not {self.temperature:g}")
        if self.estimator == "sampled" and self.samples == 1:
            raise ValueError("the sampled estimator needs samples above 1")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 need a temperature above 0, or all of them are the same")
        if self.read == "logprobs" and self.samples > 1 and self.estimator != "sampled":
            raise ValueError("log-probabilities are read from one answer; set estimator: sampled, or samples: 1")
        wrong = next((name for name in self.labels if not name.strip()), None)
        if wrong is not None:
            raise ValueError(f"a label should be a word, not {wrong!r}")
        if any("label" not in example for example in self.examples):
            raise ValueError("each of examples should have a label")
        return self

    def solves(self) -> Task:
        return self.task

    def describe(self) -> str:
        return f"{self.model} at {self.base_url}"

    @property
    def soft(self) -> bool:
        """Its answers hold probabilities."""
        return self.samples > 1 or self.read == "logprobs"

    @property
    def most_tokens(self) -> int:
        """The most that an answer may have."""
        if self.max_tokens is not None:
            return self.max_tokens
        return REASONING_TOKENS if self.task == "reasoning" else LABEL_TOKENS[self.read]

    @property
    def heat(self) -> float | None:
        """The temperature that is sent; None: none is."""
        if self.temperature == "unset":
            return None
        return (
            (0.0 if self.samples == 1 and self.task != "reasoning" else 1.0)
            if self.temperature == "auto"
            else self.temperature
        )

    def rates(self, batch: bool = False) -> Rates:
        """What tokens cost, alone or in a batch; nothing where no price is given."""
        if self.price is None:
            return Rates()
        return Rates.of(self.price.input, self.price.output, self.price.batch if batch else 1.0)

    def check_budget(self, limits: BudgetLimits) -> None:
        """Raise RecipeError for a budget that cannot be kept."""
        if limits.usd is not None and self.price is None:
            raise RecipeError(
                "a budget in USD needs the teacher's price",
                where="teacher.price",
                cure="Add price: {input: .., output: ..} in USD per million tokens, or budget calls or teacher_tokens",
            )

    def key(self) -> str | None:
        """The key, handed over or, where nothing was, out of the environment; None where none is sent.

        Raises RecipeError where it is missing.
        """
        name = self.api_key_env or (OPENAI_KEY if is_openai(self.base_url) else None)
        if name is None:
            return None
        value = ((handed.key(name) if handed.confines() else os.environ.get(name)) or "").strip()
        if not value or not value.isascii() or not value.isprintable():
            told = "is not set" if not value else "holds what cannot be a key"
            raise RecipeError(
                f"the environment variable {name} {told}", where="teacher.api_key_env", cure=f"export {name}=..."
            )
        return value

    def meanings(self, classes: list[Any]) -> dict[str, str]:
        """What each class means, in the order of the classes. Raises RecipeError where labels are others than these."""
        names = [str(label) for label in classes]
        wrong = next((label for label in self.labels if label not in names), None)
        if wrong is not None:
            raise RecipeError(
                f"the data has no label {wrong!r}", where="teacher.labels", cure=did_you_mean(wrong, names)
            )
        missing = next((name for name in names if self.labels and name not in self.labels), None)
        if missing is not None:
            raise RecipeError(
                f"the data has a label {missing!r} that is not told to the teacher",
                where="teacher.labels",
                cure=f"Add {missing}:",
            )
        return {name: self.labels.get(name, "") for name in names}

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Device | None = None) -> AskedApi:
        key = self.key()
        try:
            from stillroom.teachers.api_asked import AskedApi
        except ImportError as error:
            raise ModelError(
                "a teacher behind an API is asked through the openai client, which is not installed",
                where="teacher",
                cure="pip install 'stillroom[api]'",
            ) from error
        return AskedApi.of(self, classes, key)
