"""The reasoning bench in its smallest size: a teacher trained, served, sampled, and every bar of its primary task read."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from benchmarks.reasoning_data import TASKS, files, scratchpad
from benchmarks.reasoning_sizes import PRESETS
from benchmarks.results import read_bars

from benchmarks import reasoning, reasoning_runs
from stillroom.questions.arithmetic import problems

SIZES = PRESETS["smoke"]
OF_THE_PRIMARY = {"reason-gain", "reason-gain-mean", "reason-content", "reason-keeps", "reason-verified"}


def test_every_bar_has_a_block() -> None:
    assert {bar for block in reasoning.BLOCKS.values() for bar in block.bars} == {
        one.id for one in read_bars("reasoning")
    }


def test_no_test_question_is_trained_on(tmp_path: Path) -> None:
    said = {
        name: [json.loads(line) for line in Path(path).read_text().splitlines()]
        for name, path in files(TASKS["sums"], 3_000, 500, 50, tmp_path).items()
    }
    asked = {name: {frozenset(one["question"].split("+")) for one in rows} for name, rows in said.items()}
    assert len(said["test"]) == 550
    assert not asked["train"] & asked["test"]
    assert all(sum(map(int, one["question"].split("+"))) == int(one["answer"]) for one in said["train"])


@pytest.mark.parametrize("name", ["sums", "products"])
def test_a_scratchpad_holds_the_answers_digits_from_the_right(name: str) -> None:
    for one in problems(TASKS[name], 50, 7):
        columns = re.findall(r"\d\d", scratchpad(one))
        assert (columns[-1][0].strip("0") + "".join(column[1] for column in reversed(columns))) == one.answer.zfill(
            len(columns)
        )


def test_the_primary_task_from_teacher_to_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(reasoning_runs, "PORT", free.getsockname()[1])
    row = reasoning_runs.primary(SIZES, tmp_path)
    assert set(row.bars) == OF_THE_PRIMARY
    assert row.bars["reason-content"].value is not None
    # A teacher of so few steps is no good, and answers alone learn nothing: such a bar has no value, and says why.
    assert row.bars["reason-gain"].value is None
    assert "the task is not one this bar is for" in row.bars["reason-gain"].why
    told = {line[0]: line for line in row.tables["primary"].rows}
    assert set(told) == {"teacher", "student", "control", *reasoning_runs.ARMS, *reasoning_runs.ANSWERS}
    assert told["gold answers"][6] == SIZES.questions
    # Rows and tokens are what the controls are equal in.
    assert told["student"][6] == told["control"][6] == told["filler"][6]
    assert float(told["answers as many tokens"][8]) == pytest.approx(float(told["student"][8]), rel=0.1)
    # Its digits stand as the traces have them, and it reads no fewer tokens.
    backwards = told[reasoning_runs.BACKWARDS]
    assert backwards[6] == SIZES.questions
    assert float(backwards[8]) >= float(told["student"][8])
    row = json.loads((tmp_path / "primary" / "backwards" / "train.jsonl").read_text().splitlines()[0])
    assert row["answer"] == str(sum(map(int, row["question"].split("+"))))[::-1]
    assert row["said"] == f"#### {row['answer']}"
