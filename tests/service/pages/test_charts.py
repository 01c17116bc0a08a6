"""Which points of which trainings a chart of losses draws."""

from __future__ import annotations

import time

from sqlalchemy import insert
from tests.service.test_job_rows import new_job

from stillroom.service.door.access import first_project
from stillroom.service.pages import charts
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import events


def drawn(database: Database, trainings: dict[str, int]) -> list[charts.Line]:
    """The lines of a job with so many steps of each training, told one training after the other."""
    project, job_id = first_project(database), new_job(database)
    told = [
        {
            "project_id": project, "job_id": job_id, "level": "info", "created_at": time.time(), "type": "metrics",
            "message": "", "data": {"step": step, "train_loss": 1 / step, "model": name},
        }
        for name, steps in trainings.items()
        for step in range(1, 1 + steps)
    ]  # fmt: skip
    with database.writing() as rows:
        rows.execute(insert(events), told)
    with database.reading() as rows:
        return charts.lines(rows, job_id)


def test_a_short_training_beside_a_long_one_is_drawn(database: Database) -> None:
    trainings = {"teacher 1 of 1": 10_000} | {f"student, seed {seed}": 8 for seed in range(5)}
    found = drawn(database, trainings)
    assert [line.name for line in found] == list(trainings)
    assert [len(line.points) for line in found[1:]] == [8] * 5
    assert 100 < len(found[0].points) <= charts.MOST_POINTS
    for line, steps in zip(found, trainings.values(), strict=True):
        assert line.points[-1][0] == steps, "the last is always drawn"
        gaps = {after[0] - before[0] for before, after in zip(line.points, line.points[1:], strict=False)}
        assert len(gaps) == 1


def test_no_training_is_lost_among_many(database: Database) -> None:
    found = drawn(database, {f"teacher {place} of 700": 3 for place in range(700)})
    assert len(found) == 700
    assert {len(line.points) for line in found} == {2}
    assert len(charts.chosen(found)) == charts.MOST_SERIES


def test_a_training_of_one_point_is_no_line(database: Database) -> None:
    assert [line.name for line in drawn(database, {"student, seed 0": 2, "control, seed 0": 1})] == ["student, seed 0"]
