"""The bar service-bad-input: each bad file and body is refused with a message, the parameter, and for files the line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from benchmarks.service_process import Served
from tests.service.bad_cases import LINES, ROWS, Case, bad_cases, good_rows, prepare

from stillroom.errors import DataError
from stillroom.service.data.conversations import Wrong, check
from stillroom.service.data.jsonl import look_at
from stillroom.service.settings import Limits

CASES = bad_cases()
GROUPS = sorted({case.name.partition(":")[0] if ":" in case.name else "file" for case in CASES})


def of_group(group: str) -> list[Case]:
    return [case for case in CASES if (case.name.partition(":")[0] if ":" in case.name else "file") == group]


@pytest.fixture(scope="module")
def made(service: Served) -> dict[str, str]:
    return prepare(service)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)
    assert sum(case.line > 0 for case in CASES) >= 200


@pytest.mark.parametrize("group", GROUPS)
def test_each_is_refused(service: Served, made: dict[str, str], group: str) -> None:
    http, wrong, slowest = service.http(), [], ("", 0.0)
    for case in of_group(group):
        begun = time.perf_counter()
        fault = case.wrong(case.send(http, made))
        slowest = max(slowest, (case.name, time.perf_counter() - begun), key=lambda one: one[1])
        if fault:
            wrong.append(f"{case.name}: {fault}")
    assert not wrong, "\n" + "\n".join(wrong)
    assert slowest[1] < 5, slowest
    assert http.get("/healthz").status_code == 200


def test_nothing_of_them_is_kept(service: Served, made: dict[str, str]) -> None:
    kept = {path.name for path in (service.root / "files").iterdir()}
    assert kept - {made["expired"]} == {made[name] for name in ("good", "wrong-purpose", "foreign")}


def test_a_good_file_is_not_refused(service: Served) -> None:
    """The same requests without their faults."""
    parts = {"role": "user", "content": [{"type": "text", "text": "ü 😀"}]}
    good = [*good_rows(6), {"messages": [parts, {"role": "assistant", "content": "a"}]}]
    lines = [json.dumps(row, ensure_ascii=place % 2 == 0) for place, row in enumerate(good)]
    for end in ("\n", "\r\n", "\n\n"):
        answer = service.http().post(
            "/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", end.join(lines).encode())}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["rows"] == 7


def test_a_single_bad_row_is_left_out_and_a_bad_line_is_not(tmp_path: Path) -> None:
    for name, (place, bad) in ROWS.items():
        rows = good_rows(20)
        rows[7] = bad
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows))
        looked = look_at(path, "fine-tune", Limits())
        assert looked is not None, name
        assert looked.rows == 19, name
        assert [one.line for one in looked.rejected] == [8], name
        assert looked.rejected[0].why.startswith(place), (name, looked.rejected[0].why)
    for name, line in LINES.items():
        lines = [json.dumps(row).encode() for row in good_rows(20)]
        lines[7] = line
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(DataError) as raised:
            look_at(path, "fine-tune", Limits())
        assert raised.value.where == "line 8", name
        assert raised.value.cure, name


def test_rows_that_are_right() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    tool = {"role": "tool", "tool_call_id": "c", "content": ""}
    assert check({"messages": [{"role": "system", "content": ""}, asked, answer]})
    assert check({"messages": [asked, {"role": "assistant", "content": None, "tool_calls": [call]}, tool, answer]})
    assert check({"messages": [asked, {**answer, "weight": 0}, asked, {**answer, "weight": 1}], "tools": []})
    assert check({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}], "name": "ann"}, answer]})
    assert not check({"messages": [asked]})
    assert not check({"messages": [asked, answer, asked]})
    with pytest.raises(Wrong, match=r"^messages: "):
        check({"messages": []})
