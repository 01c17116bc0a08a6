"""The service's database: its migrations, files of older versions, damaged files, and what a crash leaves."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from benchmarks.service_process import environment
from sqlalchemy import Connection, Engine, create_engine, func, insert, select

from stillroom.errors import CorruptFile
from stillroom.service.door.access import first_project, make_key, make_project
from stillroom.service.rows.database import FILE, MIGRATIONS, Database
from stillroom.service.rows.tables import VERSION, creations, events, jobs, keys, metadata, projects

JOB = {
    "created_at": 1, "status": "queued", "model": "m", "training_file": "file-x", "seed": 1, "hyperparameters": {},
    "asked": {}, "recipe": {}, "phases": {}, "figures": {},
}  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Any:
    """A new one, upgraded."""
    found = Database(tmp_path / "service")
    found.upgrade()
    yield found
    found.close()


def migrated(path: Path, revision: str) -> Engine:
    """A file as migrations alone make it, up to one of them."""
    engine, config = create_engine(f"sqlite:///{path}"), Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as rows:
        config.attributes["connection"] = rows
        command.upgrade(config, revision)
    return engine


def made_of(rows: Connection) -> dict[tuple[str, str], list[str]]:
    """Tables and indexes, each with the parts of its definition in an order that no constraint's place changes."""
    found = rows.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()
    return {(kind, name): sorted(re.split(r"[\s,()]+", sql or "")) for kind, name, sql in found}


def test_the_migrations_make_the_tables_of_a_new_file(tmp_path: Path, database: Database) -> None:
    with migrated(tmp_path / FILE, "head").connect() as old, database.reading() as new:
        context = MigrationContext.configure(old, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert made_of(old) == made_of(new)
        version = "SELECT version_num FROM alembic_version"
        assert old.exec_driver_sql(version).all() == new.exec_driver_sql(version).all() == [(VERSION,)]


def test_a_file_that_is_up_to_date_needs_no_alembic(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom stillroom.service.rows.database import Database\n"
        "for _ in range(2):\n    Database(pathlib.Path(sys.argv[1])).upgrade()\nprint('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_table_without_a_migration_would_be_seen(database: Database) -> None:
    with database.writing() as rows:
        rows.exec_driver_sql("ALTER TABLE keys DROP COLUMN expires_at")
    with database.reading() as rows:
        assert compare_metadata(MigrationContext.configure(rows), metadata) != []


def test_the_migrations_are_one_line() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert len(scripts.get_heads()) == 1
    assert [script.revision for script in scripts.walk_revisions()][-1] == "0001"


def revisions() -> list[str]:
    """Every revision but the last, oldest first: what an older version of the program may have left."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    every = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    return every[::-1][:-1] or every


@pytest.mark.parametrize("revision", revisions())
def test_an_older_file_keeps_its_rows(tmp_path: Path, revision: str) -> None:
    root = tmp_path / "service"
    root.mkdir()
    engine = migrated(root / FILE, revision)
    with engine.begin() as rows:
        rows.exec_driver_sql(
            "INSERT INTO projects (id, name, created_at, trains_on_stored) VALUES ('proj-1', 'old', 7, 1)"
        )
        rows.exec_driver_sql(
            "INSERT INTO creations (number, project_id, key_id, name, body_sha256, created_at) "
            "VALUES (9, 'proj-1', '', 'key a', 'x', 8.0)"
        )
    engine.dispose()
    for _ in range(2):  # once more changes nothing
        database = Database(root)
        database.upgrade()
        with database.reading() as rows:
            found = rows.execute(select(projects)).mappings().all()
            begun = rows.execute(select(creations.c.number, creations.c.name, creations.c.status)).all()
        database.close()
        assert [(row["id"], row["name"], row["created_at"], row["trains_on_stored"]) for row in found] == [
            ("proj-1", "old", 7, True)
        ]
        assert begun == [(9, "key a", None)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000),
    ],
    ids=["another file", "cut", "overwritten"],
)
def test_a_damaged_file_is_an_error_with_a_cure(tmp_path: Path, damage: Any) -> None:
    database = Database(tmp_path)
    database.upgrade()
    make_project(database, "x")
    database.close()
    damage(tmp_path / FILE)
    for beside in ("-wal", "-shm"):
        (tmp_path / (FILE + beside)).unlink(missing_ok=True)
    with pytest.raises(CorruptFile, match="choose another --root") as caught:
        Database(tmp_path).upgrade()
    assert FILE in caught.value.where


def test_a_file_of_a_later_version_is_an_error_with_a_cure(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.upgrade()
    with database.writing() as rows:
        rows.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CorruptFile, match="use the version of Stillroom that wrote it"):
        database.upgrade()
    database.close()


def test_serve_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("no database at all" * 1000)
    words = [sys.executable, "-m", "stillroom", "serve", "--root", str(tmp_path), "--port", "0"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: the service's database cannot be used")


def test_only_its_owner_may_read_it(database: Database) -> None:
    assert database.path.stat().st_mode & 0o077 == 0


def test_it_is_written_durably(database: Database) -> None:
    with database.reading() as rows:
        told = [
            rows.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert told == ["wal", 2, 1]


WRITES_FOREVER = """
import sys
from pathlib import Path
from stillroom.service.door.access import make_project
from stillroom.service.rows.database import Database
database = Database(Path(sys.argv[1]))
number = 0
while True:
    make_project(database, f"number {number}")
    print(number, flush=True)
    number += 1
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    root = tmp_path / "service"
    Database(root).upgrade()
    command_line = [sys.executable, "-c", WRITES_FOREVER, str(root)]
    with subprocess.Popen(command_line, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 40:
                process.kill()
                break
        rest = [int(line) for line in process.stdout if line.strip().isdigit()]
    told = max([40, *rest])
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    database = Database(copy)
    database.upgrade()
    with database.reading() as rows:
        names = set(rows.execute(select(projects.c.name)).scalars())
        assert rows.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    database.close()
    assert {f"number {number}" for number in range(told + 1)} <= names


def test_a_writer_that_fails_leaves_nothing(database: Database) -> None:
    before = first_project(database)
    with pytest.raises(ZeroDivisionError), database.writing() as rows:
        rows.execute(insert(projects).values(id="proj-x", name="x", created_at=1, trains_on_stored=False))
        raise ZeroDivisionError
    with database.reading() as rows:
        assert rows.execute(select(projects.c.id)).scalars().all() == [before]


def test_a_row_needs_its_project(database: Database) -> None:
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError), database.writing() as rows:
        rows.execute(insert(jobs).values(id="ftjob-x", project_id="proj-none", **JOB))


def test_numbers_are_never_given_twice(database: Database) -> None:
    """A reader that goes on after the last event it saw would otherwise miss one."""
    project = first_project(database)
    event = {
        "project_id": project,
        "job_id": "ftjob-x",
        "created_at": 1.0,
        "level": "info",
        "type": "message",
        "message": "m",
    }
    with database.writing() as rows:
        rows.execute(insert(jobs).values(id="ftjob-x", project_id=project, **JOB))
        last = rows.execute(insert(events).values(**event)).inserted_primary_key[0]
        rows.execute(events.delete())
        assert rows.execute(insert(events).values(**event)).inserted_primary_key[0] > last


def test_keys_are_kept_as_their_digest(database: Database) -> None:
    _, secret = make_key(database, first_project(database), "a key")
    with database.reading() as rows:
        assert rows.execute(select(func.count()).select_from(keys)).scalar() == 1
    database.close()
    written = b"".join(path.read_bytes() for path in database.path.parent.iterdir())
    assert secret.encode() not in written
    assert sqlite3.connect(database.path).execute("SELECT length(digest) FROM keys").fetchone() == (64,)
