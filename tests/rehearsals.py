"""Plans that share one real rehearsal, for tests of what does not depend on its findings: what is counted, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stillroom.stages import plan as planning
from stillroom.stages.dress_rehearsal import Rehearsed
from stillroom.stages.opening import Run


@contextmanager
def rehearsed_once(found: list[Rehearsed]) -> Iterator[None]:
    """What is found by the first plan that is made within, if `found` is empty, stands for all further ones."""
    really = planning.rehearsed

    def rehearsed(run: Run, alone: bool = False) -> Rehearsed:
        if not found:
            found.append(really(run, alone))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "rehearsed", rehearsed)
        yield
