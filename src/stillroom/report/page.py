"""A scorecard and its details -> one self-contained HTML page that opens offline: `render`, `render_panels`.

The page asks nothing of any server, and its content policy forbids it to. It reads without JavaScript; the one script
only switches the theme. What a part shows is made in sections.py and evidence.py, and for language models in
language_page.py, for those that reason in reasoning_page.py; how it looks is page.html, panel.html and their like, and page.css.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from stillroom.report import asking, evidence, further_tables, language_page, reasoning_page, sections
from stillroom.report import numbers as n
from stillroom.report.differences import differences
from stillroom.report.language_words import glossary_of
from stillroom.report.numbers import Tree
from stillroom.report.verdict import figures, verdict

HERE = Path(__file__).parent
Panel = tuple[str, str, Tree, Tree]
"""Heading, explanation, scorecard, details."""


def render(scorecard: Tree, details: Tree) -> str:
    """The report of one run."""
    panels = [_panel("p1", "", "", scorecard, details)]
    return _page(str(scorecard.get("name") or "Distillation"), "", panels, glossary_of([scorecard]))


def render_panels(title: str, intro: str, panels: Sequence[Panel]) -> str:
    """One page with the reports of several runs, each under its heading; the glossary stands once, at the end."""
    found = [
        _panel(f"p{place}", heading, explanation, scorecard, details)
        for place, (heading, explanation, scorecard, details) in enumerate(panels, 1)
    ]
    return _page(title, intro, found, glossary_of([scorecard for _, _, scorecard, _ in panels]))


def _panel(ident: str, heading: str, explanation: str, given: Tree, details: Tree) -> dict[str, Any]:
    scorecard = n.tidy(given)
    language = n.of_language(scorecard)
    head = {"id": ident, "heading": heading, "explanation": explanation, "language": language}
    if n.of_reasoning(scorecard):
        return {**head, "reasoning": True, **reasoning_page.contents(scorecard, details, ident)}
    return {
        **head,
        "reasoning": False,
        **(language_page.contents if language else _contents)(scorecard, details, ident),
    }


def _contents(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any]:
    """The parts of a classifier's report."""
    return {
        "verdict": verdict(scorecard),
        "few": sections.few_rows(scorecard),
        "figures": figures(scorecard),
        "table": sections.table(scorecard, details),
        "cast": sections.cast(scorecard, details),
        "differences": differences(scorecard, ident),
        "idea": evidence.idea(scorecard, details, ident),
        "unseen": further_tables.unseen(scorecard, ident),
        "slices": further_tables.slices(scorecard),
        "exported": further_tables.exported(scorecard),
        "rounds": asking.rounds(details, ident),
        "cascade": asking.cascade(scorecard),
        "asking": asking.spent(scorecard),
        "money": sections.money(scorecard, ident),
        "gap": sections.gap(scorecard, ident),
        "findings": sections.findings(scorecard, details),
        "beyond": evidence.beyond(scorecard, details, ident),
        "examples": evidence.examples(scorecard, details, ident),
        "training": evidence.training(scorecard, details, ident),
        "calibration": evidence.calibration(scorecard, details, ident),
        "sizes": evidence.sizes(scorecard, ident),
        "made": sections.made(scorecard, details),
    }


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(HERE)
    house = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return house.get_template("page.html")


def _page(title: str, intro: str, panels: list[dict[str, Any]], glossary: Sequence[tuple[str, str]]) -> str:
    from markupsafe import Markup

    script = (HERE / "page.js").read_text(encoding="utf-8")
    text: str = _template().render(
        title=title,
        intro=intro,
        panels=panels,
        glossary=glossary,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return text
