"""Where files give no validation or test rows: which are split off train, one by one, by groups or by documents.

This file knows the knobs under `split:` and the roles; how rows are drawn is splitting.py, what makes a group grouping.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, field_validator

from stillroom.errors import DataError, did_you_mean
from stillroom.kinds import Knobs
from stillroom.questions.grouping import contained, containing_keys, value_keys
from stillroom.questions.part import Part
from stillroom.questions.running import MESSAGES, TEXT
from stillroom.questions.splitting import draw, draw_groups, wanted_rows
from stillroom.rows import Array, Questions

CONTAINING = "containing"
GROUP = "questions.split.group"


def _an_amount(amount: int | float) -> int | float:
    if isinstance(amount, float) and amount == 1:
        raise ValueError("a share should be below 1, for some rows must stay; one row is written 1, without a point")
    if amount <= 0 or (amount >= 1 and amount != int(amount)):
        raise ValueError("should be a share of the rows between 0 and 1, or a whole number of rows")
    return amount


Amount = Annotated[int | float, AfterValidator(_an_amount)]


class Split(Knobs):
    """How many labelled rows are split off train where files do not give them; a share below 1, else a count.

    Of running text it is a share of the characters, or a count of documents.
    """

    validation: Amount | None = None
    """None: 0.1 of the rows; of builtin:digits 150 rows."""
    test: Amount | None = None
    """None: 0.2 of the rows; of builtin:digits 450 rows."""
    group: str | dict[str, str] | None = None
    """Rows that stay together: a column, all rows of one value; or {containing: TEXT_COLUMN}, a text and its pieces."""

    @field_validator("group", mode="before")
    @classmethod
    def _a_group(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            if list(value) != [CONTAINING] or not isinstance(value[CONTAINING], str):
                raise ValueError("should be a column, or {containing: COLUMN}")
        elif value is not None and not isinstance(value, str):
            raise ValueError("should be a column, or {containing: COLUMN}")
        return value

    def column(self) -> str | None:
        """The column that is read for its groups beside the inputs; None where there is none."""
        return self.group if isinstance(self.group, str) and self.group != CONTAINING else None

    def off(
        self, whole: Mapping[str, Questions], source: Part, given: Mapping[str, float], seed: int, notes: list[str]
    ) -> dict[str, Questions]:
        """Train, validation and test: those in `whole`, and the others drawn from train, `given` being the default.

        `source` is what train was read from. Raises DataError where so much cannot be drawn.
        """
        rows = dict(whole)
        missing = [role for role in ("test", "validation") if role not in whole]
        if self.group is not None and not missing:
            raise DataError(
                "rows are to stay together when they are split off train, and files give all splits",
                where=GROUP,
                cure="Take group out of questions.split, or take validation or test out of questions.source",
            )
        train = rows["train"]
        before_C = np.bincount(train.label_N[train.labelled_N])
        key_N, size_N = self._groups(train, source), _sizes(train, source)
        total = size_N.sum()
        for left, role in enumerate(missing):
            train, amount, keep = rows["train"], getattr(self, role) or given[role], len(missing) - left
            if key_N is None:
                wanted = wanted_rows(amount, int(total))
                with _after(missing[:left], rows):
                    drawn = draw(train.label_N, train.key_N, wanted, keep, seed, f"split.{role}")
                how = "stratified"
            else:
                counted = np.ones(len(train)) if source.running and amount >= 1 else size_N
                share = amount if amount >= 1 else amount * total
                drawn = draw_groups(key_N, counted, share, keep, seed, f"split.{role}")
                how = self._told(len(np.unique(key_N[drawn], axis=0)))
                key_N = np.delete(key_N, drawn, 0)
            rows[role] = train.take(drawn)
            rows["train"] = train.take(np.delete(np.arange(len(train)), drawn))
            size_N = np.delete(size_N, drawn)
            notes.append(f"{role}: {len(drawn):,} {_noun(source)} split off train, {how}, seed {seed}")
        if self.group is not None:
            _check_classes(rows["train"], before_C)
        if self._contains():
            self._note_pieces(rows, missing, notes)
        return rows

    def _told(self, groups: int) -> str:
        """How groups were drawn, in words."""
        if self.group is None:
            return "whole"
        by = "the text that contains them" if self._contains() else str(self.group)
        return f"in {groups:,} whole groups by {by}"

    def _contains(self) -> bool:
        return self.group is not None and self.column() is None

    def _groups(self, train: Questions, source: Part) -> Array | None:
        """The key of each training row's group [N, 16]; None where rows are drawn one by one."""
        column = self.column()
        if column is not None:
            return value_keys(beside(source, column, GROUP)[train.row_N], train.key_N)
        if self.group is None:
            return train.key_N if source.running else None
        return containing_keys(self._texts(train))

    def _texts(self, questions: Questions) -> list[str]:
        """The texts that may contain each other."""
        columns = questions.raw if isinstance(questions.raw, dict) else {}
        texts = [name for name, column in columns.items() if column.dtype.kind == "O"]
        name = self.group[CONTAINING] if isinstance(self.group, dict) else None
        if name is None and len(texts) != 1:
            raise DataError(
                "one column of text is wanted here, and the inputs hold " + (" and ".join(texts) or "none"),
                where=GROUP,
                cure="Name it: group: {containing: COLUMN}",
            )
        if name is not None and name not in texts:
            raise DataError(f"there is no input column of text {name!r}", where=GROUP, cure=did_you_mean(name, texts))
        found: list[str] = columns[name or texts[0]].tolist()
        return found

    def _note_pieces(self, rows: Mapping[str, Questions], drawn: Sequence[str], notes: list[str]) -> None:
        """Say how many training rows stand in a text that was split off, and were kept since a longer one has them."""
        for role in drawn:
            inside_N = contained(self._texts(rows["train"]), self._texts(rows[role]))
            if inside_N.any():
                notes.append(
                    f"{inside_N.sum():,} training rows are words of a {role} row too; each stands in a training row as long"
                )


@contextmanager
def _after(earlier: Sequence[str], rows: Mapping[str, Questions]) -> Iterator[None]:
    """Where too few rows are left for a split, name the one that took them before as well."""
    try:
        yield
    except DataError as error:
        if not earlier:
            raise
        (role,) = earlier
        raise DataError(
            f"split.{role} took {len(rows[role]):,} labelled rows, and of the others {error.what}",
            where=f"questions.split.{role}, {error.where}",
            cure=f"Ask for fewer in split.{role}, or give more labelled rows",
        ) from error


def beside(source: Part, column: str, where: str) -> Array:
    """A column of a source that is neither input nor label. Raises DataError where it is not there."""
    if column in source.beside:
        return source.beside[column]
    if not source.names:
        raise DataError(
            f"this source has no columns, so none called {column!r}",
            where=f"{where}, {source.place}",
            cure="Take it out, or give the rows as a table",
        )
    raise DataError(
        f"there is no column {column!r}", where=f"{where}, {source.place}", cure=did_you_mean(column, source.names)
    )


def _sizes(train: Questions, source: Part) -> Array:
    """What a share is a share of: characters of documents, or labelled rows."""
    if not source.running or not isinstance(train.raw, dict):
        return train.labelled_N.astype(np.float64)
    (column,) = train.raw.values()
    return np.fromiter((len(text) for text in column), np.float64, len(column))


def _noun(source: Part) -> str:
    if not source.running:
        return "rows"
    return "documents" if TEXT in source.raw else "conversations" if MESSAGES in source.raw else "questions"


def _check_classes(train: Questions, before_C: Array) -> None:
    """Raise DataError where all rows of a class were drawn with their groups."""
    gone = np.count_nonzero(before_C) - len(np.unique(train.label_N[train.labelled_N]))
    if gone:
        raise DataError(
            f"{gone} of the classes would have no training row left, so few groups hold them",
            where=GROUP,
            cure="Choose another questions.seed, ask for fewer rows, or take group out",
        )
