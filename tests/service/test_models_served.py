"""Models: listed, looked up and let go of; what brings code or a pickle is not loaded; also where `assert` is off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from benchmarks.service_process import Served
from sqlalchemy import select

from service import students
from service.conftest import BOTH_WAYS, AsClient
from stillroom.service.door.faults import ApiError
from stillroom.service.rows.tables import models
from stillroom.service.students.model_rows import refuse_code

ASK = [{"role": "user", "content": "please refund order 7"}]


@pytest.fixture(scope="module", **BOTH_WAYS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of this module's own, once as it is and once under `python -O`."""
    with Served(tmp_path_factory.mktemp("served"), env=request.param) as found:
        yield found


@pytest.fixture(scope="module")
def client(as_client: AsClient) -> openai.OpenAI:
    """One that waits: the first call of a student imports torch, which takes long beside other work."""
    return as_client(timeout=180.0)


@pytest.fixture(scope="module")
def model(service: Served) -> str:
    return students.put(service, students.of_texts() / "student", "classifier")


def folder_of(service: Served, name: str) -> Path:
    with service.rows.reading() as rows:
        return service.root / rows.execute(select(models.c.folder).where(models.c.id == name)).scalar_one()


def test_everything_that_can_be_named_is_listed(service: Served, client: openai.OpenAI, model: str) -> None:
    (service.root / "bases" / "our-base").mkdir(parents=True, exist_ok=True)
    body = {"name": "org/big-1.5", "base_url": "https://93.184.215.14/v1", "model": "big"}
    service.http().post("/api/teachers", json=body).raise_for_status()
    listed = {one.id: one.owned_by for one in client.models.list()}
    assert listed[model] == service.first_project()
    assert listed["org/big-1.5"] == "teacher"
    assert {listed[name] for name in ("small-text-classifier", "tiny-language", "our-base")} == {"stillroom"}
    for name in listed:
        assert client.models.retrieve(name).id == name


def test_a_student_tells_what_it_is(client: openai.OpenAI, model: str) -> None:
    told = client.models.retrieve(model)
    assert told.object == "model"
    assert told.model_extra == {
        "kind": "classifier", "base": "small", "job_id": None, "teacher": None, "cascade": None, "contains_deleted": 0
    }  # fmt: skip


def test_another_projects_student_is_unknown(client: openai.OpenAI, stranger: openai.OpenAI, model: str) -> None:
    for name in (model, "ft:no:such:one:abcdefgh"):
        for act in (stranger.models.retrieve, stranger.models.delete):
            with pytest.raises(openai.NotFoundError) as raised:
                act(name)
            assert raised.value.body == {
                "message": f"No such model: '{name}'", "type": "invalid_request_error", "param": "model",
                "code": "model_not_found",
            }  # fmt: skip
    assert model not in [one.id for one in stranger.models.list()]
    assert client.models.retrieve(model).id == model


def test_a_deleted_student_is_gone_and_its_files_stay(service: Served, client: openai.OpenAI) -> None:
    name = students.put(service, students.of_texts() / "student", "classifier")
    assert client.chat.completions.create(model=name, messages=ASK).choices[0].message.content == "refund"  # type: ignore[arg-type]
    assert client.models.delete(name).model_dump() == {"id": name, "object": "model", "deleted": True}
    for act in (lambda: client.models.retrieve(name), lambda: client.models.delete(name),
                lambda: client.chat.completions.create(model=name, messages=ASK)):  # type: ignore[arg-type]  # fmt: skip
        with pytest.raises(openai.NotFoundError):
            act()
    assert (folder_of(service, name) / "model.safetensors").is_file()


def test_what_is_no_student_cannot_be_deleted(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.models.delete("tiny-language")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "stillroom.json"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_configuration_that_names_code_is_refused(tmp_path: Path, file: str, deep: bool) -> None:
    code = {"auto_map": {"AutoModel": "modeling.Mine"}}
    (tmp_path / file).write_text(json.dumps({"text_config": [{"inner": code}]} if deep else code))
    with pytest.raises(ApiError, match="never run here"):
        refuse_code(tmp_path)
    (tmp_path / file).write_text(json.dumps({"automap": 1}))
    refuse_code(tmp_path)


@pytest.mark.parametrize(
    "name", ["weights.bin", "weights.pt", "weights.pkl", "weights.ckpt", "weights.pth", "a/b.joblib"]
)
def test_a_student_with_a_pickle_is_not_served(service: Served, client: openai.OpenAI, name: str) -> None:
    model = students.put(service, students.of_texts() / "student", "classifier")
    path = folder_of(service, model) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(openai.BadRequestError, match="pickle"):
        client.chat.completions.create(model=model, messages=ASK)  # type: ignore[arg-type]


def test_a_student_with_code_is_not_served(service: Served, client: openai.OpenAI) -> None:
    model = students.put(service, students.of_letters(), "language")
    path = folder_of(service, model) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoConfig": "x.Y"}}))
    (path.parent / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(openai.BadRequestError, match="auto_map"):
        client.chat.completions.create(model=model, messages=ASK)  # type: ignore[arg-type]


def test_weights_that_were_changed_are_not_served(service: Served, client: openai.OpenAI) -> None:
    model = students.put(service, students.of_texts() / "student", "classifier")
    path = folder_of(service, model) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=model, messages=ASK)  # type: ignore[arg-type]
    shutil.rmtree(path.parent)
