"""Where a loopback teacher's answers come from: how often they are wrong, and what their distributions are worth."""

from __future__ import annotations

import csv
import itertools
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.loopback.arithmetic import Arithmetic
from stillroom.loopback.minds import Asked, count_tokens, tokens
from stillroom.loopback.rule import REFUSALS, Rule
from stillroom.loopback.spec import Spec
from stillroom.loopback.student import Student


def asked(question: str, draw: str = "0", **more: Any) -> Asked:
    """A question as a mind gets it."""
    return Asked([{"role": "user", "content": question}], question, draw, **more)


def text(mind: Any, one: Asked) -> str:
    """What a mind says."""
    return "".join(piece.text for piece in mind.say([one])[0].pieces)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"row {number}", "abcd"[number % 4]] for number in range(4000))
    return path


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_a_rule_errs_as_often_as_it_is_told_to(labelled: Path, rate: float) -> None:
    mind = Rule(source=(labelled.name,), error_rate=rate).build([labelled.parent])
    wrong = np.mean([text(mind, asked(f"row {one}", temperature=0)) != "abcd"[one % 4] for one in range(4000)])
    assert wrong == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / 4000) + 1e-12)


def test_a_rule_s_distribution_keeps_its_word(labelled: Path) -> None:
    """Of all labels given about p, whichever place they have in the distribution, a share of p is right."""
    mind = Rule(source=(labelled.name,), error_rate=0.3).build([labelled.parent])
    given, right = [], []
    for one in range(4000):
        found = mind.distribution(f"row {one}")
        assert found is not None
        assert sum(found.values()) == pytest.approx(1)
        for label, p in found.items():
            given.append(p)
            right.append(label == "abcd"[one % 4])
    given_N, right_N = np.array(given), np.array(right)
    for low, high in [(0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.001)]:
        inside = (given_N >= low) & (given_N < high)
        error = np.sqrt(max(given_N[inside].mean() * (1 - given_N[inside].mean()), 1e-4) / inside.sum())
        assert right_N[inside].mean() == pytest.approx(given_N[inside].mean(), abs=4 * error)


def test_drawn_labels_follow_the_distribution_and_its_temperature(labelled: Path) -> None:
    mind = Rule(source=(labelled.name,), error_rate=0.3).build([labelled.parent])
    found = next(p for one in range(100) if 0.3 < max((p := mind.distribution(f"row {one}")).values()) < 0.6)
    question = next(f"row {one}" for one in range(100) if mind.distribution(f"row {one}") == found)
    counts = {label: 0 for label in "abcd"}
    for draw in range(2000):
        counts[text(mind, asked(question, str(draw)))] += 1
    assert {label: count / 2000 for label, count in counts.items()} == pytest.approx(found, abs=0.05)
    cold = [text(mind, asked(question, str(draw), temperature=0.05)) for draw in range(50)]
    assert cold.count(max(found, key=lambda label: found[label])) >= 45


def test_confusion_says_which_labels_take_the_errors(labelled: Path) -> None:
    knobs = Rule(source=(labelled.name,), error_rate=0.3, confusion={"a": {"b": 1.0}})
    mind = knobs.build([labelled.parent])
    said = {text(mind, asked(f"row {one}", temperature=0)) for one in range(0, 4000, 4)}
    assert said == {"a", "b"}


def test_manners_of_a_rule(labelled: Path) -> None:
    knobs = Rule(source=(labelled.name,), error_rate=0.0, refuse=0.2, invent=0.1, chatter=0.3)
    mind = knobs.build([labelled.parent])
    said = [text(mind, asked(f"row {one}")) for one in range(2000)]
    assert sum(one in "abcd" for one in said) == pytest.approx(2000 * 0.7 * 0.7, rel=0.1)
    assert sum(one in REFUSALS for one in said) == pytest.approx(400, rel=0.2)
    assert sum(one in ("unsure", "mixed", "other") for one in said) == pytest.approx(200, rel=0.3)
    assert sum(one.startswith("The answer is ") for one in said) == pytest.approx(2000 * 0.7 * 0.3, rel=0.15)
    assert text(mind, asked("a row that is not there")) in REFUSALS


def test_an_unknown_text_may_be_taken_for_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("text,label\nmy card is lost,lost\nwhere is my refund,refund\n")
    mind = Rule(source=("few.csv",), error_rate=0.0, unknown="nearest").build([tmp_path])
    assert text(mind, asked("I think the card may be lost")) == "lost"
    assert text(mind, asked("refund where ?")) == "refund"


def test_a_mind_says_what_the_instruction_wants_said(labelled: Path) -> None:
    mind = Rule(source=(labelled.name,), error_rate=0.0, other=0.1).build([labelled.parent])
    system = {"role": "system", "content": "Choose one.\n- A = a: the first\n- B = b\nAnswer with its letter alone."}
    one = Asked([system, {"role": "user", "content": "row 1"}], "row 1", "0", temperature=0)
    piece = mind.say([one])[0].pieces[0]
    assert piece.text == "B"
    assert piece.distribution is not None
    assert {"A", "B", "c", "d"} < set(piece.distribution)


def test_the_question_is_found_in_the_message(labelled: Path) -> None:
    knobs = Rule(source=(labelled.name,), question=r"Text: (.*)")
    assert knobs.found("Is it a or b?\nText: row 3 ") == "row 3"
    assert knobs.found("row 4") == "row 4"
    assert Rule(source=(labelled.name,), question="(.*)").found("all of it") == "all of it"
    assert Rule(source=(labelled.name,), question="Text:( .*)?").found("Text:") == "Text:"


def test_a_rule_that_writes_gives_new_texts_of_the_label(tmp_path: Path) -> None:
    words = itertools.product(("fell", "broke"), ("here", "there"), ("today", "now"))
    rows = [f"my card {' '.join(three)},lost" for three in words]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows, "where is my refund,refund"]))
    knobs = Rule(source=("rows.csv",), error_rate=0.0, unknown="nearest", writes="^Write")
    mind = knobs.build([tmp_path])
    lines = text(mind, asked("Write 4 texts like these:\n- my card fell here today\n- where is my refund")).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("my card") for line in lines[::2])
    assert text(mind, asked("where is my refund", temperature=0)) == "refund"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("37+58+91", 186), ("457*23", 10511), ("What is 12 - 40 x 3?", -108), ("(7+5*3-8)%10", 8), ("(3-8*9)%10", 5),
        ("20 * 30", 600), ("105*0", 0), ("first 1+1, then 2+2", 4),
    ],
)  # fmt: skip
def test_arithmetic_is_right_where_it_does_not_err(question: str, answer: int) -> None:
    mind = Arithmetic(error_rate=0.0).build([])
    found = text(mind, asked(question))
    assert found.startswith("<think>\n")
    assert found.endswith(f"\n\nAnswer: {answer}")


def test_arithmetic_errs_as_often_as_it_is_told_to() -> None:
    mind = Arithmetic(error_rate=0.25).build([])
    wrong = [not text(mind, asked(f"{one}*37")).endswith(f"Answer: {one * 37}") for one in range(11, 2011)]
    assert np.mean(wrong) == pytest.approx(0.25, abs=0.04)
    by_step = Arithmetic(error_rate=0.1, per="step").build([])
    short = np.mean([not text(by_step, asked(f"{one}+1")).endswith(f"Answer: {one + 1}") for one in range(1000)])
    long = np.mean([not text(by_step, asked(f"{one}+1+1+1+1")).endswith(f"Answer: {one + 4}") for one in range(1000)])
    assert short == pytest.approx(0.1, abs=0.03)
    assert long == pytest.approx(1 - 0.9**4, abs=0.06)


def test_some_arithmetic_ends_without_an_answer() -> None:
    mind = Arithmetic(error_rate=0.0, no_answer=0.5).build([])
    assert np.mean(["Answer:" in text(mind, asked(f"{one}+1")) for one in range(500)]) == pytest.approx(0.5, abs=0.08)


def test_tokens_are_the_text_and_never_more_than_its_bytes() -> None:
    for one in ("a  b\n\nc", "1 + 1 = 2.", "über straße ", "", " ", "日本語のテキスト"):
        assert "".join(tokens(one)) == one
        assert len(tokens(one)) <= len(one.encode())
    message = {"role": "user", "content": [{"type": "text", "text": "one two"}]}
    assert count_tokens([message]) == 8


def test_a_student_answers_with_its_own_distribution(tmp_path: Path) -> None:
    import torch

    from stillroom import inputs
    from stillroom.kinds import Ground, parse
    from stillroom.models.classifier import Classifier
    from stillroom.models.device import Device

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 3))
    learned = inputs.learn(rows)
    torch.manual_seed(0)
    model = parse("model", {"kind": "mlp", "hidden": [4]})
    network = model.network(learned, 3, Ground([tmp_path]))
    classifier = Classifier(model, network, learned, ["x", "y", "z"], Device())
    classifier.save(tmp_path / "student")
    mind = Student(model="student", read="numbers", labels={"x": "ex"}).build([tmp_path])
    wanted = np.exp(classifier.log_probabilities(rows))
    for row_D, p_C in zip(rows[:5], wanted, strict=False):
        said = mind.say([asked(" ".join(map(repr, row_D.tolist())), temperature=0)])[0].pieces[0]
        assert list(said.distribution or {}) == ["ex", "y", "z"]
        assert list((said.distribution or {}).values()) == pytest.approx(p_C.tolist(), rel=1e-5)
        assert said.text == ["ex", "y", "z"][int(p_C.argmax())]
    both = mind.say([asked("1 2"), asked("1 2 3", temperature=0)])
    assert "".join(piece.text for piece in both[0].pieces) == "I cannot tell."
    assert both[1].pieces[0].text in ("ex", "y", "z")


RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "loopback"


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("label", "Text: my card was stolen yesterday"),
        ("socratic", "my card was stolen yesterday"),
        ("reasoning", "37+58*2"),
    ],
)
def test_shipped_teachers_answer(name: str, question: str) -> None:
    spec = Spec.load(RECIPES / f"{name}.yaml")
    assert text(spec.mind.build([RECIPES]), asked(spec.mind.found(question), temperature=0))


def test_the_teacher_of_the_flywheel_says_what_customers_want() -> None:
    from stillroom.questions.intents import NAMES, intents

    page = (RECIPES.parents[1] / "docs" / "how-to" / "flywheel.md").read_text()
    (line,) = [one for one in page.splitlines() if one.startswith("stillroom loopback")]
    _, _, file, *overrides, _ = shlex.split(line)
    spec = Spec.load(RECIPES.parents[1] / file, overrides)
    mind = spec.mind.build([RECIPES])
    texts, labels = intents(200, 0)
    said = [text(mind, asked(spec.mind.found(one), temperature=0)) for one in texts]
    assert set(said) >= set(NAMES)
    assert sum(map(str.__eq__, said, labels)) > 160
    assert text(mind, asked(spec.mind.found("Where is my order?"), temperature=0)) in NAMES


def test_every_shipped_teacher_is_tried() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {"label", "socratic", "reasoning"}


def test_built_in_texts_are_as_frequent_as_they_are_told_to_be() -> None:
    from stillroom.questions.intents import NAMES, ROWS, intents, shares

    texts, labels = intents(ROWS, 0)
    assert len(set(texts)) == len(texts) == ROWS
    assert intents(100, 0)[0] == texts[:100]
    found = [labels.count(name) / len(labels) for name in NAMES]
    assert found == pytest.approx(shares().tolist(), abs=0.04)
