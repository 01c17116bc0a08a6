"""A student becomes a file for ONNX Runtime by a click, in a process that ends with the service."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.service_process import Served, children_of

from service import students
from service.pages.site import put_finished, send
from stillroom.service.students import exports
from stillroom.service.students.exports import Exports

onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
WITHIN_S = 120.0
GONE_S = 5.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as found:
        yield found


def waited(done: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """What it gives once that is true."""
    until = time.monotonic() + within_s
    while not (found := done()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def exporter_of(served: Served) -> int | None:
    """The process at work on an export."""
    for pid in children_of(served.pid):
        if b"exporter" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


def test_a_student_is_made_into_a_file_that_onnx_runtime_takes(served: Served) -> None:
    _, model_id = put_finished(served, students.of_texts())
    http, at = served.http(), f"/models/{model_id}"
    assert "Make a file for ONNX Runtime" in http.get(at).text
    assert send(http, f"{at}/onnx", at).status_code == 303
    assert "hx-get" in http.get(at).text, "the page brings it by itself"
    assert "onnx/model.onnx" not in http.get(at).text, "nothing is shown before it is whole"
    waited(lambda: http.get(f"{at}/onnx").headers.get("hx-refresh"))
    page = http.get(at).text
    assert "Make a file for ONNX Runtime" not in page, page
    graph = http.get(f"{at}/files/onnx/model.onnx").content
    asked = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert asked.get_inputs()
    send(http, f"{at}/onnx", at)
    assert exporter_of(served) is None, "it is there already"


def test_the_process_ends_with_the_service_and_the_file_can_be_asked_for_again(served: Served) -> None:
    _, model_id = put_finished(served, students.of_texts())
    http, at = served.http(), f"/models/{model_id}"
    send(http, f"{at}/onnx", at)
    left = waited(lambda: exporter_of(served))
    os.kill(served.pid, signal.SIGKILL)
    waited(lambda: not Path(f"/proc/{left}/cmdline").exists() or not Path(f"/proc/{left}/cmdline").read_bytes(), GONE_S)
    served.stop()
    served.start()
    assert "Make a file for ONNX Runtime" in served.http().get(at).text


def test_one_that_fails_says_why_and_may_be_tried_again(served: Served) -> None:
    job_id, model_id = put_finished(served, students.of_texts())
    (served.root / "jobs" / job_id / "run" / "student" / "model.safetensors").write_bytes(b"no weights")
    http, at = served.http(), f"/models/{model_id}"
    send(http, f"{at}/onnx", at)
    waited(lambda: http.get(f"{at}/onnx").headers.get("hx-refresh"))
    page = http.get(at).text
    assert "There is no file for ONNX Runtime." in page
    assert "model.safetensors" in page
    assert "Make a file for ONNX Runtime" in page


def test_without_the_extra_it_says_what_to_install(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "NEEDED", ("no_such_package",))
    job_id, _ = put_finished(served, students.of_texts())
    settings: Any = type("Settings", (), {"root": served.root})()
    row: Any = {"folder": f"jobs/{job_id}/run/student"}
    made = Exports(settings)
    made.begin(row)
    assert made.of(row) == ("failed", exports.INSTALL)
