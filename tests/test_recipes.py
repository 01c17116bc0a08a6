"""The shipped recipes that ask a teacher, each with the loopback teacher that ships beside it, through to the report; and the
one that learns from human rationales.

Rows, seeds and training are cut so that each takes seconds; what they promise to explain has to stand in the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from report.page_reader import Page
from stillroom import flow
from stillroom.loopback.serving import Loopback
from stillroom.recipe_file import apply_override, read_tree
from stillroom.rundir import read_json
from stillroom.starters import starter

pytest.importorskip("openai")
RECIPES = Path(__file__).parents[1] / "recipes"
CUTS = {
    "label": (
        "seeds=1", "training.epochs=4", "questions.labelled=60", "questions.rows.train=240", "questions.rows.validation=60",
        "questions.rows.test=120",
    ),
    "socratic": (
        "seeds=1", "training.epochs=3", "rounds.budgets=[64, 128]", "questions.split.test=100", "questions.split.validation=60",
    ),
    "reasoning": (
        "seeds=1", "training.epochs=1", "questions.rows.train=50", "questions.rows.test=12", "traces.write=40",
        "student.model.config.hidden_size=32", "student.model.config.intermediate_size=64",
        "student.model.config.num_hidden_layers=1",
    ),
    "gsm8k": (
        "questions.rows.train=8", "questions.rows.test=2", "training.epochs=1", "traces.write=12",
    ),
}  # fmt: skip


class Done(NamedTuple):
    """A finished run, what its report says, and what its teacher would charge."""

    folder: Path
    card: dict[str, Any]
    page: str
    bill: dict[str, Any]


def ran(name: str, folder: Path) -> Done:
    """The recipe of this name, cut, after its teacher was started from the file beside it."""
    spec, tree = read_tree(RECIPES / "loopback" / f"{name}.yaml"), read_tree(RECIPES / f"{name}.yaml")
    asked = tree["teacher"]
    assert (asked["model"], asked["price"]) == (spec["model"], spec["price"])
    teacher = Loopback(dict(spec), folder)
    with teacher as url:
        for cut in (f"teacher.base_url={url}", *CUTS[name]):
            apply_override(tree, cut)
        flow.distill(tree, folder / "run")
        bill = teacher.bill()
    page = Page((folder / "run" / "report.html").read_text()).text
    return Done(folder / "run", read_json(folder / "run" / "scorecard.json"), page, bill)


def explains_labels(done: Done) -> None:
    """How good the teacher is on labels of the user's own, beside the control; what it refused; what it cost."""
    asking, models = done.card["asking"], done.card["models"]
    assert models["teacher"]["accuracy"]["mean"] > 0.8
    assert f"Accuracy share of the test rows answered right {models['teacher']['accuracy']['mean']:.1%}" in done.page
    assert "The student's twin without a teacher: the same network, steps and seeds, on the labels alone." in done.page
    assert asking["purposes"]["label"]["calls"] >= 240
    assert f"answers to learn from {asking['purposes']['label']['calls']:,}" in done.page
    reasons = ", ".join(f"{reason} {count}" for reason, count in asking["refused"].items())
    assert reasons
    assert f"Answers that gave nothing to learn from, by reason: {reasons}." in done.page


def explains_rounds(done: Done) -> None:
    """The curve against random over calls and USD, and what was asked and why."""
    found = read_json(done.folder / "rounds" / "rounds.json")
    assert [one["calls"] for one in found["rounds"]][1:] == [64, 128]
    assert [one["calls"] for one in found["compare"]["random"]][1:] == [64, 128]
    ends = [
        f"{name} ends at {records[-1]['audit_accuracy']:.1%}"
        for name, records in (("margin", found["rounds"]), ("random", found["compare"]["random"]))
    ]
    assert "; ".join(ends) in done.page
    assert "calls to the teacher, and what so many cost accuracy on the audit slice" in done.page
    assert re.search(r"50 100 \$0 \$0\.\d+", done.page), "calls and USD stand on the axis"
    for one in found["rounds"]:
        assert re.search(rf"margin {one['calls']} \$0\.\d+ {one['learned']} ", done.page)
    asked = r"the student guessed (\w+) , the teacher said (\w+) \(asked because its two likeliest answers lay [\d.]+% apart\)"
    assert len(re.findall(asked, done.page)) >= 5


def explains_traces(done: Done) -> None:
    """Traces that were accepted and rejected with reasons, and the whole cost of one that was kept."""
    said = re.search(r"Accepted: (\d+) \(\d+%\); Rejected: (\d+) \(\d+%\)", done.page)
    assert said
    accepted, rejected = map(int, said.groups())
    paid = done.card["asking"]["purposes"]["trace"]
    assert accepted + rejected == paid["calls"]
    assert rejected > 0
    assert f"rejected: another answer than the gold one, {rejected}" in done.page
    assert re.search(r"rejected: -?\d+ is not \d+ · \$0\.0", done.page)
    assert "accepted: the same number" in done.page
    kept = re.search(
        r"traces kept (\d+) samples .* all samples cost \$([\d.]+) each kept trace cost \$([\d.]+)", done.page
    )
    assert kept
    traces, whole, each = int(kept[1]), float(kept[2]), float(kept[3])
    assert whole == pytest.approx(paid["usd"], rel=0.05)
    assert each == pytest.approx(paid["usd"] / traces, rel=0.05)
    assert "taught traces, whatever the verifier said" in done.page


@pytest.mark.parametrize(
    ("name", "explains"), [("label", explains_labels), ("socratic", explains_rounds), ("reasoning", explains_traces)]
)
def test_a_recipe_runs_offline_and_explains_itself(name: str, explains: Callable[[Done], None], tmp_path: Path) -> None:
    if name == "reasoning":
        pytest.importorskip("transformers", reason="the students of traces need the transformers package")
    done = ran(name, tmp_path)
    asking = done.card["asking"]
    never_came = asking.get("lost", {}).get("calls", 0)
    assert done.bill["calls"] == asking["calls"] - never_came
    assert "What the teacher was asked, and what that cost" in done.page
    assert {"teacher", "student", "control"} <= set(done.card["models"])
    explains(done)


def test_human_rationales_are_learned_end_to_end(
    stillroom_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Eight of GSM8K's own rationales as recorded answers; a tiny model stands for the one that the recipe tunes."""
    pytest.importorskip("peft", reason="adapters need the peft package")
    from tiny_language import write_model

    if not (stillroom_data / "gsm8k" / "train.jsonl").is_file():
        pytest.skip(f"{request.node.nodeid} needs gsm8k/train.jsonl in {stillroom_data}")
    tree, tiny = read_tree(RECIPES / "gsm8k.yaml"), write_model(tmp_path / "tiny", max_position_embeddings=1024)
    for cut in (f"student.from={tiny}", *CUTS["gsm8k"]):
        apply_override(tree, cut)
    card = flow.distill(tree, tmp_path / "run").scorecard
    assert card["task"] == "reasoning"
    assert card["rows"] == {"train": 8, "asked": 8, "test": 2}
    assert card["transfer_set"]["outcomes"] == {"accepted": 8, "rejected": 0, "unsure": 0}
    assert set(card["models"]) == {"student", "control"}  # nobody recorded answers to the test questions
    for model in card["models"].values():
        assert 0 <= model["exact_match"]["mean"] <= 1
        assert 1 <= model["answer_tokens"]["mean"] <= 12
    student, control = (read_json(tmp_path / "run" / name / "lesson.json") for name in ("student", "control"))
    assert (student["learn"], control["learn"]) == ("trace", "answer")
    assert (student["rows"], student["steps"]) == (control["rows"], control["steps"]) == (8, 1)
    assert control["tokens_per_row"] < student["tokens_per_row"]
    page = Page((tmp_path / "run" / "report.html").read_text()).text
    assert "Accepted: 8 (100%)" in page
    assert "by the verifier math" in page
    assert "the answers of the traces, without the reasoning" in page
    assert "MIT" in (tmp_path / "run" / "student" / "README.md").read_text()


@pytest.mark.parametrize("text", [starter("label", "my.yaml"), (RECIPES / "label.yaml").read_text()])
def test_recipes_of_labels_show_meanings_examples_and_how_answers_are_read(text: str) -> None:
    teacher = yaml.safe_load(text)["teacher"]
    assert all(teacher["labels"].values())
    assert {one["label"] for one in teacher["examples"]} <= set(teacher["labels"])
    assert len(teacher["examples"]) >= 2
    assert all(word in text for word in ("read:", "json", "logprobs"))
