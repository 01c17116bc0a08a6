"""What the shipped recipes end with: their scorecards, and the speed of their teachers and students in turns.

A run stands in runs/bench-language/NAME (of the smoke preset in its own folder). One that has a scorecard is read as it
is, whoever ran it; any other is run by `stillroom.distill` with the preset's overrides, and goes on after a stop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.blocks import NotMade
from benchmarks.language_fidelity import DRAWS, interval
from benchmarks.language_sizes import TINY, Sizes
from benchmarks.results import Found, Row, Table, shown
from benchmarks.timing import paired_ratio, rounds
from stillroom.rows import Array, Questions, Raw, take_rows

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
SMALLER, FASTER = 7.5, 9.0
"""What bar tiny-keeps asks for beside accuracy."""
CHANCE = 0.5
TIMED_ROWS = 64
CHUNK = 64
Answer = Callable[[Raw], Any]
Sections = Callable[[list[dict[str, Any]]], dict[str, Any]]
ABLATIONS: dict[str, tuple[str, Sections, float]] = {
    "no_soft": ("without soft targets", lambda all_: {"objectives": without("soft_target", all_)}, -2.96),
    "no_hidden": ("without hidden layers", lambda all_: {"objectives": without("hidden", all_)}, -1.46),
    "random_start": ("from random weights", lambda all_: {"student": {"weights": "random"}}, -3.69),
}
"""Arm -> how it is called, what differs given the recipe's objectives, and what DistilBERT lost in GLUE points (Sanh and others
2019, table 4)."""


def without(kind: str, objectives: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objectives of all other kinds."""
    return [one for one in objectives if one["kind"] != kind]


def finished(
    name: str, overrides: tuple[str, ...], sizes: Sizes, base: Path, arms: Mapping[str, Any] | None = None
) -> tuple[Path, dict[str, Any]]:
    """The run of a shipped recipe, with these arms in it, and its scorecard. Raises NotMade where neither is there."""
    import stillroom
    from stillroom.progress import for_terminal
    from stillroom.recipe import Recipe
    from stillroom.rundir import read_json

    run = (base if sizes.teacher == TINY else base.parent) / name
    card = run / "scorecard.json"
    if not card.is_file() or not set(arms or {}) <= set(read_json(card)["models"]):
        file = RECIPES / f"{name}.yaml"
        if not file.is_file():
            raise NotMade(f"there is no recipes/{file.name} yet, and no run in {run.parent.name}/{name}")
        further = [f"arms.{arm}={json.dumps(sections)}" for arm, sections in (arms or {}).items()]
        stillroom.distill(Recipe.load(file, (*overrides, *further)), run, show=for_terminal(), folder=RECIPES)
    return run, read_json(card)


def language(sizes: Sizes, base: Path, data: Path) -> Row:
    """recipes/language.yaml: how much of the gap between control and teacher the student closes."""
    _, card = finished("language", sizes.language_overrides, sizes, base)
    gap, n = card["gap_recovered"], _seeds(card)
    found = Found(None, why=gap["absent"]) if "absent" in gap else Found(gap["mean"], gap.get("ci95"), n)
    return Row({"lm-control-gain": found}, {"language": _models("recipes/language.yaml", card, "bits_per_byte")})


def distilbert(sizes: Sizes, base: Path, data: Path) -> Row:
    """recipes/distilbert_sst2.yaml: accuracy kept, size, speed."""
    from stillroom.models.classifier import description

    run, card = finished("distilbert_sst2", sizes.sst2_overrides, sizes, base)
    n = _seeds(card)
    to_teacher, to_control = (card["differences"][f"student-{other}"]["accuracy"] for other in ("teacher", "control"))
    ends = {
        name: [100 * end for end in one["ci95"]]
        for name, one in (("t", to_teacher), ("c", to_control))
        if "ci95" in one
    }
    missing = Found(None, why="one seed gives no interval")
    weights = {role: int(description(run / role)["parameters"]) for role in ("teacher", "student")}
    ratios = _speed(run, data)
    bars = {
        "distil-keeps": Found(100 * to_teacher["mean"], ends.get("t"), n),
        "distil-keeps-bound": Found(ends["t"][0], ends["t"], n) if "t" in ends else missing,
        "distil-beats-control": Found(ends["c"][0], ends["c"], n) if "c" in ends else missing,
        "distil-smaller": Found(1 - weights["student"] / weights["teacher"], None, "1"),
        "distil-faster": slowest(ratios),
    }
    rows = [[f"batch {size}", shown(ratio), " to ".join(map(shown, ends))] for size, (ratio, ends) in ratios.items()]
    speed = Table("recipes/distilbert_sst2.yaml, speed", ["", "teacher / student", "95 % interval"], rows)
    return Row(
        bars, {"distilbert": _models("recipes/distilbert_sst2.yaml", card, "accuracy"), "distilbert_speed": speed}
    )


def ablations(sizes: Sizes, base: Path) -> Row:
    """What each part of DistilBERT's way is worth: the same student without it, from the same kept answers."""
    from stillroom.recipe import Recipe

    name = "distilbert_sst2"
    objectives = Recipe.load(RECIPES / f"{name}.yaml").to_tree()["objectives"]
    arms = {arm: sections(objectives) for arm, (_, sections, _) in ABLATIONS.items()}
    _, card = finished(name, sizes.sst2_overrides, sizes, base, arms)
    rows = [["the whole recipe", *_accuracy(card["models"]["student"]), "", "", ""]]
    for arm, (words, _, published) in ABLATIONS.items():
        apart = card["differences"][f"{arm}-student"]["accuracy"]
        ends = " to ".join(shown(100 * end) for end in apart["ci95"]) if "ci95" in apart else ""
        rows.append([words, *_accuracy(card["models"][arm]), shown(100 * apart["mean"]), ends, published])
    columns = ["", "accuracy", "95 % interval", "points", "95 % interval", "DistilBERT, GLUE points"]
    table = Table(f"recipes/{name}.yaml without its parts", columns, rows, _seeds(card))
    return Row({}, {"ablations": table})


def _accuracy(model: Mapping[str, Any]) -> list[str]:
    one = model["accuracy"]
    return [shown(one["mean"]), " to ".join(map(shown, one["ci95"])) if "ci95" in one else ""]


class Form(NamedTuple):
    """A student as one of its exported files: how it is called, the share of the teacher's accuracy above chance that it
    keeps, and how much smaller and faster (batch 1) it is."""

    words: str
    right_SN: Array
    keeps: float
    ci95: list[float]
    smaller: float
    faster: float
    ends: list[float]

    @property
    def told(self) -> str:
        """Its size and speed in words."""
        return f"{self.words} {self.smaller:.1f} times smaller and {self.faster:.1f} times faster (batch 1)"


def tiny(sizes: Sizes, base: Path, data: Path) -> Row:
    """recipes/tiny_sst2.yaml as exported, in float32 and in eight bits."""
    from stillroom.export.onnx_model import size_bytes
    from stillroom.export.runner import FLOAT32, INT8, OnnxModel
    from stillroom.models.classifier import Classifier

    run, card = finished("tiny_sst2", sizes.sst2_overrides, sizes, base)
    test, teacher = _test(data), Classifier.load(run / "teacher")
    folders = [run / "student", *(run / "seeds" / str(seed) / "student" for seed in card["seeds"][1:])]
    exported = [_exported(folder, base / "tiny-sst2" / str(place), test) for place, folder in enumerate(folders)]
    right_N, weights = _right(teacher.log_probabilities, test), (run / "teacher" / "model.safetensors").stat().st_size
    forms = []
    for words, file in (("in float32", FLOAT32), ("in eight bits", INT8)):
        students = [OnnxModel(folder, file) for folder in exported]
        right_SN = np.stack([_right(student.log_probabilities, test) for student in students])
        answers = {"teacher": teacher.log_probabilities, "student": students[0].log_probabilities}
        forms.append(
            form(words, right_SN, right_N, weights / size_bytes(exported[0] / file), in_turns(answers, test, 1))
        )
    rows: list[list[Any]] = [["teacher, in float32", round(float(right_N.mean()), 4), 1.0, "", 1.0, 1.0, ""]]
    for one in forms:
        accuracy, ends = (
            round(float(one.right_SN.mean()), 4),
            [" to ".join(map(shown, each)) for each in (one.ci95, one.ends)],
        )
        figures = [accuracy, round(one.keeps, 4), ends[0], round(one.smaller, 2), round(one.faster, 2), ends[1]]
        rows.append([f"student, {one.words}", *figures])
    columns = ["", "accuracy", "kept above chance", "95 % interval", "times smaller", "times faster", "95 % interval"]
    table = Table("recipes/tiny_sst2.yaml as exported", columns, rows)
    return Row({"tiny-keeps": best(forms, _seeds(card))}, {"tiny": table})


def form(words: str, right_SN: Array, right_N: Array, smaller: float, turns: tuple[float, list[float]]) -> Form:
    """A form with what it keeps, given which answers are right."""
    keeps = float((right_SN.mean() - CHANCE) / (right_N.mean() - CHANCE))
    return Form(words, right_SN, keeps, _keeps_interval(right_SN, right_N), smaller, *turns)


def best(forms: Sequence[Form], n: str) -> Found:
    """Of the forms that are small and fast enough, the one that keeps most; where none is, what each of them is."""
    enough = [one for one in forms if one.smaller >= SMALLER and one.faster >= FASTER]
    if enough:
        one = max(enough, key=lambda one: one.keeps)
        return Found(one.keeps, one.ci95, n, one.told)
    told = "; ".join(f"{one.told}, keeping {one.keeps:.3f} of the accuracy above chance" for one in forms)
    return Found(None, why=f"{SMALLER:g} times smaller and {FASTER:g} times faster are asked; the student is {told}")


def _exported(folder: Path, out: Path, test: Questions) -> Path:
    """The student as ONNX, in eight bits too, checked on the test rows; made once."""
    from stillroom.export.check import CHECK, export_checked

    if not (out / CHECK).is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        export_checked(folder, out, test.raw, test.label_N, int8=True, seconds=2.0)
    return out


def _test(data: Path) -> Questions:
    """The test sentences of SST-2."""
    from stillroom.kinds import parse

    file = "sst2/test.jsonl"
    knobs = {"kind": "dataset", "source": {"train": file, "test": file}, "input": "sentence", "label": "label"}
    found: Questions = parse("questions", knobs).build([data]).test
    return found


def _right(answer: Answer, test: Questions) -> Array:
    """Whether the top answer is the label, [N]."""
    order = np.arange(len(test))
    tops = [np.asarray(answer(take_rows(test.raw, part))).argmax(1) for part in np.split(order, order[CHUNK::CHUNK])]
    right_N: Array = np.concatenate(tops) == test.label_N
    return right_N


def _keeps_interval(right_SN: Array, right_N: Array) -> list[float]:
    """Draws of seeds and test rows together."""
    generator = np.random.default_rng(0)
    seeds, rows = right_SN.shape
    seed_BS = generator.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS) / seeds
    row_BN = generator.multinomial(rows, np.full(rows, 1 / rows), DRAWS) / rows
    student_B = ((seed_BS @ right_SN.astype(float)) * row_BN).sum(1)
    return interval((student_B - CHANCE) / (row_BN @ right_N.astype(float) - CHANCE))


def in_turns(answers: Mapping[str, Answer], test: Questions, size: int, count: int = 9) -> tuple[float, list[float]]:
    """Teacher over student, in batches of `size` rows, on the same sentences."""
    places = np.arange(min(TIMED_ROWS, len(test)))
    batches = [take_rows(test.raw, part) for part in np.split(places, places[size::size])]

    def block(answer: Answer) -> Callable[[], None]:
        def one() -> None:
            for batch in batches:
                answer(batch)

        return one

    seconds = rounds({name: block(answer) for name, answer in answers.items()}, count)
    return paired_ratio(seconds["teacher"], seconds["student"])


def _speed(run: Path, data: Path) -> dict[int, tuple[float, list[float]]]:
    from stillroom.models.classifier import Classifier

    answers = {role: Classifier.load(run / role).log_probabilities for role in ("teacher", "student")}
    test = _test(data)
    return {size: in_turns(answers, test, size) for size in (1, 32)}


def slowest(ratios: Mapping[int, tuple[float, list[float]]]) -> Found:
    """The smaller of the ratios, with the batch that it is of; the bar is asked of all."""
    size = min(ratios, key=lambda size: ratios[size][0])
    told = " and ".join(map(str, sorted(ratios)))
    return Found(*ratios[size], f"9 rounds, batch {told}; this is batch {size}")


def _seeds(card: Mapping[str, Any]) -> str:
    count = len(card["seeds"])
    return f"{count} seed{'s' if count > 1 else ''}, {card['rows']['train']:,} training rows"


def _models(title: str, card: Mapping[str, Any], figure: str) -> Table:
    """One figure of every model of a run."""
    rows = []
    for name, each in card["models"].items():
        if figure not in each:
            continue
        one = each[figure]
        ends = " to ".join(map(shown, one["ci95"])) if "ci95" in one else ""
        rows.append([name, shown(one["mean"]), ends, f"{each['parameters']:,}" if "parameters" in each else ""])
    return Table(f"{title}: {figure.replace('_', ' ')}", ["", figure.replace("_", " "), "95 % interval", "parameters"], rows,
                 _seeds(card))  # fmt: skip
