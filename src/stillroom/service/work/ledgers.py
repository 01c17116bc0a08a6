"""What the ledgers in a job's run folder say, read while its trainer writes them: answers that are kept, and what all cost."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stillroom.budget import NANO
from stillroom.service.watch.logs import log_error

LEDGER = "ledger.sqlite"
KEPT = "SELECT count(DISTINCT key) FROM requests WHERE state = 'kept'"
TAKEN = "SELECT sum(calls), sum(tokens), sum(nano_usd), (SELECT opened_at FROM requests ORDER BY id DESC LIMIT 1) FROM totals"


def ledgers_in(run: Path) -> list[Path]:
    """Those of a run."""
    return sorted(run.glob(f"*/{LEDGER}"))


def answers_kept(ledger: Path) -> int:
    """How many requests a ledger has an answer to; 0 for what is no ledger (yet). The file's bytes change by its opening."""
    (count,) = _read(ledger, KEPT) or (0,)
    return int(count)


def spent_in(run: Path) -> dict[str, Any]:
    """Figures of a job: what paid teachers took in its run so far, all attempts together, and when they were last asked.

    A sum and no difference, so it may be written down as often as one likes. What is in flight, or was when its process was
    killed, may be billed and counts at its most. Empty where nothing was asked of a paid teacher, or no ledger can be read.
    """
    read = [_read(ledger, TAKEN) for ledger in ledgers_in(run)]
    found = [row for row in read if row is not None and row[3] is not None]
    if not found:
        return {}
    calls, tokens, nano_usd = (sum(row[place] for row in found) for place in range(3))
    at = max(row[3] for row in found)
    return {"teacher_calls": calls, "teacher_tokens": tokens, "usd": nano_usd / NANO, "paid_at": at}


def _read(ledger: Path, sql: str) -> Sequence[Any] | None:
    """A row; None for what is no ledger (yet)."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(ledger))}?mode=ro", uri=True)) as rows:
            row: Sequence[Any] = rows.execute(sql).fetchone()
            return row
    except sqlite3.DatabaseError as error:
        log_error("ledger not read", error)
        return None
