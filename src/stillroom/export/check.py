"""An exported student against PyTorch on real rows: the same answers, how large, how fast, how accurate.

float32 must answer alike (the largest difference of a probability is at most 1e-4), or the export is an error. Eight
bits answer differently; how often, and what it costs in accuracy, is part of the result and of its notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from stillroom.errors import DataError, ModelError
from stillroom.evaluation.intervals import mcnemar
from stillroom.evaluation.speed import ratio, time_together
from stillroom.export.encoding import MASK, TARGET, WINDOW
from stillroom.export.graphs import Graph, opened
from stillroom.export.onnx_model import Exported, export_onnx, remove_graphs, size_bytes
from stillroom.export.runner import OnnxModel, log_softmax
from stillroom.models.device import threads as torch_threads
from stillroom.rows import UNLABELLED, Array, Raw, row_count
from stillroom.rundir import write_json

Encoded: TypeAlias = dict[str, Array]
Run: TypeAlias = Callable[[Encoded], Array]

CHECK, PYTORCH, ONNX, INT8 = "check.json", "pytorch", "onnx", "int8"
TOLERANCE = 1e-4
CHUNK_ROWS, CHUNK_TOKENS, CHUNK_LOGITS = 256, 4096, 16_000_000
TIMED_TOKENS, TIMED_ROWS = 64, 32
"""Language models are timed on windows cut to so many tokens, and at most so many at once."""
BIG_BATCH, BIG_BATCH_OF_TEXTS = 1024, 64


def export_checked(
    folder: Path, out: Path, raw: Raw, label_N: Array | None = None, *, int8: bool = False, threads: int = 1,
    seconds: float = 20.0, tolerance: float = TOLERANCE,
) -> tuple[Exported, dict[str, Any]]:  # fmt: skip
    """Export the student in `folder`, check it on these rows, and keep the result as check.json.

    Raises ModelError where float32 does not agree; its file is then removed, so that no wrong one stays.
    """
    made = export_onnx(folder, out, int8=int8)
    try:
        found = check(folder, made, raw, label_N, threads=threads, seconds=seconds, tolerance=tolerance)
    except ModelError:
        remove_graphs(out)
        raise
    write_json(out / CHECK, found)
    return made, found


def check(
    folder: Path, made: Exported, raw: Raw, label_N: Array | None = None, *, threads: int = 1, seconds: float = 20.0,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:  # fmt: skip
    """Compare PyTorch, ONNX and its eight bits on rows: {"rows", "scored", "threads", "models": {name: ..}, "notes"}.

    Each of models pytorch, onnx, int8: bytes; latency_ms_p50 and rows_per_s (with `batch_rows` at once), from raw row
    to answer, in alternated rounds; with labels (or a language model's targets) accuracy and nll, nats. The latter two:
    also largest_difference of a probability, agreement (share of equal top answers), `faster` and `smaller` than PyTorch
    as ratios, and `mcnemar` beside an accuracy. Raises ModelError where float32 differs by more than `tolerance`,
    DataError without rows.
    """
    if not row_count(raw):
        raise DataError("there are no rows to check an export on", where="export", cure="Give at least one row")
    graph = opened(folder)
    sessions = {ONNX: OnnxModel(made.folder, made.float32.name, threads=threads)}
    if made.int8 is not None:
        sessions[INT8] = OnnxModel(made.folder, made.int8.name, threads=threads)
    runs: dict[str, Run] = {PYTORCH: graph.run, **{name: session.run for name, session in sessions.items()}}
    with torch_threads(threads):
        tallies = _compare(graph, runs, raw, label_N)
        largest = tallies[ONNX].largest_difference
        if not largest <= tolerance:
            raise ModelError(
                f"the ONNX file does not answer as PyTorch does: a probability differs by {largest:.2g}",
                where=str(made.float32),
                cure=f"At most {tolerance:g} is allowed; report the architecture, and use the student as it is meanwhile",
            )
        models = {name: tally.told() for name, tally in tallies.items()}
        _add_speed(models, graph, runs, raw, seconds)
    sizes = {PYTORCH: graph.weights_bytes, ONNX: size_bytes(made.float32)}
    if made.int8 is not None:
        sizes[INT8] = size_bytes(made.int8)
    for name, found in models.items():
        found["bytes"] = sizes[name]
        if name != PYTORCH:
            found["smaller"] = sizes[PYTORCH] / sizes[name]
            if tallies[name].right:
                found["mcnemar"] = mcnemar(tallies[PYTORCH].right_N, tallies[name].right_N)
    told = {"rows": row_count(raw), "scored": tallies[PYTORCH].scored, "threads": threads, "models": models}
    return {**told, "notes": _notes(models)}


@dataclass
class _Tally:
    """What one model said of all answers so far, beside PyTorch's."""

    scored: int = 0
    agreed: int = 0
    largest_difference: float = 0.0
    nll: float = 0.0
    right: list[Array] = field(default_factory=list)

    def add(self, log_p_PC: Array, reference_PC: Array, target_P: Array) -> None:
        """Take in log-probabilities of P answers; a target is UNLABELLED where there is none."""
        self.scored += len(log_p_PC)
        self.agreed += int((log_p_PC.argmax(1) == reference_PC.argmax(1)).sum())
        difference = float(np.abs(np.exp(log_p_PC) - np.exp(reference_PC)).max(initial=0.0))
        self.largest_difference = float(np.maximum(self.largest_difference, difference))  # NaN stays
        known_P = np.flatnonzero(target_P != UNLABELLED)
        if len(known_P):
            self.right.append(log_p_PC[known_P].argmax(1) == target_P[known_P])
            self.nll -= float(log_p_PC[known_P, target_P[known_P]].sum(dtype=np.float64))

    @property
    def right_N(self) -> Array:
        """True where the top answer was the label, of all labelled ones."""
        return np.concatenate(self.right)

    def told(self) -> dict[str, Any]:
        """The figures, as plain data."""
        found: dict[str, Any] = {
            "largest_difference": self.largest_difference,
            "agreement": self.agreed / max(self.scored, 1),
        }
        if self.right:
            found |= {"accuracy": float(self.right_N.mean()), "nll": self.nll / len(self.right_N)}
        return found


def _compare(graph: Graph, runs: Mapping[str, Run], raw: Raw, label_N: Array | None) -> dict[str, _Tally]:
    """Every model on every row, in chunks of like lengths."""
    encoded = graph.encoding.encode(raw)
    tallies = {name: _Tally() for name in runs}
    target_NT = _targets(graph, raw, label_N)
    for index_B in _chunks(graph, encoded):
        chunk = _cut(encoded, index_B)
        there_BT = chunk[MASK].astype(bool) if target_NT.ndim == 2 else None
        target_P = target_NT[index_B] if there_BT is None else target_NT[index_B, : there_BT.shape[1]][there_BT]
        reference: Array | None = None
        for name, run in runs.items():
            logits = run(chunk)
            log_p_PC = log_softmax(logits if there_BT is None else logits[there_BT])
            reference = log_p_PC if reference is None else reference
            tallies[name].add(log_p_PC, reference, target_P)
    return tallies


def _targets(graph: Graph, raw: Raw, label_N: Array | None) -> Array:
    """Labels [N] of a classifier's rows; of a language model's windows, what each position should say [N, T]."""
    if graph.task not in ("causal", "masked"):
        return np.full(row_count(raw), UNLABELLED, np.int64) if label_N is None else label_N
    ids = raw[WINDOW] if isinstance(raw, dict) else raw
    known = raw.get(TARGET) if isinstance(raw, dict) else None
    return np.full(ids.shape, UNLABELLED, np.int64) if known is None else known


def _chunks(graph: Graph, encoded: Encoded) -> Iterator[Array]:
    """Places of rows that are run together, short ones first."""
    if MASK not in encoded:
        count = len(next(iter(encoded.values())))
        for start in range(0, count, CHUNK_ROWS):
            yield np.arange(start, min(start + CHUNK_ROWS, count))
        return
    length_N = encoded[MASK].sum(1)
    order_N = np.argsort(length_N, kind="stable")
    tokens = CHUNK_TOKENS
    if graph.task in ("causal", "masked"):
        vocabulary = graph.run(_cut(encoded, order_N[:1])).shape[-1]
        tokens = min(tokens, CHUNK_LOGITS // vocabulary)
    start = 0
    while start < len(order_N):
        rows = max(1, tokens // int(length_N[order_N[start]]))
        rows = max(1, tokens // int(length_N[order_N[start : start + rows][-1]]))
        yield order_N[start : start + rows]
        start += rows


def _cut(encoded: Encoded, index_B: Array) -> Encoded:
    """These rows, cut to the longest of them."""
    found = {name: value[index_B] for name, value in encoded.items()}
    if MASK in found:
        longest = int(found[MASK].sum(1).max())
        found = {name: np.ascontiguousarray(value[:, :longest]) for name, value in found.items()}
    return found


def _add_speed(
    models: dict[str, dict[str, Any]], graph: Graph, runs: Mapping[str, Run], raw: Raw, seconds: float
) -> None:  # fmt: skip
    """Latency and throughput of every model, from raw row to answer, in alternated rounds."""

    def answers(run: Run) -> Callable[[Raw], Array]:
        return lambda rows: run(graph.encoding.encode(rows))

    timed, big_batch = raw, BIG_BATCH
    if graph.encoding.of_tokens:
        big_batch = BIG_BATCH_OF_TEXTS
    if graph.encoding.inputs is None:
        timed = (raw[WINDOW] if isinstance(raw, dict) else raw)[:, :TIMED_TOKENS]
        big_batch = TIMED_ROWS
    found = time_together(
        {name: answers(run) for name, run in runs.items()}, timed, seconds=seconds, big_batch=big_batch
    )
    for name, timing in found.items():
        figures = timing.figures()
        models[name] |= {one: figures[one] for one in ("latency_ms_p50", "rows_per_s")} | {"batch_rows": big_batch}
        if name != PYTORCH:
            models[name]["faster"] = ratio(found[PYTORCH], timing, "latency_ms_p50")


def _notes(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a reader must not miss."""
    notes: list[str] = []
    plain, small = models[PYTORCH], models.get(INT8)
    if small is None:
        return notes
    notes.append(f"in eight bits {1 - small['agreement']:.2%} of the answers change")
    if "accuracy" in small:
        lost = plain["accuracy"] - small["accuracy"]
        told = f"{'lose' if lost > 0 else 'gain' if lost < 0 else 'neither gain nor lose'}"
        points = f" {abs(lost) * 100:.2f} points of accuracy" if lost else " accuracy"
        notes.append(f"eight bits {told}{points} on these rows (McNemar's exact p = {small['mcnemar']['p_value']:.3g})")
    if small["bytes"] >= models[ONNX]["bytes"]:
        notes.append("eight bits take more room than float32: this student is smaller than what describes it")
    for name, what in ((ONNX, "float32 in onnxruntime"), (INT8, "eight bits")):
        if models[name]["faster"]["mean"] < 1:
            notes.append(f"{what} is slower here than PyTorch: {models[name]['faster']['mean']:.2f} times as fast")
    return notes
