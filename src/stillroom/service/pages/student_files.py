"""A student's files, one by one and as a zip that is written while it is sent, so that no copy of the weights is made."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from stillroom.service.door.lists import Row
from stillroom.service.settings import Settings
from stillroom.stages.report import EXPORTED, SEAL

PIECE_BYTES = 1 << 18
WORDS = {
    "model.safetensors": "The weights",
    "config.json": "The architecture and the classes",
    "inputs.json": "How inputs are turned into numbers",
    "README.md": "The student's card: what it learned from, and under which terms",
    "history.json": "Its losses",
    "manifest.json": "Digests of these files",
    "tokenizer.json": "The tokenizer",
    "stillroom.json": "What it was made for",
    "cascade.json": "How sure it has to be to answer without its teacher",
}
SAID = "Exported for ONNX Runtime"
BESIDE = {
    "README.md": "How to run the exported file",
    "check.json": "The exported file beside the student: answers, size, speed",
    "export.json": "What the exported file takes and gives",
    "inputs.json": "How inputs are turned into numbers",
    "student.json": "Which student it was made of",
}
"""Beside the exported file."""


def files(settings: Settings, row: Row) -> dict[str, Path]:
    """What can be downloaded, by name: the student's folder, and its ONNX export where it was exported."""
    folder = settings.root / row["folder"]
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    exported = folder.parent / EXPORTED
    if (exported / SEAL).is_file():
        found |= {f"{EXPORTED}/{path.name}": path for path in sorted(exported.iterdir()) if path.is_file()}
    return found


def words(name: str) -> str:
    """What a file is."""
    folder, _, last = name.rpartition("/")
    return SAID if last.endswith(".onnx") else (BESIDE if folder else WORDS).get(last, "")


def short(row: Row) -> str:
    """A file name for a student: letters of its id that every system takes."""
    parts = [part for part in str(row["id"]).split(":") if part]
    return "-".join(parts[1:]).replace("/", "-")[:80] or "student"


class _Sink:
    """What zipfile writes into: nothing can be sought in it, and what was written is taken out piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep it until it is taken."""
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """See io."""

    def take(self) -> bytes:
        """All that was written since."""
        found, self._pieces = b"".join(self._pieces), []
        return found


def zipped(found: dict[str, Path], folder: str) -> Iterator[bytes]:
    """These files as a zip, below one folder; not packed, since weights do not get smaller."""
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, path in found.items():
            with archive.open(f"{folder}/{name}", "w", force_zip64=True) as target, open(path, "rb") as source:
                while piece := source.read(PIECE_BYTES):
                    target.write(piece)
                    yield sink.take()
    yield sink.take()


def pieces(path: Path) -> Iterator[bytes]:
    """A file, piece by piece."""
    with open(path, "rb") as source:
        while piece := source.read(PIECE_BYTES):
            yield piece
