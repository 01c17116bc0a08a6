"""Ask a teacher what the store lacks, shard by shard; a killed run loses at most one shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from stillroom.kinds import AskedTeacher
from stillroom.rows import Answers, Array, PositionAnswers, Questions
from stillroom.transfer_set.store import Header, Kept, Store

SHARD_ROWS = 8_192
"""A stop in time comes between two shards, and a kill costs one."""
"""Most rows a shard holds; also what a kill can cost."""


class Packs(Protocol):
    """A language model at work, whose answers are packed position by position (recording.Recorder)."""

    @property
    def fingerprint(self) -> str:
        """A digest of what decides its answers, and of how they are kept."""
        ...

    classes: list[Any]
    hidden_width: int | None

    def answer(self, questions: Questions, view: int = 0) -> PositionAnswers:
        """The packed answers of every scored position."""
        ...


Seen = Callable[[Questions, int], Questions]
"""Shows questions as a view has them: their raw rows augmented, keys and labels unchanged."""


def ask(
    store: Store,
    teacher: AskedTeacher | Packs,
    questions: Questions,
    *,
    kind: str,
    licences: dict[str, str],
    views: Sequence[int],
    seen: Seen,
    progress: Callable[[int], None] = lambda rows: None,
    known: Callable[[int], None] = lambda rows: None,
    shard_rows: int = SHARD_ROWS,
    layout: dict[str, Any] | None = None,
    made_of: dict[str, str] | None = None,
) -> Kept:
    """Every question's answer in every view, asking only for those that are not kept yet.

    `progress` is called with the number of rows just answered, `known` with that of rows found answered. Raises RunBusy,
    NotFinite, DiskFull, CorruptFile.
    """
    header = Header(teacher.fingerprint, kind, teacher.classes, teacher.hidden_width, licences, layout, made_of or {})
    with store.hold():
        kept = store.of(header)
        for view in views:
            missing = kept.missing(questions.key_N, view)
            known(len(questions) - len(missing))
            for places in _shards(teacher, questions, missing, shard_rows, seen, view):
                asked = questions.take(places)
                key_N, said = asked.key_N, teacher.answer(seen(asked, view), view)
                if isinstance(said, Answers) and said.answered_N is not None:
                    key_N, said = key_N[said.answered_N], said.given()
                if len(key_N):
                    kept.append(key_N, view, said)
                progress(len(asked))
    return kept


def _shards(
    teacher: AskedTeacher | Packs, questions: Questions, missing: Array, rows: int, seen: Seen, view: int
) -> Iterator[Array]:
    """The places to ask, a shard at a time. What a paid teacher never heard goes first: reading again what was paid for
    takes a while, in which new requests could be on their way."""
    parts = [missing]
    if len(missing) > rows and hasattr(teacher, "paid_before"):  # in a single shard it sees to that by itself
        known_N = teacher.paid_before(seen(questions.take(missing), view))
        parts = [missing[~known_N], missing[known_N]]
    for part in parts:
        for start in range(0, len(part), rows):
            yield part[start : start + rows]


class KeptTeacher:
    """A teacher that answers from what is kept of it; how an ensemble merges its members without asking them again."""

    by_key = True

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.fingerprint, self.classes = kept.header.fingerprint, kept.header.classes
        self.hidden_width = kept.header.hidden_width
        self.gives = frozenset({"answers", "probabilities"}) | ({"hidden"} if self.hidden_width else set())

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """The kept answers. Raises WrongAnswer for a question that was never asked."""
        reader = self._kept.reader(questions.key_N, view)
        return Answers(reader.all(), reader.all("hidden") if self.hidden_width else None)
