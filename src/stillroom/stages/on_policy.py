"""Rounds on policy: the student writes, the teacher is asked about that, and training goes on from the weights there are.

    RUN/rounds/<role>/<round>/    what was written in a round (on_policy_writing.py)

The recipe's own training on the text comes first; each round is a training of its own, with its own warm-up, from where
the last one ended. What is not finished is done again from the same beginnings, so a run that is killed anywhere ends in
the same weights. A role's last training stands in its place in the run; those before it are cleared away.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.kinds import AskedTeacher, Objective
from stillroom.rows import Array, Questions, joined
from stillroom.rundir import fingerprint, is_sealed
from stillroom.stages.ask import ask_answers
from stillroom.stages.on_policy_rounds import WORK, Part, drawn, policy_of, prompts_of
from stillroom.stages.on_policy_writing import read_windows, write_all
from stillroom.stages.opening import Run
from stillroom.stages.train import After, Prepared, Role, carry_out, prepared

if TYPE_CHECKING:
    from stillroom.transfer_set.store import Kept

FORMAT = 1
ROUNDS = "rounds"
FURTHER = 1_000_003
"""The orders of a round's windows are drawn from the seed and this times its number."""


def train_on_policy(role: Role, objectives: tuple[Objective, ...], asked: AskedTeacher, kept: Kept, seed: int) -> None:
    """Train one role's model of one seed, first as any other and then round by round. Raises BudgetReached."""
    Way(role, objectives, asked, kept, seed).through()


def writes(role: Role) -> bool:
    """It writes, and learns from what it wrote."""
    return learns_written(role) and role.name != "hard_teacher"


def learns_written(role: Role) -> bool:
    """It learns from what it wrote, or what the student did; a control and an arm without rounds learn the text alone."""
    return role.run.recipe.rounds is not None and not role.labels_alone and not role.untrained


def written_folder(role: Role, seed: int, number: int) -> str:
    """Where what a role learns from was written: by itself, or for the hard teacher's student by the student."""
    writer = role if writes(role) else replace(role, name="student")
    return f"{ROUNDS}/{writer.folder(seed)}/{number}"


class Way:
    """One role's model of one seed on its way through the rounds; a training is done when its weights are wanted."""

    def __init__(
        self, role: Role, objectives: tuple[Objective, ...], asked: AskedTeacher, kept: Kept, seed: int
    ) -> None:
        found = policy_of(role.run)
        assert found is not None, "only a run on policy goes through rounds"
        self.role, self.objectives, self.asked, self.kept, self.seed = role, objectives, asked, kept, seed
        self.knobs, self.parts = found
        self.prompt_N = prompts_of(role.run, self.knobs)
        self.trainings: list[Prepared] = []

    def through(self) -> None:
        """All rounds, to the finished model."""
        self.trainings.append(prepared(self.role, self.objectives, self.asked, self.kept, self.seed, self._name(0)))
        for number, part in enumerate(self.parts, 1):
            learned, own = self._windows(number, part)
            last = self.trainings[-1]
            after = After(self.role.run.dir.path / last.name, last.made_from, own)
            role = replace(self.role, run=_in_round(self.role.run, learned, self.knobs.epochs))
            seed = self.seed + FURTHER * number
            one = prepared(role, self.objectives, self.asked, self.kept, seed, self._name(number), after)
            self.trainings.append(one)
        self._finish(len(self.parts))

    def _name(self, number: int) -> str:
        """The folder of a training; the last one's is the role's own."""
        folder = self.role.folder(self.seed)
        return folder if number == len(self.parts) else f"{WORK}/{folder}/{number}"

    def _words(self, number: int) -> str:
        return f"{self.role.name}, seed {self.seed}, {f'round {number}' if number else 'before the rounds'}"

    def _finish(self, number: int) -> Path:
        """See that a training is done, and before it those that it goes on from; these are then cleared away."""
        one, run = self.trainings[number], self.role.run
        folder = run.dir.path / one.name
        if is_sealed(folder, one.made_from):
            return folder
        before = self._finish(number - 1) if number else None
        carry_out(one, self._words(number))
        if before is not None:
            run.dir.discard(before)
        return folder

    def _windows(self, number: int, part: Part) -> tuple[Questions, int]:
        """What a round learns from, and how many of the first windows of it were written by the student."""
        train = self.role.run.splits.train
        place_N = drawn(self.prompt_N, self.knobs, part, self.seed, number)
        if not learns_written(self.role):
            return train.take(place_N), 0
        written = self._written(number, place_N[: part.written])
        if not self.role.run.recipe.transfer_set.live:
            self.kept = ask_answers(self.role.run, self.asked, written=written)
        return joined(written, train.take(place_N[part.written :])), len(written)

    def _written(self, number: int, place_N: Array) -> Questions:
        """What the student wrote in a round, or writes now."""
        run, train = self.role.run, self.role.run.splits.train
        name = written_folder(self.role, self.seed, number)
        assert isinstance(train.raw, dict), "windows are named arrays"
        if writes(self.role):
            told = self.knobs.model_dump(mode="json", include={"prompt", "max_tokens", "temperature"})
            parts = (told, train.fingerprint(), place_N.tolist(), self.seed, number)
            made_from = fingerprint(FORMAT, self.trainings[-1].made_from, *parts)
            with run.dir.stage(name, made_from) as folder:
                if folder is not None:
                    prompts = [train.raw["ids"][place, : self.prompt_N[place]].tolist() for place in place_N]
                    write_all(
                        run, self._finish(number - 1), prompts, train.row_N[place_N], self.knobs, (self.seed, number),
                        run.dir.work_of(name, made_from), folder, f"{self._words(number)}: write",
                    )  # fmt: skip
        return read_windows(run.dir.path / name, train.raw["ids"].shape[1])


def _in_round(run: Run, learned: Questions, epochs: int) -> Run:
    """The run as if these were its training windows, gone through so many times."""
    training = run.recipe.training.model_copy(update={"epochs": epochs})
    found = replace(run, recipe=run.recipe.model_copy(update={"training": training}))
    found.__dict__["splits"] = replace(run.splits, train=learned)
    found.__dict__["device"] = run.device
    return found
