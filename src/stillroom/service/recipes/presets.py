"""Students that a job names in a word: what they are in a recipe, and how they are trained. A base that the operator put
below the root, or that a Python package brings, is named the same way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillroom.errors import did_you_mean
from stillroom.service.door.faults import ApiError
from stillroom.service.jobs.asked import Distillation, Hyperparameters
from stillroom.service.settings import Settings
from stillroom.service.students.model_rows import BASES, CLASSIFIER, WRITER, refuse_code, writes_here
from stillroom.service.students.model_rows import presets as names_of

Task = Literal["classification", "causal"]
PACKAGE = re.compile(r"package:[A-Za-z_]\w*/[\w.-]+(/[\w.-]+)*")
BASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LETTERS = 512
"""What tiny-language looks at: bytes of text."""
TINY = {
    "model_type": "llama", "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": LETTERS,
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """A student and its training, as a recipe has them; `task` None: whichever the rows are for."""

    student: dict[str, Any]
    training: dict[str, Any]
    task: Task | None
    seeds: int
    window: int | None = None
    """Bytes a conversation may have; None: the model's own tokenizer decides."""


OF_WORDS = Preset(
    {"kind": "fresh", "model": {"kind": "mlp", "hidden": [64], "dropout": 0.3}},
    {"epochs": 60, "batch_size": 64, "learning_rate": 2e-3}, "classification", 3,
)  # fmt: skip
OF_LETTERS = Preset(
    {"kind": "fresh", "model": {"kind": "transformers", "task": "causal", "tokenizer": "characters", "config": TINY}},
    {"epochs": 8, "batch_size": 16, "learning_rate": 2e-3, "clip": 1.0}, "causal", 1, LETTERS,
)  # fmt: skip
PRESETS = {CLASSIFIER: OF_WORDS, WRITER: OF_LETTERS}
LARGE = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-4, "clip": 1.0, "schedule": "cosine"}
"""How weights are trained that know something already."""


def preset_of(settings: Settings, model: str, wanted: Distillation | None) -> Preset:
    """The student that a job names. Raises ApiError 400 for what is none."""
    student = wanted.student if wanted is not None else None
    if isinstance(student, dict):
        kind = student.get("model", {}) if isinstance(student.get("model"), dict) else {}
        fresh = student.get("kind") == "fresh" and kind.get("kind") != "transformers"
        task: Task | None = "classification" if fresh else kind.get("task") or student.get("task")
        return Preset(student, OF_WORDS.training if fresh else LARGE, task, 1)
    name, param = (model, "model") if student is None else (student, "distillation.student")
    reference = None if name in PRESETS else base_reference(settings, name, param)
    if name != CLASSIFIER and not writes_here():
        told = f"{name[:200]} is a language model, which needs the Python package transformers, and that is not installed here."
        cure = "Install it: pip install 'stillroom[language]', or make install EXTRAS=language; then start the service anew."
        raise ApiError(400, f"{told} {cure}", param=param, code="not_installed")
    return PRESETS[name] if reference is None else Preset({"kind": "lora", "from": reference}, LARGE, None, 1)


def base_reference(settings: Settings, name: str, param: str) -> str:
    """A base as a recipe names it: in a package, or a folder that is linked into the job's data. Raises ApiError 400."""
    if PACKAGE.fullmatch(name) and ".." not in name:
        return name
    folder = base_folder(settings, name)
    if folder is None:
        known = did_you_mean(name, names_of(settings))
        raise ApiError(400, f"There is no model '{name[:200]}' to begin from. {known}", param=param,
                       code="model_not_found")  # fmt: skip
    refuse_code(folder)
    return name


def base_folder(settings: Settings, name: str) -> Path | None:
    """Where a registered base stands; None for what is none."""
    if not BASE.fullmatch(name):
        return None
    folder = settings.root / BASES / name
    return folder if folder.is_dir() else None


def trained(preset: Preset, knobs: Hyperparameters) -> dict[str, Any]:
    """The training section, with what the client said of it."""
    found = dict(preset.training)
    if knobs.n_epochs != "auto":
        found["epochs"] = knobs.n_epochs
    if knobs.batch_size != "auto":
        found["batch_size"] = knobs.batch_size
    if knobs.learning_rate_multiplier != "auto":
        found["learning_rate"] = float(found.get("learning_rate", 1e-3)) * knobs.learning_rate_multiplier
    return found
