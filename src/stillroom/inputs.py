"""What was learned of raw rows so that a model can take them; kept as JSON beside the model.

Four kinds: `numbers` (a 2-D array), `images` (whole numbers 0..255), `table` (named columns of numbers, categories and
free text; texts alone are a table of one column), `texts` (for a model with a tokenizer of its own). `learn` looks at
training rows once, `as_raw` takes what a user hands over, `encode` turns rows into numbers; the values themselves are
read in columns.py.

This file knows arrays and columns. It knows no file, no label, no split and no model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from stillroom.column_kinds import CategoryColumn, Column, NumberColumn, TextColumn
from stillroom.columns import (
    TEXT_COLUMN,
    all_of,
    chunks,
    columns_in_order,
    mean_and_std,
    misfit,
    missing_column,
    named_columns,
    numbers_of,
    objects,
    pixel_mean_and_std,
    refuse_not_finite,
    texts_of,
    tidy_column,
    tidy_images,
    times,
)
from stillroom.errors import DataError, ModelError, did_you_mean
from stillroom.kinds import Knobs
from stillroom.rows import PADDING, Array, Raw, row_count
from stillroom.rundir import fingerprint, read_json, write_json

Scale: TypeAlias = Literal["standard", "unit"]

MOST_CATEGORIES = 1000
TEXT_LENGTH = 20
"""A column of distinct values that are at least this long on average is free text."""


class Inputs(Knobs):
    """What a model must know of raw rows; the base of the three kinds."""

    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one encoded row."""
        raise NotImplementedError

    @property
    def column_names(self) -> tuple[str, ...] | None:
        """The names by which a row's values can be given, in training order; None for images."""
        return None

    def describe(self) -> str:
        """How columns of unlike kinds are treated, in words; empty where there is nothing to say."""
        return ""

    def encode(self, raw: Raw) -> Array:
        """The rows as float32 [N, *shape]. Raises DataError for what does not fit, or is NaN or infinite."""
        raise NotImplementedError

    def as_raw(self, rows: Any) -> Raw:
        """What a user hands over, as raw rows. Raises DataError for what does not fit."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into equal inputs."""
        return self.model_dump(mode="json")

    @property
    def fingerprint(self) -> str:
        """A digest of everything learned."""
        return fingerprint(self.to_json())


class Numbers(Inputs):
    """A 2-D array: each column is shifted and scaled to mean 0 and standard deviation 1."""

    kind: Literal["numbers"] = "numbers"
    mean_D: tuple[float, ...]
    std_D: tuple[float, ...]
    columns: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.mean_D),)

    @property
    def column_names(self) -> tuple[str, ...]:
        return self.columns or tuple(str(place) for place in range(1, len(self.mean_D) + 1))

    def encode(self, raw: Raw) -> Array:
        if isinstance(raw, dict) or raw.ndim != 2 or raw.shape[1] != len(self.mean_D):
            raise misfit(f"a 2-D array of {len(self.mean_D)} columns", raw)
        mean_D, std_D = np.array(self.mean_D), np.array(self.std_D)
        encoded = np.empty(raw.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in chunks(len(raw)):
                encoded[rows] = (raw[rows] - mean_D) / std_D
        refuse_not_finite(encoded, self.columns)
        return encoded

    def as_raw(self, rows: Any) -> Raw:
        if isinstance(rows, np.ndarray) and rows.dtype.kind in "fiu" and rows.shape[1:] == self.shape:
            return rows
        by_order = self.columns is None and hasattr(rows, "to_numpy")
        named = None if by_order else named_columns(rows, self.column_names)
        columns = columns_in_order(rows, len(self.mean_D)) if named is None else list(named.values())
        return np.stack(
            [numbers_of(column, name) for column, name in zip(columns, self.column_names, strict=True)], axis=1
        )


class Images(Inputs):
    """Images [N, H, W] or [N, H, W, C] of whole numbers 0..255; each channel is shifted and scaled."""

    kind: Literal["images"] = "images"
    size: tuple[int, ...]
    """(H, W), or (H, W, C)."""
    mean_C: tuple[float, ...]
    std_C: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.mean_C), *self.size[:2])

    def encode(self, raw: Raw) -> Array:
        if isinstance(raw, dict) or raw.shape[1:] != self.size:
            raise misfit(f"images of {times(self.size)}", raw)
        images = tidy_images(raw)
        planes = images.reshape(len(images), *self.size[:2], len(self.mean_C))
        encoded = np.empty((len(images), *self.shape), np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean_C, self.std_C, strict=True)):
            np.multiply(planes[..., channel], np.float32(1 / std), out=encoded[:, channel])
            if mean:
                encoded[:, channel] -= np.float32(mean / std)
        return encoded

    def as_raw(self, rows: Any) -> Raw:
        if isinstance(rows, list | tuple):
            images = [self._one(image, place) for place, image in enumerate(rows, 1)]
            return np.stack(images) if images else np.empty((0, *self.size), np.uint8)
        if not hasattr(rows, "ndim") or not hasattr(rows, "shape") or hasattr(rows, "columns"):
            raise misfit(f"images of {times(self.size)}", rows)
        array = np.asarray(rows)
        if _plain_size(array.shape[1:]) != _plain_size(self.size):
            raise misfit(
                f"images of {times(self.size)}", array, "Give [N, H, W] or [N, H, W, C]; one image as a list of one"
            )
        return tidy_images(array.reshape(len(array), *self.size))

    def _one(self, image: Any, place: int) -> Array:
        if hasattr(image, "convert"):
            image = image.convert("L" if len(self.mean_C) == 1 else "RGB")
        array = np.asarray(image)
        if _plain_size(array.shape) != _plain_size(self.size):
            raise DataError(
                f"this image is {times(array.shape)}, and the model takes {times(self.size)}",
                where=f"image {place}",
                cure="Resize it before",
            )
        whole: Array = tidy_images(array.reshape(1, *self.size), f"image {place}")[0]
        return whole


class Table(Inputs):
    """Named columns, in training order."""

    kind: Literal["table"] = "table"
    columns: tuple[Column, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(column.width for column in self.columns),)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def describe(self) -> str:
        """Each column with its kind; a category with its number of values, text with its width."""
        return ", ".join(
            f"{one.name} {one.kind}" + ("" if one.kind == "number" else f" ({one.width:,} inputs)")
            for one in self.columns
        )

    def encode(self, raw: Raw) -> Array:
        if not isinstance(raw, dict):
            raise misfit(f"the columns {', '.join(self.column_names)}", raw)
        encoded = np.zeros((row_count(raw), *self.shape), np.float32)
        start = 0
        for column in self.columns:
            if column.name not in raw:
                raise missing_column(column.name, raw)
            column.fill(encoded[:, start : start + column.width], raw[column.name])
            start += column.width
        return encoded

    def as_raw(self, rows: Any) -> Raw:
        names = self.column_names
        texts = [rows] if isinstance(rows, str) else list(rows) if getattr(rows, "ndim", 0) == 1 else rows
        if len(names) == 1 and all_of(texts, str):
            named: dict[str, Array] | None = {names[0]: objects(texts)}
        else:
            named = named_columns(rows, names)
        if named is None:
            named = dict(zip(names, columns_in_order(rows, len(names)), strict=True))
        return {
            column.name: (numbers_of if column.kind == "number" else texts_of)(named[column.name], column.name)
            for column in self.columns
        }


class Texts(Inputs):
    """A column of texts as rows of token ids, for a model with a tokenizer of its own."""

    kind: Literal["texts"] = "texts"
    column: str
    length: int = Field(ge=1)
    """Most tokens a row may have: what the model can look at."""
    tokenizer: str = Field(repr=False)
    """As the tokenizers library writes it; in a model's folder it stands in tokenizer.json."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def column_names(self) -> tuple[str, ...]:
        return (self.column,)

    def describe(self) -> str:
        return f"{self.column} in tokens, at most {self.length:,} a row"

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"tokenizer"})

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.model_dump(mode="json"))

    def encode(self, raw: Raw) -> Array:
        """Token ids int32 [N, T], PADDING after each row's end; T is the longest row's length."""
        if not isinstance(raw, dict):
            raise misfit(f"the column {self.column}", raw)
        # A model that was made elsewhere knows no column by name; a single one is the text.
        column = next(iter(raw)) if self.column == TEXT_COLUMN and len(raw) == 1 else self.column
        if column not in raw:
            raise missing_column(column, raw)
        texts = texts_of(raw[column], column).tolist()
        found = [one.ids for one in tokenizer_of(self.tokenizer).encode_batch_fast(texts)]
        longest = max(map(len, found), default=0)
        if longest > self.length:
            row = next(place for place, ids in enumerate(found) if len(ids) > self.length)
            raise DataError(
                f"this text has {len(found[row]):,} tokens, and the model looks at {self.length:,} at most",
                where=f"column {self.column}, row {row + 1} of these",
                cure="Shorten or split it before; nothing is cut off silently",
            )
        ids_NT = np.full((len(found), longest), PADDING, np.int32)
        for row, ids in enumerate(found):
            ids_NT[row, : len(ids)] = ids
        return ids_NT

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        return int(tokenizer_of(self.tokenizer).get_vocab_size())

    def unknown_rate(self, raw: Raw) -> float | None:
        """Share of unknown tokens among these rows'; None where the tokenizer can say everything."""
        model = json.loads(self.tokenizer)["model"]
        unknown = tokenizer_of(self.tokenizer).token_to_id(str(model.get("unk_token")))
        if unknown is None:
            return None
        ids_NT = self.encode(raw)
        return float((ids_NT == unknown).sum() / max(1, (ids_NT != PADDING).sum()))

    def as_raw(self, rows: Any) -> Raw:
        texts = [rows] if isinstance(rows, str) else list(rows) if getattr(rows, "ndim", 0) == 1 else rows
        if all_of(texts, str):
            column = objects(texts)
        else:
            named = named_columns(rows, (self.column,))
            column = columns_in_order(rows, 1)[0] if named is None else named[self.column]
        return {self.column: texts_of(column, self.column)}


@lru_cache(maxsize=8)
def tokenizer_of(written: str) -> Any:
    """The tokenizer that the tokenizers library wrote so; it cuts and pads nothing by itself."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(written)
    found.no_truncation()
    found.no_padding()
    return found


INPUTS, TOKENIZER = "inputs.json", "tokenizer.json"


def write(inputs: Inputs, folder: Path) -> None:
    """Keep what was learned beside a model's weights."""
    write_json(folder / INPUTS, inputs.to_json())


def read(folder: Path) -> Inputs:
    """What `write` kept. Raises ModelError for anything else."""
    tree = read_json(folder / INPUTS)
    if isinstance(tree, dict) and tree.get("kind") == "texts" and (folder / TOKENIZER).is_file():
        tree = {**tree, "tokenizer": (folder / TOKENIZER).read_text(encoding="utf-8")}
    return from_json(tree)


def from_json(tree: Any) -> Inputs:
    """The inputs that `to_json` wrote. Raises ModelError for anything else."""
    adapter: TypeAdapter[Inputs] = TypeAdapter(Annotated[Numbers | Images | Table | Texts, Field(discriminator="kind")])
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        raise ModelError(
            "this does not describe a model's inputs",
            where="inputs.json: " + ".".join(str(key) for key in error.errors()[0]["loc"]),
            cure="Copy the whole model folder again",
        ) from error


def learn(
    raw: Raw, scale: Scale = "standard", columns: Sequence[str] | None = None, texts: Sequence[str] = ()
) -> Inputs:
    """What must be known of these training rows. `scale` is for images; `columns` names those of a 2-D array; `texts` those
    that are free text however short they are.

    A column of a table is a number where its values are numbers; text that happens to look like numbers was turned into
    them by `tidy`, which saw all rows, so that a rare word cannot hide in the rows that are not looked at here.
    """
    if not isinstance(raw, dict) and raw.ndim == 1:
        raw = {TEXT_COLUMN: raw}
    if not row_count(raw):
        raise DataError("there are no rows to learn from", where="training rows", cure="Give at least one row")
    there = list(raw) if isinstance(raw, dict) else []
    for name in texts:
        if name not in there:
            raise DataError(f"there is no input {name!r}", where="questions.texts", cure=did_you_mean(name, there))
    if isinstance(raw, dict):
        return Table(columns=tuple(_learn_column(name, column, name in texts) for name, column in raw.items()))
    if raw.ndim == 2:
        refuse_not_finite(raw, columns)
        mean_D, std_D = mean_and_std(raw)
        names = None if columns is None else tuple(columns)
        return Numbers(mean_D=tuple(mean_D.tolist()), std_D=tuple(std_D.tolist()), columns=names)
    images = tidy_images(raw)
    channels = images.shape[3] if images.ndim == 4 else 1
    mean_C, std_C = np.zeros(channels), np.full(channels, 255.0)
    if scale == "standard":
        mean_C, std_C = pixel_mean_and_std(images.reshape(len(images), -1, channels))
    return Images(size=images.shape[1:], mean_C=tuple(mean_C.tolist()), std_C=tuple(std_C.tolist()))


def _learn_column(name: str, column: Array, is_text: bool) -> NumberColumn | CategoryColumn | TextColumn:
    if column.dtype.kind != "O" or not all_of(column.tolist(), str):
        column = tidy_column(column, name)
    if column.dtype.kind == "f":
        refuse_not_finite(column[:, None], (name,))
        mean_D, std_D = mean_and_std(column[:, None])
        return NumberColumn(name=name, mean=float(mean_D[0]), std=float(std_D[0]))
    distinct = set(column.tolist())
    if is_text or (sum(map(len, column)) >= TEXT_LENGTH * len(column) and len(distinct) * 2 > len(column)):
        return TextColumn(name=name)
    if len(distinct) > MOST_CATEGORIES:
        raise DataError(
            f"this column has {len(distinct):,} different values: too many for a category, which has at most "
            f"{MOST_CATEGORIES:,}, and too short for free text, which has {TEXT_LENGTH} letters or more on average",
            where=f"column {name}",
            cure="Name it in questions.texts, leave it out by naming the others in questions.input, or group its rare values",
        )
    return CategoryColumn(name=name, values=tuple(sorted(distinct)))


def _plain_size(size: tuple[int, ...]) -> tuple[int, ...]:
    """An image's size without a single channel."""
    return size[:2] if len(size) == 3 and size[2] == 1 else size
