"""A teacher that is known by what it said: conversations and questions with answers, learned token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny_models import byte_pairs

import stillroom
from command_line import done, events
from stillroom.errors import DataError, RecipeError, StillroomError, WrongAnswer
from stillroom.models import pretrained
from stillroom.models.tokenizers import chat
from stillroom.recipe import Recipe
from stillroom.rundir import read_json, write_json
from stillroom.stages.opening import opened
from tiny_language import WORDS, write_model

ROWS = 40


def problem(row: int) -> dict[str, str]:
    """As GSM8K writes them: a question, a rationale, and `#### ` before the answer."""
    return {"question": f"{row} and {row} is", "answer": f"{row} plus {row} is\n#### {2 * row}"}


def talk(question: str, answer: str, *before: dict[str, str]) -> dict[str, Any]:
    asked = {"role": "user", "content": question}
    return {"messages": [*before, asked, {"role": "assistant", "content": answer}]}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template, problems with answers, and other answers to them by another teacher."""
    folder = tmp_path_factory.mktemp("words")
    write_model(folder / "chatty", "llama", tokenizer=byte_pairs(300), layers=2, max_position_embeddings=128)
    write(folder / "problems.jsonl", [problem(row) for row in range(ROWS)])
    write(folder / "said.jsonl", [talk(problem(row)["question"], f"it was {WORDS[row % 9]}") for row in range(ROWS)])
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    return tmp_path


def recipe(**sections: Any) -> dict[str, Any]:
    whole = {
        "name": "words",
        "seeds": 2,
        "questions": {
            "kind": "dataset",
            "source": "problems.jsonl",
            "window": 64,
            "split": {"validation": 4, "test": 6},
        },
        "teacher": {"kind": "recorded", "source": "said.jsonl", "task": "causal"},
        "student": {"kind": "pretrained", "from": "chatty", "task": "causal"},
        "objectives": [{"kind": "trace"}],
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01},
        "evaluation": {"metrics": ["accuracy", "agreement", "size", "cost"]},
    }
    return {key: value for key, value in {**whole, **sections}.items() if value is not None}


def test_a_run_on_what_another_teacher_said(here: Path) -> None:
    run = stillroom.distill(recipe(), here / "run")
    card = run.scorecard
    models = card["models"]
    assert set(models) == {"student", "control", "before"}
    for model in models.values():
        assert model["bits_per_byte"]["mean"] > 0
        assert "kl_to_teacher" not in model
        assert "agreement" not in model
    # The student learns what is asked of it on held-out questions; the control learned other words, `before` nothing.
    assert models["student"]["nll"]["mean"] < models["control"]["nll"]["mean"]
    assert models["student"]["nll"]["mean"] < models["before"]["nll"]["mean"]
    assert len(models["before"]["nll"]["per_seed"]) == 1
    assert len(models["student"]["nll"]["per_seed"]) == 2
    assert "student-control" in card["differences"]
    assert "absent" in card["gap_recovered"]
    assert events(run.path, "asked") == []
    before, _ = pretrained.load(run.path / "before", "causal")
    chatty, _ = pretrained.load(here / "chatty", "causal")
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(before.parameters(), chatty.parameters(), strict=True))
    page = (run.path / "report.html").read_text()
    assert "recorded in said.jsonl" in page
    trained = len(events(run.path, "trained"))
    stillroom.distill(recipe(), here / "run")
    assert len(events(run.path, "trained")) == trained


def test_the_loss_is_on_the_assistants_tokens_alone(here: Path) -> None:
    """Of held-out questions, too: the nats of `before` are those of the template's own scored tokens."""
    tree = recipe(seeds=1, evaluation={"metrics": ["accuracy"]}, training={"epochs": 1, "batch_size": 8})
    run = stillroom.distill(tree, here / "run")
    model, tokenizer = pretrained.load(here / "chatty", "causal")
    told = np.fromfile(run.path / "evaluation/predictions/before.0.test.nll.f32", np.float32)
    test = read_json(run.path / "scorecard.json")["rows"]
    assert (test["test"], test["documents"]) == (6, 6)
    target = np.fromfile(run.path / "evaluation/predictions/test.target.i32", np.int32)
    with opened(Recipe.from_tree(tree), run.path, here) as again:
        rows = again.splits.test.row_N.tolist()
    assert len(set(rows)) == 6
    expected, nats = list[int](), list[float]()
    for row in rows:
        ids, scored = chat(tokenizer, talk(problem(row)["question"], f"it was {WORDS[row % 9]}")["messages"])
        with torch.inference_mode():
            log_p = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(1)
        places = [at for at in range(1, len(ids)) if scored[at]]
        expected += [ids[at] for at in places]
        nats += [-float(log_p[at - 1, ids[at]]) for at in places]
    assert target.tolist() == expected
    assert told == pytest.approx(nats, abs=1e-4)
    # What is scored ends with the token that ends the answer.
    assert (target == tokenizer.convert_tokens_to_ids("<|end|>")).sum() == 6


def test_the_questions_own_words_have_no_control(here: Path) -> None:
    """GSM8K's rationales: what is recorded is what the questions say, so the control would be the student."""
    run = stillroom.distill(
        recipe(teacher={"kind": "recorded", "source": "problems.jsonl", "task": "causal"}), here / "run"
    )
    assert set(run.scorecard["models"]) == {"student", "before"}
    assert "before-student" in run.scorecard["differences"]
    page = (run.path / "report.html").read_text()
    assert "before its first step" in page
    assert "stillroom train RUN" not in page
    said = stillroom.load_student(run.path).generate(["3 and 3 is"], 4)
    assert said[0].ids


@pytest.mark.parametrize(
    "student",
    [
        {"kind": "lora", "from": "chatty", "rank": 2},
        {"kind": "shrink", "from": "chatty", "layers": 1},
        {
            "kind": "fresh",
            "model": {
                "kind": "transformers", "task": "causal", "tokenizer": "chatty",
                "config": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64},
            },
        },
    ],
    ids=["lora", "shrink", "fresh"],
)  # fmt: skip
def test_every_kind_of_student(student: dict[str, Any], here: Path) -> None:
    evaluation = {"metrics": ["accuracy"]}
    run = stillroom.distill(recipe(student=student, seeds=1, evaluation=evaluation), here / "run")
    wanted = {"student", "control"} | ({"before"} if student["kind"] != "fresh" else set())
    assert set(run.scorecard["models"]) == wanted
    assert (run.path / "report.html").is_file()


def test_several_answers_to_one_question_are_all_learned(here: Path) -> None:
    rows = [talk(problem(row)["question"], f"it was {word}") for row in range(ROWS) for word in ("bad", "quick", "bad")]
    write(here / "several.jsonl", rows)
    tree = recipe(teacher={"kind": "recorded", "source": "several.jsonl", "task": "causal"}, seeds=1)
    told = json.loads(done("check", write_json_recipe(here, tree), "--json").out)
    assert told["figures"]["training rows"] == 2 * (ROWS - 10)
    assert told["figures"]["teacher calls"] == 0
    assert "train: 60 answers to 30 questions recorded in several.jsonl" in told["notes"]


def write_json_recipe(folder: Path, tree: dict[str, Any]) -> Path:
    write_json(folder / "recipe.json", tree)
    return folder / "recipe.json"


def test_texts_are_what_a_user_asks(here: Path) -> None:
    """A system's message in what was recorded is part of what the student reads."""
    write(here / "asked.jsonl", [{"text": problem(row)["question"]} for row in range(ROWS)])
    system = {"role": "system", "content": "go"}
    write(here / "told.jsonl", [talk(problem(row)["question"], "the lazy dog", system) for row in range(ROWS)])
    tree = recipe(
        questions={"kind": "dataset", "source": "asked.jsonl", "window": 64, "split": {"validation": 4, "test": 6}},
        teacher={"kind": "recorded", "source": "told.jsonl", "task": "causal"}, seeds=1,
    )  # fmt: skip
    run = stillroom.distill(tree, here / "run", until="train")
    assert not (run.path / "control").exists()
    assert (run.path / "before" / "manifest.json").is_file()


def test_held_out_questions_may_be_judged_by_their_own_words(here: Path) -> None:
    write(here / "few.jsonl", [talk(problem(row)["question"], "it was bad") for row in range(30)])
    write(here / "train.jsonl", [problem(row) for row in range(30)])
    write(here / "test.jsonl", [problem(row) for row in range(30, ROWS)])
    source = {"train": "train.jsonl", "test": "test.jsonl"}
    questions = {"kind": "dataset", "source": source, "window": 64, "split": {"validation": 4}}
    tree = recipe(questions=questions, teacher={"kind": "recorded", "source": "few.jsonl", "task": "causal"}, seeds=1)
    notes = json.loads(done("check", write_json_recipe(here, tree), "--json").out)["notes"]
    assert any("test: of 10 of 10 questions no answer is recorded; their own" in note for note in notes)
    write(here / "train.jsonl", [problem(row) for row in range(31)])
    with pytest.raises(
        WrongAnswer, match=r"1 of 2\d questions of train have no recorded answer \(few.jsonl, first: row "
    ):
        stillroom.distill(tree, here / "run")


def test_arms_compare_what_several_teachers_said(here: Path) -> None:
    own = {"kind": "recorded", "source": "problems.jsonl", "task": "causal"}
    with pytest.raises(RecipeError, match="this arm would be tested on other rows"):
        stillroom.distill(recipe(arms={"people": {"teacher": own}}), here / "run")
    arms = {"small": {"student": {"kind": "shrink", "from": "chatty", "layers": 1}}}
    run = stillroom.distill(recipe(arms=arms, seeds=1, evaluation={"metrics": ["accuracy"]}), here / "run")
    assert "small" in run.scorecard["models"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"messages": "no list"}], "these messages are no JSON (bad.jsonl, row 1)"),
        (
            [{"messages": [{"role": "user", "content": "hm"}]}],
            "does not end with what the assistant said (bad.jsonl, row 1)",
        ),
        ([{"messages": [{"role": "robot", "content": "hm"}]}], "a message wants a role"),
        ([{"question": "a", "answer": ""}], "does not end with what the assistant said"),
        ([{"asked": "a", "answer": "b"}], "there is no column 'question' (bad.jsonl)"),
    ],
)
def test_recorded_rows_that_are_no_conversations(rows: list[Any], told: str, here: Path) -> None:
    write(here / "bad.jsonl", rows)
    with pytest.raises(DataError) as error:
        stillroom.distill(recipe(teacher={"kind": "recorded", "source": "bad.jsonl", "task": "causal"}), here / "run")
    assert told in str(error.value)
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        (
            {"objectives": [{"kind": "soft_target", "temperature": 1}]},
            "the objectives need probabilities of the teacher",
        ),
        ({"transfer_set": {"live": True}}, "recorded answers are to the rows as they are, and to no others"),
        ({"student": {"kind": "shrink", "layers": 1}}, "the student is to be cut out of the teacher"),
        (
            {"student": {"kind": "fresh", "model": {"kind": "mlp"}}},
            "the student is for classification and the teacher for causal",
        ),
        (
            {"teacher": {"kind": "recorded", "source": "said.jsonl"}},
            "running text without labels, and a classifier learns",
        ),
        (
            {"teacher": {"kind": "recorded", "source": "said.jsonl", "task": "causal", "probabilities": {"a": "b"}}},
            "probabilities names columns of classes, and task: causal learns words",
        ),
    ],
)
def test_what_words_alone_do_not_tell(sections: dict[str, Any], told: str, here: Path) -> None:
    with pytest.raises(StillroomError) as error:
        stillroom.distill(recipe(**sections), here / "run")
    assert told in str(error.value)


def test_other_words_are_another_control(here: Path) -> None:
    """The control is trained anew where the questions' own words change, and only it."""
    parts = {"train": range(30), "validation": range(30, 34), "test": range(34, ROWS)}

    def weights(own: str) -> dict[str, bytes]:
        for name, rows in parts.items():
            write(here / f"{name}.jsonl", [{**problem(row), "answer": f"{own} {row}"} for row in rows])
        source = {name: f"{name}.jsonl" for name in parts}
        tree = recipe(seeds=1, questions={"kind": "dataset", "source": source, "window": 64})
        run = stillroom.distill(tree, here / "run", until="train")
        return {role: (run.path / role / "model.safetensors").read_bytes() for role in ("student", "control")}

    first, second = weights("the answer is"), weights("nobody knows")
    assert first["student"] == second["student"]
    assert first["control"] != second["control"]
