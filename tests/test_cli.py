"""Every command as a person uses it: what it prints, what it writes, what it does when run again."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from command_line import METRICS, done, events, recipe, rows_of, stillroom, write_csv, write_recipe
from stillroom import cli, starters, terminal
from stillroom.recipe import Recipe
from stillroom.rundir import read_json

ENSEMBLE = {"kind": "ensemble", "size": 3, "member": {"kind": "trained", "model": {"kind": "mlp"}, "epochs": 1}}
SMALL = ["seeds=1", "teacher.size=2", "teacher.member.epochs=2", "training.epochs=2", "evaluation.metrics=[accuracy]"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with data.csv and a tiny recipe in tiny.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    write_csv(tmp_path / "data.csv", rows_of())
    write_recipe(tmp_path / "tiny.yaml", recipe())
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds with an arm, which no test changes; its data stands in its parent's parent."""
    home = tmp_path_factory.mktemp("finished")
    write_csv(home / "data.csv", rows_of())
    arms = {"hot": {"objectives": [{"kind": "soft_target", "temperature": 8}]}}
    write_recipe(home / "tiny.yaml", recipe(seeds=2, arms=arms, evaluation={"metrics": [*METRICS, "speed"]}))
    done("distill", home / "tiny.yaml", "--run", home / "runs" / "tiny")
    return home / "runs" / "tiny"


def trained(run: Path) -> list[str]:
    """What a run has trained so far, in order."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [line["name"] for line in lines if line["event"] in ("trained", "taught")]


def calls(run: Path) -> int:
    """How many questions a run has put to teachers so far."""
    return sum(event["calls"] for event in events(run, "asked"))


# new, check, kinds, help


@pytest.mark.parametrize("kind", sorted(starters.STARTERS))
def test_a_starter_is_short_and_passes_check(kind: str, here: Path, finished: Path) -> None:
    done("new", kind, "--out", here / "my.yaml")
    assert len((here / "my.yaml").read_text().splitlines()) <= 15
    # What those two start from is not here: a finished run, and a text and a model.
    overrides = {"compress": [f"teacher.model={finished / 'student'}"]}.get(kind, [])
    if kind == "language":
        from tests.tiny_language import write_model, write_text

        source = yaml.safe_dump(write_text(here), default_flow_style=True, width=10_000).strip()
        model = write_model(here / "model", layers=2)
        overrides = [f"questions.source={source}", "questions.window=24", "questions.skip=4", "student.layers=1"]
        overrides.append(f"teacher.model={model}")
    if kind in ("label", "socratic"):
        lines = [f"this is text number {n} of ninety,{('positive', 'negative', '')[n % 3]}" for n in range(90)]
        (here / "texts.csv").write_text("\n".join(["text,label", *lines]))
    if kind == "reasoning":
        from tests.tiny_language import write_model

        rows = [json.dumps({"question": f"What is {n}+1?", "answer": str(n + 1)}) for n in range(20)]
        (here / "problems.jsonl").write_text("\n".join(rows))
        overrides = [f"student.from={write_model(here / 'model')}"]
    assert "nothing was spent" in done("check", here / "my.yaml", *overrides).out
    assert done("new", kind).out.replace("recipe.yaml", str(here / "my.yaml")) == (here / "my.yaml").read_text()


def test_predictions_follow_a_link(finished: Path, here: Path) -> None:
    (here / "link.csv").symlink_to(here / "target.csv")
    done("predict", finished, here / "data.csv", "--out", here / "link.csv")
    assert (here / "link.csv").is_symlink()
    assert (here / "target.csv").read_text().startswith("label,p_ham,p_spam\n")
    done("predict", finished, here / "data.csv", "--out", "/dev/null")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("words", [["new", "ensemble"], ["predict", "RUN", "tiny.yaml"], ["export-answers", "RUN"]])
def test_nothing_is_overwritten(words: list[str], finished: Path, here: Path) -> None:
    command = [str(finished) if word == "RUN" else word for word in words]
    (here / "link.csv").symlink_to(here / "data.csv")
    before = (here / "data.csv").read_bytes()
    for name in ("data.csv", "link.csv"):
        told = stillroom(*command, "--out", name)
        assert (told.status, f"this file exists ({name}). Choose another name" in told.error) == (2, True)
    assert (here / "data.csv").read_bytes() == before
    told = stillroom(*command, "--out", "new/said.csv")
    assert (told.status, "(new/said.csv). Make it first: mkdir -p new." in told.error) == (2, True)
    assert not (here / "new").exists()


def test_an_export_goes_into_no_folder_of_other_things(finished: Path, here: Path) -> None:
    told = stillroom("export", finished, "--onnx", "--out", here)
    assert (told.status, "this folder is not empty" in told.error) == (2, True)


def test_check_spends_nothing_and_says_what_a_run_would_do(here: Path) -> None:
    before = sorted(here.rglob("*"))
    plan = json.loads(done("check", "tiny.yaml", "--json").out)
    assert plan["name"] == "tiny"
    assert plan["figures"]["training rows"] + plan["figures"]["validation rows"] + plan["figures"]["test rows"] == 90
    assert plan["figures"]["teacher calls"] == 90
    assert plan["teacher"] == {}, "nobody is paid"
    assert {"disk_mib", "peak_memory_mib", "minutes", "models trained"} <= set(plan["figures"])
    assert sorted(here.rglob("*")) == before


def test_a_plan_does_not_wait_for_torch(here: Path) -> None:
    """A rehearsal imports it, in a process of its own; once is enough."""
    words = 'import sys; sys.modules["torch"] = None; from stillroom.cli import main; main()'
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    told = subprocess.run(
        [sys.executable, "-c", words, "check", "tiny.yaml"], capture_output=True, text=True, env=env, timeout=120
    )
    assert "models trained" in told.stdout, told.stderr
    assert "teacher calls" in told.stdout


@pytest.mark.parametrize("kind", ["soft_target", "objective", "metric", "ensemble"])
def test_kinds_shows_one_kind_or_group(kind: str) -> None:
    assert kind in done("kinds", kind).out
    assert json.loads(done("kinds", kind, "--json").out)


def test_kinds_shows_all_and_guesses() -> None:
    assert all(group in done("kinds").out for group in ("questions", "teacher", "student", "objective", "metric"))
    told = stillroom("kinds", "soft_targt")
    assert (told.status, "Did you mean 'soft_target'?" in told.error) == (2, True)


def test_help_is_quick() -> None:
    """Counted in processor time: it is what the program can answer for on a machine that has other work."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = subprocess.run(
            [sys.executable, "-m", "stillroom", "--help"], capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert 0 < min(times) < 0.3
    assert "distill" in found.stdout


def test_without_a_command_there_is_help_and_an_unknown_one_is_guessed() -> None:
    assert "Commands:" in done().out
    told = stillroom("distil")
    assert (told.status, "Did you mean 'distill'?" in told.error) == (2, True)
    assert "stillroom distill --help" in stillroom("distill").error


@pytest.mark.parametrize("words", [["--debug", "check", "nope.yaml"], ["check", "nope.yaml", "--debug"]])
def test_a_traceback_only_with_debug(words: list[str]) -> None:
    assert "Traceback" in stillroom(*words).err
    assert "Traceback" not in stillroom(*(word for word in words if word != "--debug")).err


# demo


@pytest.mark.parametrize("panel", [starters.few_labels, starters.never_saw_a_three])
def test_the_panels_of_the_demo_run(panel: Any, here: Path) -> None:
    tree = panel()
    tree |= {"seeds": 1, "training": {**tree["training"], "epochs": 2}, "evaluation": {"metrics": METRICS}}
    tree["teacher"] |= {"size": 2, "member": {**tree["teacher"]["member"], "epochs": 1}}
    write_recipe(here / "panel.json", tree)
    done("distill", "panel.json", "--run", "panel")
    models = json.loads((here / "panel" / "scorecard.json").read_text())["models"]
    assert {"teacher", "student", "control", "hard_teacher"} <= set(models)
    if "omit" in tree["questions"]:
        assert "student_uncorrected" in models
        assert "3" in models["student"]["recall_by_class"]


# distill


def test_distill_writes_what_the_contract_promises(finished: Path) -> None:
    names = ("recipe.yaml", "transfer_set", "teacher", "student", "control", "hard_teacher", "scorecard.json")
    assert all((finished / name).exists() for name in (*names, "report.html", "events.jsonl", "seeds/1/student"))
    assert not (finished / ".work").exists()
    for folder in ("student", "seeds/1/control", "arms/hot", "teacher"):
        assert (finished / folder / "model.safetensors").is_file()
        assert (finished / folder / "manifest.json").is_file()
    assert (finished / "recipe.yaml").read_text().startswith("# python")
    Recipe.load(finished / "recipe.yaml")


def test_distill_with_overrides_and_json(here: Path) -> None:
    words = ["seeds=2", "objectives.0.temperature=3", "name=a name with spaces", "student.model.hidden=[5, 4]"]
    card = json.loads(done("distill", "tiny.yaml", *words, "--json").out)
    kept = yaml.safe_load((here / "runs" / "a name with spaces" / "recipe.yaml").read_text())
    assert card["seeds"] == [0, 1]
    assert kept["objectives"][0]["temperature"] == 3
    assert kept["student"]["model"]["hidden"] == [5, 4]


def test_distill_a_table_without_a_recipe(here: Path) -> None:
    out = done("distill", "data.csv", "--label", "label", *SMALL).out
    assert "report:" in out
    run = here / "runs" / "data"
    assert yaml.safe_load((run / "recipe.yaml").read_text())["evaluation"].get("price") is None, "nobody gave one"
    again = done("distill", run / "recipe.yaml", "--run", here / "again")
    assert "Traceback" not in again.err
    first, second = (json.loads((one / "scorecard.json").read_text()) for one in (run, here / "again"))
    assert first["models"]["student"]["accuracy"] == second["models"]["student"]["accuracy"]


def test_a_table_of_some_thousand_rows_takes_some_thousand_steps(here: Path) -> None:
    """What `distill DATA.csv` does on 3,000 rows: less than a minute where a step takes two milliseconds.

    Steps of the optimiser do not depend on how busy the machine is, as the minutes that `check` tells do.
    """
    write_csv(here / "data.csv", rows_of(3000))
    counted = json.loads(done("distill", "data.csv", "--label", "label", *SMALL, "--json").out)["rows"]
    assert counted["train"] == 2100
    tree = starters.for_table("data", "data.csv", "label")
    write_recipe(here / "table.yaml", tree)
    plan = json.loads(done("check", "table.yaml", "--json").out)["figures"]
    assert plan["minutes"] > 0
    member, training = tree["teacher"]["member"], tree["training"]
    teachers, rows = plan["teachers asked"], plan["training rows"]
    steps = teachers * member["epochs"] * -(-rows // member["batch_size"])
    steps += (plan["models trained"] - teachers) * training["epochs"] * -(-rows // training["batch_size"])
    assert steps < 30_000


def test_what_check_says_of_a_table_a_run_says_once_before_it_begins(here: Path) -> None:
    rows = rows_of()
    rows[7]["label"] = ""
    write_csv(here / "data.csv", rows)
    said = done("check", "data.csv", "--label", "label", *SMALL).out
    notes = [
        "test: 18 rows split off train, stratified, seed 0",
        "train: 1 of 63 rows have no label",
        "inputs: length number, weight number, colour category (3 inputs)",
    ]
    assert all(f"note: {note}\n" in said for note in notes)
    assert ("no price is given" in said, "licence of the teacher" in said) == (True, False)
    assert not (here / "runs").exists()
    told = done("distill", "data.csv", "--label", "label", *SMALL).err.splitlines()
    first = next(place for place, line in enumerate(told) if not line.startswith("note: "))
    assert {f"note: {note}" for note in notes} <= set(told[:first])
    again = done("distill", "data.csv", "--label", "label", *SMALL).err
    assert "note: " not in again
    trained = [line.split(":")[0] for line in told if " steps in " in line]
    assert {"student, seed 0", "teacher 1 of 2"} <= set(trained)
    assert all(f"{name}: done before\n" in again for name in trained)


def test_distill_arrays_without_a_recipe(here: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(here / "numbers.npz", x=x, y=(x[:, 0] > 0).astype(int))
    done("distill", "numbers.npz", *SMALL)
    assert (here / "runs" / "numbers" / "report.html").is_file()


def test_the_stages_one_by_one(here: Path) -> None:
    done("distill", "tiny.yaml")
    run = here / "runs" / "tiny"
    for name in ("student", "scorecard.json", "report.html", "evaluation"):
        subprocess.run(["rm", "-r", run / name], check=True)
    for stage in ("ask", "train", "evaluate", "report"):
        assert f"{stage}: finished" in done(stage, run).out
        assert (run / "student" / "manifest.json").exists() == (stage != "ask")
        assert (run / "scorecard.json").exists() == (stage in ("evaluate", "report"))
        assert (run / "report.html").exists() == (stage == "report")


# running again


def test_running_again_does_nothing_new(here: Path) -> None:
    done("distill", "tiny.yaml")
    run = here / "runs" / "tiny"
    before = trained(run), calls(run), (run / "student" / "model.safetensors").stat().st_mtime_ns
    done("distill", "tiny.yaml")
    assert (trained(run), calls(run), (run / "student" / "model.safetensors").stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    ("override", "anew"),
    [
        ("training.epochs=3", ["student", "control", "hard_teacher"]),
        ("objectives.0.temperature=3", ["student"]),
        ("teacher.epochs=3", ["teacher", "student", "hard_teacher"]),
        ("student.model.hidden=[5]", ["student", "control", "hard_teacher"]),
        ("evaluation.metrics=[accuracy]", []),
        ("seeds=2", ["seeds/1/student", "seeds/1/control", "seeds/1/hard_teacher"]),
        ("questions.licence=CC0", []),
    ],
)
def test_a_changed_recipe_redoes_what_changed_and_what_follows(here: Path, override: str, anew: list[str]) -> None:
    done("distill", "tiny.yaml")
    run = here / "runs" / "tiny"
    before, asked = trained(run), calls(run)
    done("distill", "tiny.yaml", override)
    assert trained(run)[len(before) :] == anew
    assert calls(run) - asked == (90 if "teacher" in anew else 0)


def test_a_folder_of_another_run_is_refused(here: Path) -> None:
    done("distill", "tiny.yaml")
    told = stillroom("distill", "tiny.yaml", "name=other", "--run", "runs/tiny")
    assert (told.status, "holds the run 'tiny', not 'other'" in told.error) == (2, True)
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("mine")
    told = stillroom("distill", "tiny.yaml", "--run", "mine")
    assert (told.status, "holds no run" in told.error) == (2, True)
    assert [path.name for path in (here / "mine").iterdir()] == ["notes.txt"]


def test_runs_that_share_a_store_ask_only_what_is_missing(here: Path, finished: Path) -> None:
    saved = {"kind": "saved", "model": str(finished / "teacher")}
    write_recipe(here / "a.yaml", recipe(name="a", teacher=saved, transfer_set={"store": "store"}))
    write_csv(here / "more.csv", [*rows_of(), *rows_of(10, seed=9)])
    more = {"kind": "dataset", "source": "more.csv"}
    write_recipe(here / "b.yaml", recipe(name="b", teacher=saved, transfer_set={"store": "store"}, questions=more))
    done("distill", "a.yaml")
    done("distill", "b.yaml")
    assert [calls(here / "runs" / name) for name in "ab"] == [90, 10]
    done("distill", "a.yaml", "evaluation.metrics=[accuracy]")  # evaluated again, with the answers of both in the store
    told = [read_json(here / "runs" / name / "scorecard.json")["transfer_set"] for name in "ab"]
    assert [(one["rows"], one["stored_rows"]) for one in told] == [(90, 100), (100, 100)]
    assert (here / "store").is_dir()


# stops


def test_a_budget_stops_and_a_larger_one_goes_on(here: Path) -> None:
    told = stillroom("distill", "tiny.yaml", "budget.minutes=0.00001")
    assert (told.status, "the budget of 1e-05 minutes is used up (budget.minutes)" in told.error) == (3, True)
    assert "raise the budget" in told.error
    done("distill", "tiny.yaml", "budget.minutes=5")
    assert (here / "runs" / "tiny" / "report.html").is_file()


def test_a_budget_in_usd_needs_a_price_and_holds(here: Path) -> None:
    words = ["evaluation.price.usd_per_hour=1", "budget.usd=0"]
    told = stillroom("distill", "tiny.yaml", *words)
    assert (told.status, "(budget.usd)" in told.error) == (3, True)


def test_an_interrupt_is_130_and_the_run_goes_on(here: Path) -> None:
    words = ["training.epochs=100000", "training.checkpoint_seconds=0.2"]
    # A shell that starts the tests in the background has them ignore SIGINT, and a child would inherit that.
    process = subprocess.Popen(
        [sys.executable, "-m", "stillroom", "distill", "tiny.yaml", *words],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    run = here / "runs" / "tiny"
    waited = time.monotonic()
    while not list(run.glob(".work/*/checkpoint.safetensors")) or not (run / "transfer_set").exists():
        assert time.monotonic() - waited < 60
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "error: stopped by hand." in error.splitlines()[-1]
    assert "Traceback" not in error
    done("distill", "tiny.yaml")
    assert (run / "report.html").is_file()


def test_two_processes_on_one_folder(here: Path) -> None:
    from stillroom.rundir import RunDir

    with RunDir(here / "runs" / "tiny").hold("tiny"):
        told = stillroom("distill", "tiny.yaml")
    assert (told.status, "another process is working in this folder (runs/tiny)" in told.error) == (1, True)
    done("distill", "tiny.yaml")


# finished runs


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_predict_on_csv_and_jsonl(finished: Path, tmp_path: Path) -> None:
    rows = rows_of(5, seed=4)
    table, lines = write_csv(tmp_path / "rows.csv", rows), write_rows(tmp_path / "rows.jsonl", rows)
    printed = done("predict", finished, table).out
    assert printed.splitlines()[0] == "label,p_ham,p_spam"
    assert len(printed.splitlines()) == 6
    assert done("predict", finished, lines).out == printed
    said = [json.loads(line) for line in done("predict", finished, table, "--json").out.splitlines()]
    assert [one["label"] for one in said] == [line.split(",")[0] for line in printed.splitlines()[1:]]
    assert sum(said[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    done("predict", finished, table, "--out", tmp_path / "said.csv")
    assert (tmp_path / "said.csv").read_text() == printed


def test_predict_on_arrays(here: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    np.savez(here / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    write_recipe(here / "tiny.yaml", recipe(questions={"kind": "dataset", "source": "data.npz"}))
    done("distill", "tiny.yaml")
    np.savez(here / "new.npz", x=x[:4])
    printed = done("predict", "runs/tiny", "new.npz").out.splitlines()
    assert printed[0] == "label,p_0,p_1"
    assert len(printed) == 5


def test_try_shows_the_teacher_beside_the_student(finished: Path) -> None:
    out = done("try", finished, "--row", 3).out
    assert all(word in out for word in ("student", "teacher", "ham", "spam", "label in the data:"))
    told = stillroom("try", finished, "--row", 99)
    assert (told.status, "Use 0 to 17" in told.error) == (2, True)


def test_try_by_hand(finished: Path) -> None:
    asked = CliRunner().invoke(cli.stillroom, ["try", str(finished)], input="1.5\n2\nblue\n", catch_exceptions=False)
    assert asked.exit_code == 0
    assert all(word in asked.output for word in ("length", "weight", "colour", "student", "teacher"))


def test_runs_lists_them(finished: Path, tmp_path: Path) -> None:
    found = json.loads(done("runs", "--root", finished.parent, "--json").out)
    assert [(one["run"], one["state"], one["seeds"]) for one in found] == [(str(finished), "finished", 2)]
    assert "finished" in done("runs", "--root", finished.parent).out
    assert "there are no runs" in done("runs", "--root", tmp_path / "nowhere").out
    assert json.loads(done("runs", "--root", tmp_path / "nowhere", "--json").out) == []


def test_compare(finished: Path) -> None:
    out = done("compare", finished, finished).out
    assert all(f"{model}: accuracy" in out for model in ("teacher", "student", "control", "hard_teacher"))
    assert ("student: weights" in out, "gap_recovered" in out) == (True, False)
    assert f"note: {finished}: {terminal.GAP}: not given: " in out
    found = json.loads(done("compare", finished, finished, "--json").out)
    assert found["mcnemar"] == {"only_first": 0, "only_second": 0, "p_value": 1.0}
    card = json.loads((finished / "scorecard.json").read_text())
    assert found["runs"] == [str(finished)] * 2
    assert found["figures"]["student: accuracy"] == [card["models"]["student"]["accuracy"]] * 2


def test_small_figures_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    small = {"usd_per_million_rows": {"mean": 1e-5, "ci95": [9.6e-6, 2e-5]}, "latency_ms_p50": {"mean": 0.0912}}
    terminal.print_scorecard({"models": {"student": small}, "gap_recovered": {"absent": "of the test"}}, "small")
    out = capsys.readouterr().out
    assert all(told in out for told in ("$0.000010", "$0.0000096–$0.000020", "0.091")), out


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_exported_answers_are_read_back_as_a_recorded_teacher(finished: Path, here: Path, form: str) -> None:
    done("export-answers", finished, f"--{form}", "--out", here / f"answers.{form}")
    recorded = {"kind": "recorded", "source": f"answers.{form}"}
    write_recipe(here / "tiny.yaml", recipe(teacher=recorded))
    done("distill", "tiny.yaml")
    first, second = (json.loads((one / "scorecard.json").read_text()) for one in (finished, here / "runs" / "tiny"))
    assert second["models"]["teacher"]["accuracy"]["mean"] == first["models"]["teacher"]["accuracy"]["mean"]
    assert second["models"]["teacher"]["nll"]["mean"] == pytest.approx(
        first["models"]["teacher"]["nll"]["mean"], abs=1e-3
    )
    same = first["models"]["student"]["nll"]["per_seed"][0]
    assert second["models"]["student"]["nll"]["per_seed"][0] == pytest.approx(same, abs=1e-3)


def test_answers_have_one_form(finished: Path, here: Path) -> None:
    told = stillroom("export-answers", finished, "--jsonl", "--parquet", "--out", "both.x")
    assert (told.status, "one file has one form, and --parquet and --jsonl are 2" in told.error) == (2, True)
    assert not (here / "both.x").exists()


def test_exported_answers_keep_small_probabilities(here: Path) -> None:
    """What is a nine-hundred-millionth is still something at a temperature of 20."""
    write_csv(here / "answers.csv", [{**row, "p_ham": 1 - 1e-9, "p_spam": 1e-9} for row in rows_of()])
    write_recipe(here / "tiny.yaml", recipe(teacher={"kind": "recorded", "source": "answers.csv"}))
    done("distill", "tiny.yaml")
    done("export-answers", "runs/tiny", "--out", "said.jsonl")
    said = [json.loads(line) for line in (here / "said.jsonl").read_text().splitlines()]
    assert [row["p_spam"] for row in said] == pytest.approx([1e-9] * 90, rel=0.02)


def test_answers_of_a_live_teacher(here: Path) -> None:
    """Those to the training rows are not kept; the others are."""
    write_recipe(here / "tiny.yaml", recipe(transfer_set={"live": True}))
    done("distill", "tiny.yaml")
    done("export-answers", "runs/tiny", "--out", "said.jsonl")
    splits = [json.loads(line)["split"] for line in (here / "said.jsonl").read_text().splitlines()]
    assert sorted(set(splits)) == ["test", "validation"]


def test_answers_as_chat_messages(finished: Path, tmp_path: Path) -> None:
    done("export-answers", finished, "--openai", "--out", tmp_path / "chat.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "chat.jsonl").read_text().splitlines()]
    assert len(lines) == 63, "the training rows alone: messages name no split"
    user, assistant = lines[0]["messages"]
    assert set(json.loads(user["content"])) == {"length", "weight", "colour"}
    assert assistant["content"] in ("ham", "spam")


@pytest.mark.parametrize(
    "command", ["ask", "train", "evaluate", "report", "predict", "try", "compare", "export-answers"]
)
def test_a_run_that_is_not_there(command: str, here: Path) -> None:
    more = {"predict": ["data.csv"], "export-answers": ["--out", "x.jsonl"]}.get(command, [])
    for run in ("nowhere", "."):
        told = stillroom(command, run, *more)
        assert (told.status, "this is no run folder: it has no recipe.yaml" in told.error) == (2, True)
    assert sorted(path.name for path in here.iterdir()) == ["data.csv", "tiny.yaml"]


def test_a_recipe_is_found_from_elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths start at the recipe's folder, for the run's own recipe.yaml too."""
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    done("distill", "../tiny.yaml", "--run", "out")
    os.chdir("/")
    done("report", here / "elsewhere" / "out")


def test_a_device_takes_what_a_shell_leads_it_to(tmp_path: Path) -> None:
    """Standard output, whether that is a pipe or a file which the shell has just made."""
    words = (
        "from pathlib import Path; from stillroom.rundir import write_named; write_named(Path('/dev/stdout'), b'rows')"
    )
    assert subprocess.run([sys.executable, "-c", words], capture_output=True, check=True).stdout == b"rows"
    with open(tmp_path / "rows.csv", "wb") as file:
        subprocess.run([sys.executable, "-c", words], stdout=file, check=True)
    assert (tmp_path / "rows.csv").read_bytes() == b"rows"
