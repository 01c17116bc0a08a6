"""Students as ONNX graphs: the same answers as PyTorch, in eight bits nearly, in files that name no machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")

from stillroom.errors import DataError, ModelError  # noqa: E402
from stillroom.export.check import check, export_checked  # noqa: E402
from stillroom.export.graphs import opened  # noqa: E402
from stillroom.export.onnx_model import Exported, export_module, export_onnx, size_bytes  # noqa: E402
from stillroom.export.runner import OnnxModel  # noqa: E402
from stillroom.models.classifier import Classifier  # noqa: E402

STUDENTS = ["mlp", "convnet", "bert", "llama", "masked"]
SECONDS = 0.2
made: dict[str, tuple[Exported, dict[str, Any]]] = {}


@pytest.fixture
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """name -> the student, its export with eight bits, and the check; each is made once."""

    def of(name: str) -> tuple[Any, Exported, dict[str, Any]]:
        student = request.getfixturevalue(name)
        if name not in made:
            out = tmp_path_factory.mktemp(f"{name}-onnx")
            made[name] = export_checked(student.folder, out, student.raw, student.label_N, int8=True, seconds=SECONDS)
        return student, *made[name]

    return of


@pytest.mark.parametrize("name", STUDENTS)
def test_float32_answers_as_pytorch_does_and_eight_bits_nearly(name: str, exported: Any) -> None:
    student, one, found = exported(name)
    plain, same, small = (found["models"][model] for model in ("pytorch", "onnx", "int8"))
    assert same["largest_difference"] <= 1e-4
    assert same["agreement"] == 1
    assert 0 < small["largest_difference"] < 0.25
    assert small["agreement"] > (0.5 if name == "llama" else 0.8)  # over 1,004 words, untrained
    assert same["accuracy"] == plain["accuracy"]
    assert same["nll"] == pytest.approx(plain["nll"], abs=1e-4)
    assert small["nll"] == pytest.approx(plain["nll"], abs=0.1)
    assert small["bytes"] == one.int8.stat().st_size < one.float32.stat().st_size
    for model in (same, small):
        assert model["faster"]["mean"] > 0
        assert model["smaller"] == pytest.approx(plain["bytes"] / model["bytes"])
        assert 0 < model["mcnemar"]["p_value"] <= 1
    assert all(
        model["latency_ms_p50"]["mean"] > 0 and model["rows_per_s"]["mean"] > 0 for model in (plain, same, small)
    )
    assert any("answers change" in note for note in found["notes"])
    assert json.loads((one.folder / "check.json").read_text()) == found
    json.dumps(found, allow_nan=False)
    scored = int((student.raw["ids"] >= 0).sum()) if isinstance(student.raw, dict) and "ids" in student.raw else None
    assert found["scored"] == (scored or found["rows"])


@pytest.mark.parametrize("name", STUDENTS)
def test_files_are_whole_and_name_no_machine(name: str, exported: Any) -> None:
    student, one, _ = exported(name)
    onnx.checker.check_model(onnx.load(one.float32), full_check=True)
    onnx.checker.check_model(onnx.load(one.int8))
    for path in one.folder.iterdir():
        content = path.read_bytes()
        for told in (str(student.folder), str(one.folder), str(Path(__file__).parents[2]), torch.__path__[0]):
            assert told.encode() not in content, f"{path.name} holds {told}"
    facts = json.loads((one.folder / "export.json").read_text())
    assert facts == one.facts
    assert facts["int8"]["weights_share"] > 0.85
    assert f"{facts['int8']['bytes']:,} bytes" in (one.folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_a_second_export_is_the_same_byte_for_byte(name: str, exported: Any, tmp_path: Path, capfd: Any) -> None:
    student, one, _ = exported(name)
    capfd.readouterr()
    export_onnx(student.folder, tmp_path, int8=True)
    assert capfd.readouterr().err == ""
    names = {path.name for path in one.folder.iterdir()} - {"check.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert all((tmp_path / file).read_bytes() == (one.folder / file).read_bytes() for file in names)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_rows_are_taken_as_the_student_takes_them_class_bias_included(name: str, exported: Any) -> None:
    student, one, _ = exported(name)
    expected = Classifier.load(student.folder).predict(student.raw[:5])
    found = OnnxModel(one.folder).predict(student.raw[:5])
    assert found.label.tolist() == expected.label.tolist()
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert OnnxModel(one.folder).logits(student.raw[:1]).shape == (1, 3)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (1, 17), (3, 2), (5, 64)])
def test_batch_and_sequence_are_free(name: str, rows: int, tokens: int, exported: Any) -> None:
    student, one, _ = exported(name)
    generator = np.random.default_rng(rows)
    mask_BT = np.arange(tokens) < generator.integers(1, tokens + 1, (rows, 1))
    mask_BT[0] = True
    ids_BT = np.where(mask_BT, generator.integers(4, 1000, mask_BT.shape), 0)
    encoded = {"input_ids": ids_BT, "attention_mask": mask_BT.astype(np.int64)}
    expected, found = opened(student.folder).run(encoded), OnnxModel(one.folder).run(encoded)
    assert found.shape == expected.shape == ((rows, 2) if name == "bert" else (rows, tokens, 1004))
    there = mask_BT if name == "llama" else slice(None)
    assert found[there] == pytest.approx(expected[there], abs=1e-4)


def test_texts_are_read_by_plain_transformers_too(exported: Any) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    student, one, _ = exported("bert")
    texts = student.raw["text"][:4].tolist()
    model = AutoModelForSequenceClassification.from_pretrained(student.folder)
    given = AutoTokenizer.from_pretrained(one.folder)(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        plain = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
    said = OnnxModel(one.folder).predict(texts)
    expected = (plain + torch.tensor([0.0, 0.75])).softmax(1).numpy()
    assert said.probabilities == pytest.approx(expected, abs=1e-5)
    assert said.classes == ["bad", "good"]


def test_a_folder_without_our_files_is_read_as_transformers_reads_it(bert: Any, tmp_path: Path) -> None:
    for path in bert.folder.iterdir():
        if path.name not in ("inputs.json", "stillroom.json"):
            shutil.copy(path, tmp_path)
    ours, plain = opened(bert.folder), opened(tmp_path)
    assert plain.classes == ["LABEL_0", "LABEL_1"]
    assert (plain.task, plain.parameters) == (ours.task, ours.parameters)
    encoded = ours.encoding.encode(bert.raw)
    again = plain.encoding.encode({"text": bert.raw["text"]})
    assert all((again[one] == encoded[one]).all() for one in encoded)
    assert plain.run(encoded) + np.array([0.0, 0.75]) == pytest.approx(ours.run(encoded), abs=1e-6)


def test_a_runner_needs_no_torch(exported: Any) -> None:
    _, one, _ = exported("bert")
    code = (
        "import sys; from pathlib import Path; from stillroom.export.runner import OnnxModel; "
        f"print(OnnxModel(Path({str(one.folder)!r})).predict(['w1 w2']).label[0], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() in (["bad", "False"], ["good", "False"]), done.stderr


def test_a_student_of_rows_needs_no_transformers(mlp: Any) -> None:
    code = (
        "import sys; from pathlib import Path; import stillroom.export.check; "
        f"from stillroom.export.graphs import opened; opened(Path({str(mlp.folder)!r})); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_large_weights_stand_in_a_file_of_their_own(mlp: Any, exported: Any, tmp_path: Path) -> None:
    one = export_onnx(mlp.folder, tmp_path, int8=True, inline_bytes=0)
    beside = tmp_path / "model.onnx.data"
    assert size_bytes(one.float32) == one.float32.stat().st_size + beside.stat().st_size > 30_000
    inline = exported("mlp")[1]
    assert OnnxModel(tmp_path).logits(mlp.raw).tolist() == OnnxModel(inline.folder).logits(mlp.raw).tolist()
    small = [OnnxModel(folder, "model_int8.onnx").logits(mlp.raw) for folder in (tmp_path, inline.folder)]
    assert small[0].tolist() == small[1].tolist()


def test_another_students_answers_are_an_error_and_nothing_stays(
    mlp: Any, saved: Any, exported: Any, tmp_path: Path
) -> None:
    _, one, _ = exported("mlp")
    other = saved(tmp_path / "other", {"kind": "mlp", "hidden": [128, 64]}, mlp.raw, seed=1)
    with pytest.raises(ModelError, match=r"does not answer as PyTorch does: a probability differs by 0\.\d+"):
        check(other.folder, one, mlp.raw, seconds=SECONDS)
    with pytest.raises(ModelError, match="does not answer"):
        export_checked(mlp.folder, tmp_path / "out", mlp.raw, tolerance=-1.0, seconds=SECONDS)
    assert not list((tmp_path / "out").glob("*.onnx"))
    assert not (tmp_path / "out" / "export.json").exists()


def test_what_cannot_be_exported_is_refused_with_a_cure(mlp: Any, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(ModelError, match="no folder of a student"):
        export_onnx(tmp_path, tmp_path / "out")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForQuestionAnswering"]}))
    with pytest.raises(ModelError, match="BertForQuestionAnswering cannot be exported"):
        export_onnx(tmp_path, tmp_path / "out")
    with pytest.raises(ModelError, match="no folder of an exported student"):
        OnnxModel(tmp_path)
    with pytest.raises(DataError, match="no rows"):
        export_checked(mlp.folder, tmp_path / "out", mlp.raw[:0])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"onnxruntime.*pip install stillroom\[onnx\]"):
        export_onnx(mlp.folder, tmp_path / "out")


def test_a_damaged_file_and_rows_of_another_kind(exported: Any, tmp_path: Path) -> None:
    _, one, _ = exported("llama")
    with pytest.raises(DataError, match="windows of token ids"):
        OnnxModel(one.folder).logits(np.zeros((2, 3)))
    with pytest.raises(ModelError, match="no classes"):
        OnnxModel(one.folder).predict(["w1"])
    (tmp_path / "export.json").write_text((one.folder / "export.json").read_text())
    (tmp_path / "model.onnx").write_bytes(one.float32.read_bytes()[:500])
    with pytest.raises(ModelError, match="cannot read this file"):
        OnnxModel(tmp_path)


class Undecided(torch.nn.Module):
    """What it computes depends on the values it is given, which no graph can hold."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input * 2 if input.sum() > 0 else input.flip(0)


def test_a_module_that_cannot_be_traced(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="exporter cannot write"):
        export_module(Undecided(), {"input": torch.zeros(2, 3)}, {"input": {0: "batch"}}, tmp_path / "model.onnx")
