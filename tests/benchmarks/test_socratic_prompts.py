"""The Socratic bench's fourth task: prompts chosen at equal tokens, none of them held out, and bits that are the model's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.socratic import PROMPTS, run
from benchmarks.socratic_prompt_students import Answer, doubts, surprise, untrained, windows_of
from benchmarks.socratic_prompts import DOUBT, START, UNTRAINED, WAYS, Chooser, prompts_of
from benchmarks.socratic_sizes import PromptSizes, Sizes

from benchmarks import socratic_prompts
from models.tiny_models import byte_pairs, tiny
from stillroom.models.language import LanguageModel
from stillroom.questions.dialogues import prompts
from stillroom.stages.round_writing import WRITE
from stillroom.teachers.api_reading import Sample
from stillroom.transfer_set.decontaminate import overlaps

THINGS = [
    f"{first}{rest}" for first in ("fox", "dog", "film", "story", "quick") for rest in ("es", "ish", "ed", "less")
]
SAID_TOKENS, WRITING_TOKENS = 6, 40


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small language model with random weights."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    tokenizer = byte_pairs()
    LanguageModel(tiny("llama", tokenizer, max_position_embeddings=1024), tokenizer, "causal").save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions in the form of GSM8K; of each there is a second one that shares most of its words."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "gsm8k").mkdir()
    dice = np.random.default_rng(0)
    texts = [" ".join(dice.choice(THINGS, 9)) for _ in range(100)]
    for part, several in (("train", texts), ("test", [f"{text} or {place}" for place, text in enumerate(texts)])):
        lines = [json.dumps({"question": text, "answer": "#### 1"}) for text in several]
        (folder / "gsm8k" / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def sizes_of(model: Path, **more: Any) -> PromptSizes:
    small = {"layers": 2, "held_out": 10, "pool": 150, "budget": 1000, "answer_tokens": 6, "steps": 2, "seeds": 1}
    return PromptSizes(str(model), **{**small, **more})


class Talker:
    """A teacher that answers without a model, and remembers what it was asked; it writes `gives` and one text of its own."""

    def __init__(self, gives: Sequence[str] = ()) -> None:
        self.gives, self.asked, self.wrote = list(gives), [], 0  # type: tuple[list[str], list[str], int]

    def chat(self, talks: Sequence[Any], purpose: str, **settings: Any) -> list[Sample]:
        said = []
        for text in (talk[-1]["content"] for talk in talks):
            if purpose == WRITE:
                self.wrote += 1
                own = "".join(np.random.default_rng(self.wrote).choice(list("abcdefghij  "), 30))
                said.append(Sample(json.dumps([*self.gives, own]), "stop", len(text) // 4, WRITING_TOKENS, 0.0))
            else:
                self.asked.append(text)
                said.append(Sample(text.split()[0], "stop", cost_of(text) - SAID_TOKENS, SAID_TOKENS, 0.0))
        return said


def cost_of(prompt: str) -> int:
    """Tokens of an answer to it, all in all."""
    return len(prompt) // 4 + SAID_TOKENS


def test_every_way_spends_the_same_tokens_and_pays_for_what_it_has_written(
    teacher: Path, data: Path, tmp_path: Path
) -> None:
    sizes = sizes_of(teacher)
    held_out, pool = prompts_of(sizes, data)
    chooser = Chooser(sizes, Talker(), held_out, pool, untrained(sizes, tmp_path), 0)
    assert START * sizes.budget - 30 < chooser.start.spent <= START * sizes.budget
    found = {way: chooser.bought(way) for way in WAYS}
    for way, one in found.items():
        answers = sum(cost_of(answer.prompt) for answer in one.answers)
        assert one.spent == answers + one.writing, way
        assert sizes.budget - max(map(cost_of, pool)) < one.spent <= sizes.budget, way
        assert one.answers[: len(chooser.start.answers)] == chooser.start.answers, way
        assert len({answer.prompt for answer in one.answers}) == len(one.answers), way
        new = [answer.prompt for answer in one.answers if answer.prompt not in pool]
        assert len(new) == one.written, way
        assert (one.writing > 0) == (one.written > 0) == (way in ("teacher_written", "reword")), way
    assert {one.prompt for one in found["random"].answers} != {one.prompt for one in found[DOUBT].answers}
    assert len(found["random"].answers) > len(found["reword"].answers), "writing costs answers"


def test_held_out_prompts_are_never_asked_to_learn_from(teacher: Path, data: Path, tmp_path: Path) -> None:
    sizes = sizes_of(teacher)
    held_out, pool = prompts_of(sizes, data)
    assert len(held_out) == 10
    assert not overlaps(pool, held_out)
    assert len(pool) <= 190 - len(held_out), "the likes of those held out are in no pool"
    talker = Talker([held_out[0], held_out[1] + "!", pool[0]])
    chooser = Chooser(sizes, talker, held_out, pool, untrained(sizes, tmp_path), 0)
    for way in WAYS:
        found = chooser.bought(way)
        assert (found.duplicates > 0) == (found.writing > 0), "what it wrote was known"
    assert talker.wrote
    assert not {text.strip("!") for text in talker.asked} & set(held_out)


def test_bits_are_the_models_own_and_a_cut_answer_has_no_end(teacher: Path) -> None:
    model = LanguageModel.load(teacher, "causal")
    whole, cut = Answer("a lazy dog", "jumps over", False), Answer("a lazy dog", "jumps over", True)
    windows = windows_of(model, [whole, cut, whole])
    bits_N, tokens_N = surprise(model, windows)
    assert tokens_N[0] == tokens_N[1] + 1 == tokens_N[2]
    assert bits_N[0] == pytest.approx(bits_N[2])
    assert bits_N[1] < bits_N[0]
    assert isinstance(windows.raw, dict)
    ids_BT, target_T = (
        torch.from_numpy(windows.raw["ids"][:1]).long(),
        torch.from_numpy(windows.raw["target"][0]).long(),
    )
    with torch.inference_mode():
        logits_TV = model.network.model(input_ids=ids_BT).logits[0]
    wanted = torch.nn.functional.cross_entropy(logits_TV, target_T, ignore_index=-1, reduction="sum")
    assert bits_N[0] * np.log(2) == pytest.approx(float(wanted), rel=1e-4)


def test_doubt_is_the_mean_entropy_of_what_it_would_say(teacher: Path) -> None:
    model = LanguageModel.load(teacher, "causal")
    texts = ["a lazy dog", "a film of quiet charm, and a story"]
    found_N = doubts(model, texts)
    ids = prompts(model.tokenizer, texts[1:])[0]
    said = model.generate([ids], socratic_prompts.DOUBTED_TOKENS)[0].ids
    with torch.inference_mode():
        logits_TV = model.network.model(input_ids=torch.tensor([[*ids, *said]])).logits[0, len(ids) - 1 : -1]
    wanted = torch.distributions.Categorical(logits=logits_TV).entropy().mean()
    assert found_N[1] == pytest.approx(float(wanted), rel=1e-4)
    assert found_N[0] != pytest.approx(found_N[1])


def test_a_language_model_behind_the_endpoint_is_asked_and_a_finished_task_asks_nothing(
    teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socratic_prompts, "PORT", 0)  # any that is free
    sizes = replace(Sizes(), prompts=sizes_of(teacher, budget=1100, held_out=6, write_tokens=60))
    table = run(PROMPTS, sizes, tmp_path, data).tables["prompts"]
    assert [row[0] for row in table.rows] == [UNTRAINED, *WAYS]
    assert "6 held-out prompts" in table.title
    told = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    spent = {way: int(told[way]["tokens spent"].replace(",", "")) for way in WAYS}
    assert all(1000 < tokens <= 1100 for tokens in spent.values()), spent
    assert int(told["teacher_written"]["of them writing"]) > 0
    lines = (tmp_path / PROMPTS / "students.jsonl").read_text().splitlines()
    bits = {line["name"]: line["found"]["bits"] for line in map(json.loads, lines)}
    assert len({tuple(several) for several in bits.values()}) == 1 + len(WAYS), "each student learned something else"

    def unexpected(*given: Any, **more: Any) -> Any:
        raise AssertionError("it was asked again")

    monkeypatch.setattr(socratic_prompts, "Loopback", unexpected)
    assert run(PROMPTS, sizes, tmp_path, data).tables["prompts"] == table
