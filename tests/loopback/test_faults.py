"""What goes wrong at a loopback teacher, as the official client sees it, and how often."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from stillroom.errors import DataError, InputError, RecipeError
from stillroom.loopback.faults import fault_of
from stillroom.loopback.serving import Loopback
from stillroom.loopback.spec import MINDS, SHARES, Faults, Spec


def ask(client: openai.OpenAI, text: str = "1+1") -> Any:
    """One chat completion."""
    return client.chat.completions.create(model="loopback", messages=[{"role": "user", "content": text}])


def test_faults_are_as_frequent_as_they_are_told_to_be() -> None:
    knobs = Faults(seed=3, too_many=0.05, server_error=0.01, hang=0.005)
    found = Counter(fault_of(knobs, number.to_bytes(4, "big"), 0) for number in range(20_000))
    assert found["too_many"] == pytest.approx(1000, rel=0.15)
    assert found["server_error"] == pytest.approx(200, rel=0.3)
    assert found["hang"] == pytest.approx(100, rel=0.4)
    assert [fault_of(knobs, b"a", before) for before in range(50)] == [
        fault_of(knobs, b"a", before) for before in range(50)
    ]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("too_many", openai.RateLimitError),
        ("server_error", openai.InternalServerError),
        ("drop", openai.APIConnectionError),
        ("hang", openai.APITimeoutError),
    ],
)
def test_a_request_that_gets_no_answer_is_not_charged(asking: Any, fault: str, kind: Any) -> None:
    client, teacher = asking(faults={fault: 1.0}, timeout_s=0.5)
    with pytest.raises(kind):
        ask(client)
    bill = teacher.bill()
    assert bill["calls"] == 0
    assert bill["statuses"] == {fault: 1}


def test_a_hang_may_be_charged(asking: Any) -> None:
    client, teacher = asking(faults={"hang": 1.0, "bill_hangs": True}, timeout_s=0.3)
    with pytest.raises(openai.APITimeoutError):
        ask(client)
    assert teacher.bill()["calls"] == 1


@pytest.mark.parametrize("fault", ["html", "cut_json", "empty", "other_model", "error_in_200", "redirect"])
def test_what_comes_in_place_of_an_answer(asking: Any, fault: str) -> None:
    client, teacher = asking(faults={fault: 1.0})
    came = client.with_options(timeout=5)._client.post(  # the body as it is, whatever the client would make of it
        "chat/completions",
        json={"model": "loopback", "messages": [{"role": "user", "content": "1+1"}]},
        headers={"authorization": "Bearer loopback"},
        follow_redirects=False,
    )
    assert came.status_code == (307 if fault == "redirect" else 200)
    if fault == "html":
        assert came.text.startswith("<!DOCTYPE html>")
    elif fault == "cut_json":
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            came.json()
    elif fault == "redirect":
        assert came.headers["location"] == Faults().redirect_to
    else:
        body = came.json()
        found = {"empty": body.get("choices") == [], "error_in_200": "error" in body}
        assert found.get(fault, body.get("model") == "loopback-mini")
    charged = fault in ("cut_json", "empty", "other_model")
    assert (teacher.bill()["calls"], teacher.bill()["spoiled"]) == (int(charged), int(charged))


def test_a_fault_befalls_a_request_once_and_not_for_ever(asking: Any) -> None:
    client, _ = asking(faults={"too_many": 0.5})
    outcomes = []
    for _ in range(20):
        try:
            outcomes.append(bool(ask(client)))
        except openai.RateLimitError:
            outcomes.append(False)
    assert len(set(outcomes)) == 2


def test_answers_wait_beside_each_other(asking: Any) -> None:
    client, teacher = asking(latency_ms=300)
    began = time.monotonic()
    threads = [threading.Thread(target=ask, args=(client, f"{number}+1")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    assert 0.3 <= took < 12 * 0.3 / 2
    assert teacher.bill()["calls"] == 12


def test_it_ends_with_the_process_that_started_it() -> None:
    program = (
        "import os, sys; from stillroom.loopback.serving import Loopback; "
        "print(Loopback({'mind': {'kind': 'arithmetic'}}).start(), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    port = int(done.stdout.split(":")[2].split("/")[0])
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    pytest.fail("the server is still there")


def test_errors_of_a_specification_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no mind of kind 'rul'.*Did you mean 'rule'"):
        Spec.from_tree({"mind": {"kind": "rul"}})
    with pytest.raises(RecipeError, match=r"no knob 'hangs' here \(faults.hangs\)"):
        Spec.from_tree({"mind": {"kind": "arithmetic"}, "faults": {"hangs": 1}})
    with pytest.raises(RecipeError, match="add up to at most 1"):
        Spec.from_tree({"mind": {"kind": "arithmetic"}, "faults": {"hang": 0.7, "drop": 0.7}})
    with pytest.raises(RecipeError, match="there is no such file"):
        Spec.load(tmp_path / "none.yaml")
    with pytest.raises(DataError, match=r"there is no file of rows 'none\.csv'"):
        Loopback({"mind": {"kind": "rule", "source": "none.csv"}}, tmp_path).start()


def test_a_port_that_is_taken(asking: Any, tmp_path: Path) -> None:
    _, teacher = asking()
    port = int(teacher.url.split(":")[2].split("/")[0])
    with pytest.raises(InputError, match=r"no server can be had there.*Choose another --port"):
        Loopback({"mind": {"kind": "arithmetic"}}, tmp_path, port=port).start()


def test_the_page_about_it_names_every_knob() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "try-without-a-key.md").read_text()
    assert not [name for name in Spec.model_fields if f"`{name}`" not in page]
    assert not [name for name in SHARES if f"`{name}`" not in page]
    assert not [kind for kind in MINDS if f"- `{kind}` " not in page]
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    Spec.from_tree(yaml.safe_load(example))
