"""Only our own pages' forms do anything; and signing in where other machines can come in."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.service_process import Served
from starlette.routing import Route

from service.conftest import BOTH_WAYS
from service.pages.site import Site, put_job, send, talk, token, upload
from stillroom.service import serving as service_serving
from stillroom.service.door.access import revoke_key
from stillroom.service.pages import (
    data_page,
    job_page,
    keys_page,
    models_page,
    new_page,
    signing_in,
    tables,
    teachers_page,
)
from stillroom.service.pages.typed import LABELS
from stillroom.service.rows.tables import keys

ROOMS = (data_page, job_page, keys_page, models_page, new_page, signing_in, teachers_page)
POSTED = [
    route.path
    for room in ROOMS
    for route in room.router.routes
    if isinstance(route, Route) and "POST" in (route.methods or set()) and route.path != "/sign-out"
]
PLACES = {"{wish}": "cancel", "{file_id}": "file-none", "{completion_id}": "chatcmpl-none", "{key_id}": "key-none",
          "{teacher_id}": "teacher-none", "{model_id}": "ft:none", "{job_id}": "ftjob-none"}  # fmt: skip


def filled_in(path: str) -> str:
    return re.sub(r"\{\w+\}", lambda found: PLACES[found[0]], path)


def post(http: httpx2.Client, path: str, **fields: Any) -> httpx2.Response:
    """A form, in parts where the page sends a file."""
    if path == "/data":
        return http.post(path, data={**fields, "purpose": "fine-tune"}, files={"file": ("a.jsonl", b"{}")})
    return http.post(path, data={"key": "x", **fields})


@pytest.fixture(scope="module", **BOTH_WAYS)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server, once as it is and once under `python -O`."""
    with Served(tmp_path_factory.mktemp("guarded"), env=request.param) as found:
        yield found


def test_the_forms_are_known() -> None:
    assert len(POSTED) == len(set(POSTED)) >= 12


@pytest.mark.parametrize("path", POSTED)
def test_a_form_without_our_token_does_nothing(guarded: Served, path: str) -> None:
    http, at = guarded.http(), filled_in(path)
    for wrong in ({}, {"form_token": ""}, {"form_token": "00" * 40}, {"form_token": "nothing"}):
        assert post(http, at, **wrong).status_code == 403
    own = token(http)
    assert post(http, at, form_token=own[:-2] + ("00" if own[-2:] != "00" else "11")).status_code == 403
    other = token(guarded.http(guarded.key("another caller")), "/new")
    assert post(http, at, form_token=other).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1.evil.example", "null"])
def test_a_form_of_another_site_is_refused_with_a_good_token(guarded: Served, origin: str) -> None:
    http = guarded.http(headers={"origin": origin})
    good = token(guarded.http())
    job_id = put_job(guarded, "running")
    assert http.post(f"/jobs/{job_id}/cancel", data={"form_token": good}).status_code == 403
    assert "Running" in guarded.http().get(f"/jobs/{job_id}").text
    own = guarded.http(headers={"origin": guarded.url})
    assert own.post(f"/jobs/{job_id}/cancel", data={"form_token": good}).status_code == 303
    assert "Cancelled" in guarded.http().get(f"/jobs/{job_id}").text


def test_pages_let_browsers_say_where_a_form_comes_from(site: Site) -> None:
    assert site.served.http().get("/new").headers["referrer-policy"] == "same-origin"


def test_a_job_that_has_ended_is_left_as_it_is(site: Site) -> None:
    http = site.served.http()
    at = site.paths["failed job"]
    assert send(http, f"{at}/cancel").status_code == 303
    assert "Failed" in http.get(at).text
    assert send(http, f"{at}/none").status_code == 404
    job_id = put_job(site.served, "paused")
    assert send(http, f"/jobs/{job_id}/cancel").headers["location"] == f"/jobs/{job_id}"


def test_a_key_without_the_right_may_look_and_not_act(site: Site) -> None:
    reader = site.served.http(site.served.key("reader", ("read",)))
    for path in ("/", "/new", "/teachers", site.paths["running job"]):
        assert reader.get(path).status_code == 200
    for path in ("/new", "/teachers", f"{site.paths['running job']}/cancel", site.paths["model"]):
        answer = send(reader, path)
        assert answer.status_code == 403
        assert "lacks the scope" in answer.text


def test_a_key_without_the_right_sees_teachers_names_alone(site: Site) -> None:
    body = {"name": "behind", "base_url": "https://93.184.215.14/v1", "model": "m-1", "key": "sk-long-secret-key-4242"}
    site.served.http().post("/api/teachers", json=body).raise_for_status()
    told = ("93.184.215.14", "m-1", "...4242")
    whole = site.served.http().get("/teachers").text
    assert all(word in whole for word in ("behind", *told))
    page = site.served.http(site.served.key("a reader", ("read",))).get("/teachers").text
    assert "behind" in page
    assert not any(word in page for word in told)


@pytest.mark.parametrize(
    ("fields", "price"),
    [
        ({"price_input": "2.5", "price_output": " 10 "}, {"input": 2.5, "output": 10}),
        ({"price_output": "1e-3"}, {"input": 0, "output": 0.001}),
        ({}, None),
    ],
)
def test_a_teachers_price_is_a_number(site: Site, fields: dict[str, str], price: Any) -> None:
    http, name = site.served.http(), f"priced-{len(fields)}"
    plain = {"name": name, "base_url": "https://93.184.215.14/v1", "model": "m"}
    answer = send(http, "/teachers", **plain, **fields)
    assert answer.status_code == 303, answer.text
    found = http.get("/api/teachers").json()["data"]
    assert [one["price"] for one in found if one["name"] == name] == [price]
    for wrong in ("much", "nan", "1e999", "-1", "9" * 5000):
        again = send(http, "/teachers", **{**plain, "name": "wrong", "price_input": wrong})
        assert again.status_code == 400
        assert "price.input" in again.text


@pytest.mark.parametrize(
    ("field", "typed", "name", "asked"),
    [
        ("budget_usd", "1.50", "budget", {"usd": 1.5}),
        ("budget_minutes", " 20 ", "budget", {"minutes": 20}),
        ("seeds", "3", "seeds", 3),
        ("risk", "0.05", "cascade", {"risk": 0.05}),
    ],
)
def test_a_limit_of_a_new_job_is_a_number(site: Site, field: str, typed: str, name: str, asked: Any) -> None:
    http = site.served.http()
    file = upload(http, "".join(talk(f"q {n}", ("yes", "no")[n % 2]) for n in range(20))).headers["location"]
    chosen = {"source": f"file:{file.rpartition('/')[2]}", field: typed}
    answer = send(http, "/new", "/new", **chosen)
    assert answer.status_code == 303, answer.text
    job = http.get(f"/v1/fine_tuning/jobs/{answer.headers['location'].rpartition('/')[2]}").json()
    assert job["distillation"]["asked"][name] == asked
    again = send(http, "/new", "/new", **{**chosen, field: "much"})
    assert again.status_code == 400
    assert "Should be a number" in again.text
    assert 'value="much"' in again.text


@pytest.mark.parametrize(
    ("chosen", "field", "words"),
    [
        ({"student": "tiny-language", "risk": "0.05"}, "risk", "A student that writes has no cascade"),
        ({"source": "sample:texts", "risk": "0.05"}, "risk", "Beside a recipe, cascade is not read"),
        ({"source": "sample:texts", "labels": "a\nb"}, "labels", "Beside a recipe, labels is not read"),
        ({"soft_targets": "yes"}, "teacher", "Soft targets are asked of a teacher"),
        ({"seeds": "99"}, "seeds", "less than or equal to 20"),
    ],
)
def test_what_is_wrong_stands_by_its_field(site: Site, chosen: dict[str, str], field: str, words: str) -> None:
    http = site.served.http()
    file = upload(http, "".join(talk(f"q {n}", ("yes", "no")[n % 2]) for n in range(20))).headers["location"]
    answer = send(http, "/new", "/new", **{"source": f"file:{file.rpartition('/')[2]}", **chosen})
    assert answer.status_code == 400
    told = re.findall(r'<span class="wrong" id="(\w+)-wrong">([^<]*)</span>', answer.text)
    assert [name for name, _ in told] == [field]
    assert words in told[0][1]
    assert f"<strong>That did not work.</strong> {LABELS[field]}: {told[0][1]}</div>" in answer.text
    marked = re.findall(r'<\w+ id="(\w+)"[^>]*aria-describedby="\w+-hint (\w+)-wrong" aria-invalid="true"', answer.text)
    assert marked == [(field, field)]


def test_a_job_that_failed_leads_back_to_its_form(site: Site) -> None:
    http = site.served.http()
    file_id = upload(http, "".join(talk(f"q {n}", "yes") for n in range(4))).headers["location"].rpartition("/")[2]
    asked = {"distillation": {"source": {"file": file_id}}}
    error = {"code": "x", "message": "Name a validation_file.", "param": "validation_file"}
    made = put_job(site.served, "failed", error=error, asked=asked, training_file=file_id)
    text = http.get(f"/jobs/{made}").text
    assert "On the form that is “What is right”." in text
    assert f'href="/new?source=file%3A{file_id}"' in text
    asked = {"distillation": {"source": {"stored_completions": {"metadata": {"app": "a&b"}}}}}
    error = {"code": "x", "message": "Column city has 5,000 values.", "param": "column city"}
    text = http.get(f"/jobs/{put_job(site.served, 'failed', error=error, asked=asked)}").text
    assert "On the form that is" not in text, "a column of the data is no field of the form"
    assert "source=stored&amp;stored_model=&amp;stored_key=app&amp;stored_value=a%26b" in text


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        ({}, "/new?source=file%3A{file}"),  # a plain call of the official client
        ({"recipe": {"name": "x"}, "hold": True}, "/new?source=table%3A{file}"),
        ({"recipe": {"name": "x"}}, None),  # no form writes recipes
        ({"source": {"stored_completions": {"metadata": {"a": "b", "c": "d"}}}}, None),  # it would find more rows
        ({"source": {"stored_completions": {}}}, "/new?source=stored&stored_model=&stored_key=&stored_value="),
    ],
)
def test_the_form_of_a_job_that_failed_has_what_it_learned_from(
    site: Site, asked: dict[str, Any], form: str | None
) -> None:
    http = site.served.http()
    file_id = (
        upload(http, "size,mood\n1,good\n2,bad\n", "moods.csv", "user_data").headers["location"].rpartition("/")[2]
    )
    error = {"code": "x", "message": "No such column.", "param": "column"}
    made = put_job(
        site.served, "failed", error=error, asked={"distillation": asked} if asked else {}, training_file=file_id
    )
    text = html.unescape(http.get(f"/jobs/{made}").text)
    found = re.search(r'<a href="([^"]+)">Fill in the form again', text)
    assert (found and found[1]) == (form and form.format(file=file_id))
    assert ("On the form that is" in text) == (form is not None)
    if found:
        assert http.get(found[1]).status_code == 200


def test_a_table_that_is_gone_leaves_the_form(site: Site) -> None:
    answer = site.served.http().get(f"/new?source=table:file-{'a' * 24}")
    assert answer.status_code == 404
    assert "That did not work." in answer.text
    assert 'name="source" value="sample:texts" checked' in answer.text


def test_a_table_is_not_taken_for_conversations(site: Site) -> None:
    http = site.served.http()
    answer = upload(http, "size,mood\n1,good\n", "moods.csv")
    assert answer.status_code == 400
    assert "moods.csv is a table and holds no conversations. Choose “A table" in answer.text
    empty = upload(http, "", "moods.csv", "user_data")
    assert empty.status_code == 400
    assert '<option value="user_data" selected>' in empty.text, "what was chosen stays"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("german.csv", "Größe;Laune\n1;gut\n".encode("cp1252"), "german.csv is not UTF-8 text. Save it as such"),
        ("binary.csv", b"a,b\n\x00\x01,2\n", "binary.csv is no text."),
        ("talks.jsonl", talk("q", "a").encode(), "talks.jsonl holds conversations. Choose “Conversations"),
    ],
)
def test_what_can_be_no_table_is_not_taken_for_one(site: Site, name: str, content: bytes, words: str) -> None:
    http = site.served.http()
    data = {"form_token": token(http, "/data"), "purpose": "user_data"}
    answer = http.post("/data", data=data, files={"file": (name, content)})
    assert answer.status_code == 400
    assert words in answer.text


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.txt"])
def test_what_is_not_plainly_wrong_is_kept(tmp_path: Path, name: str) -> None:
    for content in (b"", b"[1]\n", b'{"messages": 3}\n', b'{"a": ', ("ä" * 50_000).encode(), b"\xef\xbb\xbfa,b\n1,2\n"):
        (tmp_path / name).write_bytes(content)
        assert tables.misfit(tmp_path / name, name) == ""


def test_a_sample_is_held_to_its_limits(site: Site) -> None:
    http = site.served.http()
    answer = send(http, "/new", "/new", source="sample:texts", budget_minutes="20", seeds="2")
    assert answer.status_code == 303, answer.text
    job = http.get(f"/v1/fine_tuning/jobs/{answer.headers['location'].rpartition('/')[2]}").json()
    assert (job["distillation"]["asked"]["budget"], job["distillation"]["asked"]["seeds"]) == ({"minutes": 20}, 2)


def test_a_form_that_is_sent_twice_makes_one_job(site: Site) -> None:
    """As a double click sends it; another form, or one that was changed, makes another."""
    http, places = site.served.http(), []
    form = {"form_token": token(http, "/new"), "source": "sample:texts", "name": "twice"}
    for sent in (form, form, {**form, "name": "changed"}, {**form, "form_token": token(http, "/new")}):
        answer = http.post("/new", data=sent)
        assert answer.status_code == 303, answer.text
        places.append(answer.headers["location"])
    assert places[0] == places[1]
    assert len(set(places)) == 3
    with ThreadPoolExecutor(2) as pool:  # both before the first is answered
        form["form_token"] = token(http, "/new")
        both = [one.headers["location"] for one in pool.map(lambda _: site.served.http().post("/new", data=form), "ab")]
    assert len(set(both)) == 1
    assert both[0] not in places


@pytest.fixture
def opened(serving: Callable[..., Served], tmp_path: Any) -> tuple[Served, str]:
    """A server that other machines could reach, and a key of it."""
    folder = tmp_path / "opened"
    folder.mkdir()
    secret = service_serving.new_key(folder / "service", "first")
    return serving("--host", "0.0.0.0", "--allow-host", "127.0.0.1", folder=folder), secret


def test_signing_in_where_keys_are_needed(opened: tuple[Served, str]) -> None:
    served, secret = opened
    served.url = served.url.replace("0.0.0.0", "127.0.0.1")
    http = served.http()
    asked = http.get("/models")
    assert asked.status_code == 303
    assert asked.headers["location"] == "/sign-in?next=/models"
    assert http.get("/jobs/ftjob-none").headers["location"].startswith("/sign-in")
    for wrong in ("", "sr_" + "a" * 43, "any"):
        answer = http.post("/sign-in", data={"key": wrong, "form_token": token(http, "/sign-in"), "next": "/"})
        assert answer.status_code in (400, 401)
        assert "set-cookie" not in answer.headers
    answer = http.post("/sign-in", data={"key": secret, "form_token": token(http, "/sign-in"), "next": "/models"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/models"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert secret not in cookie
    assert http.get("/models").status_code == 200
    assert http.get("/v1/files").status_code == 200, "the event stream is asked with the same cookie"
    assert "Sign out" in http.get("/models").text
    with served.rows.reading() as rows:
        row = rows.execute(keys.select()).mappings().one()
    revoke_key(served.rows, row["project_id"], row["id"])
    time.sleep(1.0)
    assert http.get("/models").status_code == 303, "a revoked key is out within a second"
    http.post("/sign-out")
    assert "stillroom" not in http.cookies


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/\tx", "/a\\b", ""]
)
def test_signing_in_leads_nowhere_else(path: str) -> None:
    assert signing_in.inside(path) == "/"


def test_signing_in_leads_back() -> None:
    assert signing_in.inside("/jobs/ftjob-a?x=1") == "/jobs/ftjob-a?x=1"
