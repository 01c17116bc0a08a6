"""A cascade as it is served: the student where it is sure, its teacher elsewhere; what is stored, saved and audited."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from benchmarks.service_process import Served
from sqlalchemy import select, update

from scripted_endpoint import Endpoint, Reply, failing, said
from service import students
from service.conftest import AsClient, with_teacher
from stillroom.service.rows.tables import calls, completions, projects
from stillroom.service.students.answering import AUDIT_SHARE

PRICE = {"input": 1.0, "output": 2.0}
UNSURE = "xyz"
KNOWN = dict(students.texts(60))


def script(body: dict[str, Any], number: int) -> Reply:
    """Knows the right label of every known text but one, and says it as a model would."""
    text = body["messages"][-1]["content"]
    if text == "fail":
        return failing(500)
    return said(f'"{KNOWN.get(text, "praise").upper()}".')


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, teacher: Endpoint) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with with_teacher(folder, teacher.url, name="big", model="big-1", price=PRICE) as found:
        yield found


@pytest.fixture(scope="module")
def client(as_client: AsClient) -> openai.OpenAI:
    """One that waits: the first call of a student imports torch, which takes long beside other work."""
    return as_client(timeout=180.0)


@pytest.fixture(scope="module")
def model(service: Served) -> str:
    kept = {**students.threshold(students.of_texts()), "threshold_nats": 0.2}
    return students.put(service, students.of_texts() / "student", "classifier", teacher="big", cascade=kept)


def ask(client: openai.OpenAI, model: str, text: str, **more: Any) -> tuple[str, str]:
    """What was said, and who said it."""
    answer = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": text}], **more
    )
    return answer.parse().choices[0].message.content or "", answer.headers["x-stillroom-answered-by"]


def trains_on_stored(service: Served, allowed: bool) -> None:
    with service.rows.writing() as rows:
        rows.execute(update(projects).where(projects.c.id == service.first_project()).values(trains_on_stored=allowed))


def test_it_is_listed_beside_its_student(client: openai.OpenAI, model: str) -> None:
    listed = {one.id: one.owned_by for one in client.models.list()}
    assert listed[f"{model}:cascade"] == "cascade"
    assert client.models.retrieve(f"{model}:cascade").id == f"{model}:cascade"
    assert client.models.retrieve(model).model_extra["cascade"] == f"{model}:cascade"  # type: ignore[index]


def test_the_student_answers_what_it_is_sure_of(client: openai.OpenAI, model: str, teacher: Endpoint) -> None:
    before = len(teacher.asked)
    said = [ask(client, f"{model}:cascade", text) for text in list(KNOWN)[:20]]
    assert [one[0] for one in said] == list(KNOWN.values())[:20]
    assert {one[1] for one in said} == {"student"}
    assert len(teacher.asked) - before <= 10  # audited ones alone
    assert ask(client, f"{model}:cascade", UNSURE) == ('"PRAISE".', "teacher")
    assert any(one["messages"][-1]["content"] == UNSURE for one in teacher.asked[before:])


def test_a_stream_says_who_answers_and_says_the_same(client: openai.OpenAI, model: str) -> None:
    for text, by, wanted in (
        (next(iter(KNOWN)), "student", next(iter(KNOWN.values()))),
        (UNSURE, "teacher", '"PRAISE".'),
    ):
        answer = client.chat.completions.with_raw_response.create(
            model=f"{model}:cascade", messages=[{"role": "user", "content": text}], stream=True
        )
        told = "".join(one.choices[0].delta.content or "" for one in answer.parse() if one.choices)
        assert (told, answer.headers["x-stillroom-answered-by"]) == (wanted, by)


def test_what_the_teacher_says_is_stored_where_the_project_wants(
    service: Served, client: openai.OpenAI, model: str
) -> None:
    def stored(text: str, **more: Any) -> list[str | None]:
        marks = {"text": text}
        ask(client, f"{model}:cascade", UNSURE, metadata=marks, **more)
        ask(client, f"{model}:cascade", next(iter(KNOWN)), metadata=marks, **more)
        return [one.choices[0].message.content for one in client.chat.completions.list(metadata=marks)]

    assert stored("not wanted") == []
    assert set(stored("asked for", store=True)) == {next(iter(KNOWN.values())), '"PRAISE".'}
    trains_on_stored(service, True)
    assert stored("wanted") == ['"PRAISE".']
    (kept,) = client.chat.completions.list(model="big", metadata={"text": "wanted"})
    assert kept.choices[0].message.content == '"PRAISE".'
    with service.rows.reading() as rows:
        told = rows.execute(
            select(completions.c.model, completions.c.by).where(completions.c.project_id == service.first_project())
        )
        assert set(told.all()) == {("big", "teacher"), (f"{model}:cascade", "student")}
    assert stored("wanted, and this one not", store=False) == []
    trains_on_stored(service, False)


def test_what_is_stored_by_itself_is_kept_nowhere_else(service: Served, client: openai.OpenAI, model: str) -> None:
    """A call with a key, that leaves open whether it is stored: its answer is gone with what was stored."""
    trains_on_stored(service, True)
    marks = {"text": "kept once"}

    def send() -> httpx2.Response:
        said = [{"role": "user", "content": UNSURE}]
        sent = {"model": f"{model}:cascade", "messages": said, "metadata": marks}
        return service.http().post("/v1/chat/completions", json=sent, headers={"Idempotency-Key": "kept once"})

    first, again = send(), send()
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    (stored,) = client.chat.completions.list(metadata=marks)
    client.chat.completions.delete(stored.id)
    gone = send()
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "completion_deleted")


def test_savings_and_the_audit_slice(service: Served, client: openai.OpenAI, model: str, teacher: Endpoint) -> None:
    name = f"{model}:cascade"
    sure = list(KNOWN)
    for text in (sure * 4)[:200]:
        ask(client, name, text)
    for _ in range(5):
        ask(client, name, UNSURE)
    ends = time.monotonic() + 20
    found: dict[str, Any] = {}
    while time.monotonic() < ends:
        told = service.http().get("/api/savings").json()
        found = next(one for one in told["data"] if one["model"] == name)
        with service.rows.reading() as rows:
            every = rows.execute(select(calls).where(calls.c.model == name)).mappings().all()
        mine = [one for one in every if one["by"] != "audit"]
        if len(mine) >= 205 and found["calls"] == len(mine):
            break
        time.sleep(0.2)
    audited = [one for one in every if one["agreed"] is not None]
    assert 1 <= len(audited) <= 6 * AUDIT_SHARE * len(mine)
    assert all(one["by"] == "audit" and one["nano_usd"] == 20 * 1000 + 2 * 2000 for one in audited)
    assert (found["audited"], found["agreed"], found["agreement"]) == (len(audited), len(audited), 1.0)
    assert found["by_student"] + found["by_teacher"] == found["calls"]
    assert found["by_teacher"] >= 6
    asked = found["by_teacher"] + len(audited)
    assert found["usd"] == pytest.approx(asked * 24e-6)
    # What the student answered would have cost about a token for four letters.
    plain = [one for one in mine if one["by"] == "student"]
    assert found["saved_usd"] == pytest.approx(sum(one["saved_nano_usd"] for one in plain) / 1e9)
    assert all(5 * 1000 <= one["saved_nano_usd"] <= 20 * 1000 for one in plain)
    assert told["usd"] >= found["usd"]
    assert told["calls"] >= found["calls"]


def test_several_answers_save_their_words_and_one_prompt(
    service: Served, client: openai.OpenAI, teacher: Endpoint
) -> None:
    """As vendors bill it."""
    other = students.put(service, students.of_texts() / "student", "classifier", teacher="big")
    text, label = next(iter(KNOWN.items()))
    for count in (1, 4):
        ask(client, other, text, n=count)
    ends, saved = time.monotonic() + 20, list[int]()
    while len(saved) < 2 and time.monotonic() < ends:
        time.sleep(0.1)
        with service.rows.reading() as rows:
            asked = select(calls.c.saved_nano_usd).where(calls.c.model == other).order_by(calls.c.number)
            saved = list(rows.execute(asked).scalars())
    prompt, words = -(-len(text) // 4) * 1000, -(-len(label) // 4) * 2000
    assert saved == [prompt + words, prompt + 4 * words]


def test_an_audit_sees_a_difference(service: Served, client: openai.OpenAI, teacher: Endpoint) -> None:
    kept = {**students.threshold(students.of_texts()), "threshold_nats": 0.0}
    other = students.put(service, students.of_texts() / "student", "classifier", teacher="big", cascade=kept)
    text = "please refund parcel 9999"  # the teacher does not know it, and says praise
    for _ in range(250):
        assert ask(client, f"{other}:cascade", text) == ("refund", "student")
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        told = service.http().get("/api/savings").json()["data"]
        found = next(one for one in told if one["model"] == f"{other}:cascade")
        if found["calls"] == 250:
            break
        time.sleep(0.2)
    assert found["audited"] >= 1
    assert (found["agreed"], found["agreement"]) == (0, 0.0)


def test_where_the_teacher_fails_the_caller_hears_of_it(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client, f"{model}:cascade", "fail")
    assert (raised.value.status_code, raised.value.code) == (502, "teacher_failed")


def test_without_its_teacher_there_is_no_cascade(service: Served, client: openai.OpenAI) -> None:
    kept = students.threshold(students.of_texts())
    lone = students.put(service, students.of_texts() / "student", "classifier", teacher="gone", cascade=kept)
    with pytest.raises(openai.NotFoundError) as raised:
        ask(client, f"{lone}:cascade", UNSURE)
    assert raised.value.code == "teacher_not_found"
    assert ask(client, lone, next(iter(KNOWN)))[1] == "student"
