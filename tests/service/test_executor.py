"""The work of a job as a process: told of, stopped, ended; and what it says of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from benchmarks.service_jobs import digits
from benchmarks.service_kills import gone_within, lives

from stillroom.recipe import Recipe
from stillroom.rundir import read_json, write_json
from stillroom.service.settings import Settings
from stillroom.service.work import executor, processes
from stillroom.service.work.executor import (
    BEAT,
    HANDED_FD,
    PLACE,
    TOLD,
    Ended,
    Local,
    Order,
    Task,
    handed_pipe,
    tail,
    told,
)
from stillroom.service.work.progress_told import advanced, is_known, new_point, phase_of
from stillroom.service.work.pulse import Pulse
from stillroom.service.work.trainer import RECIPE, Teller
from stillroom.service.work.worker import environment


def order(folder: Path, **sections: object) -> Order:
    (folder / "data").mkdir(parents=True)
    tree = {**digits(**sections), "name": "job"}
    write_json(folder / RECIPE, Recipe.from_tree(tree).to_tree())
    return Order("job", folder, dict(os.environ))


def followed(local: Local, task: Task, seconds: float = 240.0) -> Ended:
    place, ends = 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        seen = local.poll(task, place)
        place = seen.place
        if seen.ended is not None:
            return seen.ended
        time.sleep(0.1)
    local.cancel(task)
    raise AssertionError("it did not end in time")


def test_work_is_done_and_told_of(tmp_path: Path) -> None:
    local, wanted = Local(), order(tmp_path)
    task = local.submit(wanted)
    assert read_json(tmp_path / PLACE)["pid"] == task.process.pid
    assert followed(local, task) == Ended("succeeded")
    lines, _ = told(tmp_path, 0)
    assert {line["unit"] for line in lines if "unit" in line} == {"steps", "answers", "scorecard"}
    points = [line["point"]["step"] for line in lines if line.get("of") == "student, seed 0"]
    assert points == list(range(1, 11))
    assert "student, seed 0: 10 steps" in local.logs(tmp_path)
    assert os.stat(tmp_path / BEAT).st_mtime >= task.begun - 1
    assert local.adopt(wanted) is None


def test_work_is_stopped_where_it_goes_on_later(tmp_path: Path) -> None:
    local, wanted = Local(), order(tmp_path, training={"epochs": 5000})
    task = local.submit(wanted)
    ends = time.monotonic() + 200
    while not any("point" in line and line["of"] == "student, seed 0" for line in told(tmp_path, 0)[0]):
        assert time.monotonic() < ends
        time.sleep(0.1)
    local.signal(task)
    assert followed(local, task, 30) == Ended("interrupted")
    assert list((tmp_path / "run" / ".work").rglob("checkpoint.safetensors"))


def test_an_error_of_ours_is_no_crash(tmp_path: Path) -> None:
    local = Local()
    task = local.submit(order(tmp_path, budget={"minutes": 1e-9}))
    ended = followed(local, task)
    assert (ended.outcome, ended.code, ended.where) == ("failed", "budget_reached", "budget.minutes")


def test_a_trainer_that_is_gone_has_crashed(tmp_path: Path) -> None:
    local = Local()
    task = local.submit(order(tmp_path))
    os.kill(task.process.pid, signal.SIGKILL)
    assert followed(local, task) == Ended("crashed", "crashed", "its process ended with signal 9")


def test_a_trainer_that_stands_still_is_ended(tmp_path: Path) -> None:
    local = Local()
    task = local.submit(order(tmp_path))
    os.kill(task.process.pid, signal.SIGSTOP)
    hour = time.time() - 3600
    os.utime(tmp_path / BEAT, (hour, hour))
    found = local.poll(Task(task.process, tmp_path, hour, 0), 0).ended
    assert found is not None
    assert (found.outcome, found.code) == ("crashed", "silent")
    assert not lives(task.process.pid)


@pytest.mark.parametrize(
    ("does", "told"), [("threading.Event().wait()", "it has waited"), ("while True: pass", "it has computed")]
)
def test_a_trainer_whose_work_does_not_go_on_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, told: str
) -> None:
    """Its main thread waits for what never comes, or goes in circles, while another one lives."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\n"
        "from stillroom import flow\n"
        "from stillroom.service.work import pulse\n"
        "pulse.WAITS_S, pulse.WORKS_S = 4.0, 12.0\n"
        f"def at_work(*given, **more):\n    {does}\n"
        "flow.distill = at_work\n"
    )
    local, wanted = Local(), order(tmp_path / "job")
    task = local.submit(Order("job", wanted.folder, {**wanted.env, "PYTHONPATH": str(tmp_path)}))
    ends = time.monotonic() + 120
    while told not in local.logs(wanted.folder):
        assert local.poll(task, 0).ended is None, local.logs(wanted.folder)
        assert time.monotonic() < ends, local.logs(wanted.folder)
        time.sleep(0.1)
    monkeypatch.setattr(executor, "SILENT_S", 3.0)
    found = followed(local, task, 30)
    assert (found.outcome, found.code) == ("crashed", "silent")
    assert "at_work" in local.logs(wanted.folder), "where it stood"
    assert not lives(task.process.pid)


def test_an_honest_step_may_take_long() -> None:
    now_s, spent_s = 0.0, 0.0
    pulse = Pulse(lambda: now_s, lambda: spent_s)

    def ages(hours: float, share: float) -> str | None:
        nonlocal now_s, spent_s
        for _ in range(round(1800 * hours)):
            now_s, spent_s = now_s + 2, spent_s + 2 * share
            if (why := pulse.why_not()) is not None:
                return why
        return None

    assert ages(2.9, 0.0) is None, "a teacher is out of order"
    pulse.moved()
    assert ages(23.0, 0.5) is None, "a model is fitted"
    assert ages(0.9, 0.0) is None
    pulse.moved()
    assert ages(2.9, 0.001) is None
    assert "stands still" in str(ages(0.2, 0.001))
    pulse.moved()
    assert "gets nowhere" in str(ages(24.1, 0.5))


def test_a_trainer_of_an_earlier_worker_is_ended_before_another_begins(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    write_json(tmp_path / PLACE, {"pid": left.pid, "started": processes.started_at(left.pid)})
    assert Local().adopt(Order("job", tmp_path, {})) is None
    assert left.wait(5) == -signal.SIGKILL
    write_json(tmp_path / PLACE, {"pid": os.getpid(), "started": "another process's"})
    assert Local().adopt(Order("job", tmp_path, {})) is None  # and this one lives


def test_nobody_outlives_who_started_it(tmp_path: Path) -> None:
    child = f"""
import subprocess, sys, time
sys.path.insert(0, {str(processes.SOURCE)!r})
from stillroom.service.work import executor, processes
processes.begin()
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(processes.os.getpid(), below.pid, flush=True)
time.sleep(60)
"""
    starter = f"""
import json, os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdin=subprocess.PIPE, start_new_session=True)
child.stdin.write(json.dumps({{"stillroom_starter": os.getpid()}}).encode() + b"\\n")
child.stdin.flush()
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(lives(pid) for pid in pids)
        parent.kill()
    assert gone_within(pids) == []


def test_lines_that_a_kill_cut_are_left_out(tmp_path: Path) -> None:
    (tmp_path / TOLD).write_bytes(b'{"a": 1}\n{"b": ')
    lines, place = told(tmp_path, 0)
    assert (lines, place) == ([{"a": 1}], 9)
    teller = Teller(tmp_path / TOLD)
    teller.tell(c=3)
    teller.close()
    lines, place = told(tmp_path, place)
    assert [line["c"] for line in lines] == [3]
    assert place == (tmp_path / TOLD).stat().st_size


def test_where_a_stage_was_stopped_is_told(tmp_path: Path) -> None:
    teller = Teller(tmp_path / TOLD)
    with pytest.raises(KeyboardInterrupt), teller.stage("student, seed 0", 9, "steps") as done:
        done(4)
        raise KeyboardInterrupt
    with teller.stage("control, seed 0", 9, "steps"):
        pass
    teller.close()
    assert [line["done"] for line in told(tmp_path, 0)[0]] == [0, 4, 0, 9]


@pytest.mark.parametrize("handed", [{}, {"keys": {"name": "k" * (1 << 20)}}])
def test_a_pipe_is_always_handed_and_takes_any_size(handed: dict[str, dict[str, str]]) -> None:
    found: list[bytes] = []

    def read() -> None:
        with handed_pipe(handed) as (keep, more):
            assert more == {HANDED_FD: str(keep[0])}
            with open(os.dup(keep[0]), "rb") as pipe:
                found.append(pipe.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert [json.loads(one) for one in found] == [handed]


def test_the_end_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n".join(map(str, range(100))))
    assert tail(tmp_path / "log", 3) == "97\n98\n99"
    assert tail(tmp_path / "none", 3) == ""


@pytest.mark.parametrize("merged", ["merged answers", "merged windows"])
def test_phases_count_what_is_still_to_come(merged: str) -> None:
    line = {"stage": "student, seed 0", "unit": "steps", "done": 5, "total": 10}
    found = advanced({}, line, 4)
    assert (found["training"]["done"], found["training"]["total"]) == (5, 40)
    found = advanced(found, {**line, "stage": "control, seed 0", "done": 20, "total": 20}, 2)
    assert (found["training"]["done"], found["training"]["total"]) == (25, 30)
    found = advanced(found, {**line, "unit": "answers", "stage": "ask teacher 1 of 2"}, 2)
    assert found["asking"]["total"] == 10
    merging = {**line, "unit": merged, "stage": "merge answers"}
    found = advanced(found, merging, 2)
    assert is_known(found, merging), "told of once"
    asking = found["asking"]
    assert (asking["total"], asking["unit"], asking["now"]) == (10, "answers", "merge answers"), "not asked again"
    assert phase_of("test answers") == "evaluation"


@pytest.mark.parametrize(("last", "is_new"), [({}, True), ({"student": 9}, True), ({"student": 10}, False)])
def test_a_point_is_told_once(last: dict[str, float], is_new: bool) -> None:
    line = {"of": "student", "point": {"step": 10, "epoch": 1.0, "loss": 0.5}}
    found = new_point(last, line)
    assert (found is not None) is is_new
    assert found is None or found["train_loss"] == 0.5


def test_what_a_trainer_is_told_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No keys of the operator's, whatever they are called; all that it works with."""
    secret = (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "HF_TOKEN",
        "AWS_PROFILE",
        "AWS_SECRET_ACCESS_KEY",
        "AZURE_CLIENT_SECRET",
    )
    secret += ("STILLROOM_SECRET", "STILLROOM_DATA", "GITHUB_PAT", "db_password", "GOOGLE_APPLICATION_CREDENTIALS")
    secret += ("https_proxy", "NO_PROXY", "TOKEN", "AZURE_STORAGE_KEY", "AWS_ACCESS_KEY_ID", "PGPASSWORD", "MYSQL_PWD")
    secret += ("SECRET_KEY_BASE", "OPENAI_API_KEY_PROD", "OPENAI_KEY_2", "GOOGLE_APPLICATION_CREDENTIALS_JSON")
    secret += (
        "AZURE_CLIENT_SECRET_VALUE",
        "REDISCLI_AUTH",
        "POSTGRES_URL",
        "DATABASE_URL",
        "SENTRY_DSN",
        "OPENAIAPIKEY",
    )
    needed = ("HF_HOME", "HF_HUB_OFFLINE", "STILLROOM_KILL", "STILLROOM_MODEL_TOKEN", "OMP_NUM_THREADS", "PYTHONPATH")
    needed += (
        "TOKENIZERS_PARALLELISM",
        "CUDA_VISIBLE_DEVICES",
        "LANG",
        "TMPDIR",
        "MONKEY",
        "KEYBOARD",
        "PWD",
        "OLDPWD",
        "PATH",
    )
    for name in (*secret, *needed):
        monkeypatch.setenv(name, "x")
    told = environment(Settings(tmp_path))
    assert [name for name in secret if name in told] == []
    assert [name for name in needed if name not in told] == []
    assert "PATH" in told
