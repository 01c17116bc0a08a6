"""Two real processes on loopback learn what one does: counts and gradients are summed over ranks before the division."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file

torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_loop import questions, trainer
from stillroom.recipe import Training

rows = questions(30)
rows.label_N[[0, 3, 4, 11, 17]] = -1  # ranks hold different numbers of labels, so a mean of means would be wrong
work = Path(sys.argv[2])
# By plain SGD: AdamW takes the same steps where every gradient is twice what it should be.
knobs = Training(batch_size=15, accumulate=2, learning_rate=1e-2, optimiser="sgd", clip=None)
trained = trainer(work, knobs, 6, rows, dropout=0.0, hidden=True)
trained.train()
tensors = trained.network.state_dict() | {"projection": trained.loss.parameters()[0].detach()}
if trained.ranks.main:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, work / "out.safetensors")
trained.ranks.close()
"""


def train_in(ranks: int, work: Path) -> dict[str, torch.Tensor]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = work / f"train_{ranks}.py"
    script.write_text(SCRIPT)
    home = work / str(ranks)
    started = []
    for rank in range(ranks):
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        if ranks > 1:
            env |= {"WORLD_SIZE": str(ranks), "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
            env |= {"MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, str(script), str(Path(__file__).parent), str(home)]
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    return load_file(home / "out.safetensors")


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    alone, shared = train_in(1, tmp_path), train_in(2, tmp_path)
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, shared[name], rtol=1e-4, atol=1e-5)
