"""A data set of files or arrays as questions: read, checked, split once by its own seed, weighted.

The split and the labelled rows depend on `seed` and the rows alone, never on a recipe's seeds, so that every student,
control and arm is trained and judged on the same rows. Running text gives documents, and no classes; windows.py makes
rows of tokens of them. This file knows the knobs and the order of the steps; reading is sources.py, splitting split_off.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from stillroom.columns import tidy
from stillroom.errors import DataError, did_you_mean
from stillroom.kinds import QuestionSource
from stillroom.questions import sources
from stillroom.questions.arrays import ROLES
from stillroom.questions.part import Part, class_place, classes_of, codes_of, typed
from stillroom.questions.scarce import note_scarce
from stillroom.questions.split_off import Split, beside
from stillroom.questions.splitting import draw
from stillroom.questions.tables import Columns
from stillroom.questions.views import Mask, apply_views
from stillroom.rows import UNLABELLED, Array, Questions, Raw, Splits

DEFAULT_SPLIT = {"test": 0.2, "validation": 0.1}
Count = Annotated[int, Field(ge=1)]
DIGITS = "builtin:digits"
DIGITS_SPLIT = {"test": 450.0, "validation": 150.0}


def _a_list(value: Any) -> Any:
    """One value where a list is meant."""
    return value if value is None or isinstance(value, list | tuple) else (value,)


class Dataset(QuestionSource):
    """Labelled rows or running text from files, a folder of pictures, the `datasets` library, or scikit-learn's digits."""

    kind: Literal["dataset"] = "dataset"
    source: str | dict[str, str]
    """A path, `builtin:digits`, `builtin:intents` or `hf:NAME`; or {train: .., validation: .., test: ..}. For reasoning
    also builtin:sums, builtin:products and builtin:chains."""
    split: Split = Split()
    seed: int = 0
    """Of the split and of the labelled rows."""
    input: Annotated[tuple[str, ...] | None, BeforeValidator(_a_list)] = None
    """The input columns; none: all but the label."""
    label: str | None = None
    """The label column, for reasoning that of the gold answers; none: `label`."""
    rows: Count | dict[str, Count] | None = None
    """Use so many training rows, stratified; or {train: .., validation: .., test: ..}. Of running text: documents."""
    labelled: int | None = Field(default=None, ge=1)
    """Keep so many labels of train, stratified; the other rows become unlabelled questions."""
    omit: Annotated[tuple[Any, ...] | None, BeforeValidator(_a_list)] = None
    """Classes that a student must not see: out of train and validation, still in test."""
    class_weights: str | dict[str, float] = "none"
    """none; balanced: every class weighs the same in all; or {CLASS: WEIGHT}, 1 for the others."""
    slice: str | None = None
    """A column that is no input and names the slice of each test row or document; models are scored on each slice too."""
    window: int | None = Field(default=None, ge=2)
    """Running text: tokens in a row; none: 256."""
    pack: bool = True
    """Running text: training documents are joined, with an end-of-text token between them; false: padded."""
    skip: int = Field(default=0, ge=0)
    """Running text: first positions of each validation and test row that are not scored, having little before them."""

    @field_validator("source", mode="before")
    @classmethod
    def _a_source(cls, value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if not isinstance(value, str | Mapping):
            raise ValueError("should be a path, or {train: PATH, test: PATH}")
        if isinstance(value, Mapping):
            for role in value:
                if role not in ROLES:
                    raise ValueError(f"{role!r} is no split. {did_you_mean(str(role), ROLES)}")
            if "train" not in value:
                raise ValueError("should name a file for train")
            return {str(role): str(path) for role, path in value.items()}
        return value

    @field_validator("rows")
    @classmethod
    def _roles(cls, value: int | dict[str, int] | None) -> int | dict[str, int] | None:
        for role in value if isinstance(value, dict) else ():
            if role not in ROLES:
                raise ValueError(f"{role!r} is no split. {did_you_mean(role, ROLES)}")
        return value

    @field_validator("class_weights", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name, weight in value.items():
                if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
                    raise ValueError(f"the weight of {name} should be a number of at least 0")
            return {str(name): float(weight) for name, weight in value.items()}
        if value not in ("none", "balanced"):
            raise ValueError("should be none, balanced, or {CLASS: WEIGHT}")
        return value

    def build(self, folders: list[Path]) -> Splits:
        """Read, check and split. Running text: documents, no labels, and `classes` is empty. Raises DataError, NotYet."""
        also = tuple(dict.fromkeys(name for name in (self.split.column(), self.slice) if name is not None))
        parts = typed(sources.read(self.source, folders, Columns(self.input, self.label, also)))
        if parts["train"].running:
            return self._running(parts)
        self._refuse_windows(parts["train"])
        # An omitted class is known even where the training file lacks it already.
        omitted_names = {str(name) for name in self.omit or ()}
        alone = not any(label is not None for label in parts["train"].label_N.tolist())
        others = {
            label for part in parts.values() for label in part.label_N.tolist() if alone or str(label) in omitted_names
        }
        named = next(
            (part for part in parts.values() if any(label is not None for label in part.label_N)), parts["train"]
        )
        classes = classes_of(named, others - {None})
        whole = _questions(parts, classes)
        notes: list[str] = []
        rows = self._split(whole, parts["train"], notes)
        unlabelled = int((~rows["train"].labelled_N).sum())
        if unlabelled and not alone:
            notes.append(f"train: {unlabelled:,} of {len(rows['train']):,} rows have no label")
        lessened(self, rows, notes)
        omitted = self._omit(rows, classes, notes)
        omitted = self._unlabel(rows, omitted, notes)
        if alone:
            notes.append("no training row has a label: the student learns from the teacher alone, and has no control")
        for role in ROLES[alone:]:
            if not rows[role].labelled_N.any():
                raise DataError(
                    f"{role} holds no labelled row", where=f"questions.split.{role}", cure="Give it labelled rows"
                )
        note_copies(rows, notes)
        note_scarce(rows, classes, notes)
        weight_N = self._weigh(rows["train"].label_N, classes)
        rows["train"] = replace(rows["train"], weight_N=weight_N)
        if self.augment:
            # A view that does not fit the rows is told now, not in the first epoch.
            first = rows["train"].take(np.arange(1))
            apply_views(self.augment, first.raw, first.key_N, 1)
        slice_N = self._slices(parts, rows["test"])
        return Splits(rows["train"], rows["validation"], rows["test"], omitted, classes, notes, slice_N)

    def _running(self, parts: dict[str, Part]) -> Splits:
        """The documents or conversations of running text."""
        for knob in ("labelled", "omit", "class_weights"):
            if getattr(self, knob) != type(self).model_fields[knob].default:
                raise DataError(
                    f"{knob} is about labels, and running text has none",
                    where=f"questions.{knob}",
                    cure="Take it out, or name the label column in questions.label",
                )
        whole, notes = {}, list[str]()
        for role, part in parts.items():
            if not part.running or _form(part.raw) != _form(parts["train"].raw):
                raise DataError(
                    f"{role} is not of the same form as train: {_form(parts['train'].raw)} and no label",
                    where=part.place,
                    cure="Give all parts as running text, or all as conversations",
                )
            whole[role] = _documents(part, role, notes)
        rows = self.split.off(whole, parts["train"], DEFAULT_SPLIT, self.seed, notes)
        lessened(self, rows, notes)
        note_copies(rows, notes)
        window = {name: np.zeros((1, 2), np.int32) for name in ("ids", "target")}
        # A mask learns of its tokens later; any other view is tried, so that what does not fit is told now.
        apply_views([view for view in self.augment if not isinstance(view, Mask)], window, rows["train"].key_N[:1], 1)
        slice_N = self._slices(parts, rows["test"])
        none = rows["train"].take(np.arange(0))
        return Splits(rows["train"], rows["validation"], rows["test"], none, [], notes, slice_N)

    def _refuse_windows(self, train: Part) -> None:
        """Raise DataError for a knob of running text where the rows are none."""
        for knob in ("window", "pack", "skip"):
            if getattr(self, knob) != type(self).model_fields[knob].default:
                raise DataError(
                    f"{knob} is for running text, and these rows have labels",
                    where=f"questions.{knob}, {train.place}",
                    cure="Take it out",
                )

    def _slices(self, parts: dict[str, Part], test: Questions) -> Array | None:
        """The slice of each test row, as its column gives it."""
        if self.slice is None:
            return None
        return beside(parts.get("test", parts["train"]), self.slice, "questions.slice")[test.row_N]

    def _split(self, whole: dict[str, Questions], source: Part, notes: list[str]) -> dict[str, Questions]:
        """Train, validation and test: those that files give, and the others drawn from the labelled rows of train."""
        given = DIGITS_SPLIT if self.source == DIGITS else DEFAULT_SPLIT
        rows = self.split.off(whole, source, given, self.seed, notes)
        for role in ("validation", "test"):
            part = rows[role]
            if part.labelled_N.any() and not part.labelled_N.all():
                notes.append(f"{role}: {np.count_nonzero(~part.labelled_N):,} rows without a label were left out")
                rows[role] = part.take(np.flatnonzero(part.labelled_N))
        return rows

    def _omit(self, rows: dict[str, Questions], classes: Sequence[Any], notes: list[str]) -> Questions:
        """Take the omitted classes out of train and validation; the training rows among them."""
        codes = [class_place(name, classes, "questions.omit") for name in self.omit or ()]
        if len(set(codes)) > len(classes) - 2:
            raise DataError("fewer than two classes would be left", where="questions.omit", cure="Omit fewer classes")
        out = {role: np.isin(rows[role].label_N, codes) for role in ("train", "validation")}
        omitted = rows["train"].take(np.flatnonzero(out["train"]))
        if codes:
            names = ", ".join(str(classes[code]) for code in codes)
            gone = " and ".join(f"{out[role].sum():,} rows of {role}" for role in out)
            notes.append(f"omitted {names}: {gone}; they stay in test")
            for role in out:
                rows[role] = rows[role].take(np.flatnonzero(~out[role]))
        return omitted

    def _unlabel(self, rows: dict[str, Questions], omitted: Questions, notes: list[str]) -> Questions:
        """Keep `labelled` labels of train, stratified, and the same share of the omitted rows'; returns those rows."""
        if self.labelled is None:
            return omitted
        train = rows["train"]
        there = int(train.labelled_N.sum())
        kinds = len(np.unique(train.label_N[train.labelled_N]))
        if not kinds <= self.labelled <= there:
            problem = f"train has {there:,}" if self.labelled > there else f"there are {kinds} classes, each needs one"
            raise DataError(
                f"{self.labelled:,} labelled rows are wanted, and {problem}",
                where="questions.labelled",
                cure=f"Choose a number from {kinds} to {there}",
            )
        rows["train"] = self._with_labels(train, self.labelled)
        notes.append(
            f"{self.labelled:,} of {there:,} training labels kept, stratified, seed {self.seed}; validation "
            f"({len(rows['validation']):,} rows) and test stay labelled"
        )
        if not len(omitted):
            return omitted
        # A teacher learns from these too, and a class prior counts them: with all their labels they would be too many.
        least = len(np.unique(omitted.label_N))
        return self._with_labels(omitted, max(least, round(len(omitted) * self.labelled / there)))

    def _with_labels(self, questions: Questions, wanted: int) -> Questions:
        """The same questions with so many of their labels, stratified."""
        kept = draw(questions.label_N, questions.key_N, wanted, 0, self.seed, "labelled")
        label_N = np.full(len(questions), UNLABELLED, np.int64)
        label_N[kept] = questions.label_N[kept]
        return replace(questions, label_N=label_N)

    def _weigh(self, label_N: Array, classes: Sequence[Any]) -> Array:
        """A weight for each training row; 1 for a row without a label."""
        weight_C = np.ones(len(classes))
        if isinstance(self.class_weights, dict):
            for name, weight in self.class_weights.items():
                weight_C[class_place(name, classes, "questions.class_weights")] = weight
        elif self.class_weights == "balanced":
            count_C = np.bincount(label_N[label_N >= 0], minlength=len(classes))
            weight_C = count_C.sum() / (np.count_nonzero(count_C) * np.maximum(count_C, 1))
        weights: Array = np.where(label_N >= 0, weight_C[label_N], 1).astype(np.float32)
        return weights


def lessened(knobs: Dataset, rows: dict[str, Questions], notes: list[str]) -> None:
    """Keep `rows` rows of train, or of each role that is named, stratified by label."""
    for role, wanted in (knobs.rows if isinstance(knobs.rows, dict) else {"train": knobs.rows}).items():
        if wanted is None:
            continue
        part = rows[role]
        kinds = len(np.unique(part.label_N))
        if not kinds <= wanted <= len(part):
            problem = f"there are {len(part):,}" if wanted > len(part) else f"each of {kinds} classes needs one"
            raise DataError(
                f"{wanted:,} rows of {role} are wanted, and {problem}",
                where="questions.rows",
                cure=f"Choose a number from {kinds} to {len(part)}",
            )
        kept = draw(part.label_N - UNLABELLED, part.key_N, wanted, 0, knobs.seed, "rows")
        rows[role] = part.take(kept)
        notes.append(f"{role}: {wanted:,} of {len(part):,} rows used, stratified, seed {knobs.seed}")


def _questions(parts: dict[str, Part], classes: Sequence[Any]) -> dict[str, Questions]:
    """Each part's rows with plain inputs, keys and codes. Raises DataError for rows that do not fit those of train."""
    train: Raw | None = None
    found = {}
    for role in (role for role in ROLES if role in parts):
        part = parts[role]
        raw = tidy(part.raw, part.place, train)
        if train is None:
            train = raw
        elif _form(raw) != _form(train):
            raise DataError(
                f"these rows are {_form(raw)}, and those of train are {_form(train)}",
                where=part.place,
                cure="Give all parts the same columns, or images of the same size",
            )
        found[role] = Questions.of(raw, codes_of(part, classes))
    return found


def _documents(part: Part, role: str, notes: list[str]) -> Questions:
    """The rows of running text that hold something."""
    assert isinstance(part.raw, dict)
    (column,) = part.raw.values()
    there = np.flatnonzero([bool(text.strip()) for text in column])
    if not len(there):
        raise DataError(f"all texts of {role} are empty", where=part.place, cure="Give texts with something in them")
    if len(there) < len(column):
        notes.append(f"{role}: {len(column) - len(there):,} empty texts were left out")
    return Questions.of(part.raw).take(there)


def note_copies(rows: dict[str, Questions], notes: list[str]) -> None:
    """Say how many rows of validation and test stand in train too: a student may know them by heart."""
    known = {key.tobytes() for key in rows["train"].key_N}
    for role in ("validation", "test"):
        copies = sum(key.tobytes() in known for key in rows[role].key_N)
        if copies:
            notes.append(f"{copies:,} of {len(rows[role]):,} {role} rows stand in train as well, with the same content")


def _form(raw: Raw) -> str:
    """What one row is made of, in words."""
    if isinstance(raw, dict):
        return "columns " + ", ".join(raw)
    return " x ".join(str(side) for side in raw.shape[1:])
