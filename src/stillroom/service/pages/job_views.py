"""What a job's page shows, gathered from the rows and from the files of its run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection, func, select

from stillroom.errors import StillroomError
from stillroom.rundir import MANIFEST, fingerprint, read_json
from stillroom.service.data.file_rows import LINKED
from stillroom.service.door.lists import Row
from stillroom.service.jobs import job_rows
from stillroom.service.jobs.event_rows import PREFIX
from stillroom.service.jobs.job_object import machine_usd, status_of, wanted_of
from stillroom.service.pages import charts
from stillroom.service.pages.typed import LABELS, field_of
from stillroom.service.pages.words import OVER, ROLES, mean
from stillroom.service.recipes.references import BUILTIN
from stillroom.service.rows.ids import is_id
from stillroom.service.rows.tables import events, jobs, models
from stillroom.service.settings import Settings
from stillroom.service.work.executor import LOG, RUN

MOST_MESSAGES, LOG_BYTES, MOST_EXAMPLES, MOST_LETTERS, MOST_JOBS = 30, 6000, 6, 600, 100
PHASES = {"asking": "Asking the teacher", "training": "Training", "evaluation": "Evaluating"}
EXAM = "evaluation"
TEST_ROWS = tuple(
    f"predictions/test.{name}" for name in ("keys.u8", "labels.i64", "window.i32", "place.i32", "target.i32")
)
"""In a run's evaluation: the test rows and what is right of each; of running text its windows and tokens."""
BESIDE = ("teacher", "student", "control")
FIGURES = (
    ("accuracy", "right answers", "share"), ("exact_match", "right answers", "share"),
    ("bits_per_byte", "bits a byte, fewer are better", "figure"), ("perplexity", "perplexity, less is better", "figure"),
)  # fmt: skip


def title(row: Row) -> str:
    """What a job is called."""
    return str(row["suffix"] or (row["recipe"] or {}).get("name") or row["id"])


def answered(row: Row) -> str:
    """Who answers a job's questions: "data" (the answers stand there), "paid" (a teacher paid by the call), else "here"."""
    teacher = (row["recipe"] or {}).get("teacher") or {}
    return {"recorded": "data", "openai_api": "paid"}.get(str(teacher.get("kind")), "here")


def is_judged_by_data(row: Row) -> bool:
    """What its teacher said in the data is also what counts as right; a recipe may hold right answers beside a teacher's."""
    return answered(row) == "data" and "recipe" not in wanted_of(row)


def to_mend(row: Row) -> dict[str, str]:
    """Of a job that failed: the label of the field that it was about, and where the form is; both empty where no form of a
    page asks for what this job was asked for.
    """
    wanted, file, chosen = wanted_of(row), str(row["training_file"]), dict[str, str]()
    stored = (wanted.get("source") or {}).get("stored_completions")
    metadata = list(((stored or {}).get("metadata") or {}).items())
    if len(metadata) > 1 or ("recipe" in wanted and not wanted.get("hold")):
        return {"field": "", "form": ""}
    if stored is not None:
        key, value = metadata[0] if metadata else ("", "")
        names = ("source", "stored_model", "stored_key", "stored_value")
        chosen = dict(zip(names, ("stored", stored.get("model") or "", key, value), strict=True))
    elif is_id(file, "file"):
        chosen = {"source": f"{'table' if 'recipe' in wanted else 'file'}:{file}"}
    field = LABELS.get(field_of(str((row["error"] or {}).get("param") or "")), "")
    return {"field": field, "form": f"/new?{urlencode(chosen)}" if chosen else "/new"}


def folder(settings: Settings, row: Row) -> Path:
    """A job's folder, by the id that this service gave it."""
    return settings.root / "jobs" / str(row["id"])


def listed(rows: Connection, project_id: str, most: int = MOST_JOBS) -> list[dict[str, Any]]:
    """A project's jobs, the newest first."""
    asked = select(jobs).where(jobs.c.project_id == project_id).order_by(jobs.c.number.desc()).limit(most)
    return [{**row, **in_words(rows, row)} for row in rows.execute(asked).mappings().all()]


def in_words(rows: Connection, row: Row) -> dict[str, Any]:
    """A job's title and state, and how many wait before it."""
    held = is_held(row)
    place = None if held else job_rows.position(rows, row)
    state = "ready" if held and row["status"] == job_rows.PAUSED else status_of(row)
    return {"title": title(row), "state": state, "position": place - 1 if place else None}


def is_held(row: Row) -> bool:
    """It was estimated, or is being so, and waits for somebody to start it."""
    held = bool(wanted_of(row).get("hold"))
    begun = bool((row["figures"] or {}).get("begun_at"))
    return held and not begun and row["status"] in (job_rows.VALIDATING, job_rows.PAUSED)


def view(rows: Connection, settings: Settings, row: Row) -> dict[str, Any]:
    """Everything but the results."""
    found = charts.lines(rows, row["id"])
    drawn = charts.chosen(found)
    wanted = (events.c.job_id == row["id"]) & (events.c.type == "message")
    asked = select(events).where(wanted).order_by(events.c.number.desc()).limit(MOST_MESSAGES)
    model = select(models.c.id).where((models.c.job_id == row["id"]) & (models.c.project_id == row["project_id"]))
    last = rows.execute(select(func.max(events.c.number)).where(events.c.job_id == row["id"])).scalar()
    ended = row["finished_at"] or time.time()
    return {
        **in_words(rows, row), "job": row, "to_mend": to_mend(row), "held": is_held(row), "over": row["status"] in OVER,
        "phases": _phases(row), "estimate": estimate(row["estimate"]), "chart": charts.chart(drawn),
        "undrawn": len(found) - len(drawn), "points": charts.table(drawn), "messages": rows.execute(asked).mappings().all(),
        "log": log_tail(folder(settings, row) / LOG),
        "model": rows.execute(model.where(models.c.deleted_at.is_(None))).scalar(),
        "answered": answered(row),
        "seconds": max(0.0, ended - row["created_at"]), "seen": f"{PREFIX}{last or 0}",
    }  # fmt: skip


def _phases(row: Row) -> list[dict[str, Any]]:
    found = []
    for name, words in PHASES.items():
        phase = (row["phases"] or {}).get(name) or {}
        total, done = phase.get("total") or 0, phase.get("done") or 0
        ended = row["status"] == "succeeded"
        share = 1.0 if ended or (total and done >= total) else done / total if total else 0.0
        found.append({"name": words, "done": done, "total": total, "share": share})
    return found


def estimate(kept: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Rows, calls, minutes, USD and sizes of an estimate, or why there is none; None before it was made.

    `teacher`: calls, tokens and USD of a teacher that is paid, each (low, high), None where not known; None where none is paid.
    """
    if not kept:
        return None
    names = {
        "rows": "training_rows", "calls": "teacher_calls", "minutes": "minutes", "disk_mib": "disk_mib",
        "memory_mib": "peak_memory_mib",
    }  # fmt: skip
    found = {
        ours: value if isinstance(value := kept.get(theirs), int | float) else None for ours, theirs in names.items()
    }
    ends = {
        name: (kept[f"teacher_{name}_low"], kept[f"teacher_{name}_high"]) if f"teacher_{name}_low" in kept else None
        for name in ("calls", "tokens", "usd")
    }
    return {
        **found,
        "usd": machine_usd(kept),
        "teacher": ends if ends["calls"] else None,
        "notes": kept.get("notes") or [],
        "why": kept.get("why"),
    }


def log_tail(path: Path) -> str:
    """The end of a log, from the beginning of a line."""
    try:
        with open(path, "rb") as file:
            whole = os.fstat(file.fileno()).st_size
            file.seek(max(0, whole - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return text if whole <= LOG_BYTES else text.partition("\n")[2]


def scorecard(settings: Settings, row: Row) -> dict[str, Any]:
    """A finished job's scorecard; empty where it has none."""
    return _read(folder(settings, row) / RUN / "scorecard.json")


def tested_on(settings: Settings, row: Row) -> str | None:
    """A digest of the rows that a finished job's student was tested on, and what is right there; None where it is not known.

    The run's manifest has one. Where it has none, as with reasoning, the same questions out of the same files are the same rows.
    """
    run = folder(settings, row) / RUN / EXAM
    sums = _read(run / MANIFEST).get("files") or {}
    if TEST_ROWS[0] in sums:
        classes = _read(run / "predictions" / "predictions.json").get("classes")
        return fingerprint([sums.get(name) for name in TEST_ROWS], classes)
    recipe = row["recipe"] or {}
    questions = recipe.get("questions") or {}
    source = questions.get("source")
    named = list(source.values()) if isinstance(source, dict) else [source]
    if not all(isinstance(one, str) and (LINKED.fullmatch(one) or BUILTIN.fullmatch(one)) for one in named):
        return None  # files that were drafted for this job alone
    return fingerprint(questions, (recipe.get("transfer_set") or {}).get("verify"))


def results(settings: Settings, row: Row) -> dict[str, Any]:
    """Figures of teacher, student and control, and some of their answers side by side."""
    card = scorecard(settings, row)
    found = card.get("models") or {}
    # Where the answers of the data are what is right too, a teacher that gave them is so by definition: it says nothing.
    by_data = is_judged_by_data(row)
    told = ("student", "control") if by_data else BESIDE
    # Its agreement is the same figure, unless its teacher is known by log-probabilities: what it said may not be the likeliest.
    is_same = by_data and not ((row["recipe"] or {}).get("teacher") or {}).get("top_log_probabilities")
    roles = [role for role in told if role in found]
    figures = next((one for one in FIGURES if any(mean(found[role], one[0]) is not None for role in roles)), None)
    shown = []
    for role in roles if figures else []:
        value = mean(found[role], figures[0])  # type: ignore[index]
        if value is not None:
            latency, size = mean(found[role], "latency_ms_p50"), found[role].get("size_bytes")
            shown.append({"role": role, "name": ROLES[role], "value": value, "latency_ms": latency, "size": size})
    details = _read(folder(settings, row) / RUN / EXAM / "details.json")
    return {
        "seeds": len(card.get("seeds") or []), "figures": shown, "figure_words": _words(figures, by_data),
        "by_data": by_data, "form": figures[2] if figures else "",
        "agreement": None if is_same else mean(found.get("student") or {}, "agreement"), "answers": answers(card, details),
        "cascade": _cascade(card), "has_report": (folder(settings, row) / RUN / "report.html").is_file(),
    }  # fmt: skip


def _words(figure: tuple[str, str, str] | None, by_data: bool) -> str:
    if figure is None:
        return ""
    return "answers as in the data" if by_data and figure[2] == "share" else figure[1]


def _cascade(card: Mapping[str, Any]) -> dict[str, float] | None:
    """Of a student that leaves questions to its teacher: the share it answers, and how often the whole differs from the teacher,
    as was allowed and on the test rows; None for another student.
    """
    found = card.get("cascade") or {}
    told = {"allowed": mean(found, "risk_allowed"), "risk": mean(found, "risk"), "coverage": mean(found, "coverage")}
    return {name: value for name, value in told.items() if value is not None} if None not in told.values() else None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except StillroomError:
        return {}  # the page says what the rows know; the report's link tells of the damage
    return found if isinstance(found, dict) else {}


def answers(card: Mapping[str, Any], details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Questions of the test with what each model answered."""
    found: list[dict[str, Any]] = []
    classes = (details.get("similarity") or {}).get("classes") or card.get("classes") or []
    for example in details.get("examples") or []:
        said = [(role, answer) for role in BESIDE if (answer := _likeliest(example, role, classes))]
        if said and len(found) < MOST_EXAMPLES:
            found.append(
                {"asked": _asked(example), "pixels": _pixels(example), "right": example.get("label"), "said": said}
            )
    for sample in details.get("samples") or []:
        texts = sample.get("models") or {}
        said = [(role, str(texts[role])[:MOST_LETTERS]) for role in BESIDE if isinstance(texts.get(role), str)]
        if said and len(found) < MOST_EXAMPLES:
            found.append(
                {"asked": str(sample.get("prompt") or "")[-MOST_LETTERS:], "pixels": None, "right": None, "said": said}
            )
    return found


def _likeliest(example: Mapping[str, Any], role: str, classes: list[Any]) -> str | None:
    shares = (example.get("probabilities") or {}).get(role)
    if not isinstance(shares, list) or len(shares) != len(classes):
        return None
    place = max(range(len(shares)), key=shares.__getitem__)
    return f"{classes[place]} ({100 * shares[place]:.0f} %)"


def _asked(example: Mapping[str, Any]) -> str:
    columns = example.get("columns") or {}
    if "context" in example and not columns:
        return str(example["context"])[-MOST_LETTERS:]
    if len(columns) == 1:
        return str(next(iter(columns.values())))[:MOST_LETTERS]
    return "\n".join(f"{name}: {value}" for name, value in list(columns.items())[:12])[:MOST_LETTERS]


def _pixels(example: Mapping[str, Any]) -> dict[str, Any] | None:
    """A picture's squares for SVG: (column, row, darkness)."""
    found = (example.get("image") or {}).get("pixels")
    flat = [value for row in found for value in row] if found and isinstance(found[0], list) else found
    side = math.isqrt(len(flat)) if flat else 0
    if not flat or side * side != len(flat) or not all(isinstance(value, int | float) for value in flat):
        return None
    high = max(*flat, 1e-9)
    squares = [(n % side, n // side, round(value / high, 2)) for n, value in enumerate(flat) if value > 0.02 * high]
    return {"side": side, "squares": squares}
