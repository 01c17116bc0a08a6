"""Finished students for tests of serving: distilled here in seconds, and put into a service's database and folder."""

from __future__ import annotations

import atexit
import json
import shutil
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.service_process import Served
from sqlalchemy import insert

import stillroom
from stillroom.rundir import read_json
from stillroom.service.rows.ids import chance
from stillroom.service.rows.tables import models

FOLDER = TemporaryDirectory()
atexit.register(FOLDER.cleanup)
LABELS = ("refund", "delivery", "praise")
WORDS = {
    "refund": ("I want my money back for order {n}", "please refund order {n}", "refund me for parcel {n} now"),
    "delivery": ("where is parcel {n}", "order {n} has not arrived", "when does package {n} come"),
    "praise": ("order {n} is wonderful", "I love parcel {n}, thank you", "great service with package {n}"),
}


def texts(count: int = 240) -> list[tuple[str, str]]:
    """Texts with their labels."""
    return [
        (WORDS[label][n // len(LABELS) % 3].format(n=n), label)
        for n in range(count)
        for label in [LABELS[n % len(LABELS)]]
    ]


def _folder(name: str) -> Path:
    found = Path(FOLDER.name) / name
    found.mkdir()
    return found


@cache
def of_texts() -> Path:
    """The run of `distilled_texts`, made once for all tests."""
    return distilled_texts(_folder("texts"))


@cache
def of_digits() -> Path:
    """The student of `distilled_digits`, made once for all tests."""
    return distilled_digits(_folder("digits")) / "student"


@cache
def of_letters() -> Path:
    """The student of `written_letters`, made once for all tests."""
    return written_letters(_folder("letters"))


def write_table(path: Path) -> Path:
    """The texts as a table."""
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in texts()), "utf-8")
    return path


def distilled_texts(folder: Path) -> Path:
    """A student of texts with a threshold for its cascade; the run folder."""
    write_table(folder / "texts.jsonl")
    small = {"kind": "mlp", "hidden": [16]}
    stillroom.distill({
        "name": "texts", "seeds": 1, "cascade": {"risk": 0.2},
        "questions": {"kind": "dataset", "source": "texts.jsonl", "input": "text", "label": "label"},
        "teacher": {"kind": "trained", "model": small, "epochs": 15, "learning_rate": 1e-2},
        "student": {"kind": "fresh", "model": small}, "objectives": [{"kind": "soft_target", "temperature": 2}],
        "training": {"epochs": 15, "batch_size": 16, "learning_rate": 1e-2},
        "evaluation": {"metrics": ["accuracy", "agreement"]},
    }, folder / "run", folder=folder, until="evaluate")  # fmt: skip
    return folder / "run"


def distilled_digits(folder: Path) -> Path:
    """A student of images; the run folder."""
    small = {"kind": "mlp", "hidden": [32]}
    stillroom.distill({
        "name": "digits", "seeds": 1, "questions": {"kind": "dataset", "source": "builtin:digits"},
        "teacher": {"kind": "trained", "model": small, "epochs": 5}, "student": {"kind": "fresh", "model": small},
        "objectives": [{"kind": "soft_target", "temperature": 2}], "training": {"epochs": 5, "batch_size": 64},
        "evaluation": {"metrics": ["accuracy"]},
    }, folder / "run", folder=folder, until="train")  # fmt: skip
    return folder / "run"


def written_letters(folder: Path, width: int = 32, layers: int = 2, context: int = 256) -> Path:
    """A language student of letters that has learned nothing yet; its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from stillroom.models.characters import characters
    from stillroom.models.language import LanguageModel

    tokenizer = characters()
    config = LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=4,
        max_position_embeddings=context, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(3)
    LanguageModel(LlamaForCausalLM(config), tokenizer, "causal").save(folder)
    return folder


def put(service: Served, student: Path, kind: str, *, teacher: str | None = None, project: str | None = None,
        cascade: dict[str, Any] | None = None) -> str:  # fmt: skip
    """Copy a student's folder below a service's root and enter it; the model's id."""
    name = f"ft:small:default:{kind}:{chance(8)}"
    folder = f"models/{chance()}"
    shutil.copytree(student, service.root / folder)
    row = {
        "id": name, "project_id": project or service.first_project(), "job_id": None, "kind": kind, "base": "small",
        "folder": folder, "teacher": teacher, "cascade": cascade, "created_at": int(time.time()),
    }  # fmt: skip
    with service.rows.writing() as rows:
        rows.execute(insert(models).values(**row))
    return name


def threshold(run: Path) -> dict[str, Any]:
    """What a run left for its cascade."""
    found: dict[str, Any] = read_json(run / "student" / "cascade.json")
    return found
