"""Chat by finished students, as the official client sees it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks.service_process import Served
from sqlalchemy import select

from service import students
from stillroom.service.rows.tables import calls

KEY = "sk-a-long-secret-key-4242"
ASK = [{"role": "user", "content": "please refund order 7"}]
PRICE = {"input": 1.0, "output": 2.0}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that knows the teacher of its students by its price alone."""
    with Served(tmp_path_factory.mktemp("served")) as found:
        body = {"name": "rule", "base_url": "https://93.184.215.14/v1", "model": "rule", "price": PRICE}
        found.http().post("/api/teachers", json=body).raise_for_status()
        yield found


@pytest.fixture(scope="module")
def strict(service: Served) -> Iterator[openai.OpenAI]:
    """The official client, as strict as it can be."""
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="any", max_retries=0, timeout=180.0, _strict_response_validation=True
    ) as found:
        yield found


@pytest.fixture(scope="module")
def label(service: Served) -> str:
    return students.put(service, students.of_texts() / "student", "classifier", teacher="rule")


@pytest.fixture(scope="module")
def letters(service: Served) -> str:
    return students.put(service, students.of_letters(), "language")


def used(service: Served, model: str) -> list[dict[str, Any]]:
    """Rows of calls of a model, once they are written."""
    time.sleep(0.4)
    with service.rows.reading() as rows:
        return [dict(one) for one in rows.execute(select(calls).where(calls.c.model == model)).mappings()]


def asks(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_classifier_says_its_label(service: Served, strict: openai.OpenAI, label: str) -> None:
    right = 0
    for text, wanted in students.texts(30):
        answer = strict.chat.completions.create(model=label, messages=asks(text), temperature=1.7)
        assert answer.model == label
        assert answer.choices[0].finish_reason == "stop"
        right += answer.choices[0].message.content == wanted
    assert right >= 28
    row = used(service, label)[-1]
    assert (row["by"], row["nano_usd"]) == ("student", 0)
    assert row["saved_nano_usd"] > 0


def test_a_classifiers_log_probabilities_are_its_own(strict: openai.OpenAI, label: str) -> None:
    from stillroom.models.loading import load_model

    answer = strict.chat.completions.create(model=label, messages=ASK, logprobs=True, top_logprobs=20, n=2)
    assert [one.index for one in answer.choices] == [0, 1]
    told = answer.choices[1].logprobs
    assert told is not None
    assert told.content is not None
    (one,) = told.content
    own = load_model(students.of_texts() / "student").predict(["please refund order 7"])  # type: ignore[union-attr]
    shares = dict(zip(own.classes, own.probabilities[0].tolist(), strict=True))
    assert {top.token: pytest.approx(math.exp(top.logprob), abs=1e-5) for top in one.top_logprobs} == shares
    assert one.token == answer.choices[1].message.content == max(shares, key=lambda name: shares[name])
    few = strict.chat.completions.create(model=label, messages=ASK, logprobs=True, top_logprobs=1)
    assert few.choices[0].logprobs is not None
    assert len((few.choices[0].logprobs.content or [])[0].top_logprobs) == 1


def test_parts_of_text_and_earlier_messages(strict: openai.OpenAI, label: str) -> None:
    parts: list[Any] = [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "where is parcel 3"},
        {"role": "assistant", "content": "delivery"},
        {"role": "user", "content": [{"type": "text", "text": "please refund "}, {"type": "text", "text": "order 7"}]},
    ]  # fmt: skip
    assert strict.chat.completions.create(model=label, messages=parts).choices[0].message.content == "refund"


@pytest.mark.parametrize("which", ["label", "letters"])
def test_streams_have_the_clients_shape(strict: openai.OpenAI, label: str, letters: str, which: str) -> None:
    model = {"label": label, "letters": letters}[which]
    text = "please refund order 0"
    stream = strict.chat.completions.create(
        model=model, messages=asks(text), stream=True, stream_options={"include_usage": True}, max_tokens=12, seed=4
    )
    chunks = list(stream)
    assert {(one.object, one.model) for one in chunks} == {("chat.completion.chunk", model)}
    assert len({one.id for one in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [one.usage for one in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []
    ends = [one.choices[0].finish_reason for one in chunks[:-1]]
    assert ends[:-1] == [None] * (len(ends) - 1)
    assert ends[-1] in ("stop", "length")
    told = "".join(one.choices[0].delta.content or "" for one in chunks[:-1])
    whole = strict.chat.completions.create(model=model, messages=asks(text), max_tokens=12, seed=4)
    assert told == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_without_include_usage_no_piece_tells_it(service: Served, label: str) -> None:
    answer = service.http().post("/v1/chat/completions", json={"model": label, "messages": ASK, "stream": True})
    lines = [line for line in answer.text.split("\n\n") if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    assert all("usage" not in json.loads(line.removeprefix("data: ")) for line in lines[:-1])


def test_a_language_student_writes_by_seed(strict: openai.OpenAI, letters: str) -> None:
    def write(**more: Any) -> list[str]:
        answer = strict.chat.completions.create(model=letters, messages=ASK, max_tokens=16, **more)
        return [one.message.content or "" for one in answer.choices]

    assert write(seed=1) == write(seed=1)
    assert write(seed=1) != write(seed=2)
    assert write(temperature=0) == write(temperature=0, seed=9)
    several = write(seed=1, n=3)
    assert len(set(several)) == 3
    assert several[:1] == write(seed=1)


def test_a_language_students_tokens_and_their_end(strict: openai.OpenAI, letters: str) -> None:
    answer = strict.chat.completions.create(
        model=letters, messages=ASK, max_tokens=10, seed=5, logprobs=True, top_logprobs=4
    )
    one = answer.choices[0]
    assert one.finish_reason == "length"
    assert one.logprobs is not None
    content = one.logprobs.content or []
    assert len(content) == 10
    for token in content:
        tops = [top.logprob for top in token.top_logprobs]
        assert tops == sorted(tops, reverse=True)
        assert token.logprob <= tops[0] + 1e-6
        assert sum(map(math.exp, tops)) <= 1 + 1e-5
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (10, answer.usage.prompt_tokens + 10)
    # Greedy writing takes the likeliest token each time.
    greedy = strict.chat.completions.create(
        model=letters, messages=ASK, max_tokens=6, temperature=0, logprobs=True, top_logprobs=1
    )
    told = greedy.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert len(told.content) == 6
    assert all(token.logprob == token.top_logprobs[0].logprob for token in told.content)


def test_a_language_student_stops_at_a_word(strict: openai.OpenAI, letters: str) -> None:
    whole = strict.chat.completions.create(model=letters, messages=ASK, max_tokens=40, seed=3).choices[0]
    text = whole.message.content or ""
    pairs = [text[place : place + 2] for place in range(2, len(text) - 1)]
    word = next(pair for pair in pairs if pair.isascii() and pair.isprintable())
    for stream in (False, True):
        given: dict[str, Any] = {
            "model": letters,
            "messages": ASK,
            "max_tokens": 40,
            "seed": 3,
            "stop": [word, "never"],
        }
        if stream:
            chunks = [one.choices[0] for one in strict.chat.completions.create(**given, stream=True)]
            told, finish = "".join(one.delta.content or "" for one in chunks), chunks[-1].finish_reason
        else:
            one = strict.chat.completions.create(**given).choices[0]
            told, finish = one.message.content or "", one.finish_reason
        assert (told, finish) == (text[: text.index(word)], "stop")


def test_a_prompt_that_fills_the_context_is_refused(strict: openai.OpenAI, letters: str) -> None:
    with pytest.raises(openai.BadRequestError, match="256") as raised:
        strict.chat.completions.create(model=letters, messages=asks("x" * 300))
    assert raised.value.param == "messages"


def test_the_async_client(service: Served, label: str) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0) as client:
            said = await asyncio.gather(
                *(client.chat.completions.create(model=label, messages=asks(text)) for text, _ in students.texts(8))
            )
            stream = await client.chat.completions.create(model=label, messages=ASK, stream=True)
            told = "".join([one.choices[0].delta.content or "" async for one in stream])
            return [*(one.choices[0].message.content for one in said), told]

    assert asyncio.run(ask()) == [wanted for _, wanted in students.texts(8)] + ["refund"]


def test_a_client_that_hangs_up_is_counted(service: Served, strict: openai.OpenAI, letters: str) -> None:
    before = len(used(service, letters))
    with strict.chat.completions.create(model=letters, messages=ASK, stream=True, max_tokens=200, seed=1) as stream:
        next(iter(stream))
    ends = time.monotonic() + 20
    while len(used(service, letters)) == before and time.monotonic() < ends:
        time.sleep(0.2)
    rows = used(service, letters)
    assert len(rows) == before + 1
    assert rows[-1]["tokens_out"] < 200


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_stored_is_what_was_said(strict: openai.OpenAI, label: str, letters: str, stream: bool) -> None:
    for number, (model, text) in enumerate(((label, "please refund order 7"), (letters, "go"))):
        marks = {"run": f"stored {stream} {number}"}
        given: dict[str, Any] = {
            "model": model,
            "messages": asks(text),
            "store": True,
            "metadata": marks,
            "max_tokens": 8,
        }
        if stream:
            chunks = list(strict.chat.completions.create(**given, stream=True))
            name, told = chunks[0].id, "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
        else:
            answer = strict.chat.completions.create(**given)
            name, told = answer.id, answer.choices[0].message.content or ""
        (kept,) = strict.chat.completions.list(metadata=marks)
        assert (kept.id, kept.model, kept.choices[0].message.content) == (name, model, told)
    strict.chat.completions.create(model=label, messages=ASK, store=False, metadata={"run": "not"})
    assert list(strict.chat.completions.list(metadata={"run": "not"})) == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"model": ""}, "model"),
        ({"seed": 1 << 70}, "seed"),
    ],
)
def test_what_a_call_does_wrong(service: Served, label: str, more: dict[str, Any], param: str) -> None:
    answer = service.http().post("/v1/chat/completions", json={"model": label, "messages": ASK, **more})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


@pytest.mark.parametrize("more", [{"top_p": 0.5}, {"frequency_penalty": 1}, {"logit_bias": {"5": 1}}])
def test_a_language_student_does_not_leave_out_what_it_cannot_do(
    service: Served, letters: str, more: dict[str, Any]
) -> None:
    answer = service.http().post("/v1/chat/completions", json={"model": letters, "messages": ASK, **more})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_value")
    assert answer.json()["error"]["param"] in more


def test_models_that_do_not_answer(service: Served, label: str) -> None:
    http, other = service.http(), service.http(service.key("other", project=service.project()))
    told = http.post("/v1/chat/completions", json={"model": "tiny-language", "messages": ASK})
    assert (told.status_code, told.json()["error"]["code"]) == (400, "model_not_served")
    for client, name in ((http, "nobody"), (http, "ft:no:such:one:abcdefgh"), (http, f"{label}:cascade"), (other, label),
                         (other, "rule")):  # fmt: skip
        answer = client.post("/v1/chat/completions", json={"model": name, "messages": ASK})
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "message": f"No such model: '{name}'", "type": "invalid_request_error", "param": "model", "code": "model_not_found"
        }  # fmt: skip


def test_reading_alone_does_not_let_one_ask(service: Served, label: str) -> None:
    reader = service.http(service.key("reader", ("read",)))
    answer = reader.post("/v1/chat/completions", json={"model": label, "messages": ASK})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")


def test_a_models_files_that_are_gone(service: Served, tmp_path: Path) -> None:
    import shutil

    gone = students.put(service, students.of_texts() / "student", "classifier")
    with service.rows.reading() as rows:
        from stillroom.service.rows.tables import models

        folder = rows.execute(select(models.c.folder).where(models.c.id == gone)).scalar_one()
    shutil.rmtree(service.root / folder)
    answer = service.http().post("/v1/chat/completions", json={"model": gone, "messages": ASK})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
