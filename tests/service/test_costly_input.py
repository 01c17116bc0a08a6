"""Input made to take a server's time or memory: it is refused about as fast as it is read."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import DataError
from stillroom.service.data.jsonl import look_at
from stillroom.service.door import bodies, wall
from stillroom.service.settings import Limits

QUICK_S = 2.0
GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
ASKED, BAD = {"messages": GOOD["messages"][:1]}, {"messages": []}


def refused(path: Path, limits: Limits | None = None) -> DataError:
    with pytest.raises(DataError) as raised:
        look_at(path, "fine-tune", limits or Limits())
    return raised.value


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("end", ["{", "]", "x{x", "[\t;,"])
def test_a_first_line_of_many_separators(tmp_path: Path, end: str) -> None:
    path, begun = tmp_path / "rows.jsonl", time.perf_counter()
    path.write_text("name" + ",a" * 24 + end)
    assert "table" not in refused(path).what
    assert time.perf_counter() - begun < QUICK_S


@pytest.mark.parametrize(
    ("head", "is_table"),
    [("text,label", True), ("a\tb\tc", True), ("a;", True), (",a", False), ("text", False), ("a,b{", False)],
)
def test_the_head_of_a_table(tmp_path: Path, head: str, is_table: bool) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{head}\n1,2\n")
    assert ("table" in refused(path).what) == is_table


def test_an_object_of_many_names_one_of_them_twice() -> None:
    text = "{" + "".join(f'"{place}":0,' for place in range(30_000)) + '"29999":0}'
    begun = time.perf_counter()
    with pytest.raises(bodies.BadJson, match="'29999' stands twice"):
        bodies.read(text.encode())
    assert time.perf_counter() - begun < QUICK_S


@pytest.mark.parametrize(("size", "in_a_thread"), [(10, False), (1 << 18, True)])
def test_a_long_body_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch, size: int, in_a_thread: bool) -> None:
    here, readers, reads = threading.get_ident(), [], bodies.read

    def read(data: bytes, deepest: int) -> Any:
        readers.append(threading.get_ident() != here)
        return reads(data, deepest)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps("a" * size).encode(), "more_body": False}

    monkeypatch.setattr(bodies, "read", read)
    scope: dict[str, Any] = {"state": {}}
    asyncio.run(wall._read_json(scope, receive, 1 << 20, 64))
    assert readers == [in_a_thread]
    assert scope["state"][bodies.READ] == "a" * size


def test_a_file_of_which_a_tenth_is_wrong_is_not_read_on(tmp_path: Path) -> None:
    """Its rejected rows are in memory, and no more of them than a good file may have."""
    path = write(tmp_path / "rows.jsonl", *[BAD] * 11, "a line that would be refused by itself")
    found = refused(path, Limits(file_rows=100))
    assert found.where == "line 1"
    assert found.what.endswith(", and 10 more of the first 11 rows are wrong")


def test_rows_without_an_answer_are_counted_before_they_are_listed(tmp_path: Path) -> None:
    found = refused(write(tmp_path / "rows.jsonl", *[GOOD] * 5, *[ASKED] * 5, BAD))
    assert found.where == "line 6"
    assert found.what.startswith("messages: the last one should be the assistant's answer")
    assert found.what.endswith(", and 5 more of 11 rows are wrong")
    looked = look_at(write(tmp_path / "few.jsonl", *[GOOD] * 9, ASKED, *[GOOD] * 9, BAD), "fine-tune", Limits())
    assert looked is not None
    assert (looked.rows, looked.answered, [one.line for one in looked.rejected]) == (18, 18, [10, 20])
