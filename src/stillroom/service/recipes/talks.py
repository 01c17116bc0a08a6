"""The rows of a source as conversations: lines of a file, or stored completions. What is none is left out with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillroom.service.data import completion_rows
from stillroom.service.data.conversations import Wrong, check
from stillroom.service.data.file_rows import file_path
from stillroom.service.data.jsonl import as_text, conversations
from stillroom.service.door.faults import ApiError
from stillroom.service.door.lists import Row
from stillroom.service.recipes.drafting import Rejected, Talk
from stillroom.service.recipes.soft import tokens_of
from stillroom.service.rows.database import Database
from stillroom.service.settings import Settings

MOST_BYTES = 128 << 20
"""Of a file of conversations that a job learns from, or is judged on; and letters of stored ones: a job holds them all."""
STORED = "distillation.source.stored_completions"


def of_file(settings: Settings, file_id: str) -> list[Talk]:
    """Of a file that was looked at when it came."""
    found = []
    for row in conversations(file_path(settings, file_id)):
        messages = [plain(message) for message in row["messages"]]
        answer = str(messages[-1]["content"]) if messages[-1]["role"] == "assistant" else None
        found.append(Talk(file_id, row["line"], messages, answer))
    return found


def of_stored(
    database: Database, settings: Settings, project_id: str, metadata: Mapping[str, str] | None, model: str | None,
    soft: bool = False,
) -> tuple[list[Talk], list[Rejected]]:  # fmt: skip
    """Stored completions that can be learned from, and the others; `soft`: with the log-probabilities that came with answers.
    Raises ApiError 403, and 400 where they are too many.
    """
    found: list[Talk] = []
    rejected: list[Rejected] = []
    letters = 0
    for row in completion_rows.matching(database, project_id, metadata, model):
        one = of_completion(row, soft)
        if isinstance(one, Rejected):
            rejected.append(one)
        else:
            found.append(one)
            letters += sum(len(message["content"]) for message in one.messages) + len(one.tokens or "")
        if letters > MOST_BYTES or len(found) + len(rejected) > settings.limits.file_rows:
            told = (
                f"These stored completions are more than {settings.limits.file_rows:,}, or have more than {MOST_BYTES:,} "
                "letters, and a job holds all of its rows; name metadata or a model that fewer of them have."
            )
            raise ApiError(400, told, param=STORED, code="too_much_stored")
    return found, rejected


def of_completion(row: Row, soft: bool = False) -> Talk | Rejected:
    """A stored completion as a conversation that ends with what was said."""
    choices, asked = row["response"].get("choices"), row["request"].get("messages")
    nothing = Talk(row["id"], 0, [], None)
    if not choices:
        return Rejected(nothing, "there is no answer in it")
    try:
        if check({"messages": asked}):
            return Rejected(nothing, "messages: the last one that was sent is an answer already")
    except Wrong as wrong:  # a teacher may take what no student can learn from
        return Rejected(nothing, str(wrong))
    ended = choices[0].get("finish_reason")
    if ended == "content_filter":
        return Rejected(nothing, f"the answer was broken off: its finish_reason is {ended}")
    said = plain({**choices[0]["message"], "role": "assistant"})
    tokens = tokens_of(choices[0]) if soft else None
    return Talk(row["id"], 0, [*map(plain, asked), said], said["content"], tokens, cut=ended == "length")


def plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Role and text, and `weight` where it is 0; a developer is a system by another name. A call of a tool has no text that
    a student could learn.
    """
    role = "system" if message["role"] == "developer" else message["role"]
    calls = message.get("tool_calls") or message.get("function_call")
    told = {"weight": 0} if message.get("weight") == 0 else {}
    return {"role": role, "content": "" if calls else as_text(message.get("content")) or "", **told}
