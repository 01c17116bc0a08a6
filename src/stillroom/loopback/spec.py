"""What a loopback teacher is: its mind, its price, its limits and its faults, as knobs of a YAML file.

model: loopback
mind: {kind: arithmetic, error_rate: 0.2}
price: {input: 0.15, output: 0.60}
limits: {requests_per_minute: 600}
faults: {too_many: 0.05, server_error: 0.01, hang: 0.005}
latency_ms: 200
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from stillroom.errors import RecipeError, did_you_mean
from stillroom.kinds import Knobs
from stillroom.knob_errors import Located, first_error, place_of
from stillroom.loopback.arithmetic import Arithmetic
from stillroom.loopback.language import Language
from stillroom.loopback.minds import Mind
from stillroom.loopback.rule import Rule
from stillroom.loopback.student import Student
from stillroom.recipe_file import apply_override, locate, read_tree

MINDS: dict[str, type[Mind]] = {"rule": Rule, "student": Student, "arithmetic": Arithmetic, "language": Language}

Share = Annotated[float, Field(ge=0, le=1)]


def _mind(value: Any) -> Any:
    """A mapping with a `kind` as the mind it names."""
    if isinstance(value, Mind):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in MINDS:
        raise RecipeError(
            f"there is no mind of kind {kind!r}",
            where=place_of(value, "kind") or "mind",
            cure=did_you_mean(str(kind), MINDS),
        )
    try:
        return MINDS[kind].model_validate(value)
    except ValidationError as error:
        raise first_error(error, value, value.path if isinstance(value, Located) else "mind") from None


class Price(Knobs):
    """USD per million tokens."""

    input: float = Field(default=0.0, ge=0)
    """Of what is asked."""
    output: float = Field(default=0.0, ge=0)
    """Of what is answered."""


class Limits(Knobs):
    """What is let through; more is answered with 429 and how long to wait."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    """Of chat requests; those answered with 429 for a limit do not count."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Asked and answered; a request counts with the most it may answer until it is answered."""
    burst_s: float = Field(default=60.0, gt=0)
    """What was not used in so many seconds may be used at once."""


class Faults(Knobs):
    """Shares of chat requests that go wrong, each drawn by seed, content and how often the request came before."""

    seed: int = 0
    """Of the draws."""
    too_many: Share = 0.0
    """429 although no limit was passed."""
    server_error: Share = 0.0
    """500, 502 or 503."""
    hang: Share = 0.0
    """No answer, ever; the connection stays open."""
    drop: Share = 0.0
    """The connection is closed without an answer."""
    html: Share = 0.0
    """200 and a page of HTML, as a proxy or a login page gives."""
    cut_json: Share = 0.0
    """The answer ends in its middle."""
    empty: Share = 0.0
    """An answer without a choice in it."""
    other_model: Share = 0.0
    """An answer under another model's name."""
    error_in_200: Share = 0.0
    """200 with an error in it."""
    redirect: Share = 0.0
    """307 to `redirect_to`."""
    redirect_to: str = "http://127.0.0.1:9/v1/chat/completions"
    """Where a redirect leads."""
    retry_after_s: float | None = Field(default=1.0, ge=0)
    """What a 429 that no limit made says in Retry-After; none: it says nothing."""
    bill_hangs: bool = False
    """Charge for requests that hang, as if they had been answered."""

    @model_validator(mode="after")
    def _at_most_all(self) -> Faults:
        if sum(getattr(self, name) for name in SHARES) > 1 + 1e-9:
            raise ValueError("the shares should add up to at most 1")
        return self


SHARES = (
    "too_many", "server_error", "hang", "drop", "html", "cut_json", "empty", "other_model", "error_in_200", "redirect",
)  # fmt: skip
"""The faults, in the order they are drawn."""


class Batches(Knobs):
    """The batch endpoint."""

    wait_s: float = Field(default=1.0, ge=0)
    """From a batch's creation to its end."""
    price_share: Share = 0.5
    """Of the price of single requests."""
    lost: Share = 0.0
    """Share of its requests that come back as errors."""
    expires: bool = False
    """It ends with half of its requests not answered, as one that took longer than a day."""


class Spec(Knobs):
    """A loopback teacher."""

    model: str = Field(default="loopback", min_length=1)
    """The name it is asked by; another name gets 404."""
    mind: Annotated[SerializeAsAny[Mind], BeforeValidator(_mind)]
    """Where its answers come from."""
    api_key: str | None = None
    """The only key it takes; none: it takes any, and requests without one."""
    context: int = Field(default=8192, ge=1)
    """Tokens of a request and its answer together; more gets 400."""
    latency_ms: float = Field(default=0.0, ge=0)
    """From a request to its answer, at least."""
    latency_spread_ms: float = Field(default=0.0, ge=0)
    """Up to so much longer, evenly drawn."""
    price: Price = Price()
    """What the bill is made out with."""
    quota_usd: float | None = Field(default=None, ge=0)
    """Once so much was billed: 429 with insufficient_quota."""
    limits: Limits = Limits()
    """What is let through."""
    faults: Faults = Faults()
    """What goes wrong."""
    batches: Batches = Batches()
    """The batch endpoint."""

    @classmethod
    def load(cls, path: Path, overrides: tuple[str, ...] = ()) -> Spec:
        """Read a file and apply `section.key=value` overrides. Raises RecipeError."""
        if not path.is_file():
            raise RecipeError(
                "there is no such file", where=str(path), cure="Check the path; examples are in recipes/loopback"
            )
        tree = read_tree(path)
        for override in overrides:
            apply_override(tree, override)
        return cls.from_tree(tree)

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Spec:
        """Validate a mapping. Raises RecipeError with the place of the first thing wrong."""
        located = tree if isinstance(tree, Located) else locate(tree)
        try:
            return cls.model_validate(located)
        except ValidationError as error:
            raise first_error(error, located, "") from None
