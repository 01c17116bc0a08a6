"""Rows as the JSON that is sent of them, kept: it is made anew only where what was read of a row is not what it was.

Reading and writing JSON is most of what a list costs, and nearly all rows of a list are as they were a moment ago. The row as
the database gives it is compared, so nobody has to say that it has changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from stillroom.service.door.routes import Text, json_of
from stillroom.service.rows.statements import Raw, Statement

MOST_BYTES, LONGEST_BYTES, VALUE_BYTES = 8 << 20, 1 << 16, 56
"""Of all that is kept of a kind, and of one row, a longer one being made each time; of a value beside its letters."""
AT_ONCE_BYTES = 1 << 18
"""Of rows whose JSON is made where the requests are read; for more there is a thread, as other requests would wait."""


class Fragments:
    """Of one kind of row, read with the same columns each time.

    `show` gives the objects that are shown of a row, as a function of nothing but the row and what else it is told.
    """

    def __init__(self, show: Callable[..., Sequence[Any]]) -> None:
        self._show = show
        self._kept = OrderedDict[Any, tuple[Raw, tuple[Any, ...], bytes]]()
        self._bytes = 0
        self._turn = threading.Lock()

    def of(self, statement: Statement, raw: Raw, *more: Any) -> bytes:
        """The objects of one row with commas between them; `more` goes on to `show`. The first column tells rows apart."""
        with self._turn:
            found = self._kept.get(raw[0])
            if found is not None and found[0] == raw and found[1] == more:
                self._kept.move_to_end(raw[0])
                return found[2]
        made = b",".join(map(json_of, self._show(statement.row(raw), *more)))
        self._keep(raw, more, made)
        return made

    def left(self, raws: Sequence[Raw]) -> int:
        """The bytes of rows of which nothing is kept: what making their JSON costs goes with them."""
        with self._turn:
            return sum(_size(raw, b"") for raw in raws if raw[0] not in self._kept)

    def _keep(self, raw: Raw, more: tuple[Any, ...], made: bytes) -> None:
        with self._turn:
            if (old := self._kept.pop(raw[0], None)) is not None:
                self._bytes -= _size(old[0], old[2])
            if _size(raw, made) > LONGEST_BYTES:
                return
            self._kept[raw[0]] = raw, more, made
            self._bytes += _size(raw, made)
            while self._bytes > MOST_BYTES:
                _, (oldest, _, its) = self._kept.popitem(last=False)
                self._bytes -= _size(oldest, its)


def _size(raw: Raw, made: bytes) -> int:
    """About what a row and its JSON take."""
    letters = sum(len(one) for one in raw if isinstance(one, str | bytes))
    return len(made) + letters + VALUE_BYTES * (len(raw) + 4)


def as_list(fragments: Sequence[bytes], ids: Sequence[str], has_more: bool = False) -> Text:
    """A list in its envelope, as lists.as_list has it; `ids` of what is in it."""
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    rest = json_of({"has_more": has_more, **ends})
    return Text(b'{"object":"list","data":[' + b",".join(fragments) + b"]," + rest[1:])
