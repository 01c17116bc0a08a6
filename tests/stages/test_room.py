"""Memory and disk: what there is of them, what is refused before a run spends anything, and what is only said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.models.tiny_models import byte_pairs, tiny

import stillroom
from command_line import recipe, rows_of, write_csv
from stillroom.errors import ModelError
from stillroom.evaluation.processes import held_bytes
from stillroom.stages import room
from tiny_language import causal

MIB = 1 << 20
GROUPS = {
    "version 2": ("0::/a/b\n", "sys/fs/cgroup", "memory.max", "memory.current", "max\n"),
    "version 1": ("3:cpu:/\n4:cpuset,memory:/a/b\n", "sys/fs/cgroup/memory", "memory.limit_in_bytes",
                  "memory.usage_in_bytes", "9223372036854771712\n"),
}  # fmt: skip


def write(root: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(content))
    return root


@pytest.mark.parametrize("version", GROUPS)
@pytest.mark.parametrize("at", ["/a/b", "/a", ""])
def test_the_limit_of_a_control_group_is_what_there_is(version: str, at: str, tmp_path: Path) -> None:
    """Of the process's own group, of one above it, and of a container, which sees its own group at the top."""
    told, top, limit, used, none = GROUPS[version]
    files = {"proc/self/cgroup": told, "proc/meminfo": f"MemFree: 1 kB\nMemAvailable: {900 * 1024} kB\n"}
    if at != "":
        files |= {f"{top}/a/b/{limit}": none, f"{top}/a/b/{used}": 5}
    files |= {f"{top}{at}/{limit}": 512 * MIB, f"{top}{at}/{used}": 300 * MIB}
    files |= {f"{top}{at}/memory.stat": f"anon 1\ninactive_file {100 * MIB}\n"}
    found = room.memory(write(tmp_path, files))
    assert found == (512 * MIB, 312 * MIB, "the control group of this process allows")


def test_without_a_limit_the_machine_is_what_there_is(tmp_path: Path) -> None:
    plain = room.memory(write(tmp_path, {"proc/meminfo": "MemAvailable: 2048 kB\n"}))
    assert plain.free == 2 * MIB
    assert plain.whole > 256 * MIB
    assert room.memory(write(tmp_path, {"proc/self/cgroup": GROUPS["version 2"][0]})) == plain
    assert 0 < room.memory().free <= room.memory().whole


def test_a_neighbour_is_told_of_and_a_limit_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    held = held_bytes()
    monkeypatch.setattr(room, "memory", lambda: room.Memory(held + 500 * MIB, 100 * MIB, "the group allows"))
    assert room.memory_notes(held + 90 * MIB) == []
    (note,) = room.memory_notes(held + 300 * MIB)
    assert "100.0 MiB are free now: end other programs first" in note
    with pytest.raises(ModelError, match=r"it takes .* of memory, and the group allows ") as refused:
        room.memory_notes(held + 600 * MIB, "teacher", "it", "Take another")
    assert (refused.value.where, refused.value.cure) == ("teacher", "Take another")


def test_folders_on_one_disk_share_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, store = tmp_path / "runs" / "one", tmp_path / "store"
    monkeypatch.setattr(room, "free_bytes", lambda place: 10 * MIB)
    room.refuse_full_disks({run: 6 * MIB, store: 4 * MIB})
    with pytest.raises(ModelError, match=r"this takes 11\.0 MiB of disk, and there are 10\.0 MiB"):
        room.refuse_full_disks({run: 6 * MIB, store: 5 * MIB})
    store.mkdir()
    (store / "kept").write_bytes(bytes(2 * MIB))  # what stands there is not written again
    room.refuse_full_disks({run: 6 * MIB, store: 5 * MIB})


class Notes:
    """Where a run tells what there is to know."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, words: str) -> None:
        self.said.append(words)

    def stage(self, words: str, total: int, unit: str) -> Any:
        raise AssertionError(f"{words}: something was spent")


def never(*given: Any, **named: Any) -> Any:
    raise AssertionError("a teacher was read into memory")


def test_distill_weighs_a_language_teacher_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stillroom.models.language import LanguageModel

    tree = causal(tmp_path)
    monkeypatch.setattr(LanguageModel, "load", never)
    teacher, student = (
        sum(weights.numel() for weights in tiny("llama", byte_pairs(300), layers=layers).parameters())
        for layers in (2, 1)
    )
    # Room to train the student alone, or to hold the teacher alone, but not for both.
    monkeypatch.setattr(room, "memory", lambda: room.Memory(16 * student + 3 * teacher, 1 << 40))
    said = f"a teacher of {teacher:,} weights, beside a student of {student:,} that is trained, takes "
    with pytest.raises(ModelError, match=said) as refused:
        stillroom.distill(tree, tmp_path / "run")
    assert refused.value.where == "teacher"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("made", ["classifier", "language"])
def test_distill_looks_for_room_for_the_answers(made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "data.csv", rows_of())
    tree = recipe() if made == "classifier" else causal(tmp_path)
    monkeypatch.setattr(room, "free_bytes", lambda place: 4096)
    with pytest.raises(ModelError, match=r"of disk, and there are 0\.0 MiB") as refused:
        stillroom.distill(tree, tmp_path / "run", folder=tmp_path)
    assert str(tmp_path / "run") in refused.value.where
    assert not (tmp_path / "run").exists()


def test_distill_tells_of_a_neighbour_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "data.csv", rows_of())
    show = Notes()
    monkeypatch.setattr(room, "memory", lambda: room.Memory(1 << 40, -(1 << 40)))
    with pytest.raises(AssertionError, match="something was spent"):
        stillroom.distill(recipe(), tmp_path / "run", folder=tmp_path, show=show)
    assert any("are free now: end other programs first" in note for note in show.said)
