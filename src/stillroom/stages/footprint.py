"""What a run takes of time, memory and disk as a whole: what a rehearsal measured, and what grows with the number of rows.

Files are counted in whole blocks, as a disk gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stillroom.recipe import Training
from stillroom.rows import KEY_BYTES, joined
from stillroom.stages.language_asking import kept_bytes, scored_positions
from stillroom.stages.language_text import is_recorded
from stillroom.stages.on_policy_plan import read_by, writing_of
from stillroom.stages.on_policy_rounds import policy_of
from stillroom.stages.opening import Run, store_of, views_of
from stillroom.stages.room import TRAINING_BYTES, WEIGHT_BYTES
from stillroom.stages.train import TEMPERATURES, Role, _asks_for_more, roles
from stillroom.teachers.trained import Trained
from stillroom.training.steps import steps_in

if TYPE_CHECKING:
    from stillroom.stages.dress_rehearsal import Rehearsed

BLOCK = 4096
STATE_BYTES = 12
"""Of each weight in a checkpoint: itself and two running means; patience keeps the best so far beside them."""
SHARD_ROWS, SHARD_WINDOWS = 8_192, 64
ANSWER_BYTES = 12
"""Of each number that a shard is answered with: batches, these joined, and these in the order of the rows."""
MERGING_BYTES = 28
"""Of each member's log-probability while an ensemble's are merged: float32, and three times float64."""
KEY_FILE, SHARD_FILES = 640, 3 * BLOCK
"""Of a shard: what its file of keys takes beside them, and its manifest and folder."""
PAGE_BYTES = {True: 130_000, False: 340_000}
"""report.html, details and scorecards, of language models and of classifiers: they hardly depend on the data."""
SMALL_FILES = 16 * BLOCK
"""recipe.yaml, events.jsonl, headers and folders."""


class Planned(NamedTuple):
    """A training of the run, as often as it is done."""

    name: str
    """Its folder; of a role, the first seed's."""
    knobs: Training
    rows: int
    times: int
    role: Role | None = None
    rounds: tuple[tuple[Training, int], ...] = ()
    """Further trainings that go on from it, with their rows; the last one's weights stay."""

    @property
    def untrained(self) -> bool:
        """It stays as it begins."""
        return self.role is not None and self.role.untrained

    @property
    def asked_live(self) -> int:
        """Rows that a live teacher is asked about while all of them train, at most: patience may end one sooner."""
        role = self.role
        if role is None or role.labels_alone or self.untrained or role.run.has_own_teacher:
            return 0
        if not role.run.recipe.transfer_set.live or not any(one.required() for one in role.objectives):
            return 0
        return self.times * sum(knobs.epochs * rows for knobs, rows in ((self.knobs, self.rows), *self.rounds))

    def seconds(self, found: Rehearsed) -> float:
        """Of one of them."""
        if self.untrained:
            return 0.0
        each = ((self.knobs, max(1, self.rows)), *self.rounds)
        return found.lessons[self.name].step_s * sum(steps_in(*one) for one in each) * self.knobs.accumulate

    def checkpoints(self, found: Rehearsed) -> int:
        """How many it writes, two at most: while the second is written the first one stands."""
        return min(2, int(self.seconds(found) / max(self.knobs.checkpoint_seconds, 1e-3)))

    def checkpoint_bytes(self, found: Rehearsed) -> int:
        """Of one."""
        each = STATE_BYTES + WEIGHT_BYTES * (self.knobs.patience is not None)
        return found.lessons[self.name].parameters * each


def trainings(run: Run) -> Iterator[Planned]:
    """All of them, in their order: teachers, then the roles of the run."""
    yield from _teachers(run, "teacher")
    for role in roles(run):
        if role.run.has_own_teacher:
            yield from _teachers(role.run, role.run.teacher_home)
        knobs, train = role.run.recipe.training, role.run.splits.train
        tries = sum(one.heat() == "auto" for one in role.objectives) * len(TEMPERATURES)
        yield Planned(role.folder(0), knobs, len(train), role.seeds + tries, role, _rounds(role))
    yield from _teachers(run, "independent")


def _rounds(role: Role) -> tuple[tuple[Training, int], ...]:
    """What a role goes through after its first training, in rounds on policy."""
    policy = policy_of(role.run)
    if policy is None or role.untrained:
        return ()
    knobs = role.run.recipe.training.model_copy(update={"epochs": policy.knobs.epochs})
    return tuple((knobs, part.written + part.beside) for part in policy.parts)


def _teachers(run: Run, home: str) -> Iterator[Planned]:
    teacher = run.recipe.evaluation.independent_teacher if home == "independent" else run.recipe.teacher
    members = [] if teacher is None else teacher.each()
    known = len(run.splits.train) + len(run.splits.omitted)
    if not run.recipe.is_language:
        known = int(joined(run.splits.train, run.splits.omitted).labelled_N.sum())
    for place, member in enumerate(members):
        if isinstance(member, Trained):
            yield Planned(f"{home}/{place}" if len(members) > 1 else home, member.training(), known, 1)


def memory_bytes_of(run: Run, found: Rehearsed) -> int:
    """The most that the process of a run holds."""
    most = {"open": found.most_bytes["open"], "ask": found.most_bytes["ask"] + _asking_bytes(run, found)}
    most["write"] = found.most_bytes.get("write", 0)
    classes, splits = len(run.splits.classes), run.splits
    said = classes * WEIGHT_BYTES * (len(splits.test) + len(splits.validation))
    most["exam"] = found.most_bytes["exam"] + 2 * said * (1 + len(roles(run)) * run.recipe.seeds)
    for one in trainings(run):
        lesson = found.lessons[one.name]
        more = _answers_held_bytes(one.role, found) if one.role else 0
        if one.knobs.patience is not None:
            more += WEIGHT_BYTES * lesson.parameters
        looking = lesson.before_bytes + TRAINING_BYTES * lesson.parameters + found.look_bytes
        most[one.name] = max(lesson.most_bytes, looking) + more
    return max(most.values())


def _asking_bytes(run: Run, found: Rehearsed) -> int:
    """What is held of a shard's answers while they are made, and of the hidden states that a basis is fitted on."""
    splits = run.splits
    if run.recipe.is_language:
        from stillroom.transfer_set.recording import CALIBRATION_POSITIONS

        if not _keeps(run) or run.recipe.transfer_set.tail != "hidden":
            return 0
        drawn = min(CALIBRATION_POSITIONS, scored_positions(run) // max(1, len(views_of(run.recipe))))
        return 2 * WEIGHT_BYTES * drawn * found.hidden_width // len(run.recipe.teacher.each())
    members = len(run.recipe.teacher.each())
    rows = [len(splits.validation), len(splits.test), 0 if run.recipe.transfer_set.live else len(splits.train)]
    shard = min(SHARD_ROWS, max(rows))
    answered = ANSWER_BYTES * shard * (len(splits.classes) + found.hidden_width // members)
    merged = MERGING_BYTES * shard * len(splits.classes) * members if members > 1 else 0
    return max(answered, merged)


def _keeps(run: Run) -> bool:
    """Whether a teacher's answers are kept: a live one's are not, and recorded words are learned from as they are."""
    return not run.recipe.transfer_set.live and not is_recorded(run.recipe.teacher)


def _answers_held_bytes(role: Role, found: Rehearsed) -> int:
    """Kept answers are read through memory maps, and a classifier's are looked at as a whole."""
    run = role.run
    if role.labels_alone or not _keeps(run):
        return 0
    if run.recipe.is_language:
        written = read_by(role).tokens // role.seeds
        return kept_bytes(run, scored_positions(run) + written) // max(1, len(run.recipe.teacher.each()))
    numbers = len(run.splits.train) * len(run.splits.classes)
    hidden = any("hidden" in one.required() for one in role.objectives) * len(run.splits.train) * found.hidden_width
    return 2 * WEIGHT_BYTES * numbers + 2 * len(views_of(run.recipe)) * (numbers + hidden)


class Disk(NamedTuple):
    """Bytes of a run folder: when the run is done, and at most while it works."""

    done: int
    most: int


def disk(run: Run, found: Rehearsed) -> Disk:
    """What all files of a run take."""
    answers, trained, most = sum(answers_at(run, found.hidden_width).values()), 0, 0
    for one in trainings(run):
        trained += one.times * _blocks([*found.lessons[one.name].folder_bytes, BLOCK, BLOCK])
        earlier = bool(one.rounds) * _blocks([*found.lessons[one.name].folder_bytes, BLOCK, BLOCK])
        most = max(most, trained + earlier + one.checkpoints(found) * one.checkpoint_bytes(found))
    written = writing_of(run)
    trained += written.file_bytes + written.pieces * SHARD_FILES
    done = answers + trained + _evaluation_bytes(run) + SMALL_FILES
    return Disk(done, max(done, answers + most))


def places(run: Run, found: Rehearsed) -> dict[Path, int]:
    """What a run's files take at most, by the folder that they are below: the run's own, and shared stores."""
    home, answers = run.dir.path, answers_at(run, found.hidden_width)
    return {**answers, home: answers.get(home, 0) + disk(run, found).most - sum(answers.values())}


def answers_at(run: Run, hidden_width: int = 0) -> dict[Path, int]:
    """What all answers of a run take, by the folder that they are below. `hidden_width`: of what a classifier keeps beside
    its probabilities; where it is not known yet, the bytes are the least they can be."""
    if run.recipe.is_reasoning:
        return {}  # traces, which are as long as the teacher makes them
    found = dict[Path, int]()
    for one in [run, *(arm for arm in run.arms.values() if arm.has_own_teacher or _asks_for_more(arm, run))]:
        home, store = run.dir.path, store_of(one).root
        place = home if store.is_relative_to(home) else store
        found[place] = found.get(place, 0) + _answers_bytes(one, hidden_width)
    return found


def _blocks(sizes: Iterable[int]) -> int:
    """Files of these sizes in whole blocks."""
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


def _answers_bytes(run: Run, hidden_width: int) -> int:
    """A run's transfer set, of all its teachers."""
    recipe, splits = run.recipe, run.splits
    members = len(recipe.teacher.each())
    views = len(views_of(recipe)) if _keeps(run) else 0
    if recipe.is_language:
        if not views:
            return BLOCK
        written = writing_of(run.main or run, run)
        windows = len(splits.train) * views + written.windows
        shards = views * -(-len(splits.train) // SHARD_WINDOWS) + written.pieces
        each = (members + (members > 1)) * (windows * (KEY_BYTES + 16) + shards * (KEY_FILE + SHARD_FILES + BLOCK))
        return kept_bytes(run, scored_positions(run) + written.tokens) + each
    asked = [len(splits.train)] * views + [len(part) for part in (splits.validation, splits.test) if len(part)]
    parts = [min(SHARD_ROWS, rows - start) for rows in asked for start in range(0, rows, SHARD_ROWS)]
    total = 0
    for width in [hidden_width // members] * members + [0] * (members > 1):
        for rows in parts:
            keys = KEY_FILE + rows * (KEY_BYTES + 8)
            total += _blocks([2 * rows * len(splits.classes), 2 * rows * width, keys]) + SHARD_FILES
    return total


def _evaluation_bytes(run: Run) -> int:
    """Predictions, details, scorecards and the page."""
    splits, models = run.splits, 1 + len(roles(run)) * run.recipe.seeds
    parts = (splits.validation, splits.test)
    if run.recipe.is_language:
        scored = [int((part.raw["target"] >= 0).sum()) for part in parts if isinstance(part.raw, dict)]
        said = [WEIGHT_BYTES * positions for positions in (*scored, *scored, min(8192, scored[-1]))] * models
        places = [size * positions for positions in scored for size in (4, 4, 4, 8)]
        return _blocks([*said, *places, *(KEY_BYTES * len(part) for part in parts)]) + PAGE_BYTES[True]
    models += len(roles(run)) * run.recipe.seeds * (run.recipe.training.class_prior != "none")
    said = [WEIGHT_BYTES * len(part) * len(splits.classes) for part in parts] * models
    return _blocks([*said, *((KEY_BYTES + 8) * len(part) for part in parts)]) + PAGE_BYTES[False]
