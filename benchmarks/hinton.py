"""`make bench-hinton`: the MNIST figures of Hinton, Vinyals and Dean (2015), each from an ordinary recipe.

    python benchmarks/hinton.py [--preset smoke|time|full] [--only EXPERIMENT ...] [--list] [--write] [--reread]

Reads mnist.npz and photos.npz from $STILLROOM_DATA. Every experiment is a run in runs/bench-hinton/PRESET/, so that it
goes on after any stop; what is finished is written down at once, and docs/results/hinton.json and .md are made anew after
each experiment. `--write` runs nothing and makes the two files from what is finished.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import command
from benchmarks import hinton_figures as figures
from benchmarks import hinton_recipes as recipes
from benchmarks.hinton_recipes import PRESETS, Sizes, Tree
from benchmarks.results import (
    RESULTS,
    Found,
    Row,
    Rows,
    Table,
    bars_of,
    fingerprint,
    found_before,
    origins_of,
    read_bars,
    write,
)

BENCH = "hinton"
HOME = Path(__file__).resolve().parent.parent / "runs" / "bench-hinton"
DEFAULT = "full"


@dataclass(frozen=True)
class Drawn:
    """Rows drawn by seed 0 from the training rows of an .npz; test stays as it is unless `test` says fewer."""

    source: str
    train: int
    validation: int = 0
    test: int | None = None


@dataclass(frozen=True)
class Experiment:
    """One experiment: its recipe, the data drawn for it, how its figures are read, how far its run goes."""

    words: str
    recipe: Callable[[Sizes], Tree]
    read: figures.Read
    drawn: Callable[[Sizes], Mapping[str, Drawn]] = lambda sizes: {}
    until: str = "report"
    wants_teacher: bool = True


def _few_rows(sizes: Sizes) -> Mapping[str, Drawn]:
    return {"few_rows": Drawn(sizes.mnist, sizes.few_rows, sizes.few_rows_validation)}


def _few_labels(sizes: Sizes) -> Mapping[str, Drawn]:
    return {"few_labels": Drawn(sizes.mnist, sizes.few_labels_rows, sizes.few_labels_validation)}


ARMS_NOTE = (
    "Severity is the mean over errors of 1 - similarity(true class, predicted class), the similarity {similarity}. "
    "Ten seeds; intervals over seeds and test rows together."
)
FEW_NOTE = (
    " The number of labels was chosen on validation rows, among 100, 300 and 1,800: with 100 and with 300, hard answers made "
    "as few errors as soft ones or fewer, so what is found here holds for this number only."
)
EXPERIMENTS = {
    "teacher": Experiment(
        "the teacher of the paper's MNIST table", recipes.teacher, figures.read_teacher, until="teach",
        wants_teacher=False,
    ),
    "three_percent": Experiment("3 % of the rows", recipes.three_percent, figures.read_three_percent, _few_rows),
    "only_78": Experiment("only 7s and 8s in the transfer set", recipes.only_78, figures.read_only_78),
    "omit_3": Experiment("no 3 in the transfer set", recipes.omit_3, figures.read_omit_3),
    "ensemble_gain": Experiment(
        "ten networks on few labels into one", recipes.ensemble_gain, figures.read_ensemble_gain, wants_teacher=False
    ),
    "student": Experiment("the paper's MNIST table", recipes.student, figures.read_student),
    "few_labels": Experiment(
        "four arms on few-label MNIST", recipes.few_labels,
        figures.read_arms(
            "few_labels", "Is it the soft targets? Few-label MNIST",
            ARMS_NOTE.format(similarity="from the teacher of the paper's table, which taught none of these") + FEW_NOTE,
        ),
        _few_labels,
    ),
    "photos": Experiment(
        "four arms on photographs", recipes.photos,
        figures.read_arms(
            "photos", "Is it the soft targets? Photographs",
            ARMS_NOTE.format(similarity="0.5 among animals and among vehicles, else 0"),
        ),
        wants_teacher=False,
    ),
    "thirty_units": Experiment("temperatures for thirty units", recipes.thirty_units, figures.read_thirty_units),
}  # fmt: skip


def draw(folder: Path, name: str, wanted: Drawn, data: Path) -> Path:
    """The .npz of drawn rows, made once; the rows depend on the source and the numbers alone."""
    path = folder / "data" / f"{name}.npz"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    source = next(one for one in (folder / wanted.source, data / wanted.source) if one.is_file())
    arrays = np.load(source, allow_pickle=False)
    order = np.random.default_rng(0).permutation(len(arrays["x_train"]))
    rows = {"train": order[: wanted.train], "validation": order[wanted.train : wanted.train + wanted.validation]}
    parts = {
        f"{letter}_{role}": arrays[f"{letter}_train"][place]
        for role, place in rows.items()
        for letter in "xy"
        if len(place)
    }
    parts |= {f"{letter}_test": arrays[f"{letter}_test"][: wanted.test] for letter in "xy"}
    staged = path.with_suffix(".staged.npz")
    np.savez(staged, **parts)
    staged.replace(path)
    return path


def settings_of(name: str, sizes: Sizes) -> str:
    """The fingerprint of all that an experiment's figures depend on."""
    one = EXPERIMENTS[name]
    drawn = {key: asdict(value) for key, value in one.drawn(sizes).items()}
    teacher = recipes.teacher(sizes)["teacher"] if one.wants_teacher else None
    return fingerprint([one.recipe(sizes), drawn, teacher])


def run(name: str, base: Path, sizes: Sizes, data: Path) -> Row:
    """Run an experiment to its end, or go on with it, and read its figures."""
    import stillroom
    from stillroom.progress import for_terminal

    one = EXPERIMENTS[name]
    if one.wants_teacher:
        run_stages("teacher", base, sizes, data)
    for key, wanted in one.drawn(sizes).items():
        draw(base, key, wanted, data)
    stillroom.distill(one.recipe(sizes), base / name, show=for_terminal(), until=one.until, folder=base)
    return one.read(base, sizes)


def run_stages(name: str, base: Path, sizes: Sizes, data: Path) -> None:
    """The run of an experiment that another one builds on; finished stages are kept."""
    import stillroom
    from stillroom.progress import for_terminal

    one = EXPERIMENTS[name]
    stillroom.distill(one.recipe(sizes), base / name, show=for_terminal(), until=one.until, folder=base)


def merged(rows: Mapping[str, Row]) -> tuple[dict[str, Found], dict[str, Table]]:
    """Bars and tables of all rows. A bar that two data sets speak to takes the better of them."""
    bars: dict[str, Found] = {}
    tables: dict[str, Table] = {}
    for row in rows.values():
        for name, found in row.bars.items():
            before = bars.get(name)
            better = before is None or (before.value or 0.0) < (found.value or 0.0)
            both = "; ".join(dict.fromkeys(one.why for one in (before, found) if one is not None and one.why))
            best = found if better else before
            assert best is not None
            bars[name] = Found(best.value, best.ci95, best.n, both)
        tables |= row.tables
    return bars, tables


def write_results(preset: str, rows: Rows, folder: Path) -> list[dict[str, Any]]:
    """The two files from every finished experiment of a preset."""
    from benchmarks.hinton_words import REASONS, WORDS
    from benchmarks.machine import machine, versions

    finished = {}
    for name in EXPERIMENTS:
        row = rows.find(name, settings_of(name, PRESETS[preset]))
        if row is not None:
            finished[name] = row
    bars, tables = merged(finished)
    listed = bars_of(read_bars(BENCH), bars, REASONS.get(preset, {}))
    line = f"make bench-hinton ARGS='--preset {preset}'"
    there = {*finished, *found_before(folder / f"{BENCH}.json", line)}
    left = [f"{name} ({one.words})" for name, one in EXPERIMENTS.items() if name not in there]
    words = WORDS[preset] + (f" Not finished at this preset: {', '.join(left)}." if left else "")
    write(
        BENCH,
        "Hinton, Vinyals and Dean (2015) on MNIST",
        words,
        line,
        listed,
        tables,
        machine(),
        versions(),
        folder,
        origins_of(finished),
    )
    return listed


def _data_folder() -> Path:
    cure = "Set STILLROOM_DATA to a folder with those files"
    return command.data_folder("mnist.npz", "mnist.npz and photos.npz", cure)


def main() -> None:
    """Run what is asked for and not finished yet; write results after each."""
    words = {name: one.words for name, one in EXPERIMENTS.items()}
    options = command.parser(__doc__, EXPERIMENTS, PRESETS, DEFAULT)
    options.add_argument("--reread", action="store_true", help="run nothing, read the figures of finished runs anew")
    asked = options.parse_args()
    if asked.list:
        print(command.listed(words))
        return
    data, sizes, base = _data_folder(), PRESETS[asked.preset], HOME / asked.preset
    folder = base / "results" if asked.preset == "smoke" else RESULTS
    rows = Rows(folder / f"{BENCH}.rows.jsonl")
    if asked.preset == "smoke":
        draw(base, "smoke", Drawn("mnist.npz", 3000, test=500), data)
        draw(base, "smoke_photos", Drawn("photos.npz", 300, test=100), data)
    wanted = {name: words[name] for name in command.wanted(asked, EXPERIMENTS)}
    if asked.reread:
        for name in wanted:
            settings = settings_of(name, sizes)
            before = rows.find(name, settings)
            if before is not None:  # what is read anew was trained when it was
                read = EXPERIMENTS[name].read(base, sizes)
                rows.append(name, settings, replace(read, made=before.made, commit=before.commit))
        wanted = {}
    command.run_each(
        wanted,
        asked.again,
        rows,
        lambda name: settings_of(name, sizes),
        lambda name: run(name, base, sizes, data),
        lambda: write_results(asked.preset, rows, folder),
    )
    print(command.last_word(write_results(asked.preset, rows, folder)))


if __name__ == "__main__":
    main()
