"""Training steps of a language student timed against each other: what a teacher costs, kept or live.

A step is all of it: windows and records read from memory maps and decoded, forward, loss, backward, AdamW. Every block
trains the same student, so that weights, gradients and the optimiser's moments lie in the same memory. All blocks are
timed in float32, and again in the number format that a recipe gets on this machine where that is another.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import language_tiny
from benchmarks.language_sizes import Shape, Sizes
from benchmarks.results import Found, Row, Table, fingerprint
from benchmarks.timing import paired_difference, paired_ratio, rounds
from stillroom.models.classifier import autocast
from stillroom.models.device import Device
from stillroom.models.language import LanguageModel, LanguageNetwork
from stillroom.models.pretrained import count_parameters
from stillroom.objectives.fused import fused_cross_entropy
from stillroom.objectives.soft_target import SoftTargetLoss
from stillroom.rows import Array, Batch, Head, Output, Questions
from stillroom.teachers.language import AskedLanguageModel
from stillroom.training.language_batches import WindowBatches, WindowSource
from stillroom.transfer_set.ask import ask
from stillroom.transfer_set.basis import FittedBasis, fit_basis
from stillroom.transfer_set.recording import BASIS, Recorder, opened
from stillroom.transfer_set.sparse_logits import Layout
from stillroom.transfer_set.store import Store, open_kept

Step = Callable[[], None]
LIGER = "STILLROOM_LIGER"
"""The folder of `pip install --no-deps --target FOLDER liger-kernel`."""
BATCHES = 4
"""Kept on disk and gone through again and again."""
HEAD, TAIL_BYTES = 8, 32
WORDS = {
    "ce": "our fused cross-entropy",
    "labels": "model(input_ids, labels)",
    "samples": f"stored: head of {HEAD} and samples in {TAIL_BYTES} bytes",
    "tail": f"stored: head of {HEAD} and hidden tail in {TAIL_BYTES} bytes",
    "live": "live teacher, our fused KL",
    "liger": "live teacher, Liger's chunked KL",
}


class Bench:
    """Student, teacher, windows and records of one shape; everything on disk lies in `folder`. `dtype`: as in a recipe."""

    def __init__(self, shape: Shape, folder: Path, batches: int = BATCHES, dtype: str = "float32") -> None:
        self.shape, self.folder, self.number = shape, folder, batches
        self.questions = _windows(shape, folder / "windows.npy", batches * shape.rows)
        self.student = LanguageNetwork(
            language_tiny.llama(shape.vocabulary, shape.width, shape.layers, shape.tokens), "causal"
        )
        self.device = Device().for_size(count_parameters(self.student), dtype)
        self.optimiser = torch.optim.AdamW(self.student.parameters(), 1e-4, fused=True)
        self._step_number = 0

    @cached_property
    def asked(self) -> AskedLanguageModel:
        """The teacher, made where it is needed."""
        shape = self.shape
        model = language_tiny.llama(shape.vocabulary, shape.teacher_width, shape.teacher_layers, shape.tokens, 1)
        asked = AskedLanguageModel(LanguageModel(model, _Nameless(), "causal"))
        asked.fingerprint = fingerprint([str(shape)])
        return asked

    @cached_property
    def beside(self) -> AskedLanguageModel:
        """The same teacher as it answers beside a student: in bfloat16 wherever that gains."""
        single = self.asked.single
        device = Device().for_size(single.parameters, "auto")
        return AskedLanguageModel(LanguageModel(single.network.model, _Nameless(), "causal", device))

    def batches(self, **source: Any) -> WindowBatches:
        """The product's own batches."""
        return WindowBatches(WindowSource(self.questions, **source), self.shape.rows, 0, self.device)

    def hear(self, batch: Batch) -> Output:
        """What the student makes of a batch, as the product's loop has it said."""
        with autocast(self.device):
            found: Output = self.student(batch.input)
        return found

    def _step(self, batches: WindowBatches, loss_of: Callable[[Batch], torch.Tensor]) -> Step:
        def step() -> None:
            self._step_number += 1
            self.optimiser.zero_grad(
                set_to_none=True
            )  # before the forward pass, so that old gradients take no room then
            loss = loss_of(batches(self._step_number % self.number))
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()

        return step

    def ce(self) -> Step:
        """Next-token loss on text, without the logits."""

        def loss(batch: Batch) -> torch.Tensor:
            _, hidden_PH, head, _ = self.hear(batch)
            assert batch.label_B is not None
            return fused_cross_entropy(hidden_PH, head, batch.label_B) / len(batch.label_B)

        return self._step(self.batches(), loss)

    def labels(self) -> Step:
        """The same as the library itself does it, logits whole."""

        def loss(batch: Batch) -> torch.Tensor:
            ids_BT = batch.input.ids_BT  # type: ignore[union-attr]
            with autocast(self.device):
                found: torch.Tensor = self.student.model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
            return found

        return self._step(self.batches(), loss)

    def stored(self, tail: str) -> Step:
        """From records on disk; `tail` as in a layout."""
        self.prepare(tail)
        return self.read_stored(tail)

    def prepare(self, tail: str) -> None:
        """Ask the teacher and keep what it says, as a run does."""
        recorder = self.recorder(tail)
        kept = ask(
            Store(self.folder / tail), recorder, self.questions, kind="bench", licences={}, views=(0,),
            seen=lambda rows, view: rows, layout=recorder.written,
        )  # fmt: skip
        if recorder.fitted is not None:
            recorder.fitted.save(kept.folder / BASIS)

    def read_stored(self, tail: str) -> Step:
        """A step from what `prepare` kept; the teacher is not needed."""
        kept = open_kept(next(path for path in (self.folder / tail).iterdir() if path.is_dir()))
        assert kept.header.layout is not None
        layout, fitted = opened(kept.folder, kept.header.layout)
        reader = kept.position_reader(self.questions.key_N)
        return self._step(self.batches(readers=[reader], layout=layout, fitted=fitted), self._soft_target)

    def recorder(self, tail: str) -> Recorder:
        """What packs this teacher's answers."""
        layout, fitted = Layout.of(self.shape.vocabulary, HEAD, tail, TAIL_BYTES), None  # type: ignore[arg-type]
        if tail == "hidden":
            fitted = self._basis()
        return Recorder(self.asked, layout, fitted, with_hidden=False)

    def _basis(self) -> FittedBasis:
        outputs = [one.output.hidden_BH.float().numpy() for one in self.asked.outputs(self.questions)]
        return fit_basis(np.concatenate(outputs), *self.asked.head(), tail_bytes=TAIL_BYTES)

    def _soft_target(self, batch: Batch) -> torch.Tensor:
        loss = SoftTargetLoss(1.0, "forward", False)
        return loss.sum(self.hear(batch), batch) / loss.count(batch)

    def live(self) -> Step:
        """The teacher asked in the step."""
        return self._step(self.batches(live=self.beside), self._soft_target)

    def liger(self, loss_class: Any, compiled: bool) -> Step:
        """The same teacher and student, Liger's loss: KL alone, beta 0 of its Jensen-Shannon family."""
        judge = loss_class(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=compiled)

        def loss(batch: Batch) -> torch.Tensor:
            return self._judged(judge, self.hear(batch), batch)

        return self._step(self.batches(live=self.beside), loss)

    @cached_property
    def _teacher_weight_VG(self) -> torch.Tensor:
        """The teacher's output matrix in the format of its hidden states, for Liger multiplies only what is alike."""
        weight_VG: torch.Tensor = self.beside.head().weight_VH
        return weight_VG.bfloat16() if self.beside.single.device.dtype == "bfloat16" else weight_VG

    def _judged(self, judge: Any, output: Output, batch: Batch) -> torch.Tensor:
        """Liger's loss, under the autocast that the student is under."""
        assert batch.teacher is not None
        assert output.hidden_BH is not None
        assert isinstance(output.head, Head)
        given = (output.hidden_BH, output.head.weight_VH, batch.teacher.hidden_BH, self._teacher_weight_VG)
        with autocast(self.device):
            found: torch.Tensor = judge(*given, batch.label_B)
        return found

    def same_loss(self, loss_class: Any) -> float:
        """Our live loss and Liger's on one batch: the relative difference, which must be rounding."""
        batch = self.batches(live=self.beside)(0)
        with torch.no_grad():
            output = self.hear(batch)
        ours = SoftTargetLoss(1.0, "forward", False).sum(output, batch) / batch.rows
        judge = loss_class(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=False)
        theirs = self._judged(judge, output, batch)
        return float(((ours - theirs).abs() / theirs.abs()).detach())

    def teacher_pass(self) -> Step:
        """Asking and keeping one batch with a hidden tail: what is paid once."""
        recorder, kept = self.recorder("hidden"), self.questions.take(np.arange(self.shape.rows))

        def one() -> None:
            with tempfile.TemporaryDirectory(dir=self.folder) as new:
                ask(
                    Store(Path(new)), recorder, kept, kind="bench", licences={}, views=(0,),
                    seen=lambda rows, view: rows, layout=recorder.written,
                )  # fmt: skip

        return one


class _Nameless:
    """Stands where a tokenizer would; random ids need none."""

    model_max_length = None


def _windows(shape: Shape, path: Path, count: int) -> Questions:
    """Random tokens, read through a memory map: ids [N, T] and their targets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids_NT = np.random.default_rng(0).integers(1, shape.vocabulary, (count, shape.tokens)).astype(np.int32)
    target_NT = np.concatenate([ids_NT[:, 1:], np.full((count, 1), -1, np.int32)], 1)
    np.save(path, np.stack([ids_NT, target_NT]))
    mapped: Array = np.load(path, mmap_mode="c")  # to read; torch wants arrays that could be written
    return Questions.of({"ids": mapped[0], "target": mapped[1]})


def liger() -> tuple[Any, str, str]:
    """Liger's loss class, its version, and why there is none."""
    folder = os.environ.get(LIGER, "")
    if not (Path(folder) / "liger_kernel").is_dir() or not folder:
        return None, "", f"not run: ${LIGER} names no folder with liger_kernel"
    sys.path.append(folder)
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # type: ignore[import-not-found]
    except ImportError as error:
        return None, "", f"not run: Liger's losses cannot be imported: {error}"
    finally:
        sys.path.remove(folder)
    found = next(Path(folder).glob("liger_kernel-*.dist-info"), Path("liger_kernel-unknown.dist-info"))
    return LigerFusedLinearJSDLoss, found.name.removeprefix("liger_kernel-").removesuffix(".dist-info"), ""


def _faster(bench: Bench, loss_class: Any) -> tuple[Step, str]:
    """Liger's loss compiled or not, whichever takes less here; its first step, which compiles, is not counted."""
    plain = bench.liger(loss_class, compiled=False)
    compiled = bench.liger(loss_class, compiled=True)
    try:
        compiled()
    except (RuntimeError, ImportError, OSError) as error:  # a compiler that is missing or broken
        return plain, f"not compiled, for torch.compile fails here ({type(error).__name__})"
    seconds = rounds({"plain": plain, "compiled": compiled}, 1)
    if seconds["compiled"][0] < seconds["plain"][0]:
        return compiled, "compiled, as is its default"
    return plain, "not compiled, which is faster here than its default"


def steps(sizes: Sizes) -> Row:
    """All blocks in turn, in float32 and in the default number format, and the ratios that the bars ask for."""
    loss_class, version, why = liger()
    seconds: dict[str, dict[str, list[float]]] = {}
    tables: dict[str, Table] = {}
    for wanted, name in (("float32", "steps"), ("auto", "steps-default")):
        with tempfile.TemporaryDirectory(prefix="stillroom-language-") as folder:
            bench = Bench(sizes.shape, Path(folder), dtype=wanted)
            dtype, theirs = bench.device.dtype, bench.beside.single.device.dtype
            if dtype in seconds:  # the default is float32 here
                continue
            seconds[dtype], told = _timed(bench, sizes.rounds, loss_class, version)
        note = f"The live teacher computes in {theirs} beside both losses. {told or why}"
        tables[name] = _table(seconds[dtype], sizes.shape, dtype, note)
    tables["payback"] = _payback(seconds[dtype], dtype)
    return Row(_bars(seconds, sizes.rounds, theirs, why), tables)


def _timed(bench: Bench, count: int, loss_class: Any, version: str) -> tuple[dict[str, list[float]], str]:
    """Seconds of every block, and what is to be told of Liger's; nothing where there is none."""
    blocks: dict[str, Step] = {
        "ce": bench.ce(),
        "labels": bench.labels(),
        "samples": bench.stored("sample"),
        "tail": bench.stored("hidden"),
        "live": bench.live(),
    }
    told = ""
    if loss_class is not None:
        blocks["liger"], way = _faster(bench, loss_class)
        told = (
            f"Liger {version}, {way}; on one batch its loss and ours differ by {bench.same_loss(loss_class):.1g} of it."
        )
    blocks["pass"] = bench.teacher_pass()
    return rounds(blocks, count), told


PAIRS = {
    "lm-stored-vs-fused-ce": ("samples", "ce"),
    "lm-stored-vs-labels": ("samples", "labels"),
    "lm-tail-vs-fused-ce": ("tail", "ce"),
    "lm-live-vs-liger": ("live", "liger"),
}
LIVE = "lm-live-vs-liger"


def _bars(seconds: Mapping[str, Mapping[str, Sequence[float]]], count: int, teacher: str, why: str) -> dict[str, Found]:
    """Of each number format's ratios the worse; n says which they are, and in what the live teacher computed."""
    found = {}
    for name, (one, other) in PAIRS.items():
        if not all(other in times for times in seconds.values()):
            found[name] = Found(None, why=why)
            continue
        ratios = {dtype: paired_ratio(times[one], times[other]) for dtype, times in seconds.items()}
        told = " and ".join(f"{ratio:.3f} in {dtype}" for dtype, (ratio, _) in ratios.items())
        n = f"{count} rounds: " + (f"the worse of {told}" if len(ratios) > 1 else f"{told}, the default here")
        n += f"; the teacher in {teacher} on both sides" if name == LIVE else ""
        found[name] = Found(*max(ratios.values(), key=lambda ratio: ratio[0]), n)
    return found


def _table(seconds: Mapping[str, Sequence[float]], shape: Shape, dtype: str, note: str) -> Table:
    rows = []
    for name, words in WORDS.items():
        if name not in seconds:
            continue
        times = seconds[name]
        ratio, ends = paired_ratio(times, seconds["ce"])
        span = f"{min(times):.3g} to {max(times):.3g}"
        rows.append([words, round(median(times), 4), span, f"{ratio:.3f}", f"{ends[0]:.3f} to {ends[1]:.3f}"])
    title = (
        f"A step of {shape.rows} x {shape.tokens} tokens, vocabulary {shape.vocabulary:,}, student {shape.width} wide with "
        f"{shape.layers} layers, teacher {shape.teacher_width} wide with {shape.teacher_layers}, {dtype}"
    )
    return Table(title, ["", "s/step", "range", "over fused cross-entropy", "95 % interval"], rows, note)


def _payback(seconds: Mapping[str, Sequence[float]], dtype: str) -> Table:
    """How soon asking once is cheaper than asking in each step."""
    once = median(seconds["pass"])
    rows: list[list[Any]] = []
    for name in ("samples", "tail"):
        saved, ends = paired_difference(seconds["live"], seconds[name])
        epochs = [once / one if one > 0 else float("inf") for one in (saved, *ends[::-1])]
        first = int(np.ceil(epochs[0])) if np.isfinite(epochs[0]) else "never"
        rows.append(
            [
                WORDS[name],
                round(once, 3),
                round(saved, 3),
                f"{epochs[0]:.2f}",
                f"{epochs[1]:.2f} to {epochs[2]:.2f}",
                first,
            ]
        )
    columns = ["", "asking and keeping, s a batch, once", "saved against live, s a step", "epochs to pay back", "95 % interval",
               "cheaper by the end of epoch"]  # fmt: skip
    return Table(
        f"When asking once is paid back, {dtype}", columns, rows, "Every seed, arm and later run saves the same again."
    )
