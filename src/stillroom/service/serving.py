"""`stillroom serve`: listen, start the worker that carries out jobs, and end both cleanly."""

from __future__ import annotations

import gc
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from sqlalchemy import select

from stillroom.errors import InputError
from stillroom.rundir import held, path_errors, take_lock
from stillroom.service.app import create_app
from stillroom.service.data.redaction import redaction_of
from stillroom.service.door.access import SCOPES, first_project, make_key
from stillroom.service.rows.database import FILE, Database
from stillroom.service.rows.tables import keys
from stillroom.service.settings import Settings
from stillroom.service.watch import logs
from stillroom.service.work.tending import Tended

BACKLOG = 1024
END_S = 10
KEEP_S = 75
"""An idle connection stays open: longer than clients keep theirs, which else would send into one that is just being closed."""
PRIVATE = 0o077
"""What is taken from the rights of everyone else."""


def new_key(root: Path, name: str) -> str:
    """A key with every right in the first project; shown this once."""
    with private(root):
        database = Database(root)
        database.upgrade()
        _, secret = make_key(database, first_project(database), name, SCOPES)
        database.close()
        return secret


@contextmanager
def private(root: Path) -> Iterator[None]:
    """What this process and its children make meanwhile is for their user alone: people's texts are in it. So is a root that
    they had before; a folder that somebody else made for them is left as it is.
    """
    old = os.umask(PRIVATE)
    try:
        if (root / FILE).exists() and root.stat().st_uid == os.geteuid():
            with path_errors(root):
                root.chmod(stat.S_IMODE(root.stat().st_mode) & ~PRIVATE)
        yield
    finally:
        os.umask(old)


def show(url: str) -> bool:
    """Open an address in a browser that has a window of its own; False where this machine has none."""
    import webbrowser

    has_windows = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return has_windows and webbrowser.open(url)


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` gets the address. Raises InputError for settings that would let strangers in,
    or a port that is taken; RunBusy where another service has this root.
    """
    with private(settings.root):
        settings.check(_has_key(settings))
        redaction_of(settings)
        with path_errors(settings.root):
            lock = take_lock(settings.root / ".lock", else_="choose another --root")
        with held(lock), _listening(settings) as listening:
            logs.install()
            app = create_app(settings)
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=END_S,
                timeout_keep_alive=KEEP_S,
                backlog=BACKLOG,
            )
            address = listening.getsockname()
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            with Tended(settings):
                gc.freeze()  # what was imported stays; looking through it for garbage would hold up answers for 0.3 s
                ready(f"http://{host}:{address[1]}")
                _Server(config, app.state.ending.set).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Tells open event streams to end with it, since they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        self._ending()
        super().handle_exit(sig, frame)


def _has_key(settings: Settings) -> bool:
    """There is a key that is good now, and with which others can be made."""
    if not settings.is_open:
        return False
    database = Database(settings.root)
    database.upgrade()
    is_good = keys.c.revoked_at.is_(None) & (keys.c.expires_at.is_(None) | (keys.c.expires_at > time.time()))
    with database.reading() as rows:
        found = rows.execute(select(keys.c.scopes).where(is_good)).scalars().all()
    database.close()
    return any("admin" in scopes for scopes in found)


def _listening(settings: Settings) -> socket.socket:
    """A socket that listens. Raises InputError where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        found.close()
        told = (error.strerror or "it cannot be used").lower()
        where = f"{settings.host}:{settings.port}"
        raise InputError(f"no server can be had there: {told}", where=where, cure="Choose another --port") from error
    found.listen(BACKLOG)
    return found
