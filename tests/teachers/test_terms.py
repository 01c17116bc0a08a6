"""What is known of teachers' terms, who must have accepted them, and what an operator forbids."""

from __future__ import annotations

import pytest
import yaml

from stillroom.errors import RecipeError
from stillroom.recipe import AcceptedTerms
from stillroom.teachers.terms import KNOWN, check_terms, known_terms

ACCEPTED = AcceptedTerms(who="A firm", when="2026-01-02", url="https://example.org/terms", version="2025-12")
NAMES = [
    ({"base_url": "https://api.openai.com/v1"}, ["OpenAI terms of use"]),
    ({"base_url": "https://API.OpenAI.com/v1"}, ["OpenAI terms of use"]),
    ({"base_url": "https://openai.com.example.org/v1"}, []),
    ({"base_url": "https://x.openai.azure.com/openai/v1", "model": "ours"}, ["OpenAI terms of use"]),
    *[
        ({"base_url": "https://openrouter.ai/api/v1", "model": model}, ["OpenAI terms of use"])
        for model in (
            "openai/gpt-4o",
            "gpt-4o-mini",
            "gpt-35-turbo",
            "gpt-5",
            "o3-mini",
            "openai/o1",
            "o4-mini",
            "o3-2025-04-16",
        )
    ],
    *[
        ({"base_url": "https://openrouter.ai/api/v1", "model": model}, [])
        for model in ("openai/gpt-oss-20b", "gpt2", "EleutherAI/gpt-j-6b", "gpt-neox-20b", "olmo-2", "foo3-mini")
    ],
    ({"base_url": "https://notopenai.com/v1"}, []),
    ({"base_url": "https://api.anthropic.com/v1"}, ["Anthropic commercial terms"]),
    ({"base_url": "https://generativelanguage.googleapis.com/v1beta/openai"}, ["Gemini API additional terms"]),
    ({"base_url": "https://api.mistral.ai/v1"}, ["Mistral AI terms"]),
    ({"model": "mistral-small", "base_url": "http://localhost:1/v1"}, []),
    ({"model": "google/gemma-3-270m-it"}, ["Gemma terms of use"]),
    ({"licence": "Gemma"}, ["Gemma terms of use"]),
    ({"licence": "llama3"}, ["Llama 2 or Llama 3 community licence"]),
    ({"model": "meta-llama/Llama-2-7b"}, ["Llama 2 or Llama 3 community licence"]),
    ({"model": "llama3.2"}, ["Llama community licence, 3.1 and later"]),
    ({"model": "meta-llama/Llama-3.3-70B-Instruct"}, ["Llama community licence, 3.1 and later"]),
    ({"licence": "CC-BY-NC-4.0"}, ["a licence for non-commercial use"]),
    ({"licence": "Apache-2.0", "model": "Qwen/Qwen3-8B", "base_url": "http://localhost:8000/v1"}, []),
    ({"licence": "MIT", "model": "DeepSeek-R1"}, []),
    ({}, []),
]


@pytest.mark.parametrize(("teacher", "names"), NAMES)
def test_terms_are_known_by_host_licence_and_model(teacher: dict[str, str], names: list[str]) -> None:
    found = known_terms(teacher.get("licence"), teacher.get("base_url"), teacher.get("model"))
    assert [one.name for one in found] == names


def test_known_terms_must_have_been_accepted_and_are_recorded() -> None:
    with pytest.raises(RecipeError, match=r"OpenAI terms of use, https://\S+: they may forbid") as caught:
        check_terms(None, "https://api.openai.com/v1")
    assert "accept_terms" in caught.value.cure
    found = check_terms(None, "https://api.openai.com/v1", ACCEPTED)
    assert found["licence"] == "unknown"
    assert [one["name"] for one in found["terms"]] == ["OpenAI terms of use"]
    assert found["accepted"] == {"who": "A firm", "when": "2026-01-02", "url": ACCEPTED.url, "version": "2025-12"}


def test_a_teacher_without_known_terms_needs_no_acceptance() -> None:
    assert check_terms("Apache-2.0", "http://localhost:8000/v1") == {
        "licence": "Apache-2.0",
        "terms": [],
        "accepted": None,
    }


def test_every_entry_says_may_and_where_it_stands() -> None:
    for one in KNOWN:
        assert one.url.startswith("https://")
        assert " may " in f" {one.why} ", "terms change, and this program is no lawyer"


@pytest.mark.parametrize(
    ("forbidden", "is_forbidden"),
    [
        ("openai.com", True), ("api.openai.com", True), ("*.openai.com", True), (" OPENAI.COM , x", True),
        ("some-model", True), ("some-*", True), ("mit", True), ("", False), (",", False), ("pi.openai.com", False),
        ("anthropic.com", False), ("other*", False),
    ],
)  # fmt: skip
def test_an_operator_forbids_hosts_models_and_licences(
    forbidden: str, is_forbidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_FORBID_TEACHERS", forbidden)

    def check() -> None:
        check_terms("MIT", "https://api.openai.com/v1", ACCEPTED, "some-model")

    if is_forbidden:
        with pytest.raises(RecipeError, match="whoever runs this machine forbids"):
            check()
    else:
        check()


def test_a_day_and_a_version_may_be_written_without_quotes() -> None:
    found = AcceptedTerms.model_validate(
        yaml.safe_load("{who: A firm, when: 2026-01-31, url: 'https://example.org', version: 2025}")
    )
    assert (found.when, found.version) == ("2026-01-31", "2025")
