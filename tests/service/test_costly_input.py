"""Input made to take a server's time or memory: it is refused about as fast as it is read."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from benchmarks.service_process import memory_mib

from stillroom.errors import DataError
from stillroom.service.data.jsonl import look_at
from stillroom.service.door import arguments, bodies
from stillroom.service.serving import new_key
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

    monkeypatch.setattr(bodies, "read", read)
    assert asyncio.run(arguments.read_json(json.dumps("a" * size).encode(), 64)) == "a" * size
    assert readers == [in_a_thread]


def test_few_long_bodies_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, at_once, reading = threading.Lock(), [], []

    def read(data: bytes, deepest: int) -> None:
        with lock:
            reading.append(1)
            at_once.append(len(reading))
        time.sleep(0.02)
        with lock:
            reading.pop()

    async def many() -> None:
        await asyncio.gather(*(arguments.read_json(b" " * (1 << 19), 64) for _ in range(8)))

    monkeypatch.setattr(bodies, "read", read)
    monkeypatch.setattr(arguments, "LONG_TURNS", asyncio.Semaphore(2))
    asyncio.run(many())
    assert len(at_once) == 8
    assert max(at_once) == 2


@pytest.mark.parametrize("text", ["[{},{}]", '{"a":[1]}', '{"a":"\\\\","b":1}', '["{",{},[]]', '{"\\"{":{}}'])
def test_too_many_parts(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(bodies, "MOST_PARTS", 2)
    with pytest.raises(bodies.BadJson, match="more than 2 objects, lists and names"):
        bodies.read(text.encode())


@pytest.mark.parametrize("text", ["[{}]", '["{[:{[:\\"{[:",{}]', '["\\\\",[]]', "[1,2,3,4,5]", '["{{{","[[["]'])
def test_what_stands_in_a_text_is_no_part(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(bodies, "MOST_PARTS", 2)
    assert bodies.read(text.encode()) == json.loads(text)


@pytest.mark.parametrize("text", ['"' + '\\"' * 400_000, '{"a":' * 200_000 + "\\" * 9, '"[' * 400_000])
def test_texts_without_an_end_are_looked_at_once(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(bodies, "MOST_PARTS", -1)
    begun = time.perf_counter()
    with pytest.raises(bodies.BadJson):
        bodies.read(text.encode())
    assert time.perf_counter() - begun < QUICK_S


def test_long_honest_bodies() -> None:
    """Ten thousand messages, as many rows of a wide table, as many pictures' worth of numbers; and code in a text."""
    chat = {"messages": [{"role": "user", "content": "{[:" * 99}] * 10_000}
    table = {"rows": [{f"x{place}": 0.5 for place in range(64)}] * 10_000}
    pictures = {"rows": [[0] * 784] * 4_000}
    for body in (chat, table, pictures):
        assert bodies.read(json.dumps(body, separators=(",", ":")).encode()) == body


def test_bodies_made_to_take_memory(serving: Any, tmp_path: Path) -> None:
    """Sixteen at once: without a key none is read, and with one none is made into values."""
    folder = tmp_path / "open"
    folder.mkdir()
    key = new_key(folder / "service", "first")
    served = serving("--host", "0.0.0.0", "--allow-host", "127.0.0.1", folder=folder)
    served.url = served.url.replace("0.0.0.0", "127.0.0.1")
    body = b"[" + b"{}," * ((8 << 20) // 3 - 2) + b"{}]"
    for given, status, most_mib in ((None, 401, 120), (key, 400, 400)):
        before = memory_mib(served.pid)
        clients = [served.http(given, headers={"content-type": "application/json"}) for _ in range(16)]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda one: one.post("/v1/chat/completions", content=body), clients))
        assert [one.status_code for one in answers] == [status] * 16
        assert memory_mib(served.pid, "VmHWM") - before < most_mib
    assert answers[0].json()["error"]["code"] == "invalid_json"


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
