"""Which device and number format a run uses: by what the machine reports, so that a run resumed on it uses the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

from stillroom.errors import RecipeError

WORTHWHILE_PARAMETERS = 200_000
"""Below this, casting weights costs more than narrower products save (64-32-10 network, batch 32)."""

WORTH_THREADS_PARAMETERS = 1_000_000
"""Below this, threads wait for each other longer than they compute; beside a busy program, up to 40 times slower."""


@dataclass(frozen=True)
class Device:
    """Where tensors live, the format of matrix products, and the threads to train with; weights stay float32."""

    name: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    """To train a small network with, and for all else."""
    wide_threads: int = 1
    """To train a network with that is large enough to gain from more."""

    def for_size(self, parameters: int, wanted: str) -> Device:
        """This device with every `auto` settled for a network of so many weights."""
        gains = parameters >= WORTHWHILE_PARAMETERS and gains_from_bfloat16(self.name)
        narrow = gains if wanted == "auto" else wanted == "bfloat16"
        threads = self.wide_threads if parameters >= WORTH_THREADS_PARAMETERS else self.threads
        return Device(self.name, "bfloat16" if narrow else "float32", threads)


def choose(wanted: str, threads: int | Literal["auto"] = 1, most: int | None = None) -> Device:
    """The device a recipe asks for. `most`: the threads that torch takes by itself, None: as it is set now.

    Raises RecipeError where this machine lacks it.
    """
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise RecipeError(f"there is no device {wanted!r}", where="device", cure="Use auto, cpu, cuda, cuda:N or mps")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    if not there:
        raise RecipeError(f"this machine has no {kind} device", where="device", cure="Use device: auto or cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise RecipeError(f"this machine has no device {wanted}", where="device", cure="Use device: cuda")
    if threads == "auto":
        return Device(wanted, threads=1, wide_threads=most or torch.get_num_threads())
    return Device(wanted, threads=threads, wide_threads=threads)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many processor threads while the block runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def gains_from_bfloat16(device: str) -> bool:
    """True where the processor multiplies bfloat16 faster than float32; elsewhere it is up to 36 times slower.

    By what it reports and not by a stopwatch, so that a run that goes on comes to the same answer.
    """
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = torch.cpu.get_capabilities() if device == "cpu" else {}
    # Xeons with AVX512-FP16 multiply bfloat16 in AMX tiles: where a virtual machine hides those, what is left of it did .54 to
    # .70 of the float32 operations a second.
    vectors = flags.get("avx512_bf16") and not flags.get("avx512_fp16")
    return bool(vectors or flags.get("amx_bf16") or flags.get("arm_bf16"))
