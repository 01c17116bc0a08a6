"""`make bench-socratic`: which questions to ask a teacher that can only be asked, and when to ask it at all.

    python -m benchmarks.socratic [--preset smoke|time|full] [--only EXPERIMENT ...] [--list] [--write]

Reads sst2 and gsm8k from $STILLROOM_DATA. Three tasks: margin, named beforehand, and four other strategies against random,
over paired seeds; a fourth without a bar, of prompts for a language model at equal tokens; then a cascade on streams that
change half way. The teacher is asked over HTTP, once a question, and what that takes is counted as if each seed had asked
for itself. Every finished seed is written down at once below
runs/bench-socratic/PRESET, so a stopped run goes on; `--write` makes the result files from what is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks import socratic_tables as tables
from benchmarks.results import (
    RESULTS,
    Finished,
    Row,
    Rows,
    bars_of,
    fingerprint,
    found_before,
    origins_of,
    read_bars,
    write,
)
from benchmarks.socratic_cascades import run_streams
from benchmarks.socratic_curves import Curve, curve
from benchmarks.socratic_sizes import EXPLORED, PRESETS, PRIMARY, TASKS, Sizes
from benchmarks.socratic_tasks import STUDENT, task
from benchmarks.socratic_teacher import hear

BENCH = "socratic"
HOME = Path(__file__).resolve().parent.parent / "runs" / "bench-socratic"
CASCADE, PROMPTS = "cascade", "prompts"
EXPERIMENTS = {
    "digits": "scikit-learn's digits",
    "sst2": "SST-2 phrases on frozen MiniLM embeddings",
    "intents": "a generated text task of twelve intents",
    CASCADE: "a cascade on streams of intents that change half way",
    PROMPTS: "prompts for a language model that writes text, at equal tokens",
}
READS = {"sst2": "sst2", PROMPTS: "gsm8k"}
"""Folders of $STILLROOM_DATA."""
STRATEGIES = ("random", PRIMARY, *EXPLORED)


def settings_of(name: str, sizes: Sizes) -> str:
    """The fingerprint of all that an experiment's figures depend on, but for how many seeds there are."""
    from benchmarks import socratic_sizes, socratic_streams

    if name == PROMPTS:
        from benchmarks.socratic_prompts import HABITS

        return fingerprint(
            [name, {key: value for key, value in asdict(sizes.prompts).items() if key != "seeds"}, HABITS]
        )
    knobs = {key: value for key, value in asdict(sizes).items() if key not in ("seeds", "streams", "prompts")}
    constants = [socratic_sizes.AUDIT, socratic_sizes.REFUSED, socratic_sizes.INVENTED, asdict(STUDENT)]
    habits = [getattr(socratic_streams, key) for key in ("PART", "RISK", "EVERY", "AUDIT", "STATIC_CALLS")]
    return fingerprint([name, knobs, constants, habits if name == CASCADE else []])


def run_task(name: str, sizes: Sizes, home: Path, data: Path) -> Row:
    """All curves of a task that are not drawn yet, seed by seed, then its tables."""
    settings = settings_of(name, sizes)
    one, answers = task(name, sizes, home / f"{name}-{settings}", data)
    heard = hear(one.texts, one.classes, answers, name)
    finished = Finished(home / name / "curves.jsonl", settings)
    known = finished.read()
    for seed in range(sizes.seeds):
        for strategy in STRATEGIES:
            if (strategy, seed) in known:
                continue
            started = time.monotonic()
            found = curve(one, heard.said_N, strategy, seed, sizes, STUDENT).to_json()
            finished.append(strategy, seed, found)
            known[strategy, seed] = found
            print(
                f"{name} {strategy} seed {seed}: {found['accuracy'][-1]:.4f}, {time.monotonic() - started:.1f} s",
                flush=True,
            )
    curves = {strategy: [Curve(**known[strategy, seed]) for seed in range(sizes.seeds)] for strategy in STRATEGIES}
    return tables.of_task(one, heard, curves, sizes)


def run_cascade(name: str, sizes: Sizes, home: Path, data: Path) -> Row:
    """All streams that are not run yet, then their tables."""
    settings = settings_of(name, sizes)
    finished = Finished(home / name / "streams.jsonl", settings)
    return run_streams(sizes, home / f"{name}-{settings}", finished.read(), finished.append)


def run_of_prompts(name: str, sizes: Sizes, home: Path, data: Path) -> Row:
    """All students of chosen prompts that are not trained yet, then their table."""
    from benchmarks.socratic_prompts import run_prompts

    finished = Finished(home / name / "students.jsonl", settings_of(name, sizes))
    return run_prompts(sizes.prompts, home / name, data, finished.read(), finished.append)


def run(name: str, sizes: Sizes, home: Path, data: Path) -> Row:
    """One experiment to its end, or on from where it was."""
    special: dict[str, Callable[[str, Sizes, Path, Path], Row]] = {CASCADE: run_cascade, PROMPTS: run_of_prompts}
    work = special.get(name, run_task)
    return work(name, sizes, home, data)


def write_results(preset: str, rows: Rows, folder: Path) -> list[dict[str, Any]]:
    """The two files from every finished experiment of a preset."""
    from benchmarks.machine import machine, versions

    sizes = PRESETS[preset]
    found = {
        name: row
        for name in EXPERIMENTS
        if (row := rows.find(name, f"{settings_of(name, sizes)}-{_count(name, sizes)}"))
    }
    bars, parts = tables.whole(found, TASKS, sizes)
    listed = bars_of(read_bars(BENCH), bars, tables.REASONS.get(preset, {}))
    line = f"make bench-socratic ARGS='--preset {preset}'"
    there = {*found, *found_before(folder / f"{BENCH}.json", line)}
    left = [name for name in EXPERIMENTS if name not in there]
    origins = origins_of(found)
    of_tasks = [one for name in TASKS for one in origins.get(f"{name}-saved", ())]
    origins |= dict.fromkeys(("socratic-saved", "saved", "explored"), of_tasks)
    words = tables.WORDS + (f" Not finished at this preset: {', '.join(left)}." if left else "")
    title = "Asking what the student does not know"
    write(BENCH, title, words, line, listed, parts, machine(), versions(), folder, origins)
    return listed


def _count(name: str, sizes: Sizes) -> int:
    return {CASCADE: sizes.streams, PROMPTS: sizes.prompts.seeds}.get(name, sizes.seeds)


def main() -> None:
    """Run what is asked for and not finished yet; write results after each."""
    asked = command.parser(__doc__, EXPERIMENTS, PRESETS, "full").parse_args()
    if asked.list:
        print(command.listed(EXPERIMENTS))
        return
    import torch

    torch.set_num_threads(1)
    sizes, home = PRESETS[asked.preset], HOME / asked.preset
    folder = home / "results" if asked.preset == "smoke" else RESULTS
    rows = Rows(folder / f"{BENCH}.rows.jsonl")
    wanted = command.wanted(asked, EXPERIMENTS)
    cure = "Set it, or leave that task out with --only"
    data = Path()
    for name in (name for name in wanted if name in READS):
        data = command.data_folder(READS[name], READS[name], cure)
    command.run_each(
        {name: EXPERIMENTS[name] for name in wanted},
        asked.again,
        rows,
        lambda name: f"{settings_of(name, sizes)}-{_count(name, sizes)}",
        lambda name: run(name, sizes, home, data),
        lambda: write_results(asked.preset, rows, folder),
    )
    print(command.last_word(write_results(asked.preset, rows, folder)))


if __name__ == "__main__":
    main()
