"""The service's rows: one SQLite file in WAL, written durably, upgraded by Alembic when the service starts.

    with database.reading() as rows: rows.execute(select(..))              # or a Statement, where it runs often
    with database.writing() as rows: rows.execute(insert(..))       # BEGIN IMMEDIATE: one writer at a time, others wait

A commit has reached the disk when it returns (synchronous=FULL). Other programs on this machine may open the same file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import Engine

from stillroom.errors import CorruptFile
from stillroom.rundir import path_errors
from stillroom.service.rows.statements import json_value

FILE = "service.sqlite"
BUSY_MS, TRIM_MS = 30_000, 200
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """The file `service.sqlite` below the service's root."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        with path_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        # One write within another is SQLite's to refuse, rather than ours to wait for for ever.
        self._turn = threading.RLock()
        self._engine: Engine = create_engine(
            f"sqlite:///{self.path}", pool_size=32, max_overflow=32, json_deserializer=json_value
        )
        event.listen(self._engine, "connect", _settle)
        event.listen(self._engine, "begin", _begin)

    def upgrade(self) -> None:
        """Bring the tables to this program's version. Raises CorruptFile for a file that is no database of ours."""
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError
        from sqlalchemy.exc import DatabaseError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        try:
            with self.writing() as rows:
                config.attributes["connection"] = rows
                command.upgrade(config, "head")
        except (DatabaseError, CommandError) as error:
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
    def writing(self) -> Iterator[Connection]:
        """A connection that alone may write, committed when the block ends well.

        Writers of one process wait for each other here, where the next one goes on at once; SQLite would have it look again
        after up to a tenth of a second.
        """
        with self._turn, self._engine.connect().execution_options(writes=True) as rows, rows.begin():
            yield rows

    def trim(self) -> None:
        """Let what was erased leave the write-ahead log too. Where readers are in the way, the next time will do."""
        raw = self._engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute(f"PRAGMA busy_timeout={TRIM_MS}")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            cursor.fetchall()
            cursor.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            cursor.close()
        finally:
            raw.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _settle(raw: Any, record: Any) -> None:
    raw.isolation_level = None  # transactions are begun by `_begin`, not by the driver
    cursor = raw.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={BUSY_MS}",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(rows: Connection) -> None:
    rows.exec_driver_sql("BEGIN IMMEDIATE" if rows.get_execution_options().get("writes") else "BEGIN")
