"""Chat by teachers through the proxy: what goes out, what comes back, and what goes wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from benchmarks.service_process import Served
from sqlalchemy import select

from scripted_endpoint import Endpoint, Reply, failing, said
from service import students
from stillroom.loopback.serving import Loopback
from stillroom.service.door.faults import ApiError
from stillroom.service.rows.tables import calls
from stillroom.service.teachers import proxy

KEY = "sk-a-long-secret-key-4242"
ASK = [{"role": "user", "content": "please refund order 7"}]
PRICE = {"input": 1.0, "output": 2.0}


def scored(streams: bool) -> Reply:
    """An answer with log-probabilities under every name and at every depth, as some servers give them."""
    told: dict[str, Any] = {"prompt_logprobs": [{"5": {"logprob": -0.5}}], "x": [{"Top_LogProbs": [1], "kept": 1}]}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": {"content": []}, "prompt_logprobs": [1]}
    message = {"role": "assistant", "content": "x", "my_logprob": -0.5}
    if not streams:
        return Reply({"choices": [{**choice, "message": message}], **told})
    row = {"choices": [{**choice, "delta": message}], **told}
    return Reply(f"data: {json.dumps(row)}\n\ndata: [DONE]\n\n", headers={"content-type": "text/event-stream"})


def pieces(*texts: str, usage: bool = True, end: bool = True, model: str = "big-1", choices: bool = True) -> Reply:
    """An answer as a stream; one without choices has its usage alone."""
    shape = {"id": "theirs", "object": "chat.completion.chunk", "created": 1, "model": model}
    rows = [{**shape, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}]
    rows += [{**shape, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    rows += [{**shape, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    rows = rows if choices else []
    rows += [
        {**shape, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}
    ] * usage
    text = "".join(f"data: {json.dumps(row)}\n\n" for row in rows) + "data: [DONE]\n\n" * end
    return Reply(text, headers={"content-type": "text/event-stream"})


def calling() -> Reply:
    """A stream of two calls of tools, the second one piece by piece."""
    first = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    second = {"index": 1, "id": "call_b", "type": "function", "function": {"name": "send", "arguments": ""}}
    more = [{"index": 1, "function": {"arguments": piece}} for piece in ('{"to": ', '"me"}')]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    deltas += [{"tool_calls": [one]} for one in (first, second, *more)]
    rows = [{"choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in deltas]
    rows += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]
    text = "".join(f"data: {json.dumps(row)}\n\n" for row in rows) + "data: [DONE]\n\n"
    return Reply(text, headers={"content-type": "text/event-stream"})


def telling() -> Reply:
    """A stream of two answers, with the log-probabilities of each piece; the second one is a refusal."""
    deltas = [(0, "content", "one "), (1, "refusal", "I "), (0, "content", "two"), (1, "refusal", "cannot")]
    scored = {"logprob": -0.5, "bytes": None, "top_logprobs": []}
    rows: list[dict[str, Any]] = [
        {"choices": [{"index": at, "delta": {name: word}, "finish_reason": None,
                      "logprobs": {"content": None, "refusal": None, name: [{"token": word, **scored}]}}]}
        for at, name, word in deltas
    ]  # fmt: skip
    rows += [{"choices": [{"index": at, "delta": {}, "finish_reason": "stop", "logprobs": None}]} for at in (0, 1)]
    text = "".join(f"data: {json.dumps(row)}\n\n" for row in rows) + "data: [DONE]\n\n"
    return Reply(text, headers={"content-type": "text/event-stream"})


def script(body: dict[str, Any], number: int) -> Reply:
    """Does what the last message says."""
    word = str(body["messages"][-1].get("content"))
    if word == "scores":
        return scored(bool(body.get("stream")))
    if word == "mute":
        return pieces(choices=False)
    if word == "echo":
        return said(f"your key is {KEY}")
    if word == "logs":
        content = [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}]
        return said("x", logprobs={"content": content, "refusal": None})
    if word == "stream":
        return pieces("one ", "two ", "three")
    if word == "drip":
        return pieces(*["four "] * 40)._replace(drip_s=0.001)
    if word == "calls":
        return calling()
    if word == "tells":
        return telling()
    if word == "break":
        return pieces("one ", "two ", end=False)
    replies = {
        "401": failing(401, message=f"Incorrect API key: {KEY}"), "400": Reply({"error": {
            "message": "too hot", "param": "temperature", "code": "hot"}}, 400), "429": failing(429, **{"retry-after": "7"}),
        "500": failing(500), "302": Reply(b"", 302, {"location": "http://127.0.0.1:9/"}), "html": Reply("<html>", 200),
        "empty": Reply({"choices": []}), "nan": Reply('{"choices": NaN}'), "none": Reply({"choices": [{"message": 1}]}),
        "cut": Reply({"choices": [{"message": {"content": "x" * 1000}}]}, cut=True),
    }  # fmt: skip
    return replies.get(word, said(f"{body['model']} heard {word}"))


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    folder = tmp_path_factory.mktemp("loopback")
    students.write_table(folder / "texts.jsonl")
    found = Loopback({"model": "rule", "mind": {"kind": "rule", "source": "texts.jsonl"}, "api_key": KEY}, folder)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, teacher: Endpoint, loopback: Loopback) -> Iterator[Served]:
    """A server with a scripted teacher, a loopback teacher, and one that may not be distilled."""
    origins = [one.url.removeprefix("http://").removesuffix("/v1") for one in (teacher, loopback)]
    words = [word for origin in (*origins, "127.0.0.1:9") for word in ("--allow-teacher", origin)]
    with Served(tmp_path_factory.mktemp("served"), *words) as found:
        for body in (
            {"name": "big", "base_url": teacher.url, "model": "big-1", "key": KEY, "price": PRICE},
            {"name": "secretive", "base_url": teacher.url, "model": "big-2", "key": KEY, "distillable": False},
            {"name": "rule", "base_url": loopback.url, "model": "rule", "key": KEY, "price": PRICE},
            {"name": "absent", "base_url": "http://127.0.0.1:9/v1", "model": "none"},
        ):
            found.http().post("/api/teachers", json=body).raise_for_status()
        yield found


@pytest.fixture(scope="module")
def strict(service: Served) -> Iterator[openai.OpenAI]:
    """The official client, as strict as it can be."""
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="any", max_retries=0, timeout=180.0, _strict_response_validation=True
    ) as found:
        yield found


def used(service: Served, model: str) -> list[dict[str, Any]]:
    """Rows of calls of a model, once they are written."""
    time.sleep(0.4)
    with service.rows.reading() as rows:
        return [dict(one) for one in rows.execute(select(calls).where(calls.c.model == model)).mappings()]


def asks(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_teacher_answers_through_the_proxy(
    service: Served, strict: openai.OpenAI, teacher: Endpoint, loopback: Loopback
) -> None:
    answer = strict.chat.completions.create(
        model="big", messages=asks("hello"), temperature=0.3, user="me", extra_body={"top_k": 5}, metadata={"a": "b"}
    )
    assert answer.choices[0].message.content == "big-1 heard hello"
    assert (answer.model, answer.id[:9]) == ("big", "chatcmpl-")
    assert teacher.keys[-1] == f"Bearer {KEY}"
    assert teacher.asked[-1] == {
        "model": "big-1", "messages": asks("hello"), "temperature": 0.3, "user": "me", "top_k": 5
    }  # fmt: skip
    row = used(service, "big")[-1]
    assert (row["by"], row["tokens_in"], row["tokens_out"], row["nano_usd"]) == ("teacher", 20, 2, 20 * 1000 + 2 * 2000)
    before = loopback.bill()
    ruled = strict.chat.completions.create(
        model="rule", messages=asks("please refund order 3"), logprobs=True, top_logprobs=2
    )
    assert ruled.choices[0].message.content == "refund"
    assert ruled.choices[0].logprobs is not None
    assert loopback.bill() != before


@pytest.mark.parametrize(
    ("word", "status", "code", "again"),
    [
        ("401", 502, "teacher_refused", False),
        ("400", 400, "hot", None),
        ("429", 429, "teacher_rate_limit", None),
        ("500", 502, "teacher_failed", None),
        ("302", 502, "teacher_redirects", False),
        ("html", 502, "teacher_bad_answer", False),
        ("empty", 502, "teacher_bad_answer", False),
        ("nan", 502, "teacher_bad_answer", False),
        ("none", 502, "teacher_bad_answer", False),
        ("cut", 502, "teacher_unreachable", None),
    ],
)
def test_what_a_teacher_does_wrong(service: Served, word: str, status: int, code: str, again: bool | None) -> None:
    for stream in (False, True):
        answer = service.http().post(
            "/v1/chat/completions", json={"model": "big", "messages": asks(word), "stream": stream}
        )
        if stream and word in ("html", "empty", "nan", "none", "cut"):  # no stream, so it is asked for the whole
            assert answer.status_code == status
            continue
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code)
        assert answer.headers.get("x-should-retry") == (None if again is None else "false")
        assert KEY not in answer.text
    if word == "400":
        assert error["param"] == "temperature"
    if word == "429":
        assert answer.headers["retry-after"] == "7"


def test_a_long_answer_with_every_log_probability_is_taken() -> None:
    """It is paid for by now. More than that is no answer of a model."""
    tops = b"[" + b",".join([b'{"token":"a","logprob":-1.5}'] * 20) + b"]"
    tokens = [b'{"token":"a","logprob":-0.5,"top_logprobs":' + tops + b"}"] * 16_000
    found = proxy._value(b'{"content":[' + b",".join(tokens) + b"]}", "no JSON")
    assert len(found["content"]) == 16_000
    with pytest.raises(ApiError) as caught:
        proxy._value(b"[" + b"[]," * proxy.MOST_PARTS + b"1]", "no JSON")
    assert caught.value.headers["x-should-retry"] == "false"


def test_a_teacher_that_is_not_there(service: Served) -> None:
    answer = service.http().post("/v1/chat/completions", json={"model": "absent", "messages": ASK})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "teacher_unreachable")


def test_a_key_does_not_come_back(strict: openai.OpenAI) -> None:
    said = strict.chat.completions.create(model="big", messages=asks("echo"))
    assert said.choices[0].message.content == "your key is [key]"


def test_a_stream_that_breaks_off_is_an_error_and_not_stored(service: Served, strict: openai.OpenAI) -> None:
    stream = strict.chat.completions.create(
        model="big", messages=asks("break"), stream=True, store=True, metadata={"w": "break"}
    )
    told = ""
    with pytest.raises(openai.APIError, match="without an end"):
        for one in stream:
            told += one.choices[0].delta.content or ""
    assert told == "one two "
    assert list(strict.chat.completions.list(metadata={"w": "break"})) == []
    assert used(service, "big")[-1]["tokens_out"] > 0


def test_a_teacher_that_is_not_distillable_gives_no_log_probabilities(strict: openai.OpenAI) -> None:
    assert strict.chat.completions.create(model="big", messages=asks("logs")).choices[0].logprobs is not None
    assert strict.chat.completions.create(model="secretive", messages=asks("logs")).choices[0].logprobs is None
    with pytest.raises(openai.PermissionDeniedError) as raised:
        strict.chat.completions.create(model="secretive", messages=asks("logs"), logprobs=True)
    assert (raised.value.code, raised.value.param) == ("not_distillable", "logprobs")


@pytest.mark.parametrize(
    "more",
    [{"prompt_logprobs": 0}, {"logprobs": True}, {"extra_body": {"Prompt_LogProbs": 2}}, {"return_logprob": True}],
)
def test_a_teacher_that_is_not_distillable_is_not_asked_for_them_by_another_name(
    service: Served, teacher: Endpoint, more: dict[str, Any]
) -> None:
    before = len(teacher.asked)
    for stream in (False, True):
        body = {"model": "secretive", "messages": asks("hello"), "stream": stream, **more}
        answer = service.http().post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_distillable")
    assert len(teacher.asked) == before
    body = {"model": "secretive", "messages": asks("hello"), "logprobs": False, "metadata": {"logprobs": "x"}}
    assert service.http().post("/v1/chat/completions", json=body).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_nor_does_it_give_them_under_another_name(service: Served, stream: bool) -> None:
    def told(model: str) -> str:
        body = {"model": model, "messages": asks("scores"), "stream": stream}
        answer = service.http().post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        return answer.text.replace('"logprobs":null', "")

    assert "ogprob" in told("big")
    assert "ogprob" not in told("secretive").casefold()
    assert stream or '"kept":1' in told("secretive")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "say hello"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
        [*asks("q"), {"role": "assistant", "content": ""}, *asks("again")],
        [*asks("q"), {"role": "function", "name": "f", "content": "{}"}],
        [*asks("q"), {"role": "assistant", "content": "I would say"}],
        [*asks("q"), {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}],
    ],
    ids=["system alone", "a picture", "an empty turn", "a function", "the answer's beginning", "a call"],
)
def test_what_a_teacher_is_asked_is_its_own_to_judge(
    service: Served, teacher: Endpoint, messages: list[dict[str, Any]]
) -> None:
    answer = service.http().post("/v1/chat/completions", json={"model": "big", "messages": messages})
    assert answer.status_code == 200, answer.text
    assert teacher.asked[-1]["messages"] == messages


@pytest.mark.parametrize(
    ("message", "param"),
    [({"content": "x"}, "role"), ({"role": 1}, "role"), ({"role": "user", "content": 5}, "content")],
)
def test_what_is_no_message_is_refused(service: Served, message: dict[str, Any], param: str) -> None:
    answer = service.http().post("/v1/chat/completions", json={"model": "big", "messages": [*ASK, message]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"messages.1.{param}")


def test_an_answer_without_a_choice_is_not_stored(service: Served, strict: openai.OpenAI) -> None:
    before = len(used(service, "big"))
    marks = {"w": "mute"}
    list(strict.chat.completions.create(model="big", messages=asks("mute"), stream=True, store=True, metadata=marks))
    assert list(strict.chat.completions.list(metadata=marks)) == []
    assert len(used(service, "big")) == before + 1


@pytest.mark.parametrize("which", ["rule", "big"])
def test_streams_are_passed_on(strict: openai.OpenAI, which: str) -> None:
    """The loopback teacher does not stream, so it is asked for the whole; the scripted one does."""
    text, marks = "stream" if which == "big" else "please refund order 3", {"stream": which}
    chunks = list(
        strict.chat.completions.create(
            model=which,
            messages=asks(text),
            stream=True,
            stream_options={"include_usage": True},
            store=True,
            metadata=marks,
        )
    )
    assert {(one.object, one.model) for one in chunks} == {("chat.completion.chunk", which)}
    assert len({one.id for one in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [one.usage for one in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-2].choices[0].finish_reason == "stop"
    told = "".join(one.choices[0].delta.content or "" for one in chunks[:-1])
    assert told == ("one two three" if which == "big" else "refund")
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.total_tokens == 12 if which == "big" else usage.total_tokens > 0
    (kept,) = strict.chat.completions.list(metadata=marks)
    assert (kept.id, kept.model, kept.choices[0].message.content) == (chunks[0].id, which, told)


def test_a_client_that_hangs_up_pays_for_what_came(service: Served, strict: openai.OpenAI) -> None:
    before = len(used(service, "big"))
    with strict.chat.completions.create(model="big", messages=asks("drip"), stream=True) as stream:
        next(one for one in stream if one.choices[0].delta.content)
    ends = time.monotonic() + 20
    while len(rows := used(service, "big")) == before and time.monotonic() < ends:
        time.sleep(0.1)
    assert len(rows) == before + 1
    assert rows[-1]["tokens_in"] == 1
    assert 1 <= rows[-1]["tokens_out"] < 50
    assert rows[-1]["nano_usd"] == 1000 + 2000 * rows[-1]["tokens_out"]


def test_calls_of_tools_in_a_stream_are_stored(strict: openai.OpenAI) -> None:
    marks, tools = {"w": "calls"}, [{"type": "function", "function": {"name": "find"}}]
    given: Any = {"model": "big", "messages": asks("calls"), "tools": tools, "store": True, "metadata": marks}
    list(strict.chat.completions.create(**given, stream=True))
    (kept,) = strict.chat.completions.list(metadata=marks)
    (choice,) = kept.choices
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    told = [(one.id, one.function.name, one.function.arguments) for one in choice.message.tool_calls or []]  # type: ignore[union-attr]
    assert told == [("call_a", "find", "{}"), ("call_b", "send", '{"to": "me"}')]


def test_log_probabilities_in_a_stream_are_stored(strict: openai.OpenAI) -> None:
    marks = {"w": "tells"}
    given: Any = {"model": "big", "messages": asks("tells"), "store": True, "metadata": marks, "n": 2, "logprobs": True}
    list(strict.chat.completions.create(**given, stream=True))
    (kept,) = strict.chat.completions.list(metadata=marks)
    told = [one.logprobs for one in kept.choices]
    assert [one.token for one in told[0].content or []] == ["one ", "two"]  # type: ignore[union-attr]
    assert [one.token for one in told[1].refusal or []] == ["I ", "cannot"]  # type: ignore[union-attr]
    assert (told[0].refusal, told[1].content) == (None, None)  # type: ignore[union-attr]
    assert [(one.message.content, one.message.refusal) for one in kept.choices] == [("one two", None), ("", "I cannot")]
