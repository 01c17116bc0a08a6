"""A language model's kept answers for other programs: what is exported is what was kept, and whose it is goes with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

import stillroom
from command_line import done
from command_line import stillroom as said
from stillroom.models import pretrained
from stillroom.rundir import read_json
from stillroom.transfer_set.store import Kept, open_kept
from tiny_language import causal, write_model

COLUMNS = [
    "key", "split", "view", "place", "token", "head_ids", "head_log_p", "tail_mass", "entropy", "forced_log_p",
]  # fmt: skip
PROJECTION = "basis.safetensors beside kept answers is a projection of the teacher's weights"


def kept_of(run: Path) -> Kept:
    return open_kept(run / "transfer_set" / read_json(run / "transfer_set" / "asked.json")["answers"])


def asked(home: Path, **sections: Any) -> Path:
    """A run whose teacher was asked."""
    teacher = {"kind": "transformers", "model": str(home / "llama"), "task": "causal", "licence": "Apache-2.0"}
    return stillroom.distill(causal(home, teacher=teacher, **sections), home / "run", until="ask").path


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_every_position_goes_out_with_what_the_teacher_said(form: str, tmp_path: Path) -> None:
    run, out = asked(tmp_path), tmp_path / f"answers.{form}"
    told = done("export-answers", run, f"--{form}", "--out", out)
    rows: list[dict[str, Any]] = (
        parquet.read_table(out).to_pylist()
        if form == "parquet"
        else list(map(json.loads, out.read_text().splitlines()))
    )
    kept = kept_of(run)
    assert len(rows) == kept.positions > 100
    assert f"wrote {len(rows):,} answers" in told.err
    assert all(list(row) == COLUMNS for row in rows)
    assert {(row["split"], row["view"]) for row in rows} == {("train", 0)}
    assert len({(row["key"], row["place"]) for row in rows}) == len(rows)
    # The teacher itself, read by the library alone, says the same of a whole window.
    key = rows[-1]["key"]
    window = sorted((row for row in rows if row["key"] == key), key=lambda row: row["place"])
    assert [row["place"] for row in window] == list(range(len(window)))
    text = [row["token"] for row in window]
    first = _first_token(tmp_path, text, window)
    with pretrained.quiet(), torch.inference_mode():
        model, _ = pretrained.load(tmp_path / "llama", "causal")
        log_p_TV = model(input_ids=torch.tensor([[first, *text[:-1]]])).logits[0].log_softmax(1)
    for row, log_p_V in zip(window, log_p_TV, strict=True):
        top_K, ids_K = log_p_V.topk(len(row["head_ids"]))
        assert row["head_ids"] == ids_K.tolist()
        np.testing.assert_allclose(row["head_log_p"], top_K, rtol=0.02, atol=0.05)
        assert row["tail_mass"] == pytest.approx(1 - float(top_K.exp().sum()), rel=0.01, abs=1e-4)
        assert row["entropy"] == pytest.approx(float(torch.special.entr(log_p_V.exp()).sum()), rel=0.01, abs=1e-3)
        assert row["forced_log_p"] == pytest.approx(float(log_p_V[row["token"]]), rel=0.01, abs=1e-3)


def _first_token(home: Path, text: list[int], window: list[dict[str, Any]]) -> int:
    """The token that a window begins with is none to predict; it is the one under which the rest is as likely as was told."""
    with pretrained.quiet(), torch.inference_mode():
        model, tokenizer = pretrained.load(home / "llama", "causal")
        ids = torch.tensor([[first, *text[:3]] for first in range(len(tokenizer))])
        forced_VT = model(input_ids=ids).logits.log_softmax(2)[:, :3].gather(2, ids[:, 1:, None])[:, :, 0]
    told_T = torch.tensor([row["forced_log_p"] for row in window[:3]])
    return int((forced_VT - told_T).abs().sum(1).argmin())


def test_whose_answers_they_are_goes_with_them(tmp_path: Path) -> None:
    run, out = asked(tmp_path), tmp_path / "answers.parquet"
    told = done("export-answers", run, "--parquet", "--out", out)
    beside = tmp_path / "answers.parquet.NOTICE.txt"
    assert str(beside) in told.err
    for path, what in (
        (beside, "The answers in answers.parquet"),
        (kept_of(run).folder / "NOTICE.txt", "The answers in this folder"),
    ):
        text = path.read_text()
        assert f"{what} were given by {tmp_path / 'llama'} (causal)." in text
        assert "- teacher: Apache-2.0\n" in text
        assert PROJECTION in text
    # One that was named later is told as soon as it is known.
    teacher = {"kind": "transformers", "model": str(tmp_path / "llama"), "task": "causal", "licence": "MIT"}
    stillroom.distill(causal(tmp_path, teacher=teacher), tmp_path / "run", until="ask")
    assert "- teacher: MIT\n" in (kept_of(run).folder / "NOTICE.txt").read_text()


def test_a_bucket_has_no_basis_to_speak_of(tmp_path: Path) -> None:
    run, out = asked(tmp_path, transfer_set={"tail": "bucket"}), tmp_path / "answers.jsonl"
    done("export-answers", run, "--out", out)
    assert PROJECTION not in (tmp_path / "answers.jsonl.NOTICE.txt").read_text()
    assert not (kept_of(run).folder / "NOTICE.txt").exists()


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "llama", "llama", layers=2)
    run = asked(tmp_path, transfer_set={"tail": "bucket"})
    out = tmp_path / "answers.jsonl"
    assert (
        "a language model's probabilities are no chat messages (--openai)"
        in said("export-answers", run, "--openai", "--out", out).error
    )
    (tmp_path / "answers.jsonl.NOTICE.txt").write_text("of something else")
    assert "answers.jsonl.NOTICE.txt" in said("export-answers", run, "--out", out).error
    assert not out.exists()
    live = stillroom.distill(
        causal(tmp_path, name="live", transfer_set={"live": True}), tmp_path / "live", until="ask"
    ).path
    assert (
        "no answer of this run's teacher is kept position by position"
        in said("export-answers", live, "--out", out).error
    )
