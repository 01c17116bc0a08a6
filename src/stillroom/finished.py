"""What one does with finished runs: predict, try by hand, list, compare, export the answers. Trains and asks nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import CorruptFile, DataError, InputError, ModelError, NotYet, StillroomError
from stillroom.evaluation.intervals import mcnemar
from stillroom.evaluation.predictions import read_test
from stillroom.progress import Silent
from stillroom.questions.sources import read_rows
from stillroom.questions.views import view_number
from stillroom.rows import PLAIN_VIEW, Questions, Raw, take_rows
from stillroom.rundir import RunDir, read_json, refuse_taken, write_named
from stillroom.stages.ask import answers_of
from stillroom.stages.opening import Run, clock_of, load, look_in, views_of

if TYPE_CHECKING:
    from stillroom.transfer_set.store import Kept

NEW_TOKENS = 32
"""What a language model writes after a prompt."""


def recipe_file(run: Path) -> Path:
    """The resolved recipe of a run folder. Raises InputError where it is none."""
    path = run / "recipe.yaml"
    if not path.is_file():
        raise InputError("this is no run folder: it has no recipe.yaml", where=str(run), cure="See stillroom runs")
    return path


def _student(run: Path) -> Any:
    from stillroom.models.loading import load_model

    folder = recipe_file(run).parent / "student"
    if not (folder / "manifest.json").is_file():
        raise ModelError("this run has no finished student", where=str(run), cure=f"Go on with: stillroom train {run}")
    return load_model(folder)


def _classifier(run: Path, command: str) -> Any:
    from stillroom.models.classifier import Classifier

    found = _student(run)
    if not isinstance(found, Classifier):
        raise NotYet(
            f"{command} with a language model",
            where=str(run),
            cure=f"Let it go on with prompts, one a line: stillroom predict {run} FILE.txt",
        )
    return found


def _rows_of(path: Path) -> Any:
    """The rows of a file, as `predict` takes them."""
    if not path.exists():
        raise DataError("there is no such file", where=str(path), cure="Check the path")
    return read_rows(str(path), [Path()])


def predict_file(run: Path, file: Path, as_json: bool) -> str:
    """Labels and probabilities of a file's rows, as CSV or JSON lines; of a language model, what it writes after each line."""
    import csv

    from stillroom.models.classifier import Classifier

    student = _student(run)
    if not isinstance(student, Classifier):
        return _written(student, file, as_json)
    try:
        said = student.predict(_rows_of(file))
    except DataError as error:
        where = error.where if file.name in error.where else f"{file.name}, {error.where}"
        raise DataError(error.what, where=where, cure=error.cure) from error
    out = StringIO()
    if as_json:
        for label, share_C in zip(said.label.tolist(), said.probabilities.tolist(), strict=True):
            shares = {str(name): round(share, 6) for name, share in zip(said.classes, share_C, strict=True)}
            out.write(json.dumps({"label": label, "probabilities": shares}, ensure_ascii=False) + "\n")
        return out.getvalue()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["label", *(f"p_{name}" for name in said.classes)])
    for label, share_C in zip(said.label.tolist(), said.probabilities.tolist(), strict=True):
        writer.writerow([label, *(f"{share:.6f}" for share in share_C)])
    return out.getvalue()


def _written(student: Any, file: Path, as_json: bool) -> str:
    """Each line of a file, and how a language model goes on."""
    import csv

    if not file.is_file():
        raise DataError("there is no such file", where=str(file), cure="Check the path")
    prompts = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    if not prompts:
        raise DataError("there is no prompt", where=str(file), cure="Write one a line")
    said = [one.text for one in student.generate(prompts, NEW_TOKENS)]
    if as_json:
        rows = [{"prompt": prompt, "continuation": text} for prompt, text in zip(prompts, said, strict=True)]
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([("prompt", "continuation"), *zip(prompts, said, strict=True)])
    return out.getvalue()


class Beside:
    """The student of a run with its teacher beside it, where the teacher can still be asked."""

    def __init__(self, run: Path) -> None:
        self.run, self.student = run, _classifier(run, "try")
        self.recipe, folder = load(recipe_file(run))
        self.folders = look_in(folder)
        self.label: Any = None

    def test_row(self, row: int) -> Raw:
        """One row of the test split."""
        splits = self.recipe.questions.build(self.folders)
        if not 0 <= row < len(splits.test):
            raise DataError(f"there is no test row {row}", where="--row", cure=f"Use 0 to {len(splits.test) - 1}")
        label = int(splits.test.label_N[row])
        self.label = None if label < 0 else splits.classes[label]
        return take_rows(splits.test.raw, np.array([row]))

    def from_hand(self, ask_value: Callable[[str], str]) -> Raw:
        """A row asked for column by column. Raises DataError where rows are images."""
        names = self.student.inputs.column_names
        if names is None:
            raise DataError(
                "this student looks at images", where="try", cure="Use --row N to take one of the test split"
            )
        # As it was typed: what is a number is known by the student's inputs, and 007 may be a category.
        raw: Raw = self.student.inputs.as_raw([{name: ask_value(name) for name in names}])
        return raw

    def answers(self, raw: Raw) -> dict[str, Any]:
        """Each model's probabilities of one row."""
        said = {"student": np.exp(self.student.log_probabilities(raw))[0].tolist()}
        home = self.run / "teacher"
        # A recorded teacher, or one given from Python, cannot be asked about a new row; the student then stands alone.
        with suppress(StillroomError):
            teacher = self.recipe.teacher.build(home, self.folders, self.student.classes)
            said["teacher"] = np.exp(teacher.answer(Questions.of(raw)).log_probabilities_NC)[0].tolist()
        return {"classes": self.student.classes, "models": said, "label": self.label}


def _scorecard(run: Path) -> dict[str, Any]:
    """A run's scorecard. Raises CorruptFile for what is none."""
    path = run / "scorecard.json"
    found = read_json(path)
    if not isinstance(found, dict) or not {"models", "rows", "seeds", "gap_recovered"} <= set(found):
        raise CorruptFile("this is no whole scorecard", where=str(path), cure=f"Make it anew: stillroom evaluate {run}")
    return found


def list_runs(root: Path) -> list[dict[str, Any]]:
    """Every run folder below `root`, with its state and accuracies."""
    found = []
    for path in sorted(root.rglob("recipe.yaml")) if root.is_dir() else []:
        run = path.parent
        one: dict[str, Any] = {"run": str(run), "state": _state(run)}
        if (run / "scorecard.json").is_file():
            scorecard = _scorecard(run)
            one["seeds"] = len(scorecard["seeds"])
            for role in ("teacher", "student", "control"):
                model = scorecard["models"].get(role, {})
                accuracy = model.get("accuracy", model.get("exact_match"))
                if accuracy is not None:
                    one[role] = accuracy["mean"]
        found.append(one)
    return found


def _state(run: Path) -> str:
    for name, state in (
        ("report.html", "finished"),
        ("scorecard.json", "evaluated"),
        ("student/manifest.json", "trained"),
    ):
        if (run / name).is_file():
            return state
    return "begun"


def side_by_side(runs: Sequence[Path]) -> dict[str, Any]:
    """Figures of several runs' students and controls, in columns; a note where they were not tested on the same rows."""
    cards = []
    for run in runs:
        if not (recipe_file(run).parent / "scorecard.json").is_file():
            cure = f"Go on with: stillroom evaluate {run}"
            raise InputError("this run has no scorecard", where=str(run), cure=cure)
        cards.append(_scorecard(run))
    figures: dict[str, list[Any]] = {}
    for model in ("teacher", "student", "control", "hard_teacher"):
        for key in (
            "bits_per_byte", "perplexity", "exact_match", "answer_tokens", "accuracy", "errors", "nll", "latency_ms_p50",
            "parameters",
        ):  # fmt: skip
            values = [card["models"].get(model, {}).get(key) for card in cards]
            if any(values):
                figures[f"{model}: {key}"] = values
    figures["gap_recovered"] = [card["gap_recovered"] for card in cards]
    if any(card.get("task") in ("language", "reasoning") for card in cards):
        notes = ["whether these runs were tested on the same text or questions is not looked at for language models"]
        return {"runs": [str(run) for run in runs], "figures": figures, "notes": notes}
    said = [read_test(run / "evaluation" / "predictions", "student") for run in runs]
    found: dict[str, Any] = {"runs": [str(run) for run in runs], "figures": figures, "notes": []}
    if any(not np.array_equal(one.key_N, said[0].key_N) for one in said):
        found["notes"].append("these runs were tested on different rows, so their figures are not comparable")
    elif len(said) == 2:
        found["mcnemar"] = mcnemar(said[0].right_N, said[1].right_N)
        found["notes"].append(
            "of the first seeds' students, {only_first} test rows are right in the first run alone and {only_second} in the "
            "second alone; McNemar's exact p = {p_value:.3g}".format(**found["mcnemar"])
        )
    return found


def answers_for(run: Path, form: str, out: Path) -> int:
    """Write a run's kept answers for another tool: key, split, view, label, top answer, probabilities.

    Views are told by their numbers; 0 is the row as it is. Of a language model a row for each position, see
    stages/token_answers.py, and a notice beside the file. Returns how many rows were written.
    """
    recipe, folder = load(recipe_file(run))
    if recipe.is_language:
        work = Run(recipe, RunDir(run), look_in(folder), Silent(), clock_of(recipe, run))
        return _token_answers(work, form, out)
    kept, splits = answers_of(run), recipe.questions.build(look_in(folder))
    rows: list[dict[str, Any]] = []
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    # Chat messages are for fine-tuning and name no split, so only what may be trained on goes out.
    for name, questions in parts.items() if form != "openai" else (("train", splits.train),):
        for view in views_of(recipe) if name == "train" else [PLAIN_VIEW]:
            # Not every question need have an answer: a live teacher's are not kept, a paid one may refuse some, rounds
            # leave some unasked, and recorded ones may cover the training rows alone.
            there = questions.take(np.flatnonzero(kept.answered(questions.key_N, view)))
            told = _answers_in(kept, there, view, name, splits.classes) if len(there) else []
            rows += told if form != "openai" else [_chat(there.raw, *one) for one in enumerate(told)]
    if not rows:
        raise DataError(
            "none of this run's questions has a kept answer", where=str(run), cure="Go on with: stillroom ask"
        )
    write_named(out, _encoded(rows, form))
    return len(rows)


def _token_answers(run: Run, form: str, out: Path) -> int:
    """The same of a language model; whose answers they are goes with them."""
    from stillroom.stages.token_answers import token_answers
    from stillroom.transfer_set.notice import notice

    if form == "openai":
        raise DataError(
            "a language model's probabilities are no chat messages", where="--openai", cure="Use --parquet or --jsonl"
        )
    kept = answers_of(run.dir.path)
    tables = [] if kept.header.layout is None or not len(kept) else list(token_answers(run, kept))
    if not tables:
        raise DataError(
            "no answer of this run's teacher is kept position by position: it is live, or its words are recorded",
            where=str(run.dir.path),
            cure="Take a run with a kept transfer set",
        )
    beside = notice_beside(out)
    refuse_taken(beside)
    teachers = [member.describe() for member in run.recipe.teacher.each()]
    basis = kept.header.layout is not None and "basis" in kept.header.layout
    write_named(out, _encoded_tables(tables, form))
    write_named(beside, notice(f"The answers in {out.name}", teachers, kept.header.licences, basis).encode())
    return sum(table.num_rows for table in tables)


def notice_beside(out: Path) -> Path:
    """Where it is told whose answers are in a file."""
    from stillroom.transfer_set.notice import NOTICE

    return out.with_name(f"{out.name}.{NOTICE}")


def _answers_in(kept: Kept, questions: Questions, view: int, split: str, classes: list[Any]) -> list[dict[str, Any]]:
    """What is kept of these questions in one view, a mapping a row."""
    share_NC = np.exp(kept.reader(questions.key_N, view).all().astype(np.float64))
    share_NC /= share_NC.sum(1, keepdims=True)
    rows = []
    for key, code, share_C in zip(questions.key_N, questions.label_N.tolist(), share_NC, strict=True):
        row = {
            "key": key.tobytes().hex(),
            "split": split,
            "view": view_number(view),
            "label": None if code < 0 else classes[code],
            "answer": classes[int(share_C.argmax())],
        }
        rows.append(row | {f"p_{one}": float(f"{share:.6g}") for one, share in zip(classes, share_C, strict=True)})
    return rows


def _chat(raw: Raw, place: int, row: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(raw, dict) and raw.dtype.kind not in "OU":
        raise DataError(
            "images and bare arrays cannot be told as chat messages", where="--openai", cure="Use --parquet"
        )
    one = take_rows(raw, np.array([place]))
    asked = {name: _as_text(column[0]) for name, column in one.items()} if isinstance(one, dict) else str(one[0])
    said = json.dumps(asked, ensure_ascii=False) if isinstance(asked, dict) else asked
    return {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": str(row["answer"])}]}


def _as_text(value: Any) -> str:
    """A cell as it stood in the file: a whole number without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _encoded_tables(tables: list[Any], form: str) -> bytes:
    if form != "parquet":
        return b"".join(_encoded(table.to_pylist(), form) for table in tables)
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.concat_tables(tables), sink)
    return bytes(sink.getvalue().to_pybytes())


def _encoded(rows: list[dict[str, Any]], form: str) -> bytes:
    if form != "parquet":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue().to_pybytes())
