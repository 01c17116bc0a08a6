"""What a row of chat has to be before anything is learned from it: {"messages": [{"role", "content"}, ..]}."""

from __future__ import annotations

from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
MAY_BE_BLANK = ("system", "developer", "tool")
MOST_MESSAGES = 2048
OTHER_FORMS = {
    "prompt": "prompt and completion are an older form",
    "text": "a text and its label are a table",
    "preferred_output": "preferences cannot be learned here",
    "input": "an input and an output are another form",
}
FORM = 'write {"messages": [{"role": "user", "content": ".."}, {"role": "assistant", "content": ".."}]}'


class Wrong(ValueError):
    """What is wrong with a row, its place first: messages.1.role: .."""


def check(row: dict[str, Any]) -> bool:
    """True where the row's last message is an answer, False where it is a question to be answered. Raises Wrong."""
    messages = row.get("messages")
    if messages is None:
        other = next((words for name, words in OTHER_FORMS.items() if name in row), None)
        raise Wrong(f"messages: missing; {other}, {FORM}" if other else f"messages: missing; {FORM}")
    if not isinstance(messages, list):
        raise Wrong("messages: should be a list")
    if not messages:
        raise Wrong("messages: empty")
    if len(messages) > MOST_MESSAGES:
        raise Wrong(f"messages: {len(messages):,}, and {MOST_MESSAGES:,} are the most")
    for place, message in enumerate(messages):
        _message(f"messages.{place}", message)
    for name in ("tools", "functions"):
        if not isinstance(row.get(name, []), list):
            raise Wrong(f"{name}: should be a list")
    roles = [message["role"] for message in messages]
    if not {"user", "tool"} & set(roles):
        raise Wrong("messages: no message of the user, so there is nothing to answer")
    if roles[-1] in ("system", "developer"):
        raise Wrong("messages: the last one should be the assistant's answer, or the user's question")
    if roles[-1] == "assistant" and not {"user", "tool"} & set(roles[:-1]):
        raise Wrong("messages: the answer stands before the question")
    return bool(roles[-1] == "assistant")


def _message(at: str, message: Any) -> None:
    if not isinstance(message, dict):
        raise Wrong(f"{at}: should be an object with role and content")
    role = message.get("role")
    if role is None:
        raise Wrong(f"{at}.role: missing; it is one of {', '.join(ROLES)}")
    if not isinstance(role, str) or role not in ROLES:
        raise Wrong(f"{at}.role: {str(role)[:40]!r} is none of {', '.join(ROLES)}")
    calls = message.get("tool_calls")
    if calls is not None:
        _calls(f"{at}.tool_calls", role, calls)
    if message.get("content") is None:
        if not calls:
            raise Wrong(f"{at}.content: missing")
    else:
        _content(f"{at}.content", role, message["content"], bool(calls))
    name = message.get("name")
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= 64):
        raise Wrong(f"{at}.name: should be a text of 1 to 64 characters")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise Wrong(f"{at}.tool_call_id: missing; it says which call this is the result of")
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        raise Wrong(f"{at}.weight: is 0 or 1, and stands with the assistant's messages")


def _content(at: str, role: str, content: Any, has_calls: bool) -> None:
    if isinstance(content, list):
        for place, part in enumerate(content):
            if not isinstance(part, dict):
                raise Wrong(f"{at}.{place}: should be an object with type and text")
            if part.get("type") != "text":
                raise Wrong(f"{at}.{place}.type: {str(part.get('type'))[:40]!r}; only parts of type text can be used")
            if not isinstance(part.get("text"), str):
                raise Wrong(f"{at}.{place}.text: should be a text")
        blank = not any(part["text"].strip() for part in content)
    elif isinstance(content, str):
        blank = not content.strip()
    else:
        raise Wrong(f"{at}: should be a text, or a list of parts of type text")
    if blank and role not in MAY_BE_BLANK and not has_calls:
        raise Wrong(f"{at}: empty")


def _calls(at: str, role: str, calls: Any) -> None:
    if role != "assistant":
        raise Wrong(f"{at}: only the assistant calls tools")
    if not isinstance(calls, list) or not calls:
        raise Wrong(f"{at}: should be a list with at least one call")
    for place, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            raise Wrong(f"{at}.{place}: should have id, type and function")
        if not isinstance(function.get("name"), str) or not isinstance(function.get("arguments"), str):
            raise Wrong(f"{at}.{place}.function: should have a name, and arguments as a text of JSON")
