"""Callers that come while others are answered are answered together: a model takes sixteen rows in little more time than one.

No thread of its own and no waiting for company. Who finds nobody at work answers for itself, and then for all who came
meanwhile one of these does: one caller alone waits for nothing but the model.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from stillroom.errors import StillroomError

Asked = TypeVar("Asked")
Said = TypeVar("Said")


class _Waiting(Generic[Asked, Said]):
    """A caller that somebody else answers, or that is told to answer next."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.woken = threading.Event()
        self.leads = False
        self.said: Said | None = None
        self.error: BaseException | None = None


class Batches(Generic[Asked, Said]):
    """`answer` gets what several callers asked, in order, and gives as many answers.

    `fits`: whether one can be answered together with those that are already chosen; `most`: how many are at most.
    """

    def __init__(
        self, answer: Callable[[list[Asked]], list[Said]], most: int,
        fits: Callable[[list[Asked], Asked], bool] = lambda chosen, one: True,
    ) -> None:  # fmt: skip
        self._answer, self._most, self._fits = answer, most, fits
        self._waiting: deque[_Waiting[Asked, Said]] = deque()
        self._lock = threading.Lock()
        self._busy = False
        self.batches = self.asked = 0

    def ask(self, one: Asked) -> Said:
        """The answer to one caller. Raises what answering it alone raises."""
        mine: _Waiting[Asked, Said] = _Waiting(one)
        with self._lock:
            waits = self._busy
            if waits:
                self._waiting.append(mine)
            self._busy = True
        if waits:
            mine.woken.wait()
        if not waits or mine.leads:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return mine.said  # type: ignore[return-value]

    def _lead(self, mine: _Waiting[Asked, Said]) -> None:
        """Answer oneself and those who wait, then let the next one do so."""
        together = [mine]
        try:
            with self._lock:
                left: deque[_Waiting[Asked, Said]] = deque()
                chosen = [mine.asked]
                while self._waiting:
                    other = self._waiting.popleft()
                    if len(chosen) < self._most and self._fits(chosen, other.asked):
                        together.append(other)
                        chosen.append(other.asked)
                    else:
                        left.append(other)
                self._waiting = left
                self.batches, self.asked = self.batches + 1, self.asked + len(chosen)
            self._answered(together)
        finally:
            with self._lock:
                following = self._waiting.popleft() if self._waiting else None
                self._busy = following is not None
            if following is not None:
                following.leads = True
                following.woken.set()
            for other in together[1:]:
                other.woken.set()

    def _answered(self, together: list[_Waiting[Asked, Said]]) -> None:
        """Give each its answer, or its error: what one of them asked wrongly is no fault of the others."""
        try:
            said = self._answer([one.asked for one in together])
        except StillroomError as error:
            if len(together) == 1:
                together[0].error = error
                return
            for one in together:
                self._answered([one])
        except BaseException as error:
            for one in together:
                one.error = error
            if not isinstance(error, Exception):
                raise
        else:
            for one, answer in zip(together, said, strict=True):
                one.said = answer
