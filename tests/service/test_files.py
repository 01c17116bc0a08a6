"""Files, as the official client sees them; what is deleted is gone from the disk; memory does not grow with an upload."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks.service_process import Served, memory_mib
from sqlalchemy import select, update

from stillroom.service.app import create_app
from stillroom.service.data import forms
from stillroom.service.data.file_rows import file_path, find_file, with_names
from stillroom.service.data.files import keep
from stillroom.service.data.jsonl import conversations, look_at
from stillroom.service.door.access import Caller
from stillroom.service.door.faults import ApiError
from stillroom.service.rows.tables import files
from stillroom.service.settings import Limits, Settings

MIB = 1 << 20


def line(question: str = "a?", answer: str | None = "b") -> str:
    said = [{"role": "user", "content": question}]
    return json.dumps({"messages": said + ([{"role": "assistant", "content": answer}] if answer else [])})


def rows(count: int = 20) -> bytes:
    return "".join(line(f"question {n}", f"answer {n}") + "\n" for n in range(count)).encode()


def on_disk(service: Served) -> set[str]:
    folder = service.root / "files"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_a_file_goes_in_and_comes_out(service: Served, client: openai.OpenAI) -> None:
    data = rows()
    before = int(time.time())
    file = client.files.create(file=("answers.jsonl", data), purpose="fine-tune")
    assert (file.object, file.filename, file.bytes, file.purpose) == ("file", "answers.jsonl", len(data), "fine-tune")
    assert file.status == "processed"
    assert before <= file.created_at <= time.time()
    assert file.expires_at is None
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id) == file
    assert client.files.content(file.id).read() == data
    assert (service.root / "files" / file.id).read_bytes() == data
    with service.rows.reading() as found:
        row = found.execute(select(files).where(files.c.id == file.id)).mappings().one()
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert row["rows"] == 20
    gone = client.files.delete(file.id)
    assert (gone.id, gone.object, gone.deleted) == (file.id, "file", True)
    assert file.id not in on_disk(service)
    for call in (client.files.retrieve, client.files.delete, client.files.content):
        with pytest.raises(openai.NotFoundError) as raised:
            call(file.id)
        assert raised.value.code == "file_not_found"
        assert raised.value.param == "file_id"


def test_the_strict_client_and_the_one_that_waits(service: Served, as_client: Any) -> None:
    strict = as_client(_strict_response_validation=True)
    file = strict.files.create(file=("a.jsonl", rows()), purpose="fine-tune")
    assert strict.files.retrieve(file.id).id == file.id
    assert file.id in [one.id for one in strict.files.list()]
    assert strict.files.delete(file.id).deleted

    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0) as waits:
            made = await waits.files.create(file=("b.jsonl", rows()), purpose="fine-tune")
            assert (await waits.files.content(made.id)).read() == rows()
            newest = await waits.files.list(limit=1)
            assert newest.data[0].id == made.id
            assert (await waits.files.delete(made.id)).deleted

    asyncio.run(ask())


def test_lists_are_paged_both_ways_and_by_purpose(client: openai.OpenAI, service: Served) -> None:
    owner = openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.key(project=service.project("paged")))
    with owner:
        made = [owner.files.create(file=(f"{n}.jsonl", rows(n + 1)), purpose="fine-tune").id for n in range(5)]
        other = owner.files.create(file=("table.csv", b"a,b\n1,2\n"), purpose="user_data").id
        assert [one.id for one in owner.files.list()] == [other, *reversed(made)]
        assert [one.id for one in owner.files.list(limit=2, order="asc")] == [*made, other]
        assert [one.id for one in owner.files.list(purpose="user_data")] == [other]
        page = owner.files.list(limit=2, purpose="fine-tune")
        assert page.has_more
        assert [one.id for one in page.data] == made[:-3:-1]
        with pytest.raises(openai.NotFoundError):
            owner.files.list(after=client.files.create(file=("x.jsonl", rows()), purpose="fine-tune").id)


@pytest.mark.parametrize("limit", [0, -1, 10_001, "x"])
def test_a_wrong_limit(client: openai.OpenAI, limit: Any) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.files.list(limit=limit)
    assert raised.value.param == "limit"


def test_another_projects_file_is_an_unknown_one(client: openai.OpenAI, stranger: openai.OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", rows()), purpose="fine-tune")
    told = []
    for name in (file.id, "file-" + "x" * 24):
        for call in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
            with pytest.raises(openai.NotFoundError) as raised:
                call(name)
            told.append(raised.value.message.replace(name, "NAME"))
    assert len(set(told)) == 1
    assert client.files.retrieve(file.id).id == file.id


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..\\..\\x", "/etc/passwd", "con", "ä ü.jsonl", "10.00\u202fAM.jsonl", "a%00b", "$(id)"],
)
def test_a_name_is_a_label(service: Served, client: openai.OpenAI, name: str) -> None:
    before = on_disk(service)
    file = client.files.create(file=(name, rows()), purpose="fine-tune")
    assert file.filename == name
    assert on_disk(service) - before == {file.id}
    told = client.files.content(file.id).response.headers["content-disposition"]
    assert told.startswith("attachment; filename*=UTF-8''")
    assert not {"/", "\\", " "} & set(told.partition("''")[2])


@pytest.mark.parametrize("name", ["a\u202eb", "x" * 256, "a\x7fb", "a\u2028b"])
def test_a_name_that_could_not_be_shown(service: Served, client: openai.OpenAI, name: str) -> None:
    before = on_disk(service)
    with pytest.raises(openai.BadRequestError) as raised:
        client.files.create(file=(name, rows()), purpose="fine-tune")
    assert raised.value.param == "file"
    assert on_disk(service) == before


@pytest.mark.parametrize("name", ["../service.sqlite", "..%2Fsecret", "file-../../secret", "file-" + "a" * 23, "."])
def test_an_id_is_no_path(service: Served, name: str) -> None:
    answer = service.http().get(f"/v1/files/{name}/content")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]
    with pytest.raises(ApiError):
        file_path(Settings(Path("root")), name)


def test_what_may_be_done_with_an_address_is_told(service: Served) -> None:
    answer = service.http().put("/v1/files")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_it_ends_by_itself(service: Served, client: openai.OpenAI) -> None:
    lasting = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("a.jsonl", rows()), purpose="fine-tune", expires_after=lasting)  # type: ignore[arg-type]
    assert file.expires_at == file.created_at + 3600
    batch = client.files.create(file=("b.jsonl", b'{"custom_id": "1"}\n'), purpose="batch")
    assert batch.expires_at == batch.created_at + 2_592_000
    with service.rows.writing() as found:
        found.execute(update(files).where(files.c.id == file.id).values(expires_at=int(time.time())))
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    assert file.id not in [one.id for one in client.files.list()]


def test_a_range_is_not_looked_at(service: Served, client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", rows()), purpose="fine-tune")
    for wanted in ("bytes=0-10", "bytes=" + ",".join(f"{n}-{n}" for n in range(2000)), "bytes=-1"):
        answer = service.http().get(f"/v1/files/{file.id}/content", headers={"range": wanted})
        assert answer.status_code == 200
        assert answer.content == rows()
        assert answer.headers["accept-ranges"] == "none"


def test_rejected_rows_are_listed_with_reasons(service: Served, client: openai.OpenAI) -> None:
    good = [line(f"q{n}", f"a{n}") for n in range(40)]
    good[4] = line("asked", None)
    good[11] = json.dumps({"messages": [{"role": "robot", "content": "x"}]})
    good[30] = json.dumps({"prompt": "x", "completion": "y"})
    file = client.files.create(file=("a.jsonl", "\n".join(good).encode()), purpose="fine-tune")
    assert file.rows == 37
    assert file.rejected == 3
    assert "/rejected" in str(file.status_details)
    http = service.http()
    first = http.get(f"/v1/files/{file.id}/rejected", params={"limit": 2}).json()
    rest = http.get(f"/v1/files/{file.id}/rejected", params={"after": first["last_id"]}).json()
    assert first["has_more"]
    assert not rest["has_more"]
    told = {one["line"]: one["reason"] for one in first["data"] + rest["data"]}
    assert sorted(told) == [5, 12, 31]
    assert "answer" in told[5]
    assert told[12].startswith("messages.0.role")
    assert "older form" in told[31]
    left = list(conversations(service.root / "files" / file.id))
    assert len(left) == 37
    assert not {5, 12, 31} & {row["line"] for row in left}
    assert http.get(f"/v1/files/{file.id}/rejected", params={"after": "x:1"}).status_code == 404
    client.files.delete(file.id)
    assert not [name for name in on_disk(service) if name.startswith(file.id)]
    assert http.get(f"/v1/files/{file.id}/rejected").status_code == 404


def test_questions_without_answers_are_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(line(f"q{n}", None) for n in range(5)) + "\n\n")
    looked = look_at(path, "fine-tune", Limits())
    assert looked is not None
    assert (looked.rows, looked.answered, looked.rejected) == (5, 0, [])
    assert [row["messages"][-1]["role"] for row in conversations(path)] == ["user"] * 5


def test_a_retried_upload_is_one_file(service: Served, client: openai.OpenAI) -> None:
    def send(count: str, name: str = "again.jsonl") -> str:
        form = {"data": {"purpose": "fine-tune"}, "files": {"file": (name, rows(3))}}
        answer = service.http().post("/v1/files", headers={"x-stainless-retry-count": count}, **form)  # type: ignore[arg-type]
        assert answer.status_code == 200
        return str(answer.json()["id"])

    first = send("0")
    assert send("1") == send("2") == first
    assert send("0") != first
    assert send("1", "other.jsonl") != first
    assert not [name for name in on_disk(service) if name.endswith(".staged")]


def test_what_is_cut_short_leaves_nothing(service: Served) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    before = on_disk(service)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 9000000\r\n\r\n"
    )
    part = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with socket.create_connection((host, int(port))) as line_out:
        line_out.sendall((head + part).encode() + b"z" * 3_000_000)
    until = time.monotonic() + 10
    while on_disk(service) - before:  # what other tests left there may go meanwhile
        assert time.monotonic() < until, on_disk(service) - before
        time.sleep(0.05)


def test_a_file_in_a_message_has_its_name_once(service: Served, client: openai.OpenAI) -> None:
    file, other = client.files.create(file=("data.jsonl", rows()), purpose="fine-tune"), f"file-{'x' * 24}"
    with service.rows.reading() as found:
        told = with_names(found, service.first_project(), f"{file.id}: {file.id}.jsonl, line 3, and {other}.csv")
    assert told == f"data.jsonl: data.jsonl, line 3, and {other}.csv"


def test_too_large_a_file(serving: Any) -> None:
    small = serving(limits={"file_bytes": 100_000, "file_rows": 50, "line_bytes": 2_000})
    with openai.OpenAI(base_url=f"{small.url}/v1", api_key="any", max_retries=0) as client:
        assert client.files.create(file=("a.jsonl", rows(50)), purpose="fine-tune").rows == 50  # type: ignore[attr-defined]
        for data, word in ((rows(51), "line 51"), (line("x" * 2000).encode(), "line 1")):
            with pytest.raises(openai.BadRequestError) as raised:
                client.files.create(file=("a.jsonl", data), purpose="fine-tune")
            assert word in raised.value.message
            assert raised.value.param == "file"
        for size in (100_001, 900_000):
            with pytest.raises(openai.APIStatusError) as too_large:
                client.files.create(file=("a.bin", b"x" * size), purpose="user_data")
            assert too_large.value.status_code == 413
            assert too_large.value.param == "file"
    assert len(on_disk(small)) == 1


def test_memory_does_not_grow_with_an_upload(serving: Any, tmp_path: Path) -> None:
    """A 64 MB file of rows and one of bytes: sent, looked at and read again, within 64 MiB more, others being answered."""
    served = serving()
    path = tmp_path / "large.jsonl"
    with path.open("wb") as out:
        piece = "".join(line(f"question {n} " + "text " * 40, f"answer {n}") + "\n" for n in range(500)).encode()
        while out.tell() < 64_000_000:
            out.write(piece)
    http, waits = served.http(), []
    http.get("/v1/files")
    most, going, start_mib = [0.0], threading.Event(), served.memory_mib()

    def watch() -> None:
        while not going.wait(0.02):
            most[0] = max(most[0], memory_mib(served.pid))
            begun = time.perf_counter()
            assert http.get("/healthz").status_code == 200
            waits.append(time.perf_counter() - begun)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0, timeout=120) as client:
            for purpose in ("fine-tune", "user_data"):
                with path.open("rb") as data:
                    file = client.files.create(file=data, purpose=purpose)  # type: ignore[arg-type]
                assert file.bytes == path.stat().st_size
            with client.files.with_streaming_response.content(file.id) as answer:
                digest = hashlib.sha256()
                for chunk in answer.iter_bytes(MIB):
                    digest.update(chunk)
            assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    finally:
        going.set()
        watching.join()
    grown = max(most[0], memory_mib(served.pid, "VmHWM")) - start_mib
    assert grown <= 64, f"{grown:.0f} MiB more"
    assert len(waits) > 10
    assert sorted(waits)[len(waits) // 2] < 0.5


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Any]:
    app = create_app(Settings(tmp_path, limits=Limits(file_bytes=1000)))
    yield app.state
    app.state.database.close()


def test_what_is_staged_is_kept_or_gone(state: Any) -> None:
    caller, folder = Caller(state.access.first, "", frozenset()), state.settings.root / "files"

    def kept(name: str, chunks: list[bytes]) -> Any:
        staged = forms.stage(folder, name, chunks, state.settings.limits.file_bytes)
        return keep(state, caller, staged, "fine-tune", None)

    row = kept("a.jsonl", [line().encode()[:20], line().encode()[20:]])
    assert row["rows"] == 1
    assert file_path(state.settings, row["id"]).read_text() == line()
    with state.database.reading() as found:
        assert find_file(found, caller.project_id, row["id"])["sha256"] == row["sha256"]
    for name, chunks in [("a", [b"x" * 600, b"x" * 600]), ("a", [b"x"]), ("", [b"x"]), ("a", [])]:
        with pytest.raises(ApiError) as raised:
            kept(name, chunks)
        assert raised.value.param == "file"
    assert [path.name for path in folder.iterdir()] == [row["id"]]
