"""How soon the service is there, what it holds while nobody asks for a model, and when the first byte of each page comes."""

from __future__ import annotations

import compileall
import http.client
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.results import Row, Table, shown
from benchmarks.service_axe import TESTS
from benchmarks.service_process import SOURCE, Served, below, memory_mib, private_mib
from benchmarks.service_sizes import Sizes
from benchmarks.timing import middle

PROMISED_S, PROMISED_MB, PROMISED_MS, PROMISED_BYTES = 2.0, 150, 100, 200_000
"""Until it answers; held while idle, server and worker together; to a page's first byte; of a job's page with 10,000 steps."""
MISSING = ("/jobs/ftjob-none",)
"""What is not there has a page as well."""
TOGETHER = (
    "MiB of server and worker together, idle: what is resident in the server, and what its processes hold beside it"
)
LONG_PAGE = "running job"
"""The page of a job with 10,000 steps."""
SETTLED_S = 3.0
"""After the first answer, for what a server does once it is up."""


def pages(sizes: Sizes, base: Path) -> Row:
    """Two tables beside the bars: starts, and pages with something on each."""
    shutil.rmtree(base / "pages", ignore_errors=True)
    sys.path.insert(0, str(TESTS))
    from service.pages.site import filled

    clone_s = _first_of_a_clone(base / "pages" / "clone")
    compileall.compile_dir(SOURCE, quiet=1)  # as pip does where it installs the program
    starts = [_start(base / "pages" / f"start-{run}") for run in range(sizes.starts)]
    with Served(base / "pages" / "filled") as service:
        site = filled(service)
        rows = [[name, *_asked(service.url, path, sizes.page_reads)] for name, path in site.paths.items()]
    named = (
        "seconds until it answers",
        "MiB resident in the server, idle",
        TOGETHER,
        "MiB of the same, what is shared counted in each",
    )
    told = [
        [name, *middle(values)[1], middle(values)[0]]
        for name, values in zip(named, zip(*starts, strict=True), strict=True)
    ]
    slowest_s = max(start[0] for start in starts)
    note = (
        f"{len(starts)} starts of a new folder, Python and its imports included. Promised: {PROMISED_S:g} s; the slowest took "
        f"{shown(slowest_s)} s, {_state(slowest_s <= PROMISED_S)}. Not counted is the very first start of a clone, which "
        f"compiles the program and keeps it so: {shown(clone_s)} s, {_state(clone_s <= PROMISED_S)}. {_idle(starts)}"
    )
    columns = ["page", "bytes", "first byte, ms: median", "slowest"]
    slowest_ms, long_bytes = max(row[3] for row in rows), next(row[1] for row in rows if row[0] == LONG_PAGE)
    of_pages = (
        f"{sizes.page_reads} reads of each page by one client, after one that is not counted. Promised: {PROMISED_MS} ms; the "
        f"slowest took {shown(slowest_ms)} ms, {_state(slowest_ms <= PROMISED_MS)}. And {PROMISED_BYTES:,} bytes for the page of "
        f"a job with 10,000 steps: {long_bytes:,}, {_state(long_bytes <= PROMISED_BYTES)}."
    )
    return Row(
        {},
        {
            "start": Table("From its start to its first answer", ["", "low", "high", "median"], told, note),
            "pages": Table("Pages", columns, rows, of_pages),
        },
    )


def _idle(starts: list[tuple[float, float, float, float]]) -> str:
    """Whether the most that server and worker ever held together is within what was promised."""
    most_mb = max(start[2] for start in starts) * 2**20 / 10**6
    return (
        f"{PROMISED_MB} MB ({PROMISED_MB * 10**6 / 2**20:.0f} MiB) are asked of server and worker together until a model is "
        f"loaded: {shown(most_mb)} MB at most, {_state(most_mb <= PROMISED_MB)}. What the server holds counts whole, whoever "
        "else here holds it too; of its other processes what is theirs alone."
    )


def _state(kept: bool) -> str:
    return "met" if kept else "**missed**"


def _start(folder: Path) -> tuple[float, float, float, float]:
    """Seconds from the command to the first answer; MiB that the server, and all its processes, hold when they have settled."""
    began = time.monotonic()
    with Served(folder) as service:
        service.http().get("/healthz").raise_for_status()
        took_s = time.monotonic() - began
        time.sleep(SETTLED_S)
        every = [service.pid, *below(service.pid)]
        together = memory_mib(service.pid) + sum(map(private_mib, every[1:]))
        return took_s, memory_mib(service.pid), together, sum(map(memory_mib, every))


def _first_of_a_clone(home: Path) -> float:
    """Seconds from the command to the first answer where nothing of the program was compiled yet; its libraries are, by pip."""
    shutil.copytree(SOURCE, home / "src", ignore=shutil.ignore_patterns("__pycache__"))
    began = time.monotonic()
    with Served(home, env={"PYTHONPATH": str(home / "src")}) as service:
        service.http().get("/healthz").raise_for_status()
        return time.monotonic() - began


def _asked(url: str, path: str, reads: int) -> tuple[int, float, float]:
    """Bytes of a page, and milliseconds from the request to its first byte: median and slowest."""
    place = urlsplit(url)
    client = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    took_ms, size = [], 0
    for _ in range(reads + 1):
        began = time.perf_counter()
        client.request("GET", path, headers={"accept": "text/html"})
        answer = client.getresponse()
        took_ms.append(1000 * (time.perf_counter() - began))
        size = len(answer.read())
        if answer.status != (http.client.NOT_FOUND if path in MISSING else http.client.OK):
            raise RuntimeError(f"{path} was answered with {answer.status}")
    client.close()
    return size, middle(took_ms[1:])[0], max(took_ms[1:])
