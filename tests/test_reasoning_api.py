"""A teacher that reasons behind an API: sampled, paid, verified, rewritten; killed budgets and bills."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.reasoning_data import TASKS, written

import stillroom
from stillroom.errors import BudgetReached, RecipeError
from stillroom.evaluation.proportions import wilson
from stillroom.flow import plan
from stillroom.loopback.serving import Loopback
from stillroom.questions.arithmetic import BUILTIN, problems
from stillroom.recipe import Recipe
from stillroom.rundir import read_json
from test_reasoning import TINY, lines

PRICE = {"input": 1.0, "output": 2.0}


@pytest.fixture(scope="module")
def teacher() -> Iterator[Loopback]:
    """Works sums out step by step; one answer in four is wrong."""
    loopback = Loopback({"mind": {"kind": "arithmetic", "error_rate": 0.25, "style": "short"}, "price": PRICE})
    loopback.start()
    yield loopback
    loopback.stop()


def recipe(url: str, **sections: Any) -> dict[str, Any]:
    """Sums put to the loopback teacher, and a tiny student."""
    model = {"kind": "transformers", "task": "causal", "tokenizer": "characters",
             "config": {**TINY, "max_position_embeddings": 256}}  # fmt: skip
    whole = {
        "name": "sums",
        "seeds": 1,
        "questions": {"kind": "dataset", "source": "builtin:sums", "rows": {"train": 40, "test": 12}},
        "teacher": {
            "kind": "openai_api", "task": "reasoning", "base_url": url, "model": "loopback", "prompt": "{question}",
            "temperature": 0.8, "max_tokens": 200, "price": PRICE,
        },
        "traces": {"overlap": 0, "write": 60},
        "student": {"kind": "fresh", "model": model},
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 0.003},
        "evaluation": {"metrics": ["accuracy", "size", "cost"]},
    }  # fmt: skip
    return {**whole, **sections}


@pytest.fixture(scope="module")
def whole(teacher: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run."""
    return stillroom.distill(recipe(teacher.url), tmp_path_factory.mktemp("api") / "run")


def test_the_cost_of_one_kept_trace_is_what_the_teacher_was_paid(whole: Any, teacher: Loopback) -> None:
    told = whole.scorecard["transfer_set"]
    kept = lines(whole.path / "transfer_set" / "traces" / "traces.jsonl")
    scored = lines(whole.path / "transfer_set" / "scored" / "traces.jsonl")
    assert 0 < told["kept"] <= 40
    assert told["usd_per_kept"] == pytest.approx(sum(one["usd"] for one in kept) / told["kept"])
    paid = sum(one["usd"] for one in [*kept, *scored])
    assert whole.scorecard["cost"]["teacher_usd"] == pytest.approx(paid)
    assert paid == pytest.approx(teacher.bill()["usd"], abs=1e-6)
    assert {"trace", "score"} <= set(whole.scorecard["asking"]["purposes"])
    assert "for one kept trace" in (whole.path / "report.html").read_text()


def test_a_teacher_that_was_asked_some_of_the_test_questions_says_how_many(teacher: Loopback, tmp_path: Path) -> None:
    tree = recipe(teacher.url, name="some", traces={"overlap": 0, "write": 20, "score": 8})
    run = stillroom.distill(tree, tmp_path / "run")
    assert "the teacher was asked 8 of the 12 test questions" in run.scorecard["gap_recovered"]["absent"]
    page = (run.path / "report.html").read_text()
    assert "On 12 test questions, the teacher on 8 of them" in page
    assert "Other measures" not in page, "every figure stands under its own name, once"
    assert not re.search(r"95% interval [−+0-9.]+ to [−+0-9.]+%", page), "points are no share"


def test_what_was_bought_is_not_bought_again(whole: Any, teacher: Loopback) -> None:
    before = teacher.bill()
    tree = recipe(teacher.url, transfer_set={"verify": "exact"})
    stillroom.distill(tree, whole.path)  # judged anew, from the raw answers in the ledger
    assert teacher.bill() == before


def test_a_budget_stops_the_sampling_and_keeps_what_was_bought(teacher: Loopback, tmp_path: Path) -> None:
    tree = recipe(teacher.url, name="poor", budget={"calls": 20})
    with pytest.raises(BudgetReached):
        stillroom.distill(tree, tmp_path / "run", until="ask")
    run = stillroom.distill({**tree, "budget": {"calls": 500}}, tmp_path / "run", until="ask")
    assert lines(run.path / "transfer_set" / "traces" / "traces.jsonl")


def test_the_plan_tells_calls_and_usd_from_the_least_to_the_most(teacher: Loopback) -> None:
    planned = plan(Recipe.from_tree(recipe(teacher.url)), Path())
    found, numbers = planned["figures"], planned["teacher"]
    assert found["teacher calls"].startswith("52 to 172, ")
    assert found["teacher_usd, at most"] > 0
    assert [numbers["calls"][0], numbers["calls"][2]] == [52, 172]
    assert numbers["tokens"][2] == found["teacher tokens, at most"]
    assert numbers["usd"][2] == pytest.approx(found["teacher_usd, at most"], abs=0.005)
    for ends in numbers.values():
        assert 0 < ends[0] < ends[1] < ends[2]


def _between(told: str) -> tuple[float, float, float]:
    """`middle (low to high)` as low, middle, high."""
    middle, low, _, high = told.replace("(", "").replace(")", "").replace(",", "").split()
    return float(low), float(middle), float(high)


def test_a_pilot_judges_samples_tells_what_is_to_come_and_is_not_paid_for_again(
    teacher: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = recipe(teacher.url, name="piloted", evaluation={"metrics": ["cost"], "price": {"usd_per_hour": 1.0}})
    before = teacher.bill()["calls"]
    found = plan(Recipe.from_tree(tree), Path(), pilot=20)
    assert teacher.bill()["calls"] - before == 20
    figures, notes = found["figures"], " ".join(found["notes"])
    assert found["piloted"] == 20
    assert "the pilot made 20 calls for" in notes
    share = re.fullmatch(r"(\d+) of 20: (\d+)% \((\d+)% to (\d+)%\)", figures["accepted in the pilot"])
    assert share is not None
    right, percent, low, high = map(int, share.groups())
    assert percent == 5 * right
    assert [round(100 * end) for end in wilson(right, 20)] == [low, high]
    ends = {
        name: _between(figures[f"teacher{name}"]) for name in (" calls", " tokens", "_usd", "_usd for a kept trace")
    }
    assert all(low <= middle <= high for low, middle, high in ends.values())
    fewest, _, most = _between(figures["tokens a trace"])
    assert fewest < most
    quickest, _, slowest = _between(figures["seconds a call"])
    assert quickest <= slowest, "in two digits they may be the same"
    assert figures["usd"] == pytest.approx(figures["training_usd"] + ends["_usd"][1], abs=0.01)
    run = stillroom.distill(tree, tmp_path / "runs" / "piloted", folder=Path(), until="ask")
    with sqlite3.connect(run.path / "transfer_set" / "ledger.sqlite") as at:
        rows = at.execute("SELECT purpose, count(*), sum(nano_usd) / 1e9 FROM requests GROUP BY purpose").fetchall()
        assert at.execute("SELECT count(*), count(DISTINCT key) FROM requests").fetchone() == (
            teacher.bill()["calls"] - before, teacher.bill()["calls"] - before,
        )  # fmt: skip
    bought = {purpose: (calls, usd) for purpose, calls, usd in rows}
    assert bought["pilot"][0] == 20
    calls, usd = (bought["trace"][part] + bought["score"][part] for part in (0, 1))
    assert ends[" calls"][0] <= calls <= ends[" calls"][2]
    assert ends["_usd"][0] <= usd <= ends["_usd"][2]
    kept = sum(one["outcome"] == "accepted" for one in lines(run.path / "transfer_set" / "traces" / "traces.jsonl"))
    each = (bought["trace"][1] + bought["pilot"][1]) / kept
    assert ends["_usd for a kept trace"][0] <= each <= ends["_usd for a kept trace"][2]


def test_a_pilot_without_an_accepted_sample_says_so_and_promises_no_cost_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Loopback({"mind": {"kind": "arithmetic", "error_rate": 1.0, "style": "short"}, "price": PRICE}) as url:
        found = plan(Recipe.from_tree(recipe(url, name="wrong")), Path(), pilot=5)
    assert found["figures"]["accepted in the pilot"].startswith("0 of 5: 0% (0% to ")
    assert "teacher_usd for a kept trace" not in found["figures"]
    assert "no sample of the pilot was accepted" in " ".join(found["notes"])


def test_a_pilot_tells_what_rewriting_takes(teacher: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = recipe(teacher.url, name="rewritten", traces=rewriting(teacher.url))
    figures = plan(Recipe.from_tree(tree), Path(), pilot=10)["figures"]
    calls, usd = (_between(figures[name]) for name in ("calls for rewriting", "rewriting_usd"))
    assert 0 < calls[0] < calls[1] <= calls[2] <= 40
    assert 0 < usd[0] < usd[1] < usd[2]


def test_the_minutes_of_a_plan_are_the_teachers_too(teacher: Loopback) -> None:
    slow = {**recipe(teacher.url)["teacher"], "limits": {"requests_per_minute": 2}}
    found = plan(Recipe.from_tree(recipe(teacher.url, teacher=slow)), Path())
    assert _between(found["figures"]["teacher minutes"])[0] >= 52 / 2
    assert found["figures"]["minutes"] > 52 / 2
    assert "a guess" in " ".join(found["notes"])


def test_a_language_model_behind_the_api_is_sampled_each_answer_by_itself(tmp_path: Path) -> None:
    from stillroom.models import pretrained, text
    from stillroom.models.characters import characters

    tokenizer = characters()
    pretrained.save(text.fresh(TINY, tokenizer, "causal", 0), tokenizer, tmp_path / "model")
    mind = {"kind": "language", "model": str(tmp_path / "model"), "max_tokens": 12}
    with Loopback({"mind": mind, "price": PRICE}) as url:
        tree = recipe(url, name="mind", traces={"of": "every", "overlap": 0, "score": 0, "samples": 1})
        tree["teacher"] |= {"max_tokens": 12}
        run = stillroom.distill(tree, tmp_path / "run", until="ask")
    kept = lines(run.path / "transfer_set" / "traces" / "traces.jsonl")
    assert len(kept) == 40
    assert len({one["text"] for one in kept}) > 20  # each is drawn by itself


@pytest.mark.parametrize("style", ["short", "long"])
def test_scratchpads_lead_to_the_answer(style: Any) -> None:
    from stillroom.transfer_set.traces import read_trace

    for task in [*TASKS.values(), *BUILTIN.values()]:
        for one in problems(task, 20, 3) if task.terms[1] == 2 or task.name != "sums" else []:
            trace = read_trace(written(one, style))
            assert trace.answer == one.answer
            assert trace.thought


# a model that writes accepted traces again


def rewriting(url: str, **knobs: Any) -> dict[str, Any]:
    """Traces that another model behind the same endpoint writes again."""
    rewriter = {"kind": "openai_api", "task": "reasoning", "base_url": url, "model": "loopback", "prompt": "{question}",
                "max_tokens": 200, "price": PRICE}  # fmt: skip
    return {"overlap": 0, "write": 60, "rewrite": {**rewriter, **knobs}}


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"base_url": "https://api.openai.com/v1", "api_key_env": "TEST_KEY_OF_REWRITER"}, "terms may not allow"),
        ({"model": "forbidden-1"}, "forbids this teacher"),
        ({"price": None}, "a budget in USD needs the teacher's price"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
    ],
)
def test_a_rewriter_is_looked_at_before_a_trace_is_bought(
    knobs: dict[str, Any], told: str, teacher: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_FORBID_TEACHERS", "forbidden-*")
    monkeypatch.setenv("TEST_KEY_OF_REWRITER", "sk-test")
    before = teacher.bill()
    tree = recipe(teacher.url, name="again", traces=rewriting(teacher.url, **knobs), budget={"usd": 1.0})
    with pytest.raises(RecipeError, match=told) as raised:
        stillroom.distill(tree, tmp_path / "run", until="ask")
    assert raised.value.where.startswith("traces.rewrite")
    assert teacher.bill() == before


def test_what_is_written_again_is_judged_as_the_traces_are(teacher: Loopback, tmp_path: Path) -> None:
    """Another verifier chooses the same traces here; their verdicts, and those of all others, are its own."""
    tree = recipe(teacher.url, name="again", traces=rewriting(teacher.url))
    for verify in ({"kind": "numeric"}, {"kind": "exact"}):
        stillroom.distill({**tree, "transfer_set": {"verify": verify}}, tmp_path / "run", until="ask")
        sampled, again = (
            lines(tmp_path / "run" / "transfer_set" / name / "traces.jsonl") for name in ("traces", "rewritten")
        )
        assert [(one["key"], one["place"], one["reason"]) for one in again] == [
            (one["key"], one["place"], one["reason"]) for one in sampled
        ]


def test_licences_and_accepted_terms_go_with_the_traces_and_the_student(teacher: Loopback, tmp_path: Path) -> None:
    accepted = {"who": "My firm", "when": "2026-01-31", "url": "https://example.org/terms", "version": "7"}
    traces = rewriting(teacher.url, licence="CC-BY-NC-4.0")
    tree = recipe(teacher.url, name="bound", traces={**traces, "score": 0}, accept_terms=accepted)
    tree["teacher"] |= {"licence": "MIT"}
    run = stillroom.distill(tree, tmp_path / "run")
    told = {
        "teacher": "MIT", "teacher 1": "MIT", "rewriter": f"CC-BY-NC-4.0 (loopback at {teacher.url})",
        "terms of the rewriter": "a licence for non-commercial use, https://creativecommons.org/licenses/by-nc/4.0/",
        "terms accepted": "https://example.org/terms, version 7, by My firm on 2026-01-31",
    }  # fmt: skip
    for name in ("traces", "rewritten"):
        assert read_json(run.path / "transfer_set" / name / "facts.json")["licences"] == told
    card = (run.path / "student" / "README.md").read_text()
    assert "- rewriter: CC-BY-NC-4.0 (loopback at " in card
    assert "- terms accepted: https://example.org/terms, version 7, by My firm on 2026-01-31" in card
    assert "- terms of the rewriter: a licence for non-commercial use, https://creativecommons.org/" in card
    page = (run.path / "report.html").read_text()
    assert "writing worked answers again" in page


def test_the_plan_counts_what_writing_again_costs(teacher: Loopback) -> None:
    found = []
    for price in (None, PRICE, {"input": 10.0, "output": 20.0}):
        traces = {"overlap": 0} if price is None else rewriting(teacher.url, price=price)
        found.append(plan(Recipe.from_tree(recipe(teacher.url, traces=traces)), Path())["figures"])
    names = ("teacher_usd, at most", "teacher tokens, at most")
    alone, beside, dear = ([one[name] for name in names] for one in found)
    assert dear[0] - alone[0] == pytest.approx(10 * (beside[0] - alone[0]), abs=0.1)
    assert beside[0] - alone[0] >= 40 * 200 * 2e-6  # forty times the most that it writes
    assert beside[1] > alone[1] + 40 * 200
    likely = [float(one["teacher_usd, where a third is accepted"].split()[-1]) for one in found]
    assert likely[0] < likely[1] < likely[2]


def test_an_arm_that_chooses_other_traces_has_those_written_again(teacher: Loopback) -> None:
    from types import SimpleNamespace

    from stillroom.stages.reasoning_training import _samples_otherwise

    def run(**knobs: Any) -> Any:
        traces = {**rewriting(teacher.url), **knobs}
        return SimpleNamespace(recipe=Recipe.from_tree(recipe(teacher.url, traces=traces)))

    for knobs in ({"length": "short"}, {"count": 1}):
        assert _samples_otherwise(run(**knobs), run())
        assert not _samples_otherwise(run(rewrite=None, **knobs), run(rewrite=None))
    assert not _samples_otherwise(run(learn="answer"), run())
