"""Keys: shown once, kept as a digest, as strong as their scopes, refused within a second. Projects see themselves."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import openai
import pytest
from benchmarks.service_process import Served
from sqlalchemy import select

from stillroom.service.door import keys as keys_room
from stillroom.service.door.access import SCOPES, Caller, first_project
from stillroom.service.door.creation_rows import Once
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import creations, keys, projects

SECOND_S = 1.0


def make(service: Served, key: str | None = None, **body: Any) -> Any:
    answer = service.http(key).post("/api/keys", json={"name": "a", "scopes": ["read"], **body})
    return answer.json() | {"status": answer.status_code}


def status(service: Served, key: str, method: str = "GET", path: str = "/v1/files", **more: Any) -> int:
    return service.http(key).request(method, path, **more).status_code


def test_a_key_is_shown_once_and_kept_as_a_digest(service: Served) -> None:
    made = make(service, name="reader", scopes=["write", "read", "read"])
    secret = made["key"]
    assert made["status"] == 200
    assert made["scopes"] == ["read", "write"]
    assert secret.startswith("sr_")
    assert made["shown"] == f"{secret[:7]}...{secret[-4:]}"
    http = service.http()
    for shown in (http.get(f"/api/keys/{made['id']}").json(), http.get("/api/keys").json()["data"][0]):
        assert shown["id"] == made["id"]
        assert "key" not in shown
        assert "digest" not in shown
    with service.rows.reading() as rows:
        row = rows.execute(select(keys).where(keys.c.id == made["id"])).mappings().one()
    assert row["digest"] == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in str(dict(row))
    assert secret not in service.told()
    for path in service.root.glob("service.sqlite*"):
        assert secret.encode() not in path.read_bytes()


def test_a_revoked_key_is_refused_within_a_second(service: Served) -> None:
    made = make(service)
    assert status(service, made["key"]) == 200
    gone = service.http().delete(f"/api/keys/{made['id']}")
    assert gone.json() == {"id": made["id"], "object": "api_key.deleted", "deleted": True}
    assert status(service, made["key"]) == 401
    assert service.http().get(f"/api/keys/{made['id']}").json()["revoked_at"]

    other = make(service)  # and where another process of this machine revokes it
    assert status(service, other["key"]) == 200
    with service.rows.writing() as rows:
        rows.execute(keys.update().where(keys.c.id == other["id"]).values(revoked_at=int(time.time())))
    time.sleep(SECOND_S)
    assert status(service, other["key"]) == 401


def test_a_key_ends_by_itself(service: Served) -> None:
    made = make(service, expires_in_s=2)
    assert status(service, made["key"]) == 200
    time.sleep(2 + SECOND_S)
    with pytest.raises(openai.AuthenticationError) as raised:
        openai.OpenAI(base_url=f"{service.url}/v1", api_key=made["key"], max_retries=0).files.list()
    assert raised.value.code == "invalid_api_key"


def test_a_key_may_do_what_its_scopes_say(service: Served) -> None:
    reader, writer = make(service, scopes=["read"])["key"], make(service, scopes=["write"])["key"]
    upload = {"bytes": 1, "filename": "a", "purpose": "user_data", "mime_type": "x"}
    assert status(service, reader) == 200
    assert status(service, reader, "POST", "/v1/uploads", json=upload) == 403
    assert status(service, writer) == 403
    assert status(service, writer, "POST", "/v1/uploads", json=upload) == 200
    for key in (reader, writer):
        assert status(service, key, "GET", "/api/keys") == 403
        assert make(service, key)["error"]["code"] == "insufficient_scope"
        own = service.first_project()
        assert status(service, key, "POST", f"/api/projects/{own}", json={"name": "x"}) == 403


def test_no_key_gives_more_than_it_has(service: Served) -> None:
    admin = make(service, scopes=["admin"])["key"]
    made = make(service, admin, scopes=["admin", "teachers"])
    assert made["status"] == 403
    assert made["error"]["param"] == "scopes"
    assert "teachers" in made["error"]["message"]
    assert make(service, admin, scopes=["admin"])["status"] == 200


def test_keys_are_paged_newest_first(service: Served) -> None:
    key = service.key("owner", project=service.project("many keys"))
    made = [make(service, key, name=f"k{n}")["id"] for n in range(3)]
    http = service.http(key)
    first = http.get("/api/keys", params={"limit": 2}).json()
    assert [one["id"] for one in first["data"]] == [made[2], made[1]]
    rest = http.get("/api/keys", params={"after": first["last_id"]}).json()["data"]
    assert [one["name"] for one in rest] == ["k0", "owner"]


def test_a_new_project_comes_with_its_key_and_is_apart(service: Served) -> None:
    made = service.http().post("/api/projects", json={"name": "team", "retention_days": 7}).json()
    assert made["retention_days"] == 7
    assert made["trains_on_stored"] is False
    theirs = service.http(made["key"])
    listed = theirs.get("/api/projects").json()["data"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert "key" not in listed[0]
    assert theirs.post("/api/projects", json={"name": "more"}).status_code == 403
    ours = service.first_project()
    for path in (f"/api/projects/{ours}", f"/api/projects/proj-{'x' * 24}"):
        assert theirs.get(path).status_code == theirs.post(path, json={"name": "taken"}).status_code == 404
    own_key = service.http().get("/api/keys").json()["data"][0]["id"]
    for name in (own_key, "key-" + "x" * 24):
        assert theirs.get(f"/api/keys/{name}").status_code == theirs.delete(f"/api/keys/{name}").status_code == 404
    assert service.http().get(f"/api/keys/{own_key}").json()["revoked_at"] is None


def test_a_project_and_its_key_are_made_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> NoReturn:
        raise OSError("no room on the disk")

    database = Database(tmp_path)
    database.upgrade()
    caller = Caller(first_project(database), "", frozenset(SCOPES))
    state = SimpleNamespace(database=database, access=SimpleNamespace(first=caller.project_id))
    request: Any = SimpleNamespace(app=SimpleNamespace(state=state))
    monkeypatch.setattr("stillroom.service.door.access.chance", fails)
    one = Once("key one", "digest", keyed=True, retried=False)
    with pytest.raises(OSError, match="no room"):
        keys_room.projects_create(keys_room.NewProject(name="half"), request, caller, one)
    with database.reading() as rows:
        assert rows.execute(select(projects.c.id)).scalars().all() == [caller.project_id]
        assert rows.execute(select(creations.c.name)).first() is None, "it can be sent again"
    database.close()


def test_a_projects_settings(service: Served) -> None:
    http = service.http(service.key(project=service.project("set")))
    path = f"/api/projects/{http.get('/api/projects').json()['data'][0]['id']}"
    changed = http.post(path, json={"trains_on_stored": True, "retention_days": 30}).json()
    assert (changed["name"], changed["trains_on_stored"], changed["retention_days"]) == ("set", True, 30)
    assert http.post(path, json={}).json() == changed
    assert http.post(path, json={"retention_days": None}).json()["retention_days"] is None
    assert http.get(path).json()["trains_on_stored"] is True
    for body, param in [
        ({"retention_days": 0}, "retention_days"),
        ({"trains": True}, "trains"),
        ({"name": None}, "name"),
    ]:
        answer = http.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param
