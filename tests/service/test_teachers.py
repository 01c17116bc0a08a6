"""Teachers: set by those who may, looked at before they are kept, their keys never seen again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.service_process import Served
from sqlalchemy import select

from service.attacks import address_attacks
from stillroom.errors import CorruptFile
from stillroom.service.door.faults import ApiError
from stillroom.service.door.vault import Vault
from stillroom.service.rows.tables import teachers
from stillroom.service.settings import Settings
from stillroom.service.teachers import teacher_rows as room

KEY = "sk-a-long-secret-key-4242"
HERE = "http://127.0.0.1:8099/v1"
ACCEPTED = {"who": "me", "when": "2026-01-31", "url": "https://openai.com/policies/", "version": "1"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    words = ("--allow-teacher", "127.0.0.1:8099", "--forbid-teacher", "forbidden-*")
    with Served(tmp_path_factory.mktemp("served"), *words) as found:
        yield found


def a_teacher(**more: Any) -> dict[str, Any]:
    return {"name": "big", "base_url": HERE, "model": "big-1", **more}


def test_a_teacher_is_set_shown_changed_and_forgotten(served: Served) -> None:
    http = served.http()
    made = http.post(
        "/api/teachers", json=a_teacher(key=KEY, price={"input": 0.15, "output": 0.6}, licence="Apache-2.0")
    )
    assert made.status_code == 200, made.text
    first = made.json()
    assert re.fullmatch(r"teacher-[A-Za-z0-9]{24}", first["id"])
    assert (first["key"], first["distillable"], first["terms"]) == ("...4242", True, [])
    assert http.get("/api/teachers").json()["data"] == [first]
    assert http.get(f"/api/teachers/{first['id']}").json() == first
    changed = http.post(f"/api/teachers/{first['id']}", json={"name": "bigger", "distillable": False}).json()
    assert changed == {**first, "name": "bigger", "distillable": False}
    assert KEY not in served.told() + made.text + http.get("/api/teachers").text
    assert http.delete(f"/api/teachers/{first['id']}").json() == {
        "id": first["id"], "object": "teacher", "deleted": True
    }  # fmt: skip
    assert http.get(f"/api/teachers/{first['id']}").status_code == 404
    with served.rows.reading() as rows:
        left = rows.execute(select(teachers).where(teachers.c.id == first["id"])).mappings().one()
    assert (left["sealed_key"], left["key_shown"]) == (None, None)


def test_what_is_left_out_stays_and_null_takes_away(served: Served) -> None:
    http, price = served.http(), {"input": 0.15, "output": 0.6}
    given = a_teacher(name="emptied", key=KEY, price=price, licence="MIT", accepted_terms=ACCEPTED)
    first = http.post("/api/teachers", json=given).json()
    path = f"/api/teachers/{first['id']}"
    for name in ("price", "licence", "accepted_terms"):
        first[name] = None
        assert http.post(path, json={name: None}).json() == first
    kept = {"name": None, "base_url": None, "model": None, "key": None, "distillable": None}
    assert http.post(path, json=kept).json() == first
    http.delete(path)


def test_a_key_goes_only_to_the_address_it_was_given_with(served: Served) -> None:
    http = served.http()
    first = http.post("/api/teachers", json=a_teacher(name="moving", key=KEY)).json()
    path = f"/api/teachers/{first['id']}"
    refused = http.post(path, json={"base_url": "https://93.184.215.14/v1"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "key")
    assert http.get(path).json()["base_url"] == HERE
    assert http.post(path, json={"base_url": f"{HERE}/other"}).json()["base_url"] == f"{HERE}/other"
    moved = http.post(path, json={"base_url": "https://93.184.215.14/v1", "key": "another-key-of-1717"}).json()
    assert (moved["base_url"], moved["key"]) == ("https://93.184.215.14/v1", "...1717")
    http.delete(path)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "a:b"}, "name"),
        ({"name": "../up"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"model": ""}, "model"),
        ({"key": "two words"}, "key"),
        ({"key": "k\u00e9y"}, "key"),
        ({"key": ""}, "key"),
        ({"price": {"input": -1, "output": 1}}, "price.input"),
        ({"price": {"input": 1}}, "price.output"),
        ({"accepted_terms": {"who": "me"}}, "accepted_terms.when"),
        ({"colour": "red"}, "colour"),
        ({"base_url": "https://127.0.0.1/v1"}, "base_url"),
        ({"base_url": "http://127.0.0.1:8098/v1"}, "base_url"),
    ],
)
def test_what_is_wrong_is_said(served: Served, more: dict[str, Any], param: str) -> None:
    answer = served.http().post("/api/teachers", json=a_teacher(**more))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["message"]
    assert error["code"]


def test_a_key_that_is_refused_is_not_said_again(served: Served) -> None:
    answer = served.http().post("/api/teachers", json=a_teacher(key="secret words with spaces"))
    assert answer.status_code == 400
    assert "secret words" not in answer.text + served.told()


def test_attacks_are_refused_over_http(served: Served) -> None:
    http = served.http()
    tried = [one for one in address_attacks() if one.kind == "address" and not one.name.startswith(("a name", "name:"))]
    for attack in tried:
        answer = http.post("/api/teachers", json=a_teacher(name="evil", base_url=attack.url))
        assert answer.status_code == 400, attack.name
        assert answer.json()["error"]["param"] in ("base_url", "body"), attack.name
    assert len(tried) > 100
    assert "evil" not in http.get("/api/teachers").text


def test_only_those_who_may_set_teachers(served: Served) -> None:
    plain = served.http(served.key("plain", ("read", "write")))
    for answer in (plain.post("/api/teachers", json=a_teacher()), plain.get("/api/teachers")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")


def test_another_projects_teacher_is_unknown(served: Served) -> None:
    first = served.http().post("/api/teachers", json=a_teacher(name="ours", key=KEY)).json()
    other = served.http(served.key("other", project=served.project()))
    nobody = f"/api/teachers/teacher-{'x' * 24}"
    for method, body in (("get", None), ("post", {"name": "theirs"}), ("delete", None)):
        said = [
            other.request(method, path, **({"json": body} if body else {}))
            for path in (f"/api/teachers/{first['id']}", nobody)
        ]
        assert [one.status_code for one in said] == [404, 404]
        texts = [one.text.replace(first["id"], "ID").replace(f"teacher-{'x' * 24}", "ID") for one in said]
        assert texts[0] == texts[1]
    assert other.get("/api/teachers").json()["data"] == []
    # A name is a project's own.
    assert other.post("/api/teachers", json=a_teacher(name="ours")).status_code == 200
    taken = served.http().post("/api/teachers", json=a_teacher(name="ours"))
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "name_taken")
    assert taken.headers["x-should-retry"] == "false"
    for name in ("tiny-language", f"teacher-{'y' * 24}"):
        assert served.http().post("/api/teachers", json=a_teacher(name=name)).json()["error"]["code"] == "name_taken"
    served.http().delete(f"/api/teachers/{first['id']}")


def test_pages_of_the_list(served: Served) -> None:
    http = served.http(served.key("pages", project=served.project("pages")))
    ids = [http.post("/api/teachers", json=a_teacher(name=f"t{n}")).json()["id"] for n in range(5)]
    page = http.get("/api/teachers", params={"limit": 2}).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (ids[:2:-1], True)
    rest = http.get("/api/teachers", params={"after": page["last_id"], "limit": 100}).json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (ids[2::-1], False)


@pytest.fixture
def state(tmp_path: Path) -> SimpleNamespace:
    """What the functions of this room look at."""
    settings = Settings(
        tmp_path, local_teachers=("127.0.0.1:8099",), forbidden_teachers=("forbidden-*", "evil.example")
    )
    return SimpleNamespace(settings=settings, vault=Vault(tmp_path))


def a_row(state: SimpleNamespace, **more: Any) -> dict[str, Any]:
    row = {
        "id": "teacher-" + "a" * 24, "project_id": "proj-" + "b" * 24, "name": "big", "base_url": HERE, "model": "big-1",
        "price": {"input": 0.15, "output": 0.6}, "licence": None, "accepted_terms": None, "distillable": True, **more,
    }  # fmt: skip
    sealed = state.vault.seal(KEY.encode(), f"teacher's key {row['project_id']} {row['id']}")
    return {"sealed_key": sealed, **row}


def test_what_a_trainer_is_handed(state: SimpleNamespace) -> None:
    row = a_row(state)
    name = "STILLROOM_TEACHER_" + "a" * 24
    assert room.handed(state, row) == {"keys": {name: KEY}, "addresses": {"127.0.0.1:8099": "127.0.0.1"}}
    assert room.recipe_part(row) == {
        "kind": "openai_api", "model": "big-1", "base_url": HERE, "price": {"input": 0.15, "output": 0.6},
        "api_key_env": name,
    }  # fmt: skip
    keyless = {**row, "sealed_key": None}
    assert room.handed(state, keyless)["keys"] == {}
    assert "api_key_env" not in room.recipe_part(keyless)


def test_a_sealed_key_opens_for_its_own_teacher_alone(state: SimpleNamespace) -> None:
    row = a_row(state)
    assert room.key_of(state, row) == KEY
    for other in ({"id": "teacher-" + "c" * 24}, {"project_id": "proj-" + "c" * 24}):
        with pytest.raises(CorruptFile):
            room.key_of(state, {**row, **other})


def test_a_trainer_is_not_handed_an_address_that_is_no_more_allowed(state: SimpleNamespace) -> None:
    with pytest.raises(ApiError, match="public"):
        room.handed(state, a_row(state, base_url="https://10.0.0.1/v1"))


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"distillable": False}, "not_distillable"),
        ({"model": "forbidden-7b"}, "teacher_forbidden"),
        ({"base_url": "https://api.evil.example/v1"}, "teacher_forbidden"),
        ({"base_url": "https://api.openai.com/v1"}, "terms_not_accepted"),
        ({"base_url": "https://api.openai.com/v1", "accepted_terms": ACCEPTED}, None),
        ({}, None),
    ],
)
def test_who_may_be_distilled_from(state: SimpleNamespace, more: dict[str, Any], code: str | None) -> None:
    row = a_row(state, **more)
    if code is None:
        room.refuse_distilling(state, row)
        return
    with pytest.raises(ApiError) as raised:
        room.refuse_distilling(state, row)
    assert raised.value.code == code
