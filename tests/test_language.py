"""Whole runs of tiny language models: every form of kept answers, every objective and student, from recipe to report."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.models.tiny_models import byte_pairs, write_gguf
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

import stillroom
from command_line import events
from run_folder import unnamed
from stillroom.errors import DataError, ModelError
from stillroom.models import pretrained
from stillroom.models.device import Device
from stillroom.models.language import LanguageModel
from stillroom.rows import PADDING, Array, PositionAnswers, Questions, SparseTargets, Tokens, content_keys
from stillroom.rundir import read_json
from stillroom.teachers.language import AskedLanguageModel
from stillroom.training.language_batches import WindowBatches, WindowSource
from stillroom.transfer_set.fidelity import dense
from stillroom.transfer_set.recording import Recorder, opened
from stillroom.transfer_set.sparse_logits import Layout, decode, encode_log_p
from stillroom.transfer_set.store import Header, Kept, Store, open_kept
from tiny_language import causal, text, write_model, write_text

SOFT = {"kind": "soft_target", "temperature": 1}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny text and the teacher; runs have folders of their own in it."""
    folder = tmp_path_factory.mktemp("language")
    causal(folder)
    return folder


@pytest.fixture(scope="module")
def whole(home: Path) -> Any:
    """A finished run with a hidden tail."""
    objectives = [SOFT, {"kind": "hidden", "distance": "cosine"}, {"kind": "trace", "weight": 0.5}]
    arms = {"bucket": {"transfer_set": {"tail": "bucket"}}}
    return stillroom.distill(causal(home, name="whole", objectives=objectives, arms=arms), home / "whole")


def calls(run: Path) -> int:
    """How many windows were asked."""
    return sum(event["calls"] for event in events(run, "asked")) if (run / "events.jsonl").is_file() else 0


def kept_of(run: Path) -> Kept:
    """The answers of a run."""
    return open_kept(run / "transfer_set" / read_json(run / "transfer_set" / "asked.json")["answers"])


def curve(run: Path, role: str = "student") -> list[dict[str, float]]:
    found: list[dict[str, float]] = read_json(run / role / "history.json")["curve"]
    return found


def logits_of(folder: Path, ids: list[list[int]], auto: Any = AutoModelForCausalLM) -> torch.Tensor:
    """What plain transformers makes of a folder."""
    with pretrained.quiet(), torch.inference_mode():
        model = auto.from_pretrained(folder)
        found: torch.Tensor = model(input_ids=torch.tensor(ids)).logits
    return found


def logits_of_ours(folder: Path, ids: list[list[int]]) -> torch.Tensor:
    from stillroom.models.language import logits

    model = stillroom.load_student(folder)
    tokens = Tokens(torch.tensor(ids), torch.ones(len(ids), len(ids[0]), dtype=torch.bool))
    with torch.inference_mode():
        output = model.network(tokens)
        return logits(output.hidden_BH, output.head).view(len(ids), len(ids[0]), -1)


# a whole run


def test_a_run_ends_in_a_scorecard_and_a_report(whole: Any) -> None:
    card = whole.scorecard
    assert (card["task"], card["architecture"]) == ("language", "causal")
    assert set(card["models"]) == {"teacher", "student", "control", "hard_teacher", "bucket"}
    for name, model in card["models"].items():
        assert model["perplexity"]["mean"] == pytest.approx(math.exp(model["nll"]["mean"]), rel=1e-6)
        assert model["bits_per_byte"]["mean"] > 0
        assert ("kl_to_teacher" in model) == (name != "teacher")
    page = (whole.path / "report.html").read_text()
    assert "<svg" in page
    assert (whole.path / "student" / "README.md").is_file()
    kept = card["transfer_set"]
    assert kept["positions"] == kept_of(whole.path).positions
    assert 0 <= kept["fidelity"]["kl"] < 1
    assert set(kept["fidelity"]["by_source"]) == {"train", "validation", "test"}
    assert kept["bytes_per_token"] < kept["dense_bytes_per_token"]
    assert not unnamed(whole.path)


def test_the_student_is_a_plain_model_of_transformers(whole: Any) -> None:
    ids = [[10, 20, 30, 40, 50], [60, 70, 80, 90, 100]]
    ours = logits_of_ours(whole.path, ids)
    torch.testing.assert_close(logits_of(whole.path / "student", ids), ours, rtol=1e-4, atol=1e-4)
    assert stillroom.load_student(whole.path).generate(["the quick"], 4)[0].ids


def test_hidden_states_are_kept_for_each_position(whole: Any, home: Path) -> None:
    kept = kept_of(whole.path)
    assert kept.header.hidden_width == 16
    teacher = AskedLanguageModel(LanguageModel.load(home / "llama", "causal"))
    train = windows(home)
    for _, count_B, output, _ in teacher.outputs(train.take(np.arange(3))):
        reader = kept.position_reader(train.key_N[:3])
        assert reader.count(np.arange(3)).tolist() == count_B.tolist()
        stored = torch.from_numpy(reader.take(np.arange(3), "hidden")).float()
        torch.testing.assert_close(stored, output.hidden_BH, rtol=2e-3, atol=2e-3)


def test_an_arm_may_keep_its_answers_in_another_form(whole: Any) -> None:
    headers = [read_json(path) for path in whole.path.glob("transfer_set/*/teacher.json")]
    assert {header["layout"]["tail"] for header in headers} == {"hidden", "bucket"}
    assert read_json(whole.path / "transfer_set" / "asked.json")["teacher"] == kept_of(whole.path).header.fingerprint
    assert whole.scorecard["transfer_set"]["tail"] == "hidden"


def test_a_run_goes_on_where_it_was_and_asks_nothing_again(home: Path) -> None:
    tree = causal(home, name="halves", transfer_set={"tail": "sample", "tail_bytes": 8})
    stillroom.distill(tree, home / "halves", until="ask")
    asked = calls(home / "halves")
    assert asked == len(windows(home))
    # A sample leaves tokens out: its KL is infinite, and the report does without.
    run = stillroom.distill(tree, home / "halves")
    assert calls(home / "halves") == asked
    assert "kl" not in run.scorecard["transfer_set"]["fidelity"]
    assert (home / "halves" / "report.html").is_file()


# objectives and forms of answers


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("bucket", {"transfer_set": {"tail": "bucket"}, "objectives": [{**SOFT, "divergence": "jensen_shannon"}]}),
        ("hot", {"objectives": [{**SOFT, "temperature": 2, "divergence": "reverse"}]}),
        ("text", {"objectives": [{"kind": "trace"}, {"kind": "hard_label", "from": "teacher"}]}),
        (
            "live",
            {
                "transfer_set": {"live": True},
                "objectives": [{**SOFT, "temperature": 2, "divergence": "jensen_shannon"}, {"kind": "hidden"}],
            },
        ),
        (
            "narrow",
            {
                "transfer_set": {"live": True},
                "dtype": "bfloat16",
                "objectives": [{"kind": "hard_label", "from": "teacher"}, {"kind": "hidden", "distance": "cosine"}],
            },
        ),
    ],
)
def test_forms_of_answers_and_objectives(name: str, sections: dict[str, Any], home: Path) -> None:
    run = stillroom.distill(causal(home, name=name, **sections), home / name, until="train")
    live = sections.get("transfer_set", {}).get("live", False)
    assert calls(run.path) == (0 if live else len(windows(home)))
    if not live:
        kept = kept_of(run.path)
        assert kept.header.layout is not None
        stored = sum(path.stat().st_size for path in kept.folder.rglob("records.u8"))
        assert stored == kept.positions * kept.header.layout["record_bytes"]
    for role in ("student", "control"):
        assert all(math.isfinite(value) for point in curve(run.path, role) for value in point.values())
    if len(sections["objectives"]) > 1:
        norms = read_json(run.path / "student" / "history.json")["gradient_norms"]
        assert all(norm > 0 for measured in norms.values() for norm in measured)
        assert len(norms) == 2


@pytest.mark.parametrize("heat", [1, 2])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(heat: int, home: Path) -> None:
    """The loss at the first step is 0 beside a live teacher, and what keeping has lost beside a kept one."""
    tree = causal(
        home,
        student={"kind": "pretrained", "from": str(home / "llama"), "task": "causal"},
        objectives=[{**SOFT, "temperature": heat}],
        training={"epochs": 1, "batch_size": 64, "learning_rate": 1e-12},
    )
    lost = {}
    for name, knobs in (("live", {"live": True}), ("kept", {"tail_bytes": 24})):
        run = stillroom.distill(
            {**tree, "name": f"same {name}", "transfer_set": knobs}, home / f"{name}{heat}", until="train"
        )
        lost[name] = curve(run.path)[0]["loss"]
    assert abs(lost["live"]) < 1e-5
    told = read_json(home / f"kept{heat}" / "transfer_set" / "fidelity.json")
    kl = told["tried"][told["kept"]]["train"]["kl"]
    assert 0 <= lost["kept"] < 4 * heat**2 * kl + 1e-4


# students


def test_a_low_rank_student_is_merged_into_a_plain_model(home: Path) -> None:
    tree = causal(home, name="lora", student={"kind": "lora", "from": str(home / "llama"), "rank": 2})
    tree["training"] |= {"learning_rate": 0.05}
    run = stillroom.distill(tree, home / "lora", until="train")
    assert not (run.path / "student" / "adapter_config.json").exists()
    ids = [[10, 20, 30, 40]]
    ours = logits_of_ours(run.path, ids)
    torch.testing.assert_close(logits_of(run.path / "student", ids), ours, rtol=1e-4, atol=1e-4)
    teacher, _ = pretrained.load(home / "llama", "causal")
    student, _ = pretrained.load(run.path / "student", "causal")
    assert torch.equal(teacher.model.embed_tokens.weight, student.model.embed_tokens.weight)
    changed = [
        name
        for (name, theirs), (_, mine) in zip(teacher.named_parameters(), student.named_parameters(), strict=True)
        if not torch.equal(theirs, mine)
    ]
    assert changed
    assert all("proj" in name for name in changed)


def test_a_fresh_student_reads_the_teachers_tokens(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A tokenizer may stand in a folder alone; its own ids of a text's end take the place of the architecture's."""
    (home / "tokens").mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(home / "llama" / file, home / "tokens" / file)
    model = {"kind": "transformers", "task": "causal", "config": GPT2, "tokenizer": str(home / "tokens")}
    tree = causal(home, name="fresh", student={"kind": "fresh", "model": model}, objectives=[SOFT, {"kind": "hidden"}])
    run = stillroom.distill(tree, home / "fresh", until="train")
    student, _ = pretrained.load(run.path / "student", "causal")
    teacher, tokenizer = pretrained.load(home / "llama", "causal")
    assert student.config.vocab_size == teacher.config.vocab_size
    assert student.config.eos_token_id == tokenizer.eos_token_id
    assert "Model config" not in capfd.readouterr().err


@pytest.mark.parametrize("reads", ["characters", "folder"])
def test_a_new_teacher_is_trained_then_asked(reads: str, home: Path) -> None:
    """A network of the run's own, whose tokenizer stands in no folder of weights: bytes, or a tokenizer alone."""
    alone = home / f"alone-{reads}"
    pretrained.save_tokenizer(byte_pairs(300), alone)
    config = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 48}  # fmt: skip
    model = {"kind": "transformers", "task": "causal", "config": config,
             "tokenizer": "characters" if reads == "characters" else str(alone)}  # fmt: skip
    teacher = {"kind": "trained", "model": model, "epochs": 1, "batch_size": 8}
    run = stillroom.distill(causal(home, name=f"new-{reads}", teacher=teacher), home / f"new-{reads}")
    card = run.scorecard
    assert calls(run.path) == card["rows"]["train"]
    ids = [[30, 40, 31, 50]]
    torch.testing.assert_close(
        logits_of(run.path / "student", ids), logits_of_ours(run.path, ids), rtol=1e-4, atol=1e-4
    )
    # It looks at 48 tokens, so windows of 64 are refused before anything is trained.
    tree = causal(
        home, name="wide", teacher=teacher, questions={"kind": "dataset", "source": write_text(home), "window": 64}
    )
    with pytest.raises(DataError, match="48"):
        stillroom.distill(tree, home / f"wide-{reads}")
    assert not (home / f"wide-{reads}" / "teacher").exists()


def test_a_teacher_in_a_gguf_file(home: Path) -> None:
    write_gguf(home / "tiny.gguf")
    teacher = {"kind": "transformers", "model": str(home / "tiny.gguf"), "task": "causal"}
    run = stillroom.distill(causal(home, name="gguf", teacher=teacher), home / "gguf", until="train")
    ids = [[10, 20, 30, 40]]
    torch.testing.assert_close(
        logits_of(run.path / "student", ids), logits_of_ours(run.path, ids), rtol=1e-4, atol=1e-4
    )


# asking


def test_too_poor_a_record_is_given_more_bytes(home: Path) -> None:
    tree = causal(home, name="close", transfer_set={"tail_bytes": 2, "fidelity": {"kl": 0.02}})
    run = stillroom.distill(tree, home / "close", until="ask")
    kept = kept_of(run.path)
    assert kept.header.layout is not None
    assert kept.header.layout["tail_bytes"] > 2
    told = read_json(run.path / "transfer_set" / "fidelity.json")
    assert told["tried"][told["kept"]]["validation"]["kl"] <= 0.02
    assert len(told["tried"]) > 1
    # Of the forms that were too poor nothing stays but their figures.
    assert len(list(run.path.glob("transfer_set/*/basis.safetensors"))) == 1
    asked = calls(run.path)
    stillroom.distill(tree, home / "close", until="ask")
    assert calls(run.path) == asked


@pytest.mark.parametrize("knobs", [{"tail_bytes": 400}, {"tail": "bucket"}, {"tail": "sample"}])
def test_a_fidelity_out_of_reach_is_told_before_the_asking(knobs: dict[str, Any], home: Path, tmp_path: Path) -> None:
    tree = causal(home, name="far", transfer_set={**knobs, "fidelity": {"kl": 1e-12}})
    with pytest.raises(ModelError, match=r"nats a position, and 1e-12 is asked for \(transfer_set.fidelity.kl\)"):
        stillroom.distill(tree, tmp_path / "far", until="ask")
    assert not list((tmp_path / "far").rglob("records.u8"))


def test_a_second_run_asks_only_what_is_new(home: Path, tmp_path: Path) -> None:
    """Documents that are not packed have windows of their own, which another document does not move."""
    source = write_text(tmp_path)
    tree = causal(home, transfer_set={"store": str(tmp_path / "store"), "tail_bytes": 8})
    tree["questions"] = {"kind": "dataset", "source": source, "window": 32, "pack": False}
    stillroom.distill({**tree, "name": "a"}, tmp_path / "a", until="ask")
    assert calls(tmp_path / "a") > 0
    again = {**tree, "name": "b", "student": {"kind": "shrink", "layers": [1]}}
    stillroom.distill(again, tmp_path / "b", until="ask")
    assert calls(tmp_path / "b") == 0
    before = calls(tmp_path / "a")
    Path(source["train"]).write_text(text(1, 99) + Path(source["train"]).read_text())
    stillroom.distill({**tree, "name": "c"}, tmp_path / "c", until="ask")
    assert 0 < calls(tmp_path / "c") < before / 3


def windows(home: Path) -> Questions:
    """The training windows of the tiny text."""
    from stillroom.kinds import parse
    from stillroom.models.text import tokenizer_at
    from stillroom.questions.windows import windows as cut

    source = parse("questions", causal(home)["questions"])
    return cut(source.build([home]), tokenizer_at(home / "llama"), 32, context=64).train


def test_answers_do_not_depend_on_the_batch(whole: Any, home: Path) -> None:
    """Equal but for the rounding of products; where that flips a code, the distribution stays close."""
    train, kept = windows(home), kept_of(whole.path)
    assert kept.header.layout is not None
    layout, fitted = opened(kept.folder, kept.header.layout)
    recorder = Recorder(AskedLanguageModel(LanguageModel.load(home / "llama", "causal")), layout, fitted, False)
    stored = kept.position_reader(train.key_N).take(np.arange(len(train)))
    alone = np.concatenate([recorder.answer(train.take(np.array([row]))).records_PR for row in range(len(train))])
    turned = recorder.answer(train.take(np.arange(len(train))[::-1]))
    back = np.concatenate(np.split(turned.records_PR, np.cumsum(turned.count_N)[:-1])[::-1])
    expected = dense(decode(layout, fitted, stored), layout.vocabulary)
    for other in (alone, back):
        assert (other == stored).all(1).mean() > 0.9
        found = dense(decode(layout, fitted, other), layout.vocabulary)
        assert float((found.exp() - expected.exp()).abs().sum(1).max()) < 0.02


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.integers(0, 199), min_size=1, max_size=12))
def test_decoding_some_is_decoding_all(chosen: list[int], whole: Any, home: Path) -> None:
    kept = kept_of(whole.path)
    assert kept.header.layout is not None
    layout, fitted = opened(kept.folder, kept.header.layout)
    records = kept.position_reader(windows_keys(kept)).take(np.arange(20))[:200]
    every, some = decode(layout, fitted, records), decode(layout, fitted, records[chosen])
    for name in SparseTargets.__slots__:
        value = getattr(every, name)
        if torch.is_tensor(value):
            assert torch.equal(value[torch.tensor(chosen)], getattr(some, name)), name


def windows_keys(kept: Kept) -> Array:
    """The keys of everything kept, in the order of the shards."""
    import pyarrow as pa

    found = []
    for shard in sorted(kept.folder.glob("0*")):
        with pa.memory_map(str(shard / "keys.arrow")) as source:
            found += pa.ipc.open_file(source).read_all()["key"].to_pylist()
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(found), -1)


# batches


VOCABULARY = 64


def planted(ids: Array, target: Array) -> Array:
    """Records that say which window and position they belong to: the target's neighbour, and the window's first token."""
    layout = Layout.of(VOCABULARY, 1, "bucket")
    row_P, place_P = np.nonzero(target >= 0)
    sure_P = torch.from_numpy(-0.01 - place_P / 100)
    said = (target[row_P, place_P] + 1 + ids[row_P, 0]) % VOCABULARY
    log_p_PV = (torch.log(-torch.expm1(sure_P)) - math.log(VOCABULARY - 1))[:, None].repeat(1, VOCABULARY)
    log_p_PV[np.arange(len(said)), said] = sure_P
    return encode_log_p(layout, log_p_PV, torch.from_numpy(-1.0 - row_P / 16))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    batch=st.integers(1, 7), seed=st.integers(0, 99), shard=st.integers(1, 5),
)  # fmt: skip
def test_batches_pair_each_window_with_its_own_answers(
    lengths: list[int], batch: int, seed: int, shard: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY, (len(lengths), 10)).astype(np.int32)
    target = np.full_like(ids, PADDING)
    for row, length in enumerate(lengths):
        ids[row, length:] = PADDING
        target[row, :length] = rng.integers(0, VOCABULARY, length) * (rng.random(length) < 0.8)
        target[row, 0] = row
    raw = {"ids": ids, "target": target}
    questions = Questions.of(raw)
    assert np.array_equal(questions.key_N, content_keys(raw))
    layout = Layout.of(VOCABULARY, 1, "bucket")
    store = Store(tmp_path_factory.mktemp("store"))
    kept = store.of(Header("a" * 64, "planted", [], None, {}, layout.to_json()))
    records, count_N = planted(ids, target), (target >= 0).sum(1)
    start_N = np.cumsum(count_N) - count_N
    order = rng.permutation(len(lengths))
    for first in range(0, len(order), shard):
        rows = order[first : first + shard]
        parts = [records[start_N[row] : start_N[row] + count_N[row]] for row in rows]
        kept.append(questions.key_N[rows], 0, PositionAnswers(np.concatenate(parts), count_N[rows]))
    source = WindowSource(questions, [kept.position_reader(questions.key_N)], layout, None, views=[0])
    batches = WindowBatches(source, batch, seed, Device())
    seen = 0
    for step in range(batches.per_epoch):
        made = batches(step)
        assert isinstance(made.input, Tokens)
        assert made.sparse is not None
        assert made.label_B is not None
        row_P, place_P = np.nonzero(made.input.scored_BT.numpy())
        first_P = made.input.ids_BT[row_P, 0]
        assert torch.equal(made.sparse.ids_PK[:, 0], (made.label_B + 1 + first_P) % VOCABULARY)
        told = -0.01 - torch.from_numpy(place_P) / 100
        torch.testing.assert_close(made.sparse.log_p_PK[:, 0], told.float(), rtol=0.05, atol=0.01)
        seen += len(made.label_B)
    assert seen == int(count_N.sum())


# masked models


@pytest.fixture(scope="module")
def masked(home: Path) -> dict[str, Any]:
    """The recipe of DistilBERT on a tiny BERT that the run trains."""
    reads = write_model(home / "bert", "bert", layers=2)
    return {
        "name": "masked",
        "seeds": 1,
        "questions": {
            "kind": "dataset", "source": write_text(home), "window": 32, "augment": {"kind": "mask"}, "views": 2,
        },
        "teacher": {
            "kind": "trained", "model": {"kind": "transformers", "task": "masked", "config": BERT, "tokenizer": reads},
            "epochs": 1, "batch_size": 8,
        },
        "student": {"kind": "shrink", "layers": 1},
        "objectives": [
            {"kind": "soft_target", "temperature": 2, "weight": 5},
            {"kind": "hard_label", "weight": 2},
            {"kind": "hidden", "distance": "cosine"},
        ],
        "transfer_set": {"tail_bytes": 8},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-12},
        "evaluation": {"metrics": ["accuracy", "agreement", "size", "cost"]},
    }  # fmt: skip


def test_a_masked_model_from_its_training_to_the_report(masked: dict[str, Any], home: Path) -> None:
    run = stillroom.distill(masked, home / "masked")
    card = run.scorecard
    assert (card["task"], card["architecture"]) == ("language", "masked")
    assert "bits_per_byte" not in card["models"]["student"]
    assert calls(run.path) == 2 * card["rows"]["train"]
    assert set(read_json(run.path / "student" / "history.json")["gradient_norms"]) == {
        "soft_target",
        "hard_label",
        "hidden",
    }
    ids = [[2, 30, 4, 31, 3]]
    ours = logits_of_ours(run.path, ids)
    torch.testing.assert_close(logits_of(run.path / "student", ids, AutoModelForMaskedLM), ours, rtol=1e-4, atol=1e-4)
    # Nothing was learned at this rate: the student is the teacher's first layer, and the control the untaught network's.
    found = {name: pretrained.load(run.path / name, "masked")[0] for name in ("teacher", "student", "control")}
    name = "bert.encoder.layer.0.attention.self.query.weight"
    weights = {role: model.get_parameter(name) for role, model in found.items()}
    torch.testing.assert_close(weights["student"], weights["teacher"])
    assert not torch.allclose(weights["control"], weights["teacher"], atol=1e-4)
    assert json.loads((run.path / "student" / "config.json").read_text())["num_hidden_layers"] == 1
