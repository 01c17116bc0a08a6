"""What a figure was measured with: the machine, without its name, and the versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
PACKAGES = ("stillroom", "torch", "numpy", "pyarrow", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(home: Path = HOME) -> str:
    """The short hash of the program's commit, with a + where src/ or benchmarks/ differ from it; empty where there is no git."""
    if not (home / ".git").exists():  # that of a folder above would be another program's
        return ""

    def said(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(home), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return said("rev-parse", "--short", "HEAD") + "+" * bool(
            said("status", "--porcelain", "--", "src", "benchmarks")
        )
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, Any]:
    """{"cpu", "cores", "memory_gib", "os", "torch_threads", "instructions", "bfloat16"}; no host name."""
    import torch

    from stillroom.models.device import gains_from_bfloat16

    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "memory_gib": _memory_gib(),
        "os": f"{platform.system()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": "native" if gains_from_bfloat16("cpu") else "slower than float32",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
