"""The service's rows: one SQLite file in WAL, written durably; Alembic upgrades an older one when the service starts.

    with database.reading() as rows: rows.execute(select(..))              # or a Statement, where it runs often
    with database.writing() as rows: rows.execute(insert(..))       # BEGIN IMMEDIATE: one writer at a time, others wait

A commit has reached the disk when it returns (synchronous=FULL). Other programs on this machine may open the same file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, inspect
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DatabaseError

from stillroom.errors import CorruptFile
from stillroom.rundir import path_errors
from stillroom.service.rows.checkpoints import Checkpoints, begun_anew, copied
from stillroom.service.rows.statements import json_value
from stillroom.service.rows.tables import VERSION, metadata
from stillroom.service.watch.logs import log

FILE = "service.sqlite"
BUSY_MS, TRIM_MS = 30_000, 200
SLOW_S = 0.5
"""Whatever part of a write takes longer is told in the log."""
WRITE_PARTS = ("turn_s", "begin_s", "work_s", "commit_s")
TRIM_PARTS = ("copy_s", "truncate_s")
MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS = (
    "alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)
"""As Alembic makes it."""


class NoWayThere(Exception):
    """No migration leads from a file's version to this program's."""


class Database:
    """The file `service.sqlite` below the service's root."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        with path_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        # One write within another is SQLite's to refuse, rather than ours to wait for for ever.
        self._turn = threading.RLock()
        self._checkpoints = Checkpoints(self.path, self._turn)
        self._trimmed_at = 0
        self._engine: Engine = create_engine(
            f"sqlite:///{self.path}", pool_size=32, max_overflow=32, json_deserializer=json_value
        )
        event.listen(self._engine, "connect", _settle)
        event.listen(self._engine, "begin", _begin)

    def upgrade(self) -> None:
        """Bring the tables to this program's version. Raises CorruptFile for a file that is no database of ours.

        An empty file gets them as they are now: Alembic, which brings older ones here, takes a seventh of a start to import.
        """
        try:
            with self.writing(tells=False) as rows:  # tables take their time to be made
                if not inspect(rows).get_table_names():
                    metadata.create_all(rows)
                    rows.exec_driver_sql(f"CREATE TABLE {VERSIONS}")
                    rows.exec_driver_sql("INSERT INTO alembic_version (version_num) VALUES (?)", (VERSION,))
                elif _version(rows) != VERSION:
                    _migrate(rows)
        except (DatabaseError, sqlite3.DatabaseError, NoWayThere) as error:  # a write is begun by the driver itself
            raise CorruptFile(
                f"the service's database cannot be used: {error}",
                where=str(self.path),
                cure="Bring back a copy of it, use the version of Stillroom that wrote it, or choose another --root",
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with; what it sees does not change under it."""
        with self._engine.connect() as rows, rows.begin():
            yield rows

    @contextmanager
    def writing(self, *, one_of_many: bool = False, tells: bool = True) -> Iterator[Connection]:
        """A connection that alone may write, committed when the block ends well.

        Writers of one process wait for each other here, where the next one goes on at once; SQLite would have it look again
        after up to a tenth of a second. `one_of_many`: there is one after the other, so this returns only after as long as
        it wrote, for another process to come in between: SQLite gives nobody a place in a queue. `tells`: what took long is
        logged.
        """
        marks = [time.monotonic()]
        try:
            with self._turn:
                marks.append(time.monotonic())
                with self._engine.connect().execution_options(writes=True) as rows:
                    with rows.begin():
                        marks.append(time.monotonic())
                        yield rows
                        marks.append(time.monotonic())
                    self._checkpoints.wrote()
        finally:
            if tells:
                _tell("slow write", WRITE_PARTS, [*marks, time.monotonic()])
        if one_of_many:
            time.sleep(time.monotonic() - marks[2])

    def trim(self, erased_at: int) -> bool:
        """Let what was erased, the last of it at this time, leave the write-ahead log too; False where readers are in the way.

        Raises sqlite3.Error. Nothing is done where it has left already: writers wait for this.
        """
        if erased_at < self._trimmed_at:
            return True
        raw, marks, now = self._engine.raw_connection(), [time.monotonic()], int(time.time())
        rows: Any = raw.dbapi_connection
        try:
            copied(rows)  # so that there is little left to be copied while writers wait
            marks.append(time.monotonic())
            rows.execute(f"PRAGMA busy_timeout={TRIM_MS}")
            is_done = begun_anew(rows)
        finally:
            rows.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            raw.close()
            _tell("slow trim", TRIM_PARTS, [*marks, time.monotonic()])
        if is_done:
            self._trimmed_at = now
        return is_done

    def close(self) -> None:
        """Close every connection."""
        self._checkpoints.close()
        self._engine.dispose()


def _version(rows: Connection) -> str | None:
    """Of the tables in a file; None where no program of ours made them."""
    if not inspect(rows).has_table("alembic_version"):
        return None
    return str(rows.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())


def _migrate(rows: Connection) -> None:
    """Bring an older file's tables here, rows and all. Raises NoWayThere."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = rows
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise NoWayThere(str(error)) from error


def _tell(event: str, parts: tuple[str, ...], marks: list[float]) -> None:
    """A line in the log for what took long: the seconds of each of its parts."""
    took = [after - before for before, after in pairwise(marks)]
    if max(took) > SLOW_S:
        log(event, "warning", **{name: round(part, 3) for name, part in zip(parts, took, strict=False)})


def _settle(raw: Any, record: Any) -> None:
    raw.isolation_level = None  # transactions are begun by `_begin`, not by the driver
    cursor = raw.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={BUSY_MS}",
        "foreign_keys=ON",
        "secure_delete=ON",
        "wal_autocheckpoint=0",  # see checkpoints.py
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(rows: Connection) -> None:
    raw: Any = rows.connection.dbapi_connection  # by the driver itself, since this is before every request's statements
    raw.execute("BEGIN IMMEDIATE" if rows.get_execution_options().get("writes") else "BEGIN")
