"""Where each stage keeps its folder, and how a file becomes durable.

A stage writes its folder, then `manifest.json` last: the sha256 of each file and the fingerprint of what the folder was
made from. A folder without a manifest, or with another fingerprint, is made again; so a killed run goes on where it was.
Every fsync and rename is a commit point, numbered, at which a test can end the process (STILLROOM_KILL_AT=n).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stillroom.errors import CorruptFile, DiskFull, ForeignRun, InputError, RunBusy

MANIFEST = "manifest.json"
LOCK_POLL_S = 0.1
OWNER = ".name"
"""In a run folder: the name of the run it belongs to."""
FOLDER = ".folder"
"""In a run folder: where the relative paths of its recipe start."""
_commit_points = 0


def commit_point() -> None:
    """Called before and after each fsync and rename. Ends the process here if STILLROOM_KILL_AT names this point."""
    global _commit_points  # noqa: PLW0603 - a process-wide count is what fault injection needs
    _commit_points += 1
    if os.environ.get("STILLROOM_KILL_AT") == str(_commit_points):
        os.kill(os.getpid(), signal.SIGKILL)
    log = os.environ.get("STILLROOM_COMMIT_LOG")
    if log:
        Path(log).write_text(str(_commit_points))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' into an error that says where, and that nothing finished is lost."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            "no room left on the disk",
            where=str(path),
            cure="Free some space and run the same command again: everything finished before is kept",
        ) from error


UNUSABLE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def path_errors(path: Path) -> Iterator[None]:
    """Turn 'cannot be written there' into an error that says where, before anything is spent."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        told = (error.strerror or "it cannot be used").lower()
        raise InputError(
            f"nothing can be written here: {told}", where=str(path), cure="Choose another place, or mend this one"
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each with its name on disk before anything stands in it."""
    missing = [folder, *folder.parents]
    missing = missing[: next(place for place, one in enumerate(missing) if one.exists())]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write `path` so that after any crash it holds either its old content or all of the new."""
    write_pieces(path, [data])


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """The same, piece by piece, for what need never be whole in memory."""
    make_folder(path.parent)
    staged = path.with_name(path.name + ".staged")
    with disk_errors(path):
        with open(staged, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            commit_point()
            os.fsync(file.fileno())
            commit_point()
        os.rename(staged, path)
        commit_point()
        sync_folder(path.parent)


def _is_device(path: Path) -> bool:
    """/dev/stdout and its like: what is written there goes on to wherever a shell has led it."""
    return path.is_relative_to("/dev") or (path.exists() and not path.is_file() and not path.is_dir())


def refuse_taken(path: Path) -> None:
    """Raise InputError where a file that a person named to write stands already, or its folder does not.

    A device may be there, and so may a link to a file that is not.
    """
    with path_errors(path):
        if _is_device(path):
            return
        target = path.resolve()
        if target.is_file():
            raise InputError("this file exists", where=str(path), cure="Choose another name, or remove it first")
        if not target.parent.exists():
            cure = f"Make it first: mkdir -p {path.parent}"
            raise InputError("there is no such folder to write into", where=str(path), cure=cure)


def write_named(path: Path, data: bytes) -> None:
    """Write a file that a person named: a link is followed, and a device such as /dev/stdout is written to.

    No file is overwritten. Raises InputError, DiskFull.
    """
    refuse_taken(path)
    with path_errors(path):
        if _is_device(path):
            with disk_errors(path), open(path, "wb") as file:
                file.write(data)
            return
        write_file(path.resolve(), data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, durably (see `write_file`)."""
    write_file(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; a file that is cut short or damaged is a CorruptFile."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        # A file at the top of a run is made anew by itself, one of a stage with all that the stage wrote.
        damaged = path if (path.parent / OWNER).is_file() else path.parent
        raise CorruptFile(
            "this file is not whole JSON", where=str(path), cure=f"Remove {damaged} and run again; it is made anew"
        ) from error


def publish(staged: Path, final: Path) -> None:
    """Give a finished, synced folder its final name in one step."""
    with disk_errors(final):
        sync_folder(staged)
        commit_point()
        os.rename(staged, final)
        commit_point()
        sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        commit_point()
        os.fsync(handle)
        commit_point()
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """The sha256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: Any) -> str:
    """A digest of JSON-like values: equal values, equal fingerprint, in any process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def seal(folder: Path, made_from: str) -> None:
    """Write the folder's manifest: from now on it is finished. Finished folders within it have manifests of their own."""
    within = _sealed_within(folder)
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST and not within.intersection(path.parents)
    )
    sums = {str(path.relative_to(folder)): sha256_file(path) for path in files}
    write_json(folder / MANIFEST, {"made_from": made_from, "files": sums})


def is_sealed(folder: Path, made_from: str) -> bool:
    """True where the folder is finished and was made from just this."""
    return (folder / MANIFEST).is_file() and bool(_manifest(folder)["made_from"] == made_from)


def _sealed_within(folder: Path) -> set[Path]:
    """The finished folders below this one: what an arm's teacher learned stands within the arm."""
    return {path.parent for path in folder.rglob(MANIFEST) if path.parent != folder}


def _manifest(folder: Path) -> dict[str, Any]:
    found = read_json(folder / MANIFEST)
    if not isinstance(found, dict) or not {"made_from", "files"} <= set(found):
        raise CorruptFile(
            "this is no manifest of a finished folder",
            where=str(folder / MANIFEST),
            cure=f"Remove {folder} and run again; only what it held is made anew",
        )
    return found


def verify(folder: Path) -> None:
    """Compare every file with the manifest. Raises CorruptFile naming the first that differs."""
    for name, expected in _manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != expected:
            raise CorruptFile(
                "this file does not match its checksum",
                where=str(path),
                cure=f"Remove {folder} and run again; only what it held is made anew",
            )


def take_lock(path: Path, wait_s: float = 0.0, else_: str = "choose another folder with --run") -> int:
    """Take the lock file at `path` for this process; one that stays busy is a RunBusy. Returns the open handle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, until = os.open(path, os.O_RDWR | os.O_CREAT, 0o644), time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError as error:
            if time.monotonic() >= until:
                os.close(handle)
                raise RunBusy(
                    "another process is working in this folder",
                    where=str(path.parent),
                    cure=f"Wait for it to end, or {else_}",
                ) from error
        time.sleep(LOCK_POLL_S)


@contextmanager
def lock(path: Path, wait_s: float = 0.0, else_: str = "choose another folder with --run") -> Iterator[None]:
    """Hold the lock file at `path` while the block runs; the system frees it if the process dies."""
    with held(take_lock(path, wait_s, else_)):
        yield


@contextmanager
def held(handle: int) -> Iterator[None]:
    """Let go of a lock when the block ends."""
    try:
        yield
    finally:
        os.close(handle)


def paths_start(recipe: Path) -> Path:
    """The folder that a recipe file's relative paths start from: its own; a run's recipe remembers the one it had."""
    kept = recipe.parent / FOLDER
    return Path(kept.read_text()) if kept.is_file() else recipe.parent


class RunDir:
    """A run folder: its stages, its events and its temporary work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / ".work"

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold the folder for the run called `name`. Raises RunBusy or ForeignRun."""
        with path_errors(self.path):
            self._refuse_foreign(name)  # before anything is written into what is somebody else's
            make_folder(self.path)
            handle = take_lock(self.path / ".lock")
        with held(handle):
            self._refuse_foreign(name)
            if not (self.path / OWNER).is_file():
                write_file(self.path / OWNER, name.encode())
            yield

    def _refuse_foreign(self, name: str) -> None:
        """Raise ForeignRun where the folder is another run's, or holds something else."""
        owner = self.path / OWNER
        if owner.is_file():
            if owner.read_text() != name:
                raise ForeignRun(
                    f"this folder holds the run {owner.read_text()!r}, not {name!r}",
                    where=str(self.path),
                    cure="Choose another folder with --run, or give the recipe that run's name",
                )
        elif self.path.is_dir() and any(one.name not in (".lock", ".name.staged") for one in self.path.iterdir()):
            raise ForeignRun(
                "this folder is not empty and holds no run",
                where=str(self.path),
                cure="Choose another folder with --run",
            )

    @contextmanager
    def stage(self, name: str, made_from: str) -> Iterator[Path | None]:
        """Yield the folder to fill, or None where it is finished already; sealed when the block ends well.

        Its working folder goes once it is sealed, not before: a kill in between would cost all of the work.
        """
        folder = self.path / name
        if is_sealed(folder, made_from):
            yield None
            return
        self.discard(folder)
        make_folder(folder)
        yield folder
        seal(folder, made_from)
        shutil.rmtree(self.work_of(name, made_from), ignore_errors=True)

    def work_of(self, name: str, made_from: str) -> Path:
        """Where the stage keeps its checkpoints while it fills its folder."""
        return self.work / fingerprint(name, made_from)[:16]

    def discard(self, folder: Path) -> None:
        """Remove a stale or half-written folder, its manifest first, so that no half of it can pass for whole.

        Finished folders within it stay: they are stages of their own.
        """
        (folder / MANIFEST).unlink(missing_ok=True)
        within = _sealed_within(folder)
        if not within:
            shutil.rmtree(folder, ignore_errors=True)
            return
        around = {above for one in within for above in one.parents}
        for path in folder.iterdir() if folder in around else ():
            if path in within:
                continue
            if path in around:
                self.discard(path)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

    def event(self, kind: str, **values: Any) -> None:
        """Append one line to events.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **values}, ensure_ascii=False)
        with disk_errors(self.path), open(self.path / "events.jsonl", "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line  # a crash may have cut the last one
            file.write((line + "\n").encode())

    def events(self) -> list[dict[str, Any]]:
        """All whole lines of events.jsonl; a line cut by a crash is left out."""
        path, found = self.path / "events.jsonl", []
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []:
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found
