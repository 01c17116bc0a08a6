"""What the models of a language run are, in words; its glossary; and tokens as a reader can see them.

This file knows no number and no chart.
"""

from __future__ import annotations

from dataclasses import replace

from stillroom.report.numbers import Tree, of_reasoning
from stillroom.report.reasoning_words import REASONING_GLOSSARY
from stillroom.report.words import GLOSSARY, Role, roles

LANGUAGE_GLOSSARY: tuple[tuple[str, str], ...] = (
    GLOSSARY[0],
    (
        "Language model",
        "A program that reads text and says, at each place, how likely each token is to stand there. Picking a likely "
        "token, adding it to the text and asking again is how it writes.",
    ),
    (
        "Token",
        "A word or a piece of one. A model knows a fixed list of them, its vocabulary, of tens of thousands.",
    ),
    ("Teacher", "The large model that is asked. It reads the text once; it does not change."),
    ("Student", "The small model that learns from what the teacher said, and is what you keep."),
    (
        "Soft targets",
        "What the teacher says at one place: a probability for every token of its vocabulary. The text itself says only "
        "which token came. A soft target says what else could well have come.",
    ),
    (
        "Temperature",
        "A number T that the teacher's scores are divided by before they become probabilities. At T = 1 they are what "
        "the teacher says; a higher T lifts the small ones.",
    ),
    (
        "Control",
        "The same small model trained on the text alone, with the same steps and seeds. Without it nobody could tell "
        "whether the teacher helped.",
    ),
    (
        "Log loss",
        "How surprised a model is by the token that really stands there: minus the logarithm of the probability that it "
        "gave it, in nats. 0 is never surprised.",
    ),
    (
        "Perplexity",
        "The same as a count: at a perplexity of 20 a model is as unsure as if it had to choose among 20 equally likely "
        "tokens each time.",
    ),
    (
        "Bits per byte",
        "The same spread over the bytes of the text and counted in bits, so that models with different tokens can be "
        "compared. 8 would be knowing nothing.",
    ),
    (
        "KL divergence",
        "How far one set of probabilities is from another, in nats: what is lost by believing the second where the first "
        "is true. 0 means they are the same.",
    ),
    (
        "Total variation",
        "The share of probability that stands on the wrong token: 0 means the same, 1 means nothing in common.",
    ),
    (
        "95% interval",
        "The range that holds the true value in 95 of 100 such experiments, drawn anew over seeds and test documents. "
        "Where the interval of a difference includes 0, the difference may be chance.",
    ),
)  # fmt: skip
_MEANINGS = {
    "teacher": "Large, and dear to run. It reads the text once and says, at each place, how likely each token of its "
    "vocabulary is. From that the student learns.",
    "student": "Small. It learns from the teacher's soft targets: how likely the teacher finds each token at each place, "
    "not only which one stands in the text.",
    "control": "The student's twin without a teacher: the same network, steps and seeds, on the text alone. What the "
    "student has over it is what the teacher gave.",
    "hard_teacher": "The student's twin that hears only the teacher's likeliest token at each place. What the student "
    "has over it is what the soft part of the soft targets gave.",
    "before": "The student as it was before its first step. What the student has over it is what it learned here.",
}


def language_roles(models: Tree) -> dict[str, Role]:
    """The roles of a language run, said in its words."""
    found = roles(models)
    return {key: replace(role, meaning=_MEANINGS[key]) if key in _MEANINGS else role for key, role in found.items()}


def masked(scorecard: Tree) -> bool:
    """Whether the models fill in hidden tokens; else they say which token comes next."""
    return scorecard.get("architecture") == "masked"


def glossary_of(scorecards: list[Tree]) -> tuple[tuple[str, str], ...]:
    """The glossary of a page with these runs; where both kinds stand on it, a term is explained once."""
    of_language = [scorecard.get("task") == "language" for scorecard in scorecards]
    if of_language and all(of_language):
        return LANGUAGE_GLOSSARY
    reasoning = [of_reasoning(scorecard) for scorecard in scorecards]
    if reasoning and all(reasoning):
        return REASONING_GLOSSARY
    terms = {term for term, _ in GLOSSARY}
    found = GLOSSARY + tuple(pair for pair in LANGUAGE_GLOSSARY if any(of_language) and pair[0] not in terms)
    return found + tuple(pair for pair in REASONING_GLOSSARY if any(reasoning) and pair[0] not in terms)


SEEN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "↵"}


def token(value: object) -> str:
    """A token as it can be seen: spaces and line ends have signs, and what cannot be printed is �."""
    words = value if isinstance(value, str) else ""
    seen = "".join(SEEN.get(letter, letter if letter.isprintable() else "�") for letter in words)
    return seen or "(empty)"
