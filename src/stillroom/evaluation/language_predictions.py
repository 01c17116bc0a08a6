"""Predict once, for language models: the loss and the first choice at every scored position, written before any figure.

    FOLDER/<model>.<seed>.<split>.nll.f32    nats at each scored position [P]
    FOLDER/<model>.<seed>.<split>.top.i32    the token it holds most probable [P]
    FOLDER/<model>.<seed>.test.kl.f32        KL(teacher, model) over the whole vocabulary, at the Q sampled positions
    FOLDER/teacher.0.test.entropy.f32        the teacher's entropy there
    FOLDER/<split>.{window,place,target}.i32, <split>.document.i64, <split>.keys.u8, test.sample.i32
    FOLDER/predictions.json                  models, seeds, numbers of positions

Positions stand in row-major order of windows and places. Distributions are compared chunk by chunk and never whole in
memory, and over the ids that text can hold: a model may have more rows than its tokenizer has tokens, and two models of
one family differ in how many. Everything the scorecard says of quality comes from these files. Knows no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch.nn.functional import linear

from stillroom.errors import DataError, NotFinite, WrongAnswer
from stillroom.evaluation.language_scores import Spoken
from stillroom.evaluation.processes import give_back
from stillroom.models.blending import mixed_logits
from stillroom.models.classifier import autocast, evaluating, to_device
from stillroom.models.device import Device
from stillroom.rows import Array, Head, MixedHead, Questions, Tokens
from stillroom.rundir import write_file, write_json

FORWARD_TOKENS = 8_192
CHUNK_CELLS = 1 << 23
"""Logits held at once, float32: 32 MiB; fewer make the matrix product slower, more make nothing faster."""
SAMPLE_POSITIONS = 8_192
TEACHER = "teacher"


class Speaker(Protocol):
    """A language model at work, as models/language.py loads it."""

    @property
    def network(self) -> torch.nn.Module:
        """forward(Tokens) -> Output without logits: the hidden states of the scored positions and the head."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Of the transformers library."""
        ...

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        ...

    @property
    def context(self) -> int:
        """The most tokens it can look at."""
        ...

    @property
    def generate(self) -> Callable[..., Any]:
        """generate(prompts, max_new_tokens, temperature, seed) -> ids and text after each prompt, a text or ids."""
        ...


Architecture: TypeAlias = Literal["causal", "masked"]
Load: TypeAlias = Callable[[Path], Speaker]


@dataclass(frozen=True)
class Windows:
    """The windows of one split and their P scored positions, in row-major order."""

    ids_NT: Array
    target_NT: Array
    document_N: Array
    """The place of each window's document in its source."""
    key_N: Array
    length_N: Array
    count_N: Array
    """Scored positions of each window."""
    start_N: Array
    """The place of its first one among the P."""
    window_P: Array
    place_P: Array
    target_P: Array

    @classmethod
    def of(cls, questions: Questions, name: str) -> Windows:
        """Raises DataError where no position is scored, WrongAnswer where one stands beyond its window's end."""
        raw = questions.raw
        if not isinstance(raw, dict) or not {"ids", "target"} <= set(raw):
            raise DataError("these rows are no windows of text", where=name, cure="Use text as questions.source")
        ids_NT, target_NT = raw["ids"], raw["target"]
        scored_NT = target_NT >= 0
        if not scored_NT.any():
            raise DataError(f"{name} holds no scored token", where="questions.split", cure="Give it more text")
        if (scored_NT & (ids_NT < 0)).any():
            raise WrongAnswer("a scored position holds no token", where=name, cure="Cut the windows again")
        window_P, place_P = np.nonzero(scored_NT)
        count_N = scored_NT.sum(1)
        return cls(
            ids_NT, target_NT, questions.row_N, questions.key_N, (ids_NT >= 0).sum(1), count_N,
            np.cumsum(count_N) - count_N, window_P, place_P, target_NT[window_P, place_P],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.target_P)

    def positions(self, chosen: Array) -> Array:
        """The places among the P of all scored positions of these windows, window after window."""
        parts = [np.arange(self.start_N[row], self.start_N[row] + self.count_N[row]) for row in chosen.tolist()]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def batches(self, chosen: Array) -> Iterator[Array]:
        """These windows by length, so many at once as make FORWARD_TOKENS with the padding; unscored ones left out."""
        chosen = chosen[self.count_N[chosen] > 0]
        order = chosen[np.argsort(self.length_N[chosen], kind="stable")]
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and (stop + 1 - start) * self.length_N[order[stop]] <= FORWARD_TOKENS:
                stop += 1
            yield order[start:stop]
            start = stop

    def sample(self, most: int = SAMPLE_POSITIONS, seed: int = 0) -> Array:
        """Whole windows drawn by `seed` with at most so many scored positions together, in order; at least one."""
        left, chosen = most, []
        for row in np.random.default_rng(seed).permutation(np.flatnonzero(self.count_N)).tolist():
            if self.count_N[row] <= left:
                chosen.append(row)
                left -= int(self.count_N[row])
        found: Array = np.array(sorted(chosen) or [int(np.argmax(self.count_N))], np.int64)
        return found


class Heard(NamedTuple):
    """Hidden states of scored positions [P, H] and the output layer, both float32."""

    hidden_PH: torch.Tensor
    head: Head | MixedHead


def hear(model: Speaker, windows: Windows, chosen: Array, device: Device, vocabulary: int) -> Heard:
    """What the network makes of these windows at once, and its head cut to the ids that text can hold."""
    longest = int(windows.length_N[chosen].max())
    ids_BT, target_BT = windows.ids_NT[chosen, :longest], windows.target_NT[chosen, :longest]
    tokens = Tokens(to_device(ids_BT.astype(np.int64), device), to_device(target_BT >= 0, device))
    with evaluating(model.network):
        with autocast(device):
            output = model.network(tokens)
        return Heard(output.hidden_BH.float(), _cut(output.head, vocabulary))


def logits_of(hidden_CH: torch.Tensor, head: Head | MixedHead) -> torch.Tensor:
    """Logits [C, V], float32, of a chunk."""
    if isinstance(head, MixedHead):
        return mixed_logits(hidden_CH, head, logits_of)
    logits_CV = linear(hidden_CH, head.weight_VH, head.bias_V)
    return logits_CV if head.soft_cap is None else logits_CV.div_(head.soft_cap).tanh_().mul_(head.soft_cap)


def chunks(count: int, head: Head | MixedHead) -> Iterator[slice]:
    """Slices of so many positions that their logits fit into CHUNK_CELLS."""
    size = max(1, CHUNK_CELLS // head.vocabulary)
    yield from (slice(start, start + size) for start in range(0, count, size))


@torch.inference_mode()
def losses(heard: Heard, target_P: torch.Tensor) -> tuple[Array, Array]:
    """Loss in nats, float32 [P], and first choice, int32 [P]."""
    nll, top = [], []
    for chunk in chunks(len(target_P), heard.head):
        logits_CV = logits_of(heard.hidden_PH[chunk], heard.head)
        said_C = logits_CV.gather(1, target_P[chunk, None])[:, 0]
        top.append(logits_CV.argmax(1).int())
        nll.append(logits_CV.logsumexp(1) - said_C)
    return torch.cat(nll).cpu().numpy(), torch.cat(top).cpu().numpy()


@torch.inference_mode()
def divergence(teacher: Heard, model: Heard) -> Array:
    """KL(teacher, model) in nats over the common ids, float32 [P]."""
    found, common = [], min(teacher.head.vocabulary, model.head.vocabulary)
    one, other = _cut(teacher.head, common), _cut(model.head, common)
    for chunk in chunks(len(model.hidden_PH), other):
        log_p_CV = logits_of(teacher.hidden_PH[chunk], one).log_softmax(1)
        log_q_CV = logits_of(model.hidden_PH[chunk], other).log_softmax(1)
        p_CV = log_p_CV.exp()
        # Where the teacher's probability is 0 the term is, whatever the logarithms are.
        found.append(torch.where(p_CV > 0, p_CV * log_p_CV.sub_(log_q_CV), 0.0).sum(1))
    return torch.cat(found).cpu().numpy()


@torch.inference_mode()
def entropy(heard: Heard) -> Array:
    """Of each position's distribution, nats, float32 [P]."""
    found = []
    for chunk in chunks(len(heard.hidden_PH), heard.head):
        log_p_CV = logits_of(heard.hidden_PH[chunk], heard.head).log_softmax(1)
        found.append(torch.special.entr(log_p_CV.exp()).sum(1))
    return torch.cat(found).cpu().numpy()


def _cut(head: Head | MixedHead, vocabulary: int) -> Head | MixedHead:
    """So many ids of an output layer, float32; each of several models is then judged over these ids alone."""
    if isinstance(head, MixedHead):
        return head._replace(heads=tuple(_cut_one(one, vocabulary) for one in head.heads))
    return _cut_one(head, vocabulary)


def _cut_one(head: Head, vocabulary: int) -> Head:
    bias_V = None if head.bias_V is None else head.bias_V[:vocabulary].float()
    return Head(head.weight_VH[:vocabulary].float(), bias_V, head.soft_cap)


def ids_of(tokenizer: Any) -> int:
    """One more than the largest id that text in this tokenizer's tokens can hold."""
    return int(max(tokenizer.get_vocab().values())) + 1


@dataclass
class Writer:
    """Writes what each model says, file by file; a model whose files are all there is not asked again."""

    folder: Path
    splits: Mapping[str, Windows]
    """Validation and test."""
    device: Device
    teacher: Speaker | None
    """None: nothing is compared with it."""
    done: Callable[[int], None]
    """Told how many windows were just read."""

    def __post_init__(self) -> None:
        self.vocabulary = 0 if self.teacher is None else ids_of(self.teacher.tokenizer)
        self.sample_Q = self.splits["test"].sample()
        self._heard: Heard | None = None

    def names(self, model: str, seed: int) -> list[str]:
        """Every file of one model."""
        kinds = [f"{split}.{kind}" for split in self.splits for kind in ("nll.f32", "top.i32")]
        if self.teacher is not None:
            kinds.append("test.entropy.f32" if model == TEACHER else "test.kl.f32")
        return [f"{model}.{seed}.{kind}" for kind in kinds]

    def write(self, model: str, seed: int, where: str, load: Callable[[], Speaker]) -> None:
        """Ask the model and write what it says. Raises NotFinite, with the model's folder, for NaN or infinity."""
        if all((self.folder / name).is_file() for name in self.names(model, seed)):
            return
        give_back()
        speaker = load()
        # Without a teacher, the ids that text can hold are the first model's; all models of a run read the same tokens.
        self.vocabulary = self.vocabulary or ids_of(speaker.tokenizer)
        for split, windows in self.splits.items():
            found = self._predict(speaker, windows, where, split == "test" and self._compared(model))
            if split == "test" and model == TEACHER:
                found["entropy.f32"] = entropy(self.taught())
            for kind, value_P in found.items():
                _finite(value_P, where)
                write_file(self.folder / f"{model}.{seed}.{split}.{kind}", value_P.tobytes())
        del speaker
        give_back()

    def _compared(self, model: str) -> bool:
        return self.teacher is not None and model != TEACHER

    def taught(self) -> Heard:
        """The teacher's hidden states of the sampled positions, and its head."""
        if self._heard is None:
            assert self.teacher is not None, "only where there is one is anything compared with it"
            windows = self.splits["test"]
            asked = list(windows.batches(self.sample_Q))
            parts = [hear(self.teacher, windows, chosen, self.device, self.vocabulary) for chosen in asked]
            order = np.concatenate([windows.positions(chosen) for chosen in asked])
            back = torch.from_numpy(np.argsort(order))
            self._heard = Heard(torch.cat([part.hidden_PH for part in parts])[back], parts[0].head)
        return self._heard

    def _predict(self, speaker: Speaker, windows: Windows, where: str, compared: bool) -> dict[str, Array]:
        """Kind of file -> what stands in it; the sample is read apart where the model is compared with the teacher."""
        self._fits(speaker, windows, where)
        nll_P, top_P = np.empty(len(windows), np.float32), np.empty(len(windows), np.int32)
        kl_P = np.full(len(windows) if compared else 0, np.nan, np.float32)
        sampled = self.sample_Q if compared else np.empty(0, np.int64)
        place_Q = windows.positions(sampled)
        others = np.setdiff1d(np.arange(len(windows.count_N)), sampled)
        turns = [*((one, False) for one in windows.batches(others)), *((one, True) for one in windows.batches(sampled))]
        for chosen, of_sample in turns:
            heard = hear(speaker, windows, chosen, self.device, self.vocabulary)
            at = windows.positions(chosen)
            nll_P[at], top_P[at] = losses(heard, to_device(windows.target_P[at].astype(np.int64), self.device))
            if of_sample:
                taught, own = self.taught(), torch.from_numpy(np.searchsorted(place_Q, at))
                kl_P[at] = divergence(Heard(taught.hidden_PH[own], taught.head), heard)
            self.done(len(chosen))
        found = {"nll.f32": nll_P, "top.i32": top_P}
        return found | ({"kl.f32": kl_P[place_Q]} if compared else {})

    def _fits(self, speaker: Speaker, windows: Windows, where: str) -> None:
        known, largest = ids_of(speaker.tokenizer), int(max(windows.ids_NT.max(), windows.target_P.max()))
        if largest >= known:
            raise WrongAnswer(
                f"the text holds token {largest:,}, and the model's tokenizer has {known:,}",
                where=where,
                cure="Cut the text with the model's own tokenizer",
            )

    def finish(self, seeds: Mapping[str, int]) -> None:
        """Write which positions these are, then the list of what there is."""
        for split, windows in self.splits.items():
            for name in ("window", "place", "target"):
                column_P = getattr(windows, f"{name}_P").astype(np.int32)
                write_file(self.folder / f"{split}.{name}.i32", column_P.tobytes())
            document_P = windows.document_N[windows.window_P].astype(np.int64)
            write_file(self.folder / f"{split}.document.i64", document_P.tobytes())
            write_file(self.folder / f"{split}.keys.u8", windows.key_N.tobytes())
        sampled_Q = self.splits["test"].positions(self.sample_Q).astype(np.int32)
        write_file(self.folder / "test.sample.i32", sampled_Q.tobytes())
        listed = {name: {"seeds": count} for name, count in seeds.items()}
        counts = {split: len(windows) for split, windows in self.splits.items()}
        write_json(self.folder / "predictions.json", {"models": listed, "positions": counts, "sampled": len(sampled_Q)})


def _finite(value_P: Array, where: str) -> None:
    if not np.isfinite(value_P).all():
        raise NotFinite("a prediction is not finite", where=where, cure="Train again with a smaller learning rate")


def read(folder: Path, model: str, seeds: int, split: str = "test", compared: bool = True) -> Spoken:
    """What the seeds of one model said, from the files; without a divergence on validation and for the teacher, and for
    nobody where no teacher was there to compare with."""

    def all_of(kind: str, dtype: type) -> Array:
        return np.stack([np.fromfile(folder / f"{model}.{seed}.{split}.{kind}", dtype) for seed in range(seeds)])

    compared = compared and split == "test" and model != TEACHER
    return Spoken(
        all_of("nll.f32", np.float32), all_of("top.i32", np.int32), all_of("kl.f32", np.float32) if compared else None
    )
