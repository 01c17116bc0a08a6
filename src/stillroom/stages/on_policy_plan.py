"""What rounds on policy will take, before anything is spent: windows and tokens that students write, and how fast one writes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stillroom.questions.on_policy import OnPolicy
from stillroom.stages.on_policy import learns_written, writes
from stillroom.stages.on_policy_rounds import policy_of, prompts_of
from stillroom.stages.on_policy_writing import PIECE, room
from stillroom.stages.opening import Run
from stillroom.stages.practice import most_bytes
from stillroom.stages.train import Role, roles

TIMED_TOKENS = 8
TOKEN_BYTES = 12
"""Of a written window in its file, for each token: its number, and its part of the text."""
LINE_BYTES = 120


class Writing(NamedTuple):
    """What students write at most: of one run's roles, all seeds and rounds together."""

    windows: int
    tokens: int
    pieces: int
    """How many of them the teacher is asked about at a time, each a shard."""
    file_bytes: int


def writing_of(run: Run, asked_by: Run | None = None) -> Writing:
    """All that is written in a run; with `asked_by` only what the teacher of that run or arm is asked about."""
    each = [read_by(role) for role in roles(run) if writes(role) and (asked_by is None or _teaches(asked_by, role))]
    return Writing(*(sum(one[place] for one in each) for place in range(len(Writing._fields))))


def _teaches(run: Run, role: Role) -> bool:
    return role.run is run or (not role.run.has_own_teacher and not run.arm)


def read_by(role: Role) -> Writing:
    """What is written for one role to learn from, by itself or, for a hard teacher's student, by the student."""
    policy, raw = policy_of(role.run), role.run.splits.train.raw
    if policy is None or not learns_written(role):
        return Writing(0, 0, 0, 0)
    assert isinstance(raw, dict), "windows are named arrays"
    length, prompt_N = raw["ids"].shape[1], prompts_of(role.run, policy.knobs)
    most = max((room(policy.knobs, length, int(prompt)) for prompt in np.unique(prompt_N[prompt_N > 0])), default=0)
    windows = role.seeds * sum(part.written for part in policy.parts)
    pieces = role.seeds * sum(-(-part.written // PIECE) for part in policy.parts)
    return Writing(windows, windows * most, pieces, windows * (length * TOKEN_BYTES + LINE_BYTES))


def practised(run: Run, knobs: OnPolicy, student: Path) -> tuple[int, float]:
    """What a process holds at most while a student writes whole windows, and the seconds of a token."""
    from stillroom.models.language import GENERATION_ROWS, LanguageModel

    raw, prompt_N = run.splits.train.raw, prompts_of(run, knobs)
    assert isinstance(raw, dict), "windows are named arrays"
    model = LanguageModel.load(student, "causal", run.device)
    places = np.resize(np.flatnonzero(prompt_N), GENERATION_ROWS)
    prompts = [raw["ids"][place, : prompt_N[place]].tolist() for place in places]
    length = raw["ids"].shape[1]
    whole = [np.resize(prompt, length - 1).tolist() for prompt in prompts]
    held = most_bytes(lambda: model.generate(whole, 1, knobs.temperature, seeds=range(len(whole))))
    tokens = min(TIMED_TOKENS, model.context - max(map(len, prompts)))
    started = time.perf_counter()
    model.generate(prompts, tokens, knobs.temperature, seeds=range(len(prompts)))
    return held, (time.perf_counter() - started) / (tokens * len(prompts))
