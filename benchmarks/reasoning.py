"""`make bench-reasoning`: what students learn from how a teacher reasons, beside what they learn from its answers.

    python benchmarks/reasoning.py [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

The teacher is a transformer that the bench trains on gold scratchpads, served as an API on this machine; students see what
it writes and nothing else. GSM8K's golds, for the verifiers, are read from $STILLROOM_DATA where it is set. Work is kept in
runs/bench-reasoning/PRESET/; each finished block is written down at once. `--again` runs a finished block once more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command
from benchmarks.reasoning_sizes import PRESETS, Sizes
from benchmarks.results import RESULTS, Found, Row, Rows, Table, bars_of, fingerprint, read_bars, write

BENCH = "reasoning"
HOME = Path(__file__).resolve().parent.parent / "runs" / "bench-reasoning"
DEFAULT = "full"
TITLE = "Learning from how a teacher reasons"
WORDS = (
    "Toy scale, a test of the mechanism and of no benchmark of reasoning: students of about a hundred thousand weights, from "
    "scratch. The teacher is a transformer trained in the run on gold scratchpads; it is sampled at temperature 1 through an "
    "OpenAI-shaped API on this machine, and students learn from those samples alone. Answers are checked exactly. Intervals "
    "are a paired bootstrap over seeds and test questions; what traces are held against is the best of three models that "
    "hear answers alone, two of which read as many tokens. "
)
PRESET_WORDS = {
    "smoke": "Preset smoke: everything runs, nothing is measured.",
    "time": "Preset time: fewer seeds than bars.tsv asks for, and some of what is shown beside the bars left out; the column "
    "n says how many seeds.",
    "full": "",
}
HOURS = "it was left out or is not finished here"


@dataclass(frozen=True)
class Block:
    """A part of the bench that is run, and found again, by itself."""

    words: str
    run: str
    """`module.function`, called with the sizes and the preset's folder."""
    depends: tuple[str, ...]
    """The sizes that its figures depend on."""
    bars: tuple[str, ...] = ()
    wanted: Callable[[Sizes], bool] = lambda sizes: True
    """Whether a preset runs it."""


TEACHER = ("task", "teacher", "teacher_steps", "teacher_rate")
STUDENT = ("student", "batch", "rate", "test", "longer")
BLOCKS = {
    "verifiers": Block(
        "wrong answers that verifiers accept", "reasoning.verifiers", ("golds", "made", "every"), ("verifier-false-accepts",)
    ),
    "primary": Block(
        "traces, answers, filler, unverified traces", "reasoning_runs.primary",
        (*TEACHER, *STUDENT, "questions", "epochs", "seeds"),
        ("reason-gain", "reason-gain-mean", "reason-content", "reason-keeps", "reason-verified"),
    ),
    "second": Block(
        "another task", "reasoning_runs.second",
        ("second", "teacher", "teacher_steps", "teacher_rate", *STUDENT, "questions", "epochs", "second_seeds"),
    ),
    "extras": Block(
        "how many samples, how long, in which order", "reasoning_runs.extras",
        (*TEACHER, *STUDENT, "extra_questions", "extra_epochs", "extra_seeds", "extra_arms"),
    ),
    "shown": Block(
        "products of three and two digits", "reasoning_shown.illustration",
        ("shown", "shown_student", "shown_questions", "shown_epochs", "batch", "test"),
        wanted=lambda sizes: sizes.shown is not None,
    ),
    "words": Block(
        "word problems for SmolLM2", "reasoning_shown.words", ("words", "words_test"), wanted=lambda sizes: sizes.words > 0
    ),
}  # fmt: skip


def verifiers(sizes: Sizes, base: Path) -> Row:
    """The bar of the verifiers; GSM8K's golds are part of it where they are there."""
    from benchmarks.reasoning_verifiers import measure

    given = os.environ.get("STILLROOM_DATA")
    data = Path(given) if given and (Path(given) / "gsm8k" / "test.jsonl").is_file() else None
    return measure(data, sizes.golds, sizes.made, sizes.every)


def settings_of(name: str, sizes: Sizes) -> str:
    """The fingerprint of all that a block's figures depend on."""
    return fingerprint([name, *(str(getattr(sizes, one)) for one in BLOCKS[name].depends)])


def run(name: str, sizes: Sizes, base: Path) -> Row:
    """Run a block to its end."""
    module, _, function = BLOCKS[name].run.partition(".")
    call: Callable[..., Row] = getattr(import_module(f"benchmarks.{module}"), function)
    return call(sizes, base)


def versions() -> dict[str, str]:
    """The usual ones, and those that the figures depend on here."""
    from benchmarks.machine import versions as usual

    return {**usual(), **{name: version(name) for name in ("transformers", "tokenizers", "openai", "math-verify")}}


def write_results(preset: str, rows: Rows, folder: Path) -> list[dict[str, Any]]:
    """The two files from every finished block of a preset."""
    from benchmarks.machine import machine

    bars: dict[str, Found] = {}
    tables: dict[str, Table] = {}
    reasons: dict[str, str] = {}
    left: list[str] = []
    for name, block in BLOCKS.items():
        row = rows.find(name, settings_of(name, PRESETS[preset]))
        if row is None:
            left.append(f"{name} ({block.words})")
            reasons |= {bar: f"not run at this preset (`--only {name}` does): {HOURS}" for bar in block.bars}
            continue
        bars |= row.bars
        tables |= row.tables
    listed = bars_of(read_bars(BENCH), bars, reasons)
    words = WORDS + PRESET_WORDS[preset] + (f" Not finished at this preset: {', '.join(left)}." if left else "")
    line = f"make bench-reasoning ARGS='--preset {preset}'"
    write(BENCH, TITLE, words.strip(), line, listed, tables, machine(), versions(), folder)
    return listed


def main() -> None:
    """Run what is asked for and not finished yet; write results after each block."""
    words = {name: block.words for name, block in BLOCKS.items()}
    asked = command.parser(__doc__, BLOCKS, PRESETS, DEFAULT).parse_args()
    if asked.list:
        print(command.listed(words))
        return
    import torch

    torch.set_num_threads(1)
    sizes, base = PRESETS[asked.preset], HOME / asked.preset
    folder = base / "results" if asked.preset == "smoke" else RESULTS
    rows = Rows(folder / f"{BENCH}.rows.jsonl")
    command.run_each(
        {name: words[name] for name in command.wanted(asked, BLOCKS) if BLOCKS[name].wanted(sizes)},
        asked.again,
        rows,
        lambda name: settings_of(name, sizes),
        lambda name: run(name, sizes, base),
        lambda: write_results(asked.preset, rows, folder),
    )
    print(command.last_word(write_results(asked.preset, rows, folder)))


if __name__ == "__main__":
    main()
