"""A language run's scorecard and details -> what language.html shows, part by part."""

from __future__ import annotations

from typing import Any

from stillroom.report import evidence, further_tables, sections, svg
from stillroom.report import language_sections as parts
from stillroom.report.differences import differences
from stillroom.report.language_diagnosis import LANGUAGE_RULES
from stillroom.report.language_verdict import figures, verdict
from stillroom.report.language_words import language_roles, masked
from stillroom.report.numbers import Tree
from stillroom.report.on_policy import on_policy
from stillroom.report.sections import words_of


def contents(scorecard: Tree, given: Tree, ident: str) -> dict[str, Any]:
    """The parts of one run's report; `scorecard` is tidy, `given` are the details as they were written."""
    details = parts.plain(given)
    about = details.get("about") or {}
    return {
        "verdict": verdict(scorecard),
        "figures": figures(scorecard),
        "masked": masked(scorecard),
        "table": sections.table(scorecard, details),
        "cast": [
            {"role": role, "swatch": svg.swatch(role), "meaning": role.meaning, "made_of": words_of(about.get(key))}
            for key, role in language_roles(scorecard.get("models", {})).items()
        ],
        "differences": differences(scorecard, ident),
        "gap": sections.gap(scorecard, ident),
        "slices": further_tables.slices(scorecard),
        "kept": parts.kept(scorecard, details, ident),
        "training": evidence.training(scorecard, details, ident),
        "on_policy": on_policy(scorecard, details, ident),
        "by_position": parts.by_position(scorecard, details, ident),
        "examples": parts.examples(scorecard, details, ident),
        "samples": parts.samples(scorecard, details),
        "findings": sections.findings(scorecard, details, LANGUAGE_RULES),
        "money": sections.money(scorecard, ident),
        "exported": further_tables.exported(scorecard),
        "made": {**sections.made(scorecard, details), "transfer": [], "cost": []},
    }
