"""Every route of the OpenAPI document: what it says, its stream, and across projects; also where `assert` is off."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from benchmarks.service_process import Served
from sqlalchemy import insert

from service.conftest import BOTH_WAYS
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.tables import (
    completions,
    events,
    files,
    jobs,
    keys,
    lineage,
    models,
    projects,
    teachers,
    uploads,
)

SUMMARIES = re.compile(r"{(\w+)}")


@pytest.fixture(scope="module", **BOTH_WAYS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of this module's own, once as it is and once under `python -O`."""
    with Served(tmp_path_factory.mktemp("served"), env=request.param) as found:
        yield found


def document(service: Served) -> dict[str, Any]:
    """The OpenAPI document as it is served."""
    found: dict[str, Any] = service.http().get("/api/openapi.json").json()
    return found


def routes(service: Served) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of every route."""
    for path, methods in document(service)["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_route_says_what_it_does(service: Served) -> None:
    lacking = [f"{method} {path}" for method, path, operation in routes(service) if not operation.get("description")]
    assert not lacking


def test_every_error_is_documented_in_the_clients_form(service: Served) -> None:
    whole = document(service)
    for method, path, operation in routes(service):
        for status in ("400", "401", "404", "429"):
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}, f"{method} {path} {status}"
        assert "HTTPValidationError" not in json.dumps(operation)
    assert whole["info"]["description"].endswith("Not affiliated with OpenAI.")


def test_the_stream_answers_as_the_document_says(service: Served, owned: dict[str, str]) -> None:
    """Generated calls are not made of a stream that lives; here is one, from its first event to its end."""
    path = "/v1/fine_tuning/jobs/{job_id}/events/stream"
    told = document(service)["paths"][path]["get"]["responses"]
    http, at = service.http(), path.format(**owned)
    whole = http.get(at)
    assert list(told["200"]["content"]) == ["text/event-stream"]
    assert whole.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert '"message":"mine"' in whole.text.replace(": ", ":")
    (last,) = re.findall(r"^id: (\S+)$", whole.text, re.MULTILINE)[-1:]
    reader = service.http(service.key("not a reader", ("write",)))
    answers = {
        "200": whole, "204": http.get(at, headers={"last-event-id": last}), "400": http.get(at, headers={"last-event-id": "x"}),
        "401": service.http("sr_" + "x" * 43).get(at), "403": reader.get(at), "404": http.get(path.format(job_id="ftjob-x")),
    }  # fmt: skip
    assert {status: str(answer.status_code) for status, answer in answers.items()} == {name: name for name in answers}
    assert set(answers) <= set(told)
    for status in ("400", "401", "403", "404"):
        assert set(answers[status].json()) == {"error"}
        assert answers[status].headers["content-type"] == "application/json"


# Across projects: what is another's must answer as what never was.

STRANGE = {"file_id": "file", "job_id": "ftjob", "completion_id": "chatcmpl", "teacher_id": "teacher", "key_id": "key",
           "project_id": "proj", "upload_id": "upload", "source_id": "file"}  # fmt: skip
OPEN = {"name"}
"""Parameters that name nothing of a project's: kinds and starters."""
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/chat/completions/{completion_id}"): {"json": {"metadata": {"a": "b"}}},
    ("POST", "/api/teachers/{teacher_id}"): {"json": {"distillable": False}},
    ("POST", "/api/projects/{project_id}"): {"json": {"name": "taken over"}},
    ("POST", "/v1/uploads/{upload_id}/complete"): {"json": {"part_ids": ["part-" + "a" * 24]}},
    ("POST", "/v1/uploads/{upload_id}/parts"): {"files": {"data": ("a", b"{}")}},
}


@pytest.fixture(scope="module")
def owned(service: Served) -> dict[str, str]:
    """One row of everything, in the project of the person at the keyboard; ids by parameter."""
    project = service.first_project()
    mine = {"project_id": project, "created_at": 1}
    made = {name: new_id(prefix) for name, prefix in STRANGE.items()}
    made["project_id"], made["model_id"] = project, "ft:small:default:x:abcdefgh"
    made["source_id"] = made["file_id"]
    job = {
        "status": "succeeded", "training_file": made["file_id"], "seed": 1, "hyperparameters": {}, "asked": {}, "recipe": {},
        "phases": {}, "figures": {"checkpoint": {"id": "ftckpt-x"}}, "model": "m",
    }  # fmt: skip
    label = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 3}
    ways = {
        files: {"id": made["file_id"], "sha256": "x", "status": "processed", **label},
        jobs: {"id": made["job_id"], **job},
        models: {"id": made["model_id"], "job_id": made["job_id"], "kind": "classifier", "base": "m", "folder": "models/x"},
        completions: {"id": made["completion_id"], "model": "m", "request": {"messages": []}, "response": {}, "by": "teacher"},
        teachers: {"id": made["teacher_id"], "name": "mine", "base_url": "https://api.example.com/v1", "model": "m"},
        keys: {"id": made["key_id"], "name": "k", "digest": "d", "shown": "s", "scopes": ["read"]},
        uploads: {"id": made["upload_id"], "expires_at": 1 << 40, "status": "pending", **label},
    }  # fmt: skip
    with service.rows.writing() as rows:
        for table, values in ways.items():
            rows.execute(insert(table).values(**mine, **values))
        rows.execute(
            insert(lineage).values(project_id=project, job_id=made["job_id"], source_id=made["file_id"], row=1)
        )
        rows.execute(insert(events).values(**mine, job_id=made["job_id"], level="info", type="message", message="mine"))
    (service.root / "files").mkdir(exist_ok=True)
    (service.root / "files" / made["file_id"]).write_text("{}\n")
    return made


def unknown(name: str) -> str:
    """An id of the right form that nothing has."""
    return "ft:small:default:x:zzzzzzzz" if name == "model_id" else new_id(STRANGE[name])


def asked(http: httpx2.Client, method: str, path: str, ids: dict[str, str], route: str) -> tuple[int, str]:
    """Status and body, with the ids of the request blanked, and the ids of requests left out."""
    given = dict(BODIES.get((method, route), {}))
    answer = http.request(method, path, **given)
    text = answer.text
    for one in ids.values():
        text = text.replace(one, "ID")
    return answer.status_code, text


def test_another_projects_ids_answer_as_unknown_ones(service: Served, owned: dict[str, str]) -> None:
    """Made from the document: a route with an id that nobody tried here fails the test."""
    key = service.key("stranger", project=service.project("strangers"))
    http, tried, wrong = service.http(key), 0, []
    for method, path, _ in routes(service):
        names = SUMMARIES.findall(path)
        if not names or set(names) <= OPEN:
            continue
        assert set(names) <= {*STRANGE, "model_id"}, f"{method} {path} has an id that this test does not know"
        theirs, nobodys = {name: owned[name] for name in names}, {name: unknown(name) for name in names}
        found = asked(http, method, path.format(**theirs), theirs, path)
        expected = asked(http, method, path.format(**nobodys), nobodys, path)
        tried += 1
        if found != expected or expected[0] not in (404,):
            wrong.append(f"{method} {path}: {found} for another project's, {expected} for an unknown one")
    assert not wrong, "\n" + "\n".join(wrong)
    assert tried >= 30


def test_another_projects_lists_are_empty(service: Served, owned: dict[str, str]) -> None:
    """Nor is anything found through a filter, a cursor or a body."""
    key = service.key("stranger", project=service.project("strangers"))
    http = service.http(key)
    for method, path, operation in routes(service):
        if method != "GET" or SUMMARIES.search(path):
            continue
        text = http.get(path).text
        for name, one in owned.items():
            assert one not in text, f"{path} shows {name} of another project"
        parameters = [one["name"] for one in operation.get("parameters", ())]
        if "after" in parameters:
            for one in owned.values():
                found, expected = (http.get(path, params={"after": after}) for after in (one, "nothing"))
                assert found.status_code == expected.status_code == 404, f"{path}?after={one}: {found.text}"
                assert found.text.replace(one, "ID") == expected.text.replace("nothing", "ID")
    for where in ("training_file", "validation_file"):
        body = {"model": "small-text-classifier", "training_file": owned["file_id"], where: owned["file_id"]}
        nobody = {"model": "small-text-classifier", "training_file": unknown("file_id"), where: unknown("file_id")}
        found, expected = (http.post("/v1/fine_tuning/jobs", json=one) for one in (body, nobody))
        assert found.status_code == expected.status_code in (400, 404), found.text
        assert found.json()["error"]["code"] == expected.json()["error"]["code"]
    for model in (owned["model_id"], "mine"):
        chat = {"model": model, "messages": [{"role": "user", "content": "a"}]}
        found = http.post("/v1/chat/completions", json=chat)
        expected = http.post("/v1/chat/completions", json={**chat, "model": "nobodys"})
        assert found.status_code == expected.status_code == 404
        assert found.text.replace(model, "M") == expected.text.replace("nobodys", "M")


def test_the_owner_finds_all_of_it(service: Served, owned: dict[str, str]) -> None:
    """Else the tests above would show nothing."""
    http = service.http()
    for method, path, _ in routes(service):
        names = SUMMARIES.findall(path)
        if (
            method == "GET"
            and names
            and not set(names) <= OPEN
            and not path.endswith(("/report", "/scorecard", "/stream"))
        ):
            answer = http.get(path.format(**owned))
            assert answer.status_code == 200, f"{path}: {answer.text}"


def test_nothing_was_changed_by_a_stranger(service: Served, owned: dict[str, str]) -> None:
    with service.rows.reading() as rows:
        assert rows.exec_driver_sql("SELECT count(*) FROM projects WHERE name = 'taken over'").scalar() == 0
        assert rows.execute(files.select().where(files.c.deleted_at.is_not(None))).first() is None
        assert rows.execute(keys.select().where(keys.c.revoked_at.is_not(None))).first() is None
        assert rows.execute(projects.select().where(projects.c.id == owned["project_id"])).first() is not None
