"""The page: what it says, what it must never say, and that no text from data can act on it."""

from __future__ import annotations

import copy
import html
import itertools
import random
import re
from typing import Any

import pytest

from report.page_reader import EVIL, Page, check_page, leaves, put
from stillroom.report.page import render, render_panels

Run = tuple[dict[str, Any], dict[str, Any]]
NAMES = {"classes", "omitted_classes", "recipe_yaml", "versions"}
"""Who or what is spoken of, where a hole would be no missing number."""


def minimal(**models: Any) -> dict[str, Any]:
    return {"schema": 1, "name": "small", "task": "classification", "models": models}


def test_a_whole_run_is_shown(few_labels: Run) -> None:
    page = check_page(render(*few_labels))
    for heading in (
        "The models, side by side",
        "The idea, on one row of this run",
        "What a billion answers cost",
        "Diagnosis",
        "What the teacher knows beyond labels",
        "Single rows",
        "How training went",
        "Whether they know how sure to be",
        "Quality against size",
        "How it was made",
        "How to read this page",
    ):
        assert heading in page.text
    scorecard = few_labels[0]
    assert f"{100 * scorecard['models']['student']['accuracy']['mean']:.1f}%" in page.text
    assert "Not given for this run: the teacher's lead over the control is under 4 standard errors." in page.text
    assert "teacher unknown" in page.text
    assert "data CC BY 4.0" in page.text
    assert len(page.all("img")) == 1 + len(few_labels[1]["examples"])
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert (
        page.text.index("The models, side by side") < page.text.index("Diagnosis") < page.text.index("How it was made")
    )


def test_charts_are_named_and_described(unseen_three: Run) -> None:
    text = render(*unseen_three)
    page = check_page(text)
    charts = [attrs for attrs in page.all("svg") if attrs.get("role") == "img"]
    assert len(charts) > 15
    assert all(attrs.get("aria-labelledby") for attrs in charts)
    assert all(attrs.get("aria-hidden") == "true" for attrs in page.all("svg") if attrs.get("role") != "img")
    assert len(
        re.findall(r'<svg class="chart"[^>]*><title id="[^"]+">[^<]+</title><desc id="[^"]+">[^<]+</desc>', text)
    ) == len(charts)
    assert all(attrs.get("scope") for attrs in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    levels = [int(tag[1]) for tag, _ in page.tags if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_unseen_classes_are_prominent_and_the_oracle_is_no_result(unseen_three: Run) -> None:
    page = check_page(render(*unseen_three))
    recall = unseen_three[0]["models"]["student"]["recall_by_class"]["3"]["mean"]
    assert f"{100 * recall:.0f}% of class 3 found, never having seen one" in page.text
    assert "Recall of 3 share found of a class that no student saw" in page.text
    assert "Not a result: Student, oracle" in page.text
    assert "A ceiling to compare with, never a result" in page.text
    sizes = page.text[page.text.index("Quality against size") : page.text.index("How it was made")]
    assert "oracle" not in sizes


def test_variants_stand_in_the_table_and_crowd_no_picture(unseen_three: Run) -> None:
    scorecard, details = copy.deepcopy(unseen_three)
    for name in ("student_uncorrected", "student_oracle"):
        for key in ("parameters", "size_bytes", "latency_ms_p50", "usd_per_million_rows", "rows_per_s"):
            del scorecard["models"][name][key]
        scorecard["differences"][f"{name}-control"] = scorecard["differences"]["student-control"]
        details["similarity"]["matrices"][name] = details["similarity"]["matrices"]["student"]
        details["reliability"][name] = details["reliability"]["student"]
    page = check_page(render(scorecard, details))
    assert "as student" in page.text
    assert "uncorrected over" not in page.text
    pictures = page.text[page.text.index("What the teacher knows beyond labels") :]
    assert "Student, uncorrected" not in pictures
    assert "Student, oracle" not in pictures


def test_long_names_are_cut_in_a_chart_and_whole_beside_it(few_labels: Run) -> None:
    scorecard = copy.deepcopy(few_labels[0])
    arm = "label-smoothing-of-the-same-mean-entropy-as-the-soft-targets"
    scorecard["models"][arm] = copy.deepcopy(scorecard["models"]["student"])
    scorecard["differences"][f"student-{arm}"] = scorecard["differences"]["student-control"]
    page = check_page(render(scorecard, {}))
    assert f"Student over {arm}: " in page.text
    assert re.search(r"Student over label-[\w-]+…", page.text)


def test_an_arm_of_another_network_is_not_called_the_same(few_labels: Run) -> None:
    scorecard = copy.deepcopy(few_labels[0])
    assert "all but the teacher are the same network" in check_page(render(scorecard, {})).text
    scorecard["models"]["wide"] = copy.deepcopy(scorecard["models"]["student"])
    scorecard["models"]["wide"]["parameters"] *= 4
    scorecard["differences"]["wide-student"] = scorecard["differences"]["student-control"]
    text = check_page(render(scorecard, {})).text
    assert "are the same network" not in text
    assert "that of wide is not the student's" in text


def test_where_nothing_has_an_interval_the_table_speaks_of_none(few_labels: Run) -> None:
    assert "Small figures are 95% intervals" in check_page(render(few_labels[0], {})).text
    scorecard = copy.deepcopy(few_labels[0])
    for model in scorecard["models"].values():
        for figure in model.values():
            if isinstance(figure, dict):
                figure.pop("ci95", None)
    assert "Small figures" not in check_page(render(scorecard, {})).text


def test_few_test_rows_are_said_at_the_top() -> None:
    scorecard = minimal(student={"accuracy": {"mean": 1.0}}, control={"accuracy": {"mean": 1.0}})
    scorecard |= {"rows": {"test": 1}, "differences": {"student-control": {"accuracy": {"mean": 0.0}}}}
    page = check_page(render(scorecard, {}))
    assert "Few test rows: 1 test row, so no figure here means much." in page.text
    assert "On 1 test row." in page.text
    assert "level with the same network trained on the labels alone" in page.text
    assert "95% intervals" not in page.text
    assert "Few test rows" not in check_page(render(scorecard | {"rows": {"test": 30}}, {})).text


def test_log_loss_is_compared_beside_accuracy(few_labels: Run) -> None:
    scorecard, details = copy.deepcopy(few_labels)
    assert "nats of log loss saved" not in check_page(render(scorecard, details)).text
    scorecard["differences"]["student-control"]["nll"] = {"mean": -0.07, "ci95": [-0.12, -0.02]}
    page = check_page(render(scorecard, details))
    assert "Who is better, in nats of log loss saved; the bar is the 95% interval" in page.text
    assert "+0.070 (+0.020 to +0.120)" in page.text


@pytest.mark.parametrize(
    ("rank", "says"), [(1.0, "the labels taught that too"), (0.4, "here labels alone did not show it all")]
)
def test_what_labels_teach_of_likeness_is_what_the_control_shows(few_labels: Run, rank: float, says: str) -> None:
    scorecard, details = copy.deepcopy(few_labels)
    details["similarity"]["rank_correlation"]["control"] = rank
    page = check_page(render(scorecard, details))
    assert says in page.text
    assert "The teacher finds these most alike" in page.text
    details["similarity"] = {
        "classes": ["a", "b", "c"],
        "matrices": {"teacher": [[0, 0.2, 0.1], [0.2, 0, 0.3], [0.1, 0.3, 0]]},
    }
    page = check_page(render(scorecard, details))
    assert "From most alike to least, to the teacher: c and b; b and a; c and a." in page.text
    details["similarity"]["matrices"] = {"student": details["similarity"]["matrices"]["teacher"]}
    page = check_page(render(scorecard, details))
    assert "From most alike to least, to the student: c and b" in page.text, "the teacher was not measured"


def test_rows_are_counted_from_one(few_labels: Run) -> None:
    scorecard, details = copy.deepcopy(few_labels)
    details["examples"][0]["row"] = 1872
    page = check_page(render(scorecard, details))
    assert "Row 1873" in page.text
    assert "Row 1872" not in page.text
    assert page.text.count("counted from 1 without the header") == 1


def test_several_panels_share_one_page(few_labels: Run, unseen_three: Run) -> None:
    text = render_panels(
        "Two runs", "What they show.", [("Few & far", "Labels.", *few_labels), ("Unseen", "A 3.", *unseen_three)]
    )
    page = check_page(text)
    assert page.text.count("How to read this page") == 2, "once in the contents, once as a heading"
    assert text.count('<dl class="glossary">') == 1
    assert [attrs["id"] for attrs in page.all("h2")] == ["p1-heading", "p2-heading", "glossary-heading"]
    assert page.all("nav")
    assert "Few &amp; far" in text
    assert len(page.all("h1")) == 1


@pytest.mark.parametrize(
    "scorecard",
    [
        {},
        minimal(),
        minimal(student={}),
        minimal(student={"accuracy": {"mean": 0.5}}),
        minimal(teacher={"accuracy": {"mean": 0.9}}, student={"accuracy": {"mean": 0.8}}),
        minimal(
            student={"accuracy": {"mean": 1.0, "ci95": [1.0, 1.0]}},
            control={"accuracy": {"mean": 1.0, "ci95": [1.0, 1.0]}},
        ),
        {
            **minimal(),
            "task": "language",
            "models": {"student": {"perplexity": {"mean": 9.1}}, "teacher": {"perplexity": {"mean": 8.0}}},
        },
    ],
)
def test_a_minimal_scorecard_is_shown(scorecard: dict[str, Any]) -> None:
    page = check_page(render(scorecard, {}))
    assert "How to read this page" in page.text


def test_what_was_not_measured_is_said_and_never_zero() -> None:
    models = {
        "teacher": {"accuracy": {"mean": 0.9}, "latency_ms_p50": {"mean": 2.0}},
        "student": {"accuracy": {"mean": 0.8}},
        "control": {"accuracy": {"mean": 0.7}, "nll": {"mean": float("nan")}, "ece": None},
    }
    page = check_page(render(minimal(**models), {}))
    assert "2.00 ms not measured not measured" in page.text
    assert "Log loss" not in page.text
    assert "Not measured in this run: cost of a million rows, size and calibration error" in page.text
    assert "The run was given no price" in page.text


@pytest.mark.parametrize("seed", range(4))
def test_holes_in_the_numbers_are_left_out(unseen_three: Run, seed: int) -> None:
    luck = random.Random(seed)
    scorecard, details = copy.deepcopy(unseen_three)
    for tree in (scorecard, details):
        for path in leaves(tree):
            if luck.random() < 0.08 and not NAMES & set(path):
                put(tree, path, luck.choice([None, float("nan"), float("inf")]))
    check_page(render(scorecard, details))


def test_any_part_may_be_absent(few_labels: Run) -> None:
    scorecard, details = few_labels
    for key in details:
        check_page(render(scorecard, {**details, key: None}))
    for key in scorecard:
        check_page(render({other: value for other, value in scorecard.items() if other != key}, {}))


def test_text_from_data_is_escaped(few_labels: Run) -> None:
    scorecard, details = copy.deepcopy(few_labels)
    evil = [EVIL, *[f'"><img src=x onerror=alert({c})>' for c in range(1, 10)]]
    scorecard["name"] = EVIL
    scorecard["models"][EVIL] = copy.deepcopy(scorecard["models"]["student"])
    scorecard["models"]["student"]["recall_by_class"] = {name: {"mean": 0.5} for name in evil}
    scorecard["models"]["student"][EVIL] = {"mean": 0.5}
    scorecard["omitted_classes"] = [EVIL]
    scorecard["gap_recovered"] = {"absent": EVIL}
    scorecard["versions"][EVIL] = EVIL
    details["similarity"]["classes"] = evil
    details["about"] = {
        "teacher": EVIL,
        "licences": {"teacher": EVIL, EVIL: [EVIL, None]},
        "recipe_yaml": EVIL,
        "notes": [EVIL],
        "temperature": 4,
    }
    details["curves"][EVIL] = details["curves"]["student"]
    details["reliability"][EVIL] = details["reliability"]["student"]
    details["similarity"]["matrices"][EVIL] = details["similarity"]["matrices"]["student"]
    details["gradient_norms"] = {EVIL: [1.0]}
    for example in details["examples"]:
        example |= {"label": EVIL, "row": EVIL, "why": EVIL, "text": EVIL, "columns": {EVIL: EVIL}}
    text = render_panels(EVIL, EVIL, [(EVIL, EVIL, scorecard, details)])
    page = Page(text)
    assert page.open == []
    assert len(page.all("script")) == 1
    assert "onerror" not in {key for _, attrs in page.tags for key in attrs}
    assert all((attrs.get("src") or "").startswith("data:image/png") for attrs in page.all("img"))
    assert EVIL not in text
    assert html.escape(EVIL, quote=False).replace('"', "&#34;") in text


def test_rows_of_text_and_of_columns_are_shown(few_labels: Run) -> None:
    details = copy.deepcopy(few_labels[1])
    first, second = details["examples"][:2]
    first |= {"image": None, "text": "word " * 400}
    second |= {
        "image": None,
        "columns": {"age": 41.5, "job": "baker", "pay": float("nan"), "left": None},
        "label": None,
    }
    page = check_page(render(few_labels[0], {**details, "examples": [first, second]}))
    assert "word word …" in page.text
    assert "age 41.50 job baker pay missing left missing" in page.text
    assert "No label" in page.text
    assert not page.all("img")


def test_colour_images_and_many_classes(few_labels: Run) -> None:
    count = 60
    names = [f"a rather long class name {c}" for c in range(count)]
    share = [1 / (3 + c) for c in range(count)]
    share = [value / sum(share) for value in share]
    pixels = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]]
    matrix = [[1 / (1 + i + j) for j in range(count)] for i in range(count)]
    example = {"row": 0, "label": names[50], "image": {"pixels": pixels}}
    example["probabilities"] = {"teacher": share, "student": share}
    similarity = {"classes": names, "matrices": {"teacher": matrix, "student": matrix}}
    details = {"similarity": similarity, "examples": [example]}
    text = render(few_labels[0], details)
    page = check_page(text)
    assert "Of 60 classes, the 20 in the most alike pairs are shown." in page.text
    assert text.count('class="cell') == 2 * 20 * 20
    assert "Not shown: 50 unlikely classes." in page.text
    assert len(page.all("img")) == 1


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_letters_and_marks_have_contrast_in_both_themes(few_labels: Run) -> None:
    found = re.findall(r"--([\w]+): light-dark\((#\w{6}), (#\w{6})\)", render(*few_labels))
    for place in (1, 2):
        colour = {name: values[place - 1] for name, *values in found}
        for paper in ("paper", "sheet", "tint"):
            for letters in ("ink", "quiet", "link", "bad", "fair", "fine"):
                assert contrast(colour[letters], colour[paper]) >= 4.5, (letters, paper, place)
            for mark in ("teacher", "student", "control", "hard", "arm1", "arm2", "arm3"):
                assert contrast(colour[mark], colour[paper]) >= 3, (mark, paper, place)


def test_an_arm_says_what_differs_and_its_long_name_stands_whole_above_its_value(few_labels: Run) -> None:
    scorecard, details = copy.deepcopy(few_labels)
    arm = "twice-the-epochs-warm-restarts"
    scorecard["models"][arm] = copy.deepcopy(scorecard["models"]["student"])
    scorecard["differences"][f"student-{arm}"] = scorecard["differences"]["student-control"]
    details["about"]["arms"] = {arm: "training.epochs=60"}
    text = render(scorecard, details)
    assert "a further student, made as the student is but for training.epochs=60." in check_page(text).text
    assert f">Student over {arm}<" in text
