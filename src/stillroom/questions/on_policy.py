"""On-policy distillation: a language model goes on from beginnings of the training text, and its teacher scores what it wrote.

Agarwal and others 2023 (arXiv:2306.13649). A student that only ever reads what people wrote never meets its own mistakes;
here it does, and hears what the teacher would have said there.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from stillroom.kinds import Strategy
from stillroom.questions.choosing import most
from stillroom.rows import Array, Pool

WRITTEN = "text"
"""What such a strategy wants of a student."""


class OnPolicy(Strategy):
    """Of language models: each seed's student goes on from beginnings of training windows, and the teacher scores that."""

    kind: Literal["on_policy"] = "on_policy"
    wants: ClassVar[frozenset[str]] = frozenset({WRITTEN})
    prompt: int = Field(default=32, ge=1)
    """Tokens of a window that the student goes on from; of a conversation, all that stands before the assistant speaks."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The most that it writes after a prompt; none: as much as the window has room for."""
    temperature: float = Field(default=1.0, ge=0, le=100)
    """At which it writes; 0: always its likeliest token."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Of a round's windows, those that the student wrote (lambda of GKD); the others are training text as it stands."""
    epochs: int = Field(default=1, ge=1)
    """Passes of each round over its windows; the text alone is learned first, for training.epochs."""

    def choose(self, pool: Pool, count: int, seed: int) -> Array:
        return most(np.zeros(pool.count), count, seed)
