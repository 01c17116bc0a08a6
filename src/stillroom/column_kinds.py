"""How a table's column becomes inputs of a model: numbers scaled, categories one input each, free text hashed.

What each learned of the training rows is its fields, kept as JSON with the model. Knows no table and no model.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from stillroom.columns import numbers_of, refuse_not_finite, texts_of
from stillroom.kinds import Knobs
from stillroom.rows import Array


class NumberColumn(Knobs):
    """A column of numbers: shifted and scaled."""

    kind: Literal["number"] = "number"
    name: str
    mean: float
    std: float

    @property
    def width(self) -> int:
        """How many inputs of the model it becomes."""
        return 1

    def fill(self, block_ND: Array, column: Array) -> None:
        """Write the encoded column into its place."""
        with np.errstate(over="ignore", invalid="ignore"):
            block_ND[:, 0] = (numbers_of(column, self.name) - self.mean) / self.std
        refuse_not_finite(block_ND, (self.name,))


class CategoryColumn(Knobs):
    """A column of known values: one input each; a value that was not there in training sets none."""

    kind: Literal["category"] = "category"
    name: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many inputs of the model it becomes."""
        return len(self.values)

    def fill(self, block_ND: Array, column: Array) -> None:
        """Write the encoded column into its place."""
        place = {value: index for index, value in enumerate(self.values)}
        index_N = np.fromiter((place.get(value, -1) for value in texts_of(column, self.name)), np.int64, len(column))
        known = np.flatnonzero(index_N >= 0)
        block_ND[known, index_N[known]] = 1


class TextColumn(Knobs):
    """A column of free text: its words and pairs of neighbouring words, counted in hashed places."""

    kind: Literal["text"] = "text"
    name: str
    features: int = Field(default=2**12, ge=1)

    @property
    def width(self) -> int:
        """How many inputs of the model it becomes."""
        return self.features

    def fill(self, block_ND: Array, column: Array) -> None:
        """Write the encoded column into its place."""
        from sklearn.feature_extraction.text import HashingVectorizer

        if not len(column):
            return
        hashing = HashingVectorizer(
            n_features=self.features, ngram_range=(1, 2), norm="l2", alternate_sign=False, dtype=np.float32
        )
        counts = hashing.transform(texts_of(column, self.name)).tocoo()
        block_ND[counts.row, counts.col] = counts.data


Column: TypeAlias = Annotated[NumberColumn | CategoryColumn | TextColumn, Field(discriminator="kind")]
