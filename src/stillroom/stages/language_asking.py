"""A language model asked: what its answers are kept in is found on the run's own text, then every window is asked once.

An ensemble's members are asked one by one like any teacher; its own answers are merged from what is kept of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from stillroom.errors import BudgetReached, ModelError
from stillroom.kinds import AskedTeacher
from stillroom.rows import Array, PositionAnswers, Questions
from stillroom.rundir import fingerprint, read_json, write_file, write_json
from stillroom.stages.language_text import is_recorded
from stillroom.stages.layers import further_width, showing_layers
from stillroom.stages.opening import Run, store_of, views_of
from stillroom.stages.store_notes import tell_what_is_asked_anew
from stillroom.transfer_set.notice import NOTICE, notice

if TYPE_CHECKING:
    from stillroom.recipe import Fidelity
    from stillroom.teachers.language import AskedLanguageEnsemble, AskedLanguageModel, Speaks
    from stillroom.transfer_set.ask import Packs
    from stillroom.transfer_set.merging import Merger
    from stillroom.transfer_set.recording import Packer, Recorder
    from stillroom.transfer_set.store import Kept, Store

FIDELITY = "transfer_set/fidelity.json"
GROWTH = 1.5
"""By so much the tail grows where fidelity asks for more bytes."""
MOST_TAIL_BYTES = 1024


Count = Callable[[int, int], None]
"""Told how many windows were just answered, and for how many positions of them the teacher was asked."""


def ask_language(
    run: Run, asked: AskedLanguageModel, kind: str, licences: dict[str, str], count: Count,
    questions: Questions | None = None,
) -> Kept:  # fmt: skip
    """Calibrate on the run's own questions, see that enough is kept, then ask every training window once.

    `questions`: other windows, such as a student wrote, in the form that was found for the run's own. Raises BudgetReached.
    """
    store = store_of(run)
    with store.hold():
        recorder = _recorder_of_nothing(asked) if run.recipe.transfer_set.live else recorder_of(run, asked, store)
        tell_what_is_asked_anew(run, recorder, store.root)
    metered = _Metered(run, recorder)
    kept = _ask_all(run, store, metered, kind, licences, lambda rows: count(rows, metered.taken()), questions)
    _say_whose(run, store, kept)
    return kept


def _say_whose(run: Run, store: Store, kept: Kept) -> None:
    """Beside a basis, which is a projection of the teacher's weights, say so, and under which licence these are."""
    if kept.header.layout is None or "basis" not in kept.header.layout:
        return
    # Several teachers' folders look alike; which of them this one is, its licence and digests tell.
    teachers = sorted({member.describe() for member in run.recipe.teacher.each()})
    text = notice("The answers in this folder", [" or ".join(teachers)], kept.header.licences, basis=True).encode()
    path = kept.folder / NOTICE
    if not path.is_file() or path.read_bytes() != text:
        with store.hold():
            write_file(path, text)


def merge_language(
    run: Run, asked: AskedLanguageEnsemble, kept: Sequence[Kept], licences: dict[str, str], count: Count,
    questions: Questions | None = None,
) -> Kept:  # fmt: skip
    """The answers of an ensemble, made position by position from those of its members. Raises ModelError."""
    store, wanted = store_of(run), run.recipe.transfer_set.fidelity

    def merged(rows: int) -> None:
        count(rows, 0)  # of its members it was counted already

    if run.recipe.transfer_set.live:
        return _ask_all(run, store, _recorder_of_nothing(asked), "ensemble", licences, merged, questions)
    with store.hold():
        merger = merger_of(run, asked, store, kept)
        kl = _tried(run, None).kl(merger)
    # A sample leaves tokens out, so that its KL is infinite and says nothing; its members' have been looked at.
    if wanted is not None and math.isfinite(kl) and kl > wanted.kl:
        _refuse_poor(kl, wanted)
    return _ask_all(run, store, merger, "ensemble", licences, merged, questions)


def keep_nothing(run: Run, asked: AskedTeacher, kind: str, licences: dict[str, str]) -> Kept:
    """Of recorded words only the header: who said them, under which licence. Students read the words themselves."""
    from stillroom.transfer_set.store import Header

    store = store_of(run)
    with store.hold():
        return store.of(Header(asked.fingerprint, kind, [], None, licences))


def merger_of(run: Run, asked: AskedLanguageEnsemble, store: Store, kept: Sequence[Kept] = ()) -> Merger:
    """What merges the answers of an ensemble's members, each kept as it was found to be close enough."""
    from stillroom.transfer_set.merging import Merger

    return Merger(asked, [recorder_of(run, member, store) for member in asked.members], kept)


class _Metered:
    """A recorder under a budget of teacher tokens: it packs nothing that would pass it."""

    def __init__(self, run: Run, recorder: Recorder) -> None:
        self.run, self.recorder, self.most = run, recorder, run.recipe.budget.teacher_tokens
        self.fingerprint, self.classes, self.hidden_width = (
            recorder.fingerprint,
            recorder.classes,
            recorder.hidden_width,
        )
        self.shard_rows, self.written, self.made_of = recorder.shard_rows, recorder.written, recorder.made_of
        self._answered = 0

    def answer(self, questions: Questions, view: int = 0) -> PositionAnswers:
        """Packed records of every scored position. Raises BudgetReached before the teacher is asked."""
        more = positions_in(questions)
        if self.most is not None:
            spent = spent_tokens(self.run)
            if spent + more > self.most:
                raise BudgetReached(
                    f"the budget of {self.most:,} teacher tokens does not cover the next {len(questions):,} windows: {spent:,} "
                    f"are spent, and these have {more:,}",
                    where="budget.teacher_tokens",
                    cure="What was asked is kept; raise the budget and run again to go on",
                )
        said = self.recorder.answer(questions, view)
        self._answered += more
        return said

    def taken(self) -> int:
        """Positions answered since this was last asked."""
        taken, self._answered = self._answered, 0
        return taken


def spent_tokens(run: Run) -> int:
    """Tokens that this run's teachers were asked for so far, all attempts together."""
    return sum(int(one.get("tokens", 0)) for one in run.dir.events() if one["event"] == "asked")


def _ask_all(
    run: Run, store: Store, recorder: Recorder | Merger | _Metered, kind: str, licences: dict[str, str],
    count: Callable[[int], None], questions: Questions | None = None,
) -> Kept:  # fmt: skip
    from stillroom.transfer_set.ask import ask as ask_all

    recipe = run.recipe
    packs: Packs = recorder
    return ask_all(
        store, packs, run.splits.train if questions is None else questions, kind=kind, licences=licences,
        views=[] if recipe.transfer_set.live else views_of(recipe),
        seen=run.seen_as(recipe.questions.augment), progress=count, shard_rows=recorder.shard_rows,
        layout=recorder.written, made_of=recorder.made_of,
    )  # fmt: skip


def _recorder_of_nothing(asked: Speaks) -> Recorder:
    """A live teacher keeps no answers, but its header."""
    from stillroom.transfer_set.recording import Recorder
    from stillroom.transfer_set.sparse_logits import Layout

    return Recorder(asked, Layout.of(asked.model.vocabulary, 1, "bucket"), None, with_hidden=False)


def recorder_of(run: Run, asked: AskedLanguageModel, store: Store) -> Recorder:
    """What packs this teacher's answers. Its basis is fitted once and found again, be it by another run with the same store.

    One of other text that keeps too little of this run's is fitted anew on this one at equal bytes; where that keeps too
    little too, more bytes are given.
    """
    knobs, wanted = run.recipe.transfer_set, run.recipe.transfer_set.fidelity
    tried, tail_bytes = _tried(run, asked), knobs.tail_bytes
    fits = _Fits(run, asked, store, tried, wanted)
    while True:
        recorder = fits.recorder(tail_bytes)
        kl = tried.kl(recorder)
        if tried.other_text(recorder) is not None and wanted is not None and kl > wanted.kl:
            recorder = fits.recorder(tail_bytes, tried.own)
            kl = tried.kl(recorder)
        if wanted is None or kl <= wanted.kl:
            fits.keep(recorder)
            return recorder
        if tail_bytes * GROWTH > MOST_TAIL_BYTES or knobs.tail != "hidden":
            _refuse_poor(kl, wanted)
        tail_bytes = round(tail_bytes * GROWTH)


class _Fits:
    """Recorders of one teacher, each with the basis that its store has, or one that is fitted on the run's own questions."""

    def __init__(
        self, run: Run, asked: AskedLanguageModel, store: Store, tried: Tried, wanted: Fidelity | None
    ) -> None:
        self.knobs, self.augment = run.recipe.transfer_set, run.recipe.questions.model_dump(mode="json")["augment"]
        self.asked, self.store, self.tried, self.wanted = asked, store, tried, wanted
        self.with_hidden = needs_hidden(run)
        self.speaks = showing_layers(run, asked) if self.with_hidden else asked
        self._hidden_NG: Array | None = None

    def recorder(self, tail_bytes: int, text: str | None = None) -> Recorder:
        """One whose tail has so many bytes. Without a basis where it is known to keep too little: that needs none."""
        from stillroom.transfer_set.basis import FittedBasis, fit_basis
        from stillroom.transfer_set.recording import Recorder, calibrate
        from stillroom.transfer_set.sparse_logits import Layout

        layout = Layout.of(self.asked.model.vocabulary, self.knobs.head, self.knobs.tail, tail_bytes)
        found = Recorder(self.speaks, layout, None, self.with_hidden, self.augment, text)
        basis = self._basis(found)
        if self.knobs.tail == "hidden" and basis.is_file():
            found.fitted = FittedBasis.load(basis)
        elif self.knobs.tail == "hidden" and not self.tried.too_far(found, self.wanted):
            if self._hidden_NG is None:
                self._hidden_NG = calibrate(self.asked, self.tried.parts["train"])
            fitted = fit_basis(self._hidden_NG, *self.asked.head(), tail_bytes=tail_bytes, seed=0)
            found.fitted = replace(fitted, fitted_on=self.tried.own)
        return found

    def keep(self, recorder: Recorder) -> None:
        """Put its basis where its records will be."""
        if recorder.fitted is not None and not self._basis(recorder).is_file():
            recorder.fitted.save(self._basis(recorder))

    def _basis(self, recorder: Recorder) -> Path:
        from stillroom.transfer_set.recording import BASIS

        return self.store.root / recorder.fingerprint[:16] / BASIS


def _refuse_poor(kl: float, wanted: Fidelity) -> NoReturn:
    raise ModelError(
        f"kept answers differ from the teacher's by {kl:.3g} nats a position, and {wanted.kl:g} is asked for",
        where="transfer_set.fidelity.kl",
        cure="Ask for less, keep a longer head, or use tail: hidden",
    )


def fidelity_path(run: Run) -> Path:
    """Of the answers that students learn from. An arm may keep its own in another form."""
    path = run.dir.path / FIDELITY
    return path.with_stem(f"{path.stem}.{run.arm}") if run.arm else path


def _tried(run: Run, asked: AskedLanguageModel | None) -> Tried:
    """What was measured before of one teacher; None: of what all say together."""
    path, alone = fidelity_path(run), len(run.recipe.teacher.each()) == 1
    if asked is not None and not alone:
        path = path.with_stem(f"{path.stem}.{asked.fingerprint[:8]}")
    first = run.seen_as(run.recipe.questions.augment)(run.splits.train, views_of(run.recipe)[0])
    return Tried(path, {"train": first, "validation": run.splits.validation})


class Tried:
    """How close to the teacher each form of record is on a run's own text; measured once, whatever comes of it.

    fidelity.json: "tried", by the fingerprint of who answers and in which form, and by the text that its basis is of where
    that is not the run's own, the figures of each part; "bytes", of a record of each; "kept", the last.
    """

    def __init__(self, path: Path, parts: dict[str, Questions]) -> None:
        self.path, self.parts = path, parts
        """`parts`: of training questions the first view, and validation questions."""
        self.made_from = fingerprint({name: part.fingerprint() for name, part in parts.items()})
        self.own = parts["train"].fingerprint()
        found = read_json(path) if path.is_file() else {}
        same = found.get("made_from") == self.made_from
        self.known: dict[str, Any] = found["tried"] if same else {}
        self.bytes: dict[str, int] = found.get("bytes", {}) if same else {}

    def other_text(self, packer: Packer) -> str | None:
        """The questions that its basis was fitted on, where it was found in a store and these are not the run's own."""
        fitted = getattr(packer, "fitted", None)
        return None if fitted is None or fitted.fitted_on == self.own else fitted.fitted_on or "unknown"

    def _name(self, packer: Packer) -> str:
        other = self.other_text(packer)
        return packer.fingerprint if other is None else f"{packer.fingerprint}, basis of {other}"

    def too_far(self, packer: Packer, wanted: Fidelity | None) -> bool:
        """Already measured, and found too far from the teacher: needs no basis."""
        known = self.known.get(packer.fingerprint)
        return known is not None and wanted is not None and _kl(known) > wanted.kl

    def kl(self, packer: Packer) -> float:
        """Mean KL(teacher, kept) in nats a position, on training or validation text, whichever is worse; infinite for a
        sample, which leaves tokens out."""
        from stillroom.transfer_set.recording import measured

        name = self._name(packer)
        if name not in self.known or read_json(self.path)["kept"] != name:
            if name not in self.known:
                self.known[name] = {part: measured(packer, each) for part, each in self.parts.items()}
                self.bytes[name] = packer.layout.record_bytes
            told = {"made_from": self.made_from, "kept": name, "tried": self.known, "bytes": self.bytes}
            write_json(self.path, told)
        return _kl(self.known[name])


def _kl(figures: dict[str, Any]) -> float:
    return max(float(found.get("kl", float("inf"))) for found in figures.values())


def scored_positions(run: Run) -> int:
    """Positions that the teacher is asked for, all views of the training windows together."""
    if run.recipe.transfer_set.live or is_recorded(run.recipe.teacher):
        return 0
    seen = run.seen_as(run.recipe.questions.augment)
    return sum(positions_in(seen(run.splits.train, view)) for view in views_of(run.recipe))


def positions_in(questions: Questions) -> int:
    """Scored positions of windows as they are shown."""
    assert isinstance(questions.raw, dict), "windows are named arrays"
    return int((questions.raw["target"] >= 0).sum())


def kept_bytes(run: Run, positions: int) -> int:
    """What so many positions' answers take on disk, of all teachers and of what they say together, with each one's basis,
    and the hidden layer where an objective looks at it."""
    from stillroom.stages.language import tokenizer
    from stillroom.transfer_set.basis import most_components
    from stillroom.transfer_set.merging import merged_layout
    from stillroom.transfer_set.sparse_logits import Layout

    if is_recorded(run.recipe.teacher):
        return 0
    knobs, tokens, members = run.recipe.transfer_set, len(tokenizer(run)), len(run.recipe.teacher.each())
    layout = Layout.of(tokens, knobs.head, knobs.tail, knobs.tail_bytes)
    basis = 2 * tokens * most_components(knobs.tail_bytes) if knobs.tail == "hidden" else 0
    hidden = 2 * (_hidden_width(run) + further_width(run)) if needs_hidden(run) else 0
    merged = positions * merged_layout(layout).record_bytes if members > 1 else 0
    return members * (positions * (layout.record_bytes + hidden) + basis) + merged


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
