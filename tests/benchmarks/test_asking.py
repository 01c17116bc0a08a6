"""The asking bench in its smallest size: every block gives its figures, and sees what it is there to see."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.asking_runs import Child, keys_of, recipe, states, write_rows
from benchmarks.asking_sizes import PRESETS
from benchmarks.results import read_bars

from benchmarks import asking, asking_budget, asking_kill, asking_pace, asking_resume

SIZES = replace(
    PRESETS["smoke"], pace_questions=24, pace_runs=1, kill_questions=20, random_kills=1, commit_questions=6,
    commit_kills=1, budgets=1, budget_questions=40, stored=120, stored_runs=1,
)  # fmt: skip


def test_every_block_can_be_found_and_depends_on_its_sizes() -> None:
    assert len(read_bars("asking")) == 5
    assert len({asking.BENCH.settings_of(name, SIZES) for name in asking.BLOCKS}) == len(asking.BLOCKS)
    assert asking.BENCH.settings_of("kill", SIZES) == asking.BENCH.settings_of("kill", replace(SIZES, budgets=9))
    assert asking.BENCH.settings_of("kill", SIZES) != asking.BENCH.settings_of("kill", replace(SIZES, random_kills=9))


def test_a_child_tells_its_end_its_kill_and_its_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert Child(lambda: {"pid": 1}).result() == {"pid": 1}
    killed = Child(lambda: time.sleep(60))
    killed.kill()
    assert killed.result() is None
    with pytest.raises(RuntimeError, match="failed"):
        Child(lambda: [][0]).result()  # type: ignore[misc]
    assert "IndexError" in capfd.readouterr().err
    assert not Child(lambda: os.kill(os.getpid(), 9)).ended()


def test_states_of_a_ledger(tmp_path: Path) -> None:
    assert not states(tmp_path / "none.sqlite")
    at = sqlite3.connect(tmp_path / "one.sqlite")
    at.execute("CREATE TABLE requests (key BLOB, state TEXT)")
    at.executemany(
        "INSERT INTO requests VALUES (?, ?)", [(b"a", "open"), (b"a", "lost"), (b"a", "lost"), (b"b", "kept")]
    )
    at.commit()
    at.close()
    assert states(tmp_path / "one.sqlite") == Counter({(b"a", "lost"): 2, (b"a", "open"): 1, (b"b", "kept"): 1})


class Told:
    """A teacher that says which questions it was paid for more than once."""

    def __init__(self, served: dict[str, int]) -> None:
        self.served = served

    def about(self, what: str) -> Any:
        """The same as a loopback teacher's."""
        assert what == "twice"
        return {"requests": [{"question": text, "served": count} for text, count in self.served.items()]}


def test_what_is_paid_twice_beyond_what_was_in_flight_is_seen(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv", 3)
    tree = recipe("http://127.0.0.1:9/v1", rows, 2)
    keys = keys_of(tree, rows)
    texts = list(keys)
    (tmp_path / "run" / "transfer_set").mkdir(parents=True)
    at = sqlite3.connect(tmp_path / "run" / "transfer_set" / "ledger.sqlite")
    at.execute("CREATE TABLE requests (key BLOB, state TEXT)")
    found = [(key, "kept") for key in keys.values()] + [(keys[texts[0]], "lost"), (keys[texts[1]], "lost")]
    at.executemany("INSERT INTO requests VALUES (?, ?)", found)
    at.commit()
    at.close()
    chains = object.__new__(asking_kill.Chains)
    chains.rows, chains.tally, chains.expected = rows, asking_kill.Tally(), {}
    in_flight = Counter({keys[texts[0]]: 1})
    chains._compare(Told({texts[0]: 2, texts[1]: 3, texts[2]: 2}), tree, tmp_path / "run", in_flight)
    assert (chains.tally.paid_twice, chains.tally.beyond) == (4, 2)


def test_the_pace_is_measured(tmp_path: Path) -> None:
    row = asking_pace.pace(SIZES, tmp_path)
    assert 0.5 < (row.bars["asking-rate"].value or 0) < 1.5
    assert (row.bars["asking-cpu-ms"].value or 0) > 0
    assert row.tables["pace"].rows[0][1] == 24


@pytest.mark.kill
def test_kills_and_budgets_pay_for_nothing_twice(tmp_path: Path) -> None:
    row = asking_kill.kill(SIZES, tmp_path)
    assert row.bars["asking-paid-twice"].value == 0
    assert not row.bars["asking-paid-twice"].why
    assert sum(line[1] for line in row.tables["kill"].rows) >= 2
    row = asking_budget.budget(SIZES, tmp_path)
    assert row.bars["asking-over-budget"].value == 0


def test_going_on_is_timed(tmp_path: Path) -> None:
    row = asking_resume.resume(SIZES, tmp_path)
    assert (row.bars["asking-resume-s"].value or 0) > 0
    assert len(row.tables["resume"].rows) == 4
