"""Which rows a job says that it is made from, and which it left out, each with a reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from benchmarks.service_creations import Idle
from benchmarks.service_jobs import MOODS, body, digits, moods
from benchmarks.service_process import Served
from tests.service.test_sources import lines, talk

from stillroom.service.data import jsonl, lineage_rows
from stillroom.service.jobs.job_rows import by_id
from stillroom.service.recipes.drafting import Drafted, Talk, asked, recorded
from stillroom.service.recipes.presets import OF_WORDS
from stillroom.service.recipes.sources import prepared
from stillroom.service.recipes.validation import MOST_REASONS, left_out
from stillroom.service.rows.tables import teachers
from stillroom.service.settings import Limits, Settings

SAME, ANOTHER = "the same question and answer are there already", "another answer to a question that is there already"
PLACE = "/v1/fine_tuning/jobs"


def places(drafted: Drafted) -> set[tuple[str, int]]:
    return {(one.source, one.line) for one in drafted.sources}


def rows(count: int, source: str = "f", words: str = "question") -> list[Talk]:
    answers = (talk(f"{words} {place}", "yes" if place % 2 else "no", place + 1) for place in range(count))
    return [Talk(source, one.line, one.messages, one.answer) for one in answers]


def test_rows_that_are_held_out_are_sources(tmp_path: Path) -> None:
    questions = [Talk("f", line, [{"role": "user", "content": f"q {line}"}], None) for line in range(1, 21)]
    judged = [*rows(30, "v", "right"), *rows(4, "v", "right"), Talk("v", 31, *rare())]
    drafted = asked(questions, judged, {"kind": "openai_api"}, ["yes", "no"], tmp_path)
    held = lines(tmp_path / "validation.jsonl") + lines(tmp_path / "test.jsonl")
    assert len(held) == 30
    wanted = {("f", line) for line in range(1, 21)} | {("v", line) for line in range(1, 31)}
    assert places(drafted) == wanted
    assert len(drafted.sources) == 20 + 30 + 4, "those that say the same are sources too"
    assert Counter(one.why for one in drafted.rejected) == {SAME: 4, "fewer than 3 rows have this answer": 1}


def rare() -> tuple[list[dict[str, Any]], str]:
    return talk("rare", "perhaps").messages, "perhaps"


def test_a_row_that_voted_is_a_source_and_is_left_out_by_name(tmp_path: Path) -> None:
    voters = [Talk("c", 0, *question("yes")), Talk("d", 0, *question("yes")), Talk("e", 0, *question("no"))]
    lonely = [Talk(name, 0, *rare()) for name in ("r", "s")]
    for drafted in (
        recorded([*rows(40), *voters, *lonely], OF_WORDS, tmp_path, None),
        asked([*rows(40), *voters, *lonely], [], {"kind": "openai_api"}, None, tmp_path),
    ):
        assert places(drafted) == {("f", line) for line in range(1, 41)} | {("c", 0), ("d", 0)}
        why = {one.talk.source: one.why for one in drafted.rejected}
        assert (why["d"], why["e"], why["s"]) == (SAME, ANOTHER, SAME)
        assert why["r"].startswith("fewer than 3")
        taken = {(one.source, one.line) for one in drafted.sources if one.source == "f"}
        assert len(taken) + len(voters) + len(lonely) == 45
        assert len(drafted.rejected) == 4, "of 45 rows 41 are in the data"


def question(answer: str) -> tuple[list[dict[str, Any]], str]:
    return talk("is it so?", answer).messages, answer


def test_reasons_are_counted(tmp_path: Path) -> None:
    assert left_out(None) == {"rejected_rows": None, "rejected_reasons": None}
    assert left_out(Counter()) == {"rejected_rows": 0, "rejected_reasons": []}
    found = left_out(Counter({"a": 1, "b": 5}))
    assert found == {"rejected_rows": 6, "rejected_reasons": [{"why": "b", "rows": 5}, {"why": "a", "rows": 1}]}
    many = left_out(Counter({str(place): 2 for place in range(MOST_REASONS + 3)}))["rejected_reasons"]
    assert (len(many), many[-1]) == (MOST_REASONS + 1, {"why": "other reasons", "rows": 6})


def test_lines_are_counted_however_long_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BREATH_BYTES", 4)
    path = tmp_path / "a.jsonl"
    for data, found in (
        (b"", []),
        (b"abcdefghi\n\n  \t    \nx\nabcd\n    x", [1, 4, 5, 6]),
        (b"\n\nabc", [3]),
        (b"    ", []),
    ):
        path.write_bytes(data)
        assert list(jsonl.lines_with_words(path)) == found


def held(service: Served, **asked_for: Any) -> dict[str, Any]:
    """A job that was looked at and waits."""
    answer = service.http().post(PLACE, json=asked_for)
    assert answer.status_code == 200, answer.text
    return service.wait(answer.json()["id"], until=("paused", "failed"), within_s=300)


def made_of(service: Served, job_id: str) -> Counter[tuple[str, int]]:
    answer = service.http().get(f"/api/lineage/jobs/{job_id}", params={"limit": 1000})
    return Counter((one["source_id"], one["row"]) for one in answer.json()["data"])


def test_a_file_of_a_recipe_is_known_by_its_lines(service: Served, client: openai.OpenAI) -> None:
    table = [f"{name} {place},{mood}" for place in range(20) for name, mood in MOODS.items()]
    as_lines = [json.dumps({"text": text, "label": mood}) for text, mood in (row.split(",") for row in table)]
    sent = (("rows.jsonl", "\n\n".join(as_lines)), ("rows.csv", "\n".join(["text,label", *table])))
    by_line, whole = (client.files.create(file=(name, text.encode()), purpose="user_data").id for name, text in sent)
    for file, wanted in ((by_line, {(by_line, line) for line in range(1, 120, 2)}), (whole, {(whole, 0)})):
        questions = {"kind": "dataset", "source": file, "texts": ["text"], "label": "label"}
        job = held(service, **body(digits(questions=questions), distillation={"hold": True}))
        assert job["error"] is None
        assert made_of(service, job["id"]) == Counter(wanted)
        told = job["distillation"]
        assert (told["rejected_rows"], told["rejected_reasons"]) == (None, None), "nobody counts them"
        assert service.http().get(f"{PLACE}/{job['id']}/rejected").json()["data"] == []
        assert "not counted here" in service.http().get(f"/jobs/{job['id']}/rejected").text
        client.fine_tuning.jobs.cancel(job["id"])
        assert "Rows left out" not in service.http().get(f"/jobs/{job['id']}").text
        client.files.delete(file)
        with service.rows.reading() as found:
            assert lineage_rows.contains_deleted(found, service.first_project(), job["id"]) == len(wanted)


def test_too_many_lines_are_a_whole_file(tmp_path: Path) -> None:
    with Idle(tmp_path / "idle") as idle:
        http, state = idle.http(), SimpleNamespace(settings=Settings(idle.root), database=idle.rows)
        name = http.post("/v1/files", files={"file": ("a.jsonl", moods(30))}, data={"purpose": "user_data"}).json()[
            "id"
        ]
        sent = http.post(PLACE, json=body(digits(questions={"kind": "dataset", "source": name})))
        with idle.rows.reading() as found:
            job = by_id(found, sent.json()["id"])
        for most, wanted in ((30, [(name, line) for line in range(1, 31)]), (29, [(name, 0)])):
            state.settings = Settings(idle.root, limits=Limits(file_rows=most))
            assert prepared(state, job, tmp_path / "job").sources == wanted


@pytest.fixture(scope="module")
def judged(service: Served, client: openai.OpenAI) -> dict[str, Any]:
    """A job of questions for a teacher that is never asked, and of right answers in a file of their own; with its files."""
    with service.rows.writing() as found:
        found.execute(teachers.insert().values(
            id=f"teacher-{'a' * 24}", project_id=service.first_project(), name="big", model="m", distillable=True,
            base_url="https://93.184.215.14/v1", created_at=1,
        ))  # fmt: skip
    twice = moods(3, answered=False)
    files = [client.files.create(file=("q.jsonl", moods(30, answered=False) + twice), purpose="fine-tune").id]
    files += [client.files.create(file=("v.jsonl", moods(45).replace(b"today", b"now")), purpose="fine-tune").id]
    job = held(
        service, model="small-text-classifier", training_file=files[0], validation_file=files[1],
        distillation={"teacher": "big", "hold": True, "labels": sorted(set(MOODS.values()))},
    )  # fmt: skip
    assert job["error"] is None
    return {"job": job, "files": files}


def test_rejected_rows_are_counted_by_reason_and_listed(judged: dict[str, Any], service: Served) -> None:
    job, questions = judged["job"], judged["files"][0]
    told, http = job["distillation"], service.http()
    assert (told["rejected_rows"], told["rejected_reasons"]) == (3, [{"why": SAME, "rows": 3}])
    first = http.get(f"{PLACE}/{job['id']}/rejected", params={"limit": 2}).json()
    assert first["has_more"]
    rest = http.get(f"{PLACE}/{job['id']}/rejected", params={"after": first["last_id"]}).json()
    assert not rest["has_more"]
    found = [(one["source"], one["line"], one["why"], one["object"]) for one in first["data"] + rest["data"]]
    assert found == [(questions, line, SAME, "fine_tuning.job.rejected") for line in (31, 32, 33)]
    assert [one["id"] for one in first["data"] + rest["data"]] == ["0", "1", "2"]
    for wrong in ("x", "-1", "9" * 12):
        assert http.get(f"{PLACE}/{job['id']}/rejected", params={"after": wrong}).status_code == 404


def test_a_page_tells_why_rows_were_left_out(judged: dict[str, Any], service: Served) -> None:
    http, at = service.http(), f"/jobs/{judged['job']['id']}"
    page = http.get(at).text
    assert SAME in page
    assert f'href="{at}/rejected"' in page
    listed = http.get(f"{at}/rejected").text
    assert listed.count(SAME) == 3
    assert f'<a href="/data/{judged["files"][0]}">' in listed
    assert all(f'<td class="number">{line}</td>' in listed for line in (31, 32, 33))
    assert "There are no more" in http.get(f"{at}/rejected?after=2").text
    theirs = service.http(service.key("other", project=service.project("others")))
    assert theirs.get(f"{at}/rejected").status_code == theirs.get(f"/jobs/ftjob-{'a' * 24}/rejected").status_code == 404
    assert theirs.get(f"{PLACE}/{judged['job']['id']}/rejected").status_code == 404


def test_one_line_is_asked_what_was_made_from_it(judged: dict[str, Any], service: Served) -> None:
    job, (questions, right) = judged["job"]["id"], judged["files"]
    ask = service.http().get
    for source, line, made in (
        (questions, 30, 1),
        (questions, 33, 1),
        (right, 45, 1),
        (right, 46, 0),
        (questions, 34, 0),
    ):
        found = ask(f"/api/lineage/sources/{source}", params={"row": line}).json()["made"]
        assert [(one["job_id"], one["rows"]) for one in found] == [(job, 1)] * made, (source, line)
    assert ask(f"/api/lineage/sources/{questions}", params={"row": -1}).status_code == 400
    assert ask(f"/api/lineage/sources/{questions}", params={"row": "9" * 30}).status_code == 400


def test_a_deleted_validation_file_is_marked(judged: dict[str, Any], service: Served, client: openai.OpenAI) -> None:
    job, right = judged["job"]["id"], judged["files"][1]
    folder = service.root / "jobs" / job / "run" / "transfer_set"
    folder.mkdir(parents=True)
    client.files.delete(right)
    mark = json.loads((folder / lineage_rows.MARK).read_text())
    assert [(one["source"], one["rows"]) for one in mark["sources"]] == [(right, 45)]
    assert mark["contains_deleted"] == 45
