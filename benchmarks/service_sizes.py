"""How much patience the service bench has: `smoke` shows in minutes that everything runs, `time` fits an hour of a busy
machine, `full` measures what bars.tsv asks for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What a preset decides."""

    load_s: int = 60
    load_rate: int = 300
    """Requests a second."""
    load_runs: int = 3
    jobs: int = 1_000
    events: int = 100_000
    upload_mib: int = 512
    upload_runs: int = 3
    streams: int = 50
    reconnects: int = 100
    stream_events: int = 2_000
    commit_kills: int | None = None
    """So many commit points of each role, evenly spread; None: every one."""
    random_kills: int = 200
    calls: int = 1_000
    bad_inputs: int | None = None
    """None: all there are."""
    attacks: int | None = None
    serving_rounds: int = 9
    batching_rounds: int = 5
    starts: int = 9
    page_reads: int = 20
    pages: int | None = None


PRESETS = {
    "smoke": Sizes(
        load_s=4, load_rate=50, load_runs=1, jobs=50, events=2_000, upload_mib=16, upload_runs=1, streams=5, reconnects=5,
        stream_events=100, commit_kills=1, random_kills=2, calls=20, serving_rounds=2, batching_rounds=1, starts=1,
        page_reads=2,
    ),
    "time": Sizes(commit_kills=12, random_kills=40, load_runs=1, upload_runs=2),
    "full": Sizes(),
}  # fmt: skip
