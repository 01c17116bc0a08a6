"""The page about run folders names all that runs write: of a trained teacher, and of one that is paid, in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from run_folder import unnamed
from stillroom import distill
from stillroom.loopback.serving import Loopback
from stillroom.rundir import write_json

MLP = {"kind": "mlp", "hidden": [8]}
COMMON = {
    "seeds": 2,
    "student": {"kind": "fresh", "model": MLP},
    "training": {"epochs": 2, "batch_size": 32},
    "evaluation": {"metrics": ["accuracy", "agreement", "size", "cost"]},
    "budget": {"minutes": 30},
}


def test_a_run_of_classifiers_writes_what_the_page_names(tmp_path: Path) -> None:
    trained = {"kind": "trained", "model": MLP, "epochs": 1}
    tree = {
        **COMMON,
        "name": "whole",
        "questions": {"kind": "dataset", "source": "builtin:digits", "rows": 100, "omit": 3},
        "teacher": {"kind": "ensemble", "size": 2, "member": trained},
        "objectives": [{"kind": "soft_target", "temperature": "auto"}],
        "arms": {"other": {"teacher": trained}},
    }
    tree["evaluation"] = {**COMMON["evaluation"], "independent_teacher": trained}  # type: ignore[dict-item]
    distill(tree, tmp_path / "run")
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written >= {"tuning", "arms", "seeds", "independent", "hard_teacher", "spent.json"}
    assert not unnamed(tmp_path / "run")


def test_a_run_in_rounds_writes_what_the_page_names(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    mind = {"kind": "rule", "source": "builtin:intents", "question": "Text: (.*)", "error_rate": 0.0}
    with Loopback({"mind": mind}) as url:
        knobs = {"kind": "openai_api", "base_url": url, "model": "loopback", "prompt": "Text: {text}"}
        tree: dict[str, Any] = {
            **COMMON,
            "name": "rounds",
            "questions": {"kind": "dataset", "source": "builtin:intents", "split": {"validation": 30, "test": 30}},
            "teacher": {**knobs, "price": {"input": 1, "output": 1}},
            "objectives": [{"kind": "hard_label", "from": "teacher"}],
            "rounds": {"strategy": "margin", "start": 27, "budgets": [60]},
            "cascade": {"risk": 0.3},
        }
        distill(tree, tmp_path / "run")
    assert (tmp_path / "run" / "student" / "cascade.json").is_file()
    assert not unnamed(tmp_path / "run")


def test_what_the_page_does_not_name_is_found(tmp_path: Path) -> None:
    for name in ("asking.json", "transfer_set/more.json", "transfer_set/0123456789abcdef", "student/config.json"):
        write_json(tmp_path / name, {})
    write_json(tmp_path / "student" / "odd.json", {})
    write_json(tmp_path / "scorecard.json", {"schema": 1, "luck": 2})
    found = ["asking.json", "more.json", "odd.json", "scorecard.json: luck"]
    assert [one.split("/")[-1] for one in unnamed(tmp_path)] == found
