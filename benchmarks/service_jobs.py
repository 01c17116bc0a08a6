"""The smallest jobs there are, as clients ask for them, and the bytes of what they make."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MOODS = {"sun": "glad", "rain": "sad", "fog": "calm"}
WORDS = ("today", "again", "at home", "in town", "by the sea", "on monday", "all night", "for once", "as ever", "alone")


def digits(**sections: Any) -> dict[str, Any]:
    """A recipe of a second of work: eight-unit networks on the digits that ship with scikit-learn, one pass, one seed."""
    model = {"kind": "mlp", "hidden": [8]}
    return {
        "seeds": 1, "questions": {"kind": "dataset", "source": "builtin:digits"},
        "teacher": {"kind": "trained", "model": model, "epochs": 1},
        "student": {"kind": "fresh", "model": model}, "objectives": [{"kind": "hard_label", "from": "teacher"}],
        "training": {"epochs": 1}, "evaluation": {"metrics": ["accuracy", "agreement"]}, **sections,
    }  # fmt: skip


def body(recipe: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The body of a job by a recipe; `more`: other fields of it."""
    wanted = {"recipe": recipe or digits(), **more.pop("distillation", {})}
    return {"model": "digits", "training_file": "none", "distillation": wanted, **more}


def moods(rows: int, answered: bool = True) -> bytes:
    """A file of chat rows: what the weather says, and the mood it makes."""
    kinds, lines = sorted(MOODS), []
    for row in range(rows):
        kind = kinds[row % len(kinds)]
        messages = [{"role": "user", "content": f"{kind} {WORDS[row // 3 % 10]} {WORDS[row // 30 % 10]} {row}"}]
        messages += [{"role": "assistant", "content": MOODS[kind]}] * answered
        lines.append(json.dumps({"messages": messages}))
    return ("\n".join(lines) + "\n").encode()


def made(root: Path, job_id: str) -> dict[str, str]:
    """The sha256 of every weights file and every answer of a job's run, by its place."""
    run = root / "jobs" / job_id / "run"
    files = [*run.rglob("model.safetensors"), *run.rglob("*.f16"), *run.rglob("*.f32")]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
