"""The report of a language run: what it says and in which order, what it must not say, and text from data."""

from __future__ import annotations

import html
import math
import random
from typing import Any

import pytest
import yaml

from report.language_run import LOSS, MASKED_LOSS, about, language_run
from report.page_reader import EVIL, Page, check_page, leaves, put
from stillroom.report import language_sections
from stillroom.report import numbers as n
from stillroom.report.card import model_card
from stillroom.report.language_verdict import figures, verdict
from stillroom.report.language_words import token
from stillroom.report.notebook import table
from stillroom.report.page import render, render_panels

ORDER = (
    "The models, side by side",
    "How the soft targets were kept",
    "How training went",
    "Loss by position in the window",
    "Single places in the test text",
    "What they write",
    "Diagnosis",
    "What a billion tokens cost",
    "How it was made",
    "How to read this page",
)
TOLD = {"recipe_yaml", "versions", "why", "prompt", "context"}
"""Who or what is spoken of, where a hole would be no missing number."""


def test_a_whole_causal_run_is_shown_in_order() -> None:
    scorecard, details = language_run()
    page = check_page(render(scorecard, details))
    places = [page.text.index(f"{heading} ") for heading in ORDER]
    assert places == sorted(places)
    bits = LOSS["student"] / math.log(2) / 4.31
    assert f"{bits:.3f}" in page.text
    assert f"{math.exp(LOSS['teacher']):.1f}" in page.text
    assert "60 bytes kept of each answer of the teacher every probability would take 98,304" in page.text
    assert "each of 49,152 tokens" in page.text
    assert "Kept were 60 bytes, 0.06% of that" in page.text
    assert "On 289,052 test tokens in 1,138 windows of text, 5 seeds" in page.text
    for word in ("Training text", "Test text", "What other sizes would lose", "What they write", "top k alone"):
        assert word in page.text
    assert "label" not in page.text[page.text.index(ORDER[3]) : page.text.index(ORDER[6])], "tokens have no labels"
    charts = [attrs for attrs in page.all("svg") if attrs.get("role") == "img"]
    assert len(charts) > 20
    assert all(attrs.get("scope") for attrs in page.all("th"))


def test_a_masked_run_has_no_bits_per_byte_and_no_writing() -> None:
    scorecard, details = language_run("masked")
    page = check_page(render(scorecard, details))
    assert "Bits per byte surprise" not in page.text
    assert "What they write" not in page.text
    assert "some tokens (words or pieces of words) are hidden" in page.text
    assert "every book in the town library ." in page.text, "what comes after a hidden token is shown"
    assert f"{MASKED_LOSS['student']:.3f} against {MASKED_LOSS['teacher']:.3f}" in page.text


def test_the_verdict_is_one_sentence() -> None:
    assert verdict(language_run()[0]) == (
        "The student is 1.7× smaller, 1.9× faster and 1.9× cheaper to run than its teacher and needs 0.098 more bits for "
        "each byte of unseen text (1.142 against 1.044; perplexity 30.3 against 22.6); it is 0.045 bits per byte better "
        "than the same network trained on the text alone (1.142 against 1.187; perplexity 30.3 against 34.7; 95% interval "
        "+0.041 to +0.050)."
    )
    assert "0.270 nats more log loss on each hidden token" in verdict(language_run("masked")[0])


@pytest.mark.parametrize(
    ("mean", "half", "words"),
    [
        (-0.002, 0.005, "stays open: +0.002 bits per byte, and the 95% interval −0.003 to +0.007 includes 0"),
        (0.03, 0.01, "0.030 bits per byte worse than the same network trained on the text alone"),
        (0.03, 0.01, "95% interval +0.020 to +0.040), so the teacher did harm"),
    ],
)
def test_the_verdict_is_honest_about_the_control(mean: float, half: float, words: str) -> None:
    scorecard = language_run()[0]
    scorecard["differences"]["student-control"]["bits_per_byte"] = about(mean, half)
    assert words in verdict(scorecard)


def test_the_verdict_where_little_was_measured() -> None:
    scorecard = language_run()[0]
    scorecard["differences"] = {}
    del scorecard["models"]["control"]
    assert "no control was trained, so nobody can say" in verdict(scorecard)
    models = {"teacher": {"accuracy": {"mean": 0.4}}, "student": {"accuracy": {"mean": 0.39}}}
    assert "gives up 1.0 point of accuracy" in verdict({"task": "language", "models": models})
    models = {"control": {"perplexity": {"mean": 9.0}}, "student": {"perplexity": {"mean": 8.0}}}
    assert verdict({"task": "language", "models": models}) == (
        "Of the student: it is 1.00 of perplexity ahead of the same network trained on the text alone (8.00 against 9.00), "
        "measured without an interval, so that may be chance."
    )
    same = {"bits_per_byte": {"mean": 1.0}}
    assert "predicts text as well" in verdict({"task": "language", "models": {"teacher": same, "student": same}})


def test_the_large_figures() -> None:
    found = {figure.what: figure for figure in figures(language_run()[0])}
    assert found["bits per byte worse than the teacher"].value == "0.098"
    assert found["bits per byte better than the control"].detail == "95% interval 0.041 to 0.050"
    assert found["faster"].detail == "25.5 ms for a token against 47.2 ms"
    masked = {figure.what: figure for figure in figures(language_run("masked")[0])}
    assert masked["faster"].detail == "763 tokens a second against 412"


def test_bits_per_byte_decide_and_less_is_more() -> None:
    scorecard = language_run()[0]
    assert n.primary(scorecard).key == "bits_per_byte"
    gained = n.gain(scorecard, "student", "control")
    assert gained is not None
    assert gained.mean > 0
    assert n.primary(language_run("masked")[0]).key == "nll"


def test_places_show_what_stands_there_and_what_was_missed() -> None:
    page = check_page(render(*language_run()))
    assert "nearly every book in the town library" in page.text
    assert "The text says “library”, and nothing else." in page.text
    assert "The teacher says 57% “library”, 12% “.”, 9% “'s” and more." in page.text
    assert "what came is not among its five; all other tokens together 22%" in page.text
    assert "<|endoftex…" in page.text
    assert page.text.count("the token in the text") > 5


@pytest.mark.parametrize(
    ("given", "seen"),
    [(" the", "␣the"), ("\n\n", "↵↵"), ("", "(empty)"), ("a\x00b", "a�b"), (None, "(empty)"), ("<b>", "<b>")],
)
def test_tokens_can_be_seen(given: object, seen: str) -> None:
    assert token(given) == seen


def test_long_texts_are_cut() -> None:
    scorecard, details = language_run()
    details["examples"][0]["context"] = "far " * 500 + "near"
    details["samples"][0] = {"prompt": "So it goes", "models": {"student": "So it goes" + " on" * 900}}
    page = check_page(render(scorecard, details))
    assert "…" in page.text
    assert page.text.count("far") < 160, "280 letters, at two places"
    assert page.text.count(" on on") < 260
    assert page.text.count("So it goes") == 1, "what a model wrote does not repeat its prompt"


def test_a_live_teacher_keeps_nothing() -> None:
    scorecard, details = language_run()
    scorecard["transfer_set"] = {}
    del details["fidelity"]
    page = check_page(render(scorecard, details))
    assert "bytes kept of each answer" not in page.text
    assert "Kept were" not in page.text
    assert "What that lost" not in page.text
    assert "The teacher says" in page.text


def test_a_text_of_one_document_says_what_was_drawn() -> None:
    scorecard, details = language_run()
    scorecard["rows"]["drawn"] = "windows"
    assert (
        "95% intervals over windows, for the test text is one document" in check_page(render(scorecard, details)).text
    )


@pytest.mark.parametrize(
    ("context", "following", "after", "words"),
    [
        ("he was", "##ing", "##s by", ("he was", "ing", "s by")),
        ("he was", "tall", ", and", ("he was ", "tall", " , and")),
        ("he was", " tall", None, ("he was ", "tall", "")),
        ("he was ", "tall", " and", ("he was ", "tall", " and")),
        ("he was", "\n", "", ("he was", "↵", "")),
        ("", "tall", "", ("", "tall", "")),
    ],
)
def test_a_token_stands_among_its_words(
    context: str, following: str, after: str | None, words: tuple[str, ...]
) -> None:
    scorecard, details = language_run()
    example = {"context": context, "next": following, "models": {"teacher": [["x", 0.5]]}}
    details["examples"] = [example if after is None else {**example, "after": after}]
    found = language_sections.examples(scorecard, details, "p")
    assert found is not None
    assert tuple(found["cards"][0]["context"].values()) == words


def test_curves_and_norms_in_either_form() -> None:
    scorecard, details = language_run()
    text = render(scorecard, details)
    details["curves"] = {role: list(runs.values()) for role, runs in details["curves"].items()}
    details["gradient_norms"] = details["gradient_norms"]["student"]
    details["entropy"] = {"mean_nats": details["entropy"]["mean"], **details["entropy"]["histogram"]}
    assert render(scorecard, details) == text


def test_formats_are_compared_by_size() -> None:
    scorecard, details = language_run()
    details["fidelity"]["per_byte"] = [
        {"bytes": size, "kl": lost / size, "format": name}
        for name, lost in (("hidden tail", 16.0), ("top-k", 40.0))
        for size in (30, 60, 120)
    ]
    page = check_page(render(scorecard, details))
    assert "hidden tail ends at 0.133; top-k ends at 0.333." in page.text
    details["fidelity"]["per_byte"] = [[30, 0.5], [60, 0.27], [None, 1], "x"]
    assert "ends at 0.27" in check_page(render(scorecard, details)).text


def test_both_tasks_on_one_page(few_labels: tuple[dict[str, Any], dict[str, Any]]) -> None:
    page = check_page(
        render_panels(
            "Two",
            "Both.",
            [("Digits", "", *few_labels), ("Text", "", *language_run()), ("Holes", "", *language_run("masked"))],
        )
    )
    assert page.text.count("Training a small model on the answers of a large one, so that") == 1
    assert "Calibration Whether" in page.text
    assert "Perplexity The same as a count" in page.text


@pytest.mark.parametrize("architecture", ["causal", "masked"])
@pytest.mark.parametrize("seed", range(4))
def test_holes_in_the_numbers_are_left_out(architecture: str, seed: int) -> None:
    luck = random.Random(seed)
    scorecard, details = language_run(architecture)
    for tree in (scorecard, details):
        for path in leaves(tree):
            if luck.random() < 0.08 and not TOLD & set(path) and path[-1] not in ("task", "name"):
                put(tree, path, luck.choice([None, float("nan"), float("inf")]))
    check_page(render(scorecard, details))
    model_card(scorecard, details["about"])


def test_any_part_may_be_absent() -> None:
    scorecard, details = language_run()
    for key in details:
        check_page(render(scorecard, {**details, key: None}))
    for key in scorecard:
        check_page(render({other: value for other, value in scorecard.items() if other != key}, {}))
    check_page(render({"task": "language", "models": {}}, {}))
    check_page(render({"task": "language", "models": {"student": {}}}, {}))


def test_text_from_data_is_escaped() -> None:
    scorecard, details = language_run()
    evil = '"><img src=x onerror=alert(1)>'
    scorecard["name"] = EVIL
    scorecard["models"][EVIL] = dict(scorecard["models"]["student"])
    scorecard["transfer_set"]["fidelity"]["by_source"] = {EVIL: {"kl": 0.2, "total_variation": 0.1}}
    scorecard["gap_recovered"] = {"absent": EVIL}
    scorecard["transfer_set"]["tail"] = EVIL
    details["about"] = {"teacher": EVIL, "licences": {EVIL: EVIL}, "recipe_yaml": EVIL, "notes": [EVIL]}
    details["fidelity"]["per_byte"] = [{"bytes": size, "kl": 0.1, "format": EVIL} for size in (1, 2)]
    for part in ("curves", "nll_by_position"):
        details[part][EVIL] = details[part]["student"]
    details["gradient_norms"] = {"student": {EVIL: [1.0]}}
    for example in details["examples"]:
        example |= {"context": EVIL, "next": evil, "after": EVIL, "why": EVIL}
        example["models"] = {name: [[evil, 0.5], [EVIL, 0.2]] for name in ("teacher", "student", "control")}
    for sample in details["samples"]:
        sample |= {"prompt": EVIL, "models": {name: evil for name in ("teacher", "student", "control")}}
    text = render(scorecard, details)
    page = Page(text)
    assert page.open == []
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert "onerror" not in {key for _, attrs in page.tags for key in attrs}
    assert EVIL not in text
    assert html.escape(EVIL, quote=False).replace('"', "&#34;") in text


@pytest.mark.parametrize(("architecture", "tag"), [("causal", "text-generation"), ("masked", "fill-mask")])
def test_the_model_card(architecture: str, tag: str) -> None:
    scorecard, details = language_run(architecture)
    card = model_card(scorecard, details["about"])
    head = yaml.safe_load(card.split("---\n")[1])
    assert head == {"tags": ["knowledge-distillation", "stillroom"], "pipeline_tag": tag}
    assert "trained on the text alone" in card
    assert "- Soft targets: 60 of 98,304 bytes kept for each token; KL(teacher, kept) 0.263 nats" in card
    assert "1,912 training windows of text (489,472 tokens)" in card
    assert "- teacher: Apache-2.0" in card
    assert ("On 289,052 test tokens" if architecture == "causal" else "On 43,528 hidden tokens") in card
    assert "text like the test text" in card
    assert ("| Bits per byte |" in card) is (architecture == "causal")


def test_the_table_of_a_notebook() -> None:
    causal, masked = (table(language_run(architecture)[0]) for architecture in ("causal", "masked"))
    assert "<th>bits_per_byte</th>" in causal
    assert "<th>latency_ms_per_token</th>" in causal
    assert "30.33 <small>[29.66, 30.99]</small>" in causal
    assert "bits_per_byte" not in masked
    assert "latency_ms_per_token" not in masked
