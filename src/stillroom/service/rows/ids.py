"""Names that the service gives: a prefix and 24 letters and digits of chance. Nothing a client wrote is ever part of a path."""

from __future__ import annotations

import os
import re
import string

LETTERS = string.ascii_letters + string.digits
LENGTH = 24
ID = re.compile(r"[a-z]+(_[a-z]+)?-[A-Za-z0-9]{24}")
EVEN = 256 - 256 % len(LETTERS)
"""Bytes from here on are thrown away, so that each letter is as likely as the next."""
TO_LETTERS = bytes(ord(LETTERS[value % len(LETTERS)]) for value in range(256))


def chance(length: int = LENGTH) -> str:
    """So many letters and digits that nobody can guess."""
    found = b""
    while len(found) < length:
        found += os.urandom(2 * length).translate(TO_LETTERS, bytes(range(EVEN, 256)))
    return found[:length].decode("ascii")


def new_id(prefix: str) -> str:
    """`prefix-` and 24 letters."""
    return f"{prefix}-{chance()}"


def is_id(text: str, prefix: str) -> bool:
    """True for what `new_id(prefix)` could have given."""
    return text.startswith(f"{prefix}-") and ID.fullmatch(text) is not None
