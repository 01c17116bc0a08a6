"""The exam of language models from end to end, on small real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from language_double import double, loader, log_p, splits
from stillroom.errors import NotFinite
from stillroom.evaluation.cost import Spent
from stillroom.evaluation.language_exam import LanguageExam, sit_language
from stillroom.models.device import Device
from stillroom.recipe import Evaluation, Price
from stillroom.rundir import write_json

QUALITY = ("accuracy", "agreement", "size")


def exam(folder: Path, causal: bool = True, **given: Any) -> LanguageExam:
    """A teacher, and three roles that lie between it and a stranger: student nearest, seeds a little apart."""
    teacher, roles = double(1, causal=causal), {"student": 0.15, "control": 0.8, "hard_teacher": 0.4, "half": 0.3}
    models: dict[str, list[Path]] = {}
    for place, (role, away) in enumerate(roles.items()):
        for seed in range(2):
            model, stranger = double(1, causal=causal), double(100 + 10 * place + seed, causal=causal)
            with torch.no_grad():
                for own, other in zip(model.network.parameters(), stranger.network.parameters(), strict=True):
                    own.lerp_(other, away)
            home = model.save(folder / "models" / role / str(seed))
            curve = [{"step": 1, "epoch": 0.5, "loss": 2.0, "validation_loss": None}]
            write_json(home / "history.json", {"curve": curve, "gradient_norms": {"soft_target": [1.0]}})
            models.setdefault(role, []).append(home)
    rows = splits(causal=causal)
    bytes_N = (rows.test.raw["target"] >= 0).sum(1) * 3 if causal else None  # type: ignore[call-overload]
    known = {
        "knobs": Evaluation(metrics=QUALITY),
        "load": loader(causal=causal),
        "transfer_set": {"rows": len(rows.train), "fidelity": {"kl": 0.1}},
        "about": {"teacher": "double"},
    }
    return LanguageExam(
        "tiny", "causal" if causal else "masked", rows, models, teacher, [teacher.save(folder / "teacher")],
        device=Device(), spent=Spent(asking_s=1.0, training_s=2.0), bytes_N=bytes_N, **(known | given),
    )  # fmt: skip


def test_scorecard_and_details_are_what_a_report_reads(tmp_path: Path) -> None:
    sat = exam(tmp_path)
    told: list[int] = []
    scorecard, details = sit_language(replace(sat, done=told.append), tmp_path / "evaluation")
    json.dumps([scorecard, details], allow_nan=False)
    assert (scorecard["task"], scorecard["architecture"], scorecard["seeds"]) == ("language", "causal", [0, 1])
    test = sat.splits.test.raw
    assert isinstance(test, dict)
    scored = int((test["target"] >= 0).sum())
    assert scorecard["rows"]["test_scored"] == scorecard["rows"]["test_sampled"] == scored
    assert scorecard["rows"]["test_tokens"] == int((test["ids"] >= 0).sum())
    assert (scorecard["rows"]["documents"], scorecard["rows"]["drawn"]) == (9, "documents")
    assert sum(told) == sat.windows
    models = scorecard["models"]
    log_p_PV = log_p(loader()(sat.models["student"][1]).network, sat.splits.test, 20)
    nll = -log_p_PV[np.arange(scored), test["target"][test["target"] >= 0]].mean()
    assert models["student"]["nll"]["per_seed"][1] == pytest.approx(nll, abs=1e-5)
    assert models["student"]["bits_per_byte"]["per_seed"][1] == pytest.approx(nll / np.log(2) / 3, abs=1e-5)
    assert models["student"]["kl_to_teacher"]["mean"] < models["control"]["kl_to_teacher"]["mean"]
    assert models["teacher"]["parameters"] == sat.teacher.parameters
    assert models["half"]["size_bytes"] == (sat.models["half"][0] / "model.safetensors").stat().st_size
    assert "cost" not in scorecard
    assert set(details) == {
        "about", "curves", "gradient_norms", "examples", "nll_by_position", "validation_nll", "entropy", "samples", "fidelity",
    }  # fmt: skip
    assert set(details["curves"]["student"]) == {"0", "1"}
    assert details["gradient_norms"]["half"] == {"soft_target": [1.0]}
    assert {one["why"] for one in details["examples"]} >= {"teacher and control differ most"}
    assert all(len(one["context"].split()) >= 9 for one in details["examples"])
    for one in details["examples"]:
        assert list(one["models"]) == ["teacher", "student", "control", "hard_teacher"]
        assert all(len(top) == 5 and top[0][1] >= top[4][1] for top in one["models"].values())
    assert details["samples"] == []  # the windows are shorter than a prompt
    assert details["nll_by_position"]["teacher"][0][0] == 1
    assert sum(details["entropy"]["histogram"]["counts"]) == scored


def test_the_files_alone_give_the_same_scorecard(tmp_path: Path) -> None:
    sat = replace(exam(tmp_path), work=tmp_path / "work")
    first, _ = sit_language(sat, tmp_path / "evaluation")
    assert {path.name for path in (tmp_path / "work").iterdir()} == {
        path.name for path in (tmp_path / "evaluation" / "predictions").iterdir()
    }
    told: list[int] = []
    again, _ = sit_language(replace(sat, done=told.append), tmp_path / "again")
    assert again == first
    assert not told


def test_windows_long_enough_are_gone_on_with(tmp_path: Path) -> None:
    sat = exam(tmp_path)
    sat = replace(sat, splits=splits(length=40), bytes_N=None)
    _, details = sit_language(sat, tmp_path / "evaluation")
    assert len(details["samples"]) == 3
    for one in details["samples"]:
        assert len(one["prompt"].split()) == 32
        assert {name: len(text.split()) for name, text in one["models"].items()} == dict.fromkeys(one["models"], 32)


def test_masked_models_have_nats_and_no_bytes(tmp_path: Path) -> None:
    scorecard, details = sit_language(exam(tmp_path, causal=False), tmp_path / "evaluation")
    assert "bits_per_byte" not in scorecard["models"]["student"]
    assert "bits_per_byte" not in scorecard["differences"]["student-control"]
    assert "samples" not in details
    assert all("after" in one for one in details["examples"])
    assert "nll" in scorecard["gap_recovered"].get("absent", "nll")


def test_speed_and_cost_are_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.evaluation.language_exam.SPEED_SECONDS", 0.1)
    sat = exam(tmp_path, knobs=Evaluation(metrics=("speed", "cost"), price=Price(usd_per_hour=0.1)))
    scorecard, _ = sit_language(sat, tmp_path / "evaluation")
    student = scorecard["models"]["student"]
    assert {"latency_ms_p50", "tokens_per_s", "usd_per_million_tokens"} <= set(student)
    expected = 1e6 / student["tokens_per_s"]["mean"] * 0.1 / 3600
    assert student["usd_per_million_tokens"]["mean"] == pytest.approx(expected)
    assert {"agreement", "kl_to_teacher", "parameters", "size_bytes"}.isdisjoint(student)
    assert "saved_usd_per_million_tokens" in scorecard["cost"]
    assert "saved_usd_per_million_rows" not in scorecard["cost"]


def test_a_model_that_answers_nan_is_named(tmp_path: Path) -> None:
    sat = exam(tmp_path)
    broken = double(3)
    with torch.no_grad():
        broken.network.embed_VH.fill_(float("nan"))
    (sat.models["control"][1] / "model.safetensors").unlink()
    home = broken.save(tmp_path / "broken")
    (home / "model.safetensors").rename(sat.models["control"][1] / "model.safetensors")
    with pytest.raises(NotFinite, match="models/control/1"):
        sit_language(sat, tmp_path / "evaluation")


def real(folder: Path, seed: int, architecture: str) -> Path:
    """A folder of a small model of the transformers library over the doubles' words; wider than its tokenizer."""
    pytest.importorskip("transformers", reason="the tests of language models need the transformers package")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from stillroom.models.language import LanguageModel

    words = Tokenizer(models.WordLevel({f"w{place}": place for place in range(20)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0")
    sizes = {"vocab_size": 20 + 2 * seed, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "max_position_embeddings": 80, "pad_token_id": 0}
    torch.manual_seed(seed)
    made: Any = (
        LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=None, eos_token_id=None))
        if architecture == "causal"
        else BertForMaskedLM(BertConfig(**sizes))
    )
    LanguageModel(made, tokenizer, architecture).save(folder)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("architecture", ["causal", "masked"])
def test_models_of_the_transformers_library_sit_it_too(tmp_path: Path, architecture: str) -> None:
    folders = {
        name: real(tmp_path / name, seed, architecture) for seed, name in enumerate(("teacher", "student", "control"))
    }
    from stillroom.models.language import LanguageModel

    sat = exam(tmp_path / "doubles", load=None, knobs=Evaluation(metrics=("accuracy", "agreement", "size")))
    causal = architecture == "causal"
    teacher = LanguageModel.load(folders["teacher"], architecture, Device())  # type: ignore[arg-type]
    sat = replace(
        sat, architecture=architecture, splits=splits(length=40, causal=causal), bytes_N=None, teacher=teacher,
        teacher_folders=[folders["teacher"]], models={name: [folders[name]] for name in ("student", "control")},
    )  # fmt: skip
    scorecard, details = sit_language(sat, tmp_path / "evaluation")
    test = sat.splits.test.raw
    assert isinstance(test, dict)
    # As the library's own loss says, whose logits of ids beyond the tokenizer are left out.
    student = LanguageModel.load(folders["student"], architecture, Device())  # type: ignore[arg-type]
    nats = 0.0
    for ids_T, target_T in zip(test["ids"], test["target"], strict=True):
        ids_1T = torch.from_numpy(ids_T[None, : (ids_T >= 0).sum()].astype(np.int64))
        with torch.inference_mode():
            logits_TV = student.network.model(input_ids=ids_1T).logits[0, :, :20].double()
        scored = np.flatnonzero(target_T >= 0)
        nats -= float(logits_TV.log_softmax(1)[scored, target_T[scored]].sum())
    assert scorecard["models"]["student"]["nll"]["mean"] == pytest.approx(nats / (test["target"] >= 0).sum(), abs=1e-5)
    assert ("samples" in details) == causal
    assert [len(one["models"]) for one in details.get("samples", [])] == [3] * (3 if causal else 0)


def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    from stillroom.evaluation.language_memory import peak_memory_mib

    # What this process holds must not hide what the other one takes.
    held = np.ones(40_000_000)
    grown_mib = peak_memory_mib(real(tmp_path / "model", 0, "causal"), "causal", Device(), list(range(20)))
    assert held.sum() == len(held)
    assert grown_mib is not None
    assert 0.1 < grown_mib < 200
