"""The fourth task, without a bar: which prompts to put to a language model that writes text, at equal tokens.

The teacher is SmolLM2 behind the loopback endpoint, asked through the API client and the ledger; the prompts are short
questions of GSM8K. Every way of choosing begins with the same random quarter of its tokens, and then spends the rest:

    random            on prompts of the pool as they come
    student doubt     on those of the pool where a student of the first quarter is least sure of what it would say
    teacher_written   half on random ones, half on texts that the teacher writes after those of them the student did worst on
    reword            half on random ones, half on those in the teacher's other words

Tokens are those that the endpoint bills, of prompts and answers, and of calls that write prompts. They are counted as if
each way had asked alone; what is in the ledger is not asked again. Students start alike, and take as many steps.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import Row, Table
from benchmarks.socratic_prompt_students import (
    DOUBTED_TOKENS,
    KNOBS,
    Answer,
    doubts,
    surprise,
    trained,
    untrained,
    windows_of,
)
from benchmarks.socratic_sizes import PRICE, PromptSizes
from benchmarks.socratic_teacher import PORT
from stillroom.errors import RunError
from stillroom.evaluation.intervals import interval, row_means
from stillroom.kinds import parse
from stillroom.ledger import Limits, opened
from stillroom.loopback.serving import Loopback
from stillroom.models.language import LanguageModel
from stillroom.models.tokenizers import special_tokens
from stillroom.questions.choosing import most
from stillroom.questions.writing import Example, Known, Writes, read_texts
from stillroom.rows import Array
from stillroom.stages.round_writing import TEMPERATURE, WRITE
from stillroom.teachers.api_reading import Refusal, Sample
from stillroom.teachers.openai_api import OpenAIApi
from stillroom.transfer_set.decontaminate import overlaps

DOUBT, UNTRAINED = "student doubt", "nothing"
WAYS = ("random", "teacher_written", "reword", DOUBT)
START = 0.25
"""Share of the tokens that every way spends alike, on random prompts."""
WORST = 0.25
"""Share of the prompts asked meanwhile, those the student did worst on, that the teacher writes new ones after."""
WRITES: dict[str, Any] = {"variants": 4, "share": 0.5, "others": {"kind": "random"}}
MOST_LETTERS = 200
"""Of a prompt."""
LOT = 16
"""Asked together."""
TIMEOUT_S = 600.0
HABITS = (START, WORST, WRITES, MOST_LETTERS, DOUBTED_TOKENS, KNOBS.model_dump(mode="json"))
"""What the figures depend on beside the sizes."""
Tree = dict[str, Any]


def prompts_of(sizes: PromptSizes, data: Path) -> tuple[list[str], list[str]]:
    """The held-out prompts and the pool; no prompt of the pool shares a run of eight words with one that is held out."""
    lines = [
        line for part in ("train", "test") for line in (data / "gsm8k" / f"{part}.jsonl").read_bytes().splitlines()
    ]
    read = [json.loads(line)["question"] for line in lines]
    texts = list(dict.fromkeys(" ".join(text.split()) for text in read))
    short = [text for text in texts if len(text) <= MOST_LETTERS]
    order = np.random.default_rng(0).permutation(len(short)).tolist()
    drawn = [short[place] for place in order]
    held_out, rest = drawn[: sizes.held_out], drawn[sizes.held_out :]
    shared = {one.row for one in overlaps(rest, held_out)}
    return held_out, [text for row, text in enumerate(rest) if row not in shared][: sizes.pool]


@dataclass
class Bought:
    """What one way of choosing has had answered so far, and what that took."""

    answers: list[Answer] = field(default_factory=list)
    spent: int = 0
    """Tokens in all."""
    writing: int = 0
    """Tokens of calls that wrote prompts."""
    calls: int = 0
    written: int = 0
    """Prompts of the teacher's own that were answered."""
    duplicates: int = 0
    """Texts that were written and too like a known one."""

    def pay(self, said: Sample, limit: int) -> bool:
        """Count what the endpoint billed for this; False, and nothing is counted, where that would pass the limit."""
        tokens = said.tokens_in + said.tokens_out
        if self.spent + tokens > limit:
            return False
        self.spent += tokens
        self.calls += 1
        return True

    def take(self, prompts: Sequence[str], said: Sequence[Sample | Refusal], limit: int) -> int:
        """Pay for answers in order and keep them; how many of the prompts there was room for."""
        for place, (prompt, one) in enumerate(zip(prompts, said, strict=True)):
            if isinstance(one, Refusal):
                continue
            if not self.pay(one, limit):
                return place
            self.answers.append(heard(prompt, one))
        return len(prompts)


def heard(prompt: str, said: Sample) -> Answer:
    """What the teacher said, as it is learned from."""
    return Answer(prompt, said.text, said.finish_reason == "length")


def answered(teacher: Any, prompts: Sequence[str], sizes: PromptSizes) -> list[Sample | Refusal]:
    """What the teacher says to each, its likeliest words."""
    talks = [[{"role": "user", "content": prompt}] for prompt in prompts]
    found: list[Sample | Refusal] = teacher.chat(talks, "answer", temperature=0.0, max_tokens=sizes.answer_tokens)
    return found


def ask(bought: Bought, teacher: Any, prompts: Sequence[str], sizes: PromptSizes, limit: int) -> list[str]:
    """Have them answered in order until the next would pass the limit; those that are left."""
    start = 0
    while start < len(prompts):
        # No more at once than there is likely room for: what is answered beyond the limit serves nobody.
        room = LOT if not bought.calls else 1 + (limit - bought.spent) * bought.calls // bought.spent
        lot = prompts[start : start + min(LOT, room)]
        taken = bought.take(lot, answered(teacher, lot, sizes), limit)
        start += taken
        if taken < len(lot):
            return list(prompts[start:])
    raise RunError("the pool is asked before the tokens are spent", where="prompts", cure="Give it more prompts")


def write(
    bought: Bought, teacher: Any, strategy: Writes, after: Sequence[Example], known: Known,
    marks: Collection[str], sizes: PromptSizes,
) -> None:  # fmt: skip
    """Have new prompts written after these examples and answered, again and again until the next call would pass the budget.

    One with a special token, of `marks`, in it is left out: a student would read it as that.
    """
    for turn in count():
        before = bought.spent
        start = 0
        while start < len(after):
            some = after[start : start + min(LOT, 1 + (sizes.budget - bought.spent) // (2 * sizes.write_tokens))]
            start += len(some)
            said = teacher.chat(
                strategy.conversations(some, len(some)), WRITE, temperature=TEMPERATURE, max_tokens=strategy.max_tokens,
                sample=turn,
            )  # fmt: skip
            texts = [[] if isinstance(one, Refusal) else read_texts(one.text) for one in said]
            plain = [[text for text in each if not any(mark in text for mark in marks)] for each in texts]
            new = [known.take_new(each, strategy.likeness, strategy.variants) for each in plain]
            answers = iter(answered(teacher, [text for each, _ in new for text in each], sizes))
            for one, (each, duplicates) in zip(said, new, strict=True):
                if isinstance(one, Refusal):
                    continue
                if not bought.pay(one, sizes.budget):
                    return
                bought.writing += one.tokens_in + one.tokens_out
                bought.duplicates += duplicates
                had = len(bought.answers)
                taken = bought.take(each, [next(answers) for _ in each], sizes.budget)
                bought.written += len(bought.answers) - had
                if taken < len(each):
                    return
        if bought.spent == before:
            return


@dataclass
class Chooser:
    """The ways of choosing, for one seed: they share the first prompts, and a student that learned from the answers to them."""

    sizes: PromptSizes
    teacher: Any
    held_out: list[str]
    pool: list[str]
    folder: Path
    """Of the untrained student."""
    seed: int

    def __post_init__(self) -> None:
        order = np.random.default_rng(self.seed).permutation(len(self.pool)).tolist()
        self.start = Bought()
        limit = int(START * self.sizes.budget)
        self.rest = ask(self.start, self.teacher, [self.pool[place] for place in order], self.sizes, limit)
        self.student: LanguageModel = trained(self.folder, self.start.answers, self.sizes.steps, self.seed)

    def bought(self, way: str) -> Bought:
        """What this way buys for the whole budget."""
        found, rest = copy.deepcopy(self.start), self.rest
        if way == DOUBT:
            rest = [rest[place] for place in most(doubts(self.student, rest), len(rest), self.seed).tolist()]
        elif way != "random":
            strategy: Writes = parse("strategy", {"kind": way, "max_tokens": self.sizes.write_tokens, **WRITES})
            limit = self.sizes.budget - int(strategy.share * (self.sizes.budget - found.spent))
            rest = ask(found, self.teacher, rest, self.sizes, limit)
            after = self._after(strategy, found.answers[len(self.start.answers) :])
            known, marks = Known([*self.held_out, *self.pool]), special_tokens(self.student.tokenizer)
            write(found, self.teacher, strategy, after, known, marks, self.sizes)
        ask(found, self.teacher, rest, self.sizes, self.sizes.budget)
        return found

    def _after(self, strategy: Writes, answers: Sequence[Answer]) -> list[Example]:
        """What is written after, of what was just asked: for a strategy that looks at mistakes the worst, worst first."""
        bits_N, tokens_N = surprise(self.student, windows_of(self.student, answers))
        order = most(bits_N / np.maximum(tokens_N, 1), len(answers), self.seed).tolist()
        asked = [Example(one.prompt) for one in answers]
        worst = [asked[place] for place in order[: max(1, round(WORST * len(answers)))]]
        return strategy.after(worst, asked)


def knobs(url: str, sizes: PromptSizes) -> OpenAIApi:
    """How the teacher at this address is asked; a seed is sent, so that a server begun anew says the same."""
    tree = {
        "kind": "openai_api", "task": "reasoning", "model": "loopback", "base_url": url, "max_tokens": sizes.answer_tokens,
        "seed": 0, "timeout_s": TIMEOUT_S, "price": PRICE, "limits": {"concurrency": LOT},
    }  # fmt: skip
    return OpenAIApi.model_validate(tree)


def run_prompts(
    sizes: PromptSizes,
    home: Path,
    data: Path,
    known: dict[tuple[str, int], Tree],
    append: Callable[[str, int, Tree], None],
) -> Row:
    """All students that are not in `known` yet, then the table."""
    wanted = [(UNTRAINED, 0), *((way, seed) for seed in range(sizes.seeds) for way in WAYS)]
    if any(one not in known for one in wanted):
        held_out, pool = prompts_of(sizes, data)
        folder = untrained(sizes, home)
        mind = {"kind": "language", "model": sizes.model, "at_once": LOT}
        with Loopback({"mind": mind, "price": PRICE}, port=PORT) as url:
            asked = knobs(url, sizes).build(home, [home], [])
            with opened(home / "ledger.sqlite", "prompts", Limits()) as ledger:
                _judge_all(sizes, asked.charge(ledger), held_out, pool, folder, known, append)
    return Row({}, {"prompts": table(sizes, known)})


def _judge_all(
    sizes: PromptSizes, teacher: Any, held_out: list[str], pool: list[str], folder: Path,
    known: dict[tuple[str, int], Tree], append: Callable[[str, int, Tree], None],
) -> None:  # fmt: skip
    said = zip(held_out, answered(teacher, held_out, sizes), strict=True)
    base = LanguageModel.load(folder, "causal")
    windows = windows_of(base, [heard(prompt, one) for prompt, one in said if isinstance(one, Sample)])

    def judge(name: str, seed: int, model: LanguageModel, facts: Tree) -> None:
        bits_N, tokens_N = surprise(model, windows)
        found = {"bits": np.round(bits_N, 4).tolist(), "tokens": tokens_N.tolist(), **facts}
        append(name, seed, found)
        known[name, seed] = found

    if (UNTRAINED, 0) not in known:
        judge(UNTRAINED, 0, base, {})
    for seed in range(sizes.seeds):
        missing = [way for way in WAYS if (way, seed) not in known]
        chooser = Chooser(sizes, teacher, held_out, pool, folder, seed) if missing else None
        for way in missing:
            assert chooser is not None
            started = time.monotonic()
            bought = chooser.bought(way)
            facts = {key: getattr(bought, key) for key in FACTS} | {"learned": len(bought.answers)}
            judge(way, seed, trained(folder, bought.answers, sizes.steps, seed), facts)
            one = known[way, seed]
            print(
                f"prompts {way} seed {seed}: {sum(one['bits']) / sum(one['tokens']):.4f} bits a token, "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )


FACTS = ("spent", "writing", "calls", "written", "duplicates")


def table(sizes: PromptSizes, known: dict[tuple[str, int], Tree]) -> Table:
    """Bits a token under each student, and the difference to random's, over the same prompts and seeds."""
    several = {
        name: [known[name, seed] for seed in range(1 if name == UNTRAINED else sizes.seeds)]
        for name in (UNTRAINED, *WAYS)
    }
    tokens_N = np.array(several[UNTRAINED][0]["tokens"], float)
    there = tokens_N > 0
    values = {name: np.array([one["bits"] for one in found])[:, there] for name, found in several.items()}
    drawn = row_means({**values, "tokens": tokens_N[None, there]})
    rate = {name: float(bits_SN.sum() / len(bits_SN) / tokens_N.sum()) for name, bits_SN in values.items()}
    rate_B: dict[str, Array] = {name: drawn[name] / drawn["tokens"] for name in values}
    lines: list[list[str | float]] = []
    for name, found in several.items():
        above_B = rate_B[name] - rate_B["random"]
        gain = "" if name == "random" else f"{rate[name] - rate['random']:+.3f} ({_ends(above_B, '+.3f')})"
        told = [
            f"{np.mean([one[key] for one in found]):,.0f}" if key in found[0] else "" for key in (*FACTS, "learned")
        ]
        lines.append([name, f"{rate[name]:.3f} ({_ends(rate_B[name], '.3f')})", gain, *told])
    heads = [
        "prompts chosen by", "bits a token", "above random's", "tokens spent", "of them writing", "calls", "written and answered",
        "too like a known one", "answers learned from",
    ]  # fmt: skip
    seeds = f"{sizes.seeds} seed{'s' if sizes.seeds > 1 else ''}"
    title = f"prompts: bits a token of a language model's answers to {int(there.sum()):,} held-out prompts, {seeds}"
    return Table(title, heads, lines, _note(sizes))


def _ends(value_B: Array, form: str) -> str:
    low, high = interval(value_B) or (float("nan"), float("nan"))
    return f"{low:{form}} to {high:{form}}"


def _note(sizes: PromptSizes) -> str:
    teacher = sizes.model.rpartition("/")[2].partition(".")[0]
    return (
        f"A task without a bar, told either way. The teacher is {teacher}, a language model behind the endpoint; the prompts are "
        f"questions of GSM8K of at most {MOST_LETTERS} letters, and none of the pool has a run of eight words of a held-out one. "
        f"Each way may spend {sizes.budget:,} tokens as the endpoint bills them: of prompts, of answers of at most "
        f"{sizes.answer_tokens} tokens, and of calls that write prompts. The first quarter goes to the same random prompts; of "
        f"the rest teacher_written and reword spend half on random ones too. The student is {sizes.layers} of the teacher's "
        f"layers and takes {sizes.steps} steps on the answers, whoever chose them; `{UNTRAINED}` is the student before. Judged "
        f"are the teacher's likeliest answers; below 0 is better than random. Intervals are of 95 %, paired, over prompts and "
        f"seeds together; few seeds underrate how far two random draws of prompts lie apart."
    )
