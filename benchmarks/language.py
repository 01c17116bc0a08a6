"""`make bench-language`: what it costs to keep a language model's soft targets, how close they are, what they teach.

    python benchmarks/language.py [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

Reads wikitext2/, sst2/, tinyshakespeare/ and gsm8k/ from $STILLROOM_DATA. With $STILLROOM_LIGER, the folder of
`pip install --no-deps --target FOLDER liger-kernel`, Liger's loss is timed too. Work is kept in runs/bench-language/PRESET/;
each finished block is written down at once. `--again` runs a finished block once more, and its last run counts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command
from benchmarks.language_sizes import PRESETS, NotMade, Sizes
from benchmarks.results import RESULTS, Found, Row, Rows, Table, bars_of, fingerprint, read_bars, write

BENCH = "language"
HOME = Path(__file__).resolve().parent.parent / "runs" / "bench-language"
DEFAULT = "full"
TITLE = "Language models"
PACKAGES = ("transformers", "tokenizers", "onnxruntime")
WORDS = (
    "Ratios of times are of blocks that take turns in one process on one thread, by the processor time of that process: the "
    "median over the rounds of the ratio within a round, with the order statistics that hold the true median with 95 %. "
    "Where this processor only emulates bfloat16 the default dtype is float32, and float32 is what is timed, on both sides "
    "of a ratio. A block of timings may be run again when the machine is quieter; its last run counts. "
)
PRESET_WORDS = {
    "smoke": "Preset smoke: everything runs, nothing is measured.",
    "time": "Preset time: fewer kills, seeds and training steps than bars.tsv asks for; the column n says how many.",
    "full": "",
}


@dataclass(frozen=True)
class Block:
    """A part of the bench that is run, and found again, by itself."""

    words: str
    run: str
    """`module.function`, called with sizes, the preset's folder and the data's folder where it takes them."""
    depends: tuple[str, ...]
    """The sizes that its figures depend on."""
    timed: bool = False
    """Its figures belong to one machine."""
    takes: tuple[str, ...] = ()
    bars: tuple[str, ...] = ()
    """Named where the block may have nothing to read yet, or takes hours."""


HOURS = "it was left out or is not finished here, for it takes long on one core"
FIDELITY = (
    "teacher",
    "calibration_windows",
    "calibration_positions",
    "test_windows",
    "far_positions",
    "records",
    "test_positions",
    "table_positions",
)
BLOCKS = {
    "steps": Block("training steps in turns", "language_steps.steps", ("shape", "rounds"), True),
    "memory": Block("memory of a step", "language_memory.memory", ("shape", "wide", "runs", "wide_runs", "memory_kinds")),
    "gradient": Block("gradients against float64", "language_gradient.gradient", ("shape", "draws")),
    "fidelity": Block("fidelity per byte", "language_fidelity.measure", FIDELITY, takes=("base", "data")),
    "asking": Block(
        "asking beside a bare forward pass", "language_asking.asking", ("teacher", "asking_windows", "asking_rounds"),
        True, ("base", "data"),
    ),
    "kill": Block("killed and run again", "language_kill.kill", ("random_kills", "commit_kills"), takes=("base",)),
    "quality": Block(
        "what each format teaches", "language_quality.quality",
        ("teacher", "calibration_windows", "calibration_positions", "test_windows", "quality_seeds", "quality_steps",
         "quality_rows", "quality_arms"), takes=("base", "data"), bars=("lm-stored-quality",),
    ),
    "language": Block("recipes/language.yaml", "language_runs.language", ("language_overrides",), takes=("base", "data"),
        bars=("lm-control-gain",),
    ),
    "distilbert": Block(
        "recipes/distilbert_sst2.yaml", "language_runs.distilbert", ("sst2_overrides",), takes=("base", "data"),
        bars=("distil-keeps", "distil-keeps-bound", "distil-beats-control", "distil-smaller", "distil-faster"),
    ),
    "ablations": Block(
        "recipes/distilbert_sst2.yaml without its parts", "language_runs.ablations", ("sst2_overrides", "ablations"),
        takes=("base",),
    ),
    "tiny": Block("recipes/tiny_sst2.yaml", "language_runs.tiny", ("sst2_overrides",), takes=("base", "data"),
        bars=("tiny-keeps",),
    ),
}  # fmt: skip


def settings_of(name: str, sizes: Sizes) -> str:
    """The fingerprint of all that a block's figures depend on."""
    from benchmarks.machine import machine

    block = BLOCKS[name]
    parts = [str(getattr(sizes, one)) for one in block.depends]
    return fingerprint([name, *parts, machine() if block.timed else None])


def run(name: str, sizes: Sizes, base: Path, data: Path) -> Row:
    """Run a block to its end."""
    block = BLOCKS[name]
    module, _, function = block.run.partition(".")
    call: Callable[..., Row] = getattr(import_module(f"benchmarks.{module}"), function)
    given = {"base": base, "data": data}
    return call(sizes, *(given[one] for one in block.takes))


def versions() -> dict[str, str]:
    """The usual ones, and those that language models are made with."""
    from benchmarks.machine import versions as usual

    found = usual()
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_results(preset: str, rows: Rows, folder: Path) -> list[dict[str, Any]]:
    """The two files from every finished block of a preset."""
    from benchmarks.machine import machine

    bars: dict[str, Found] = {}
    tables: dict[str, Table] = {}
    reasons, left = {}, []
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
    line = f"make bench-language ARGS='--preset {preset}'"
    write(BENCH, TITLE, words.strip(), line, listed, tables, machine(), versions(), folder)
    return listed


def _data_folder() -> Path:
    given = os.environ.get("STILLROOM_DATA", "")
    if not given or not (Path(given) / "wikitext2" / "test.txt").is_file():
        told = "it is not set" if not given else "there is no wikitext2/test.txt in it"
        sys.exit(
            f"error: the benchmark reads texts from the folder that $STILLROOM_DATA names, and {told}. Set STILLROOM_DATA "
            "to a folder with wikitext2/, sst2/, tinyshakespeare/ and gsm8k/."
        )
    return Path(given)


def _made(name: str, sizes: Sizes, base: Path) -> Row:
    """A block's figures, or why there are none."""
    try:
        return run(name, sizes, base, _data_folder())
    except NotMade as error:
        return Row({bar: Found(None, why=f"not run: {error}") for bar in BLOCKS[name].bars})


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
        {name: words[name] for name in command.wanted(asked, BLOCKS)},
        asked.again,
        rows,
        lambda name: settings_of(name, sizes),
        lambda name: _made(name, sizes, base),
        lambda: write_results(asked.preset, rows, folder),
        is_finished=command.complete,
    )
    print(command.last_word(write_results(asked.preset, rows, folder)))


if __name__ == "__main__":
    main()
