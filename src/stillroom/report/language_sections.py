"""A language run's scorecard and details -> what its page shows: how soft targets were kept, positions, continuations.

Each function gives plain data for the template, or None where there is nothing to show. This file knows no HTML.
"""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

from stillroom.report import evidence, pictures, plots, svg
from stillroom.report import numbers as n
from stillroom.report.language_diagnosis import POOR_FIDELITY
from stillroom.report.language_words import SEEN, language_roles, masked, token
from stillroom.report.numbers import Stat, Tree
from stillroom.report.sections import Facts, facts_of
from stillroom.report.words import Role, roles

BESIDE = ("teacher", "student", "control")
SPACE, INSIDE = SEEN[" "], "##"
MOST_EXAMPLES, MOST_SAMPLES = 8, 6
MOST_CONTEXT, MOST_WRITTEN = 280, 700
"""Letters: of the text before a position its end is shown, of what a model wrote its start."""
PLAIN_EXAMPLE = 0.9
"""The position that explains soft targets is one where the teacher's first guess is right and holds less than this."""


def plain(details: Tree) -> Tree:
    """The details in the form that the other parts of a report read; whatever is not of the right kind is left out.

    curves        role -> {seed: points} becomes role -> a list of points for each seed
    gradient_norms role -> term -> values becomes the student's term -> values
    entropy       {mean, histogram: {edges, counts}} becomes {mean_nats, edges, counts}
    """
    curves = {
        str(role): [run for run in (runs.values() if isinstance(runs, dict) else runs) if isinstance(run, list)]
        for role, runs in (details.get("curves") or {}).items()
        if isinstance(runs, dict | list)
    }
    norms = details.get("gradient_norms") or {}
    if any(isinstance(value, dict) for value in norms.values()):
        norms = norms.get("student") or {}
    given = details.get("entropy") or {}
    histogram = given.get("histogram") if isinstance(given.get("histogram"), dict) else given
    return {
        **details,
        "curves": curves,
        "gradient_norms": {str(term): values for term, values in norms.items() if isinstance(values, list)},
        "entropy": {
            "mean_nats": given.get("mean", given.get("mean_nats")),
            "edges": (histogram or {}).get("edges"),
            "counts": (histogram or {}).get("counts"),
        },
    }


def kept(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """How the soft targets were kept: one of them, its size beside the whole, and what keeping it so lost."""
    stored = scorecard.get("transfer_set") or {}
    fidelity = stored.get("fidelity") or details.get("fidelity") or {}
    one = idea(scorecard, details, ident)
    charts = [*_sizes(stored, ident), *_lost(fidelity, ident)]
    further = [*_per_byte(details, stored, ident), *_unsure(scorecard, details, ident)]
    size, dense = n.number(stored.get("bytes_per_token")), n.number(stored.get("dense_bytes_per_token"))
    facts = _stored_facts(stored, fidelity)
    if not one and not charts and not further and not facts:
        return None
    return {
        "idea": one,
        "charts": charts,
        "further": further,
        "facts": facts,
        "vocabulary": n.decimal(dense / 2, 0) if dense else "",
        "kept": n.count(size) if size is not None else "",
        "dense": n.decimal(dense, 0) if dense else "",
        "share": n.percent(size / dense, 2) if size is not None and dense else "",
        "tail": _TAILS.get(str(stored.get("tail")), ""),
        "lost": n.stat(fidelity.get("kl")) is not None or bool(fidelity.get("by_source")),
    }


_TAILS = {
    "hidden": "The rest is kept as the teacher's last hidden state in a few bits for each of its main directions: with "
    "the teacher's output matrix, which is kept once, every probability follows from it.",
    "sample": "Of the rest a few tokens are drawn at random by their probability, so that on average nothing is left "
    "out.",
    "bucket": "Of the rest only the sum is kept.",
}


def _stored_facts(stored: Tree, fidelity: Tree) -> Facts:
    positions, size = n.number(stored.get("positions")), n.number(stored.get("bytes_per_token"))
    dense = n.number(stored.get("dense_bytes_per_token"))
    found = facts_of(
        stored,
        (
            ("rows", "windows of text", n.big),
            ("positions", "places the teacher spoke of", n.big),
            ("bytes_per_token", "kept for each", lambda value: f"{n.count(value)} bytes"),
            ("dense_bytes_per_token", "all probabilities would take", lambda value: f"{n.decimal(value, 0)} bytes"),
            ("shared_bytes", "kept once, for all of them", n.size_of),
            ("bytes", "all on disk", n.size_of),
        ),
    )
    if positions and dense and size is not None:
        found.append(("all probabilities on disk", n.size_of(positions * dense)))
    lost = {key: value.mean for key in ("kl", "total_variation", "bias") if (value := n.stat(fidelity.get(key)))}
    return found + facts_of(
        lost,
        (
            ("kl", "KL lost in keeping, in nats", n.significant),
            ("total_variation", "total variation lost", n.significant),
            ("bias", "bias by rank", n.significant),
        ),
    )


Figures = list[dict[str, Any]]


def _sizes(stored: Tree, ident: str) -> Figures:
    """The bytes of one answer, whole and as kept, to scale."""
    size, dense = n.number(stored.get("bytes_per_token")), n.number(stored.get("dense_bytes_per_token"))
    if size is None or not dense:
        return []
    ours, title = roles(BESIDE), "Bytes for one answer of the teacher, to scale"
    rows = [
        plots.Bar("Every probability, 16 bits each", f"{n.decimal(dense, 0)} bytes", Stat(dense), ours["teacher"]),
        plots.Bar("What was kept", f"{n.count(size)} bytes", Stat(size), ours["student"]),
    ]
    return [{"title": title, "chart": plots.bars(f"{ident}-bytes", title, rows), "note": ""}]


def _lost(fidelity: Tree, ident: str) -> Figures:
    """What keeping lost, by the source of the text, and on each slice of the test text."""
    sources = {str(name): found for name, found in (fidelity.get("by_source") or {}).items() if isinstance(found, dict)}
    if not sources and n.stat(fidelity.get("kl")):
        sources = {"all of it": fidelity}
    wanted = (
        (
            "kl",
            "KL(teacher, kept) in nats, by the text it was asked",
            POOR_FIDELITY,
            "0 would be exact; above 0.3 is too much. ",
        ),
        ("total_variation", "Share of probability on the wrong tokens, by the text", 1.0, "Total variation. "),
    )
    names = {"train": "Training text", "validation": "Validation text", "test": "Test text"}
    for name, found in (fidelity.get("by_slice") or {}).items():
        if isinstance(found, dict):
            sources[f"slice {name}"] = found
            names[f"slice {name}"] = f"Test text, {name}"
    charts = []
    for key, title, whole, note in wanted:
        rows = [
            plots.Bar(names.get(name, name), n.significant(value.mean), value, roles(BESIDE)["teacher"])
            for name, found in sources.items()
            if (value := n.stat(found.get(key))) and value.mean >= 0
        ]  # fmt: skip
        if rows:
            chart = plots.bars(f"{ident}-lost-{key.replace('_', '-')}", title, rows, whole)
            full = f"The whole width is {whole:g}." if max(row.value.mean for row in rows) <= whole else ""
            charts.append({"title": title, "chart": chart, "note": f"{note}{full}"})
    return charts


def _unsure(scorecard: Tree, details: Tree, ident: str) -> Figures:
    """How unsure the teacher was, place by place."""
    found = evidence.entropy(scorecard, details, ident)
    if not found:
        return []
    mean = f"As if each answer hesitated between {found['spread']} tokens, on average. " if found["spread"] else ""
    note = f"{mean}Near 0 the teacher is sure, and a soft target says no more than the text."
    return [{"title": "How unsure the teacher is", "chart": found["chart"], "note": note}]


def _per_byte(details: Tree, stored: Tree, ident: str) -> Figures:
    """What keeping loses at other sizes, where the run measured it."""
    points: dict[str, list[plots.Point]] = {}
    for entry in (details.get("fidelity") or {}).get("per_byte") or []:
        pair = (entry.get("bytes"), entry.get("kl")) if isinstance(entry, dict) else entry
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            continue
        size, lost = n.stat(pair[0]), n.stat(pair[1])
        if size and lost:
            name = str(entry.get("format") or "as kept") if isinstance(entry, dict) else "as kept"
            points.setdefault(name, []).append((size.mean, lost.mean))
    ours, others = roles(BESIDE)["student"], iter(roles([f"a{place}" for place in range(3)]).values())
    lines: list[plots.Runs] = []
    for name, line in points.items():
        role = ours if not lines else next(others, None)
        if role and len(line) > 1:
            lines.append(plots.Runs(Role(name, name, "", role.colour, role.shape), [sorted(line)]))
    if not lines:
        return []
    title, kept_bytes = "What other sizes would lose", n.number(stored.get("bytes_per_token"))
    chart = plots.curves(f"{ident}-per-byte", title, lines, "KL in nats", lambda v: f"{v:.3g}", "bytes for each token")
    note = f"This run kept {n.count(kept_bytes)} bytes." if kept_bytes is not None else ""
    return [{"title": title, "chart": chart, "note": note, "legend": evidence.legend(line.role for line in lines)}]


Guess = tuple[str, float]


def _guesses(example: Tree, model: str) -> list[Guess]:
    """The likeliest tokens of a model, as the reader sees them."""
    found = []
    for entry in (example.get("models") or {}).get(model) or []:
        if isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str):
            share = n.number(entry[1])
            if share is not None and 0 <= share <= 1:
                found.append((token(entry[0]), share))
    return sorted(found, key=lambda guess: -guess[1])[:5]


def _tokens(
    ident: str, title: str, role: Role, guesses: list[Guess], right: str, letters: int = 0, wide: float = 300.0
) -> Markup:
    """A bar for each guess; the token that really stands there has a dot. Names take the room of so many letters."""
    names, shares = [name for name, _ in guesses], [share for _, share in guesses]
    place = names.index(right) if right in names else None
    every, dot = list(range(len(names))), "the token in the text"
    return pictures.soft_bars(ident, title, [(role, shares)], names, every, place, wide, dot, letters)


def idea(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """One place in the text with what stands there and what the teacher says: the whole idea at a glance."""
    fit = []
    for place, example in enumerate(details.get("examples") or []):
        guesses, right = _guesses(example, "teacher"), token(example.get("next"))
        if len(guesses) > 1 and isinstance(example.get("next"), str) and right in [name for name, _ in guesses]:
            fits = guesses[0][0] == right and guesses[0][1] < PLAIN_EXAMPLE
            word = example["next"].strip().isalpha()
            fit.append((not (fits and word), not fits, -guesses[1][1], place, example, guesses, right))
    if not fit:
        return None
    *_, example, guesses, right = min(fit, key=lambda found: found[:4])
    text, teacher = Role("text", "The text", "", "ink"), roles(BESIDE)["teacher"]
    hard = [(name, float(name == right)) for name, _ in guesses]
    return {
        "context": _context(example),
        "next": _bare(right),
        "hard": _tokens(f"{ident}-hard", "What the text says", text, hard, right, wide=240.0),
        "soft": _tokens(f"{ident}-soft", "What the teacher says", teacher, guesses, right, wide=240.0),
        "says": ", ".join(f"{n.percent(share, 0)} “{_bare(name)}”" for name, share in guesses[:3]),
        "rest": _rest(guesses),
    }


def _bare(name: str) -> str:
    """A visible token without the sign of the space that it starts with."""
    return name[1:] if len(name) > 1 and name[0] == SPACE else name


def _lines(words: object) -> str:
    """Text without blanks around its line ends, and with at most one empty line in a row."""
    text = re.sub(r"[ \t]*\n[ \t]?", "\n", words) if isinstance(words, str) else ""
    return re.sub(r"\n{3,}", "\n\n", text)


def _context(example: Tree) -> dict[str, str]:
    """The text around a position: its end before it, the token that stands there, and what comes after if that is known."""
    before, after = _lines(example.get("context")).lstrip(), _lines(example.get("after")).rstrip()
    stands = token(example["next"]) if isinstance(example.get("next"), str) else ""
    cut = before if len(before) <= MOST_CONTEXT else f"…{before[-MOST_CONTEXT:]}"
    more = after if len(after) <= MOST_CONTEXT // 2 else f"{after[: MOST_CONTEXT // 2]}…"
    # Where a vocabulary keeps no spaces, as WordPiece does, they come back between words; ## goes on with a word.
    words = "after" in example and stands not in SEEN.values()
    gap = _bare(stands) != stands or (words and bool(cut) and not cut[-1].isspace() and not stands.startswith(INSIDE))
    apart = words and bool(more) and not more[0].isspace() and not more.startswith(INSIDE)
    return {
        "before": cut + " " * gap,
        "stands": _bare(stands).removeprefix(INSIDE) or stands,
        "after": " " * apart + more.removeprefix(INSIDE),
    }


def _rest(guesses: list[Guess]) -> str:
    left = 1 - sum(share for _, share in guesses)
    return f"all other tokens together {n.percent(left, 0 if left >= 0.0995 else 1)}" if left > 0.0005 else ""


def examples(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """Places in the text with the five likeliest tokens of teacher, student and control side by side."""
    models, cards = language_roles(scorecard.get("models", {})), list[dict[str, Any]]()
    for place, example in enumerate(details.get("examples") or []):
        right = token(example.get("next")) if isinstance(example.get("next"), str) else ""
        found = {key: guesses for key in BESIDE if key in models and (guesses := _guesses(example, key))}
        if not found or len(cards) == MOST_EXAMPLES:
            continue
        letters = max(len(pictures.short(name)) for guesses in found.values() for name, _ in guesses)
        columns = []
        for key, guesses in found.items():
            title = f"What the {models[key].title.lower()} expects"
            chart = _tokens(f"{ident}-place{place}-{key}", title, models[key], guesses, right, letters)
            missed = right and right not in [name for name, _ in guesses]
            notes = [*(["what came is not among its five"] if missed else []), _rest(guesses)]
            note = "; ".join(note for note in notes if note)
            columns.append({"role": models[key], "swatch": svg.swatch(models[key]), "chart": chart, "note": note})
        why = example.get("why") if isinstance(example.get("why"), str) else ""
        cards.append({"context": _context(example), "why": why, "columns": columns})
    return {"cards": cards, "masked": masked(scorecard)} if cards else None


def by_position(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """How the loss falls the more of a window a model has read."""
    given = details.get("nll_by_position") or {}
    lines = []
    for key, role in language_roles({str(name): None for name in given}).items():
        pairs = [(n.number(x), n.number(y)) for x, y in given[key] or []]
        line = [(x, y) for x, y in pairs if x is not None and y is not None]
        if len(line) > 1 and not role.variant_of:
            lines.append(plots.Runs(role, [line]))
    if not lines:
        return None
    chart = plots.curves(
        f"{ident}-positions",
        "Log loss by position in the window",
        lines,
        "log loss in nats",
        lambda v: f"{v:.3g}",
        "position in the window",
    )
    return {"chart": chart, "legend": evidence.legend(line.role for line in lines), "masked": masked(scorecard)}


def samples(scorecard: Tree, details: Tree) -> dict[str, Any] | None:
    """What each model wrote after the same prompts."""
    models, cards = language_roles(scorecard.get("models", {})), list[dict[str, Any]]()
    for sample in details.get("samples") or []:
        prompt = sample.get("prompt") if isinstance(sample.get("prompt"), str) else ""
        said = {key: text for key, text in (sample.get("models") or {}).items() if isinstance(text, str)}
        columns = [
            {
                "role": models[key],
                "swatch": svg.swatch(models[key]),
                "text": evidence.shortened(_lines(said[key].removeprefix(prompt)), MOST_WRITTEN) or "(nothing)",
            }
            for key in models
            if key in said and key in BESIDE
        ]
        if columns and len(cards) < MOST_SAMPLES:
            cards.append({"prompt": _context({"context": prompt})["before"], "columns": columns})
    return {"cards": cards} if cards else None
