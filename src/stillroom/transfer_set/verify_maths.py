"""`math`: the same mathematics, by the maintained math-verify (extra `reasoning`) inside a child that can be killed.

math-verify's own limit is a signal that only Python code between two steps can see: 5^5^5^5^5 never takes such a step. So
it runs in children, warm and reused, under the kernel's limits of processor time and memory; one that is silent for too
long is killed and replaced. A comparison that ran out of any limit, and one in which a child died, is unsure and not wrong.

Numbers are compared here, by `numeric`, without a child; so are words. Nothing here knows what mathematics is.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from stillroom.errors import RecipeError, RunError
from stillroom.kinds import Verifier
from stillroom.rows import Verdict
from stillroom.transfer_set.answer_text import LONGEST, balanced, is_words, plain, same_text
from stillroom.transfer_set.plain_numbers import Number, read_number
from stillroom.transfer_set.verify import NO_GOLD, absent, same_number, told

START_S = 120.0
"""For a child to say that it is ready; it imports sympy."""
HANDED_ON = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
"""What a child is told of the environment: no keys."""
FIXED = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
RENEWED_AFTER = 2000
"""Comparisons of one child; sympy remembers what it met."""


class Maths(Verifier):
    """The same mathematics: numbers as `numeric` does, all else by math-verify both ways round, under limits."""

    kind: Literal["math"] = "math"
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Largest difference between plain numbers as a share of the gold answer; 0: none but that of rounding."""
    digits: int = Field(default=5, ge=0, le=100)
    """Significant digits that a rounded decimal needs to count as the number it was rounded from; fewer are unsure."""
    cpu_s: int = Field(default=5, ge=1, le=600)
    """Processor time of one comparison, in seconds; more is unsure."""
    wall_s: float = Field(default=30.0, gt=0, le=3600)
    """Time of one comparison on the clock, in seconds; more is unsure."""
    memory_mib: int = Field(default=2048, ge=512)
    """Address space of a child, in MiB; more is unsure."""
    workers: int = Field(default=1, ge=1, le=64)
    """Children that compare at the same time, where many answers are judged at once."""

    def verify(self, answer: str, gold: str | None) -> Verdict:
        return self.judge([answer], gold)[0]

    def judge(self, answers: Sequence[str | None], gold: str | None) -> list[Verdict]:
        given = [answer or "" for answer in answers]
        known: dict[str, Verdict] = {}
        for answer in dict.fromkeys(given):
            verdict = self._at_sight(answer, gold)
            if verdict is not None:
                known[answer] = verdict
        open_questions = [answer for answer in dict.fromkeys(given) if answer not in known]
        if open_questions:
            assert gold is not None
            asked = [_asked(answer, gold) for answer in open_questions]
            known |= dict(zip(open_questions, children(self).ask(asked), strict=True))
        return [known[answer] for answer in given]

    def check_gold(self, gold: str) -> Verdict:
        """Numbers and words can be read at sight; mathematics must be read, and equal itself, in a child."""
        if not plain(gold) or len(gold) > LONGEST or not balanced(plain(gold)):
            return Verdict("unsure", f"the gold answer {told(gold)} is " + ("cut off" if plain(gold) else "empty"))
        if read_number(gold) is not None or is_words(plain(gold)) or _is_choice(gold):
            return Verdict("accepted", "the same text")
        return children(self).ask([_asked(gold, gold)])[0]

    def _at_sight(self, answer: str, gold: str | None) -> Verdict | None:
        """The verdict where no child is needed; None where one is."""
        missing = absent(answer, gold)
        if missing is not None or gold is None:
            return missing or NO_GOLD
        if max(len(answer), len(gold)) > LONGEST:
            return Verdict("unsure", f"longer than {LONGEST:,} characters")
        said, wanted = read_number(answer), read_number(gold)
        if said is not None and wanted is not None:
            return same_number(said, wanted, self.tolerance, self.digits)
        bare = [re.sub(r"(?<=\d)[mglsh]$", "", plain(text)) for text in (answer, gold)]
        one, two = (read_number(text) for text in bare)
        if one is not None and two is not None and one.scaled == two.scaled:
            return Verdict("unsure", "the letter after the number may be a unit or an unknown")
        texts = [is_words(plain(text)) or _is_choice(text) for text in (answer, gold)]
        if same_text(answer, gold, case=not all(texts)) and balanced(plain(gold)):
            return Verdict("accepted", "the same text")
        if all(texts):
            return Verdict("rejected", f"{told(answer)} is not {told(gold)}")
        if any(texts) and not any(_is_choice(text) for text in (answer, gold)):
            return Verdict("unsure", f"{told(answer if texts[0] else gold)} is words and no mathematics")
        return None


def _is_choice(text: str) -> bool:
    """One letter, as of a question with choices; or of an unknown."""
    bare = plain(text).strip("() ")
    return len(bare) == 1 and bare.isalpha()


def _asked(answer: str, gold: str) -> dict[str, Any]:
    return {
        "gold": gold,
        "answer": answer,
        "gold_decimal": _decimal(read_number(gold)),
        "answer_decimal": _decimal(read_number(answer)),
    }


def _decimal(number: Number | None) -> str | None:
    """A number with digits after its point, as plain digits; None for all others."""
    if number is None or number.places is None or number.percent or number.scale != 1 or number.places > 50:
        return None
    digits = str(abs(int(number.value * 10**number.places))).rjust(number.places + 1, "0")
    return ("-" if number.value < 0 else "") + f"{digits[: -number.places]}.{digits[-number.places :]}"


class Child:
    """One warm process that compares, or none yet."""

    def __init__(self, cpu_s: int, wall_s: float, memory_mib: int) -> None:
        self.cpu_s, self.wall_s = cpu_s, wall_s
        module = "stillroom.transfer_set.maths_worker"
        self.command = [sys.executable, "-P", "-m", module, str(cpu_s), str(memory_mib)]
        self.process: subprocess.Popen[bytes] | None = None
        self.buffer = b""
        self.done = 0
        self.asked_at = 0.0
        """On the monotonic clock."""

    def send(self, asked: dict[str, Any]) -> None:
        """Hand it a comparison; a child is started where there is none. Raises RunError where none starts."""
        if self.process is None or self.process.poll() is not None or self.done >= RENEWED_AFTER:
            self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        self.done += 1
        self.asked_at = time.monotonic()
        with suppress(BrokenPipeError):  # it died this moment, as its reply will tell
            self.process.stdin.write(json.dumps(asked).encode() + b"\n")

    def start(self) -> None:
        """A new process, ready."""
        self.end()
        environment = {name: os.environ[name] for name in HANDED_ON if name in os.environ} | FIXED
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, stderr=nowhere, env=environment, bufsize=0
        )
        self.buffer, self.done = b"", 0
        if self.line(START_S) is None:
            status = self._status()
            self.end()
            raise RunError(
                "the child that compares mathematics does not start",
                where=f"exit status {status}",
                cure="Run it by hand to see why: python -m stillroom.transfer_set.maths_worker 5 2048",
            )

    def line(self, wait_s: float) -> bytes | None:
        """The next line it says; None where it says none in time, or ends."""
        assert self.process is not None
        assert self.process.stdout is not None
        until = time.monotonic() + wait_s
        while b"\n" not in self.buffer:
            left_s = until - time.monotonic()
            if left_s <= 0 or not select.select([self.process.stdout], [], [], left_s)[0]:
                return None
            read = os.read(self.process.stdout.fileno(), 65536)
            if not read:
                return None
            self.buffer += read
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    @property
    def left_s(self) -> float:
        """Of the time that its comparison may take."""
        return max(0.0, self.wall_s - (time.monotonic() - self.asked_at))

    def reply(self) -> Verdict | int:
        """Its verdict, unsure where it ran out of time; else the exit status of a child that died. Then it is gone."""
        line = self.line(self.left_s)
        if line is not None:
            found = json.loads(line)
            return Verdict(found["outcome"], found["reason"])
        status = self._status()
        self.end()
        if status is None:
            return Verdict("unsure", f"it takes longer than {self.wall_s:g} s")
        if status == -signal.SIGXCPU:
            return Verdict("unsure", f"it takes more than {self.cpu_s} s of processor time")
        return status

    def _status(self) -> int | None:
        """The exit status of a child whose output ended; None of one that still runs."""
        assert self.process is not None
        try:
            return self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kill it, whatever it does."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


class Children:
    """As many children as compare at the same time."""

    def __init__(self, workers: int, cpu_s: int, wall_s: float, memory_mib: int) -> None:
        if find_spec("math_verify") is None:
            raise RecipeError(
                "the verifier math needs math-verify, which is not installed", cure="make install EXTRAS=reasoning"
            )
        self.members = [Child(cpu_s, wall_s, memory_mib) for _ in range(workers)]

    def ask(self, asked: Sequence[dict[str, Any]]) -> list[Verdict]:
        """The verdicts, in order. Raises RunError where no child starts.

        A child may die by something that is not its comparison's doing, so that one is sent to a new child, once.
        """
        found: dict[int, Verdict] = {}
        waiting, busy, again = list(range(len(asked)))[::-1], dict[Child, int](), set[int]()
        while waiting or busy:
            for child in self.members:
                if waiting and child not in busy:
                    busy[child] = waiting.pop()
                    child.send(asked[busy[child]])
            child = self._next(list(busy))
            place, told = busy.pop(child), child.reply()
            if isinstance(told, Verdict):
                found[place] = told
            elif place in again:
                found[place] = Verdict("unsure", f"the child that compared it died twice (status {told})")
            else:
                again.add(place)
                waiting.append(place)
        return [found[place] for place in range(len(asked))]

    def _next(self, busy: list[Child]) -> Child:
        """The child that speaks first, else the one whose time is up first."""
        outputs = {child.process.stdout: child for child in busy if child.process and child.process.stdout}
        oldest = min(busy, key=lambda child: child.left_s)
        ready = select.select(list(outputs), [], [], oldest.left_s)[0]
        return outputs[ready[0]] if ready else oldest

    def end(self) -> None:
        """Kill all of them."""
        for child in self.members:
            child.end()


_POOLS: dict[tuple[Any, ...], Children] = {}


def children(maths: Maths) -> Children:
    """The children of these limits: the same ones again, so that they are warm. A forked process gets its own."""
    key = (os.getpid(), maths.workers, maths.cpu_s, maths.wall_s, maths.memory_mib)
    if key not in _POOLS:
        _POOLS[key] = Children(*key[1:])
    return _POOLS[key]


@atexit.register
def end_children() -> None:
    """Kill every child of this process; they would end by themselves when it does."""
    for key in [key for key in _POOLS if key[0] == os.getpid()]:
        _POOLS.pop(key).end()
