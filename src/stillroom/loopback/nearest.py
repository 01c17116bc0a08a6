"""The known text that is most alike an unknown one: by the words they share, rare words counting for more."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping

WORD = re.compile(r"\w+")


class Nearest:
    """An index of labelled texts by their words."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._texts = list(known)
        self._labels = known
        self._holding: dict[str, list[int]] = defaultdict(list)
        self._sizes: list[float] = []
        bags = [set(WORD.findall(text.lower())) for text in self._texts]
        for place, bag in enumerate(bags):
            for word in sorted(bag):
                self._holding[word].append(place)
        self._worth = {word: math.log(1 + len(bags) / len(places)) for word, places in self._holding.items()}
        self._sizes = [math.sqrt(sum(self._worth[word] ** 2 for word in sorted(bag))) for bag in bags]

    def text(self, question: str) -> str | None:
        """The nearest text; None where no known text shares a word with the question."""
        scores: dict[int, float] = defaultdict(float)
        for word in sorted(set(WORD.findall(question.lower()))):
            for place in self._holding.get(word, ()):
                scores[place] += self._worth[word] ** 2
        if not scores:
            return None
        return self._texts[max(scores, key=lambda place: (scores[place] / self._sizes[place], -place))]

    def label(self, question: str) -> str | None:
        """The label of the nearest text."""
        found = self.text(question)
        return None if found is None else self._labels[found]
