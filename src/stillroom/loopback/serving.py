"""A loopback teacher in the foreground, or in a process of its own that ends with the one that started it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stillroom import errors
from stillroom.errors import InputError, RunError, StillroomError
from stillroom.loopback.desk import Desk
from stillroom.loopback.spec import Spec

HOST = "127.0.0.1"
END_S = 10.0
BACKLOG = 1024
CHILD = "from stillroom.loopback.serving import child; child()"


def folders_of(start: Path) -> list[Path]:
    """Where relative paths of a file are looked for: beside it, then in $STILLROOM_DATA, then here."""
    data = os.environ.get("STILLROOM_DATA")
    return [start, *([Path(data)] if data else []), Path()]


def serve(
    spec: Spec, folders: list[Path], host: str, port: int, ready: Callable[[str], None], watch: bool = False
) -> Desk:
    """Serve until SIGINT or SIGTERM; with `watch` also until stdin ends. `ready` gets the base URL. Returns the desk.

    Raises InputError where the port is taken, DataError or ModelError for what the mind cannot read.
    """
    thinker = spec.mind.build(folders)
    loop = asyncio.new_event_loop()
    try:
        desk = Desk(spec, thinker, loop)
        try:
            server = loop.run_until_complete(loop.create_server(desk.connection, host, port, backlog=BACKLOG))
        except OSError as error:
            told = (error.strerror or "it cannot be used").lower()
            raise InputError(
                f"no server can be had there: {told}", where=f"{host}:{port}", cure="Choose another --port"
            ) from error
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, loop.stop)
        if watch:
            loop.add_reader(sys.stdin.fileno(), _stop_at_the_end, loop)
        ready(f"http://{host}:{server.sockets[0].getsockname()[1]}/v1")
        loop.run_forever()
        if watch:
            loop.remove_reader(sys.stdin.fileno())
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one ends it at once
            loop.remove_signal_handler(number)
        server.close()
        for connection in list(desk.open):
            connection.close()
        loop.stop()
        loop.run_forever()  # one last turn, for what hangs up
    finally:
        loop.close()
    return desk


def _stop_at_the_end(loop: asyncio.AbstractEventLoop) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.stop()


def child() -> None:
    """The process behind `Loopback`: what to serve comes as one line on stdin, the URL or an error goes out as one."""
    with suppress(BrokenPipeError):
        try:
            line = b""
            while not line.endswith(b"\n"):
                read = os.read(sys.stdin.fileno(), 65_536)
                if not read:
                    return
                line += read
            asked = json.loads(line)
            spec = Spec.from_tree(asked["spec"])
            serve(spec, [Path(one) for one in asked["folders"]], asked["host"], asked["port"], _say_url, watch=True)
        except StillroomError as error:
            _say({"error": type(error).__name__, "told": [error.what, error.where, error.cure]})


def _say_url(url: str) -> None:
    _say({"url": url})


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


class Loopback:
    """A loopback teacher in a process of its own.

        with Loopback(spec) as url:
            client = openai.OpenAI(base_url=url, api_key="any")

    It ends with `stop`, or when the process that started it ends, however it does.
    """

    def __init__(self, spec: Spec | dict[str, Any], folder: Path = Path(), host: str = HOST, port: int = 0) -> None:
        self.spec = spec if isinstance(spec, Spec) else Spec.from_tree(spec)
        self._folders, self._host, self._port = folders_of(folder), host, port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> str:
        """Start serving; the base URL, which ends in /v1.

        Raises RunError where it ends before it serves, InputError for a spec or a file that it cannot use.
        """
        source = Path(__file__).resolve().parents[2]
        paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # a Ctrl-C at the terminal is for the one that asks
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {
            "spec": self.spec.model_dump(mode="json"),
            "folders": [str(folder.absolute()) for folder in self._folders],
            "host": self._host,
            "port": self._port,
        }
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        told = self._process.stdout.readline()
        if not told:
            self.stop()
            raise RunError("the loopback teacher ended before it served", cure="What it said stands above")
        found = json.loads(told)
        if "error" in found:
            self.stop()
            what, where, cure = found["told"]
            raise getattr(errors, found["error"])(what, where=where, cure=cure)
        self.url = found["url"]
        return self.url

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def bill(self) -> dict[str, Any]:
        """What it was paid for, as GET /loopback/bill gives it."""
        return self.about("bill")

    def about(self, what: str) -> dict[str, Any]:
        """`bill`, or `twice`: the requests that were paid for more than once."""
        from urllib.request import ProxyHandler, build_opener

        address = f"{self.url.removesuffix('/v1')}/loopback/{what}"
        with build_opener(ProxyHandler({})).open(address, timeout=END_S) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.stop()
