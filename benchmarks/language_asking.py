"""What asking and keeping costs beside the teacher's bare forward pass, logits and all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.language_fidelity import DEFAULT
from benchmarks.language_fidelity import _drawn as drawn
from benchmarks.language_sizes import Sizes
from benchmarks.language_states import Teacher
from benchmarks.results import Found, Row, Table
from benchmarks.timing import paired_ratio, rounds
from stillroom.rows import PADDING, Questions
from stillroom.teachers.language import FORWARD_TOKENS
from stillroom.transfer_set.ask import ask
from stillroom.transfer_set.basis import fit_basis
from stillroom.transfer_set.recording import Recorder
from stillroom.transfer_set.sparse_logits import Layout
from stillroom.transfer_set.store import Store


def asking(sizes: Sizes, base: Path, data: Path) -> Row:
    """Tokens a second of both, in turns."""
    teacher = Teacher(sizes, base, data)
    states = teacher.train()
    fitted = fit_basis(drawn(states, sizes.calibration_positions), *teacher.head, tail_bytes=DEFAULT[1])
    rows = slice(0, sizes.asking_windows)
    questions = Questions.of({"ids": states.ids_NT[rows], "target": states.target_NT[rows]})
    layout = Layout.of(len(teacher.head.weight_VH), *DEFAULT[:1], "hidden", DEFAULT[1])
    recorder = Recorder(teacher.asked, layout, fitted, with_hidden=False)
    bare = teacher.asked.model.network.model

    def forward() -> None:
        ids_NT = torch.from_numpy(np.where(questions.raw["ids"] == PADDING, 0, questions.raw["ids"])).long()  # type: ignore[call-overload,index]
        with torch.inference_mode():
            for ids_BT in ids_NT.split(max(1, FORWARD_TOKENS // ids_NT.shape[1])):
                bare(input_ids=ids_BT, use_cache=False)

    def keep() -> None:
        with tempfile.TemporaryDirectory(prefix="stillroom-asking-") as folder:
            ask(
                Store(Path(folder)), recorder, questions, kind="transformers", licences={}, views=(0,),
                seen=lambda rows, view: rows, layout=recorder.written, shard_rows=recorder.shard_rows,
            )  # fmt: skip

    seconds = rounds({"bare": forward, "asking": keep}, sizes.asking_rounds)
    tokens = int((states.ids_NT[rows] != PADDING).sum())
    words = {"bare": "bare forward pass, all logits", "asking": "asking, packing and storing"}
    table = Table(
        "Asking SmolLM2-135M once",
        ["", "tokens/s", "s"],
        [[words[name], round(tokens / median(times), 1), round(median(times), 3)] for name, times in seconds.items()],
        f"{tokens:,} tokens in windows of {states.ids_NT.shape[1]}, batches of {FORWARD_TOKENS:,} tokens, float32.",
    )
    found = Found(*paired_ratio(seconds["bare"], seconds["asking"]), f"{sizes.asking_rounds} rounds")
    return Row({"lm-asking": found}, {"asking": table})
