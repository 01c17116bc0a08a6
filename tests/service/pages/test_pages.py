"""Pages as they are sent: whole without scripts, nothing inline, all text escaped, small; what belongs to others is not there."""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
import time
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.service_process import Served

from service import students
from service.pages.site import HOSTILE, STEPS, Site, put_finished, put_job, send, talk, token, upload
from stillroom.service.pages import trying
from stillroom.service.pages.rendering import HERE, MENU
from stillroom.service.pages.routes import STATIC
from stillroom.service.students.shelf import _as_row

HTMX_SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
"""Of dist/htmx.min.js in htmx.org 2.0.11 as npm has it."""
JOB_PAGE_BYTES = 200_000
NAMES = (
    "front", "sign-in", "new", "jobs", "models", "compare", "data", "stored", "teachers", "teacher", "keys", "file",
    "finished job", "running job", "held job", "job being checked", "paused job", "failed job", "cancelled job",
    "job with rows left out", "rows left out", "model", "drawing model",
    "writing model", "not found", "table", "new from a table",
)  # fmt: skip


class Reader(HTMLParser):
    """Gathers what a page must not have, and its forms."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.tags: list[str] = []
        self.forms: list[dict[str, str | None]] = []
        self.tokens = 0
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self._script = tag == "script"
        self.inline += [f"{tag} {name}" for name in found if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in found):
            self.inline.append(tag)
        if tag == "form":
            self.forms.append(found)
        self.tokens += found.get("name") == "form_token"

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._script = False


def read(http: httpx2.Client, path: str) -> Reader:
    found = Reader()
    found.feed(http.get(path).text)
    return found


@pytest.fixture
def http(site: Site) -> httpx2.Client:
    return site.served.http(timeout=180)  # a model that is loaded first takes its time on a busy machine


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_and_has_nothing_inline(site: Site, http: httpx2.Client, name: str) -> None:
    answer = http.get(site.paths[name])
    assert answer.status_code == (404 if name == "not found" else 200)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    page = read(http, site.paths[name])
    assert page.inline == []
    assert "img" not in page.tags, "a text of somebody's became an element"
    assert page.tags.count("main") == page.tags.count("h1") == 1
    posted = [form for form in page.forms if form.get("method") == "post"]
    assert page.tokens == len(posted), "every form that changes something carries a token"
    assert {*NAMES, "report"} == set(site.paths)  # a report has its own form: test_a_report_is_shown_in_a_sandbox


@pytest.mark.parametrize(
    "name",
    [
        "job with rows left out",
        "rows left out",
        "stored",
        "teachers",
        "teacher",
        "file",
        "running job",
        "failed job",
        "held job",
        "data",
        "jobs",
        "keys",
    ],
)
def test_text_of_others_is_only_text(site: Site, http: httpx2.Client, name: str) -> None:
    text = http.get(site.paths[name]).text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "{{ 7*7 }}" in text or name in ("data", "jobs", "file", "keys"), "it is no template"
    assert HOSTILE not in text


def test_the_menu_leads_everywhere(site: Site, http: httpx2.Client) -> None:
    front = http.get("/").text
    for path, name in MENU:
        assert http.get(path).status_code == 200
        assert f'href="{path}"' in front
        assert name in front or path == "/"


def test_a_job_page_of_ten_thousand_steps_is_small(site: Site, http: httpx2.Client) -> None:
    page = http.get(site.paths["running job"])
    assert len(page.content) <= JOB_PAGE_BYTES
    assert page.text.count("<polyline") == 2 * 3, "in a wide and a narrow drawing"
    assert f"at step {STEPS // 3:,}" in page.text, "the last point of a line is there"
    assert "of 9" in page.text
    live = http.get(site.paths["running job"] + "/live")
    assert live.status_code == 200
    assert "<html" not in live.text
    assert len(live.content) < len(page.content)


def test_the_table_tells_what_the_chart_shows(site: Site, http: httpx2.Client) -> None:
    text = http.get(site.paths["running job"]).text
    table = text[text.index('id="points"') :]
    for name in ("teacher 1 of 1", "student, seed 0", "control, seed 0"):
        assert name in table
    assert f'<td class="number">{STEPS // 3:,}</td>' in table


def test_states_are_told_in_words(site: Site, http: httpx2.Client) -> None:
    for name, words in [("running job", "Running"), ("failed job", "Failed"), ("cancelled job", "Cancelled"),
                        ("paused job", "Paused"), ("finished job", "Finished"), ("held job", "Ready to start")]:  # fmt: skip
        assert f"\n{words}</span>" in http.get(site.paths[name]).text


def test_an_estimate_stands_before_the_start(site: Site, http: httpx2.Client) -> None:
    text = http.get(site.paths["held job"]).text
    for words in ("1,200", "about 2 min", "Start</button>"):
        assert words in text
    for name, told in (
        ("Calls to the teacher", "1,200"), ("Tokens of the teacher", "90,000 to 270,000"),
        ("Dollars for the teacher", "$0.5 to $1.75"), ("Dollars for this machine's time", "$0.2"),
    ):  # fmt: skip
        assert f"<dt>{name}</dt><dd>{told}</dd>" in text
    assert "Start</button>" not in http.get(site.paths["job being checked"]).text
    begun = http.get(site.paths["paused job"]).text
    assert "Resume</button>" in begun, "a job that was begun and paused is not one that waits for its start"
    assert "Start</button>" not in begun


def test_rows_that_were_left_out_are_a_click_from_the_job(site: Site, http: httpx2.Client) -> None:
    text = http.get(site.paths["job with rows left out"]).text
    assert "120 in all" in text
    listed = site.paths["rows left out"]
    assert f'<a href="{listed}">' in text
    first = http.get(listed).text
    assert first.count('<tr><th scope="row"') == 100
    assert f'href="{listed}?after=99"' in first
    assert http.get(f"{listed}?after=99").text.count('<tr><th scope="row"') == 20


def test_models_answer_side_by_side(site: Site, http: httpx2.Client) -> None:
    text = http.get(site.paths["finished job"]).text
    assert "Side by side" in text
    for role in ("Teacher", "Student", "Control"):
        assert text.count(f"{role}</dt>") >= 2


def test_another_project_sees_nothing_of_it(site: Site) -> None:
    stranger = site.served.http(site.served.key("stranger", project=site.served.project("others")))
    for name in ("file", "finished job", "running job", "held job", "model", "drawing model", "teacher"):
        for more in ("", "/live", "/report", "/student.zip", "/files/config.json", "/onnx"):
            assert stranger.get(site.paths[name] + more).status_code in (404, 405), (name, more)
        assert stranger.get(site.paths[name]).status_code == 404
    assert HOSTILE[:20] not in stranger.get("/teachers").text
    assert stranger.get("/data/completions").text.count("Delete") == 0
    for name, wish in (("running job", "cancel"), ("held job", "start"), ("model", "delete"), ("model", "onnx")):
        assert send(stranger, f"{site.paths[name]}/{wish}").status_code == 404
    assert "Running" in site.served.http().get(site.paths["running job"]).text


def test_a_report_is_shown_in_a_sandbox(site: Site, http: httpx2.Client) -> None:
    answer = http.get(site.paths["finished job"] + "/report")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy
    assert "script-src 'sha256-" in policy
    assert http.get(site.paths["running job"] + "/report").status_code == 404


def test_a_student_is_taken_away_as_files(site: Site, http: httpx2.Client) -> None:
    at = site.paths["model"]
    answer = http.get(at + "/student.zip")
    assert answer.headers["content-disposition"].startswith("attachment;")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        inside = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist()}
        assert all(not name.startswith(("/", "..")) for name in archive.namelist())
    assert {"model.safetensors", "config.json", "inputs.json"} <= set(inside)
    for name, data in inside.items():
        assert http.get(f"{at}/files/{name}").content == data
    for name in ("../manifest.json", "..%2Fscorecard.json", "none", "%2Fetc%2Fpasswd", ".", ""):
        assert http.get(f"{at}/files/{name}").status_code == 404


def test_an_export_is_taken_away_too(site: Site, http: httpx2.Client) -> None:
    job_id, model_id = put_finished(site.served, students.of_texts(), "exported")
    exported = site.served.root / "jobs" / job_id / "run" / "onnx"
    exported.mkdir()
    (exported / "student.onnx").write_bytes(b"a graph")
    assert http.get(f"/models/{model_id}/files/onnx/student.onnx").status_code == 404, "it is not known to be whole"
    (exported / "student.json").write_text("{}")
    assert http.get(f"/models/{model_id}/files/onnx/student.onnx").content == b"a graph"
    assert "Exported for ONNX Runtime" in http.get(f"/models/{model_id}").text


def test_students_are_tried_by_hand(site: Site, http: httpx2.Client) -> None:
    def ask(name: str, **fields: Any) -> httpx2.Response:
        return send(http, site.paths[name], site.paths[name], **fields)

    said = ask("model", text="please refund order 5")
    assert "It says: refund" in said.text
    assert "please refund order 5" in said.text, "what was asked stands there still"
    assert HOSTILE not in ask("model", text=HOSTILE).text
    empty = ask("model", text="  ")
    assert empty.status_code == 400
    assert "Write something first." in empty.text
    assert "It writes" in ask("writing model", text="Hello").text
    for wrong in ({}, {"pixels": "1,2,3"}, {"pixels": ",".join(["900"] * 64)}, {"pixels": ",".join(["0"] * 64)}):
        assert ask("drawing model", **wrong).status_code == 400
    marked = {f"square-{y}-{x}": "on" for y in range(8) for x in (3, 4)}
    said = ask("drawing model", **marked)
    assert "It says: " in said.text
    assert said.text.count("checked") == 16
    assert "It says: " in ask("drawing model", pixels=",".join(["0", "255"] * 32)).text


@pytest.mark.parametrize("name", ["model", "drawing model", "writing model"])
def test_a_student_answers_the_call_that_its_page_shows(site: Site, http: httpx2.Client, name: str) -> None:
    shown = re.search(r'aria-label="A call">POST (\S+)\n([^<]+)</pre>', http.get(site.paths[name]).text)
    assert shown is not None
    picture = json.dumps([[[0] * 8] * 8])
    body = json.loads(html.unescape(shown[2]).replace("[[...], ...]", picture))
    assert http.post(shown[1], json=body).status_code == 200


@pytest.mark.parametrize(
    "kinds", [("number", "category", "text"), ("number", "number"), ("number",), ("text",), ("category",)]
)
def test_the_call_of_a_student_of_columns(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    columns = [{"name": f"c{place}", "kind": kind} for place, kind in enumerate(kinds)]
    (tmp_path / "inputs.json").write_text(json.dumps({"kind": "table", "columns": columns}))
    body = json.loads(trying.call("m", trying.takes({"kind": "classifier"}, tmp_path))["body"])
    row = _as_row(body["messages"][0]["content"], [one["name"] for one in columns])
    assert {name: type(value) for name, value in row.items()} == {
        one["name"]: float if one["kind"] == "number" and len(kinds) > 1 else str for one in columns
    }


def test_an_uploaded_file_is_shown_with_what_was_left_out(http: httpx2.Client) -> None:
    lines = (
        "".join(talk(f"question {n}", "yes") for n in range(30))
        + '{"messages": [{"role": "nobody", "content": "x"}]}\n'
    )
    sent = upload(http, lines)
    assert sent.status_code == 303
    text = http.get(sent.headers["location"]).text
    assert "question 3" in text
    assert "1 of 1" in text
    assert '<th scope="row" class="number">31</th>' in text
    assert "Distil from this file" in text
    wrong = upload(http, "not json\n")
    assert wrong.status_code == 400
    assert "line 1" in wrong.text
    gone = send(http, f"{sent.headers['location']}/delete")
    assert gone.status_code == 303
    assert http.get(sent.headers["location"]).status_code == 404


def test_a_stored_completion_is_found_and_deleted(site: Site, http: httpx2.Client) -> None:
    at = "/data/completions"
    assert "3 found" in http.get(f"{at}?key=app&value=desk").text
    assert "0 found" in http.get(f"{at}?key=app&value=other").text
    assert "0 found" in http.get(f"{at}?model=none").text
    one = http.get(at).text.split("/data/completions/chatcmpl-")[1].split("/")[0]
    assert send(http, f"{at}/chatcmpl-{one}/delete").status_code == 303
    assert "2 found" in http.get(at).text


def test_a_wrong_form_comes_back_with_what_was_typed(http: httpx2.Client) -> None:
    wrong = send(http, "/teachers", name="mine", base_url="http://10.0.0.1/v1", model="m", key="sk-canary-0123456789")
    assert wrong.status_code == 400
    assert "That did not work." in wrong.text
    assert 'value="http://10.0.0.1/v1"' in wrong.text
    assert "sk-canary" not in wrong.text, "a key never comes back"
    wrong = send(http, "/new", "/new", source="file:file-none", name="my name")
    assert wrong.status_code in (400, 404)
    assert 'value="my name"' in wrong.text
    assert send(http, "/new", "/new", source="sample:none").status_code == 404
    assert send(http, "/new", "/new", source="stored", budget_usd="much").status_code == 400


def test_a_key_is_shown_once(site: Site, http: httpx2.Client) -> None:
    made = send(http, "/keys", "/keys", name="from a page", scope=["read"], expires_days="7")
    secret = made.text.split('class="secret">')[1].split("<")[0]
    assert secret.startswith("sr_")
    assert secret not in http.get("/keys").text
    form = {"form_token": token(http, "/keys"), "name": "loaded again", "scope": ["read"]}
    assert http.post("/keys", data=form).status_code == 200
    again = http.post("/keys", data=form)
    assert (again.status_code, again.text.count('<th scope="row">loaded again</th>')) == (409, 1), (
        "one key, however often its form is sent"
    )
    assert "If you have not copied it, revoke it" in again.text
    reader = site.served.http(secret)
    assert reader.get("/v1/files").status_code == 200
    assert "it lacks the right to administer" in reader.get("/keys").text
    assert send(reader, "/keys", name="more").status_code == 403
    listed = http.get("/keys").text
    row = listed[listed.index("from a page") :]
    key_id = row.split("/keys/key-")[1].split("/")[0]
    assert send(http, f"/keys/key-{key_id}/revoke").status_code == 303
    assert reader.get("/v1/files").status_code == 401
    for wrong in (
        {"name": ""},
        {"name": "x\ty", "scope": ["read"]},
        {"name": "x", "scope": []},
        {"name": "x", "scope": ["read"], "expires_days": "-1"},
    ):
        assert send(http, "/keys", "/keys", **wrong).status_code == 400


def test_usage_and_settings(site: Site, http: httpx2.Client) -> None:
    text = http.get("/keys").text
    assert "50.0 %" in text
    assert "2 calls answered by both" in text
    assert send(http, "/keys/settings", "/keys", retention_days="0").status_code == 400
    assert send(http, "/keys/settings", "/keys", retention_days="30").status_code == 303
    assert 'value="30"' in http.get("/keys").text
    assert "Not for training" in http.get("/new").text
    assert send(http, "/keys/settings", "/keys", trains_on_stored="yes").status_code == 303
    assert "Not for training" not in http.get("/new").text


def test_static_files_are_those_listed(http: httpx2.Client) -> None:
    for name in STATIC:
        found = http.get(f"/static/{name}")
        assert found.content == (HERE / "static" / name).read_bytes()
        assert found.headers["cache-control"] == "no-cache"
    front = http.get("/").text
    stamped = front.split('href="/static/pages.css')[1].split('"')[0]
    assert "immutable" in http.get(f"/static/pages.css{stamped}").headers["cache-control"]
    for name in ("none", "..%2Frouting.py", "../routes.py", ""):
        assert http.get(f"/static/{name}").status_code == 404


def test_an_address_that_there_is_not_is_a_page_for_a_person_alone(http: httpx2.Client) -> None:
    html = {"accept": "text/html,*/*"}
    found = http.get("/jobz", headers=html)
    assert found.status_code == 404
    assert found.headers["content-type"].startswith("text/html")
    assert "There is no page /jobz." in found.text
    for answer in (http.get("/jobz"), http.get("/v1/jobz", headers=html), http.post("/jobz", headers=html)):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


def test_htmx_is_as_it_was_published_and_may_not_run_texts() -> None:
    assert hashlib.sha256((HERE / "static" / "htmx.min.js").read_bytes()).hexdigest() == HTMX_SHA256
    assert "Zero-Clause BSD" in (HERE / "static" / "htmx.LICENSE.txt").read_text("utf-8")
    assert '"allowEval":false' in (HERE / "base.html").read_text("utf-8")


def test_a_restarted_server_has_lost_nothing(serving: Any) -> None:
    served: Served = serving()
    job_id = put_job(served, "paused", suffix="kept")
    before = served.http().get(f"/jobs/{job_id}").text
    folder = served.folder
    served.stop()
    again = serving(folder=folder).http().get(f"/jobs/{job_id}").text
    shown = "kept</h1>"
    assert shown in before
    assert shown in again
    assert again.count("Resume</button>") == before.count("Resume</button>") == 1


def test_pages_come_soon(site: Site, http: httpx2.Client) -> None:
    """Far above what they take, so that a busy machine passes; `make bench-service` has the figure."""
    for path in ("/", "/new", site.paths["running job"]):
        http.get(path)
        started = time.monotonic()
        http.get(path)
        assert time.monotonic() - started < 3
    assert token(http)
