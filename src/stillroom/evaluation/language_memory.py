"""How much memory a language model takes, measured where nothing else is: in a process of its own, which ends by itself.

    python -m stillroom.evaluation.language_memory FOLDER causal|masked DEVICE DTYPE    token ids of one window on stdin

writes {"mib": growth} to stdout: of the process on a processor, of the device's memory on an accelerator, from before
the model is loaded to the most while it is loaded and answers. The libraries are imported before, and not counted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from stillroom.evaluation.processes import held_bytes, most_held_bytes, package_path
from stillroom.models.device import Device

LIMIT_S = 600
MIB = 1 << 20


def peak_memory_mib(
    folder: Path, architecture: str, device: Device, ids_T: list[int], limit_s: int = LIMIT_S
) -> float | None:
    """Growth in MiB while a process loads the model and answers one window; None where it fails or takes too long."""
    command = [sys.executable, "-P", "-m", __name__, str(folder), architecture, device.name, device.dtype, str(limit_s)]
    try:
        told = subprocess.run(
            command,
            input=json.dumps(ids_T),
            env={**os.environ, "PYTHONPATH": package_path()},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=True,
        ).stdout
        return float(json.loads(told.splitlines()[-1])["mib"])
    except (subprocess.SubprocessError, OSError, ValueError, LookupError):
        return None


def _answer(folder: Path, architecture: Any, device: Device, ids_T: list[int]) -> float:
    """Load, answer one window with every position scored, and how much that took, in MiB."""
    import numpy as np
    import torch
    import transformers  # noqa: F401 - imported now so that it is not counted

    from stillroom.evaluation.language_predictions import Windows, hear, ids_of, losses
    from stillroom.models.language import LanguageModel
    from stillroom.rows import Questions

    torch.set_num_threads(1)
    ids_1T = np.array([ids_T], np.int32)
    target_1T = np.roll(ids_1T, -1, 1)
    window = Windows.of(Questions.of({"ids": ids_1T, "target": target_1T}), "window")
    before = held_bytes()
    model = LanguageModel.load(folder, architecture, device)
    heard = hear(model, window, np.zeros(1, np.int64), device, ids_of(model.tokenizer))
    losses(heard, torch.from_numpy(window.target_P.astype(np.int64)).to(device.name))
    if device.name.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device.name) / MIB
    return (most_held_bytes() - before) / MIB


def main(folder: str, architecture: str, device: str, dtype: str, limit_s: str) -> None:
    """The child: it ends by the alarm even where nobody waits for it any more."""
    signal.alarm(int(limit_s))
    mib = _answer(Path(folder), architecture, Device(device, dtype), json.load(sys.stdin))  # type: ignore[arg-type]
    sys.stdout.write(json.dumps({"mib": mib}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
