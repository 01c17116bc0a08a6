"""The Socratic bench: calls saved from curves, streams that shift, counted calls, and that a stopped bench goes on."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from benchmarks.results import read_bars
from benchmarks.socratic import Finished
from benchmarks.socratic_curves import Curve, budgets_of, curve, strategy_of
from benchmarks.socratic_sizes import EXPLORED, LIMITS, PRIMARY, Sizes, spec
from benchmarks.socratic_streams import Outcome, draw, learning, random_deferral
from benchmarks.socratic_students import Design
from benchmarks.socratic_tables import of_task, whole
from benchmarks.socratic_tasks import Task
from benchmarks.socratic_teacher import UNANSWERED, Heard, knobs

from benchmarks import socratic_savings as savings
from stillroom.loopback.serving import Loopback

CALLS = [32, 64, 128, 256]
SIZES = Sizes(seeds=2, budgets=(20, 40, 80), anchor=40)
DESIGN = Design((8,), 60, learning_rate=0.02)


def test_the_fit_never_falls_and_keeps_what_rises() -> None:
    assert savings.monotone([0.5, 0.7, 0.6, 0.9]).tolist() == pytest.approx([0.5, 0.65, 0.65, 0.9])
    assert savings.monotone([0.1, 0.2, 0.3]).tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_calls_are_read_between_budgets_a_doubling_a_step() -> None:
    fitted = np.array([0.5, 0.6, 0.8, 0.9])
    assert savings.needed(CALLS, fitted, 0.7) == (pytest.approx(64 * 2**0.5), True)
    assert savings.needed(CALLS, fitted, 0.4) == (32, True)
    assert savings.needed(CALLS, fitted, 0.9) == (pytest.approx(256), True)
    assert savings.needed(CALLS, fitted, 0.95) == (256, False)


def test_a_saving_is_paired_and_says_what_was_censored() -> None:
    random = [Curve(CALLS, accuracy=[0.5, 0.6, 0.7, 0.8]), Curve(CALLS, accuracy=[0.5, 0.6, 0.7, 0.8])]
    other = [Curve(CALLS, accuracy=[0.6, 0.7, 0.8, 0.9]), Curve(CALLS, accuracy=[0.4, 0.45, 0.5, 0.6])]
    found = savings.saving(random, other, 128)
    assert found.per_seed.tolist() == pytest.approx([0.5, -1.0])
    assert found.censored == 1
    assert found.ci95 == [-1.0, 0.5]
    same = savings.saving(random, random, 128)
    assert same.per_seed.tolist() == [0, 0]
    assert same.p == 1
    flat = [Curve(CALLS, accuracy=[0.5, 0.7, 0.7, 0.7])]
    assert savings.saving(flat, flat, 256).per_seed.tolist() == [0], (
        "random itself needs no more calls than its plateau"
    )


def test_the_endpoint_has_limits_that_the_client_keeps_to(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nfine,a\nbad,b\n")
    with Loopback({**spec("rows.csv"), "faults": {}}, tmp_path) as url:
        asked = {"model": "loopback", "messages": [{"role": "user", "content": "fine"}]}
        request = urllib.request.Request(
            f"{url}/chat/completions", json.dumps(asked).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answered:
            told = answered.headers
        asks = knobs(url).limits
    assert int(told["x-ratelimit-limit-requests"]) == LIMITS["requests_per_minute"] == asks.requests_per_minute
    assert int(told["x-ratelimit-limit-tokens"]) == LIMITS["tokens_per_minute"] == asks.tokens_per_minute


def test_holm_is_what_holm_wrote() -> None:
    assert savings.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert savings.holm({"a": 0.9, "b": 0.8}) == {"a": 1, "b": 1}


def task(rows: int = 130) -> Task:
    rng = np.random.default_rng(0)
    rows_ND = rng.normal(size=(rows + 80, 4)).astype(np.float32)
    label_N = (rows_ND[:, 0] > 0).astype(np.int64) + (rows_ND[:, 1] > 0.5)
    texts = [f"row {place}" for place in range(rows)]
    return Task(
        "toy", texts, rows_ND[:rows], label_N[:rows], rows_ND[rows:], label_N[rows:], label_N[rows:], ["a", "b", "c"]
    )


def test_every_budget_is_spent_and_what_was_refused_is_not_learned_from() -> None:
    one = task()
    said_N = np.where(np.arange(130) % 10 == 0, UNANSWERED, one.label_N)
    found = curve(one, said_N, "margin", 0, SIZES, DESIGN)
    assert found.calls == [20, 40, 80]
    assert all(learned < calls * 0.9 for learned, calls in zip(found.learned[1:], found.calls[1:], strict=True))
    assert found.successor is not None
    assert found.accuracy[-1] > 0.5
    again = curve(one, said_N, "margin", 0, SIZES, DESIGN)
    assert again == found
    first = curve(one, said_N, "random", 0, SIZES, DESIGN)
    assert first.accuracy[0] == found.accuracy[0], "all strategies of a seed start alike"


def test_a_small_pool_ends_the_budgets_with_all_of_it() -> None:
    assert budgets_of(SIZES, 1000) == [20, 40, 80]
    assert budgets_of(SIZES, 70) == [20, 40, 70]
    assert budgets_of(SIZES, 40) == [20, 40]


def test_the_tables_hold_every_strategy_and_the_bar_counts_tasks() -> None:
    one = task()
    heard = Heard(one.label_N, 131, 0.01, 999)
    curves = {
        name: [curve(one, one.label_N, name, seed, SIZES, DESIGN) for seed in range(2)]
        for name in ("random", PRIMARY, *EXPLORED)
    }
    row = of_task(one, heard, curves, SIZES)
    assert [line[0] for line in row.tables["toy-saved"].rows] == [f"{PRIMARY} (named beforehand)", *EXPLORED]
    assert "131 calls" in row.tables["toy-saved"].note
    bars, tables = whole({"toy": row}, ["toy"], SIZES)
    assert bars["socratic-saved"].value in (0, 1)
    assert len(tables["explored"].rows) == len(EXPLORED)
    assert "socratic-saved" not in whole({"toy": row}, ["toy", "other"], SIZES)[0], "no bar before all tasks are there"


def stream_rows(count: int = 900) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    rows_ND = rng.normal(size=(count, 3)).astype(np.float32)
    return rows_ND, np.where(rows_ND[:, 0] > 0.5, 0, np.where(rows_ND[:, 1] > 0, 1, 2))


def test_a_stream_shifts_half_way_and_a_cascade_counts_its_calls() -> None:
    rows_ND, label_N = stream_rows()
    shares_C = np.array([0.6, 0.3, 0.1])
    stream = draw(rows_ND, label_N, label_N, shares_C, 300, 0)
    assert len(np.unique(stream.rows_ND, axis=0)) == 300
    before, after = (np.bincount(part, minlength=3) / 150 for part in np.split(stream.label_N, 2))
    assert before[0] > after[0]
    found = learning(stream, DESIGN, 3, 0)
    assert 0 < found.saved() < 1
    assert (found.said_N[found.asked_N] == stream.teacher_N[found.asked_N]).all()
    beside = random_deferral(stream, DESIGN, 3, 0, found)
    assert beside.asked_N.sum() == found.asked_N.sum()
    assert Outcome(stream.teacher_N, np.ones(300, bool)).lost(stream) == 0


def test_a_line_cut_short_is_passed_over_and_other_settings_are_not_read(tmp_path: Path) -> None:
    finished = Finished(tmp_path / "a" / "curves.jsonl", "these")
    finished.append("margin", 0, {"x": 1})
    Finished(finished.path, "others").append("margin", 1, {"x": 2})
    with finished.path.open("a") as file:
        file.write('{"settings": "these", "name": "mar')
    assert finished.read() == {("margin", 0): {"x": 1}}
    finished.append("random", 2, {"x": 3})
    assert finished.read() == {("margin", 0): {"x": 1}, ("random", 2): {"x": 3}}


def test_the_bars_are_there_and_the_committee_is_small() -> None:
    assert [bar.id for bar in read_bars("socratic")] == ["socratic-saved", "cascade-saved", "cascade-loss"]
    assert strategy_of("committee").model_dump()["size"] == 3
