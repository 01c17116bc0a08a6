"""Stage rounds: ask, train, look, choose, ask again. Afterwards the run's training rows are those that were asked.

    RUN/rounds/rounds.json     what each strategy asked, round by round, and why; written last

A share of every budget goes to the audit slice: random questions that nobody learns from, on which the rounds are
judged. Strategies that are compared start from the same questions and share the audit slice. A round is a pure function
of the rounds before it and of kept answers, and each finished one is written down, so a run that is killed anywhere
chooses what it would have chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import BudgetReached, RecipeError, RunError
from stillroom.evaluation.proportions import wilson
from stillroom.kinds import AskedTeacher, Strategy
from stillroom.questions.choosing import Looking
from stillroom.questions.writing import Example, Writes, text_column, texts_in
from stillroom.recipe import Rounds
from stillroom.rows import Array, Questions
from stillroom.rundir import fingerprint, read_json, write_json
from stillroom.stages.ask import ask_answers
from stillroom.stages.on_policy_rounds import check_on_policy, is_on_policy
from stillroom.stages.opening import Run
from stillroom.stages.round_students import Students, as_long, asking_only, taken
from stillroom.stages.round_writing import WRITE, with_written, written

if TYPE_CHECKING:
    from stillroom.transfer_set.store import Kept

ROUNDS, FILE = "rounds", "rounds.json"
FORMAT = 1
Tree = dict[str, Any]
PER_ROW = {"chosen", "why", "guessed"}
"""What a record holds of each question it chose."""
AUDITED = 20
"""Fewer audit rows than this decide nothing."""


def check_rounds(run: Run) -> None:
    """Refuse what rounds cannot do, before anything is spent. Raises RecipeError."""
    recipe = run.recipe
    if is_on_policy(run):
        return check_on_policy(run)
    for name, arm in run.arms.items():
        if recipe.rounds is None and arm.recipe.rounds is not None:
            raise RecipeError(
                "an arm has rounds, and the run itself has none",
                where=f"arms.{name}.rounds",
                cure="Give the run rounds, and an arm of a language model rounds: null, for the same steps on the text",
            )
    if recipe.rounds is None:
        return None
    others = [arm.arm for arm in run.arms.values() if arm.has_own_teacher]
    compared = [recipe.rounds.strategy, *recipe.rounds.compare]
    compared += [one.others for one in compared if isinstance(one, Writes)]
    writes = any(isinstance(one, Writes) for one in compared)
    talks = recipe.teacher.costs and len(recipe.teacher.each()) == 1
    for is_set, where, what, cure in (
        (
            recipe.is_language, "rounds.strategy", "this chooses among questions that have classes",
            "Use on_policy, or take rounds out",
        ),
        (
            any("text" in one.wants for one in compared), "rounds", "on_policy is for language models, and alone",
            "Use another strategy",
        ),
        (recipe.transfer_set.live, "transfer_set.live", "a live teacher is asked everything", "Take live out"),
        (
            bool(recipe.questions.augment), "questions.augment", "in rounds a question is asked as it is",
            "Take augment out, or rounds",
        ),
        (
            any(one.heat() == "auto" for one in recipe.objectives), "objectives",
            "a temperature is settled on all rows, and rounds begin with a few", "Name one, such as temperature: 2",
        ),
        (
            writes and not talks, "rounds.strategy", "questions are written by a teacher that can be talked to",
            "Use a teacher of kind openai_api, or choose among the questions there are",
        ),
        (
            writes and text_column(run.splits.train.raw) is None, "rounds.strategy",
            "only texts can be written, and these rows are something else", "Choose among the questions there are",
        ),
        (
            bool(others), f"arms.{'.'.join(others[:1])}", "an arm of a run in rounds learns from the same answers",
            "Compare other teachers and other questions in runs of their own",
        ),
    ):  # fmt: skip
        if is_set:
            raise RecipeError(what, where=where, cure=cure)


def choose_questions(run: Run, asked: AskedTeacher) -> None:
    """Ask in rounds, where the recipe says so, and keep of the training rows what was asked and answered.

    Raises BudgetReached where a budget does not even allow the first round.
    """
    knobs, recipe = run.recipe.rounds, run.recipe
    if knobs is None or is_on_policy(run):  # nothing is chosen where a student writes, as it is trained
        return
    made_from = fingerprint(
        FORMAT, knobs.model_dump(mode="json"), asked.fingerprint, run.splits.fingerprint(),
        recipe.student.model_dump(mode="json"), [one.model_dump(mode="json") for one in recipe.objectives],
        recipe.training.model_dump(mode="json", exclude={"checkpoint_seconds"}), recipe.dtype,
        recipe.budget.model_dump(mode="json", exclude={"minutes"}),
    )  # fmt: skip
    with run.dir.stage(ROUNDS, made_from) as folder:
        if folder is not None:
            write_json(folder / FILE, _all_rounds(run, asked, knobs, run.dir.work_of(ROUNDS, made_from)))
    _narrow(run, read_json(run.dir.path / ROUNDS / FILE))


def _all_rounds(run: Run, asked: AskedTeacher, knobs: Rounds, work: Path) -> Tree:
    ground = Ground.of(run.splits.train, knobs)
    main = Drawing(run, asked, knobs.strategy, knobs, ground, work / "strategy").drawn()
    compared: dict[str, Drawing] = {}
    for place, strategy in enumerate(knobs.compare):
        name = strategy.kind if strategy.kind not in compared else f"{strategy.kind}-{place + 1}"
        compared[name] = Drawing(run, asked, strategy, knobs, ground, work / "compare" / name, name).drawn()
    return {
        "strategy": knobs.strategy.model_dump(mode="json"),
        "pool": ground.rows,
        "audit": {"share": knobs.audit, "rows": ground.audit[: main.records[-1]["audit_rows"]]},
        "most": ground.most,
        "rounds": main.records,
        "stopped": main.stopped,
        "compare": {name: one.records for name, one in compared.items()},
        "compare_stopped": {name: one.stopped for name, one in compared.items()},
    }


def _narrow(run: Run, found: Tree) -> None:
    """Of the training rows, keep those that were asked and answered; the others were never seen."""
    learned = taken(with_written(run.splits.train, found["rounds"]), learned_places(found["rounds"]))
    calls = found["rounds"][-1]["calls"]
    told = (
        f"the teacher was asked {calls:,} times; {len(learned):,} of {found['pool']:,} questions, chosen by "
        f"{found['strategy']['kind']} in {len(found['rounds'])} rounds, are learned from; {found['stopped']}"
    )
    whole = run.splits
    for part in [run, *run.arms.values()]:
        training = as_long(part.recipe.training, max(1, len(learned)), max(len(learned), found["most"]))
        part.recipe = part.recipe.model_copy(update={"training": training})
        part.__dict__["splits"] = replace(whole, train=learned, notes=[*whole.notes, told])


@dataclass(frozen=True)
class Ground:
    """What all strategies of a run share: the pool in an order drawn at random, its audit slice, and the budgets."""

    train: Questions
    audit: list[int]
    """Places of the random questions that budgets set aside, as many as the largest of them does."""
    pool: list[int]
    """Places of all others; those that the first round asks come first."""
    steps: list[tuple[int, int]]
    """Of each round: calls in all by its end, and how many of them are of audit rows."""
    exhausted: str
    """Why the last budget cannot be spent; empty where it can."""

    @classmethod
    def of(cls, train: Questions, knobs: Rounds) -> Ground:
        """The order is drawn by seed 0. A question that is there twice is asked once."""
        _, first = np.unique(train.key_N, axis=0, return_index=True)
        order = np.sort(first)[np.random.default_rng(0).permutation(len(first))].tolist()
        rows, most = len(order), knobs.budgets[-1]
        opening = knobs.start + int(knobs.audit * knobs.start / (1 - knobs.audit) + 1e-9)
        calls = sorted({min(rows, budget) for budget in (opening, *knobs.budgets) if budget >= opening})
        steps = [(budget, int(knobs.audit * budget + 1e-9)) for budget in calls]
        audit = steps[-1][1]
        exhausted = f"there are {rows:,} questions, and {most:,} calls were allowed" if rows < most else ""
        return cls(train, order[:audit], order[audit:], steps, exhausted)

    @property
    def rows(self) -> int:
        """Different questions there are."""
        return len(self.audit) + len(self.pool)

    @property
    def most(self) -> int:
        """Rows that the last round learns from, if nothing ends the rounds before."""
        return self.steps[-1][0] - self.steps[-1][1]


@dataclass
class Drawing:
    """One strategy at work: its rounds so far."""

    run: Run
    asked: AskedTeacher
    strategy: Strategy
    knobs: Rounds
    ground: Ground
    work: Path
    beside: str = ""
    """Of a strategy that is compared: its name, which its calls are charged under."""
    records: list[Tree] = field(default_factory=list)
    stopped: str = ""

    def drawn(self) -> Drawing:
        """Go through all rounds; those that are written down already are read."""
        with self.run.show.stage(f"rounds by {self.strategy.kind}", len(self.ground.steps), "rounds") as done:
            while not self.stopped:
                number = len(self.records)
                file = self.work / f"{number}.json"
                before = file.is_file()
                if not before:
                    write_json(file, self._round(number))
                self.records.append(read_json(file))
                self.stopped = self._why_stop()
                if not before:
                    told = {name: self.records[-1].get(name) for name in ("calls", "learned", "audit_accuracy")}
                    self.run.dir.event("round", strategy=self.strategy.kind, round=number, **told)
                done(1, before=before)
        return self

    def _round(self, number: int) -> Tree:
        """Choose, ask, train, look."""
        ground, (calls, audit_rows) = self.ground, self.ground.steps[number]
        audit, kept, cut = self._ask(taken(ground.train, ground.audit[:audit_rows]), "audit")
        wanted = 0 if cut else calls - len(audit) - sum(map(_calls_of, self.records))
        if number:
            before = self._students(kept, self.records)
            chosen = self._choose(before, wanted, number)
        else:
            before, chosen = None, {"chosen": ground.pool[:wanted]}
        whole = with_written(ground.train, [*self.records, chosen])
        known = [row for one in self.records for row in one["chosen"]]
        if not cut:
            there, kept, cut = self._ask(taken(whole, known + chosen["chosen"]), self._purpose(number), len(known))
            for name in PER_ROW & set(chosen):
                chosen[name] = chosen[name][: len(there) - len(known)]
        record = chosen | _answered(kept, taken(whole, chosen["chosen"]), chosen["chosen"], self.run.splits.classes)
        record |= {"cut": cut} if cut else {}
        record["calls"] = len(audit) + sum(map(_calls_of, [*self.records, record]))
        record |= self._paid(number)
        record["learned"] = len(learned_places([*self.records, record]))
        if not record["learned"]:
            raise RunError(
                f"the teacher answered none of the first {len(chosen['chosen']):,} questions",
                where="rounds.start",
                cure="Look at what it said: its prompt, or the way its answers are read, may be wrong",
            )
        return record | self._looked(kept, audit, self._students(kept, [*self.records, record]), before)

    def _ask(self, questions: Questions, purpose: str, known: int = 0) -> tuple[Questions, Kept, str]:
        """Ask these, or as many as a budget allows; the first `known` were asked before. Also why it was not all.

        Answers that are paid for cost nothing again, so the number is found by trying. Raises BudgetReached where there
        is nothing to go on with.
        """

        def tried(rows: int) -> Kept:
            return ask_answers(asking_only(self.run, questions.take(np.arange(rows))), self.asked, purpose)

        try:
            return questions, tried(len(questions)), ""
        except BudgetReached as error:
            self.run.clock.check()
            if not self.records and purpose == "audit":
                raise
            cut, low, high = error.what, known, len(questions) - 1
        while low < high:
            middle = (low + high + 1) // 2
            try:
                tried(middle)
                low = middle
            except BudgetReached:
                high = middle - 1
        return questions.take(np.arange(low)), tried(low), cut

    def _purpose(self, number: int) -> str:
        """What the calls of a round are charged as; all strategies share the first."""
        return f"round {number}{', ' if self.beside else ''}{self.beside}" if number else "start"

    def _paid(self, number: int) -> Tree:
        """What the ledger says all rounds so far have cost; nothing of a strategy that was spared what another had bought."""
        if self.run.ledger is None or self.beside:
            return {}
        purposes = ["audit", WRITE, *map(self._purpose, range(number + 1))]
        spent = [self.run.ledger.spent(purpose) for purpose in purposes]
        return {"usd": sum(one.usd for one in spent), "tokens": sum(one.tokens for one in spent)}

    def _students(self, kept: Kept, records: list[Tree]) -> Students:
        """Those that learned what was asked in these rounds."""
        learned = taken(with_written(self.ground.train, records), learned_places(records))
        count = self.strategy.students() if isinstance(self.strategy, Looking) else 1
        words = f"round {len(records) - 1} by {self.strategy.kind}"
        return Students.trained(self.run, self.asked, kept, learned, self.ground.most, count, words)

    def _choose(self, students: Students, wanted: int, number: int) -> Tree:
        """The next questions: their places, why each, what the students say of them now, and what was written for it."""
        before, strategy = with_written(self.ground.train, self.records), self.strategy
        gone = {row for one in self.records for row in one["chosen"]}
        pool = [row for row in self.ground.pool if row not in gone]
        seen = students.look(taken(before, pool), taken(before, learned_places(self.records)), strategy.wants)
        writing, most = strategy.plan(wanted) if isinstance(strategy, Writes) else (0, 0)
        places = strategy.choose(seen, wanted - writing - most, number).tolist()
        found: Tree = {}
        if isinstance(strategy, Writes) and writing:
            found = self._written(strategy, taken(before, [pool[place] for place in places]), writing, most)
            # What was not written, or too like a known text, is made up for out of the pool.
            count = wanted - found["write_calls"] - len(found["written"])
            places = strategy.choose(seen, count, number).tolist()
        found["chosen"] = [pool[place] for place in places]
        if isinstance(strategy, Looking):
            doubt_N = strategy.doubt(seen)
            found["why"] = [round(float(doubt_N[place]), 6) for place in places]
        found["chosen"] += range(len(before), len(before) + len(found.get("written", [])))
        if found["chosen"]:
            whole = with_written(self.ground.train, [*self.records, found])
            found["guessed"] = _names(self.run.splits.classes, students.said(taken(whole, found["chosen"])))
        return found

    def _written(self, strategy: Writes, chosen: Questions, calls: int, most: int) -> Tree:
        """What the teacher writes for this round; nothing where a budget does not allow it."""
        examples = [Example(text) for text in texts_in(chosen)]
        try:
            return written(self.run, self.asked, strategy, self.ground.train, self.records, examples, calls, most)
        except BudgetReached:
            self.run.clock.check()
            return {"written": [], "write_calls": 0, "duplicates": 0}

    def _looked(self, kept: Kept, audit: Questions, students: Students, before: Students | None) -> Tree:
        """How good the students are, on the audit slice by the teacher's word and on validation rows by their labels."""
        found: Tree = {"audit_rows": len(audit)}
        there = audit.take(np.flatnonzero(kept.answered(audit.key_N)))
        if len(there):
            top_N = _top(kept, there)
            right = int((students.said(there) == top_N).sum())
            found |= {
                "audit_answered": len(there),
                "audit_accuracy": right / len(there),
                "ci95": wilson(right, len(there)),
            }
            if before is not None:
                found["audit_accuracy_before"] = float((before.said(there) == top_N).mean())
        accuracy = students.accuracy(self.run.splits.validation)
        return found | ({} if accuracy is None else {"validation_accuracy": accuracy})

    def _why_stop(self) -> str:
        """Why the last round was the last; empty: go on. Target and plateau look at the audit slice alone."""
        stop, now = self.knobs.stop, self.records[-1]
        if "cut" in now:
            return str(now["cut"])
        rows = now.get("audit_answered", 0)
        if rows >= AUDITED and stop.target is not None and now["audit_accuracy"] >= stop.target:
            return f"the target of {stop.target:g} was reached on {rows:,} audit rows"
        if rows >= AUDITED and stop.plateau is not None and "audit_accuracy_before" in now:
            # The students of the round before are judged on the very rows of this one.
            gain = now["audit_accuracy"] - now["audit_accuracy_before"]
            if gain < stop.plateau:
                return f"a round gained {gain:+.3f} on {rows:,} audit rows, less than {stop.plateau:g}"
        if len(self.records) < len(self.ground.steps):
            return ""
        return self.ground.exhausted or "all budgets are spent"


def learned_places(records: list[Tree]) -> list[int]:
    """Places of what was asked and answered in these rounds, in the order of asking."""
    return [row for one in records for row in one["chosen"] if row not in set(one["refused"])]


def _calls_of(record: Tree) -> int:
    return len(record["chosen"]) + int(record.get("write_calls", 0))


def _answered(kept: Kept, questions: Questions, places: list[int], classes: list[Any]) -> Tree:
    """Which of these were refused, and what was said of the others."""
    there_N = kept.answered(questions.key_N)
    said_N = np.full(len(questions), -1)
    said_N[there_N] = _top(kept, questions.take(np.flatnonzero(there_N)))
    refused = [place for place, there in zip(places, there_N.tolist(), strict=True) if not there]
    return {"refused": refused, "answered": _names(classes, said_N)}


def _top(kept: Kept, questions: Questions) -> Array:
    """The class [N] the teacher chose for each, as a place among the classes."""
    found: Array = kept.reader(questions.key_N).all().argmax(1) if len(questions) else np.empty(0, np.int64)
    return found


def _names(classes: list[Any], said_N: Array) -> list[Any]:
    """Classes by name; None for what was not answered."""
    return [None if place < 0 else classes[place] for place in said_N.tolist()]
