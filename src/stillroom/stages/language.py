"""What is different of a stage where the teacher is a language model: windows of tokens, packed answers, another exam."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stillroom.errors import DataError, ModelError, RecipeError
from stillroom.kinds import AskedTeacher, Objective
from stillroom.rows import Questions, Splits
from stillroom.rundir import fingerprint, read_json, write_json

if TYPE_CHECKING:
    from stillroom.stages.opening import Run
    from stillroom.teachers.language import AskedLanguageModel
    from stillroom.training.language_batches import WindowSource
    from stillroom.transfer_set.recording import Recorder
    from stillroom.transfer_set.store import Kept, Store

FIDELITY = "transfer_set/fidelity.json"
GROWTH = 1.5
"""By so much the tail grows where fidelity asks for more bytes."""
MOST_TAIL_BYTES = 1024


def windows_of(run: Run, documents: Splits) -> Splits:
    """Documents or conversations as windows of the teacher's tokens, and the views bound to its tokenizer."""
    from stillroom.models.text import context_of, tokenizer_at
    from stillroom.questions.dataset import Dataset
    from stillroom.questions.views import Mask
    from stillroom.questions.windows import DEFAULT_LENGTH, windows

    if documents.classes:
        raise DataError(
            "a language model learns from running text, and these rows have labels",
            where="questions",
            cure="Give a .txt, or texts without a label column; for classes set the teacher's task: classification",
        )
    knobs = run.recipe.questions
    assert isinstance(knobs, Dataset), "only a data set gives documents"
    mask = None
    if run.recipe.teacher.solves() == "masked":
        mask = next((view for view in knobs.augment if isinstance(view, Mask)), None)
        if mask is None:
            raise RecipeError(
                "a masked model is asked for hidden tokens, and nothing hides any",
                where="questions.augment",
                cure="Add augment: {kind: mask}, and views: the number of maskings of each row that are kept",
            )
    path = _tokenizer_path(run)
    length = knobs.window or DEFAULT_LENGTH
    return windows(
        documents, tokenizer_at(path), length, context=context_of(path), pack=knobs.pack, skip=knobs.skip, mask=mask
    )


def tokenizer(run: Run) -> Any:
    """The teacher's tokenizer, which is the student's too."""
    from stillroom.models.text import tokenizer_at

    return tokenizer_at(_tokenizer_path(run))


def _tokenizer_path(run: Run) -> Path:
    path = run.recipe.teacher.each()[0].tokenizer_at(run.folders)
    if path is None:
        raise ModelError(
            f"a teacher of kind {run.recipe.teacher.kind} has no tokenizer",
            where="teacher",
            cure="Use a teacher of kind transformers, or one trained for language models",
        )
    return path


def ask_language(run: Run, asked: AskedLanguageModel, licences: dict[str, str], count: Any) -> Kept:
    """Calibrate on the run's own questions, see that enough is kept, then ask every training window once."""
    from stillroom.stages.opening import views_of
    from stillroom.transfer_set.ask import ask as ask_all
    from stillroom.transfer_set.store import Store

    recipe = run.recipe
    shared = recipe.transfer_set.store
    store = Store(run.dir.path / "transfer_set" if shared is None else run.folders[0] / shared)
    views = [] if recipe.transfer_set.live else views_of(recipe)
    with store.hold():
        recorder = recorder_of(run, asked, store) if views else _recorder_of_nothing(asked)
    return ask_all(
        store, recorder, run.splits.train, kind=recipe.teacher.kind, licences=licences, views=views,
        seen=run.seen_as(recipe.questions.augment), progress=count, shard_rows=recorder.shard_rows,
        layout=recorder.layout.to_json(),
    )  # fmt: skip


def _recorder_of_nothing(asked: AskedLanguageModel) -> Recorder:
    """A live teacher keeps no answers, but its header."""
    from stillroom.transfer_set.recording import Recorder
    from stillroom.transfer_set.sparse_logits import Layout

    return Recorder(asked, Layout.of(asked.model.vocabulary, 1, "bucket"), None, with_hidden=False)


def recorder_of(run: Run, asked: AskedLanguageModel, store: Store) -> Recorder:
    """What packs this teacher's answers. Its basis is fitted once and found again; too poor a one is given more bytes."""
    from stillroom.stages.opening import views_of
    from stillroom.transfer_set.basis import FittedBasis, fit_basis
    from stillroom.transfer_set.recording import BASIS, Recorder, calibrate
    from stillroom.transfer_set.sparse_logits import Layout

    knobs, wanted = run.recipe.transfer_set, run.recipe.transfer_set.fidelity
    with_hidden = needs_hidden(run)
    tail_bytes, hidden_NG = knobs.tail_bytes, None
    # Held-out windows of a masked model come masked; training windows are seen here in their first view.
    view = views_of(run.recipe)[0]
    train = run.seen_as(run.recipe.questions.augment)(run.splits.train, view)
    validation = run.splits.validation
    while True:
        layout = Layout.of(asked.model.vocabulary, knobs.head, knobs.tail, tail_bytes)
        recorder = Recorder(asked, layout, None, with_hidden)
        folder = store.root / recorder.fingerprint[:16]
        if knobs.tail == "hidden":
            if (folder / BASIS).is_file():
                recorder.fitted = FittedBasis.load(folder / BASIS)
            else:
                hidden_NG = calibrate(asked, train) if hidden_NG is None else hidden_NG
                recorder.fitted = fit_basis(hidden_NG, *asked.head(), tail_bytes=tail_bytes, seed=0)
                recorder.fitted.save(folder / BASIS)
        kl = float(_fidelity(run, recorder, {"train": train, "validation": validation})["validation"]["kl"])
        if wanted is None or kl <= wanted.kl:
            return recorder
        if tail_bytes * GROWTH > MOST_TAIL_BYTES or knobs.tail != "hidden":
            raise ModelError(
                f"kept answers differ from the teacher's by {kl:.3g} nats a position, and {wanted.kl:g} is asked for",
                where="transfer_set.fidelity.kl",
                cure="Ask for less, keep a longer head, or use tail: hidden",
            )
        tail_bytes = round(tail_bytes * GROWTH)


def _fidelity(run: Run, recorder: Recorder, parts: dict[str, Questions]) -> dict[str, dict[str, float]]:
    """How close to the teacher the records are on this run's own text, measured once."""
    from stillroom.transfer_set.recording import measured

    path = run.dir.path / FIDELITY
    made_from = fingerprint(recorder.fingerprint, {name: part.fingerprint() for name, part in parts.items()})
    if not path.is_file() or read_json(path)["made_from"] != made_from:
        write_json(path, {"made_from": made_from, **{name: measured(recorder, part) for name, part in parts.items()}})
    found: dict[str, Any] = read_json(path)
    found.pop("made_from")
    return found


def needs_hidden(run: Run) -> bool:
    """Some objective of the run or of an arm looks at the teacher's hidden layer."""
    objectives = [one for part in (run, *run.arms.values()) for one in part.recipe.objectives]
    return any("hidden" in one.required() for one in objectives)


def window_source(
    run: Run, objectives: Sequence[Objective], asked: AskedTeacher, kept: Kept, labels_alone: bool
) -> WindowSource:
    """What a role's batches are made of: windows, with the teacher's kept or live answers unless it learns from text alone."""
    from stillroom.stages.opening import views_of
    from stillroom.teachers.language import AskedLanguageModel
    from stillroom.training.language_batches import WindowSource
    from stillroom.transfer_set.recording import opened

    recipe, train = run.recipe, run.splits.train
    seen = run.seen_as(recipe.questions.augment) if recipe.questions.augment else None
    needs = frozenset[str]().union(*(objective.required() for objective in objectives)) - {"text"}
    if labels_alone or not needs:
        return WindowSource(train, seen=seen)
    if recipe.transfer_set.live:
        assert isinstance(asked, AskedLanguageModel), "kinds that solve a language task build one"
        return WindowSource(train, live=asked, seen=seen, with_hidden="hidden" in needs)
    views = views_of(recipe)
    assert kept.header.layout is not None, "a language model's answers have one"
    layout, fitted = opened(kept.folder, kept.header.layout)
    readers = [kept.position_reader(train.key_N, view) for view in views]
    return WindowSource(train, readers, layout, fitted, None, views, seen, "hidden" in needs)


def sit_language(
    run: Run, asked: AskedTeacher, kept: Kept, models: dict[str, list[Path]], spent: Any, about: dict[str, Any],
    folder: Path,
) -> None:  # fmt: skip
    """The exam of language models: scorecard.json and details.json."""
    from stillroom.evaluation.language_exam import LanguageExam, sit_language
    from stillroom.questions.windows import scored_bytes
    from stillroom.stages.opening import versions
    from stillroom.teachers.language import AskedLanguageModel

    assert isinstance(asked, AskedLanguageModel), "kinds that solve a language task build one"
    masked = run.recipe.teacher.solves() == "masked"
    splits = run.splits
    architecture: Literal["causal", "masked"] = "masked" if masked else "causal"
    exam = LanguageExam(
        run.recipe.name, architecture, splits, models, asked.model, asked.folders, run.recipe.evaluation,
        run.device, spent, None if masked else scored_bytes(splits.test, tokenizer(run)), _kept_facts(run, asked, kept),
        versions(), about,
    )  # fmt: skip
    with run.show.stage("evaluate", 1, "scorecard") as done:
        scorecard, details = sit_language(exam, folder)
        write_json(folder / "details.json", details)
        write_json(folder / "scorecard.json", scorecard)
        done(1)


def _kept_facts(run: Run, asked: AskedLanguageModel, kept: Kept) -> dict[str, Any]:
    """What the scorecard says of the transfer set, with its fidelity on test text measured now."""
    from stillroom.transfer_set.recording import Recorder, measured, opened

    if run.recipe.transfer_set.live:
        return {"rows": len(run.splits.train), "positions": 0, "bytes": 0, "shared_bytes": 0}
    assert kept.header.layout is not None, "a language model's answers have one"
    layout, fitted = opened(kept.folder, kept.header.layout)
    recorder = Recorder(asked, layout, fitted, with_hidden=False)
    known = {name: part for name, part in read_json(run.dir.path / FIDELITY).items() if name != "made_from"}
    by_source = {**known, "test": measured(recorder, run.splits.test)}
    records = layout.record_bytes * kept.positions
    return {
        "rows": len(kept),
        "positions": kept.positions,
        "bytes": kept.size_bytes,
        "bytes_per_token": layout.record_bytes,
        "shared_bytes": kept.size_bytes - records - 2 * kept.positions * (kept.header.hidden_width or 0),
        "dense_bytes_per_token": 2 * layout.vocabulary,
        "tail": layout.tail,
        "layout": layout.to_json(),
        "fidelity": {**by_source["test"], "by_source": by_source},
    }
