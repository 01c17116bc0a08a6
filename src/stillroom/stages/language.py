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
    from stillroom.recipe import Fidelity
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
    mask = next((view for view in knobs.augment if isinstance(view, Mask)), None)
    if mask is not None and run.recipe.teacher.solves() == "causal":
        raise RecipeError(
            "a causal model is asked for the next token, and the view 'mask' hides tokens from it",
            where="questions.augment",
            cure="Take it out, or set the teacher's task: masked",
        )
    if mask is None and run.recipe.teacher.solves() == "masked":
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
        layout=recorder.written,
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
    tried = Tried(_fidelity_path(run), {"train": train, "validation": run.splits.validation})
    while True:
        layout = Layout.of(asked.model.vocabulary, knobs.head, knobs.tail, tail_bytes)
        recorder = Recorder(asked, layout, None, with_hidden, run.recipe.questions.model_dump(mode="json")["augment"])
        basis = store.root / recorder.fingerprint[:16] / BASIS
        if knobs.tail == "hidden" and basis.is_file():
            recorder.fitted = FittedBasis.load(basis)
        elif knobs.tail == "hidden" and not tried.too_far(recorder, wanted):
            hidden_NG = calibrate(asked, train) if hidden_NG is None else hidden_NG
            recorder.fitted = fit_basis(hidden_NG, *asked.head(), tail_bytes=tail_bytes, seed=0)
        kl = tried.kl(recorder)
        if wanted is None or kl <= wanted.kl:
            if recorder.fitted is not None and not basis.is_file():
                recorder.fitted.save(basis)
            return recorder
        if tail_bytes * GROWTH > MOST_TAIL_BYTES or knobs.tail != "hidden":
            raise ModelError(
                f"kept answers differ from the teacher's by {kl:.3g} nats a position, and {wanted.kl:g} is asked for",
                where="transfer_set.fidelity.kl",
                cure="Ask for less, keep a longer head, or use tail: hidden",
            )
        tail_bytes = round(tail_bytes * GROWTH)


def _fidelity_path(run: Run) -> Path:
    """An arm may keep its answers in another form."""
    path = run.dir.path / FIDELITY
    return path.with_stem(f"{path.stem}.{run.arm}") if run.arm else path


class Tried:
    """How close to the teacher each form of record is on a run's own text; measured once, whatever comes of it.

    fidelity.json: "tried", by the fingerprint of who answers and in which form, the figures of each part; "kept", the last.
    """

    def __init__(self, path: Path, parts: dict[str, Questions]) -> None:
        self.path, self.parts = path, parts
        self.made_from = fingerprint({name: part.fingerprint() for name, part in parts.items()})
        found = read_json(path) if path.is_file() else {}
        self.known: dict[str, Any] = found["tried"] if found.get("made_from") == self.made_from else {}

    def too_far(self, recorder: Recorder, wanted: Fidelity | None) -> bool:
        """Already measured, and found too far from the teacher: needs no basis."""
        known = self.known.get(recorder.fingerprint)
        return known is not None and wanted is not None and _kl(known) > wanted.kl

    def kl(self, recorder: Recorder) -> float:
        """Mean KL(teacher, kept) on validation text, nats a position; infinite for a sample, which leaves tokens out."""
        from stillroom.transfer_set.recording import measured

        name = recorder.fingerprint
        if name not in self.known or read_json(self.path)["kept"] != name:
            if name not in self.known:
                self.known[name] = {part: measured(recorder, each) for part, each in self.parts.items()}
            write_json(self.path, {"made_from": self.made_from, "kept": name, "tried": self.known})
        return _kl(self.known[name])


def _kl(figures: dict[str, Any]) -> float:
    return float(figures["validation"].get("kl", float("inf")))


def scored_positions(run: Run) -> int:
    """Positions that the teacher is asked for, all views of the training windows together."""
    from stillroom.stages.opening import views_of

    if run.recipe.transfer_set.live:
        return 0
    train = run.splits.train
    seen = run.seen_as(run.recipe.questions.augment)
    parts = [seen(train, view).raw for view in views_of(run.recipe)]
    return sum(int((raw["target"] >= 0).sum()) for raw in parts if isinstance(raw, dict))


def kept_bytes(run: Run, positions: int) -> int:
    """What so many positions' answers take on disk, with the basis, and the hidden layer where an objective looks at it."""
    from stillroom.transfer_set.basis import most_components
    from stillroom.transfer_set.sparse_logits import Layout

    knobs, tokens = run.recipe.transfer_set, len(tokenizer(run))
    layout = Layout.of(tokens, knobs.head, knobs.tail, knobs.tail_bytes)
    basis = 2 * tokens * most_components(knobs.tail_bytes) if knobs.tail == "hidden" else 0
    hidden = 2 * _hidden_width(run) if needs_hidden(run) else 0
    return positions * (layout.record_bytes + hidden) + basis


def _hidden_width(run: Run) -> int:
    """Of the teacher's last hidden layer; its architecture alone is built."""
    import torch

    from stillroom.models.transformers import Transformers

    teacher, ground = run.recipe.teacher, run.ground(untaught=True)
    design = ground.design
    if not isinstance(design, Transformers):
        weights = teacher.weights_at(run.dir.path, run.folders)
        design = Transformers.model_validate({"task": teacher.solves(), "from": str(weights and weights.absolute())})
    with torch.device("meta"):
        model, _ = design.model_and_tokenizer(0, ground)
    return int(model.get_output_embeddings().weight.shape[1])


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
    from stillroom.stages.opening import views_of
    from stillroom.transfer_set.recording import Recorder, measured, opened

    if run.recipe.transfer_set.live:
        return {"rows": len(run.splits.train), "positions": 0, "bytes": 0, "shared_bytes": 0}
    assert kept.header.layout is not None, "a language model's answers have one"
    layout, fitted = opened(kept.folder, kept.header.layout)
    recorder = Recorder(asked, layout, fitted, with_hidden=False)
    measured_before = read_json(_fidelity_path(run))
    known = measured_before["tried"][measured_before["kept"]]
    by_source = {**known, "test": measured(recorder, run.splits.test)}
    # This run's own: a shared store may hold more. Beside the records stand the basis, the header, and each shard's keys.
    windows, positions = len(run.splits.train) * len(views_of(run.recipe)), scored_positions(run)
    record_bytes = layout.record_bytes + 2 * (kept.header.hidden_width or 0)
    shared = kept.size_bytes - record_bytes * kept.positions
    return {
        "rows": windows,
        "positions": positions,
        "bytes": record_bytes * positions + shared,
        "bytes_per_token": layout.record_bytes,
        "shared_bytes": shared,
        "dense_bytes_per_token": 2 * layout.vocabulary,
        "tail": layout.tail,
        "layout": layout.to_json(),
        "fidelity": {**by_source["test"], "by_source": by_source},
    }
