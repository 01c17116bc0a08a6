"""New texts out of known ones: what a mind that looks labels up gives where it is asked to write.

Each is a walk from word to word, as they follow one another in the texts of one label, begun like the text it varies.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Mapping

from stillroom.loopback.minds import Asked, text_of
from stillroom.loopback.nearest import Nearest

COUNT = re.compile(r"\b(\d{1,3})\b")
MARKS = " \t-*•\"'`.0123456789)(:"
DEFAULT_COUNT, TRIES = 3, 20
AS_JSON = re.compile(r"\bjson\b", re.IGNORECASE)


class Writer:
    """Writes variants of labelled texts."""

    def __init__(self, known: Mapping[str, str], asked_by: str) -> None:
        self._known, self._asked_by = known, re.compile(asked_by, re.DOTALL)
        self._nearest = Nearest(known)
        self._after: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for text, label in known.items():
            words = text.split()
            for first, second in zip(words, [*words[1:], ""], strict=True):
                self._after[label][first].append(second)

    def is_asked(self, asked: Asked) -> bool:
        """True where the request asks for texts."""
        return self._asked_by.search(last_message(asked)) is not None

    def write(self, asked: Asked, chance: random.Random) -> str:
        """As many texts as the first number in the request says, a line each; a list of JSON where it says so."""
        message = last_message(asked)
        number = COUNT.search(message)
        count = int(number[1]) if number else DEFAULT_COUNT
        sources = self._sources(message)
        texts = [self._variant(sources[place % len(sources)], chance) for place in range(count)] if sources else []
        return json.dumps(texts, ensure_ascii=False) if AS_JSON.search(message) else "\n".join(texts)

    def _sources(self, message: str) -> list[str]:
        """The known texts in a message, line by line; the one most like it where there is none."""
        lines = [" ".join(line.strip(MARKS).split()) for line in message.splitlines()]
        found = [line for line in lines if line in self._known]
        found += [text for line in lines for text in re.findall(r'"([^"]+)"', line) if text in self._known]
        near = None if found else self._nearest.text(message)
        return found or ([] if near is None else [near])

    def _variant(self, source: str, chance: random.Random) -> str:
        after, words = self._after[self._known[source]], source.split()
        for _ in range(TRIES):
            written = words[: chance.randint(1, max(1, len(words) - 1))]
            while len(written) < 2 * len(words):
                word = chance.choice(after[written[-1]])
                if not word:
                    break
                written.append(word)
            if " ".join(written) not in self._known:
                break
        return " ".join(written)


def last_message(asked: Asked) -> str:
    """The last message of the user."""
    return next((text_of(one.get("content")) for one in reversed(asked.messages) if one.get("role") == "user"), "")
