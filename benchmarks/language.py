"""`make bench-language`: what it costs to keep a language model's soft targets, how close they are, what they teach.

    python benchmarks/language.py [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

Reads wikitext2/, sst2/, tinyshakespeare/ and gsm8k/ from $STILLROOM_DATA. With $STILLROOM_LIGER, the folder of
`pip install --no-deps --target FOLDER liger-kernel`, Liger's loss is timed too. Work is kept in runs/bench-language/PRESET/;
each finished block is written down at once. `--again` runs a finished block once more, and its last run counts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command
from benchmarks.blocks import Bench, Block
from benchmarks.language_sizes import PRESETS

WORDS = (
    "Ratios of times are of blocks that take turns in one process on one thread, by the processor time of that process: the "
    "median over the rounds of the ratio within a round, with the order statistics that hold the true median with 95 %. "
    "Steps are timed in float32 and in the default dtype, and a bar is held to the worse; where this processor is slower in "
    "bfloat16 the default is float32 too. A block of timings may be run again when the machine is quieter; its last run counts. "
)
PRESET_WORDS = {
    "smoke": "Preset smoke: everything runs, nothing is measured.",
    "time": "Preset time: fewer kills, seeds and training steps than bars.tsv asks for; the column n says how many.",
    "full": "",
}


def data_folder() -> Path:
    """What $STILLROOM_DATA names. Ends the program where the texts are not in it."""
    cure = "Set STILLROOM_DATA to a folder with wikitext2/, sst2/, tinyshakespeare/ and gsm8k/"
    return command.data_folder("wikitext2/test.txt", "texts", cure)


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
    "steps": Block("training steps in turns", "language_steps.steps", ("shape", "rounds"), True, ()),
    "memory": Block(
        "memory of a step", "language_memory.memory", ("shape", "wide", "runs", "wide_runs", "memory_kinds"), takes=(),
    ),
    "gradient": Block("gradients against float64", "language_gradient.gradient", ("shape", "draws"), takes=()),
    "fidelity": Block("fidelity per byte", "language_fidelity.measure", FIDELITY, takes=("base", "data")),
    "asking": Block(
        "asking beside a bare forward pass", "language_asking.asking", ("teacher", "asking_windows", "asking_rounds"),
        True, ("base", "data"),
    ),
    "kill": Block("killed and run again", "language_kill.kill", ("random_kills", "commit_kills")),
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
        wanted=lambda sizes: sizes.ablations,
    ),
    "tiny": Block("recipes/tiny_sst2.yaml", "language_runs.tiny", ("sst2_overrides",), takes=("base", "data"),
        bars=("tiny-keeps",),
    ),
}  # fmt: skip
BENCH = Bench(
    "language", "Language models", WORDS, PRESET_WORDS, BLOCKS, PRESETS,
    libraries=("transformers", "tokenizers", "onnxruntime"), data=data_folder, left_out=HOURS,
)  # fmt: skip


if __name__ == "__main__":
    BENCH.main(__doc__)
