"""What a student writes in a round: it goes on from prompts, in pieces that are kept as they are finished.

    RUN/rounds/<role>/<round>/written.jsonl    a line a window: its row in the source, prompt and written as text and as ids,
                                               and whether the student ended it itself; the manifest is written last

Each window is written by a seed of its own, and pieces are the same however often the work was interrupted, so a killed
run writes what it would have written.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.questions.on_policy import OnPolicy
from stillroom.questions.windows import written_windows
from stillroom.rows import Array, Questions
from stillroom.rundir import read_json, verify, write_file, write_json
from stillroom.stages.opening import Run

if TYPE_CHECKING:
    from stillroom.models.language import LanguageModel

FILE = "written.jsonl"
PIECE = 64
"""Windows between two files that are kept; what a kill can cost."""
Tree = dict[str, Any]


def write_all(
    run: Run, student: Path, prompts: list[list[int]], row_N: Array, knobs: OnPolicy, seed: tuple[int, int], work: Path,
    folder: Path, words: str,
) -> None:  # fmt: skip
    """Have the student in a folder go on from each prompt, and write that into `folder`. Raises BudgetReached."""
    assert isinstance(run.splits.train.raw, dict), "windows are named arrays"
    length, model, rows = run.splits.train.raw["ids"].shape[1], None, list[Tree]()
    started = time.monotonic()
    with run.show.stage(words, len(prompts), "windows") as done:
        for start in range(0, len(prompts), PIECE):
            piece, file = prompts[start : start + PIECE], work / f"{start}.json"
            before = file.is_file()
            if not before:
                model = model or _loaded(run, student)
                seeds = [seed_of(*seed, start + place) for place in range(len(piece))]
                write_json(file, go_on(model, piece, length, knobs, seeds))
            rows += read_json(file)
            done(len(piece), before=before)
            run.clock.check()
    for row, one in zip(row_N.tolist(), rows, strict=True):
        one["row"] = row
    write_file(folder / FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    tokens = sum(len(row["written_ids"]) for row in rows)
    seconds = round(time.monotonic() - started, 3)
    run.dir.event("wrote", name=words, windows=len(rows), tokens=tokens, seconds=seconds)


def _loaded(run: Run, student: Path) -> LanguageModel:
    from stillroom.models.language import LanguageModel

    return LanguageModel.load(student, "causal", run.device)


def seed_of(seed: int, number: int, place: int) -> int:
    """Of one window: other for every seed of the run, round and place."""
    return int(np.random.SeedSequence((seed, number, place)).generate_state(1)[0])


def go_on(model: Any, prompts: list[list[int]], length: int, knobs: OnPolicy, seeds: list[int]) -> list[Tree]:
    """What the model writes after each prompt: as much as it says, or as a window of `length` tokens has room for."""
    rooms = [room(knobs, length, len(prompt)) for prompt in prompts]
    most = min(max(rooms), model.context - max(map(len, prompts)))
    said = model.generate(prompts, most, knobs.temperature, seeds=seeds)
    found = []
    for prompt, left, one, seed in zip(prompts, rooms, said, seeds, strict=True):
        if not one.finished and len(one.ids) < left and len(prompts) > 1:
            # Beside a longer prompt the model's context had no room for all of it.
            found += go_on(model, [prompt], length, knobs, [seed])
            continue
        ids = one.ids[:left]
        found.append(
            {
                "prompt": model.tokenizer.decode(prompt, skip_special_tokens=True),
                "written": model.tokenizer.decode(ids, skip_special_tokens=True),
                "ended": one.finished and len(one.ids) <= left,
                "prompt_ids": prompt,
                "written_ids": ids,
            }
        )
    return found


def room(knobs: OnPolicy, length: int, prompt: int) -> int:
    """The most tokens that are written after so many of a window."""
    return length - prompt if knobs.max_tokens is None else min(length - prompt, knobs.max_tokens)


def read_rows(folder: Path) -> list[Tree]:
    """What was written, line by line. Raises CorruptFile."""
    verify(folder)
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").split("\n") if line]


def read_windows(folder: Path, length: int) -> Questions:
    """What was written, as windows to ask about and to learn from. Raises CorruptFile."""
    rows = read_rows(folder)
    return written_windows(
        [row["prompt_ids"] for row in rows],
        [row["written_ids"] for row in rows],
        length,
        np.array([row["row"] for row in rows], np.int64),
    )
