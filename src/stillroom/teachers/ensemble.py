"""Several teachers as one: the mean of their probabilities, or of their log-probabilities; classifiers, or language models.

Members are asked one by one and their answers are kept; the ensemble's answers are the merge of what is kept. So an
eleventh member costs one member's asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from stillroom.kinds import AnyTeacher, AskedTeacher, Task, Teacher
from stillroom.rows import Answers, Array, Questions
from stillroom.rundir import fingerprint

if TYPE_CHECKING:
    from stillroom.models.device import Device
    from stillroom.teachers.language import AskedLanguageEnsemble


class Ensemble(Teacher):
    """Members by name, or `size` copies of one `member` whose seeds count up."""

    kind: Literal["ensemble"] = "ensemble"
    gives: ClassVar[frozenset[str]] = frozenset({"answers", "probabilities", "text"})
    members: tuple[AnyTeacher, ...] | None = Field(default=None, min_length=2)
    size: int | None = Field(default=None, ge=2)
    """How many copies of `member`, each with a seed of its own."""
    member: AnyTeacher | None = None
    """The teacher of which copies are made."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """Of probabilities, or of log-probabilities."""
    weights: tuple[float, ...] | None = None
    """One a member; none: all equal."""

    @model_validator(mode="after")
    def _whole(self) -> Ensemble:
        copies = (self.size is not None, self.member is not None)
        if copies != ((True, True) if self.members is None else (False, False)):
            raise ValueError("an ensemble wants either members: [..], or size: and member:")
        if any(isinstance(member, Ensemble) for member in self.each()):
            raise ValueError("an ensemble's members cannot be ensembles; list all their members in one")
        if self.size is not None and self.member is not None and "seed" not in type(self.member).model_fields:
            raise ValueError(f"copies of a {self.member.kind!r} teacher would all answer alike; list members: instead")
        if len({member.solves() for member in self.each()}) > 1:
            raise ValueError(
                "an ensemble's members should all be classifiers, all causal or all masked language models"
            )
        if self.weights is not None and (len(self.weights) != len(self.each()) or min(self.weights) <= 0):
            raise ValueError("weights should hold one number above 0 for each member")
        return self

    def solves(self) -> Task:
        return self.each()[0].solves()

    def each(self) -> list[Teacher]:
        if self.members is not None:
            return list(self.members)
        assert self.size is not None
        assert self.member is not None
        first = getattr(self.member, "seed", 0)
        return [self.member.model_copy(update={"seed": first + place}) for place in range(self.size)]

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Device | None = None) -> AskedTeacher:
        built = [member.build(home / str(place), folders, classes, device) for place, member in enumerate(self.each())]
        return self.over(built)

    def over(self, members: Sequence[AskedTeacher]) -> AskedEnsemble | AskedLanguageEnsemble:
        """The ensemble over these members, each of which may answer live or, a classifier, from what was kept."""
        if self.solves() == "classification":
            return AskedEnsemble(members, self.mean, self.weights)
        from stillroom.teachers.language import AskedLanguageEnsemble, AskedLanguageModel

        models = [member for member in members if isinstance(member, AskedLanguageModel)]
        return AskedLanguageEnsemble(models, shares(self.weights, len(members)).tolist(), self.mean)


class AskedEnsemble:
    """Asks every member and merges the answers; the order of the members does not matter."""

    hidden_width: int | None = None

    def __init__(self, members: Sequence[AskedTeacher], mean: str, weights: Sequence[float] | None) -> None:
        self.members, self.mean, self.classes = list(members), mean, members[0].classes
        self.gives = frozenset[str].intersection(*(member.gives for member in members)) - {"hidden"}
        self.by_key = any(member.by_key for member in members)
        self.share_K = shares(weights, len(members))

    @property
    def fingerprint(self) -> str:
        """Of the members and their shares, in whatever order they stand; a callable member has its own once asked."""
        parts = sorted(zip((member.fingerprint for member in self.members), self.share_K.tolist(), strict=True))
        return fingerprint("ensemble", self.mean, parts)

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """The merged log-probabilities [N, C]."""
        said_KNC = np.stack([member.answer(questions, view).log_probabilities_NC for member in self.members])
        return Answers(merge(said_KNC, self.share_K, self.mean))


def shares(weights: Sequence[float] | None, count: int) -> Array:
    """The share of each member [K], together 1; equal where no weights are given."""
    weight_K = np.asarray(np.ones(count) if weights is None else weights, dtype=np.float64)
    share_K: Array = weight_K / weight_K.sum()
    return share_K


def members_of(asked: AskedTeacher) -> list[AskedTeacher]:
    """Those that are asked, one by one: an ensemble's members, or the teacher itself."""
    return list(getattr(asked, "members", None) or [asked])


def merge(log_probabilities_KNC: Array, share_K: Array, mean: str) -> Array:
    """Arithmetic: log of the mean probability. Geometric: mean log-probability, renormalised (a product of experts)."""
    logs = log_probabilities_KNC.astype(np.float64)
    if mean == "geometric":
        return _normalise(np.tensordot(share_K, logs, 1))
    top_NC = logs.max(0)
    return _normalise(top_NC + np.log(np.tensordot(share_K, np.exp(logs - top_NC), 1)))


def _normalise(logs_NC: Array) -> Array:
    top = logs_NC.max(1, keepdims=True)
    normal: Array = (logs_NC - top - np.log(np.exp(logs_NC - top).sum(1, keepdims=True))).astype(np.float32)
    return normal
