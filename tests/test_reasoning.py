"""Whole runs with a teacher that reasons: traces sampled and verified, students taught in every form, exam and report."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stillroom
from command_line import done, events
from reasoner import AskedReasoner
from run_folder import unnamed
from stillroom import kinds
from stillroom.errors import DataError, Interrupted, ModelError, RecipeError
from stillroom.flow import plan
from stillroom.recipe import Recipe
from stillroom.rundir import read_json
from stillroom.terminal import print_scorecard

TINY = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 96,
}  # fmt: skip
ARMS = {
    "gold": {"traces": {"learn": "gold", "equal": "tokens"}},
    "filler": {"traces": {"learn": "filler"}},
    "unverified": {"traces": {"of": "every"}},
    "wrong": {"traces": {"of": "rejected"}},
    "shuffled": {"traces": {"learn": "shuffled"}},
    "rationale": {"traces": {"learn": "rationale"}},
    "four": {"traces": {"samples": 4, "keep": 4}},
}


@pytest.fixture(scope="module", autouse=True)
def _reasoner() -> Iterator[None]:
    """The kind `reasoner` among the teachers."""
    kinds.TABLE["teacher"]["reasoner"] = "reasoner:Reasoner"
    kinds.table.cache_clear()
    yield
    del kinds.TABLE["teacher"]["reasoner"]
    kinds.table.cache_clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Sixty chains to learn from, and twenty to be judged by, five of them longer."""
    from stillroom.questions.arithmetic import BUILTIN, problems

    task, home = BUILTIN["chains"], tmp_path_factory.mktemp("chains")
    test = [*problems(task, 15, 0, held_out=True), *problems(task, 5, 0, held_out=True, longer=True)]
    for name, rows in (("train", problems(task, 60, 0)), ("test", test)):
        lines = [json.dumps({"question": one.question, "answer": one.answer, "length": one.length}) for one in rows]
        (home / f"{name}.jsonl").write_text("\n".join(lines))
    return {"train": str(home / "train.jsonl"), "test": str(home / "test.jsonl")}


def recipe(data: dict[str, str], **sections: Any) -> dict[str, Any]:
    """A tiny student of a teacher that works out chains."""
    questions = {"kind": "dataset", "source": data, "input": "question", "label": "answer", "slice": "length"}
    model = {"kind": "transformers", "task": "causal", "tokenizer": "characters", "config": TINY}
    whole = {
        "name": "reasoning",
        "seeds": 1,
        "questions": questions,
        "teacher": {"kind": "reasoner"},
        "student": {"kind": "fresh", "model": model},
        "traces": {"overlap": 0, "write": 40},
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 0.003},
        "evaluation": {"metrics": ["accuracy", "size", "cost"]},
    }
    return {key: value for key, value in {**whole, **sections}.items() if value is not None}


@pytest.fixture(scope="module")
def whole(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run with every arm."""
    return stillroom.distill(recipe(data, arms=ARMS, seeds=2), tmp_path_factory.mktemp("reasoning") / "run")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# a whole run


def test_a_run_ends_in_a_scorecard_and_a_report(whole: Any) -> None:
    card = whole.scorecard
    assert card["task"] == "reasoning"
    assert set(card["models"]) == {"teacher", "student", "control", *ARMS}
    for name, model in card["models"].items():
        assert 0 <= model["exact_match"]["mean"] <= 1
        assert (len(model["exact_match"]["per_seed"]) == 2) == (name != "teacher")
    assert "ci95" in card["differences"]["student-control"]["exact_match"]
    assert set(card["slices"]["student"]) == {"same", "longer"}
    assert card["slices"]["teacher"]["longer"]["rows"] == 5
    assert card["rows"] == {"train": 60, "asked": 60, "test": 20}
    page = (whole.path / "report.html").read_text()
    assert "What the teacher wrote, and what was kept" in page
    assert "another answer than the gold one" in page
    card_text = (whole.path / "student" / "README.md").read_text()
    assert "Exact match" in card_text
    assert not unnamed(whole.path)


def test_its_figures_are_shown_in_a_terminal(whole: Any) -> None:
    teacher = whole.scorecard["models"]["teacher"]["exact_match"]["mean"]
    assert f"{teacher:.4f}" in done("runs", "--root", whole.path.parent).out
    lines_of = done("compare", whole.path, whole.path).out.splitlines()
    assert any("teacher: exact match" in line and line.count(f"{teacher:.3f}") == 2 for line in lines_of)
    with redirect_stdout(io.StringIO()) as shown:
        print_scorecard(whole.scorecard, "reasoning")
    assert any(line.split()[:3] == ["exact", "match", f"{teacher:.3f}"] for line in shown.getvalue().splitlines())


def test_the_scorecard_is_what_the_verifier_said(whole: Any) -> None:
    said = lines(whole.path / "transfer_set" / "scored" / "traces.jsonl")
    right = sum(one["outcome"] == "accepted" for one in said) / len(said)
    assert whole.scorecard["models"]["teacher"]["exact_match"]["mean"] == pytest.approx(right)
    seconds, *written = lines(whole.path / "evaluation" / "predictions" / "student.1.jsonl")
    assert set(seconds) == {"seconds"}
    right = sum(one["outcome"] == "accepted" for one in written) / 20
    assert whole.scorecard["models"]["student"]["exact_match"]["per_seed"][1] == pytest.approx(right)


def test_traces_are_kept_with_their_verdicts_and_asking_stops_when_one_is_accepted(whole: Any) -> None:
    kept = lines(whole.path / "transfer_set" / "traces" / "traces.jsonl")
    of: dict[str, list[str]] = {}
    for one in kept:
        assert one["place"] == len(of.setdefault(one["key"], []))
        of[one["key"]].append(one["outcome"])
    assert len(of) == 60
    for outcomes in of.values():
        assert "accepted" not in outcomes[:-1]
        assert len(outcomes) == 4 or outcomes[-1] == "accepted"
    assert any(len(outcomes) > 1 for outcomes in of.values())
    told = whole.scorecard["transfer_set"]
    assert told["samples"] == len(kept) == sum(told["outcomes"].values())
    assert told["kept"] == sum("accepted" in outcomes for outcomes in of.values())
    assert told["tokens_per_kept"] == pytest.approx(
        sum(one["tokens_in"] + one["tokens_out"] for one in kept) / told["kept"]
    )
    assert "usd" not in told  # this teacher is not paid by the call


def test_each_role_is_taught_what_it_says(whole: Any) -> None:
    taught = {name: read_json(whole.path / f"{'' if name in ('student', 'control') else 'arms/'}{name}" / "lesson.json")
              for name in ("student", "control", *ARMS)}  # fmt: skip
    student = taught["student"]
    assert taught["control"]["rows"] == student["rows"]
    assert taught["control"]["steps"] == student["steps"]
    assert taught["control"]["tokens_per_row"] < student["tokens_per_row"]
    assert taught["gold"]["rows"] == 60
    assert taught["gold"]["steps"] > student["steps"]
    assert taught["gold"]["tokens_read"] == pytest.approx(student["tokens_read"], rel=0.3)
    assert taught["filler"]["tokens_per_row"] == pytest.approx(student["tokens_per_row"], abs=1.5)
    assert taught["shuffled"]["tokens"] == student["tokens"]
    assert taught["unverified"]["rows"] > student["rows"]
    rejected = whole.scorecard["transfer_set"]["outcomes"]["rejected"]
    assert 0 < taught["wrong"]["rows"] <= rejected  # each text once
    assert taught["rationale"]["rows"] == 2 * student["rows"]
    assert taught["four"]["rows"] > 0


def test_a_run_goes_on_and_asks_nothing_again(data: dict[str, str], tmp_path: Path) -> None:
    tree = recipe(data, name="halves")
    stillroom.distill(tree, tmp_path / "run", until="ask")
    asked = len(AskedReasoner.asked)
    run = stillroom.distill(tree, tmp_path / "run")
    assert len(AskedReasoner.asked) == asked
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.safetensors")}
    stillroom.distill(tree, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*.safetensors")} == before
    assert {event["name"] for event in events(run.path, "trained")} == {"student", "control"}


def test_another_verifier_reads_the_same_text_anew(data: dict[str, str], tmp_path: Path) -> None:
    stillroom.distill(recipe(data, name="judged"), tmp_path / "run", until="ask")
    first = (tmp_path / "run" / "transfer_set" / "traces" / "traces.jsonl").read_text()
    tree = recipe(data, name="judged", transfer_set={"verify": {"kind": "exact"}})
    stillroom.distill(tree, tmp_path / "run", until="ask")
    second = (tmp_path / "run" / "transfer_set" / "traces" / "traces.jsonl").read_text()
    assert first != second
    assert [json.loads(line)["outcome"] for line in first.splitlines()] == [
        json.loads(line)["outcome"] for line in second.splitlines()
    ]


def test_each_question_with_a_bad_gold_answer_counts(data: dict[str, str], tmp_path: Path) -> None:
    """Two of them with the same words, and two with none."""
    rows = lines(Path(data["train"]))
    for row, answer in ((3, "a few"), (9, "a few"), (20, None), (31, None), (44, "many")):
        rows[row]["answer"] = answer
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source, verify = {**data, "train": str(tmp_path / "train.jsonl")}, {"verify": {"kind": "numeric"}}
    run = stillroom.distill(recipe(source, name="bad", transfer_set=verify), tmp_path / "run")
    bad = read_json(run.path / "transfer_set" / "traces" / "facts.json")["bad_gold"]
    assert [(one["row"], one["gold"]) for one in bad] == [(3, "a few"), (9, "a few"), (20, ""), (31, ""), (44, "many")]
    assert bad[2]["reason"] == "there is no gold answer"
    assert run.scorecard["transfer_set"]["bad_gold"] == 5
    assert run.scorecard["rows"]["asked"] == 55


# recorded rationales


def test_human_rationales_are_learned_from_as_recorded_answers(data: dict[str, str], tmp_path: Path) -> None:
    rows = [
        {
            "question": f"Tom has {n} pens and buys {n + 3}.",
            "answer": f"He has {n}+{n + 3}={2 * n + 3}.\n#### {2 * n + 3}",
        }
        for n in range(40)
    ]
    (tmp_path / "pens.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    questions = {
        "kind": "dataset", "source": "pens.jsonl", "input": "question", "label": "answer", "split": {"test": 8},
    }  # fmt: skip
    teacher = {"kind": "recorded", "source": "pens.jsonl", "task": "reasoning"}
    tree = recipe(data, name="pens", questions=questions, teacher=teacher)
    run = stillroom.distill(tree, tmp_path / "run", folder=tmp_path)
    assert run.scorecard["transfer_set"]["outcomes"]["accepted"] == 32
    assert run.scorecard["models"]["teacher"]["exact_match"]["mean"] == 1  # the answers of its own file
    # Nobody counted their tokens.
    told = [*run.scorecard["transfer_set"], *run.scorecard["cost"], *run.scorecard["models"]["teacher"]]
    assert not [name for name in told if "token" in name]
    assert "answer_tokens" in run.scorecard["models"]["student"]
    control = read_json(run.path / "control" / "lesson.json")
    assert control["tokens_per_row"] < read_json(run.path / "student" / "lesson.json")["tokens_per_row"]


def test_traces_that_repeat_or_give_a_test_question_away_are_counted_and_not_learned_from(
    data: dict[str, str], tmp_path: Path
) -> None:
    rows = [{"question": f"What is {n} + {n + 3}?", "answer": f"{n}+{n + 3}\n#### {2 * n + 3}"} for n in range(20)]
    rows.append({"question": rows[4]["question"].upper(), "answer": rows[4]["answer"]})
    test = [{"question": "Tom has five apples and buys three more at the store", "answer": "#### 8"}]
    rows[7]["answer"] = f"As with {test[0]['question']}, 7+10\n#### 17"
    for name, several in (("train", rows), ("test", test)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, several)))
    questions = {
        "kind": "dataset", "source": {"train": "train.jsonl", "test": "test.jsonl"}, "input": "question", "label": "answer",
    }  # fmt: skip
    tree = recipe(data, name="copies", questions=questions, traces={"overlap": 8, "write": 20},
                  teacher={"kind": "recorded", "source": "train.jsonl", "task": "reasoning"})  # fmt: skip
    run = stillroom.distill(tree, tmp_path / "run", folder=tmp_path)
    told = run.scorecard["transfer_set"]
    assert (told["repeats"], told["overlapping"]) == (1, 1)
    assert told["outcomes"]["accepted"] == 21
    assert told["kept"] == read_json(run.path / "student" / "lesson.json")["rows"] == 19
    page = (run.path / "report.html").read_text()
    assert "traces left out that repeat another" in page
    assert "traces left out that share words with a test question" in page


# what goes wrong


def test_answers_that_are_all_rejected_stop_the_run(data: dict[str, str], tmp_path: Path) -> None:
    tree = recipe(data, name="hopeless", teacher={"kind": "reasoner", "slips": 1.0}, traces={"overlap": 0, "score": 0})
    with pytest.raises(ModelError, match=r"none of the first .* was accepted.*is not"):
        stillroom.distill(tree, tmp_path / "run")


def test_cut_answers_are_never_kept(data: dict[str, str], tmp_path: Path) -> None:
    traces = {"overlap": 0, "score": 0, "of": "every"}
    tree = recipe(data, name="cut", teacher={"kind": "reasoner", "cut": 0.5, "fails": 0.1}, traces=traces)
    run = stillroom.distill(tree, tmp_path / "run", until="train")
    kept = lines(run.path / "transfer_set" / "traces" / "traces.jsonl")
    whole = [one for one in kept if one["finish_reason"] == "stop"]
    assert 0 < len(whole) < len(kept)
    assert {one["outcome"] for one in kept if one["finish_reason"] == "length"} == {"unsure"}
    assert read_json(run.path / "student" / "lesson.json")["rows"] <= len(whole)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"traces": {"samples": 2, "keep": 3}}, "of at most 2 samples"),
        ({"objectives": [{"kind": "hard_label"}]}, "needs probabilities"),
        ({"training": {"patience": 2}}, "not for a teacher that reasons"),
        ({"transfer_set": {"live": True}}, "not for a teacher that reasons"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_asked(
    sections: dict[str, Any], told: str, data: dict[str, str], tmp_path: Path
) -> None:
    asked = len(AskedReasoner.asked)
    with pytest.raises(RecipeError, match=told):
        stillroom.distill(recipe(data, **sections), tmp_path / "run")
    assert len(AskedReasoner.asked) == asked


def test_the_plan_asks_nothing(data: dict[str, str]) -> None:
    asked = len(AskedReasoner.asked)
    found = plan(Recipe.from_tree(recipe(data, notes=["Read me."])), Path())
    assert len(AskedReasoner.asked) == asked
    assert found["figures"]["training questions"] == 60
    assert found["figures"]["minutes"] > 0
    assert found["notes"][-1] == "Read me."


def test_answers_of_a_stopped_exam_are_read_again_only_under_the_same_limit(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(marks: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("stillroom.evaluation.reasoning_exam.score_reasoning", stopped)
        with pytest.raises((KeyboardInterrupt, Interrupted)):
            stillroom.distill(recipe(data, name="stopped"), tmp_path / "run")
    run = stillroom.distill(recipe(data, name="stopped", traces={"overlap": 0, "write": 5}), tmp_path / "run")
    _, *written = lines(run.path / "evaluation" / "predictions" / "student.0.jsonl")
    assert max(one["tokens"] for one in written) == 5


def test_gold_answers_with_a_special_token_are_left_out_of_what_is_taught(data: dict[str, str], tmp_path: Path) -> None:
    rows = lines(Path(data["train"]))
    rows[7]["answer"] += "<|endoftext|>"
    (tmp_path / "odd.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tree = recipe(
        {**data, "train": str(tmp_path / "odd.jsonl")}, name="gold", arms={"gold": {"traces": {"learn": "gold"}}}
    )
    run = stillroom.distill(tree, tmp_path / "run", until="train")
    lesson = read_json(run.path / "arms" / "gold" / "lesson.json")
    assert lesson["left_out"] == {"with a special token in it": 1}


def test_traces_longer_than_the_student_can_read_are_left_out_and_told_of(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = AskedReasoner._said

    def wordy(self: AskedReasoner, question: str, place: int) -> Any:
        said = plain(self, question, place)
        long = said is not None and question.startswith("(1")
        return (
            replace(said, text=said.text.replace("</think>", " and so on" * 400 + "</think>"))
            if long and said
            else said
        )

    monkeypatch.setattr(AskedReasoner, "_said", wordy)
    run = stillroom.distill(recipe(data, name="wordy"), tmp_path / "run")
    lessons = {name: read_json(run.path / name / "lesson.json") for name in ("student", "control")}
    assert list(lessons["student"]["left_out"]) == ["longer than the student can read"]
    assert lessons["control"]["rows"] == lessons["student"]["rows"] > 0
    assert lessons["control"]["left_out"] == lessons["student"]["left_out"]
    count = lessons["student"]["left_out"]["longer than the student can read"]
    assert f"left out: {count} longer than the student can read" in (run.path / "report.html").read_text()
    monkeypatch.setattr(AskedReasoner, "_said", lambda self, question, place: replace(
        plain(self, question, place), text="<think>" + "and so on " * 400 + "</think>\n#### 3"))  # fmt: skip
    with pytest.raises(DataError, match="it is not cut"):
        stillroom.distill(recipe(data, name="too wordy", transfer_set={"verify": "majority"}), tmp_path / "none")


def test_a_trace_with_a_special_token_is_left_out_and_a_question_with_one_refused(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = AskedReasoner._said

    def marked(self: AskedReasoner, question: str, place: int) -> Any:
        said = plain(self, question, place)
        ends = said is not None and question.startswith("(1")
        return replace(said, text=said.text.replace("</think>", "<|endoftext|></think>")) if ends and said else said

    monkeypatch.setattr(AskedReasoner, "_said", marked)
    run = stillroom.distill(recipe(data, name="marked"), tmp_path / "run", until="train")
    lesson = read_json(run.path / "student" / "lesson.json")
    assert list(lesson["left_out"]) == ["with a special token in it"]
    assert min(lesson["rows"], *lesson["left_out"].values()) > 0
    questions = lines(Path(data["train"]))
    questions[7]["question"] += "<|assistant|>"
    (tmp_path / "odd.jsonl").write_text("\n".join(json.dumps(row) for row in questions))
    asked = len(AskedReasoner.asked)
    source = {**data, "train": str(tmp_path / "odd.jsonl")}
    with pytest.raises(DataError, match=r"holds '<.assistant.>', which is a special token .*questions, question 8"):
        stillroom.distill(recipe(source, name="odd"), tmp_path / "odd")
    assert len(AskedReasoner.asked) == asked
