"""What the official client sees of a loopback teacher: answers, errors, batches, and what it cost."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import openai
import pytest


def ask(client: openai.OpenAI, text: str = "What is 23*457?", **more: Any) -> Any:
    """One chat completion."""
    return client.chat.completions.create(model="loopback", messages=[{"role": "user", "content": text}], **more)


def test_answers_models_and_the_bill(asking: Any) -> None:
    client, teacher = asking(price={"input": 1.5, "output": 3})
    assert [one.id for one in client.models.list()] == ["loopback"]
    found = ask(client, n=3)
    assert [choice.message.content.rsplit("Answer: ", 1)[1] for choice in found.choices] == ["10511"] * 3
    assert {choice.finish_reason for choice in found.choices} == {"stop"}
    usage = found.usage
    bill = teacher.bill()
    assert bill["calls"] == 1
    assert (bill["tokens_in"], bill["tokens_out"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert bill["usd"] == pytest.approx((1.5 * usage.prompt_tokens + 3 * usage.completion_tokens) / 1e6)


def test_the_same_request_again_is_counted_as_paid_twice(asking: Any) -> None:
    client, teacher = asking()
    for text in ("1+2", "1+2", "3+4"):
        ask(client, text, seed=1, temperature=0)
    assert teacher.bill()["duplicates"] == 1
    assert teacher.about("twice") == {"requests": [{"question": "1+2", "served": 2}]}


def test_a_seed_fixes_an_answer_and_samples_differ(asking: Any) -> None:
    client, _ = asking(mind={"kind": "arithmetic", "error_rate": 0.5})
    texts = [[one.message.content for one in ask(client, n=4, seed=seed).choices] for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) > 1
    assert ask(client).choices[0].message.content != ask(client).choices[0].message.content
    again = [ask(client, temperature=0, seed=seed).choices[0].message.content for seed in (1, 2)]
    assert again[0] == again[1]


def test_an_answer_is_cut_at_its_most_tokens(asking: Any) -> None:
    client, _ = asking()
    found = ask(client, max_tokens=7)
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 7


WRONG: list[tuple[dict[str, Any], Any, str | None]] = [
    ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found"),
    ({"messages": []}, openai.BadRequestError, None),
    ({"n": 0}, openai.BadRequestError, "invalid_value"),
    ({"temperature": 3}, openai.BadRequestError, "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, openai.BadRequestError, "invalid_value"),
    ({"top_logprobs": 2}, openai.BadRequestError, None),
    ({"max_tokens": 100}, openai.BadRequestError, "context_length_exceeded"),
    ({"stream": True}, openai.BadRequestError, "unsupported_value"),
    ({"response_format": {"type": "json_schema"}}, openai.BadRequestError, None),
]


def test_what_the_interface_does_not_take(asking: Any) -> None:
    client, teacher = asking(context=90)
    for given, kind, code in WRONG:
        whole = {"model": "loopback", "messages": [{"role": "user", "content": "1+1"}], **given}
        with pytest.raises(kind) as caught:
            client.chat.completions.create(**whole)
        assert caught.value.code == code, given
    assert teacher.bill()["calls"] == 0


def test_a_wrong_key_and_an_empty_account(asking: Any) -> None:
    client, _ = asking(key="sk-wrong", api_key="sk-right")
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        ask(client)
    client, _ = asking(quota_usd=0.0)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    assert caught.value.code == "insufficient_quota"


def test_limits_are_kept_to_and_say_how_long_to_wait(asking: Any) -> None:
    client, teacher = asking(limits={"requests_per_minute": 60, "burst_s": 3})
    taken, waits = 0, []
    for number in range(6):
        try:
            ask(client, f"{number}+1")
            taken += 1
        except openai.RateLimitError as error:
            waits.append(float(error.response.headers["retry-after-ms"]) / 1000)
    assert taken == 3
    assert all(0 < wait <= 1 for wait in waits)
    time.sleep(1.1)
    ask(client, "late")
    assert teacher.bill()["statuses"]["429 rate_limit_exceeded"] == 3


def test_a_limit_of_tokens_counts_what_may_be_written_until_it_is(asking: Any) -> None:
    client, _ = asking(limits={"tokens_per_minute": 600, "burst_s": 10})
    ask(client, "1+1", max_tokens=80)  # it writes fewer, and gives the others back
    ask(client, "1+2", max_tokens=40)
    with pytest.raises(openai.RateLimitError):
        ask(client, "1+3", max_tokens=90)


def test_log_probabilities_are_those_of_the_whole_distribution(asking: Any, reviews: Any) -> None:
    mind = {"kind": "rule", "source": reviews.name, "error_rate": 0.2, "other": 0.1}
    client, _ = asking(mind=mind)
    token = ask(client, "film 4 was seen by many", logprobs=True, top_logprobs=20).choices[0].logprobs.content[0]
    words = {one.token: math.exp(one.logprob) for one in token.top_logprobs}
    assert {"0", "1", "2"} < set(words)
    assert sum(words.values()) == pytest.approx(1)
    assert sum(words[label] for label in "012") == pytest.approx(0.9)
    assert words[token.token] == pytest.approx(math.exp(token.logprob))
    few = ask(client, "film 4 was seen by many", logprobs=True, top_logprobs=2).choices[0].logprobs.content[0]
    assert len(few.top_logprobs) == 2


def test_an_answer_has_the_form_that_is_asked_for(asking: Any, reviews: Any) -> None:
    labels = {"0": "bad", "1": "fair", "2": "good"}
    client, _ = asking(mind={"kind": "rule", "source": reviews.name, "error_rate": 0.0, "labels": labels})
    schema = {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "label": {"type": "string", "enum": ["bad", "fair", "good"]}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    found = json.loads(ask(client, "film 4 was seen by many", response_format=form).choices[0].message.content)
    assert found["label"] == "fair"
    assert found["reason"]
    schema["properties"]["label"]["enum"] = ["X", "Y"]  # type: ignore[index]
    found = json.loads(ask(client, "film 4 was seen by many", response_format=form).choices[0].message.content)
    assert found["label"] in ("X", "Y")


def requests_file(count: int) -> bytes:
    """A file of requests for a batch."""
    bodies = [{"model": "loopback", "messages": [{"role": "user", "content": f"{one}+1"}]} for one in range(count)]
    lines = [
        {"custom_id": f"q{one}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for one, body in enumerate(bodies)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def finished(client: openai.OpenAI, count: int, **more: Any) -> Any:
    """A batch that has ended."""
    given = client.files.create(file=("requests.jsonl", requests_file(count)), purpose="batch")
    batch = client.batches.create(
        input_file_id=given.id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )
    until = time.monotonic() + 10
    while batch.status in ("validating", "in_progress", "finalizing") and time.monotonic() < until:
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def test_a_batch_is_answered_cheaper_and_found_again_by_its_id(asking: Any) -> None:
    client, teacher = asking(price={"input": 10, "output": 10}, batches={"wait_s": 0.05, "price_share": 0.5})
    batch = finished(client, 250, metadata={"mark": "m1"})
    assert batch.status == "completed"
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    answers = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
    assert len(answers) == 250
    assert answers["q7"].endswith("Answer: 8")
    bill = teacher.bill()
    assert bill["batch_calls"] == 250
    assert bill["usd"] == pytest.approx((bill["tokens_in"] + bill["tokens_out"]) * 10 / 1e6 / 2)
    assert [(one.id, one.metadata) for one in client.batches.list()] == [(batch.id, {"mark": "m1"})]


def test_a_batch_may_lose_requests_or_expire(asking: Any) -> None:
    client, _ = asking(batches={"wait_s": 0.0, "lost": 0.5})
    batch = finished(client, 40)
    counts = batch.request_counts
    assert counts.completed + counts.failed == 40
    assert 5 < counts.failed < 35
    errors = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    assert {line["response"]["status_code"] for line in errors} == {500}
    client, _ = asking(batches={"wait_s": 0.0, "expires": True})
    batch = finished(client, 40)
    assert batch.status == "expired"
    assert len(client.files.content(batch.output_file_id).text.splitlines()) == 20
    assert len(client.files.content(batch.error_file_id).text.splitlines()) == 20


def test_a_batch_can_be_cancelled_or_refused(asking: Any) -> None:
    client, teacher = asking(batches={"wait_s": 0.3})
    given = client.files.create(file=("r.jsonl", requests_file(3)), purpose="batch")
    batch = client.batches.create(input_file_id=given.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert client.batches.cancel(batch.id).status == "cancelling"
    time.sleep(0.5)
    assert client.batches.retrieve(batch.id).status == "cancelled"
    assert teacher.bill()["calls"] == 0
    given = client.files.create(file=("r.jsonl", b"no json"), purpose="batch")
    batch = client.batches.create(input_file_id=given.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert batch.status == "failed"
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_unknown")
