"""Uploads in parts, by the official client: put together in the order asked for, checked, and looked at like any file."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import openai
import pytest
from benchmarks.service_process import Served
from sqlalchemy import update
from tests.service.bad_cases import good_rows

from stillroom.service.data import forms, retention
from stillroom.service.data import uploads as uploads_room
from stillroom.service.data.file_rows import upload_folder
from stillroom.service.door.access import Caller
from stillroom.service.door.faults import ApiError
from stillroom.service.rows.tables import uploads
from stillroom.service.settings import Settings

DATA = "\n".join(json.dumps(row) for row in good_rows(200)).encode()


def begin(client: openai.OpenAI, data: bytes = DATA, **more: Any) -> str:
    told = {"bytes": len(data), "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune", **more}
    return client.uploads.create(**told).id


def parts(client: openai.OpenAI, upload: str, data: bytes = DATA, size: int = 5000) -> list[str]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [client.uploads.parts.create(upload, data=piece).id for piece in pieces]


def left(service: Served, upload: str) -> bool:
    return (service.root / "uploads" / upload).exists()


def test_the_clients_own_way(service: Served, client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(DATA)
    for file in (path, DATA):
        done = client.uploads.upload_file_chunked(
            file=file, mime_type="text/jsonl", purpose="fine-tune", part_size=4000, md5=hashlib.md5(DATA).hexdigest(),
            **({} if isinstance(file, Path) else {"filename": "b.jsonl", "bytes": len(DATA)}),
        )  # type: ignore[call-overload]  # fmt: skip
        assert done.status == "completed"
        assert done.file is not None
        assert client.files.content(done.file.id).read() == DATA
        assert client.files.retrieve(done.file.id).rows == 200  # type: ignore[attr-defined]
        assert not left(service, done.id)


class Watched(type(Path())):  # type: ignore[misc]
    """A path that, when it is given its place, looks whether anybody could write."""

    free: ClassVar[list[bool]] = []
    database: ClassVar[Path]

    def rename(self, target: Any) -> Any:
        with closing(sqlite3.connect(self.database, timeout=0, isolation_level=None)) as rows:
            try:
                rows.execute("BEGIN IMMEDIATE")
                self.free.append(True)
            except sqlite3.OperationalError:
                self.free.append(False)
        return super().rename(target)


def test_a_disk_that_takes_its_time_stops_no_other_writer(service: Served, client: openai.OpenAI) -> None:
    upload, caller = begin(client), Caller(service.first_project(), "", frozenset())
    state = SimpleNamespace(settings=Settings(service.root), database=service.rows)
    Watched.database = service.rows.path
    staged = forms.stage(upload_folder(state.settings, upload), "a.jsonl", [DATA], len(DATA))
    part = uploads_room._keep_part(state, caller, upload, dataclasses.replace(staged, path=Watched(staged.path)))
    assert Watched.free == [True]
    done = client.uploads.complete(upload, part_ids=[part["id"]])
    assert done.file is not None
    assert client.files.content(done.file.id).read() == DATA


class Ended(type(Path())):  # type: ignore[misc]
    """A path whose upload another request ends, just when it is given its place."""

    end: ClassVar[Any]

    def rename(self, target: Any) -> Any:
        self.end()
        return super().rename(target)


@pytest.mark.parametrize("how", ["cancel", "complete"])
def test_a_part_that_comes_while_its_upload_ends(service: Served, client: openai.OpenAI, how: str) -> None:
    upload, caller = begin(client), Caller(service.first_project(), "", frozenset())
    names = parts(client, upload)
    state = SimpleNamespace(settings=Settings(service.root), database=service.rows)
    ends = {"cancel": client.uploads.cancel, "complete": lambda one: client.uploads.complete(one, part_ids=names)}
    Ended.end = staticmethod(lambda: ends[how](upload))
    staged = forms.stage(upload_folder(state.settings, upload), "a.jsonl", [b"more"], 4)
    with pytest.raises(ApiError) as raised:
        uploads_room._keep_part(state, caller, upload, dataclasses.replace(staged, path=Ended(staged.path)))
    assert (raised.value.status, raised.value.code) == (
        400,
        f"upload_{'cancelled' if how == 'cancel' else 'completed'}",
    )


def test_an_upload_that_ends_while_it_is_put_together(
    service: Served, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, caller = begin(client), Caller(service.first_project(), "", frozenset())
    names = parts(client, upload)
    request: Any = SimpleNamespace(app=SimpleNamespace(
        state=SimpleNamespace(settings=Settings(service.root), database=service.rows)
    ), headers={})  # fmt: skip
    joined = uploads_room._joined

    def late(paths: list[Path], digest: Any) -> Any:
        client.uploads.cancel(upload)
        yield from joined(paths, digest)

    monkeypatch.setattr(uploads_room, "_joined", late)
    with pytest.raises(ApiError) as raised:
        uploads_room.uploads_complete(upload, uploads_room.Completion(part_ids=names), request, caller)
    assert (raised.value.status, raised.value.code) == (400, "upload_cancelled")


def test_parts_come_in_any_order(client: openai.OpenAI, as_client: Any) -> None:
    strict = as_client(_strict_response_validation=True)
    upload = begin(strict, expires_after={"anchor": "created_at", "seconds": 7200})
    size = len(DATA) // 3 + 1
    last, middle, first = (
        strict.uploads.parts.create(upload, data=io.BytesIO(DATA[n * size : (n + 1) * size])).id for n in (2, 1, 0)
    )
    strict.uploads.parts.create(upload, data=b"left out")
    done = strict.uploads.complete(upload, part_ids=[first, middle, last])
    assert done.file is not None
    assert strict.files.content(done.file.id).read() == DATA
    assert done.file.expires_at == done.file.created_at + 7200
    with pytest.raises(openai.BadRequestError) as raised:
        client.uploads.complete(upload, part_ids=[first, middle, last])
    assert raised.value.code == "upload_completed"


def test_a_retried_completion_is_the_first_one(service: Served, client: openai.OpenAI) -> None:
    upload = begin(client)
    names = parts(client, upload)
    done = client.uploads.complete(upload, part_ids=names)
    again = service.http().post(
        f"/v1/uploads/{upload}/complete", json={"part_ids": names}, headers={"x-stainless-retry-count": "1"}
    )
    assert done.file is not None
    assert again.json()["file"]["id"] == done.file.id


def test_what_does_not_fit_together(client: openai.OpenAI) -> None:
    upload, other = begin(client), begin(client)
    names, foreign = parts(client, upload), parts(client, other)
    for wrong, param in [
        (names[:-1], "part_ids"),
        ([*names, names[0]], f"part_ids.{len(names)}"),
        ([*names[:-1], foreign[-1]], f"part_ids.{len(names) - 1}"),
    ]:
        with pytest.raises(openai.BadRequestError) as raised:
            client.uploads.complete(upload, part_ids=wrong)
        assert raised.value.param == param
    with pytest.raises(openai.BadRequestError) as raised:
        client.uploads.complete(upload, part_ids=names, md5="0" * 32)
    assert raised.value.param == "md5"
    assert client.uploads.complete(upload, part_ids=names).status == "completed", "a wrong try leaves it as it was"


def test_a_bad_file_in_parts_is_refused_with_its_line(service: Served, client: openai.OpenAI) -> None:
    data = DATA.replace(b'"q150"', b"NaN")
    upload = begin(client, data)
    before = {path.name for path in (service.root / "files").iterdir()}
    with pytest.raises(openai.BadRequestError) as raised:
        client.uploads.complete(upload, part_ids=parts(client, upload, data))
    assert "line 151" in raised.value.message
    assert raised.value.param == "file"
    assert {path.name for path in (service.root / "files").iterdir()} == before


def test_a_cancelled_upload_is_over(service: Served, client: openai.OpenAI) -> None:
    upload = begin(client)
    names = parts(client, upload)
    assert left(service, upload)
    assert client.uploads.cancel(upload).status == "cancelled"
    assert not left(service, upload)
    for call in (
        lambda: client.uploads.cancel(upload), lambda: client.uploads.complete(upload, part_ids=names),
        lambda: client.uploads.parts.create(upload, data=b"x"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as raised:
            call()
        assert raised.value.code == "upload_cancelled"
    assert not left(service, upload)


def test_an_upload_lives_an_hour(service: Served, client: openai.OpenAI) -> None:
    upload = begin(client)
    names = parts(client, upload)
    with service.rows.writing() as rows:
        rows.execute(update(uploads).where(uploads.c.id == upload).values(expires_at=int(time.time()) - 1))
    with pytest.raises(openai.BadRequestError) as raised:
        client.uploads.complete(upload, part_ids=names)
    assert raised.value.code == "upload_expired"
    going = begin(client)
    parts(client, going)
    retention.sweep(service.rows, Settings(service.root))
    assert not left(service, upload)
    assert left(service, going)


def test_another_projects_upload_is_an_unknown_one(client: openai.OpenAI, stranger: openai.OpenAI) -> None:
    upload = begin(client)
    names = parts(client, upload)
    told = set()
    for name in (upload, "upload-" + "x" * 24):
        for call in (
            lambda name=name: stranger.uploads.cancel(name),
            lambda name=name: stranger.uploads.complete(name, part_ids=names),
            lambda name=name: stranger.uploads.parts.create(name, data=b"x"),
        ):
            with pytest.raises(openai.NotFoundError) as raised:
                call()
            told.add(raised.value.message.replace(name, "NAME"))
    assert len(told) == 1
    mine = begin(stranger)
    with pytest.raises(openai.BadRequestError) as wrong:
        stranger.uploads.complete(mine, part_ids=names)
    assert wrong.value.param == "part_ids.0"


def test_more_than_the_disk_has_is_refused_before_it_is_sent(client: openai.OpenAI, tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free >= 16 << 30:
        with pytest.raises(openai.BadRequestError) as raised:
            begin(client, bytes=(8 << 30) + 1)
    else:
        with pytest.raises(openai.BadRequestError) as raised:
            begin(client, bytes=8 << 30)
    assert raised.value.param == "bytes"


def test_the_sweep_takes_what_belongs_to_nothing(service: Served, client: openai.OpenAI) -> None:
    folder = service.root / "files"
    kept = client.files.create(file=("a.jsonl", DATA), purpose="fine-tune").id
    young, old = folder / "new-x.staged", folder / f"file-{'z' * 24}"
    for path in (young, old):
        path.write_bytes(b"x")
    past = time.time() - 2 * retention.STRAY_S
    os.utime(old, (past, past))
    os.utime(folder / kept, (past, past))
    retention.sweep(service.rows, Settings(service.root))
    assert young.exists()
    assert not old.exists()
    assert (folder / kept).exists()
    young.unlink()
