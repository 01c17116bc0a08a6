"""Whether memory and disk last: what there is of them, and what is needed before a run has spent anything.

What this process may hold at most is the machine's memory, or less where its control group sets a limit, as in a container.
More than that never fits, and is refused. What is free right now depends on the neighbours, who may end any minute: more
than that is said, and not refused. What a disk has free is all that there is of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stillroom.errors import ModelError
from stillroom.evaluation.processes import held_bytes

TRAINING_BYTES = 16
"""Of each weight while it is trained: itself, its gradient, and two running means."""
WEIGHT_BYTES = 4
"""Of each weight that only answers."""
GROUPS = {"": ("sys/fs/cgroup", "memory.max", "memory.current"),
          "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")}  # fmt: skip
"""Controller in /proc/self/cgroup -> where its groups stand, and their files: version 2, and version 1."""
SMALLER = "Choose a smaller model or a smaller training.batch_size"


class Memory(NamedTuple):
    """Bytes that this process may hold at all, and how many of them are free now; what says so."""

    whole: int
    free: int
    whose: str = "this machine has"


def memory(root: Path = Path("/")) -> Memory:
    """Of the machine, and of each control group that this process is in. `root`: where the system's files stand."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = Memory(size, _line(root / "proc/meminfo", "MemAvailable:") or size)
    for group, limit_name, used_name in _groups(root):
        limit = _number(group / limit_name)
        if limit is None or limit >= size:
            continue
        # Pages of files that nobody reads at the moment are given back before the limit bites.
        held = (_number(group / used_name) or 0) - _line(group / "memory.stat", "inactive_file", 1)
        whole, free = min(found.whole, limit), min(found.free, max(0, limit - held))
        found = Memory(whole, free, "the control group of this process allows")
    return found


def _groups(root: Path) -> list[tuple[Path, str, str]]:
    """Folders of the groups that count this process's memory, with the names of limit and use; a group's parents bind too."""
    told = root / "proc/self/cgroup"
    found = []
    for line in told.read_text().splitlines() if told.is_file() else []:
        _, controllers, place = line.split(":", 2)
        for controller in set(controllers.split(",")) & set(GROUPS):
            top, limit, used = GROUPS[controller]
            own = root / top / place.lstrip("/")
            while own != root / top:
                found.append((own, limit, used))
                own = own.parent
            found.append((own, limit, used))  # in a container this is its own group, whatever the path says
    return found


def _number(file: Path) -> int | None:
    """A file of one number; None where there is none, or no limit ("max")."""
    told = file.read_text().strip() if file.is_file() else ""
    return int(told) if told.isdigit() else None


def _line(file: Path, name: str, unit: int = 1024) -> int:
    """The number in the line of this name, in bytes; 0 where there is none."""
    for line in file.read_text().splitlines() if file.is_file() else []:
        if line.startswith(f"{name} "):
            return int(line.split()[1]) * unit
    return 0


def memory_notes(needed: int, where: str = "memory", what: str = "this", cure: str = SMALLER) -> list[str]:
    """What to say where so many bytes are not free now. Raises ModelError where they never are."""
    there = memory()
    if needed > there.whole:
        raise ModelError(
            f"{what} takes {size(needed)} of memory, and {there.whose} {size(there.whole)}", where=where, cure=cure
        )
    if fits(needed, there):
        return []
    return [
        f"{what} takes {size(needed)} of memory, of which {size(there.free)} are free now: end other programs first, or the "
        "system may end this one; what was finished is kept, and the same command goes on from there"
    ]


def fits(needed: int, there: Memory | None = None) -> bool:
    """So many bytes are free now; what this process holds already is not free, and is part of what it needs."""
    whole, free, _ = there or memory()
    return needed <= whole and needed - held_bytes() <= free


def refuse_full_disks(needed: Mapping[Path, int]) -> None:
    """Raise ModelError where a disk has not the room for what is to be written below these folders.

    What stands in a folder already is not written again; folders on one disk are counted together.
    """
    by_disk: dict[int, list[Path]] = {}
    for place in needed:
        by_disk.setdefault(_there(place).stat().st_dev, []).append(place)
    for places in by_disk.values():
        more = sum(max(0, needed[place] - taken(place)) for place in places)
        free = free_bytes(places[0])
        if more > free:
            told = ", ".join(str(place.absolute()) for place in places)
            raise ModelError(
                f"this takes {size(more)} of disk, and there are {size(free)}",
                where=f"disk, {told}",
                cure="Free some space there, keep fewer seeds or views, or a smaller transfer_set.tail_bytes",
            )


def free_bytes(place: Path) -> int:
    """Room on the disk where this folder is, or will be."""
    return shutil.disk_usage(_there(place)).free


def _there(place: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(path for path in (place, *place.absolute().parents) if path.exists())


def taken(place: Path) -> int:
    """Bytes that the files below a folder take, in whole blocks of the disk."""
    return sum(512 * path.lstat().st_blocks for path in place.rglob("*")) if place.is_dir() else 0


def size(count: int) -> str:
    """A number of bytes, for a person."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
