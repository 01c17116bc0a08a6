"""Stored completions by the official client: found, changed, erased; redacted first; not for training unasked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks.service_process import SOURCE, Served
from sqlalchemy import Connection, select, update

from stillroom.errors import InputError
from stillroom.service.data import completion_rows as completions
from stillroom.service.data import retention
from stillroom.service.data.redaction import Redaction, loaded
from stillroom.service.door.access import Caller, make_project
from stillroom.service.door.faults import ApiError
from stillroom.service.rows.database import Database
from stillroom.service.rows.ids import is_id, new_id
from stillroom.service.rows.tables import completion_metadata, projects
from stillroom.service.rows.tables import completions as table
from stillroom.service.settings import Settings

HIDE = (r"[\w.]+@[\w.]+", r"\b\d{4}-\d{4}\b")


def call(question: Any = "What is 2+2?") -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    return {"model": "teacher", "messages": messages, "temperature": 0.5, "store": True}


def answer(text: str = "4", logprobs: Any = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": new_id("chatcmpl"), "object": "chat.completion", "created": int(time.time()), "model": "upstream-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }  # fmt: skip


def keep(rows: Connection, caller: Caller, **given: Any) -> str:
    """Made ready and stored."""
    return completions.store(rows, completions.prepared(caller, **given))


class Project:
    """A project of its own, its client, and a way to store into it as the chat route does."""

    def __init__(self, served: Served, name: str) -> None:
        self.served, self.id = served, served.project(name)
        self.key = served.key(name, project=self.id)
        self.client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=self.key, max_retries=0)
        self.caller = Caller(self.id, "", frozenset())

    def store(self, text: str = "4", model: str = "teacher", redact: tuple[str, ...] = (), **pairs: str) -> str:
        with self.served.rows.writing() as rows:
            return keep(
                rows, self.caller, model=model, request=call(), response=answer(text), metadata=pairs, by="a teacher",
                redaction=Redaction(redact),
            )  # fmt: skip

    def row(self, name: str) -> Any:
        with self.served.rows.reading() as rows:
            return rows.execute(select(table).where(table.c.id == name)).mappings().one()

    def set(self, **values: Any) -> None:
        with self.served.rows.writing() as rows:
            rows.execute(update(projects).where(projects.c.id == self.id).values(**values))

    def age(self, name: str, days: float) -> None:
        with self.served.rows.writing() as rows:
            made = int(time.time() - days * completions.DAY_S)
            rows.execute(update(table).where(table.c.id == name).values(created_at=made))

    def matching(self, **pairs: str) -> list[str]:
        return [row["id"] for row in completions.matching(self.served.rows, self.id, pairs)]


@pytest.fixture
def project(service: Served, request: pytest.FixtureRequest) -> Iterator[Project]:
    found = Project(service, request.node.name)
    with found.client:
        yield found


def test_one_is_kept_and_read_again(project: Project, as_client: Any) -> None:
    name = project.store("4", app="sums")
    found = project.client.chat.completions.retrieve(name)
    assert (found.id, found.object, found.model, found.metadata) == (
        name,
        "chat.completion",
        "teacher",
        {"app": "sums"},
    )
    assert found.choices[0].message.content == "4"
    assert found.usage is not None
    assert found.usage.total_tokens == 10
    assert found.temperature == 0.5  # type: ignore[attr-defined]
    strict = as_client(project.key, _strict_response_validation=True)
    assert strict.chat.completions.retrieve(name).id == name
    assert [one.id for one in strict.chat.completions.list()] == [name]
    assert strict.chat.completions.update(name, metadata={"app": "x"}).metadata == {"app": "x"}
    assert strict.chat.completions.delete(name).deleted


def test_its_messages_are_paged(project: Project) -> None:
    name = project.store()
    messages = list(project.client.chat.completions.messages.list(name, limit=1))
    assert [(one.role, one.content) for one in messages] == [("system", "Be brief."), ("user", "What is 2+2?")]
    assert [one.id for one in messages] == [f"{name}-0", f"{name}-1"]
    assert messages[0].content_parts is None
    assert [one.role for one in project.client.chat.completions.messages.list(name, order="desc")] == ["user", "system"]
    with pytest.raises(openai.NotFoundError):
        project.client.chat.completions.messages.list(name, after="other")
    parts = [{"type": "text", "text": "2"}, {"type": "text", "text": "+2"}]
    with project.served.rows.writing() as rows:
        name = keep(
            rows,
            project.caller,
            model="t",
            request=call(parts),
            response=answer(),
            metadata=None,
            by="t",
            redaction=Redaction(),
        )
    last = list(project.client.chat.completions.messages.list(name))[-1]
    assert last.content == "2+2"
    assert [part.type for part in last.content_parts or []] == ["text", "text"]


def test_they_are_found_by_model_and_all_of_the_metadata(project: Project) -> None:
    both = project.store(app="mail", lang="de")
    mail = project.store(app="mail", lang="en")
    other = project.store(app="chat", lang="de", model="student")
    listed = project.client.chat.completions.list

    def ids(**more: Any) -> list[str]:
        return [one.id for one in listed(**more)]

    assert ids() == [both, mail, other]
    assert ids(order="desc", limit=1) == [other, mail, both]
    assert ids(metadata={"app": "mail"}) == [both, mail]
    assert ids(metadata={"app": "mail", "lang": "de"}) == [both]
    assert ids(metadata={"lang": "de"}, model="student") == [other]
    assert ids(metadata={"app": "ma"}) == ids(metadata={"app' OR '1'='1": "x"}) == []
    assert ids(after=both, limit=1) == [mail, other]
    page = listed(limit=2)
    assert page.has_more
    assert len(page.data) == 2
    with pytest.raises(openai.BadRequestError):
        listed(metadata={str(n): "x" for n in range(17)})
    with pytest.raises(openai.BadRequestError) as raised:
        listed(limit=101)
    assert raised.value.param == "limit"


def test_its_metadata_changes(project: Project) -> None:
    name = project.store(app="mail")
    changed = project.client.chat.completions.update(name, metadata={"app": "post", "kept": "yes"})
    assert changed.metadata == {"app": "post", "kept": "yes"}
    assert [one.id for one in project.client.chat.completions.list(metadata={"app": "post"})] == [name]
    assert not list(project.client.chat.completions.list(metadata={"app": "mail"}))
    assert project.client.chat.completions.update(name, metadata=None).metadata is None
    with pytest.raises(openai.BadRequestError) as raised:
        project.client.chat.completions.update(name, metadata={"k" * 65: "v"})
    assert raised.value.param == "metadata"


def test_deleting_erases_it(project: Project) -> None:
    name = project.store("a secret answer", app="mail")
    gone = project.client.chat.completions.delete(name)
    assert (gone.id, gone.object, gone.deleted) == (name, "chat.completion.deleted", True)
    row = project.row(name)
    assert (row["request"], row["response"], row["metadata"]) == ({}, {}, None)
    with project.served.rows.reading() as rows:
        named = completion_metadata.c.completion_id == name
        assert rows.execute(select(completion_metadata).where(named)).first() is None
    calls = project.client.chat.completions
    for again in (
        lambda: calls.retrieve(name), lambda: calls.delete(name), lambda: calls.update(name, metadata={}),
        lambda: calls.messages.list(name), lambda: calls.list(after=name),
    ):  # fmt: skip
        with pytest.raises(openai.NotFoundError):
            again()
    assert not list(calls.list())


def test_another_projects_completion_is_an_unknown_one(project: Project, stranger: openai.OpenAI) -> None:
    name = project.store(app="mail")
    told = set()
    for one in (name, "chatcmpl-" + "x" * 24):
        with pytest.raises(openai.NotFoundError) as raised:
            stranger.chat.completions.retrieve(one)
        told.add(raised.value.message.replace(one, "NAME"))
        for again in (stranger.chat.completions.delete, stranger.chat.completions.messages.list):
            with pytest.raises(openai.NotFoundError):
                again(one)
        with pytest.raises(openai.NotFoundError):
            stranger.chat.completions.update(one, metadata={"app": "stolen"})
    assert len(told) == 1
    assert not list(stranger.chat.completions.list(metadata={"app": "mail"}))
    assert project.client.chat.completions.retrieve(name).metadata == {"app": "mail"}


def test_the_id_of_the_answer_is_kept_where_it_is_ours(project: Project) -> None:
    said = answer()
    with project.served.rows.writing() as rows:
        more = {"model": "t", "request": call(), "metadata": None, "by": "t", "redaction": Redaction()}
        assert keep(rows, project.caller, response=said, **more) == said["id"]
        other = keep(rows, project.caller, response={**said, "id": "../../x"}, **more)
    assert is_id(other, "chatcmpl")
    assert project.client.chat.completions.retrieve(other).id == other


def test_what_must_not_be_kept_is_blanked_first(project: Project) -> None:
    spelled = {"content": [{"token": "ann@", "bytes": [97], "logprob": -0.1, "top_logprobs": []}], "refusal": None}
    asked = call([{"type": "text", "text": "I am ann@example.org, 1234-5678"}])
    said = answer("Hello ann@example.org", spelled)
    said["choices"].append({**answer("Nothing to hide", spelled)["choices"][0], "index": 1})
    with project.served.rows.writing() as rows:
        name = keep(
            rows, project.caller, model="m1234-5678", request=asked, response=said, by="t",
            metadata={"user": "ann@example.org", "plan": "free"}, redaction=Redaction(HIDE),
        )  # fmt: skip
    row = project.row(name)
    assert "example" not in str(dict(row))
    assert row["request"]["messages"][1]["content"][0]["text"] == "I am [redacted], [redacted]"
    first, second = row["response"]["choices"]
    assert first["message"]["content"] == "Hello [redacted]"
    assert first["logprobs"] is None, "tokens would spell it out"
    assert second["logprobs"] is None, "and so would those of the prompt"
    assert row["metadata"] == {"user": "[redacted]", "plan": "free"}
    assert row["model"] == "m1234-5678"
    with pytest.raises(InputError, match="no regular expression"):
        Redaction(("(",))


def test_no_field_keeps_what_was_blanked_in_another(project: Project) -> None:
    mail, pieces = "zoe@example.org", [{"token": "zoe", "logprob": -0.1}]
    asked = {**call(f"I am {mail}"), "metadata": {mail: f"of {mail}"}, "logprobs": True}
    said = {**answer("Hello", {"content": pieces}), "prompt_logprobs": [{"1": {"decoded_token": "zoe"}}]}
    said |= {"metadata": asked["metadata"], "prompt_token_ids": [1, 2], "meta_info": {"output_ids": [4]}, "tokens": [5]}
    said["usage"] = {"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 2}}
    said["choices"][0] |= {"reasoning": f"She is {mail}", "token_ids": [3], "stop_reason": mail}
    given = {"model": "m", "metadata": asked["metadata"], "by": "t", "redaction": Redaction(HIDE)}
    with project.served.rows.writing() as rows:
        name = keep(rows, project.caller, request=asked, response=said, **given)
        plain = {**call("I am well"), "metadata": {"user": mail}}
        other = keep(rows, project.caller, request=plain, response=answer("Good", {"content": pieces}), **given)
    row, shown = project.row(name), project.client.chat.completions.retrieve(name).model_dump()
    for told in (dict(row), shown):
        assert "zoe" not in str(told)
    assert (
        row["metadata"] == row["request"]["metadata"] == row["response"]["metadata"] == {"[redacted]": "of [redacted]"}
    )
    (choice,) = row["response"]["choices"]
    assert (choice["reasoning"], choice["stop_reason"]) == ("She is [redacted]", "[redacted]")
    assert [row["response"][word] for word in ("prompt_logprobs", "prompt_token_ids")] == [None, None]
    assert [choice[word] for word in ("logprobs", "token_ids")] == [None, None]
    assert (row["response"]["meta_info"], row["response"]["tokens"]) == ({"output_ids": None}, None)
    assert row["response"]["usage"] == said["usage"], "counts spell nothing"
    assert row["request"]["logprobs"] is True
    unchanged = project.row(other)["response"]["choices"][0]
    assert unchanged["logprobs"] == {"content": pieces}, "metadata is spelled by no token"


def shout(text: str) -> Any:
    """A hook that knows a name, and fails where it is told to."""
    if "fail" in text:
        raise ValueError(text)
    return 7 if "seven" in text else text.replace("Ann", "somebody")


def test_a_function_of_the_operators_redacts_too(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    redaction = Redaction(HIDE, shout)
    assert redaction.text("Ann, ann@example.org") == "somebody, [redacted]"
    assert redaction.pairs({"of Ann": "Ann", "n": "seven", "s": "fail: canary"}) == {
        "of somebody": "somebody", "n": "[redacted]", "s": "[redacted]"
    }  # fmt: skip
    told = capsys.readouterr().err
    assert "redaction failed" in told
    assert "canary" not in told
    with project.served.rows.writing() as rows:
        name = keep(
            rows, project.caller, model="m", request=call("I am Ann"), response=answer("Hello Ann", {"content": []}), by="t",
            metadata={"for Ann": "Ann"}, redaction=Redaction((), shout),
        )  # fmt: skip
    row = project.row(name)
    assert "Ann" not in str(dict(row))
    assert row["response"]["choices"][0]["message"]["content"] == "Hello somebody"
    assert row["response"]["choices"][0]["logprobs"] is None
    assert row["metadata"] == {"for somebody": "somebody"}
    assert [one.id for one in project.client.chat.completions.list(metadata={"for somebody": "somebody"})] == [name]


@pytest.mark.parametrize(
    ("named", "why"),
    [("no_such_module:f", "No module named"), ("json:f", "no attribute"), ("json:__name__", "not callable"),
     ("json:loads", "Expecting value"), ("builtins:len", "returns int"), ("builtins", "no attribute"), (":", "Empty")],
)  # fmt: skip
def test_a_function_that_redacts_nothing_is_refused(named: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as raised:
        loaded(named)
    assert raised.value.where == "--redact-with"
    assert "takes a text" in (raised.value.cure or "")


def test_a_server_with_a_function_of_the_operators(serving: Any, tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text("def hide(text):\n    return text.replace('Ann', 'somebody')\n")
    hiding = serving("--redact-with", "ours:hide", env={"PYTHONPATH": f"{SOURCE}:{tmp_path}"})
    project = Project(hiding, "hiding")
    with project.client:
        changed = project.client.chat.completions.update(project.store(), metadata={"Ann": "is Ann"})
        assert changed.metadata == {"somebody": "is somebody"}
    with pytest.raises(RuntimeError, match="--redact-with"):
        serving("--redact-with", "ours:seek", env={"PYTHONPATH": f"{SOURCE}:{tmp_path}"})


def test_a_server_that_redacts_does_so_for_new_metadata(serving: Any) -> None:
    hiding = serving("--redact", HIDE[0])
    project = Project(hiding, "hiding")
    with project.client:
        name = project.store()
        changed = project.client.chat.completions.update(name, metadata={"user": "ann@example.org"})
        assert changed.metadata == {"user": "[redacted]"}
    assert "ann@example.org" not in hiding.told()


def test_training_is_for_those_who_said_so(project: Project) -> None:
    name = project.store(app="mail")
    with pytest.raises(ApiError) as raised:
        project.matching(app="mail")
    assert (raised.value.status, raised.value.code) == (403, "stored_completions_not_for_training")
    assert "trains_on_stored" in raised.value.message
    with project.served.rows.reading() as rows:
        assert not completions.may_train(rows, project.id)
        assert [row["id"] for row in completions.latest(rows, project.id, {"app": "mail"}, None, 9)[1]] == [name]
    project.set(trains_on_stored=True)
    assert project.matching(app="mail") == [name]
    assert project.matching(app="chat") == []
    project.client.chat.completions.delete(name)
    assert project.matching() == []


def test_what_is_too_old_is_gone_and_then_erased(project: Project, service: Served) -> None:
    project.set(trains_on_stored=True, retention_days=30)
    old, new = project.store("old"), project.store("new")
    project.age(old, 30.1)
    project.age(new, 29.9)
    assert project.matching() == [new]
    assert [one.id for one in project.client.chat.completions.list()] == [new]
    with pytest.raises(openai.NotFoundError):
        project.client.chat.completions.retrieve(old)
    assert project.row(old)["response"], "until the sweep it lies there"
    with pytest.raises(openai.NotFoundError):
        project.client.chat.completions.list(after=old)
    retention.sweep(service.rows, Settings(service.root))
    assert project.row(old)["response"] == {}
    assert project.row(new)["response"]


def test_the_sweep_erases_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, database = Settings(tmp_path), Database(tmp_path)
    database.upgrade()
    project = make_project(database, "a")
    with database.writing() as rows:
        rows.execute(update(projects).values(retention_days=1))
        for _ in range(8):
            keep(
                rows, Caller(project, "", frozenset()), model="t", request=call(), response=answer(), by="t",
                metadata={"app": "x"}, redaction=Redaction(),
            )  # fmt: skip
        rows.execute(update(table).where(table.c.number < 8).values(created_at=int(time.time()) - 2 * 86_400))
    monkeypatch.setattr(retention, "AT_ONCE", 3)
    assert retention.sweep(database, settings).completions == 7
    assert retention.sweep(database, settings).completions == 0
    with database.reading() as rows:
        kept = rows.execute(select(table.c.request).where(table.c.deleted_at.is_(None))).scalars().all()
        assert len(kept) == 1
        assert len(rows.execute(select(completion_metadata)).all()) == 1
        assert rows.execute(select(table.c.request).where(table.c.deleted_at.is_not(None))).scalars().all() == [{}] * 7
    database.close()


def test_what_is_erased_is_in_no_byte_of_the_database(tmp_path: Path) -> None:
    settings, database = Settings(tmp_path), Database(tmp_path)
    database.upgrade()
    project = make_project(database, "a")

    def holds(text: str) -> bool:
        return any(text.encode() in path.read_bytes() for path in tmp_path.glob("service.sqlite*"))

    with database.writing() as rows:
        name = keep(
            rows, Caller(project, "", frozenset()), model="t", request=call("canary-asked"), by="t", redaction=Redaction(),
            response=answer("canary-said " * 800), metadata={"app": "canary-named"},
        )  # fmt: skip
    assert holds("canary-asked")
    with database.writing() as rows:
        completions.erase(rows, project, [name])
    retention.sweep(database, settings)
    assert not holds("canary")
    database.close()


def test_a_server_sweeps_by_itself(serving: Any, tmp_path: Path) -> None:
    served = serving(folder=tmp_path / "sweeping")
    project = Project(served, "old things")
    project.client.close()
    project.set(retention_days=1)
    name = project.store("old")
    project.age(name, 2)
    served.stop()
    served.start()
    until = time.monotonic() + 60
    while project.row(name)["response"]:
        assert time.monotonic() < until, served.told()[-2000:]
        time.sleep(0.2)
