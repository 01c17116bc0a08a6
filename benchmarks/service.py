"""`make bench-service`: how fast the service answers while it trains, and what it withstands.

    python -m benchmarks.service [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

Every block starts real servers on this machine. Work is kept in runs/bench-service/PRESET/; each finished block is written
down at once. `--again` runs a finished block once more, and its last run counts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.blocks import Bench, Block
from benchmarks.service_sizes import PRESETS

WORDS = (
    "Servers are started as a person starts them, `stillroom serve`, and asked over HTTP on the same machine. Two processes "
    "that multiply matrices at nice 19 stand for a trainer. What is killed is killed with SIGKILL. "
)
PRESET_WORDS = {
    "smoke": "Preset smoke: everything runs, nothing is measured.",
    "time": "Preset time: fewer runs and kills than bars.tsv asks for; the column n says how many.",
    "full": "",
}
LIBRARIES = ("fastapi", "starlette", "uvicorn", "sqlalchemy", "httptools", "uvloop", "openai")


BLOCKS = {
    "load": Block(
        "answers while a trainer works", "service_load.load", ("load_s", "load_rate", "load_runs", "jobs", "events"), True,
        edition=2,
    ),
    "upload": Block("memory during a large upload", "service_uploads.upload", ("upload_mib", "upload_runs"), True),
    "streams": Block(
        "event streams that break", "service_streams.streams", ("streams", "reconnects", "stream_events"), edition=2,
    ),
    "kills": Block(
        "kill -9 of server, worker and trainer", "service_kill_lanes.kills", ("commit_kills", "random_kills"), edition=2,
    ),
    "duplicates": Block("creates whose answers are dropped", "service_safety.duplicates", ("calls",), edition=2),
    "bad-input": Block("bad files and bodies", "service_safety.bad_input", ("bad_inputs",)),
    "attacks": Block("attacks with paths and addresses", "service_safety.attacks", ("attacks",), edition=3),
    "overhead": Block(
        "a student served, beside the bare model", "service_serving.overhead", ("serving_rounds",), True, edition=2,
    ),
    "batching": Block("many clients at once", "service_serving.batching", ("batching_rounds",), True),
    "pages": Block(
        "starts, idle memory, first bytes of pages", "service_pages.pages", ("starts", "page_reads"), True, edition=4,
    ),
    "axe": Block("the pages, looked at by axe-core", "service_axe.axe", ("pages",)),
}  # fmt: skip
BENCH = Bench("service", "Distillation as a service", WORDS, PRESET_WORDS, BLOCKS, PRESETS, libraries=LIBRARIES)


if __name__ == "__main__":
    BENCH.main(__doc__)
