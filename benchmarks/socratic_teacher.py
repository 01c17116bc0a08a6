"""The teacher over HTTP: every question is asked once, through the API client and the ledger; later seeds read what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.socratic_sizes import CONCURRENCY, LIMITS, PRICE, TIMEOUT_S, spec
from stillroom.columns import objects
from stillroom.ledger import Limits, opened
from stillroom.loopback.serving import Loopback
from stillroom.rows import Array, Questions
from stillroom.teachers.openai_api import OpenAIApi

UNANSWERED = -1
PORT = 18_311
"""An address is part of a question's key, so that it stays the same from one attempt to the next."""


@dataclass(frozen=True)
class Heard:
    """What the teacher said, and what that cost."""

    said_N: Array
    """The class of each question; UNANSWERED where it refused or could not be read."""
    calls: int
    usd: float
    tokens: int

    @property
    def usd_a_call(self) -> float:
        """On average."""
        return self.usd / max(1, self.calls)


def hear(texts: Sequence[str], classes: Sequence[str], answers: Path, name: str) -> Heard:
    """Ask all of these, or read what was said before; what the ledger beside `answers` holds costs nothing again."""
    kept = answers.with_name("heard.npz")
    if not kept.is_file():
        found = _asked(texts, classes, answers, name)
        staged = kept.with_name("heard.staged.npz")
        np.savez(staged, said_N=found.said_N, calls=found.calls, usd=found.usd, tokens=found.tokens)
        staged.replace(kept)
    with np.load(kept, allow_pickle=False) as one:
        return Heard(one["said_N"], int(one["calls"]), float(one["usd"]), int(one["tokens"]))


def knobs(url: str) -> OpenAIApi:
    """How the teacher at this address is asked."""
    tree = {
        "kind": "openai_api", "model": "loopback", "base_url": url, "prompt": "{text}", "timeout_s": TIMEOUT_S,
        "max_tokens": 8, "price": PRICE, "limits": {"concurrency": CONCURRENCY, **LIMITS},
    }  # fmt: skip
    return OpenAIApi.model_validate(tree)


def _asked(texts: Sequence[str], classes: Sequence[str], answers: Path, name: str) -> Heard:
    with Loopback(spec(answers.name), answers.parent, port=PORT) as url:
        asked = knobs(url).build(answers.parent, [answers.parent], list(classes))
        with opened(answers.parent / "ledger.sqlite", name, Limits()) as ledger:
            said = asked.charge(ledger).answer(Questions.of({"text": objects(texts)}))
            spent = ledger.spent()
    said_N = said.log_probabilities_NC.argmax(1)
    if said.answered_N is not None:
        said_N = np.where(said.answered_N, said_N, UNANSWERED)
    return Heard(said_N, spent.calls, spent.usd, spent.tokens)
