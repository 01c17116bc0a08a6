"""Stored answers that came with log-probabilities teach how sure their teacher was; the others what was said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from benchmarks.service_process import Served
from tests.service.test_sources import lines

from scripted_endpoint import Endpoint, Reply, said
from service.conftest import with_teacher
from stillroom.errors import DataError
from stillroom.rundir import read_json
from stillroom.service.recipes.drafting import Talk, recorded
from stillroom.service.recipes.presets import OF_WORDS
from stillroom.service.recipes.talks import of_completion
from stillroom.teachers.recorded import Recorded

CLASSES = ("cancel", "refund", "return")
Position = dict[str, float]


def told(*positions: Position) -> dict[str, Any]:
    """Log-probabilities as an endpoint gives them; the first token of each position was chosen."""
    content = []
    for tokens in positions:
        top = [{"token": token, "logprob": math.log(p), "bytes": list(token.encode())} for token, p in tokens.items()]
        content.append({**top[0], "top_logprobs": top})
    return {"content": content, "refusal": None}


def stored(place: int, answer: str, logprobs: Any = None) -> Talk:
    """A stored completion as a job reads it."""
    request = {"messages": [{"role": "user", "content": f"question {place}"}]}
    choice = {"message": {"role": "assistant", "content": answer}, "logprobs": logprobs}
    found = of_completion({"id": f"c{place}", "request": request, "response": {"choices": [choice]}}, soft=True)
    assert isinstance(found, Talk)
    return found


def drafted(talks: list[Talk], data: Path) -> tuple[Any, dict[str, Any], np.ndarray[Any, Any]]:
    """What is drafted, its answers by question, and their probabilities as the recorded teacher of its recipe reads them."""
    found = recorded(talks, OF_WORDS, data, None, soft=True)
    knobs = {name: value for name, value in found.sections["teacher"].items() if name != "kind"}
    built = Recorded(**knobs).build(data, [data], list(CLASSES))
    assert "probabilities" in built.gives
    rows = lines(data / "answers.jsonl")
    return found, {row["text"]: place for place, row in enumerate(rows)}, np.exp(built._logs_MC)


def plain(count: int = 30) -> list[Talk]:
    return [stored(100 + place, CLASSES[place % 3]) for place in range(count)]


def test_log_probabilities_become_soft_targets(tmp_path: Path) -> None:
    rows = [
        stored(0, "cancel", told({"cancel": 0.7, "ref": 0.2, "ret": 0.1})),
        stored(1, "refund", told({"re": 0.8, "cancel": 0.2}, {"fund": 0.75, "turn": 0.25})),
        stored(3, "refund", told({"ref": 0.5, "cancel": 0.1, "The": 0.1})),
        stored(4, "cancel", told({"cancel": 0.5, "ref": 0.5})),
    ]
    found, place, p = drafted([*rows, *plain()], tmp_path)
    assert p[place["question 0"]] == pytest.approx([0.7, 0.2, 0.1])
    assert p[place["question 1"]] == pytest.approx([0.2, 0.6, 0.2])
    # Of the 0.3 that was not told, a class that was not seen has at most what the rarest token had: 0.1 of 0.7.
    assert p[place["question 3"]] == pytest.approx([1 / 7, 5 / 7, 1 / 7])
    assert p[place["question 4"]] == pytest.approx([0.5, 0.5, 0.0], abs=1e-9)
    assert p[place["question 100"]] == pytest.approx([1, 0, 0])
    assert found.sections["objectives"] == [{"kind": "soft_target", "temperature": 2}]
    assert found.note == (
        "Soft targets: 4 of 34 answers came with log-probabilities of the classes; of the other 30 what was said is learned"
    )
    assert {row["label"] for row in lines(tmp_path / "train.jsonl")} == {None}, "no control is claimed"


def test_marks_around_a_class_are_no_other_class(tmp_path: Path) -> None:
    rows = [stored(place, f'"{CLASSES[place % 3].upper()}".') for place in range(30)]
    sure = stored(99, '"REFUND".', told({'"': 1.0}, {"REF": 0.6, "CAN": 0.4}, {"UND": 1.0}, {'".': 1.0}))
    recorded([*rows, sure], OF_WORDS, tmp_path, None, soft=True)
    (found,) = [row for row in lines(tmp_path / "answers.jsonl") if row["text"] == "question 99"]
    assert found["top_logprobs"] == pytest.approx({'"REFUND".': math.log(0.6), '"CANCEL".': math.log(0.4)})


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {"content": None},
        {"content": []},
        [1, 2],
        {"content": [1]},
        {"content": [{"token": "refund", "logprob": 0.0}]},
        {"content": [{"token": "refund", "logprob": -0.1, "top_logprobs": []}]},
        {"content": [{"token": "refund", "logprob": -0.1, "top_logprobs": ["refund"]}]},
        told({"<think>": 0.98, "ref": 0.01}, {"hm": 1.0}),
        told({"I": 0.6, "ref": 0.4}),
    ],
)
def test_an_answer_that_does_not_say_how_sure_it_is_stays_what_was_said(logprobs: Any, tmp_path: Path) -> None:
    sure = stored(0, "cancel", told({"cancel": 0.7, "ref": 0.3}))
    found, place, p = drafted([sure, stored(1, "refund", logprobs), *plain()], tmp_path)
    assert p[place["question 1"]] == pytest.approx([0, 1, 0])
    assert found.note.startswith("Soft targets: 1 of 32")


def test_of_equal_answers_the_one_that_tells_more_is_learned(tmp_path: Path) -> None:
    sure = stored(0, "cancel\n", told({"cancel": 0.7, "ref": 0.3}))
    found, place, p = drafted([stored(0, "cancel"), sure, *plain()], tmp_path)
    assert p[place["question 0"]] == pytest.approx([0.7, 0.3, 0], abs=1e-9)
    assert len(found.rejected) == 1


def test_where_no_answer_tells_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of these 30 answers came with log-probabilities") as raised:
        recorded(plain(), OF_WORDS, tmp_path, None, soft=True)
    assert "top_logprobs: 20" in str(raised.value)
    assert recorded(plain(), OF_WORDS, tmp_path, None).sections["objectives"][0]["kind"] == "hard_label"


def script(body: dict[str, Any], number: int) -> Reply:
    """Is fairly sure, and tells how much where that is asked for."""
    kind = int(body["messages"][-1]["content"].split()[-1]) % 3
    other = CLASSES[(kind + 1) % 3]
    more = {"logprobs": told({CLASSES[kind]: 0.7, other: 0.3})} if body.get("logprobs") else {}
    return said(CLASSES[kind], **more)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, teacher: Endpoint) -> Iterator[Served]:
    with with_teacher(tmp_path_factory.mktemp("served"), teacher.url, name="big", model="big-1") as found:
        http = found.http()
        http.post(f"/api/projects/{found.first_project()}", json={"trains_on_stored": True}).raise_for_status()
        yield found


def test_a_job_is_made_of_how_sure_the_teacher_was(service: Served, client: openai.OpenAI) -> None:
    words = ("red", "green", "blue")

    def ask(place: int) -> None:
        more = {"logprobs": True, "top_logprobs": 5} if place % 2 else {}
        text = f"{words[place % 3]} parcel {place}"
        client.chat.completions.create(model="big", messages=[{"role": "user", "content": text}], store=True, **more)  # type: ignore[call-overload]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(60)))
    wanted = {"source": {"stored_completions": {"model": "big"}}, "soft_targets": True, "hold": True}
    job = client.fine_tuning.jobs.create(
        model="small-text-classifier", training_file="stored_completions", extra_body={"distillation": wanted}
    )
    service.wait(job.id, until=("paused",), within_s=300)
    events = [one.message for one in client.fine_tuning.jobs.list_events(job.id)]
    assert (
        "Soft targets: 30 of 60 answers came with log-probabilities of the classes; of the other 30 what was said is learned"
        in events
    )
    recipe = read_json(service.root / "jobs" / job.id / "recipe.json")
    assert recipe["objectives"][0]["kind"] == "soft_target"
    rows = lines(service.root / "jobs" / job.id / "data" / "answers.jsonl")
    told_of = {len(row["top_logprobs"]) for row in rows if int(row["text"].split()[-1]) % 2}
    assert told_of == {2}
    writer = client.fine_tuning.jobs.with_raw_response
    with pytest.raises(openai.BadRequestError) as raised:
        writer.create(model="tiny-language", training_file="x", extra_body={"distillation": wanted})
    assert (raised.value.code, raised.value.param) == ("not_soft", "distillation.soft_targets")
