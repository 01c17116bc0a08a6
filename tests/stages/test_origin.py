"""What a transfer set, traces and a card say of licences and of terms that somebody accepted."""

from __future__ import annotations

from typing import Any

from stillroom.recipe import Recipe
from stillroom.stages.origin import licences_of, terms_of

ACCEPTED = {"who": "My firm", "when": "2026-01-31", "url": "https://openai.com/policies/", "version": "2025-06"}
IN_WORDS = "https://openai.com/policies/, version 2025-06, by My firm on 2026-01-31"
WRITER = {"kind": "openai_api", "task": "reasoning", "model": "gpt-4o-mini", "prompt": "{question}"}


def recipe(**sections: Any) -> Recipe:
    teacher = {**WRITER, "model": "a-32b", "base_url": "http://localhost:8000/v1", "licence": "Apache-2.0"}
    student = {"kind": "lora", "from": "a-model", "task": "causal"}
    questions = {"kind": "dataset", "source": "a.jsonl", "input": "question", "label": "answer"}
    return Recipe.from_tree({"name": "x", "questions": questions, "teacher": teacher, "student": student, **sections})


def test_whoever_writes_traces_again_and_who_accepted_the_terms_stand_beside_the_teacher() -> None:
    found = licences_of(recipe(traces={"rewrite": WRITER}, accept_terms=ACCEPTED))
    assert found == {
        "teacher": "Apache-2.0",
        "teacher 1": "Apache-2.0",
        "rewriter": "unknown (gpt-4o-mini at https://api.openai.com/v1)",
        "terms of the rewriter": "OpenAI terms of use, https://openai.com/policies/",
        "terms accepted": IN_WORDS,
    }


def test_without_known_terms_nothing_is_said_of_any() -> None:
    assert terms_of(recipe()) == {}
    assert licences_of(recipe()) == {"teacher": "Apache-2.0", "teacher 1": "Apache-2.0"}
