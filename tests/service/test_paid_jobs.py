"""What a job with a paid teacher costs: told before it starts, while it runs, and however it ends; each call counted once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.service_kills import of_role
from benchmarks.service_process import Served

from service import students
from service.test_jobs import until
from stillroom.budget import Cost, Limits
from stillroom.ledger import opened
from stillroom.loopback.serving import Loopback
from stillroom.service.work.ledgers import spent_in

ROWS, SLOW_MS, AT_ONCE = 150, 1500, 16
PRICE = {"input": 5.0, "output": 20.0}
TAKEN = ("teacher_calls", "teacher_tokens", "usd")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Loopback]]:
    """The same one, as quick as it can be and slow."""
    folder = tmp_path_factory.mktemp("teachers")
    students.write_table(folder / "texts.jsonl")
    spec = {"mind": {"kind": "rule", "source": "texts.jsonl"}, "price": PRICE}
    found = {
        name: Loopback({**spec, "model": name, "latency_ms": ms}, folder)
        for name, ms in (("quick", 0), ("slow", SLOW_MS))
    }
    for one in found.values():
        one.start()
    yield found
    for one in found.values():
        one.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, teachers: dict[str, Loopback]) -> Iterator[Served]:
    allowed = [word for one in teachers.values() for word in ("--allow-teacher", one.url.split("/")[2])]
    with Served(tmp_path_factory.mktemp("served"), *allowed) as found:
        for name, one in teachers.items():
            body = {"name": name, "base_url": one.url, "model": name, "key": "any-key-of-it", "price": PRICE}
            found.http().post("/api/teachers", json=body).raise_for_status()
        yield found


@pytest.fixture(scope="module")
def create(service: Served) -> Callable[..., str]:
    """Creates a job whose rows a teacher is asked about in the run; each with rows of its own, so that none was paid before."""
    made = iter(range(100))

    def job(teacher: str, **more: Any) -> str:
        first = next(made) * 3
        talks = [
            [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
            for text, label in students.texts(ROWS + first)[first:]
        ]
        rows = "".join(json.dumps({"messages": talk}) + "\n" for talk in talks).encode()
        file = service.http().post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", rows)})
        answer = service.http().post("/v1/fine_tuning/jobs", json={
            "model": "small-text-classifier", "training_file": file.json()["id"], "suffix": f"{teacher}-{first}",
            "distillation": {"teacher": teacher, "source": {"file": file.json()["id"]}, "seeds": 1, **more},
        })  # fmt: skip
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    return job


def job_of(service: Served, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = service.http().get(f"/v1/fine_tuning/jobs/{job_id}").json()
    return found


def taken(service: Served, job_id: str) -> tuple[int, int, float]:
    """What its teacher took, as the job says."""
    told = job_of(service, job_id)["distillation"]
    calls, tokens, usd = (told[name] for name in TAKEN)
    return calls, tokens, usd


def billed(teacher: Loopback) -> tuple[int, int, float]:
    """What it was paid for, as the teacher says."""
    bill = teacher.bill()
    return bill["calls"], bill["tokens_in"] + bill["tokens_out"], bill["usd"]


def billed_so_far(teacher: Loopback) -> tuple[int, int, float]:
    """What it has billed once nothing that was cut off before is being answered any more."""
    found, since_s = billed(teacher), time.monotonic()
    while time.monotonic() - since_s < 2 * SLOW_MS / 1000:
        time.sleep(0.1)
        if (now := billed(teacher)) != found:
            found, since_s = now, time.monotonic()
    return found


def asks(service: Served, job_id: str) -> Callable[[], bool]:
    """Its teacher was paid for something, and not yet for all."""
    return lambda: taken(service, job_id)[0] > AT_ONCE


def less(after: tuple[int, int, float], before: tuple[int, int, float]) -> Any:
    return pytest.approx([one - other for one, other in zip(after, before, strict=True)])


def usage_of(service: Served, job_id: str) -> list[dict[str, Any]]:
    found = service.http().get("/api/savings").json()
    assert found["jobs_usd"] == pytest.approx(sum(one["usd"] for one in found["jobs"]))
    assert found["calls"] == found["usd"] == 0, "what a job asks is no call of an application"
    return [one for one in found["jobs"] if one["id"] == job_id]


def test_what_the_teacher_takes_is_known_before_the_start(
    service: Served, create: Callable[..., str], teachers: dict[str, Loopback]
) -> None:
    before = billed(teachers["quick"])
    job_id = create("quick", hold=True)
    service.wait(job_id, until=("paused",), within_s=240)
    assert billed(teachers["quick"]) == before, "an estimate spends nothing"
    told = job_of(service, job_id)["distillation"]["estimate"]
    assert told["teacher_calls_low"] == told["teacher_calls"] == told["teacher_calls_high"] == ROWS
    assert 0 < told["teacher_tokens_low"] < told["teacher_tokens"] < told["teacher_tokens_high"]
    assert 0 < told["teacher_usd_low"] < told["teacher_usd"] < told["teacher_usd_high"]
    assert "usd" not in told, "this machine has no price"
    page = service.http().get(f"/jobs/{job_id}").text
    low, high = (f"${told[f'teacher_usd_{end}']:.2g}" for end in ("low", "high"))
    assert f"<dt>Dollars for the teacher</dt><dd>{low} to {high}</dd>" in page
    assert f"<dt>Calls to the teacher</dt><dd>{ROWS}</dd>" in page
    tokens = f"{told['teacher_tokens_low']:,} to {told['teacher_tokens_high']:,}"
    assert f"<dt>Tokens of the teacher</dt><dd>{tokens}</dd>" in page
    assert page.index("Dollars for the teacher") < page.index("Start</button>")
    events = service.http().get(f"/v1/fine_tuning/jobs/{job_id}/events").json()["data"]
    assert any("USD of its teacher" in one["message"] for one in events)
    assert taken(service, job_id) == (0, 0, 0.0)
    assert usage_of(service, job_id) == []

    service.http().post(f"/v1/fine_tuning/jobs/{job_id}/resume").raise_for_status()
    assert service.wait(job_id, within_s=300)["status"] == "succeeded", service.told()[-3000:]
    calls, tokens, usd = taken(service, job_id)
    assert [calls, tokens, usd] == less(billed(teachers["quick"]), before)
    assert calls == ROWS
    assert told["teacher_tokens_low"] <= tokens <= told["teacher_tokens_high"]
    assert told["teacher_usd_low"] <= usd <= told["teacher_usd_high"]
    assert usage_of(service, job_id) == [
        {"id": job_id, "suffix": "quick-0", "calls": calls, "tokens": tokens, "usd": usd}
    ]
    page = service.http().get(f"/jobs/{job_id}").text
    assert f"<dt>Spent on the teacher</dt><dd>${usd:.2g}</dd>" in page
    assert f"<dt>Calls to the teacher</dt><dd>{calls}</dd>" in page


def test_a_job_whose_budget_ran_out_says_what_it_spent(
    service: Served, create: Callable[..., str], teachers: dict[str, Loopback]
) -> None:
    before = billed(teachers["quick"])
    job_id = create("quick", budget={"calls": 20})
    done = service.wait(job_id, within_s=240)
    assert (done["status"], done["error"]["code"]) == ("failed", "budget_reached")
    calls, tokens, usd = taken(service, job_id)
    assert calls == 20
    assert usd > 0
    assert [calls, tokens, usd] == less(billed(teachers["quick"]), before)
    (line,) = usage_of(service, job_id)
    assert line["usd"] == usd


def test_a_running_and_a_cancelled_job_say_what_they_spent(
    service: Served, create: Callable[..., str], teachers: dict[str, Loopback]
) -> None:
    before = billed_so_far(teachers["slow"])
    job_id = create("slow")
    until(asks(service, job_id))
    running = job_of(service, job_id)
    assert running["status"] == "running"
    assert running["distillation"]["usd"] > 0
    assert running["distillation"]["teacher_tokens"] > 0
    (line,) = usage_of(service, job_id)
    assert line["usd"] > 0
    answer = service.http().post(f"/v1/fine_tuning/jobs/{job_id}/cancel").json()
    assert answer["status"] == "cancelled"
    assert answer["distillation"]["teacher_calls"] >= running["distillation"]["teacher_calls"]
    until(lambda: not of_role(service, "trainer"), 30)
    run = service.root / "jobs" / job_id / "run"
    until(lambda: taken(service, job_id) == tuple(spent_in(run)[name] for name in TAKEN), 10)
    calls, tokens, usd = taken(service, job_id)
    paid = [one - other for one, other in zip(billed(teachers["slow"]), before, strict=True)]
    assert paid[0] <= calls <= paid[0] + AT_ONCE, "what was in flight may be billed, and counts"
    assert calls < ROWS
    assert tokens >= paid[1]
    assert usd >= paid[2] > 0
    page = service.http().get("/keys").text
    sums = service.http().get("/api/savings").json()
    assert f"<strong>${sums['jobs_usd']:.2g}</strong><span>paid to teachers</span>" in page
    assert f'<a href="/jobs/{job_id}">slow-6</a>' in page


def test_what_is_gone_on_with_is_counted_once(
    service: Served, create: Callable[..., str], teachers: dict[str, Loopback]
) -> None:
    before = billed_so_far(teachers["slow"])
    job_id = create("slow")
    jobs = f"/v1/fine_tuning/jobs/{job_id}"
    until(asks(service, job_id))
    os.kill(of_role(service, "trainer")[0], signal.SIGKILL)
    until(lambda: "broke off" in str(service.http().get(f"{jobs}/events").json()))
    killed = taken(service, job_id)
    assert AT_ONCE < killed[0] < ROWS
    until(lambda: taken(service, job_id)[0] > killed[0])
    service.http().post(f"{jobs}/pause").raise_for_status()
    service.wait(job_id, until=("paused",), within_s=120)
    assert taken(service, job_id)[0] > killed[0]
    service.http().post(f"{jobs}/resume").raise_for_status()
    done = service.wait(job_id, within_s=300)
    assert done["status"] == "succeeded", service.told()[-3000:]
    calls, _, usd = taken(service, job_id)
    paid = [one - other for one, other in zip(billed(teachers["slow"]), before, strict=True)]
    assert paid[0] <= calls <= ROWS + 2 * AT_ONCE, "only what the kill and the pause cut off is asked again"
    assert usd >= paid[2] > 0
    assert len(usage_of(service, job_id)) == 1


def test_a_ledger_says_the_same_however_often_it_is_read(tmp_path: Path) -> None:
    assert spent_in(tmp_path) == {}
    path = tmp_path / "transfer_set" / "ledger.sqlite"
    with opened(path, "run", Limits()) as ledger:
        ledger.settle(ledger.reserve(b"a", "label", Cost(900, 9, 9)), "{}", Cost(200, 3, 2), 0.1)
        ledger.release(ledger.reserve(b"b", "label", Cost(900, 9, 9)), "refused")
        ledger.reserve(b"c", "label", Cost(70, 1, 1))
        for _ in range(2):
            found = spent_in(tmp_path)
            assert [found[name] for name in TAKEN] == [2, 7, 270e-9]
    path.write_bytes(b"no ledger at all, though it is as long as one could wish")
    assert spent_in(tmp_path) == {}
