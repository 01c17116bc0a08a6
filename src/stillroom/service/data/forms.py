"""Forms with a file, read while they come: the file goes to disk piece by piece and is never whole in memory.

    received = await forms.receive(request, folder, field="file", most=limits.file_bytes)
    received.fields["purpose"], received.staged.path, received.staged.sha256

Whoever receives a staged file gives it its place, or removes it. A form that is wrong is read to its end before it is
answered: a client that still sends would otherwise see a broken connection, and not the reason.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from stillroom.rundir import disk_errors
from stillroom.service.door.faults import ApiError
from stillroom.service.rows.ids import new_id

MOST_FIELDS, FIELD_BYTES, NAME_LENGTH = 32, 1 << 16, 255
TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Letters that turn the direction of writing, so that a name is not what it looks like."""
PIECE_BYTES = 1 << 20
"""Gathered before it is written."""


@dataclass(frozen=True)
class Staged:
    """A file that has come in whole and has no place yet."""

    path: Path
    filename: str
    """What the client calls it: a label, never part of a path."""
    bytes: int
    sha256: str

    def sync(self) -> None:
        """From now on it outlives a crash of the machine. Raises DiskFull."""
        with disk_errors(self.path), open(self.path, "rb") as file:
            os.fsync(file.fileno())

    def remove(self) -> None:
        """It is not wanted."""
        self.path.unlink(missing_ok=True)


@dataclass
class Received:
    """A form: its texts by name, and its file."""

    fields: dict[str, str] = field(default_factory=dict)
    staged: Staged | None = None


class Stage:
    """A file that is being written. A context that leaves nothing behind if it fails."""

    def __init__(self, folder: Path, most: int, param: str = "file") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{new_id('new')}.staged"
        self._most, self._param, self._size, self._digest = most, param, 0, hashlib.sha256()
        self._file: BinaryIO = open(self.path, "xb")  # noqa: SIM115 - closed by `close` or `__exit__`

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: object, *raised: object) -> None:
        self._file.close()
        if kind is not None:
            self.path.unlink(missing_ok=True)

    def write(self, piece: bytes | bytearray) -> None:
        """Append a piece. Raises ApiError 413 beyond what may come, DiskFull where there is no room."""
        self._size += len(piece)
        if self._size > self._most:
            told = f"The file is larger than {self._most:,} bytes."
            raise ApiError(413, told, param=self._param, code="file_too_large")
        self._digest.update(piece)
        with disk_errors(self.path):
            self._file.write(piece)

    def close(self, filename: str) -> Staged:
        """It has come in whole."""
        with disk_errors(self.path):
            self._file.close()
        return Staged(self.path, filename, self._size, self._digest.hexdigest())


def stage(folder: Path, filename: str, chunks: Iterable[bytes], most: int) -> Staged:
    """Write what is at hand. Raises ApiError 400 or 413."""
    label = checked_name(filename, "file")
    with Stage(folder, most) as staged:
        for chunk in chunks:
            staged.write(chunk)
        return staged.close(label)


def checked_name(filename: str, param: str) -> str:
    """A file's label. Raises ApiError 400 for one that could not be shown."""
    if not filename or len(filename) > NAME_LENGTH:
        raise ApiError(400, f"A file's name has 1 to {NAME_LENGTH} characters.", param=param, code="invalid_filename")
    if any(letter in TURNS or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in filename):
        raise ApiError(400, "A file's name has no control characters.", param=param, code="invalid_filename")
    return filename


async def receive(request: Request, folder: Path, *, field: str, most: int) -> Received:
    """Read a form whose part `field` is a file. Raises ApiError 400 or 413; nothing is left in `folder` then."""
    form = _Form(_boundary(request), folder, field, most)
    try:
        async for chunk in request.stream():
            form.feed(chunk)
            if form.waiting >= PIECE_BYTES:
                await run_in_threadpool(form.write)
        await run_in_threadpool(form.end)
    except ClientDisconnect as error:
        form.drop()
        raise ApiError(400, "The form was cut short.", param=field, code="incomplete_body") from error
    except BaseException:
        form.drop()
        raise
    return form.received


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        told = "Send a form: Content-Type: multipart/form-data with a boundary."
        raise ApiError(400, told, param="content-type", code="invalid_content_type")
    return options[b"boundary"]


class _Form:
    """What the parser tells, gathered. After a fault the rest is read and forgotten."""

    def __init__(self, boundary: bytes, folder: Path, field: str, most: int) -> None:
        self._folder, self._field, self._most = folder, field, most
        self._name, self._filename, self._header, self._headers = "", "", [b"", b""], dict[bytes, bytes]()
        self._text, self._pieces = bytearray(), bytearray()
        self._stage: Stage | None = None
        self._is_file, self._ended, self._fault = False, False, ApiError(400, "")
        self._failed, self._label = False, ""
        self.received = Received()
        try:
            self._parser = MultipartParser(boundary, {
                "on_part_begin": self._begin, "on_part_data": self._data, "on_part_end": self._part_end,
                "on_header_field": self._header_name, "on_header_value": self._header_value,
                "on_header_end": self._header_end, "on_headers_finished": self._headers_end, "on_end": self._end,
            })  # fmt: skip
        except FormParserError as error:
            raise _broken(field, error) from error

    @property
    def waiting(self) -> int:
        """Bytes that should be written."""
        return len(self._pieces)

    def feed(self, chunk: bytes) -> None:
        """Some more of the body."""
        if self._failed:
            return
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            self._fail(_broken(self._field, error))

    def write(self) -> None:
        """Write what waits."""
        pieces, self._pieces = self._pieces, bytearray()
        if self._stage is not None and not self._failed:
            try:
                self._stage.write(pieces)
            except ApiError as error:
                self._fail(error)

    def end(self) -> None:
        """The body is at its end. Raises ApiError for what was wrong with it."""
        self.write()
        if not self._failed and not self._ended:
            self._fail(ApiError(400, "The form was cut short.", param=self._field, code="incomplete_body"))
        if self._failed:
            raise self._fault
        if self._stage is None:
            told = f"The form has no file: send one as its part {self._field!r}."
            raise ApiError(400, told, param=self._field, code="missing_required_parameter")
        self.received.staged = self._stage.close(self._label)

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._stage is not None:
            self._stage.__exit__(ApiError)

    def _fail(self, error: ApiError) -> None:
        if not self._failed:
            self._failed, self._fault = True, error
            self._pieces.clear()

    def _begin(self) -> None:
        self._headers, self._header, self._text = {}, [b"", b""], bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header[0].lower()] = self._header[1]
        self._header = [b"", b""]

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name, self._is_file = _text_of(options.get(b"name", b"")), False
        if b"filename" not in options:
            if self._name == self._field:
                told = "This part is a text, and should be a file: give it a file name."
                self._fail(ApiError(400, told, param=self._field, code="invalid_file"))
            elif len(self.received.fields) >= MOST_FIELDS or self._name in self.received.fields:
                told = f"A form has at most {MOST_FIELDS} fields, and each once."
                self._fail(ApiError(400, told, param=self._name[:100], code="invalid_form"))
            return
        if self._name != self._field or self._stage is not None:
            told = f"The form has one file, as its part {self._field!r}."
            self._fail(ApiError(400, told, param=self._name[:100] or None, code="invalid_form"))
            return
        try:
            self._label = checked_name(_text_of(options[b"filename"]), self._field)
        except ApiError as error:
            self._fail(error)
            return
        self._is_file, self._stage = True, Stage(self._folder, self._most, self._field)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._failed:
            return
        if self._is_file:
            self._pieces += data[start:end]
            return
        self._text += data[start:end]
        if len(self._text) > FIELD_BYTES:
            told = f"A field has at most {FIELD_BYTES:,} bytes."
            self._fail(ApiError(400, told, param=self._name[:100], code="invalid_form"))

    def _part_end(self) -> None:
        if self._is_file or self._failed:
            return
        try:
            self.received.fields[self._name] = self._text.decode("utf-8")
        except UnicodeDecodeError:
            self._fail(ApiError(400, "A field is not UTF-8.", param=self._name[:100], code="invalid_form"))

    def _end(self) -> None:
        self._ended = True


def _text_of(raw: bytes) -> str:
    """A name in a form's header: UTF-8, or what older programs send."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _broken(field: str, error: FormParserError) -> ApiError:
    return ApiError(400, f"The form cannot be read: {error}.", param=field, code="invalid_form")
