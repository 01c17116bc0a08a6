"""What was asked of a teacher that is paid for, what it cost, and what is left: one row a request, in SQLite.

A request's most possible cost is reserved before it is sent and settled after, each in one transaction, so no budget is
passed, whatever is in flight. Raw responses are kept under the request's key, and reading them again costs nothing.
A row's state: open (in flight), kept (answered and paid), lost (may have been billed, so it counts at its most; a killed
process leaves such rows), released (certainly not billed). Money is whole nano-USD, rounded up, so nothing drifts.

Threads that write at the same time share a commit: the first of them commits for all that wait. Several processes may
hold one ledger. Knows no teacher, no prompt and no recipe.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from stillroom.budget import NANO, Cost, Paid
from stillroom.budget import Limits as Limits
from stillroom.budget import Rates as Rates
from stillroom.errors import BudgetReached, CorruptFile, DiskFull, RunBusy, RunError
from stillroom.rundir import commit_point, make_folder, path_errors, take_lock

BUSY_S = 60.0
"""How long a writer waits for another process's transaction."""
KEYS_A_QUERY = 500
SCANNED = 8
"""Looking so many keys over is as quick as looking one up."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (id INTEGER PRIMARY KEY, run TEXT NOT NULL, lock TEXT NOT NULL, ended INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, run TEXT NOT NULL, purpose TEXT NOT NULL, session INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'kept', 'lost', 'released')), batch TEXT,
    nano_usd INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    opened_at REAL NOT NULL, latency_s REAL, why TEXT);
CREATE TABLE IF NOT EXISTS answers (id INTEGER PRIMARY KEY, raw TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS kept_by_key ON requests (key) WHERE state = 'kept';
CREATE INDEX IF NOT EXISTS of_a_batch ON requests (batch) WHERE batch IS NOT NULL;
CREATE TABLE IF NOT EXISTS totals (
    run TEXT PRIMARY KEY, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batches (mark TEXT PRIMARY KEY, run TEXT NOT NULL, asked_of TEXT NOT NULL, id TEXT);
"""
COUNTED = "state != 'released'"
T = TypeVar("T")


@dataclass(frozen=True)
class Reservation:
    """A request that is about to be sent, or in flight."""

    id: int
    key: bytes
    most: Cost


@dataclass(frozen=True)
class Response:
    """What was paid for: the raw text of the response, its cost, and how long it took."""

    raw: str
    cost: Cost
    latency_s: float


class _Write(Generic[T]):
    """Work of one thread that waits for a commit."""

    def __init__(self, work: Callable[[sqlite3.Connection], T], paid: bool) -> None:
        self.work, self.paid = work, paid
        self.done = False
        self.result: T
        self.error: BaseException | None = None


class Ledger:
    """The requests of a run, and whatever others left in the same file; many threads may use one."""

    def __init__(
        self,
        path: Path,
        run: str,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        may_go_on: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.run, self.limits, self._clock, self._may_go_on = path, run, limits, clock, may_go_on
        self._limit_nano_usd = limits.nano_usd
        self._waiting: deque[_Write[Any]] = deque()
        self._turn, self._reading = threading.Lock(), threading.Lock()
        with path_errors(path):
            make_folder(path.parent)
        with self._sql_errors():
            self._writer, self._reader = _connect(path), _connect(path)
            self._writer.executescript(SCHEMA)
        self._lock = f"{path.name}.{secrets.token_hex(8)}.lock"
        self._alive = take_lock(path.with_name(self._lock))
        self._session = self._write(self._begin)
        self.at_close: dict[int, Callable[[], None]] = {}
        """Called when it is closed, such as to hang up; by the id of whose call it is."""

    def kept(self, key: bytes) -> Response | None:
        """The response to this request that was paid for before, in this run or another."""
        return dict(self.kept_of([key])).get(key)

    def kept_among(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these requests were paid for before."""
        kept = "SELECT key FROM requests WHERE state = 'kept'"
        held = self._read("SELECT max(id) FROM requests", ())[0][0] or 0
        if held < SCANNED * len(keys):
            return {key for (key,) in self._read(kept, ())}.intersection(keys)
        return {key for (key,) in self._each(f"{kept} AND key IN", keys)}

    def kept_of(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, Response]]:
        """The responses to these requests, in any order; the newest last where one was paid for twice."""
        for key, raw, nano_usd, read, written, latency_s in self._each(
            "SELECT key, raw, nano_usd, tokens_in, tokens_out, latency_s FROM requests JOIN answers USING (id)"
            " WHERE state = 'kept' AND key IN",
            keys,
            "ORDER BY id",
        ):
            yield key, Response(raw, Cost(nano_usd, read, written), latency_s or 0.0)

    def reserve(self, key: bytes, purpose: str, most: Cost) -> Reservation:
        """Set aside the most that a request can cost. Raises BudgetReached where that would pass a limit of the run."""
        return self.reserve_all([(key, purpose, most)])[0]

    def reserve_all(self, wanted: Sequence[tuple[bytes, str, Cost]], batch: str | None = None) -> list[Reservation]:
        """Reserve all of these in one transaction, or none. Those of a batch stay in flight when this process ends."""
        self._may_go_on()

        def work(at: sqlite3.Connection) -> list[Reservation]:
            self._refuse_beyond(at, [most for _, _, most in wanted])
            now, found = self._clock(), []
            for key, purpose, most in wanted:
                cost = (most.nano_usd, most.tokens_in, most.tokens_out)
                number = at.execute(
                    "INSERT INTO requests (key, run, purpose, session, batch, opened_at, nano_usd, tokens_in, tokens_out,"
                    " state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')",
                    (key, self.run, purpose, self._session, batch, now, *cost),
                ).lastrowid
                assert number is not None
                found.append(Reservation(number, key, most))
            self._count(at, len(wanted), *_sum(most for _, _, most in wanted))
            return found

        return self._write(work, paid=False)

    def settle(self, reservation: Reservation, raw: str, cost: Cost, latency_s: float) -> None:
        """Keep a response and its cost in place of what was reserved."""
        self.settle_all([(reservation, raw, cost, latency_s)])

    def settle_all(self, answered: Sequence[tuple[Reservation, str, Cost, float]]) -> None:
        """Settle all of these in one transaction."""

        def work(at: sqlite3.Connection) -> None:
            for one, raw, cost, latency_s in answered:
                changed = at.execute(
                    "UPDATE requests SET state = 'kept', nano_usd = ?, tokens_in = ?, tokens_out = ?, latency_s = ?"
                    " WHERE id = ? AND state = 'open'",
                    (cost.nano_usd, cost.tokens_in, cost.tokens_out, latency_s, one.id),
                ).rowcount
                if changed:
                    at.execute("INSERT INTO answers VALUES (?, ?)", (one.id, raw))
                    self._count(at, 0, cost.tokens - one.most.tokens, cost.nano_usd - one.most.nano_usd)

        self._write(work)

    def release(self, reservation: Reservation, why: str) -> None:
        """Give a reservation back: the request was certainly not billed."""
        self._end([reservation], "released", why)

    def lose(self, reservation: Reservation, why: str, cost: Cost | None = None) -> None:
        """Give up a request that may have been billed; it counts at its cost or, where none is known, at its most."""
        self._end([reservation], "lost", why, cost)

    def release_all(self, reservations: Sequence[Reservation], why: str) -> None:
        """Give all of these back in one transaction."""
        self._end(reservations, "released", why)

    def spent(self, purpose: str | None = None) -> Paid:
        """What this run has spent, or has in flight at its most; of one purpose, or of all."""
        return self._added(COUNTED, purpose)

    def lost(self) -> Paid:
        """The part of it that may have been billed and brought no answer: cut off, or left by a killed process."""
        return self._added("state = 'lost'", None)

    def bought(self) -> Paid:
        """What has been billed, or may have been: without what is in flight."""
        return self._added("state IN ('kept', 'lost')", None)

    def latencies_s(self) -> list[float]:
        """Of every request of this run that was answered, in seconds."""
        sql = "SELECT latency_s FROM requests WHERE run = ? AND state = 'kept' AND latency_s IS NOT NULL"
        return [seconds for (seconds,) in self._read(sql, (self.run,))]

    def purposes(self) -> dict[str, Paid]:
        """What this run has spent, by purpose."""
        rows = self._read("SELECT DISTINCT purpose FROM requests WHERE run = ? ORDER BY purpose", (self.run,))
        return {purpose: self.spent(purpose) for (purpose,) in rows}

    def note_batch(self, mark: str, asked_of: str, number: str | None) -> None:
        """Remember a batch by our own mark, before it is made, and its id at the endpoint as soon as it has one."""
        row = (mark, self.run, asked_of, number)
        self._write(lambda at: at.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", row))

    def forget_batch(self, mark: str) -> None:
        """The batch was merged, or is known to have failed; what it still has open may have been billed."""

        def work(at: sqlite3.Connection) -> None:
            at.execute("DELETE FROM batches WHERE mark = ?", (mark,))
            at.execute(
                "UPDATE requests SET state = 'lost', why = 'not in its batch''s results' WHERE batch = ? AND state = 'open'",
                (mark,),
            )

        self._write(work)

    def open_batches(self, asked_of: str) -> dict[str, str | None]:
        """Mark -> id, where it is known, of this run's batches at an endpoint that are not merged yet."""
        sql = "SELECT mark, id FROM batches WHERE run = ? AND asked_of = ? ORDER BY mark"
        return dict(self._read(sql, (self.run, asked_of)))

    def in_batch(self, mark: str) -> list[Reservation]:
        """The requests of a batch that are still in flight."""
        sql = "SELECT id, key, nano_usd, tokens_in, tokens_out FROM requests WHERE batch = ? AND state = 'open'"
        return [Reservation(number, key, Cost(*most)) for number, key, *most in self._read(sql, (mark,))]

    def close(self) -> None:
        """Let go; what this process still has in flight may have been billed."""
        for call in self.at_close.values():
            call()
        self._write(lambda at: self._bury(at, self._session, "its process ended first"))
        self._writer.close()
        self._reader.close()
        os.close(self._alive)
        self.path.with_name(self._lock).unlink(missing_ok=True)

    def _refuse_beyond(self, at: sqlite3.Connection, wanted: list[Cost]) -> None:
        calls, tokens, nano_usd = self._totals(at)
        more_tokens, more_nano_usd = _sum(wanted)
        for name, unit, limit, spent, most, scale in (
            ("usd", "USD", self._limit_nano_usd, nano_usd, more_nano_usd, NANO),
            ("teacher_tokens", "tokens", self.limits.tokens, tokens, more_tokens, 1),
            ("calls", "calls", self.limits.calls, calls, len(wanted), 1),
        ):
            if limit is not None and spent + most > limit:
                raise BudgetReached(
                    f"the budget of {limit / scale:,.9g} {unit} does not cover the next call: {spent / scale:,.9g} are spent "
                    f"or in flight, and it may take {most / scale:,.9g}",
                    where=f"budget.{name}",
                    cure="What was bought is kept; raise the budget and run again to go on",
                )

    def _totals(self, at: sqlite3.Connection) -> tuple[int, int, int]:
        found = at.execute("SELECT calls, tokens, nano_usd FROM totals WHERE run = ?", (self.run,)).fetchone()
        return found or (0, 0, 0)

    def _count(self, at: sqlite3.Connection, calls: int, tokens: int, nano_usd: int) -> None:
        at.execute(
            "INSERT INTO totals VALUES (?1, ?2, ?3, ?4) ON CONFLICT (run) DO UPDATE SET"
            " calls = calls + ?2, tokens = tokens + ?3, nano_usd = nano_usd + ?4",
            (self.run, calls, tokens, nano_usd),
        )

    def _end(self, reservations: Sequence[Reservation], state: str, why: str, cost: Cost | None = None) -> None:
        def work(at: sqlite3.Connection) -> None:
            for one in reservations:
                paid = cost or one.most
                changed = at.execute(
                    "UPDATE requests SET state = ?, why = ?, nano_usd = ?, tokens_in = ?, tokens_out = ?"
                    " WHERE id = ? AND state = 'open'",
                    (state, why, paid.nano_usd, paid.tokens_in, paid.tokens_out, one.id),
                ).rowcount
                if changed and state == "released":
                    self._count(at, -1, -one.most.tokens, -one.most.nano_usd)
                elif changed:
                    self._count(at, 0, paid.tokens - one.most.tokens, paid.nano_usd - one.most.nano_usd)

        self._write(work)

    def _begin(self, at: sqlite3.Connection) -> int:
        """Bury the dead: what a killed process left in flight may have been billed, and its lock is free again."""
        for session, name in at.execute("SELECT id, lock FROM sessions WHERE NOT ended").fetchall():
            with suppress(RunBusy):
                handle = take_lock(self.path.with_name(name))
                self._bury(at, session, "its process was killed")
                self.path.with_name(name).unlink(missing_ok=True)
                os.close(handle)
        mine = at.execute("INSERT INTO sessions (run, lock, ended) VALUES (?, ?, 0)", (self.run, self._lock)).lastrowid
        assert mine is not None
        return mine

    def _bury(self, at: sqlite3.Connection, session: int, why: str) -> None:
        at.execute(
            "UPDATE requests SET state = 'lost', why = ? WHERE session = ? AND batch IS NULL AND state = 'open'",
            (why, session),
        )
        at.execute("UPDATE sessions SET ended = 1 WHERE id = ?", (session,))

    def _added(self, which: str, purpose: str | None) -> Paid:
        sums = "count(*), total(tokens_in), total(tokens_out), total(nano_usd), total(latency_s)"
        chosen, values = ("", (self.run,)) if purpose is None else ("AND purpose = ?", (self.run, purpose))
        found = self._read(f"SELECT {sums} FROM requests WHERE run = ? {chosen} AND {which}", values)[0]
        calls, read, written, nano_usd, seconds = found
        return Paid(calls, int(read), int(written), int(nano_usd), seconds)

    def _each(self, sql: str, keys: Sequence[bytes], order: str = "") -> Iterator[Any]:
        for start in range(0, len(keys), KEYS_A_QUERY):
            some = keys[start : start + KEYS_A_QUERY]
            yield from self._read(f"{sql} ({', '.join('?' * len(some))}) {order}", some)

    def _read(self, sql: str, values: Sequence[Any]) -> list[Any]:
        with self._sql_errors(), self._reading:
            return self._reader.execute(sql, values).fetchall()

    def _write(self, work: Callable[[sqlite3.Connection], T], paid: bool = True) -> T:
        """Do the work in a transaction, together with all that waits; returns once it is committed.

        What was paid for is then on the disk, whatever happens to the machine. A reservation survives the death of the
        process, and is on the disk with the next settlement.
        """
        mine = _Write(work, paid)
        self._waiting.append(mine)
        with self._turn:
            if not mine.done:
                self._commit([self._waiting.popleft() for _ in range(len(self._waiting))])
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _commit(self, batch: list[_Write[Any]]) -> None:
        try:
            with self._sql_errors():
                self._writer.execute(f"PRAGMA synchronous = {'FULL' if any(one.paid for one in batch) else 'NORMAL'}")
                self._writer.execute("BEGIN IMMEDIATE")
                for one in batch:
                    try:
                        one.result = one.work(self._writer)
                    except BudgetReached as error:  # raised before anything was written
                        one.error = error
                commit_point()
                self._writer.execute("COMMIT")
                commit_point()
        except BaseException as error:  # noqa: BLE001 - each thread that waits for this commit raises it
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            for one in batch:
                one.error = one.error or error
        for one in batch:
            one.done = True

    @contextmanager
    def _sql_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            told, where = str(error), str(self.path)
            if "full" in told:
                cure = "Free some space and run the same command again: everything bought before is kept"
                raise DiskFull("no room left on the disk", where=where, cure=cure) from error
            if "not a database" in told or "malformed" in told:
                cure = "Move it away and run again; answers in the store stay, raw responses are paid for again"
                raise CorruptFile("this is no whole ledger", where=where, cure=cure) from error
            raise RunError(
                f"the ledger cannot be used: {told}", where=where, cure="Look at the file and its folder"
            ) from error


@contextmanager
def opened(path: Path, run: str, limits: Limits, may_go_on: Callable[[], None] = lambda: None) -> Iterator[Ledger]:
    """The ledger at `path`, for the run of this name, closed when the block ends. Raises CorruptFile, DiskFull, RunError.

    `may_go_on` is asked before each reservation, and raises BudgetReached where the run's time is up.
    """
    ledger = Ledger(path, run, limits, may_go_on=may_go_on)
    try:
        yield ledger
    finally:
        ledger.close()


def _connect(path: Path) -> sqlite3.Connection:
    at = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    at.execute("PRAGMA journal_mode = WAL")
    return at


def _sum(costs: Iterable[Cost]) -> tuple[int, int]:
    """Tokens and nano-USD of all of them."""
    found = list(costs)
    return sum(one.tokens for one in found), sum(one.nano_usd for one in found)
