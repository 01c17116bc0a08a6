"""The speed bench: each block is a real training, and what cannot be timed here says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.results import Found
from benchmarks.speed_blocks import Bench, Shape
from torch import nn

from benchmarks import speed, speed_blocks
from stillroom.training.fit import Lesson

TINY = Shape(4, (8,), (12,), 16, 64)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WIDE", "SMALL"):
        monkeypatch.setattr(speed, name, TINY)


@pytest.mark.parametrize("kind", ["plain", "plain_soft", "supervised", "stored", "live"])
def test_each_block_trains_and_can_be_repeated(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[nn.Module] = []
    bare_network, prepare = Bench._bare_network, speed_blocks.prepare

    def watched_bare(bench: Bench) -> nn.Module:
        networks.append(bare_network(bench))
        return networks[-1]

    def watched(lesson: Lesson) -> Any:
        classifier, loss = prepare(lesson)
        networks.append(classifier.network)
        return classifier, loss

    monkeypatch.setattr(Bench, "_bare_network", watched_bare)
    monkeypatch.setattr(speed_blocks, "prepare", watched)
    bench = Bench(TINY, tmp_path)
    block = getattr(bench, kind)("float32") if kind == "live" else getattr(bench, kind)()
    (network,) = networks
    weights = [network.state_dict()[name].clone() for name in network.state_dict()]
    for _ in range(2):
        block()
        again = [network.state_dict()[name].clone() for name in network.state_dict()]
        assert all(not torch.equal(one, two) for one, two in zip(weights, again, strict=True))
        weights = again


def test_a_block_is_one_epoch_of_its_rows() -> None:
    assert speed_blocks.steps_in(speed_blocks.knobs(TINY), TINY.rows) == 4


def test_epochs_and_loop_give_ratios_with_intervals(tmp_path: Path) -> None:
    found = speed.epochs(3, tmp_path / "epochs").bars
    assert set(found) == {"speed-stored-epoch", "speed-live-epoch"}
    assert all(one.value is not None and one.value > 0 and one.n == "3 rounds" for one in found.values())
    assert speed.loop(3, tmp_path / "loop").bars["speed-loop"].value is not None


def test_bf16_is_measured_or_says_why_not(tmp_path: Path) -> None:
    row = speed.bf16(1, tmp_path)
    found = row.bars["speed-bf16"]
    if found.value is None:
        assert "slower than float32" in found.why
    else:
        assert found.value > 0
        assert {"bf16", "products"} == set(row.tables)


def test_torchdistill_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(speed.PEER, raising=False)
    assert "no Python with torchdistill" in speed.peer(1, None).bars["speed-vs-torchdistill"].why
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv(speed.PEER, str(broken))
    assert "no such package" in speed.peer(1, None).bars["speed-vs-torchdistill"].why


def test_torchdistill_is_compared_over_each_plain_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        """echo '{"plain": [1, 2], "torchdistill": [2, 4], "versions": {"torchdistill": "1", "torch": "2"}}'\n"""
    )
    fake.chmod(0o755)
    monkeypatch.setenv(speed.PEER, str(fake))
    row = speed.peer(2, Found(1.0, [0.9, 1.1], "9 rounds"))
    assert row.bars["speed-vs-torchdistill"].value == 0.5
    assert row.bars["speed-vs-torchdistill"].ci95 == [0.45, 0.55]
    assert len(row.tables["peer"].rows) == 2
