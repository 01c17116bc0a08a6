"""A student becomes a file for ONNX Runtime by a click, in a process that ends with the service."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from benchmarks.service_process import Served, children_of, environment

from service import students
from service.pages.site import put_finished, send
from stillroom.service.settings import Settings
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
    return next((pid for pid in children_of(served.pid) if b"exporter" in told_of(pid)), None)


def told_of(pid: int) -> bytes:
    """The words a process was started with; none once it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_a_student_is_made_into_a_file_that_onnx_runtime_takes(served: Served) -> None:
    _, model_id = put_finished(served, students.of_texts())
    http, at = served.http(), f"/models/{model_id}"
    assert "Make a file for ONNX Runtime" in http.get(at).text
    assert send(http, f"{at}/onnx", at).status_code == 303
    assert "hx-get" in http.get(at).text, "the page brings it by itself"
    assert "onnx/model.onnx" not in http.get(at).text, "nothing is shown before it is whole"
    waited(lambda: "There is a file" in http.get(f"{at}/onnx").text)
    assert "Make a file for ONNX Runtime" not in http.get(at).text
    graph = http.get(f"{at}/files/onnx/model.onnx").content
    asked = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert asked.get_inputs()
    send(http, f"{at}/onnx", at)
    assert "There is a file" in http.get(f"{at}/onnx").text, "it is not made twice"


def test_the_process_ends_with_the_service_and_the_file_can_be_asked_for_again(served: Served) -> None:
    _, model_id = put_finished(served, students.of_texts())
    http, at = served.http(), f"/models/{model_id}"
    send(http, f"{at}/onnx", at)
    left = waited(lambda: exporter_of(served))
    os.kill(served.pid, signal.SIGKILL)
    waited(lambda: not told_of(left), GONE_S)
    served.stop()
    served.start()
    assert "Make a file for ONNX Runtime" in served.http().get(at).text


def test_one_that_fails_says_why_and_may_be_tried_again(served: Served) -> None:
    job_id, model_id = put_finished(served, students.of_texts())
    (served.root / "jobs" / job_id / "run" / "student" / "model.safetensors").write_bytes(b"no weights")
    http, at = served.http(), f"/models/{model_id}"
    send(http, f"{at}/onnx", at)
    waited(lambda: "There is no file" in http.get(f"{at}/onnx").text)
    page = http.get(at).text
    assert "There is no file for ONNX Runtime." in page
    assert str(served.root) not in page, "where it stands on the machine is nothing for a page"
    assert "Make a file for ONNX Runtime" in page


def test_why_the_exporter_refused_is_heard(tmp_path: Path) -> None:
    """Its standard output is a pipe, which keeps what is written until it is flushed."""
    (tmp_path / "run").mkdir()
    assert exports._carried_out(tmp_path / "run", environment()) == "this is no run folder: it has no recipe.yaml"


def test_without_the_extra_it_says_what_to_install(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "NEEDED", ("no_such_package",))
    job_id, _ = put_finished(served, students.of_texts())
    made, row = Exports(Settings(served.root)), cast(Any, {"folder": f"jobs/{job_id}/run/student"})
    made.begin(row)
    assert made.of(row) == ("failed", exports.INSTALL)


def test_asked_for_twice_at_once_it_is_made_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, _ = put_finished(served, students.of_texts())
    begun: list[Path] = []
    go = threading.Event()

    def carried_out(run: Path, env: dict[str, str]) -> str:
        begun.append(run)
        assert go.wait(WITHIN_S)
        return ""

    monkeypatch.setattr(exports, "_carried_out", carried_out)
    made, row = Exports(Settings(served.root)), cast(Any, {"folder": f"jobs/{job_id}/run/student"})
    asking = [threading.Thread(target=made.begin, args=(row,)) for _ in range(8)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert made.of(row).state == "going"
    go.set()
    waited(lambda: made.of(row).state != "going")
    assert len(begun) == 1


def test_what_breaks_is_told_as_a_failure(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, _ = put_finished(served, students.of_texts())

    def carried_out(run: Path, env: dict[str, str]) -> str:
        raise ValueError("not to be foreseen")

    monkeypatch.setattr(exports, "_carried_out", carried_out)
    made, row = Exports(Settings(served.root)), cast(Any, {"folder": f"jobs/{job_id}/run/student"})
    made.begin(row)
    waited(lambda: made.of(row).state == "failed")
    assert "not to be foreseen" not in made.of(row).why, "a page is not told what was not meant for it"
