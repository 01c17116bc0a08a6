"""The basis of a teacher's hidden states: a few components, in a few bits each, from which the logits of a tail follow.

A tail of thousands of small probabilities is not free-form: it is the output matrix times one hidden state. The distance
between two hidden states is that between the logits they make; principal components under it are kept, and each is given
bits by reverse water-filling. Fitted once on a sample of the run's own questions; knows no record and no file of answers.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stillroom.errors import CorruptFile, NotFinite, WrongAnswer
from stillroom.rows import Array, Basis, Head
from stillroom.rundir import write_file
from stillroom.transfer_set.output_layer import NO_LOGIT, mean_distribution

FORMAT = 1
MOST_COMPONENTS = 128
"""More would keep a little more (160 of them 4 % of the KL at 32 bytes), and every training step pays for each."""
MOST_A_BYTE = 3
"""But so many for each byte, where there are many bytes: at 64 they save a fifth of the KL."""
MOST_BITS = 8
STEP = (0.0, 1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308)
"""Of the best uniform quantiser of a standard normal number, by bits (Max 1960, table II)."""
DISTORTION = (1.0, 0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.001041, 0.0003035, 0.0000871)
"""Its mean squared error (the same table)."""
FLATTENED = 0.8
"""Bits are shared out as if variances were var ** this: what is rounded in each position's own metric loses less by coarse
steps in the first components than the table says (2 % of the KL)."""
MEAN_POSITIONS = 4096
"""Positions whose predicted distribution is averaged for the metric."""
SMALLEST = 1e-9
"""Of the largest eigenvalue of the metric; what is smaller makes no difference to a logit."""
ROWS = 4096


@dataclass(frozen=True, eq=False)
class FittedBasis:
    """What turns hidden states into codes, and codes into tail logits. The encoding side is [.., G], the decoding [V, ..]."""

    mean_G: torch.Tensor
    encode_GM: torch.Tensor
    """components = (hidden - mean) @ encode: uncorrelated, and a unit of each moves the logits as far."""
    step_M: torch.Tensor
    """Width of a quantiser's step; code c of b bits stands for (c - (2 ** b - 1) / 2) steps."""
    bits_M: tuple[int, ...]
    matrix_VM: torch.Tensor
    """bfloat16: logits = components @ matrix.T + bias, then the soft cap."""
    bias_V: torch.Tensor
    centre_G: torch.Tensor
    """Mean row of the output matrix under the metric's weights, and of `matrix`."""
    centre_M: torch.Tensor
    soft_cap: float | None = None
    fitted_on: str | None = None
    """A digest of the questions whose hidden states it was fitted on, where who fitted it said so."""

    @property
    def tail_bytes(self) -> int:
        """The fewest whole bytes that hold a position's codes."""
        return -(-sum(self.bits_M) // 8)

    @property
    def basis(self) -> Basis:
        """What a loss needs beside the components."""
        return Basis(self.matrix_VM, self.bias_V, self.soft_cap)

    @cached_property
    def levels(self) -> tuple[Array, Array]:
        """A code c stands for c * scale - offset, both float32 [M]."""
        step_M = self.step_M.cpu().numpy().astype(np.float32)
        return step_M, step_M * ((2.0 ** np.array(self.bits_M, np.float32) - 1) / 2)

    def components(self, codes_PM: Array) -> torch.Tensor:
        """Codes as components, float32 [P, M]."""
        scale_M, offset_M = self.levels
        return torch.from_numpy(np.multiply(codes_PM, scale_M, dtype=np.float32) - offset_M)

    @cached_property
    def wide_VM(self) -> torch.Tensor:
        """The matrix in float32, for arithmetic."""
        return self.matrix_VM.float()

    def on(self, device: torch.device) -> FittedBasis:
        """The same basis there; it is as large as an embedding, and moves once."""
        if self.matrix_VM.device == device:
            return self
        if device not in self._elsewhere:
            moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors().items()}
            self._elsewhere[device] = replace(self, **moved)
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> dict[torch.device, FittedBasis]:
        return {}

    def _tensors(self) -> dict[str, torch.Tensor]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}

    def save(self, path: Path) -> None:
        """One safetensors file, written in one step; equal bases give equal bytes."""
        write_file(path, self._bytes())

    def _bytes(self) -> bytes:
        facts: dict[str, Any] = {"format": FORMAT, "bits": self.bits_M, "soft_cap": self.soft_cap}
        if self.fitted_on is not None:
            facts["fitted_on"] = self.fitted_on
        copies = {name: tensor.cpu().contiguous() for name, tensor in self._tensors().items()}
        written: bytes = save(copies, {"facts": json.dumps(facts)})
        return written

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what `save` writes."""
        return hashlib.sha256(self._bytes()).hexdigest()

    @classmethod
    def load(cls, path: Path) -> FittedBasis:
        """What `save` wrote. Raises CorruptFile."""
        cure = "Remove its folder to ask again, or use the version that wrote it"
        try:
            with safe_open(path, "pt") as file:
                facts: dict[str, Any] = json.loads((file.metadata() or {}).get("facts", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, ValueError) as error:
            raise CorruptFile("this basis is damaged", where=str(path), cure=cure) from error
        if facts.get("format") != FORMAT:
            raise CorruptFile("this basis is in a format that this version cannot read", where=str(path), cure=cure)
        return cls(**tensors, bits_M=tuple(facts["bits"]), soft_cap=facts["soft_cap"], fitted_on=facts.get("fitted_on"))


def fit_basis(
    hidden_NG: Array | torch.Tensor,
    weight_VG: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    soft_cap: float | None = None,
    *,
    tail_bytes: int,
    seed: int = 0,
    components: int | None = None,
) -> FittedBasis:
    """Fit on the last hidden states of N positions (30,000 or more, drawn at random over the text to be kept).

    At most `components` are kept; where none is given, as many as the bytes are worth. A pure function of its arguments:
    equal ones give equal bits. Raises NotFinite, WrongAnswer.
    """
    hidden_NG = torch.as_tensor(hidden_NG, dtype=torch.float32, device=weight_VG.device).detach()
    if len(hidden_NG) < 2 or hidden_NG.shape[1] != weight_VG.shape[1]:
        raise WrongAnswer(
            f"a basis cannot be fitted on hidden states {tuple(hidden_NG.shape)} "
            f"and an output matrix {tuple(weight_VG.shape)}",
            where="basis.fit_basis",
            cure="Give at least two positions of the model whose output matrix this is",
        )
    if not hidden_NG.isfinite().all():
        raise NotFinite("a hidden state is NaN or infinite", where="basis.fit_basis", cure="Look at the questions")
    weight_VG = weight_VG.detach().float()
    chosen = np.random.default_rng(seed).permutation(len(hidden_NG))[:MEAN_POSITIONS]
    some_PG = hidden_NG[torch.from_numpy(np.sort(chosen)).to(hidden_NG.device)]
    metric_V = mean_distribution(some_PG, Head(weight_VG, bias_V, soft_cap)).sqrt()
    metric_V /= metric_V.sum()
    mean_G, covariance_GG = _moments(hidden_NG)
    centre_G, root_GG, back_GG = _metric(weight_VG, metric_V)
    variance_G, turn_GG = torch.linalg.eigh(root_GG @ covariance_GG @ root_GG)
    variance_G, turn_GG = variance_G.flip(0).clamp(min=0), turn_GG.flip(1)
    # An eigenvector's sign is a library's whim.
    turn_GG *= turn_GG.gather(0, turn_GG.abs().argmax(0, keepdim=True)).sign()
    most = most_components(tail_bytes) if components is None else components
    bits = water_filling(variance_G[:most].tolist(), 8 * tail_bytes)
    kept = len(bits)
    step_M = variance_G.new_tensor([STEP[bit] for bit in bits]).float() * variance_G[:kept].sqrt().float()
    matrix_VM = (weight_VG @ (back_GG @ turn_GG[:, :kept]).float()).bfloat16()
    made_V = weight_VG @ mean_G.float()
    fitted = FittedBasis(
        mean_G=mean_G.float(),
        encode_GM=(root_GG @ turn_GG[:, :kept]).float(),
        step_M=step_M.float(),
        bits_M=bits,
        matrix_VM=matrix_VM,
        bias_V=made_V if bias_V is None else (made_V + bias_V.detach().float()).clamp(min=NO_LOGIT),
        centre_G=centre_G.float(),
        centre_M=metric_V.float() @ matrix_VM.float(),
        soft_cap=soft_cap,
    )
    return fitted.on(torch.device("cpu"))


def most_components(tail_bytes: int) -> int:
    """How many components a position's hidden tail of so many bytes is given at most."""
    return min(8 * tail_bytes, max(MOST_COMPONENTS, MOST_A_BYTE * tail_bytes))


def water_filling(variances: list[float], total: int) -> tuple[int, ...]:
    """Bits of each component, each bit where it saves the most, 1 to 8 each; components that get none are left out.

    Variances come largest first. Fewer bits than `total` are given where no component has any use for them.
    """
    noise = SMALLEST**2 * max(variances, default=0.0)
    worth = [variance**FLATTENED if variance > noise else 0.0 for variance in variances]
    bits = [0] * len(worth)
    saving = [(-value * (DISTORTION[0] - DISTORTION[1]), place) for place, value in enumerate(worth) if value > 0]
    heapq.heapify(saving)
    while saving and total > 0:
        _, place = heapq.heappop(saving)
        bits[place], total = bits[place] + 1, total - 1
        now = bits[place]
        if now < MOST_BITS:
            heapq.heappush(saving, (-worth[place] * (DISTORTION[now] - DISTORTION[now + 1]), place))
    return tuple(bit for bit in bits if bit)


def _moments(hidden_NG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [G] and covariance [G, G] of hidden states, float64."""
    mean_G = hidden_NG.mean(0, dtype=torch.float64)
    sum_GG = torch.zeros(len(mean_G), len(mean_G), dtype=torch.float64, device=mean_G.device)
    for part_NG in torch.split(hidden_NG, ROWS):
        centred_NG = part_NG.double() - mean_G
        sum_GG += centred_NG.T @ centred_NG
    return mean_G, sum_GG / len(hidden_NG)


def _metric(weight_VG: torch.Tensor, metric_V: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre [G] of the output matrix W, the root [G, G] of Wc' diag(p) Wc, and the root's inverse, float64.

    The root is symmetric, so that distances in `hidden @ root` are those between the logits, each token's weighed by p.
    """
    centre_G = torch.zeros(weight_VG.shape[1], dtype=torch.float64, device=weight_VG.device)
    for part_VG, p_V in zip(torch.split(weight_VG, ROWS), torch.split(metric_V, ROWS), strict=True):
        centre_G += p_V @ part_VG.double()
    gram_GG = torch.zeros(len(centre_G), len(centre_G), dtype=torch.float64, device=weight_VG.device)
    for part_VG, p_V in zip(torch.split(weight_VG, ROWS), torch.split(metric_V, ROWS), strict=True):
        centred_VG = (part_VG.double() - centre_G) * p_V.sqrt()[:, None]
        gram_GG += centred_VG.T @ centred_VG
    value_G, vector_GG = torch.linalg.eigh(gram_GG)
    value_G = value_G.clamp(min=max(SMALLEST * float(value_G[-1]), 1e-300))
    root_GG = (vector_GG * value_G.sqrt()) @ vector_GG.T
    return centre_G, root_GG, (vector_GG / value_G.sqrt()) @ vector_GG.T
