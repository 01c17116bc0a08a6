"""The model card: what it must say, and what it must not guess."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from stillroom.report.card import model_card

Run = tuple[dict[str, Any], dict[str, Any]]


def head(card: str) -> dict[str, Any]:
    found = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_card_says_teacher_data_licences_and_figures(few_labels: Run) -> None:
    scorecard, details = few_labels
    card = model_card(scorecard, details["about"])
    assert head(card) == {"tags": ["knowledge-distillation", "stillroom", "classification"]}
    assert "not tested for safety, bias or robustness" in card
    assert "two networks of 64-96-96-10" in card
    assert "1,197 training rows, 100 of them labelled" in card
    assert "- teacher: unknown" in card
    assert "- data: CC BY 4.0" in card
    low, high = scorecard["models"]["student"]["accuracy"]["ci95"]
    assert f"[{100 * low:.1f} to {100 * high:.1f}%]" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert "for you to say" in card


def test_a_licence_is_taken_and_never_guessed() -> None:
    assert "license" not in head(model_card({}, {"licences": {"teacher": "MIT", "data": "MIT"}}))
    assert head(model_card({}, {"licences": {"student": "Apache-2.0"}}))["license"] == "apache-2.0"
    assert "- teacher: MIT and unknown" in model_card({}, {"licences": {"teacher": ["MIT", None]}})


def test_the_oracle_is_left_out(unseen_three: Run) -> None:
    scorecard, details = unseen_three
    card = model_card(scorecard, details["about"])
    assert "Student, oracle" not in card
    assert "Variants chosen with test labels are left out." in card
    assert "Recall of 3, a class no student saw" in card
    assert "Classes left out of the transfer set: 3" in card


@pytest.mark.parametrize("scorecard", [{}, {"models": {"student": {"accuracy": {"mean": float("nan")}}}}])
def test_a_card_from_next_to_nothing(scorecard: dict[str, Any]) -> None:
    card = model_card(scorecard, {})
    assert "nan" not in card
    assert "None" not in card
    assert "- Teacher: unknown" in card
    assert "not tested for safety" in card


def test_text_from_data_stays_text() -> None:
    about = {"teacher": "<script>x</script>\n# Loud | `code`", "licences": {"student": "a: b\n---\nevil: yes"}}
    card = model_card({"name": "[x](y)\n---"}, about)
    assert "<script>" not in card
    assert "\n# Loud" not in card
    assert r"\| \`code\`" in card
    assert set(head(card)) == {"license", "tags"}
