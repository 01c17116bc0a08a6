"""Who answered what, and what it cost: a row for each call, and what a project saved by asking students.

What a teacher said about a call that a student answered (an audit) is a row of its own, and no call. A call that cost
something is written before it is answered. One that a student answered for nothing is written with others
a moment later, so that serving a student does not wait for the disk; a killed server loses those of that moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Integer, and_, cast, func, insert, select

from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import calls, jobs

MOMENT_S = 0.25
AUDIT = "audit"
"""`by` of such a row; of a call it is who answered: the student or the teacher."""
LETTERS_A_TOKEN = 4
"""Of a teacher's tokens that were never counted, since it was not asked: an estimate."""


class Usage:
    """Keeps the rows of a moment, and writes them together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def add(self, **row: Any) -> None:
        """Count a call; see tables.calls. At once where it cost something or was compared."""
        row = {"created_at": int(time.time()), "agreed": None, "saved_nano_usd": 0, **row}
        if row["nano_usd"] or row["by"] != "student":
            with self._database.writing() as rows:
                rows.execute(insert(calls).values(**row))
            return
        with self._lock:
            self._waiting.append(row)
            if self._timer is None:
                self._timer = threading.Timer(MOMENT_S, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            waiting, self._waiting, self._timer = self._waiting, [], None
        if waiting:
            with self._database.writing() as rows:
                rows.execute(insert(calls), waiting)


def nano_usd(price: Mapping[str, Any] | None, tokens_in: int, tokens_out: int) -> int:
    """What tokens cost at a price in USD per million, in billionths of a USD."""
    if not price:
        return 0
    return round(1000 * (tokens_in * float(price["input"]) + tokens_out * float(price["output"])))


def tokens_of(letters: int) -> int:
    """About how many tokens a text of so many letters has for a teacher; at least one."""
    return max(1, -(-letters // LETTERS_A_TOKEN))


def savings(rows: Connection, project_id: str, since: int) -> list[dict[str, Any]]:
    """By model: calls, who answered them, USD paid and saved, and how often student and teacher agreed where both said."""
    audited = calls.c.agreed.is_not(None)
    wanted = and_(calls.c.project_id == project_id, calls.c.created_at >= since)
    agreed = func.sum(func.coalesce(cast(calls.c.agreed, Integer), 0))
    asked = select(
        calls.c.model, calls.c.by, func.count(), func.sum(calls.c.tokens_in), func.sum(calls.c.tokens_out),
        func.sum(calls.c.nano_usd), func.sum(calls.c.saved_nano_usd), func.sum(cast(audited, Integer)), agreed,
    ).where(wanted).group_by(calls.c.model, calls.c.by).order_by(calls.c.model)  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for model, by, count, tokens_in, tokens_out, paid, saved, compared, same in rows.execute(asked):
        one = found.setdefault(model, {
            "model": model, "calls": 0, "by_student": 0, "by_teacher": 0, "tokens_in": 0, "tokens_out": 0, "usd": 0.0,
            "saved_usd": 0.0, "audited": 0, "agreed": 0, "agreement": None,
        })  # fmt: skip
        counts = {"audited": compared, "agreed": same}
        if by != AUDIT:
            counts |= {"calls": count, f"by_{by}": count, "tokens_in": tokens_in, "tokens_out": tokens_out}
        for name, value in counts.items():
            one[name] += int(value or 0)
        one["usd"] += (paid or 0) / 1e9
        one["saved_usd"] += (saved or 0) / 1e9
        if one["audited"]:
            one["agreement"] = one["agreed"] / one["audited"]
    return list(found.values())


def spent_by_jobs(rows: Connection, project_id: str, since: int) -> list[dict[str, Any]]:
    """What jobs took of teachers that are paid by the call, the latest job first; each whole where it last asked one since then.

    They ask by themselves and not through the proxy, so nothing of it is among the calls.
    """
    billed = (jobs.c.figures["paid_at"].as_float() >= since) & (jobs.c.figures["teacher_calls"].as_integer() > 0)
    wanted = (jobs.c.project_id == project_id) & billed
    asked = select(jobs.c.id, jobs.c.suffix, jobs.c.figures).where(wanted).order_by(jobs.c.number.desc())
    return [
        {
            "id": row.id, "suffix": row.suffix, "calls": row.figures["teacher_calls"], "tokens": row.figures["teacher_tokens"],
            "usd": row.figures["usd"],
        }
        for row in rows.execute(asked)
    ]  # fmt: skip
