"""How close kept distributions are to the teacher's, for so many bytes a position, beside other ways of keeping them.

The basis is fitted on positions of wikitext2/valid.txt drawn at random and tested on test.txt, and on texts of another
kind; the first positions of a window are left out. The same positions and bytes for every format.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.language_plot import Curve, draw
from benchmarks.language_sizes import TINY, Sizes
from benchmarks.language_states import FAR, States, Teacher
from benchmarks.results import Found, Row, Table
from stillroom.rows import Array, Basis, Head, SparseTargets
from stillroom.transfer_set.basis import FittedBasis, fit_basis
from stillroom.transfer_set.fidelity import RANKS, dense, joined, part
from stillroom.transfer_set.output_layer import logit_chunks, mean_distribution
from stillroom.transfer_set.sparse_logits import Layout, decode, encode, encode_log_p

PLOT = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "soft-targets-in-tens-of-bytes.svg"
DEFAULT = (8, 32)
DRAWS = 10_000
HIDDEN, UNIFORM, MEAN, SAMPLES = (
    "hidden tail",
    "top-k, uniform tail",
    "top-k, tail of the corpus mean",
    "head and samples",
)
ALL = (HIDDEN, UNIFORM, MEAN, SAMPLES)
PLACES = {"1": slice(0, 1), "2 to 8": slice(1, 8), "9 to 64": slice(8, 64), "65 to 1,024": slice(64, RANKS),
          "the rest": slice(RANKS, None)}  # fmt: skip
Figures = dict[str, dict[str, Array]]
"""Format -> kl [P], total_variation [P], bias by rank."""


class Formats:
    """The ways of keeping a position in the bytes of one record with a hidden tail."""

    def __init__(self, vocabulary: int, head: int, tail_bytes: int) -> None:
        self.hidden = Layout.of(vocabulary, head, "hidden", tail_bytes)
        room = self.hidden.record_bytes
        sizes = range(1, vocabulary + 1)
        longest = next((k - 1 for k in sizes if _bucket(vocabulary, k).record_bytes > room), vocabulary)
        self.bucket = _bucket(vocabulary, longest)
        self.sample = Layout.of(vocabulary, head, "sample", tail_bytes)
        self.record_bytes = room

    def kept(self, name: str, fitted: FittedBasis, hidden_PG: torch.Tensor, head: Head, mean_V: torch.Tensor) -> Any:
        """A function of (rows, log_p [C, V]) that gives what is kept of these rows."""
        none_P = torch.zeros(len(hidden_PG), dtype=torch.long)
        seed_P = np.arange(len(hidden_PG), dtype=np.uint64)
        if name == HIDDEN:
            whole = decode(self.hidden, fitted, encode(self.hidden, fitted, hidden_PG, head, none_P))
            return lambda rows, log_p_CV: part(whole, rows)
        layout = self.sample if name == SAMPLES else self.bucket

        def made(rows: slice, log_p_CV: torch.Tensor) -> SparseTargets:
            forced_C = log_p_CV[:, 0].clone()
            kept = decode(layout, None, encode_log_p(layout, log_p_CV.clone(), forced_C, seed_P[rows]))
            return shaped_tail(kept, mean_V) if name == MEAN else kept

        return made


def shaped_tail(kept: SparseTargets, mean_V: torch.Tensor) -> SparseTargets:
    """The same head with its tail in the shape of a mean distribution: a format to compare with, at the bytes of a bucket."""
    shape_V = mean_V.float().clamp(min=torch.finfo(torch.float32).tiny).log().to(kept.entropy_P.device)
    basis = Basis(shape_V.new_zeros(len(shape_V), 1), shape_V)
    return replace(kept, tail="hidden", components_PM=kept.entropy_P.new_zeros(len(kept.entropy_P), 1), basis=basis)


def _bucket(vocabulary: int, head: int) -> Layout:
    return Layout.of(vocabulary, head, "bucket")


class Place:
    """Positions of a text, and their most probable tokens, which are looked for once."""

    def __init__(self, hidden_PG: torch.Tensor, head: Head) -> None:
        self.hidden_PG, self.head = hidden_PG, head
        ranks = min(RANKS, len(head.weight_VH))
        self.ids_PJ = torch.cat([logits.topk(ranks, 1).indices for _, logits in logit_chunks(hidden_PG, head)])

    def figures(self, formats: Formats, fitted: FittedBasis, mean_V: torch.Tensor) -> Figures:
        """Formats on the same positions; the teacher's logits of a chunk are made once for all of them."""
        kept = {name: formats.kept(name, fitted, self.hidden_PG, self.head, mean_V) for name in ALL}
        parts: dict[str, list[dict[str, Array]]] = {name: [] for name in ALL}
        for rows, logits_CV in logit_chunks(self.hidden_PG, self.head):
            log_p_CV = logits_CV.log_softmax(1)
            p_CV = log_p_CV.exp()
            for name in ALL:
                log_q_CV = dense(kept[name](rows, log_p_CV), log_p_CV.shape[1])
                parts[name].append(_compared(p_CV, log_p_CV, log_q_CV, self.ids_PJ[rows]))
        return {name: joined(found) for name, found in parts.items()}


def _compared(
    p_CV: torch.Tensor, log_p_CV: torch.Tensor, log_q_CV: torch.Tensor, ids_CJ: torch.Tensor
) -> dict[str, Array]:
    """As transfer_set.fidelity.compare, with the ranks known."""
    kl_C = torch.where(p_CV > 0, (log_p_CV - log_q_CV) * p_CV, 0.0).sum(1)
    off_CV = log_q_CV.exp_().sub_(p_CV)
    rank_R = torch.zeros(RANKS + 1, dtype=torch.float64)
    rank_R[: ids_CJ.shape[1]] = off_CV.gather(1, ids_CJ).double().mean(0)
    rank_R[-1] = off_CV.sum(1).double().mean() - rank_R[:-1].sum()
    found = {"kl": kl_C, "total_variation": off_CV.abs_().sum(1) / 2, "bias": rank_R}
    return {name: value.double().numpy() for name, value in found.items()}


def measure(sizes: Sizes, base: Path, data: Path) -> Row:
    """Bars, tables and the plot."""
    teacher = Teacher(sizes, base, data)
    head = teacher.head
    train_NG = _drawn(teacher.train(), sizes.calibration_positions)
    mean_V = mean_distribution(train_NG[:4096], head).float()
    hidden_PG, _, document_P = teacher.test().positions()
    most = {size: sizes.test_positions if size == DEFAULT else sizes.table_positions for size in sizes.records}
    found: dict[tuple[int, int], tuple[Formats, Figures]] = {}
    places: dict[int | None, tuple[Place, Array]] = {}
    # The default first: it is what the bars ask for.
    for size in sorted(sizes.records, key=lambda size: size != DEFAULT):
        if most[size] not in places:
            drawn_P = _spread(len(hidden_PG), most[size])
            places[most[size]] = Place(hidden_PG[torch.from_numpy(drawn_P)], head), document_P[drawn_P]
        formats, fitted = Formats(len(head.weight_VH), *size), fit_basis(train_NG, *head, tail_bytes=size[1])
        found[size] = formats, places[most[size]][0].figures(formats, fitted, mean_V)
        print(f"  {formats.record_bytes} bytes: KL {found[size][1][HIDDEN]['kl'].mean():.4f}", flush=True)
        if size == DEFAULT:
            shared, default = _shared(fitted, formats), fitted
    found = {size: found[size] for size in sizes.records}
    documents = {size: places[most[size]][1] for size in sizes.records}
    tables = {"fidelity": _by_bytes(found, documents), "bias": _by_rank(*found[DEFAULT])}
    tables |= {"elsewhere": _elsewhere(teacher, default, found[DEFAULT], mean_V), "shared": shared}
    draw(_curves(found), PLOT if sizes.teacher != TINY else base / PLOT.name)
    return Row(_bars(*found[DEFAULT], documents[DEFAULT]), tables)


def _spread(count: int, most: int | None) -> Array:
    """At most so many places, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most or count)).round().astype(np.int64))


def _drawn(states: States, count: int) -> torch.Tensor:
    """Hidden states of positions drawn at random."""
    hidden_PG, _, _ = states.positions()
    chosen_N = np.sort(np.random.default_rng(1).permutation(len(hidden_PG))[:count])
    return hidden_PG[torch.from_numpy(chosen_N)]


def over_documents(values: dict[str, Array], document_P: Array, seed: int = 0) -> dict[str, Array]:
    """The mean of each [P] in each of 10,000 draws of whole documents, the same draws for all."""
    _, place_P = np.unique(document_P, return_inverse=True)
    count_D = np.bincount(place_P).astype(float)
    draw_BD = np.random.default_rng(seed).multinomial(len(count_D), np.full(len(count_D), 1 / len(count_D)), DRAWS)
    total_B = draw_BD @ count_D
    return {name: (draw_BD @ np.bincount(place_P, value_P)) / total_B for name, value_P in values.items()}


def interval(value_B: Array) -> list[float]:
    """2.5th and 97.5th percentile."""
    low, high = np.percentile(value_B, [2.5, 97.5])
    return [float(low), float(high)]


def _bars(formats: Formats, found: Figures, document_P: Array) -> dict[str, Found]:
    names = ("kl", "total_variation")
    values = {f"{form} {name}": found[form][name] for form in (HIDDEN, UNIFORM) for name in names}
    draws = over_documents(values, document_P)
    ratio = {
        name: (
            float(found[HIDDEN][name].mean() / found[UNIFORM][name].mean()),
            interval(draws[f"{HIDDEN} {name}"] / draws[f"{UNIFORM} {name}"]),
        )
        for name in names
    }
    worse = max(ratio.values(), key=lambda one: one[0])
    n = f"{len(document_P):,} positions of {len(set(document_P.tolist()))} documents"
    return {
        "lm-bytes": Found(float(formats.record_bytes), None, "1"),
        "lm-fidelity-kl": Found(float(found[HIDDEN]["kl"].mean()), interval(draws[f"{HIDDEN} kl"]), n),
        "lm-fidelity-equal-bytes": Found(*worse, n),
    }


def _by_bytes(found: dict[tuple[int, int], tuple[Formats, Figures]], documents: dict[tuple[int, int], Array]) -> Table:
    rows: list[list[Any]] = []
    for (head, tail_bytes), (formats, each) in found.items():
        document_P = documents[head, tail_bytes]
        words = {
            HIDDEN: f"{head} + {tail_bytes} bytes of hidden state", UNIFORM: f"top-{formats.bucket.head} + uniform",
            MEAN: f"top-{formats.bucket.head} + corpus mean", SAMPLES: f"{head} + {formats.sample.samples} samples",
        }  # fmt: skip
        for name, figure in each.items():
            layout = {HIDDEN: formats.hidden, SAMPLES: formats.sample}.get(name, formats.bucket)
            low, high = interval(over_documents({"": figure["total_variation"]}, document_P)[""])
            ends = f"{low:.3f} to {high:.3f}"
            rows.append([layout.record_bytes, words[name], *_shown(figure), ends, len(document_P)])
    note = (
        "Positions of wikitext2/test.txt; the basis from valid.txt. A sample keeps no probability for most tokens, "
        "so its KL is infinite; its bias is noise that training averages out. Bias is half the sum over ranks of the absolute "
        "mean difference of probability. The interval, over documents, is of the total variation."
    )
    columns = ["bytes", "kept", "KL, nats", "total variation", "bias", "95 % interval", "positions"]
    return Table("Fidelity by bytes a position, SmolLM2-135M", columns, rows, note)


def _shown(figure: dict[str, Array]) -> list[Any]:
    kl = float(figure["kl"].mean())
    bias = float(np.abs(figure["bias"]).sum() / 2)
    return [
        round(kl, 4) if np.isfinite(kl) else "infinite",
        round(float(figure["total_variation"].mean()), 4),
        round(bias, 4),
    ]


def _by_rank(formats: Formats, found: Figures) -> Table:
    rows = [
        [name, *(f"{float(figure['bias'][place].sum()):+.4f}" for place in PLACES.values())]
        for name, figure in found.items()
    ]
    note = (
        "The mean over positions of kept minus true probability, summed over the ranks of a column: what a student is taught "
        "wrongly however long it trains. A sample's is noise."
    )
    title = f"Bias by rank of the teacher's probability, {formats.record_bytes} bytes"
    return Table(title, ["", *PLACES], rows, note)


def _elsewhere(teacher: Teacher, fitted: FittedBasis, at_home: tuple[Formats, Figures], mean_V: torch.Tensor) -> Table:
    """The same basis on texts that it was not fitted on."""
    formats, found = at_home
    places = {"wikitext2/test.txt": found}
    for name in FAR:
        hidden_PG, _, _ = teacher.far(name).positions()
        places[name] = Place(hidden_PG, teacher.head).figures(formats, fitted, mean_V)
    rows = [
        [place, form, *_shown(figure), len(figure["kl"])]
        for place, each in places.items()
        for form, figure in each.items()
    ]
    columns = ["text", "kept", "KL, nats", "total variation", "bias", "positions"]
    note = "Where text is of another kind, a basis fitted on that very text is what a run uses."
    return Table(f"A basis from WikiText-2 on other texts, {formats.record_bytes} bytes", columns, rows, note)


def _shared(fitted: FittedBasis, formats: Formats) -> Table:
    """What is kept once, whatever the number of positions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "basis.safetensors"
        fitted.save(path)
        basis = path.stat().st_size
    rows = [
        ["record of a position", formats.record_bytes, f"{formats.hidden.facts_bytes} of head and facts"],
        ["basis, once", basis, f"{len(fitted.bits_M)} components of {formats.hidden.vocabulary:,} tokens, bfloat16"],
        ["header and manifest, once a teacher and a shard of 64 windows", "about 1,500", ""],
        ["key, view and number of positions of a window", "about 32", "0.13 a position in windows of 256"],
        ["all logits of a position in bfloat16, for comparison", 2 * formats.hidden.vocabulary, ""],
    ]
    return Table("Bytes", ["", "bytes", ""], rows)


def _curves(found: dict[tuple[int, int], tuple[Formats, Figures]]) -> dict[str, list[Curve]]:
    """KL and total variation against bytes, a curve for each format."""
    panels: dict[str, list[Curve]] = {}
    for panel, name in (("KL(teacher, kept), nats", "kl"), ("total variation", "total_variation")):
        for form in (HIDDEN, UNIFORM, MEAN, SAMPLES):
            points = [(float(one.record_bytes), float(each[form][name].mean())) for one, each in found.values()]
            if np.isfinite(points).all():
                panels.setdefault(panel, []).append(Curve(form, points))
    return panels
