"""The bookkeeping of benchmarks: every bar is listed, missed and missing ones say why, finished rows are found again."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.machine import commit
from benchmarks.results import (
    Bar,
    Found,
    Row,
    Rows,
    Table,
    append_line,
    bars_of,
    fingerprint,
    origins_of,
    page,
    read_bars,
    shown,
    write,
)

from benchmarks import results

LOW = Bar("few-errors", "errors", "<=", 74, "5 seeds")
HIGH = Bar("much-kept", "share kept", ">=", 0.86, "5 seeds")
MACHINE = {
    "cpu": "a processor", "cores": 2, "memory_gib": 8.0, "os": "Linux", "instructions": "AVX2", "bfloat16": "emulated",
    "torch_threads": 1,
}  # fmt: skip
TABLE = Table("A table", ["", "errors"], [["student | one", 93.4]], "A note.")


def test_a_bar_is_met_at_its_target_and_missed_beyond() -> None:
    assert LOW.met_by(74)
    assert not LOW.met_by(74.2)
    assert HIGH.met_by(0.86)
    assert not HIGH.met_by(0.85)


@pytest.mark.parametrize("bench", ["hinton", "speed"])
def test_the_shipped_table_has_bars_with_a_target_each(bench: str) -> None:
    bars = read_bars(bench)
    assert len({bar.id for bar in bars}) == len(bars) >= 5


def test_an_unknown_operation_and_an_unknown_bench_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.tsv"
    path.write_text("id\tbench\twhat\top\ttarget\tn\na\tone\ta thing\t<\t1\t1\n")
    with pytest.raises(ValueError, match="unknown operation in a"):
        read_bars("one", path)
    with pytest.raises(ValueError, match="no bar of two"):
        read_bars("two", path)


def test_every_bar_is_listed_whether_met_missed_or_not_run() -> None:
    other = Bar("not-there", "seconds", "<=", 1, "9 rounds")
    found = {"few-errors": Found(98.4, [90, 107], "5 seeds"), "much-kept": Found(0.9, [0.8, 1.0])}
    listed = bars_of([LOW, HIGH, other], found, {"few-errors": "Too few epochs", "not-there": "no such machine"})
    assert [bar["id"] for bar in listed] == ["few-errors", "much-kept", "not-there"]
    missed, met, absent = listed
    assert missed["met"] is False
    assert missed["why"] == "Missed by 24.4: 98.4, where at most 74 is asked. Too few epochs"
    assert met["met"] is True
    assert "why" not in met
    assert met["n"] == "5 seeds"
    assert "value" not in absent
    assert "met" not in absent
    assert absent["why"] == "no such machine"


def test_a_figure_that_could_not_be_measured_has_a_reason_and_no_value() -> None:
    (listed,) = bars_of([HIGH], {"much-kept": Found(None, why="the gap is too small")}, {"much-kept": "another"})
    assert "value" not in listed
    assert listed["why"] == "the gap is too small"


def test_a_figure_no_bar_asks_for_is_an_error() -> None:
    with pytest.raises(KeyError, match="misspelt"):
        bars_of([LOW], {"misspelt": Found(1.0)}, {})


def test_rows_are_found_again_by_experiment_and_settings_and_the_last_counts(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "folder" / "x.rows.jsonl")
    assert rows.find("student", "a") is None
    rows.append("student", "a", Row({"few-errors": Found(90.0)}))
    rows.append("student", "b", Row({"few-errors": Found(50.0)}))
    rows.append("student", "a", Row({"few-errors": Found(80.0, [70.0, 90.0], "5 seeds")}, {"one": TABLE}))
    found = rows.find("student", "a")
    assert found is not None
    assert found.bars["few-errors"] == Found(80.0, [70.0, 90.0], "5 seeds")
    assert found.tables["one"] == TABLE
    assert rows.find("teacher", "a") is None


def test_a_line_cut_short_is_passed_over_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "x.rows.jsonl")
    rows.append("student", "a", Row({"few-errors": Found(90.0)}))
    whole = rows.path.read_text()
    rows.path.write_text(whole + whole[: len(whole) // 2])
    rows.append("student", "b", Row({"few-errors": Found(70.0)}))
    first, second = rows.find("student", "a"), rows.find("student", "b")
    assert first is not None
    assert second is not None
    assert (first.bars["few-errors"].value, second.bars["few-errors"].value) == (90.0, 70.0)


def test_a_fingerprint_follows_the_settings_and_not_their_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_page_is_made_of_the_json_bars_first(tmp_path: Path) -> None:
    bars = bars_of([LOW, HIGH], {"few-errors": Found(70.0, [60.0, 81.5], "5 seeds")}, {})
    write("x", "A title", "Words.", "make bench-x", bars, {"one": TABLE}, MACHINE, {"torch": "2"}, tmp_path)
    result = json.loads((tmp_path / "x.json").read_text())
    assert {"name", "made", "command", "versions", "machine", "bars", "tables"} <= set(result)
    text = (tmp_path / "x.md").read_text()
    assert text == page(result)
    assert "| met | errors (`few-errors`) | at most 74 | 70 | 60 to 81.5 | 5 seeds |" in text
    assert "| not run | share kept (`much-kept`) | at least 0.86 |  |  | 5 seeds |" in text
    assert text.index("few-errors") < text.index("## A table")
    assert "student \\| one" in text
    assert "- `much-kept`: not run yet" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(98.4, "98.4"), (74, "74"), (1.0, "1"), (0.98765, "0.9877"), (12345.6, "12,346"), (60000, "60,000"), ("x", "x")],
)
def test_numbers_are_shown_with_four_digits(value: object, text: str) -> None:
    assert shown(value) == text


def test_what_an_earlier_run_found_stays_and_says_when(tmp_path: Path) -> None:
    earlier = bars_of([LOW, HIGH], {"few-errors": Found(90.0), "much-kept": Found(0.8)}, {})
    tables = {"old": TABLE, "both": TABLE}
    write("bench", "Title", "Words.", "make bench --short", earlier, tables, MACHINE, {}, tmp_path)
    known = json.loads((tmp_path / "bench.json").read_text())
    for _ in range(2):  # a third run keeps the first one's day and command
        later = bars_of([LOW, HIGH], {"few-errors": Found(70.0)}, {})
        write("bench", "Title", "Words.", "make bench --long", later, {"both": TABLE}, MACHINE, {}, tmp_path)
    result = json.loads((tmp_path / "bench.json").read_text())
    low, high = result["bars"]
    assert low["value"] == 70
    assert "earlier" not in low
    assert high["value"] == 0.8
    assert high["earlier"] == {"made": known["made"], "command": "make bench --short", "machine": MACHINE}
    assert set(result["tables"]) == {"old", "both"}
    assert "earlier" not in result["tables"]["both"]
    text = (tmp_path / "bench.md").read_text()
    assert text.count(f"ade on {known['made']} by `make bench --short`") == 2
    assert "another machine" not in text
    later = bars_of([LOW, HIGH], {"few-errors": Found(70.0)}, {})
    write("bench", "Title", "Words.", "make bench", later, {}, {**MACHINE, "instructions": "AVX512"}, {}, tmp_path)
    text = (tmp_path / "bench.md").read_text()
    assert text.count("on another machine (a processor, 2 cores, AVX2, bfloat16 emulated)") == 3


def test_a_page_of_several_days_says_of_each_figure_when_and_with_which_commit_it_was_made(tmp_path: Path) -> None:
    rows = {
        "one": Row({"few-errors": Found(70.0)}, {"t1": TABLE}, "2026-11-29", "abc1234"),
        "two": Row({"much-kept": Found(0.9)}, {"t2": TABLE}, "2026-11-30"),
    }

    def text_of(rows: dict[str, Row]) -> str:
        bars = {name: found for row in rows.values() for name, found in row.bars.items()}
        tables = {name: table for row in rows.values() for name, table in row.tables.items()}
        listed = bars_of([LOW, HIGH], bars, {})
        write("x", "T", "W.", "make bench-x", listed, tables, MACHINE, {}, tmp_path, origins_of(rows))
        assert (tmp_path / "x.md").read_text() == page(json.loads((tmp_path / "x.json").read_text()))
        return (tmp_path / "x.md").read_text()

    text = text_of(rows)
    assert "Written on " in text
    assert text.count("ade on 2026-11-29 with commit abc1234") == 2
    assert text.count("ade on 2026-11-30 with an unknown commit") == 2
    alike = {name: replace(row, made="2026-11-29", commit="abc1234") for name, row in rows.items()}
    text = text_of(alike)
    assert text.count("Made on 2026-11-29 with commit abc1234 by `make bench-x`") == 1
    assert text.count("abc1234") == 1


def test_a_row_keeps_its_day_and_commit_and_one_of_before_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    rows = Rows(tmp_path / "rows.jsonl")
    append_line(rows.path, {"experiment": "old", "settings": "s", "made": "2026-11-01", "bars": {}, "tables": {}})
    rows.append("new", "s", Row())
    monkeypatch.setattr(results, "commit", lambda: "def5678")  # it was changed while it ran
    rows.append("changed", "s", Row())
    rows.append("read anew", "s", Row(made="2026-11-01"))
    found = {name: rows.find(name, "s") for name in ("old", "new", "changed", "read anew")}
    assert {name: row.commit for name, row in found.items() if row is not None} == {
        "old": "", "new": "abc1234", "changed": "abc1234+", "read anew": "",
    }  # fmt: skip
    assert found["old"] is not None
    assert found["old"].made == "2026-11-01"


def test_the_commit_says_where_the_program_differs_from_it(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""

    def git(*words: str) -> None:
        known = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *known, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one.py").write_text("")
    git("add", "src")
    git("commit", "-m", "first")
    assert re.fullmatch("[0-9a-f]{7,}", clean := commit(tmp_path))
    (tmp_path / "docs.md").write_text("")
    assert commit(tmp_path) == clean
    (tmp_path / "src" / "one.py").write_text("changed")
    assert commit(tmp_path) == clean + "+"
