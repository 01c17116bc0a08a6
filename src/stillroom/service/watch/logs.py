"""Log lines as JSON on standard error: what happened, with the ids of the request and the job. No text of anyone's, no key.

A line of a request carries its id by itself, also from the thread that answers it. The message of an exception is left
out, since a database's names the values it was given: its kind and where it was raised are told.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from contextvars import ContextVar
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered here."""
FRAMES = 12
"""The innermost so many lines of a traceback are told."""
_WRITTEN = json.JSONEncoder(ensure_ascii=False, default=str).encode


def log(event: str, level: str = "info", **values: Any) -> None:
    """One line."""
    line: dict[str, Any] = {"ts": round(time.time(), 3), "level": level, "event": event}
    if (known := request_id.get()) is not None:
        line["request_id"] = known
    sys.stderr.write(_WRITTEN({**line, **values}) + "\n")
    sys.stderr.flush()


def log_error(event: str, error: BaseException, **values: Any) -> None:
    """One line about an exception that nobody expected: its kind, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    log(
        event,
        "error",
        error=type(error).__name__,
        at=[f"{one.filename}:{one.lineno} {one.name}" for one in frames],
        **values,
    )


class AsJson(logging.Handler):
    """What libraries log, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        if record.exc_info and record.exc_info[1] is not None:
            log_error("log", record.exc_info[1], logger=record.name)
        else:
            log("log", record.levelname.lower(), logger=record.name, message=record.getMessage())


def install() -> None:
    """From now on warnings and errors of libraries are written so too."""
    root = logging.getLogger()
    root.handlers[:] = [AsJson(logging.WARNING)]
    logging.captureWarnings(True)
