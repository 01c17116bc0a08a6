"""What must be kept and not read: keys of teachers, and the cookie of someone who signed in. AES-256-GCM, bound to its use.

The secret is a file of the service's root that only its owner may read, or $STILLROOM_SECRET (64 hex digits). Without it
what was sealed is lost, and nothing else.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stillroom.errors import CorruptFile, InputError
from stillroom.rundir import write_file

FILE = "secret"
VARIABLE = "STILLROOM_SECRET"
NONCE_BYTES = 12


class Vault:
    """Seals and opens bytes. `about` says what they are for; sealed for one use, they do not open for another."""

    def __init__(self, root: Path) -> None:
        self._cipher = AESGCM(_secret(root))

    def seal(self, plain: bytes, about: str) -> bytes:
        """What may be written down."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """What was sealed. Raises CorruptFile where it was not sealed with this secret, for this use."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about.encode())
        except InvalidTag as error:
            raise CorruptFile(
                "what was sealed does not open with this secret",
                where=about,
                cure=f"Bring back the file {FILE} of the service's root, or give the key once more",
            ) from error


def _secret(root: Path) -> bytes:
    given = os.environ.get(VARIABLE)
    if given is not None:
        try:
            found = bytes.fromhex(given.strip())
        except ValueError:
            found = b""
        if len(found) != 32:
            raise InputError("this is no secret", where=f"${VARIABLE}", cure="Give 64 hex digits: openssl rand -hex 32")
        return found
    path = root / FILE
    if not path.is_file():
        mask = os.umask(0o077)
        try:
            write_file(path, secrets.token_bytes(32))
        finally:
            os.umask(mask)
    found = path.read_bytes()
    if len(found) != 32:
        raise CorruptFile("the service's secret is damaged", where=str(path), cure="Bring back a copy of it")
    return found
