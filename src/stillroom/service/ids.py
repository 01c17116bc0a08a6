"""Names that the service gives: a prefix and 24 letters and digits of chance. Nothing a client wrote is ever part of a path."""

from __future__ import annotations

import re
import secrets
import string

LETTERS = string.ascii_letters + string.digits
LENGTH = 24
ID = re.compile(r"[a-z]+(_[a-z]+)?-[A-Za-z0-9]{24}")


def chance(length: int = LENGTH) -> str:
    """So many letters and digits that nobody can guess."""
    return "".join(secrets.choice(LETTERS) for _ in range(length))


def new_id(prefix: str) -> str:
    """`prefix-` and 24 letters."""
    return f"{prefix}-{chance()}"


def is_id(text: str, prefix: str) -> bool:
    """True for what `new_id(prefix)` could have given."""
    return text.startswith(f"{prefix}-") and ID.fullmatch(text) is not None
