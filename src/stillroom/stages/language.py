"""What is different of a stage where the teacher is a language model: windows of tokens, packed answers, another exam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stillroom.errors import DataError, ModelError, RecipeError
from stillroom.kinds import AskedTeacher, Objective
from stillroom.rows import Questions, Splits
from stillroom.rundir import read_json, write_json

if TYPE_CHECKING:
    from stillroom.stages.opening import Run
    from stillroom.training.language_batches import WindowSource
    from stillroom.transfer_set.recording import Packer
    from stillroom.transfer_set.store import Kept


def windows_of(run: Run, documents: Splits) -> Splits:
    """Documents or conversations as windows of the teacher's tokens, and the views bound to its tokenizer."""
    from stillroom.questions.dataset import Dataset
    from stillroom.questions.views import Mask
    from stillroom.questions.windows import DEFAULT_LENGTH, windows
    from stillroom.stages.language_text import is_recorded, spoken

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
    if is_recorded(run.recipe.teacher):
        documents = spoken(run, documents)
    reader, context = _reads(run)
    length = knobs.window or DEFAULT_LENGTH
    return windows(documents, reader, length, context=context, pack=knobs.pack, skip=knobs.skip, mask=mask)


def own_words_of(run: Run) -> Questions | None:
    """Training windows of what the questions themselves say, where a recorded teacher says something else."""
    from stillroom.questions.windows import windows
    from stillroom.stages.language_text import is_recorded, own_words, spoken

    if not is_recorded(run.recipe.teacher):
        return None
    documents = run.recipe.questions.build(run.folders)
    taught = spoken(run, documents)
    own = own_words(documents, taught)
    if own is None:
        return None
    raw, (reader, context) = run.splits.train.raw, _reads(run)
    assert isinstance(raw, dict), "windows are named arrays"
    return windows(replace(taught, train=own), reader, raw["ids"].shape[1], context=context).train


def tokenizer(run: Run) -> Any:
    """The teacher's tokenizer, which is the student's too."""
    return _reads(run)[0]


def _reads(run: Run) -> tuple[Any, int]:
    """The tokenizer of the first teacher, and how many tokens all look at; of a recorded one, the student's.

    Teachers' and students' tokenizers are compared before anything is spent (language_checks.py).
    """
    from stillroom.stages.language_text import is_recorded, reads

    if is_recorded(run.recipe.teacher):
        return reads(run)
    found: list[tuple[Any, int]] = []
    for teacher in run.recipe.teacher.each():
        own = teacher.reads(run.folders)
        if own is None:
            raise ModelError(
                f"a teacher of kind {teacher.kind} has no tokenizer",
                where="teacher",
                cure="Use a teacher of kind transformers, or one trained for language models",
            )
        found.append(own)
    return found[0][0], min(context for _, context in found)


def window_source(
    run: Run, objectives: Sequence[Objective], asked: AskedTeacher, kept: Kept, labels_alone: bool, own: int = 0
) -> WindowSource:
    """What a role's batches are made of: windows, with the teacher's kept or live answers unless it learns from text alone.

    `own`: so many of the first ones the student wrote itself.
    """
    from stillroom.stages.layers import further_width, showing_layers, shown_layers
    from stillroom.stages.opening import views_of
    from stillroom.teachers.language import Speaks
    from stillroom.training.language_batches import WindowSource
    from stillroom.transfer_set.recording import opened

    recipe, train = run.recipe, run.splits.train
    seen = run.seen_as(recipe.questions.augment) if recipe.questions.augment else None
    needs = frozenset[str]().union(*(objective.required() for objective in objectives)) - {"text"}
    if labels_alone and run.own_words is not None:
        return WindowSource(run.own_words, seen=seen)
    if labels_alone or not needs:
        return WindowSource(train, seen=seen)
    hidden = "hidden" in needs
    layers = shown_layers(run) if hidden else ()
    width = further_width(run) // len(layers) if layers else 0
    if recipe.transfer_set.live:
        live = showing_layers(run, asked) if hidden else asked
        assert isinstance(live, Speaks), "kinds that solve a language task build one"
        return WindowSource(train, live=live, seen=seen, with_hidden=hidden, layers=layers, layer_width=width, own=own)
    views = views_of(recipe)
    assert kept.header.layout is not None, "a language model's answers have one"
    layout, fitted = opened(kept.folder, kept.header.layout)
    readers = [kept.position_reader(train.key_N, view) for view in views]
    return WindowSource(train, readers, layout, fitted, None, views, seen, hidden, layers, width, own)


def sit_language(
    run: Run, asked: AskedTeacher, kept: Kept, models: dict[str, list[Path]], spent: Any, about: dict[str, Any],
    folder: Path,
) -> None:  # fmt: skip
    """The exam of language models: scorecard.json and details.json."""
    from stillroom.evaluation.language_exam import LanguageExam, sit_language
    from stillroom.questions.windows import scored_bytes
    from stillroom.stages.on_policy_facts import on_policy_facts
    from stillroom.stages.opening import versions
    from stillroom.teachers.language import Speaks

    masked = run.recipe.teacher.solves() == "masked"
    splits = run.splits
    architecture: Literal["causal", "masked"] = "masked" if masked else "causal"
    exam = LanguageExam(
        run.recipe.name, architecture, splits, models, asked.model if isinstance(asked, Speaks) else None,
        asked.folders if isinstance(asked, Speaks) else [], run.recipe.evaluation,
        run.device, spent, None if masked else scored_bytes(splits.test, tokenizer(run)), _kept_facts(run, asked, kept),
        versions(), about,
    )  # fmt: skip
    with run.show.stage("evaluate", 1, "scorecard") as done:
        scorecard, details = sit_language(exam, folder)
        write_json(folder / "details.json", details | on_policy_facts(run, models))
        write_json(folder / "scorecard.json", scorecard)
        done(1)


def _kept_facts(run: Run, asked: AskedTeacher, kept: Kept) -> dict[str, Any]:
    """What the scorecard says of the transfer set, with its fidelity on test text measured now."""
    from stillroom.stages.language_asking import fidelity_path, merger_of, positions_in, scored_positions
    from stillroom.stages.on_policy_facts import windows_written
    from stillroom.stages.opening import store_of, views_of
    from stillroom.teachers.language import AskedLanguageEnsemble, Speaks
    from stillroom.transfer_set.recording import Recorder, measured, opened
    from stillroom.transfer_set.store import open_kept

    if not isinstance(asked, Speaks):  # its words themselves are what students learn from
        raw = run.splits.train.raw
        assert isinstance(raw, dict), "windows are named arrays"
        return {"rows": len(run.splits.train), "positions": int((raw["target"] >= 0).sum())}
    if run.recipe.transfer_set.live:
        return {"rows": len(run.splits.train), "positions": 0, "bytes": 0, "shared_bytes": 0}
    assert kept.header.layout is not None, "a language model's answers have one"
    layout, fitted = opened(kept.folder, kept.header.layout)
    members: list[Kept] = []
    if isinstance(asked, AskedLanguageEnsemble):
        store = store_of(run)
        merger = merger_of(run, asked, store)
        packer: Packer = merger
        members = [open_kept(store.root / one.fingerprint[:16]) for one in merger.members]
    else:
        packer = Recorder(asked, layout, fitted, with_hidden=False)
    measured_before = read_json(fidelity_path(run))
    by_source = {**measured_before["tried"][measured_before["kept"]], "test": measured(packer, run.splits.test)}
    by_slice = {name: measured(packer, part) for name, part in _test_slices(run.splits).items()}
    # This run's own: a shared store may hold more.
    windows, positions = len(run.splits.train) * len(views_of(run.recipe)), scored_positions(run)
    written = windows_written(run)
    if written is not None:
        windows, positions = windows + len(written), positions + positions_in(written)
    shared = sum(_shared_bytes(one) for one in (kept, *members))
    each = sum(_record_bytes(one) for one in (kept, *members))
    told = {"members_bytes_per_token": sum(map(_record_bytes, members))} if members else {}
    return {
        "rows": windows,
        "positions": positions,
        "bytes": each * positions + shared,
        "bytes_per_token": layout.record_bytes,
        **told,
        "shared_bytes": shared,
        "dense_bytes_per_token": 2 * layout.vocabulary,
        "tail": layout.tail,
        "layout": layout.to_json(),
        "fidelity": {
            **by_source["test"],
            "by_source": by_source,
            **_where_there_is(by_slice, _per_byte(measured_before)),
        },
    }


def _where_there_is(by_slice: dict[str, Any], per_byte: list[dict[str, float]]) -> dict[str, Any]:
    """Of what not every run measures."""
    return ({"by_slice": by_slice} if by_slice else {}) | ({"per_byte": per_byte} if len(per_byte) > 1 else {})


def _per_byte(fidelity: dict[str, Any]) -> list[dict[str, float]]:
    """What each form that was tried before the asking loses on validation text, by the bytes of its record."""
    found = [
        {"bytes": size, "kl": fidelity["tried"][name]["validation"]["kl"]}
        for name, size in fidelity.get("bytes", {}).items()
        if "kl" in fidelity["tried"][name]["validation"] and "basis of" not in name
    ]
    return sorted(found, key=lambda one: one["bytes"])


def _test_slices(splits: Splits) -> dict[str, Questions]:
    """The test windows of each slice."""
    told = [] if splits.slice_N is None else splits.slice_N.tolist()
    names = sorted({str(one) for one in told if one is not None})
    return {name: splits.test.take(np.flatnonzero([str(one) == name for one in told])) for name in names}


def _record_bytes(kept: Kept) -> int:
    """Of one position, with the hidden layer where it is kept."""
    assert kept.header.layout is not None, "a language model's answers have one"
    return int(kept.header.layout["record_bytes"]) + 2 * (kept.header.hidden_width or 0)


def _shared_bytes(kept: Kept) -> int:
    """Beside the records: the basis, the header, and each shard's keys."""
    return kept.size_bytes - _record_bytes(kept) * kept.positions
