"""What a large upload does to the server's memory, and to the answers others get meanwhile."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.results import Found, Row, Table
from benchmarks.service_process import Served, memory_mib
from benchmarks.service_sizes import Sizes

EDGE = "an-edge-between-parts"
ROW_BYTES = 20_000
LOOK_S = 0.02


def upload(sizes: Sizes, base: Path) -> Row:
    """The largest growth of a run, in MiB."""
    rows = []
    for run in range(sizes.upload_runs):
        folder = base / f"upload-{run}"
        shutil.rmtree(folder, ignore_errors=True)
        with Served(folder) as service:
            rows.append(_once(service, sizes.upload_mib))
        shutil.rmtree(folder, ignore_errors=True)
    growth = max(row[2] - row[1] for row in rows)
    columns = ["MiB sent", "MiB before", "MiB at most", "seconds", "other answers: slowest ms"]
    return Row(
        {"service-upload-mib": Found(growth, n=f"{sizes.upload_runs} runs of {sizes.upload_mib} MiB")},
        {"upload": Table("One large upload", columns, rows)},
    )


def _once(service: Served, mib: int) -> list[float]:
    http_ = service.http()
    for _ in range(20):
        http_.get("/v1/files").raise_for_status()
    _send(service.url, 1)  # what the first upload of all loads is no growth of a large one
    before, started = memory_mib(service.pid), time.perf_counter()
    (Path("/proc") / str(service.pid) / "clear_refs").write_text("5")  # the most it ever had is counted anew
    done, slowest = threading.Event(), 0.0

    def look() -> None:
        nonlocal slowest
        while not done.wait(LOOK_S):
            asked = time.perf_counter()
            http_.get("/v1/files?limit=1").raise_for_status()
            slowest = max(slowest, 1000 * (time.perf_counter() - asked))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        file = _send(service.url, mib)
    finally:
        done.set()
        looking.join()
    if file["bytes"] < mib << 20 or file["status"] == "error":
        raise RuntimeError(f"the upload went wrong: {file}")
    return [mib, before, memory_mib(service.pid, "VmHWM"), time.perf_counter() - started, slowest]


def _row(number: int, words: str) -> bytes:
    messages = [{"role": "user", "content": words}, {"role": "assistant", "content": f"answer {number}"}]
    return json.dumps({"messages": messages}).encode() + b"\n"


def _rows(mib: int) -> Iterator[bytes]:
    """Chats of some 20 KB, just so many MiB together: more than its limit the service would refuse."""
    left, number = mib << 20, 0
    while left:
        line = _row(number, f"question {number} " * (ROW_BYTES // 30))
        if left < len(line) + ROW_BYTES:  # the last one takes what is left
            line = _row(number, "x" * (left - len(_row(number, ""))))
        yield line
        left, number = left - len(line), number + 1


def _send(url: str, mib: int) -> dict[str, int | str]:
    place = urlsplit(url)
    line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=600)
    head = (
        f'--{EDGE}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--{EDGE}\r\n'
        'content-disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n'
    )

    def pieces() -> Iterator[bytes]:
        yield head.encode()
        yield from _rows(mib)
        yield f"\r\n--{EDGE}--\r\n".encode()

    headers = {"content-type": f"multipart/form-data; boundary={EDGE}", "transfer-encoding": "chunked"}
    try:
        line.request("POST", "/v1/files", body=pieces(), headers=headers, encode_chunked=True)
        answer = line.getresponse()
        found: dict[str, int | str] = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {found}")
        return found
    finally:
        line.close()
