"""Of a round: the questions that a teacher writes. They stand behind the training rows, in the order of writing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from stillroom.errors import ModelError
from stillroom.kinds import AskedTeacher
from stillroom.questions.writing import Example, Known, Message, Writes, read_texts, texts_in, written_questions
from stillroom.rows import Questions, joined
from stillroom.stages.opening import Run
from stillroom.stages.paying import charged

WRITE = "write"
"""What calls are charged as that write questions."""
TEMPERATURE = 1.0
Tree = dict[str, Any]


def with_written(train: Questions, records: list[Tree]) -> Questions:
    """The training rows, and after them the questions that were written in these rounds."""
    texts = [text for one in records for text in one.get("written", [])]
    return joined(train, written_questions(train, texts)) if texts else train


def written(
    run: Run, asked: AskedTeacher, strategy: Writes, train: Questions, records: list[Tree], chosen: list[Example],
    calls: int, most: int,
) -> Tree:  # fmt: skip
    """New texts after what the students got wrong or what was chosen, at most so many: {"written", "write_calls", "duplicates"}.

    Raises BudgetReached, and ModelError for a teacher that cannot be talked to.
    """
    teacher: Any = charged(run, asked, WRITE)
    if not hasattr(teacher, "chat"):
        raise ModelError(
            f"a teacher of kind {run.recipe.teacher.kind} answers questions, and writes none", where="rounds.strategy",
            cure="Use a teacher of kind openai_api, or choose among the questions there are",
        )  # fmt: skip
    conversations = strategy.conversations(strategy.after(_asked_before(train, records), chosen), calls)
    # A model that takes no temperature would refuse one here too.
    heat = None if getattr(run.recipe.teacher, "temperature", None) == "unset" else TEMPERATURE
    said = _said(teacher, conversations, heat, strategy.max_tokens)
    texts = [text for one in said for text in read_texts(one.text if hasattr(one, "finish_reason") else "")]
    known = Known(texts_in(with_written(train, records)))
    new, duplicates = known.take_new(texts, strategy.likeness, most)
    return {"written": new, "write_calls": len(conversations), "duplicates": duplicates}


def _said(teacher: Any, conversations: list[list[Message]], heat: float | None, most_tokens: int) -> list[Any]:
    """What the teacher says in each; one that comes again is another sample, or the ledger would give its answer again."""
    came, lots = Counter[str](), dict[int, list[int]]()
    for place, one in enumerate(conversations):
        words = str(one)
        lots.setdefault(came[words], []).append(place)
        came[words] += 1
    said: dict[int, Any] = {}
    for sample, places in lots.items():
        some = [conversations[place] for place in places]
        answers = teacher.chat(some, WRITE, temperature=heat, max_tokens=most_tokens, sample=sample)
        said.update(zip(places, answers, strict=True))
    return [said[place] for place in range(len(conversations))]


def _asked_before(train: Questions, records: list[Tree]) -> list[Example]:
    """What the last round asked and was answered, with what the students had taken it for."""
    last, texts = records[-1], texts_in(with_written(train, records))
    guessed = last.get("guessed", [None] * len(last["chosen"]))
    lines = zip(last["chosen"], guessed, last["answered"], strict=True)
    return [Example(texts[place], taken_for, said) for place, taken_for, said in lines if said is not None]
