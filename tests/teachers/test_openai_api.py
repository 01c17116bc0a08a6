"""A teacher behind an API, whole: what it is asked, how its answers are read, and that nothing is paid for twice."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stillroom
from scripted_endpoint import MODEL, Endpoint, Reply, failing, said
from stillroom.budget import NANO, Limits
from stillroom.errors import BudgetReached, ModelError, Overbilled, RecipeError, RunError
from stillroom.kinds import parse
from stillroom.ledger import Ledger, opened
from stillroom.recipe import Recipe
from stillroom.rows import Questions
from stillroom.teachers import api_asked
from stillroom.teachers.api_asked import AskedApi
from stillroom.teachers.api_reading import Refusal, Sample
from stillroom.transfer_set.ask import ask
from stillroom.transfer_set.store import Store

CLASSES = ["negative", "positive"]
NO_WEIGHT = 1e-6


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path / "ledger.sqlite", "run", Limits()) as it:
        yield it


def teacher(url: str, classes: list[Any] | None = None, **knobs: Any) -> AskedApi:
    """The teacher that these knobs describe."""
    part = parse("teacher", {"kind": "openai_api", "model": MODEL, "base_url": url, **knobs})
    built: AskedApi = part.build(Path(), [], classes or CLASSES)
    return built


def texts(*words: str) -> Questions:
    """Questions of one column, `text`."""
    column = np.empty(len(words), object)
    column[:] = words
    return Questions.of({"text": column})


def honest(body: dict[str, Any], number: int) -> Reply:
    """Says positive where the question says so."""
    return said("positive" if "good" in body["messages"][-1]["content"] else "negative")


def chosen(logs_NC: Any) -> list[str]:
    """The likeliest label of each row."""
    return [CLASSES[place] for place in logs_NC.argmax(1)]


def test_labels_texts_and_asks_once(ledger: Ledger) -> None:
    questions = texts("a good film", "a bad film", "good", "a good film")
    with Endpoint(honest) as endpoint:
        asked = teacher(endpoint.url).charge(ledger)
        said_of = asked.answer(questions)
        assert chosen(said_of.log_probabilities_NC) == ["positive", "negative", "positive", "positive"]
        assert said_of.answered_N is not None
        assert said_of.answered_N.all()
        assert (np.exp(said_of.log_probabilities_NC) > 1 - NO_WEIGHT).sum() == 4
        assert len(endpoint.asked) == 3, "the same question twice is one request"
        again = asked.answer(texts("good", "one row more", "a bad film"))
        assert chosen(again.log_probabilities_NC) == ["positive", "negative", "negative"]
    assert len(endpoint.asked) == 4, "one row more, one call more"
    assert ledger.spent().calls == 4
    assert asked.gives == {"answers"}
    assert asked.shared.models == {MODEL}


def test_what_was_never_paid_for_is_sent_before_all_else_is_read_again(ledger: Ledger, tmp_path: Path) -> None:
    old, shards_there = [f"a good film, number {number}" for number in range(40)], []

    def script(body: dict[str, Any], number: int) -> Reply:
        if "new" in body["messages"][-1]["content"]:
            shards_there.append(len(list((tmp_path / "store").glob("*/0*"))))
        return honest(body, number)

    with Endpoint(script) as endpoint:
        asked = teacher(endpoint.url).charge(ledger)
        asked.answer(texts(*old))
        kept = ask(
            Store(tmp_path / "store"), asked, texts(*old, "a new good one", "a new bad one"), kind="openai_api",
            licences={}, views=[0], seen=lambda questions, view: questions, shard_rows=10,
        )  # fmt: skip
    assert shards_there == [0, 0]
    assert len(endpoint.asked) == len(kept) == 42
    assert chosen(kept.reader(texts("a new bad one", old[3]).key_N).all()) == ["negative", "positive"]


def test_what_is_sent(ledger: Ledger) -> None:
    with Endpoint(honest) as endpoint:
        asked = teacher(
            endpoint.url,
            labels={"negative": "it complains", "positive": "it praises"},
            prompt="Review of {film}: {text} {{as is}}",
            examples=[{"film": "A", "text": "so good", "label": "positive"}],
            seed=7,
            top_p=0.5,
            max_tokens=5,
        ).charge(ledger)
        raw = {"film": np.array(["B"], object), "text": np.array(['"bad"\n'], object)}
        asked.answer(Questions.of(raw))
    body = endpoint.asked[0]
    system, example, label, question = (message["content"] for message in body["messages"])
    assert "- negative: it complains\n- positive: it praises" in system
    assert (example, label) == ("Review of A: so good {as is}", "positive")
    assert question == 'Review of B: "bad"\n {as is}'
    del body["messages"]
    assert body == {"model": MODEL, "max_tokens": 5, "temperature": 0.0, "seed": 7, "top_p": 0.5}


def test_columns_numbers_and_arrays_become_prompts(ledger: Ledger) -> None:
    with Endpoint(honest) as endpoint:
        asked = teacher(endpoint.url).charge(ledger)
        raw = {"age": np.array([31.0, 0.1, np.nan]), "job": np.array(["cook", None, "x"], object)}
        asked.answer(Questions.of(raw))
        asked.answer(Questions.of(np.array([[0, 3], [1, 2]], np.float32)))
        asked.answer(Questions.of(np.array(["only text"], object)))
    assert set(endpoint.questions) == {
        "age: 31\njob: cook", "age: 0.1\njob: ", "age: \njob: x", "0 3", "1 2", "only text",
    }  # fmt: skip


def test_the_limit_of_an_answer_has_its_newer_name_where_it_is_needed() -> None:
    for url, limit_as, name in (
        ("https://api.openai.com/v1", "auto", "max_completion_tokens"),
        ("https://elsewhere.example/v1", "auto", "max_tokens"),
        ("https://elsewhere.example/v1", "max_completion_tokens", "max_completion_tokens"),
    ):
        asked = teacher(url, limit_as=limit_as, api_key_env="PATH", temperature="unset")
        assert json.loads(asked.wanted(texts("a").raw)[0].body).keys() == {"messages", "model", name}


REFUSALS: list[tuple[str, Reply, str]] = [
    ("an invented label", said("neutral"), "invented"),
    ("an excuse", said("I'm sorry, but I can't help with that."), "refused"),
    (
        "a refusal of its own field",
        said("", message={"role": "assistant", "content": None, "refusal": "No."}),
        "refused",
    ),
    ("a filter", said("", finish_reason="content_filter"), "filtered"),
    ("a cut answer", said("posit", finish_reason="length"), "cut"),
    ("nothing", said(""), "unreadable"),
    ("a whole sentence", said("This is clearly positive, not negative."), "invented"),
    ("a question over the context", failing(400, "context_length_exceeded"), "over the context"),
    ("a filtered question", failing(400, "content_filter"), "filtered"),
]


@pytest.mark.parametrize(("reply", "reason"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_what_is_no_label_is_kept_apart_with_its_reason(reply: Reply, reason: str, ledger: Ledger) -> None:
    with Endpoint(lambda body, number: reply if "odd" in str(body) else honest(body, number)) as endpoint:
        asked = teacher(endpoint.url).charge(ledger)
        said_of = asked.answer(texts("good", "odd", "bad"))
        assert said_of.answered_N is not None
        assert said_of.answered_N.tolist() == [True, False, True]
        assert len(said_of.given().log_probabilities_NC) == 2
        assert np.allclose(np.exp(said_of.log_probabilities_NC[1]), 0.5), "no row is dropped, and this one says nothing"
        assert [one[1] for one in asked.refused] == [reason]
        if reply.status == 200:  # it was paid for, so it is read again and not asked again
            other = teacher(endpoint.url).charge(ledger)
            other.answer(texts("odd"))
            assert [one[1] for one in other.refused] == [reason]
            assert len(endpoint.asked) == 3


@pytest.mark.parametrize(
    "text", ["positive", " Positive.\n", '"positive"', "**positive**", "POSITIVE", "`positive`", "positive!"]
)
def test_a_label_may_be_dressed(text: str, ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said(text)) as endpoint:
        assert chosen(teacher(endpoint.url).charge(ledger).answer(texts("x")).log_probabilities_NC) == ["positive"]


def test_labels_that_differ_in_case_alone_are_told_apart(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("us" if number == 0 else "Us")) as endpoint:
        asked = teacher(endpoint.url, classes=["US", "us"]).charge(ledger)
        said_of = [asked.answer(texts(word)).answered_N.tolist() for word in ("a", "b")]  # type: ignore[union-attr]
    assert said_of == [[True], [False]]


JSONS = [('{"label": "positive"}', True), ('```json\n{"label": "positive"}\n```', True), ('"positive"', True)]
JSONS += [("positive", False), ('{"label": "good"}', False), ('{"label": null}', False), ('{"label": "posi', False)]


@pytest.mark.parametrize(("text", "fits"), JSONS)
def test_labels_are_read_from_json(text: str, fits: bool, ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said(text)) as endpoint:
        asked = teacher(endpoint.url, read="json").charge(ledger)
        assert asked.answer(texts("x")).answered_N.tolist() == [fits]  # type: ignore[union-attr]
    form = endpoint.asked[0]["response_format"]["json_schema"]
    assert form["strict"] is True
    assert form["schema"]["properties"]["label"]["enum"] == CLASSES


def test_numbers_are_labels_too(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said('{"label": 7}')) as endpoint:
        asked = teacher(endpoint.url, classes=[3, 7], read="json").charge(ledger)
        assert asked.answer(texts("x")).log_probabilities_NC.argmax(1).tolist() == [1]


def position(chosen_token: str, **p: float) -> dict[str, Any]:
    """A position's tokens with their probabilities."""
    top = [{"token": token, "logprob": math.log(value)} for token, value in p.items()]
    return {"token": chosen_token, "logprob": math.log(p[chosen_token]), "top_logprobs": top}


def test_probabilities_are_read_from_tokens(ledger: Ledger) -> None:
    tokens = {" pos": 0.5, "Pos": 0.1, "neg": 0.2, "The": 0.1}
    content = [position(" pos", **tokens), position("itive", itive=1.0)]
    with Endpoint(lambda body, number: said("positive", logprobs={"content": content})) as endpoint:
        asked = teacher(endpoint.url, read="logprobs").charge(ledger)
        p_C = np.exp(asked.answer(texts("x")).log_probabilities_NC[0])
    assert p_C == pytest.approx([0.2 / 0.8, 0.6 / 0.8], abs=1e-6)
    assert asked.gives == {"answers", "probabilities"}
    assert (endpoint.asked[0]["logprobs"], endpoint.asked[0]["top_logprobs"]) == (True, 20)


def test_probabilities_of_labels_that_begin_alike_are_read_where_they_part(ledger: Ledger) -> None:
    content = [position("un", un=0.8, yes=0.2), position("sure", sure=0.75, known=0.25)]
    with Endpoint(lambda body, number: said("unsure", logprobs={"content": content})) as endpoint:
        asked = teacher(endpoint.url, classes=["unknown", "unsure", "yes"], read="logprobs").charge(ledger)
        p_C = np.exp(asked.answer(texts("x")).log_probabilities_NC[0])
    assert p_C == pytest.approx([0.2, 0.6, 0.2], abs=1e-6)


def test_probabilities_are_read_from_letters(ledger: Ledger) -> None:
    content = [position("B", B=0.6, A=0.3, C=0.05, b=0.01)]
    with Endpoint(lambda body, number: said("B", logprobs={"content": content}, finish_reason="length")) as endpoint:
        asked = teacher(endpoint.url, read="logprobs", codes="letters", estimator="renormalised").charge(ledger)
        p_C = np.exp(asked.answer(texts("x")).log_probabilities_NC[0])
    assert p_C == pytest.approx([1 / 3, 2 / 3], abs=1e-6)
    assert "- A = negative\n- B = positive" in endpoint.asked[0]["messages"][0]["content"]


def test_reading_in_another_way_makes_no_call(ledger: Ledger) -> None:
    tokens = {f"label{place}": 0.5**place for place in range(1, 6)}
    content = [position("label1", **tokens)]
    classes = [f"label{place}" for place in range(1, 10)]
    with Endpoint(lambda body, number: said("label1", logprobs={"content": content})) as endpoint:
        found = {}
        for estimator in ("renormalised", "bucket"):
            asked = teacher(endpoint.url, classes=classes, read="logprobs", estimator=estimator).charge(ledger)
            found[estimator] = np.exp(asked.answer(texts("x")).log_probabilities_NC[0].astype(float))
        assert len(endpoint.asked) == 1
    assert found["renormalised"][5:].max() < NO_WEIGHT < 0.007 < found["bucket"][5:].min()
    for p_C in found.values():
        assert p_C.sum() == pytest.approx(1, abs=1e-5)


def test_without_log_probabilities_nothing_is_made_up(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("positive")) as endpoint:
        asked = teacher(endpoint.url, read="logprobs").charge(ledger)
        assert asked.answer(texts("x")).answered_N.tolist() == [False]  # type: ignore[union-attr]
    assert asked.refused[0][1:] == ("unreadable", "the endpoint gives no log-probabilities")


def test_samples_are_requests_of_their_own_and_one_that_fails_does_not_drop_its_row(ledger: Ledger) -> None:
    answers = ["positive", "positive", "negative", "who knows"]

    def script(body: dict[str, Any], number: int) -> Reply:
        return said(answers[body["seed"] - 10])

    with Endpoint(script) as endpoint:
        asked = teacher(endpoint.url, samples=4, seed=10).charge(ledger)
        found = asked.answer(texts("x"))
        assert np.exp(found.log_probabilities_NC[0]) == pytest.approx([1 / 3, 2 / 3], abs=1e-6)
        assert sorted(body["seed"] for body in endpoint.asked) == [10, 11, 12, 13]
        assert {body["temperature"] for body in endpoint.asked} == {1.0}
        more = teacher(endpoint.url, samples=3, seed=10).charge(ledger)
        more.answer(texts("x"))
        assert len(endpoint.asked) == 4, "fewer samples are among those that were bought"
    assert asked.gives == {"answers", "probabilities"}


def test_free_samples_and_conversations(ledger: Ledger) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        message = {"role": "assistant", "content": "1 + 1 = 2", "reasoning_content": "let me see"}
        return failing(500) if number == 0 else said("", message=message, finish_reason="length")

    with Endpoint(script) as endpoint:
        knobs = {"task": "reasoning", "price": {"input": 1.0, "output": 2.0}, "limits": {"concurrency": 1}}
        asked = teacher(endpoint.url, **knobs).charge(ledger, "trace")
        found = asked.samples(texts("1 + 1?", "2 + 2?"), 2)
        assert [len(row) for row in found] == [2, 2]
        assert found[0][0] == Sample("1 + 1 = 2", "length", 20, 2, 24e-6, None, "let me see")
        assert endpoint.asked[-1]["max_tokens"] == 2048
        assert [message["role"] for message in endpoint.asked[-1]["messages"]] == ["user"]
        before = len(endpoint.asked)
        asked.samples(texts("1 + 1?"), 1, first=2)
        asked.samples(texts("1 + 1?"), 3)
        assert len(endpoint.asked) == before + 1, "samples that were bought before are found"
        talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write."}]
        written = asked.chat([talk], "write", temperature=0.5, max_tokens=9)
        assert isinstance(written[0], Sample)
        assert endpoint.asked[-1]["messages"] == talk
        assert (endpoint.asked[-1]["temperature"], endpoint.asked[-1]["max_tokens"]) == (0.5, 9)
    assert {name: spent.calls for name, spent in ledger.purposes().items()} == {"trace": 6, "write": 1}


def test_a_refusal_in_a_conversation_is_one(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("", finish_reason="content_filter")) as endpoint:
        found = teacher(endpoint.url).charge(ledger).chat([[{"role": "user", "content": "x"}]])
    assert found == [Refusal("filtered", "")]


def test_answers_that_are_all_rejected_stop_it_early(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("no idea")) as endpoint:
        asked = teacher(endpoint.url).charge(ledger)
        with pytest.raises(RunError, match="none of the first 20 answers can be used; one was invented: 'no idea'"):
            asked.answer(texts(*(f"text {number}" for number in range(500))))
        assert len(endpoint.asked) <= 20 + 16, "those in flight, and no more"


def test_questions_that_are_all_over_the_context_stop_it_early_and_cost_nothing(ledger: Ledger) -> None:
    long = failing(400, "context_length_exceeded", "at most 90 tokens")
    with Endpoint(lambda body, number: long) as endpoint:
        asked = teacher(endpoint.url).charge(ledger)
        with pytest.raises(RunError, match=r"first 20 .* one was over the context: 'HTTP 400 .* 90 tokens'") as caught:
            asked.answer(texts(*(f"text {number}" for number in range(500))))
        assert caught.value.cure.startswith("Shorten the prompt")
        assert len(endpoint.asked) <= 20 + 16
    assert ledger.bought().calls == 0


def test_rows_over_the_context_beside_answers_that_were_paid_for_stop_nothing(ledger: Ledger) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        return failing(400, "context_length_exceeded") if "long" in str(body) else said("positive")

    with Endpoint(script) as endpoint:
        teacher(endpoint.url).charge(ledger).answer(texts("short"))
        added = teacher(endpoint.url).charge(ledger).answer(texts(*(f"long {number}" for number in range(30))))
    assert added.answered_N is not None
    assert not added.answered_N.any()


def test_another_models_answer_is_not_used_and_is_asked_again(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("positive", "another" if number == 0 else MODEL)) as endpoint:
        with pytest.raises(ModelError, match="from the model 'another'"):
            teacher(endpoint.url).charge(ledger).answer(texts("x"))
        accepting = teacher(endpoint.url, accept_model="another").charge(ledger)
        assert accepting.answer(texts("x")).answered_N.tolist() == [True]  # type: ignore[union-attr]
        assert len(endpoint.asked) == 1, "what was paid for is read once it is accepted"
        assert teacher(endpoint.url).charge(ledger).answer(texts("x")).answered_N.tolist() == [True]  # type: ignore[union-attr]
        assert len(endpoint.asked) == 2


def test_a_key_of_all_that_decides_an_answer_and_nothing_else() -> None:
    def key(**knobs: Any) -> bytes:
        return teacher(**{"url": "http://localhost:1/v1", **knobs}).wanted(texts("x").raw)[0].key

    others = [
        {"url": "http://localhost:2/v1"}, {"model": "other"}, {"seed": 1}, {"max_tokens": 3}, {"top_p": 0.5},
        {"temperature": 0.5}, {"temperature": "unset"}, {"read": "json"}, {"read": "logprobs"}, {"system": "Be kind."},
        {"labels": {"negative": "a", "positive": "b"}}, {"prompt": "{text}?"}, {"limit_as": "max_completion_tokens"},
    ]  # fmt: skip
    keys = [key(), *(key(**other) for other in others)]
    assert len(set(keys)) == len(keys)
    same: list[dict[str, Any]] = [
        {"price": {"input": 1, "output": 1}}, {"limits": {"concurrency": 3}}, {"timeout_s": 3}, {"accept_model": ["x"]},
        {"licence": "MIT"}, {"prompt": "{text}"}, {"url": "http://localhost:1/v1/"}, {"batch": True}, {"samples": 1},
    ]  # fmt: skip
    assert {key(**one) for one in same} == {key()}
    wanted = teacher("http://localhost:1/v1", samples=3).wanted(texts("x").raw)
    assert len({one.key for one in wanted}) == 3


def test_a_fingerprint_of_what_decides_its_answers() -> None:
    def mark(**knobs: Any) -> str:
        return teacher(**{"url": "http://localhost:1/v1", **knobs}).fingerprint

    assert mark() == mark(timeout_s=3, price={"input": 1, "output": 1}, labels=CLASSES)
    others = [{"estimator": "renormalised"}, {"samples": 2}, {"classes": ["negative", "other"]}, {"seed": 3}]
    assert len({mark(), *(mark(**other) for other in others)}) == 5


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"base_url": "localhost:8000"}, "no address of an endpoint", "base_url"),
    ({"base_url": "ftp://somewhere/v1"}, "no address of an endpoint", "base_url"),
    ({"base_url": "https://me:secret@somewhere/v1"}, "name or password in it", "base_url"),
    ({"estimator": "sampled"}, "samples above 1", "teacher"),
    ({"samples": 4, "temperature": 0.0}, "temperature above 0", "teacher"),
    ({"samples": 4, "read": "logprobs"}, "estimator: sampled", "teacher"),
    ({"temperature": 3.0}, "from 0 to 2", "teacher"),
    ({"top_logprobs": 21}, "at most 20", "top_logprobs"),
    ({"limits": {"concurrency": 0}}, "at least 1", "limits.concurrency"),
    ({"price": {"input": 1.0}}, "'output' is missing", "price"),
    ({"examples": [{"text": "x"}]}, "should have a label", "teacher"),
    ({"api_key": "sk-1"}, "no knob 'api_key'", "api_key"),
    ({"labels": {"": "nothing"}}, "label should be a word", "teacher"),
]


@pytest.mark.parametrize(("knobs", "what", "where"), WRONG)
def test_a_knob_that_cannot_be_is_named(knobs: dict[str, Any], what: str, where: str) -> None:
    tree = {
        "name": "wrong", "questions": {"kind": "dataset", "source": "rows.csv"},
        "teacher": {"kind": "openai_api", "model": MODEL, **knobs},
        "student": {"kind": "fresh", "model": {"kind": "mlp"}},
    }  # fmt: skip
    with pytest.raises(RecipeError, match=what) as caught:
        Recipe.from_tree(tree)
    assert where in caught.value.where


def test_what_can_be_wrong_is_told_before_a_call(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger, tmp_path: Path
) -> None:
    url = "http://localhost:1/v1"
    rows = texts("x").raw
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("A_KEY", "with\ta tab")
    told = [
        (lambda: teacher("https://api.openai.com/v1"), "OPENAI_API_KEY is not set"),
        (lambda: teacher(url, api_key_env="NO_SUCH_KEY"), "NO_SUCH_KEY is not set"),
        (lambda: teacher(url, api_key_env="A_KEY"), "holds what cannot be a key"),
        (lambda: teacher(url, labels=["negative", "positiv"]), "no label 'positiv'.*Did you mean 'positive'"),
        (lambda: teacher(url, labels=["negative"]), "'positive' that is not told"),
        (lambda: teacher(url, prompt="{txt}").check(rows), "a column 'txt'.*Did you mean 'text'"),
        (lambda: teacher(url, prompt="a label, please").check(rows), "names no column"),
        (lambda: teacher(url, examples=[{"label": "positive"}]).check(rows), "names a column 'text'"),
        (
            lambda: teacher(url, examples=[{"text": "x", "label": "so-so"}]).check(rows),
            "'so-so' is none of the classes",
        ),
        (lambda: teacher(url, classes=list(range(63)), read="logprobs", codes="letters"), "there are 63"),
        (lambda: teacher(url).answer(texts("x")), "through a ledger alone"),
    ]
    for call, what in told:
        with pytest.raises(RecipeError, match=what):
            call()
    with opened(tmp_path / "other.sqlite", "run", Limits(usd=1.0)) as limited:
        with pytest.raises(RecipeError, match="needs the teacher's price"):
            teacher(url).charge(limited)
        teacher(url, price={"input": 0.1, "output": 0.2}).charge(limited)
    assert ledger.spent().calls == 0


def test_no_key_goes_to_an_endpoint_that_was_not_given_one(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.setenv("ANOTHER_KEY", "sk-theirs")
    with Endpoint(honest) as endpoint:
        teacher(endpoint.url).charge(ledger).answer(texts("a"))
        teacher(endpoint.url, api_key_env="ANOTHER_KEY").charge(ledger).answer(texts("b"))
    assert endpoint.keys == ["Bearer none", "Bearer sk-theirs"]


def test_a_budget_keeps_what_was_bought(tmp_path: Path) -> None:
    words = [f"good {number}" for number in range(30)]
    with Endpoint(honest) as endpoint:
        with opened(tmp_path / "l.sqlite", "run", Limits(calls=10)) as ledger, pytest.raises(BudgetReached):
            teacher(endpoint.url).charge(ledger).answer(texts(*words))
        assert len(endpoint.asked) == 10
        with opened(tmp_path / "l.sqlite", "run", Limits(calls=30)) as ledger:
            found = teacher(endpoint.url).charge(ledger).answer(texts(*words))
        assert found.answered_N is not None
        assert found.answered_N.all()
    assert set(endpoint.questions.values()) == {1}


def test_what_a_request_may_cost_covers_what_it_does(ledger: Ledger) -> None:
    """A token has at least one byte, so a text in any script has no more tokens than its JSON has bytes."""
    asked = teacher("http://localhost:1/v1", price={"input": 0.15, "output": 0.6})
    for text in ("", "plain words", "日本語のテキスト", "🎉" * 50, "\n\t\"'"):
        most = asked.most_of(asked.wanted(texts(text).raw)[0])
        assert most.tokens_in >= len(text.encode()) + api_asked.TEMPLATE_TOKENS
        assert most.tokens_out == 32
        assert most.nano_usd == math.ceil(most.tokens_in * 150 + most.tokens_out * 600)


def test_what_an_endpoint_hides_can_be_set_aside_too_and_buys_nothing_again(tmp_path: Path) -> None:
    price = {"input": 0.15, "output": 0.6}

    def script(body: dict[str, Any], number: int) -> Reply:
        return said("positive", tokens=(20, 300))

    with Endpoint(script) as endpoint, opened(tmp_path / "l.sqlite", "run", Limits(usd=1.0)) as ledger:
        with pytest.raises(Overbilled, match="reserve"):
            teacher(endpoint.url, price=price).charge(ledger).answer(texts("a", "b", "c"))
        wide = teacher(endpoint.url, price=price, reserve=10)
        one = wide.wanted(texts("a").raw)[0]
        plain = teacher(endpoint.url, price=price)
        assert wide.most_of(one).tokens == 10 * plain.most_of(one).tokens
        assert wide.most_of_talk([{"role": "user", "content": "a"}]).tokens_out == 320
        assert wide.fingerprint == plain.fingerprint, "it decides no answer"
        assert wide.charge(ledger).answer(texts("a", "b", "c")).answered_N.all()  # type: ignore[union-attr]
    assert set(endpoint.questions.values()) == {1}


ASKS = """
import sys
from pathlib import Path
import numpy as np
from stillroom.budget import Limits
from stillroom.kinds import parse
from stillroom.ledger import opened
from stillroom.rows import Questions
url, path, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
column = np.empty(count, object)
column[:] = [f"good {number}" for number in range(count)]
part = parse("teacher", {"kind": "openai_api", "model": "a-model", "base_url": url, "limits": {"concurrency": 8}})
with opened(path, "run", Limits()) as ledger:
    asked = part.build(Path(), [], ["negative", "positive"]).charge(ledger)
    print("ready", flush=True)
    print(asked.answer(Questions.of({"text": column})).answered_N.sum(), flush=True)
"""


@pytest.mark.kill
def test_killed_at_random_moments_and_run_again_nothing_is_lost_or_paid_for_twice(tmp_path: Path) -> None:
    """Counted at the endpoint: a question is answered twice only where its first answer was in flight at a kill."""
    count, in_flight = 120, 8
    chance = np.random.default_rng(3)

    def script(body: dict[str, Any], number: int) -> Reply:
        return said("positive")._replace(wait_s=0.02)

    environment = {**os.environ, "PYTHONPATH": str(Path(stillroom.__file__).parents[1])}
    kills = 0
    with Endpoint(script) as endpoint:
        command = [sys.executable, "-c", ASKS, endpoint.url, str(tmp_path / "l.sqlite"), str(count)]
        while True:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
            assert child.stdout is not None
            with child.stdout:
                assert child.stdout.readline() == "ready\n"
                if kills < 4:
                    time.sleep(chance.uniform(0.0, 0.1))
                    child.send_signal(signal.SIGKILL)
                    kills += 1
                last = child.stdout.readline()
            child.wait()
            if last:
                break
        asked = Counter(endpoint.questions)
    assert last == f"{count}\n"
    assert set(asked) == {f"good {number}" for number in range(count)}
    assert sum(asked.values()) - count <= kills * in_flight
    with opened(tmp_path / "l.sqlite", "run", Limits()) as ledger:
        assert ledger.lost().calls == ledger.spent().calls - count
        assert ledger.lost().calls >= sum(asked.values()) - count, "each that was answered and lost is counted"


def test_usd_counts_as_the_endpoint_charges(ledger: Ledger) -> None:
    with Endpoint(honest) as endpoint:
        asked = teacher(endpoint.url, price={"input": 0.15, "output": 0.6}).charge(ledger)
        asked.answer(texts("a", "b", "c"))
    assert ledger.spent().nano_usd == 3 * (20 * 150 + 2 * 600)
    assert ledger.spent().usd == pytest.approx(3 * 4200 / NANO)
