"""What was committed is copied from the write-ahead log into the database beside the writers, in a thread of its own.

SQLite would do it within a commit, for which all other writers then wait. Where the log grows all the same, since somebody
always writes, our own writers are held up for the little that was not copied yet: then the log begins anew.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

from stillroom.service.watch.logs import log_error

EVERY_S = 0.25
"""From a first write to the copying of it and of those that came meanwhile: while the disk is busy with that, a commit waits,
the longer the more there is to copy. Of 60 writes a second beside two busy processes the slowest took 67 to 99 ms in four
runs at 1 s, and 46 and 52 ms in two at this.
"""
MOST_PAGES = 4_000
"""Of the log, about 16 MiB: from here on it should begin anew."""
AGAIN_S, ANOTHER_S = 0.02, 5.0
"""Between two tries, and of all of them, to begin the log anew while somebody else copies."""


class Checkpoints:
    """Of one database file; `turn` is what its writers in this process hold."""

    def __init__(self, path: Path, turn: threading.RLock) -> None:
        self._path, self._turn = path, turn
        self._news, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def wrote(self) -> None:
        """Somebody committed something. To be called with the turn."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()
        self._news.set()

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._news.wait()
            if self._ending.wait(EVERY_S):
                return
            self._news.clear()
            if self._ending.is_set():  # the news may have been that this is to end
                return
            try:
                with closing(sqlite3.connect(self._path, isolation_level=None)) as rows:
                    if copied(rows) > MOST_PAGES:
                        with self._turn:
                            copied(rows)
            except sqlite3.Error as error:
                log_error("checkpoint failed", error)


def copied(rows: sqlite3.Connection) -> int:
    """Copy what can be without waiting for anybody; how many pages the log has. Raises sqlite3.Error."""
    _, pages, _ = rows.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages)


def begun_anew(rows: sqlite3.Connection) -> bool:
    """Copy all there is and empty the log; False where a reader is in the way for as long as `rows` waits. Raises sqlite3.Error.

    While another connection copies, of this process or of another one, SQLite refuses at once, however long it was told to
    wait, and tells of -1 pages. Whoever copies does so for a moment, four times a second, so it is tried again.
    """
    ends = time.monotonic() + ANOTHER_S
    while True:
        is_held_up, pages, _ = rows.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if pages >= 0 or time.monotonic() > ends:
            return not is_held_up
        time.sleep(AGAIN_S)
