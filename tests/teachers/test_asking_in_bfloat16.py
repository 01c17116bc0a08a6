"""A teacher of transformers is asked in float32, or in bfloat16 as somebody else, whose answers are kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.models import device
from stillroom.rows import Questions
from stillroom.teachers.transformers import Transformers
from tiny_language import write_model

WINDOWS = np.arange(1, 41, dtype=np.int32).reshape(2, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_model(tmp_path_factory.mktemp("teacher")))


def asked(folder: Path, **knobs: Any) -> Any:
    """The teacher, built as a run builds it."""
    return Transformers(model=str(folder), **knobs).build(folder, [folder], [])


def test_in_bfloat16_its_answers_are_anothers(folder: Path) -> None:
    questions = Questions.of({"ids": WINDOWS, "target": WINDOWS})
    exact, narrow = asked(folder), asked(folder, dtype="bfloat16")
    assert (exact.model.device.dtype, narrow.model.device.dtype) == ("float32", "bfloat16")
    assert exact.fingerprint != narrow.fingerprint
    assert narrow.fingerprint == asked(folder, dtype="bfloat16").fingerprint
    one, other = (teacher.answer(questions).log_probabilities_NC for teacher in (exact, narrow))
    assert 0 < np.abs(one - other).mean() < 0.1


@pytest.mark.parametrize("native", [False, True])
def test_auto_is_known_by_what_it_came_to(folder: Path, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gains_from_bfloat16", lambda name: native)
    monkeypatch.setattr(device, "WORTHWHILE_PARAMETERS", 0)
    expected = asked(folder, dtype="bfloat16" if native else "float32")
    found = asked(folder, dtype="auto")
    assert found.fingerprint == expected.fingerprint
    assert found.model.device == expected.model.device


def test_by_default_nothing_is_asked_anew(folder: Path) -> None:
    from stillroom.models.pretrained import fingerprint_of

    assert asked(folder).fingerprint == fingerprint_of(folder)
