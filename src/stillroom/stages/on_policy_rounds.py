"""Rounds on policy as a recipe has them: how long each is, which windows it draws, and what is wrong with the knobs.

Every role of a run goes through the same rounds with the same steps. One that writes learns its own words and some of the
text; a control, or an arm with `rounds: null`, learns the very windows whose beginnings the student went on from, as they
stand in the text.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stillroom.errors import RecipeError
from stillroom.questions.on_policy import OnPolicy
from stillroom.questions.windows import prompt_lengths
from stillroom.recipe import Rounds
from stillroom.rows import Array, Pool
from stillroom.stages.language_text import is_recorded
from stillroom.stages.opening import Run

WORK = ".work/on_policy"
"""Where a model stands that a later round goes on from."""
NOT_HERE = ("start", "audit", "stop", "compare")
"""Of the section `rounds`: what has no meaning where nothing is chosen."""


class Part(NamedTuple):
    """One round: windows that the student writes, and windows of the text beside them."""

    written: int
    beside: int


class Policy(NamedTuple):
    """How a run's models go through rounds."""

    knobs: OnPolicy
    parts: list[Part]


def policy_of(run: Run) -> Policy | None:
    """Of a run on policy, or of an arm of one; None where nobody writes."""
    rounds = run.recipe.rounds
    if rounds is None and run.main is not None:
        rounds = run.main.recipe.rounds
    if rounds is None or not isinstance(rounds.strategy, OnPolicy):
        return None
    return Policy(rounds.strategy, parts_of(rounds, rounds.strategy))


def parts_of(rounds: Rounds, knobs: OnPolicy) -> list[Part]:
    """Each round's windows."""
    written = [now - before for before, now in zip((0, *rounds.budgets), rounds.budgets, strict=False)]
    return [Part(count, round(count * (1 - knobs.share) / knobs.share)) for count in written]


def prompts_of(run: Run, knobs: OnPolicy) -> Array:
    """How many tokens of each training window may be gone on from, int64 [N]; 0: none."""
    from stillroom.stages.language import tokenizer

    return prompt_lengths(run.splits.train, knobs.prompt, tokenizer(run))


def drawn(prompt_N: Array, knobs: OnPolicy, part: Part, seed: int, number: int) -> Array:
    """Places of a round's training windows, int64: first those that are gone on from. Once round, they come again."""
    usable = np.flatnonzero(prompt_N)
    wanted, found, times = part.written + part.beside, list[Array](), 0
    while wanted:
        own = int(np.random.SeedSequence((seed, number, times)).generate_state(1)[0])
        found.append(usable[knobs.choose(Pool(len(usable)), wanted, own)])
        wanted, times = wanted - len(found[-1]), times + 1
    return np.concatenate(found)


def is_on_policy(run: Run) -> bool:
    """The run itself writes; arms then may, too."""
    return run.recipe.rounds is not None and isinstance(run.recipe.rounds.strategy, OnPolicy)


def check_on_policy(run: Run) -> None:
    """Refuse what such rounds cannot do, for the run and for its arms, before anything is spent. Raises RecipeError."""
    _check(run, "")
    for name, arm in run.arms.items():
        if arm.recipe.rounds is not None:
            _check(arm, f"arms.{name}.")


def _check(run: Run, at: str) -> None:
    recipe, rounds = run.recipe, run.recipe.rounds
    assert rounds is not None, "only such runs are checked"
    if not isinstance(rounds.strategy, OnPolicy):
        raise RecipeError(
            "the run's student writes in rounds, and this arm's would choose",
            where=f"{at}rounds.strategy",
            cure="Use on_policy, or rounds: null for the same steps on the text",
        )
    if recipe.teacher.solves() != "causal" or is_recorded(recipe.teacher):
        raise RecipeError(
            "in rounds on policy a language model writes and its teacher scores that, and this teacher cannot",
            where=f"{at}rounds.strategy",
            cure="Use a teacher of task causal that can be asked, such as one of kind transformers",
        )
    needs = frozenset[str]().union(*(one.required() for one in recipe.objectives))
    if not needs & {"probabilities", "answers"}:
        raise RecipeError(
            "what a student wrote teaches nothing by itself, and none of these objectives asks what the teacher says of it",
            where=f"{at}objectives",
            cure="Add {kind: soft_target, temperature: 1}",
        )
    for knob in NOT_HERE:
        if getattr(rounds, knob) != Rounds.model_fields[knob].default:
            raise RecipeError(
                "this is for rounds that choose among questions", where=f"{at}rounds.{knob}", cure="Take it out"
            )
    _check_prompts(run, rounds.strategy, at)


def _check_prompts(run: Run, knobs: OnPolicy, at: str) -> None:
    """Some window must have something to go on from, and room to go on."""
    raw = run.splits.train.raw
    assert isinstance(raw, dict), "windows are named arrays"
    if prompts_of(run, knobs).any():
        return
    window = raw["ids"].shape[1]
    longest = min(window - 1, int((raw["ids"] >= 0).sum(1).max()))
    raise RecipeError(
        f"no training window of {window:,} tokens leaves room to go on from its first {knobs.prompt:,}",
        where=f"{at}rounds.strategy.prompt",
        cure=f"Set it to {longest} or less, or a larger questions.window",
    )
