"""`make bench-reasoning`: what students learn from how a teacher reasons, beside what they learn from its answers.

    python benchmarks/reasoning.py [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

The teacher is a transformer that the bench trains on gold scratchpads, served as an API on this machine; students see what
it writes and nothing else. GSM8K's golds, for the verifiers, are read from $STILLROOM_DATA where it is set. Work is kept in
runs/bench-reasoning/PRESET/; each finished block is written down at once. `--again` runs a finished block once more.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.blocks import Bench, Block
from benchmarks.reasoning_sizes import PRESETS, Sizes
from benchmarks.results import Row

WORDS = (
    "Toy scale, a test of the mechanism and of no benchmark of reasoning: students of about a hundred thousand weights, from "
    "scratch. The teacher is a transformer trained in the run on gold scratchpads; it is sampled at temperature 1 through an "
    "OpenAI-shaped API on this machine, and students learn from those samples alone. Answers are checked exactly. Intervals "
    "are a paired bootstrap over seeds and test questions; what traces are held against is the best of three models that "
    "hear answers alone, two of which read as many tokens. "
    "The illustrations, products of long numbers and word problems, stand apart: other students, of traces written by rule. "
)
PRESET_WORDS = {
    "smoke": "Preset smoke: everything but the word problems runs, nothing is measured.",
    "time": "Preset time: fewer seeds than bars.tsv asks for, and some of what is shown beside the bars left out; the column "
    "n says how many seeds.",
    "full": "",
}
TEACHER = ("task", "teacher", "teacher_steps", "teacher_rate")
STUDENT = ("student", "batch", "rate", "test", "longer")
BLOCKS = {
    "verifiers": Block(
        "wrong answers that verifiers accept", "reasoning.verifiers", ("golds", "made", "every"),
        bars=("verifier-false-accepts",),
    ),
    "primary": Block(
        "traces, answers, filler, unverified traces", "reasoning_runs.primary",
        (*TEACHER, *STUDENT, "questions", "epochs", "seeds"),
        bars=("reason-gain", "reason-gain-mean", "reason-content", "reason-keeps", "reason-verified"),
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
        ("shown", "shown_student", "shown_questions", "shown_epochs", "batch", "test"), edition=2,
        wanted=lambda sizes: sizes.shown is not None,
    ),
    "words": Block(
        "word problems for SmolLM2", "reasoning_shown.words", ("words", "words_test", "words_model"),
        wanted=lambda sizes: sizes.words > 0
    ),
}  # fmt: skip
BENCH = Bench(
    "reasoning", "Learning from how a teacher reasons", WORDS, PRESET_WORDS, BLOCKS, PRESETS,
    libraries=("transformers", "tokenizers", "openai", "math-verify"),
)  # fmt: skip


def verifiers(sizes: Sizes, base: Path) -> Row:
    """The bar of the verifiers; GSM8K's golds are part of it where they are there."""
    from benchmarks.reasoning_verifiers import measure

    given = os.environ.get("STILLROOM_DATA")
    data = Path(given) if given and (Path(given) / "gsm8k" / "test.jsonl").is_file() else None
    return measure(data, sizes.golds, sizes.made, sizes.every)


if __name__ == "__main__":
    BENCH.main(__doc__)
