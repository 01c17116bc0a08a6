"""What students write in answer to test questions, judged by the verifier: one file of JSON lines a model and seed.

Greedy, many questions at once, with the model's own cache of what it read. A file that is there is not made again, so a
killed exam goes on. Knows no recipe, no teacher and no figure.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from stillroom.errors import DataError
from stillroom.kinds import Verifier
from stillroom.models.language import LanguageModel
from stillroom.rows import Array
from stillroom.rundir import write_file
from stillroom.transfer_set.traces import read_trace
from stillroom.transfer_set.verify import judged

SMALL_PARAMETERS, MANY, FEW = 5_000_000, 256, 16
"""So many questions at once, of models below and above that size."""
TIMED = 8
"""Questions that are put one by one, for the time that a single answer takes."""


@dataclass(frozen=True)
class Written:
    """What a model wrote in answer to one question."""

    text: str
    answer: str | None
    outcome: str
    reason: str
    tokens: int
    """Written, the one that ends the answer included."""
    finished: bool
    """It ended by itself."""


@dataclass(frozen=True)
class Sheet:
    """All answers of one model and seed, and how long they took."""

    answers: list[Written]
    seconds: float
    """Of writing them all, many at once."""

    @property
    def right_N(self) -> Array:
        """True where the verifier accepted."""
        return np.array([one.outcome == "accepted" for one in self.answers], bool)

    @property
    def tokens_N(self) -> Array:
        """Tokens of each answer."""
        return np.array([one.tokens for one in self.answers], np.int64)

    @property
    def unfinished_N(self) -> Array:
        """True where the limit cut the answer, or none could be read."""
        return np.array([not one.finished or one.answer is None for one in self.answers], bool)

    def write(self, path: Path) -> None:
        """The time on the first line, an answer on each other."""
        lines = [{"seconds": self.seconds}, *map(asdict, self.answers)]
        write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())

    @classmethod
    def read(cls, path: Path) -> Sheet:
        """What `write` wrote."""
        # Not splitlines(): a text may hold U+2028 and its like, which JSON leaves as they are.
        first, *rest = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
        return cls([Written(**line) for line in rest], first["seconds"])


def answer_all(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    gold: Sequence[str],
    verifier: Verifier,
    most_tokens: int,
    told: Callable[[int], None],
) -> Sheet:
    """Every question answered and judged, each with the room that it leaves.

    Raises DataError for a question that leaves none.
    """
    longest = max(map(len, prompts))
    if longest >= model.context:
        raise DataError(
            f"a test question has {longest:,} tokens, and the student looks at {model.context:,}",
            where="questions",
            cure="Take it out, or use a student with a longer context",
        )
    at_once = MANY if model.parameters < SMALL_PARAMETERS else FEW
    rooms = [min(most_tokens, model.context - len(prompt)) for prompt in prompts]
    found: dict[int, Written] = {}
    seconds = 0.0
    for places in _together([len(prompt) for prompt in prompts], rooms, at_once):
        started = time.monotonic()
        made = model.generate([prompts[place] for place in places], rooms[places[0]], batch=at_once)
        seconds += time.monotonic() - started
        for place, one in zip(places, made, strict=True):
            trace = read_trace(one.text, "stop" if one.finished else "length")
            (verdict,) = judged(verifier, [trace.answer], gold[place])
            outcome = verdict.outcome if trace.complete else "unsure"
            reason = verdict.reason if trace.complete else trace.cut or "it says no answer"
            found[place] = Written(one.text, trace.answer, outcome, reason, len(one.ids), one.finished)
        told(len(places))
    return Sheet([found[place] for place in range(len(prompts))], round(seconds, 4))


def _together(lengths: Sequence[int], rooms: Sequence[int], at_once: int) -> Iterator[list[int]]:
    """Places of questions that are put at once: rising in length, and all with the same room for an answer."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    for _, same in groupby(order, key=lambda place: rooms[place]):
        places = list(same)
        yield from (places[start : start + at_once] for start in range(0, len(places), at_once))


def seconds_each(model: LanguageModel, prompts: Sequence[list[int]], most_tokens: int) -> list[float]:
    """Seconds of each of a few answers, one question at a time; the first, which warms up, is left out."""
    chosen = [prompts[place] for place in np.unique(np.linspace(0, len(prompts) - 1, TIMED + 1).astype(np.int64))]
    found = []
    for prompt in chosen:
        started = time.perf_counter()
        model.generate([prompt], min(most_tokens, model.context - len(prompt)))
        found.append(time.perf_counter() - started)
    return found[1:] or found
