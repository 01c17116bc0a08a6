"""A benchmark of blocks finds a finished block again while what it depends on is the same, and tells what is left."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from benchmarks.blocks import Bench, Block, NotMade
from benchmarks.results import Found, Row, Rows

from benchmarks import blocks

BAR = "speed-loop"


@dataclass(frozen=True)
class Sizes:
    rounds: int = 3
    luck: int = 0


ran: list[int] = []


def timed(sizes: Sizes, base: Path) -> Row:
    """Stands for a block that is measured."""
    ran.append(sizes.rounds)
    return Row({BAR: Found(0.05, [0.04, 0.06], f"{sizes.rounds} rounds")})


def unread(sizes: Sizes) -> Row:
    """Stands for a block whose data are not there."""
    raise NotMade("there is no such run")


BENCH = Bench(
    "speed",
    "Speed",
    "Words.",
    {"smoke": "", "full": ""},
    {
        "timed": Block("a loop", "here.timed", ("rounds",)),
        "unread": Block("a run", "here.unread", (), takes=(), bars=("speed-bf16",)),
        "never": Block("left out", "here.never", (), wanted=lambda sizes: False),
    },
    {"smoke": Sizes(), "full": Sizes(rounds=9)},
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are kept below tmp_path, and the blocks are those of this file."""
    ran.clear()
    monkeypatch.setattr(blocks, "RUNS", tmp_path)
    monkeypatch.setattr(blocks, "import_module", lambda name: __import__("sys").modules[__name__])
    return tmp_path / "bench-speed" / "smoke"


def test_a_finished_block_is_not_run_again_and_one_without_its_data_is(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BENCH.main("Doc.", ["--preset", "smoke"])
    BENCH.main("Doc.", ["--preset", "smoke"])
    assert ran == [3]
    told = capsys.readouterr().out
    assert "timed: finished before" in told
    assert told.count("unread: a run") == 2
    BENCH.main("Doc.", ["--preset", "smoke", "--again", "timed"])
    assert ran == [3, 3]
    page = (home / "results" / "speed.md").read_text()
    assert "0.05" in page
    assert "not run: there is no such run" in page
    assert "never (left out)" in page


def test_settings_are_those_of_what_a_block_depends_on() -> None:
    assert BENCH.settings_of("timed", Sizes()) == BENCH.settings_of("timed", Sizes(luck=1))
    assert BENCH.settings_of("timed", Sizes()) != BENCH.settings_of("timed", Sizes(rounds=4))
    assert BENCH.settings_of("timed", Sizes()) != replace(BENCH, constants=(1,)).settings_of("timed", Sizes())


def test_what_is_left_says_how_to_run_it(tmp_path: Path) -> None:
    listed = {bar["id"]: bar for bar in BENCH.write("full", Rows(tmp_path / "rows.jsonl"), tmp_path)}
    assert "--only unread" in listed["speed-bf16"]["why"]
    assert "value" not in listed[BAR]


def test_a_block_whose_figures_an_earlier_run_of_this_preset_left_is_not_called_unfinished(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")

    def words(preset: str) -> str:
        BENCH.write(preset, rows, tmp_path)
        return str(json.loads((tmp_path / "speed.json").read_text())["words"])

    rows.append("timed", BENCH.settings_of("timed", Sizes(rounds=9)), Row({BAR: Found(0.05)}))
    assert "timed" not in words("full")
    rows.path.unlink()
    for _ in range(2):  # what was kept is kept again
        left = words("full")
        assert "timed" not in left
        assert "unread (a run)" in left
    assert "timed (a loop)" in words("smoke")


def test_a_block_that_measures_something_else_is_not_found_again() -> None:
    changed = replace(BENCH, blocks={"timed": replace(BENCH.blocks["timed"], edition=2)})
    assert changed.settings_of("timed", Sizes()) != BENCH.settings_of("timed", Sizes())
