"""Connections that are kept open between two requests."""

from __future__ import annotations

import select
import socket


def has_ended(sock: socket.socket) -> bool:
    """True where an idle connection has something to be read: what comes before anything was asked is the end of it.

    `select.poll`, since `select.select` cannot look at descriptors from 1,024 on.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
