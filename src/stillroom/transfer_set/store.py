"""A store of answers: one folder a teacher, filled shard by shard, read through memory maps.

    STORE/<teacher fingerprint, 16 hex>/teacher.json         who answered: classes, width of the hidden layer, licence
                                       /basis.safetensors    a language model's: what its records are decoded with
    STORE/<teacher fingerprint, 16 hex>/000000/keys.arrow    content key and view id (views.py) of each row
                                              /log_probabilities.f16   raw, row after row, as hidden.f16
                                              /records.u8              a language model's, a scored position each
                                              /manifest.json           sha256 of each file, written last

A shard is *staged* while its files are written (its folder ends in .staged), *complete* once renamed, and *verified*
once read back against its checksums; only verified shards are read. Knows no question's text and no model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import CorruptFile, NotFinite, WrongAnswer
from stillroom.questions.views import view_number
from stillroom.rows import KEY_BYTES, Answers, Array, PositionAnswers, key_schema
from stillroom.rundir import disk_errors, lock, publish, read_json, seal, verify, write_file, write_json

FORMAT = 1
HEADER = "teacher.json"
STAGED = ".staged"
SUFFIX: dict[Any, str] = {np.float16: "f16", np.uint8: "u8"}
PLACE = f"S{KEY_BYTES + 8}"
SMALL_BYTES = 65_536
"""A file below that is read; one of that size or more is mapped."""


def places(key_N: Array, view: int) -> Array:
    """Content key and view as one sortable value a row. The view is big-endian, so no two pairs collide."""
    views = np.full((len(key_N), 1), view, ">i8").view(np.uint8)
    joined = np.concatenate([key_N, views], 1)
    return np.ascontiguousarray(joined).view(PLACE)[:, 0]


UNKNOWN = "unknown"
"""Stands for a licence that nobody named."""


@dataclass(frozen=True)
class Header:
    """Who answered, and what each answer holds."""

    fingerprint: str
    kind: str
    classes: list[Any]
    hidden_width: int | None
    licences: dict[str, str]
    """Teacher or member -> licence as the recipe gave it, or "unknown"."""
    layout: dict[str, Any] | None = None
    """Of a language model's records (sparse_logits.Layout); None: rows of log-probabilities over the classes."""
    made_of: dict[str, str] = field(default_factory=dict)
    """Digests of a language model: `teacher` (the model as a whole), `weights`, `tokenizer` and `template`. The fingerprint
    says which answers these are; this is for a reader who asks what two teachers differ in, and is empty in older headers."""

    def arrays(self) -> dict[str, tuple[type, int]]:
        """Name -> number format and width of what is kept, of each row or each scored position."""
        if self.layout is not None:
            kept: dict[str, tuple[type, int]] = {"records": (np.uint8, int(self.layout["record_bytes"]))}
        else:
            kept = {"log_probabilities": (np.float16, len(self.classes))}
        return kept | ({"hidden": (np.float16, self.hidden_width)} if self.hidden_width else {})


class Store:
    """The folder that keeps every teacher's answers; one process at a time adds to it."""

    def __init__(self, root: Path, wait_s: float = 3600.0) -> None:
        self.root, self.wait_s = root, wait_s

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the store while adding to it; another run that is at it is waited for, a while. Raises RunBusy."""
        with lock(self.root / ".lock", self.wait_s, "give this run a transfer_set.store of its own"):
            yield

    def of(self, header: Header) -> Kept:
        """What is kept of this teacher; its folder is made where it is new."""
        folder = self.root / header.fingerprint[:16]
        # Only who holds the store may clear up: to a reader, a staged shard may be another process's, at work on it.
        for left in folder.glob(f"*{STAGED}"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        if not (folder / HEADER).is_file():
            write_json(folder / HEADER, {"format": FORMAT, **header.__dict__})
        kept = open_kept(folder)
        told = (header.fingerprint, header.classes, header.layout)
        if (kept.header.fingerprint, kept.header.classes, kept.header.layout) != told:
            raise WrongAnswer(
                "these answers are of another teacher, or for other classes",
                where=str(folder / HEADER),
                cure="Name another transfer_set.store, or remove this folder to ask again",
            )
        said_now = {whose: licence for whose, licence in header.licences.items() if licence != UNKNOWN}
        licences = header.licences | kept.header.licences | said_now
        made_of = kept.header.made_of or header.made_of
        # What is said later is true of the answers before: the fingerprint is the same.
        if (licences, made_of) != (kept.header.licences, kept.header.made_of):
            kept.header = replace(kept.header, licences=licences, made_of=made_of)
            write_json(folder / HEADER, {"format": FORMAT, **kept.header.__dict__})
        return kept


def open_kept(folder: Path) -> Kept:
    """What is kept of the teacher whose folder this is. Raises CorruptFile for another format."""
    found = read_json(folder / HEADER)
    if found.pop("format", None) != FORMAT:
        raise CorruptFile(
            "these answers are in a format that this version cannot read",
            where=str(folder / HEADER),
            cure="Remove the folder to ask again, or use the version that wrote it",
        )
    return Kept(folder, Header(**found))


class Kept:
    """One teacher's answers, found by content key and view."""

    def __init__(self, folder: Path, header: Header) -> None:
        self.folder, self.header = folder, header
        self._shards: list[dict[str, Array]] = []
        self._next = 0
        self.positions = 0
        """Scored positions of a language model, all questions together."""
        self._index: tuple[Array, Array, Array] = (np.empty(0, PLACE), np.empty(0, np.int32), np.empty(0, np.int64))
        """Of each answer its place, its shard and its row there, in the order of places."""
        self._unsorted: list[tuple[Array, Array, Array]] = []
        """The same of shards opened since; sorted in when somebody looks, so that opening many sorts once."""
        for shard in sorted(path for path in folder.iterdir() if path.is_dir() and path.suffix != STAGED):
            self._open(shard)
            self._next = int(shard.name) + 1

    def __len__(self) -> int:
        return sum(len(part[0]) for part in (self._index, *self._unsorted))

    @property
    def size_bytes(self) -> int:
        """Bytes of all answers, keys included."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def _open(self, shard: Path) -> None:
        """Verify a shard and note its rows for the index."""
        import pyarrow as pa

        if not (shard / "manifest.json").is_file():
            raise CorruptFile("this shard has no manifest", where=str(shard), cure=f"Remove {shard} and run again")
        verify(shard)
        with pa.memory_map(str(shard / "keys.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
        count = table.num_rows
        keys = _values_of(table["key"], np.uint8).reshape(count, KEY_BYTES)
        views = _values_of(table["view"], np.int64)
        place_n = np.empty(count, PLACE)
        for view in np.unique(views):
            place_n[views == view] = places(keys[views == view], int(view))
        lines = count
        arrays = {}
        if self.header.layout is not None:
            arrays["positions"] = _values_of(table["positions"], np.int32).astype(np.int64)
            arrays["start"] = np.cumsum(arrays["positions"]) - arrays["positions"]
            lines = int(arrays["positions"].sum())
            self.positions += lines
        for name, (kind, width) in self.header.arrays().items():
            arrays[name] = self._map(shard, name, lines, width, kind)
        self._unsorted.append((place_n, np.full(count, len(self._shards), np.int32), np.arange(count)))
        self._shards.append(arrays)

    def _map(self, shard: Path, name: str, rows: int, width: int, kind: type) -> Array:
        """The array in a file, [rows, width]: left on disk, or read where it is small.

        Arrow's map needs no open file, as numpy's does, of which a process may have no more than 1,024 at many a place;
        and of maps, 65,530, so small files are read.
        """
        import pyarrow as pa

        path = shard / f"{name}.{SUFFIX[kind]}"
        size = path.stat().st_size
        if size != rows * width * np.dtype(kind).itemsize:
            raise CorruptFile("this file has the wrong length", where=str(path), cure=f"Remove {shard} and run again")
        if size < SMALL_BYTES:
            return np.fromfile(path, kind).reshape(rows, width)
        with pa.memory_map(str(path)) as source:
            found: Array = np.frombuffer(source.read_buffer(), kind).reshape(rows, width)
        return found

    def _sorted(self) -> tuple[Array, Array, Array]:
        """The index of all shards."""
        if self._unsorted:
            place_M, shard_M, row_M = map(np.concatenate, zip(self._index, *self._unsorted, strict=True))
            order = np.argsort(place_M, kind="stable")
            self._index, self._unsorted = (place_M[order], shard_M[order], row_M[order]), []
        return self._index

    def _find(self, key_N: Array, view: int) -> tuple[Array, Array]:
        wanted, place_M = places(key_N, view), self._sorted()[0]
        at = np.searchsorted(place_M, wanted)
        at[at == len(place_M)] = 0
        there = place_M[at] == wanted if len(place_M) else np.zeros(len(wanted), bool)
        return at, there

    def answered(self, key_N: Array, view: int = 0) -> Array:
        """True for each question [N] that has an answer in this view."""
        return self._find(key_N, view)[1]

    def missing(self, key_N: Array, view: int) -> Array:
        """Positions of the first occurrence of each question that has no answer in this view."""
        _, there = self._find(key_N, view)
        without = np.flatnonzero(~there)
        _, first = np.unique(places(key_N[without], view), return_index=True)
        found: Array = without[np.sort(first)]
        return found

    def append(self, key_N: Array, view: int, answers: Answers | PositionAnswers) -> None:
        """Keep one shard of answers: staged, then complete, then verified. Raises NotFinite, DiskFull."""
        import pyarrow as pa

        if isinstance(answers, PositionAnswers):
            arrays: dict[str, Array | None] = {"records": answers.records_PR, "hidden": answers.hidden_PG}
        else:
            arrays = {"log_probabilities": answers.log_probabilities_NC, "hidden": answers.hidden_NH}
        kept: dict[str, Array] = {}
        for name, (kind, _) in self.header.arrays().items():
            array = arrays[name]
            assert array is not None, f"the header promises {name}"
            with np.errstate(over="ignore"):
                kept[name] = array.astype(kind)
        for name, array in kept.items():
            if not np.isfinite(array).all():
                row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
                raise NotFinite(
                    f"the teacher's answer to question {row} of this batch is not finite in 16 bits ({name})",
                    where=f"teacher {self.header.kind}",
                    cure="Look at the teacher's inputs and weights; nothing of this batch was kept",
                )
        number = f"{self._next:06d}"
        self._next += 1
        staged, final = self.folder / (number + STAGED), self.folder / number
        staged.mkdir()
        with disk_errors(staged):
            columns = {"key": key_N, "view": np.full(len(key_N), view)}
            if isinstance(answers, PositionAnswers):
                columns["positions"] = answers.count_N
            keys = _table_of(columns, key_schema("positions" in columns))
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, keys.schema) as writer:
                writer.write_table(keys)
            write_file(staged / "keys.arrow", sink.getvalue().to_pybytes())
            for name, array in kept.items():
                write_file(staged / f"{name}.{SUFFIX[array.dtype.type]}", array.tobytes())
            seal(staged, self.header.fingerprint)
        publish(staged, final)
        self._open(final)

    def reader(self, key_N: Array, view: int = 0) -> Reader:
        """Reads the answers to these questions. Raises WrongAnswer where one was never given."""
        at, there = self._find(key_N, view)
        if not there.all():
            raise WrongAnswer(
                f"{int((~there).sum()):,} of {len(key_N):,} questions have no answer of this teacher in view {view_number(view)}",
                where=f"{self.folder}, first: question {int(np.flatnonzero(~there)[0])}",
                cure="Run `stillroom ask` on the run; it asks just what is missing",
            )
        _, shard_M, row_M = self._sorted()
        return Reader(self._shards, shard_M[at], row_M[at])

    def position_reader(self, key_N: Array, view: int = 0) -> PositionReader:
        """The same of a language model's answers, position by position."""
        whole = self.reader(key_N, view)
        return PositionReader(whole.shards, whole.shard_N, whole.row_N)


# What is here and read back goes by its bytes: pyarrow.array and to_numpy import pandas, a third of a second, to ask about it.


def _table_of(columns: dict[str, Array], schema: Any) -> Any:
    """An Arrow table over the bytes of these arrays, none of whose values is missing."""
    import pyarrow as pa

    arrays = []
    for column in schema:
        kind = np.uint8 if column.type == pa.binary(KEY_BYTES) else column.type.to_pandas_dtype()
        data = pa.py_buffer(np.ascontiguousarray(columns[column.name], kind))
        arrays.append(pa.Array.from_buffers(column.type, len(columns[column.name]), [None, data]))
    return pa.Table.from_arrays(arrays, schema=schema)


def _values_of(column: Any, kind: type) -> Array:
    """The values of an Arrow column, one after another, as numbers of this kind."""
    parts = []
    for chunk in column.chunks:
        width = chunk.type.bit_width // 8
        start = chunk.offset * width
        parts.append(bytes(memoryview(chunk.buffers()[1])[start : start + len(chunk) * width]))
    return np.frombuffer(b"".join(parts), kind)


class Reader:
    """Answers to N questions in their order, taken by position; the arrays stay on disk."""

    def __init__(self, shards: list[dict[str, Array]], shard_N: Array, row_N: Array) -> None:
        self.shards, self.shard_N, self.row_N = shards, shard_N, row_N
        self._only = int(shard_N[0]) if len(shard_N) and (shard_N == shard_N[0]).all() else None

    def __len__(self) -> int:
        return len(self.row_N)

    def take(self, index_B: Array, name: str = "log_probabilities") -> Array:
        """float16 [B, C] (or hidden [B, H]) of the questions at these positions."""
        if self._only is not None:
            found: Array = self.shards[self._only][name][self.row_N[index_B]]
            return found
        shard_B, row_B = self.shard_N[index_B], self.row_N[index_B]
        taken = np.empty((len(index_B), self.shards[0][name].shape[1]), np.float16)
        for shard in np.unique(shard_B):
            here = shard_B == shard
            taken[here] = self.shards[shard][name][row_B[here]]
        return taken

    def all(self, name: str = "log_probabilities") -> Array:
        """float32 [N, C] (or hidden [N, H]) of every question."""
        return self.take(np.arange(len(self)), name).astype(np.float32)


class PositionReader(Reader):
    """A language model's answers to N questions, each with its own number of scored positions."""

    def count(self, index_B: Array) -> Array:
        """How many positions each of these questions has, int64 [B]."""
        return np.array([self.shards[self.shard_N[at]]["positions"][self.row_N[at]] for at in index_B], np.int64)

    def take(self, index_B: Array, name: str = "records") -> Array:
        """The records [P, R] (or hidden [P, G]) of these questions, one after another."""
        parts = []
        for at in index_B:
            shard, row = self.shards[self.shard_N[at]], self.row_N[at]
            start = shard["start"][row]
            parts.append(shard[name][start : start + shard["positions"][row]])
        return np.concatenate(parts)
