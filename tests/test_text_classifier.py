"""Whole runs of tiny classifiers of texts: a teacher trained here or elsewhere, students shrunk, cut and adapted."""

from __future__ import annotations

import csv
import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny_models import word_pieces
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import stillroom
from command_line import events, write_csv
from stillroom.models import pretrained
from tiny_language import write_model, write_sentences

LABELS = {"charm": "good", "quick": "good", "quiet": "good", "bad": "poor", "lazy": "poor", "terribly": "poor"}
TEXTS = ["the quick brown film", "a bad story that never goes", "quiet charm"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labelled sentences, further ones with a sign that those lack, and an untrained tiny BERT."""
    folder = tmp_path_factory.mktemp("texts")
    write_sentences(folder)
    further = [
        {"sentence": f"it was £ {word} film", "label": label} for word, label in LABELS.items() for _ in range(5)
    ]
    write_csv(folder / "further.csv", further)
    write_model(folder / "bert", "bert", layers=2)
    return folder


def recipe(home: Path, **sections: Any) -> dict[str, Any]:
    """A teacher trained from the tiny BERT; half its layers and the vocabulary that is used."""
    return {
        "name": "texts",
        "seeds": 1,
        "questions": {
            "kind": "dataset",
            "source": {"train": str(home / "sentences.csv"), "test": str(home / "further.csv")},
            "split": {"validation": 20},
        },
        "teacher": {
            "kind": "trained", "model": {"kind": "transformers", "from": str(home / "bert")},
            "epochs": 2, "batch_size": 16, "learning_rate": 0.005,
        },
        "student": {"kind": "shrink", "layers": 1, "vocabulary": "cut"},
        "objectives": [
            {"kind": "soft_target", "temperature": 2}, {"kind": "hidden", "distance": "cosine"}, {"kind": "hard_label"},
        ],
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.005},
        "evaluation": {"metrics": ["accuracy", "agreement", "calibration", "size", "cost"]},
        **sections,
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(home: Path) -> Any:
    """Beside the student an arm that keeps both layers, and one that keeps the whole vocabulary."""
    arms = {"deep": {"student": {"layers": 2}}, "all": {"student": {"vocabulary": "whole"}}}
    return stillroom.distill(recipe(home, arms=arms), home / "whole")


def unknown_rate(folder: Path, texts: list[str]) -> float:
    """The share of these texts' tokens that a saved student does not know, as plain transformers reads them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [one for text in texts for one in tokenizer(text)["input_ids"]]
    return ids.count(tokenizer.unk_token_id) / len(ids)


def probabilities(folder: Path, texts: list[str]) -> tuple[torch.Tensor, list[str]]:
    """What plain transformers says of texts, one by one, and the names of its classes."""
    with pretrained.quiet(), torch.inference_mode():
        model, tokenizer = (
            AutoModelForSequenceClassification.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
        )
        rows = [model(**tokenizer(text, return_tensors="pt")).logits.softmax(1) for text in texts]
    return torch.cat(rows), [model.config.id2label[place] for place in range(model.config.num_labels)]


def test_a_run_over_texts(whole: Any, home: Path) -> None:
    card = whole.scorecard
    assert card["task"] == "classification"
    assert set(card["models"]) == {"teacher", "student", "control", "hard_teacher", "deep", "all"}
    assert card["models"]["student"]["parameters"] < card["models"]["teacher"]["parameters"]
    assert (whole.path / "report.html").is_file()
    assert events(whole.path, "asked")[0]["calls"] == card["rows"]["train"]
    student, _ = pretrained.load(whole.path / "student", "classification")
    assert student.config.num_hidden_layers == 1
    assert student.config.vocab_size < len(word_pieces())
    with (home / "further.csv").open() as file:
        texts = [row["sentence"] for row in csv.DictReader(file)]
    page = html.unescape((whole.path / "report.html").read_text())
    for who, folder in (("student", whole.path / "student"), ("arm deep", whole.path / "arms" / "deep")):
        unknown = unknown_rate(folder, texts)
        assert unknown > 0.05
        size = pretrained.load(folder, "classification")[0].config.vocab_size
        told = f"the vocabulary of the {who} was cut to {size:,} tokens; of the test rows' tokens {unknown:.2%} are unknown"
        assert told[1:] in page
    assert "the vocabulary of the arm all" not in page


def test_transformers_says_what_predict_says(whole: Any) -> None:
    said = stillroom.load_student(whole.path / "student").predict(TEXTS)
    found, names = probabilities(whole.path / "student", TEXTS)
    assert names == [str(name) for name in said.classes] == ["good", "poor"]
    np.testing.assert_allclose(found.numpy(), said.probabilities, atol=1e-5)
    assert said.label.tolist() == [names[place] for place in found.argmax(1).tolist()]
    alone = whole.student.predict(TEXTS[0])
    np.testing.assert_allclose(alone.probabilities[0], said.probabilities[0], atol=1e-5)


def test_a_run_that_is_stopped_goes_on_to_the_same_student(whole: Any, home: Path) -> None:
    for until in ("teach", "ask", "train"):
        stillroom.distill(recipe(home), home / "stages", until=until)
    for name in ("teacher", "student", "control"):
        weights = (home / "stages" / name / "model.safetensors").read_bytes()
        assert weights == (whole.path / name / "model.safetensors").read_bytes()
    before = (home / "stages" / "events.jsonl").read_text()
    stillroom.distill(recipe(home), home / "stages", until="train")
    assert (home / "stages" / "events.jsonl").read_text() == before


def test_a_control_starts_from_weights_that_the_run_has_not_taught(home: Path) -> None:
    tree = recipe(home, name="still", student={"kind": "shrink", "layers": [1]})
    tree["training"] = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-12}
    run = stillroom.distill(tree, home / "still", until="train")
    name = "bert.encoder.layer.{}.attention.self.query.weight"
    found = {
        role: pretrained.load(folder, "classification")[0].get_parameter(name.format(layer))
        for role, folder, layer in (
            ("bert", home / "bert", 1),
            ("teacher", run.path / "teacher", 1),
            ("student", run.path / "student", 0),
            ("control", run.path / "control", 0),
        )
    }
    torch.testing.assert_close(found["control"], found["bert"])
    torch.testing.assert_close(found["student"], found["teacher"])
    assert not torch.allclose(found["student"], found["control"], atol=1e-4)


def turned(source: Path, folder: Path) -> str:
    """The same classifier with its classes in the other order."""
    model, tokenizer = pretrained.load(source, "classification")
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight.flip(0).clone())
        model.classifier.bias.copy_(model.classifier.bias.flip(0).clone())
    model.config.id2label, model.config.label2id = {0: "poor", 1: "good"}, {"poor": 0, "good": 1}
    folder.mkdir()
    pretrained.save(model, tokenizer, folder)
    return str(folder)


def test_a_teacher_that_knows_the_classes_in_another_order(whole: Any, home: Path) -> None:
    model = turned(whole.path / "teacher", home / "turned")
    tree = recipe(
        home, name="other",
        teacher={"kind": "transformers", "task": "classification", "model": model},
        student={"kind": "pretrained", "from": model},
    )  # fmt: skip
    tree["training"] = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-12}
    run = stillroom.distill(tree, home / "other")
    before, after = (one.scorecard["models"]["teacher"] for one in (whole, run))
    for name in ("accuracy", "nll"):
        assert after[name]["mean"] == pytest.approx(before[name]["mean"], abs=1e-5)
    # Its student starts with the classes in the data's order, as the teacher answers, and says so.
    assert run.scorecard["models"]["student"]["agreement"]["mean"] == 1
    found, names = probabilities(run.path / "student", TEXTS)
    assert names == ["good", "poor"]
    theirs, order = probabilities(Path(model), TEXTS)
    assert order == ["poor", "good"]
    torch.testing.assert_close(found, theirs.flip(1), rtol=1e-4, atol=1e-4)


def test_adapted_and_pretrained_students(home: Path) -> None:
    lora = {"kind": "lora", "task": "classification", "from": str(home / "bert"), "rank": 2}
    arms = {"whole": {"student": {"kind": "pretrained", "from": str(home / "bert")}}}
    tree = recipe(home, name="lora", student=lora, arms=arms)
    tree["training"] = {**tree["training"], "checkpoint_seconds": 0}
    run = stillroom.distill(tree, home / "lora", until="train")
    for folder in (run.path / "student", run.path / "arms" / "whole"):
        said = stillroom.load_student(folder).predict(TEXTS)
        np.testing.assert_allclose(probabilities(folder, TEXTS)[0].numpy(), said.probabilities, atol=1e-5)
    base, student = (pretrained.load(folder, "classification")[0] for folder in (home / "bert", run.path / "student"))
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(base.get_parameter(name), student.get_parameter(name))


def test_a_recipe_in_a_folder_runs_from_beside_it(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its paths start at its own folder and the run's at the working directory; the student is cut from the run's teacher."""
    tree = recipe(home, name="beside")
    tree["teacher"]["epochs"] = tree["training"]["epochs"] = 1
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "beside.json").write_text(json.dumps(tree))
    monkeypatch.chdir(tmp_path)
    stillroom.distill("recipes/beside.json", until="train")
    assert (tmp_path / "runs" / "beside" / "student" / "manifest.json").is_file()


def test_other_weights_at_the_same_place_are_another_beginning(home: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "base", "bert", layers=2)
    begun = {"kind": "shrink", "from": str(tmp_path / "base"), "layers": 1}
    tree = recipe(home, name="begun", student=begun, training={"epochs": 1, "batch_size": 16})
    stillroom.distill(tree, tmp_path / "run", until="train")
    before = (tmp_path / "run" / "control" / "model.safetensors").read_bytes()
    torch.manual_seed(5)
    model, tokenizer = pretrained.load(tmp_path / "base", "base")
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.1)
    pretrained.save(model, tokenizer, tmp_path / "base")
    stillroom.distill(tree, tmp_path / "run", until="train")
    assert (tmp_path / "run" / "control" / "model.safetensors").read_bytes() != before
