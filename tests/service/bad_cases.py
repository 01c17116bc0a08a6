"""Files and bodies that must be refused: a few faults, each in several places. `Case.wrong` says what a good refusal is.

made = prepare(served)                       # files of the wrong kind, expired, and another project's
for case in bad_cases():
    fault = case.wrong(case.send(http, made))    # empty where it was refused as it should be
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from benchmarks.service_process import Served
from sqlalchemy import update

from stillroom.service.rows.tables import files

BOUNDARY = "a-line-between"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
MIB = 1 << 20
SCATTER = 0.6180339887
"""Multiples of it lie evenly between 0 and 1."""
REFUSED = (400, 403, 404, 413, 415)


@dataclass(frozen=True)
class Case:
    """One request that is wrong. `param`: what the refusal names; `line`: the line of the file it has to say."""

    name: str
    path: str
    body: bytes
    content_type: str
    param: str
    line: int = 0

    def send(self, http: httpx2.Client, made: Mapping[str, str] | None = None) -> httpx2.Response:
        """Ask; `made` gives the ids for names like <foreign> in the body and the path."""
        body, path = self.body, self.path
        for name, value in (made or {}).items():
            body, path = body.replace(f"<{name}>".encode(), value.encode()), path.replace(f"<{name}>", value)
        return http.post(path, content=body, headers={"content-type": self.content_type})

    def wrong(self, answer: httpx2.Response) -> str:
        """What is wrong with how it was refused; empty for a refusal with message, param and line."""
        if answer.status_code not in REFUSED:
            return f"{answer.status_code}: {answer.text[:200]}"
        try:
            error = answer.json()["error"]
            message, param, kind = error["message"], error["param"], error["type"]
        except (ValueError, KeyError, TypeError):
            return f"no envelope: {answer.text[:200]}"
        if not message or not kind or "Traceback" in message:
            return f"no message: {error}"
        if not str(param or "").startswith(self.param):
            return f"param is {param!r}, and {self.param!r} is at fault: {message}"
        if self.line and f"line {self.line}" not in message:
            return f"line {self.line} is not named: {message}"
        return ""


def bad_cases() -> list[Case]:
    """All of them, the same each time, more than 500; mixed, so that the first 300 are of every sort."""
    cases = [case for sort in (_lines, _rows, _whole_files, _forms, _bodies, _fields) for case in sort()]
    return [cases[place] for place in sorted(range(len(cases)), key=lambda place: place * SCATTER % 1)]


def prepare(served: Served) -> dict[str, str]:
    """What the cases name: files that are no file to train on, and an upload and a project that are there."""
    own, other = served.http(), served.http(served.key(project=served.project("of others")))
    good = "\n".join(json.dumps(row) for row in good_rows(20)).encode()

    def file(http: httpx2.Client, purpose: str) -> str:
        answer = http.post("/v1/files", data={"purpose": purpose}, files={"file": ("a.jsonl", good)})
        answer.raise_for_status()
        return str(answer.json()["id"])

    made = {
        "good": file(own, "fine-tune"), "wrong-purpose": file(own, "user_data"),
        "foreign": file(other, "fine-tune"), "expired": file(own, "fine-tune"), "deleted": file(own, "fine-tune"),
    }  # fmt: skip
    own.delete(f"/v1/files/{made['deleted']}").raise_for_status()
    with served.rows.writing() as rows:
        rows.execute(update(files).where(files.c.id == made["expired"]).values(expires_at=int(time.time()) - 1))
    announced = {"bytes": 10, "filename": "a.jsonl", "purpose": "fine-tune", "mime_type": "text/jsonl"}
    made["upload"] = own.post("/v1/uploads", json=announced).json()["id"]
    made["project"] = own.get("/api/projects").json()["data"][0]["id"]
    return made


def good_rows(count: int) -> list[dict[str, Any]]:
    """Rows that nothing is wrong with."""
    return [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(count)
    ]


def form(data: bytes, purpose: str = "fine-tune", filename: str = "a.jsonl", field: str = "file") -> bytes:
    """A form with a file, as a client sends it."""
    return b"".join([text_part("purpose", purpose.encode()), file_part(data, filename, field), end()])


def text_part(name: str, value: bytes) -> bytes:
    """A field of a form."""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"


def file_part(data: bytes, filename: str = "a.jsonl", field: str = "file") -> bytes:
    """A file of a form."""
    head = f'Content-Disposition: form-data; name="{field}"; filename="{filename}"'
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


def end() -> bytes:
    """The end of a form."""
    return f"--{BOUNDARY}--\r\n".encode()


def _said(content: str, more: str = "") -> bytes:
    return f'{{"messages": [{{"role": "user", "content": {content}{more}}}, {{"role": "assistant", "content": "a"}}]}}'.encode()


LINES: dict[str, bytes] = {
    "not JSON": b"hello there",
    "cut short": _said('"q"')[:-3],
    "single quotes": _said("'q'"),
    "comma at the end": _said('"q"')[:-2] + b",]}",
    "Python words": _said("None"),
    "a name without quotes": b"{messages: []}",
    "a comment": b"// " + _said('"q"'),
    "two objects": _said('"q"') + _said('"q"'),
    "something after it": _said('"q"') + b" # good",
    "a tab in a text": _said('"a\tb"'),
    "NaN": _said('"q"', ', "score": NaN'),
    "Infinity": _said('"q"', ', "score": Infinity'),
    "minus Infinity": _said('"q"', ', "score": -Infinity'),
    "a huge float": _said('"q"', ', "score": 1e999'),
    "a huge integer": _said('"q"', f', "score": {"9" * 5000}'),
    "a leading zero": _said('"q"', ', "score": 01'),
    "a doubled name": b'{"messages": [], ' + _said('"q"')[1:],
    "a doubled name inside": _said('"q"', ', "content": "other"'),
    "a NUL byte": _said('"a\x00b"'),
    "a NUL escaped": _said('"a\\u0000b"'),
    "half a surrogate": _said('"\\ud83d"'),
    "halves in the wrong order": _said('"\\ude00\\ud83d"'),
    "a byte of Latin-1": _said('"q"').replace(b"q", b"caf\xe9"),
    "quotes of Windows": _said('"q"').replace(b"q", b"\x93hello\x94"),
    "an overlong byte": _said('"q"').replace(b"q", b"\xc0\xaf"),
    "half a character": _said('"q"').replace(b"q", b"\xe2\x82"),
    "a surrogate as bytes": _said('"q"').replace(b"q", b"\xed\xa0\x80"),
    "a mark before it": b"\xef\xbb\xbf" + _said('"q"'),
    "65 arrays deep": _said('"q"', f', "x": {"[" * 65}{"]" * 65}'),
    "2,000 objects deep": _said('"q"').replace(b'"q"', b'{"a": ' * 2000 + b"1" + b"}" * 2000),
    "100,000 arrays open": b"[" * 100_000,
    "a list": b'[{"role": "user"}]',
    "a text": b'"messages"',
    "a number": b"42",
    "null": b"null",
    "true": b"true",
    "longer than a line may be": _said('"' + "x" * MIB + '"'),
}  # fmt: skip
"""Lines that are damaged: the file is refused whole."""


def _row(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


ASKED, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "no messages": ("messages", {}),
    "messages is a text": ("messages", {"messages": "q"}),
    "messages is an object": ("messages", {"messages": ASKED}),
    "messages is empty": ("messages", _row()),
    "messages is null": ("messages", {"messages": None}),
    "a message is a text": ("messages.0", _row("q", ANSWER)),
    "a message is null": ("messages.1", _row(ASKED, None)),
    "no role": ("messages.0.role", _row({"content": "q"}, ANSWER)),
    "an unknown role": ("messages.0.role", _row({"role": "human", "content": "q"}, ANSWER)),
    "a role in capitals": ("messages.0.role", _row({"role": "User", "content": "q"}, ANSWER)),
    "a role with a blank": ("messages.1.role", _row(ASKED, {"role": "assistant ", "content": "a"})),
    "a role that looks right": ("messages.1.role", _row(ASKED, {"role": "\u0430ssistant", "content": "a"})),
    "a role that is a number": ("messages.0.role", _row({"role": 1, "content": "q"}, ANSWER)),
    "a role that is a list": ("messages.0.role", _row({"role": ["user"], "content": "q"}, ANSWER)),
    "an older role": ("messages.1.role", _row(ASKED, {"role": "function", "content": "x"}, ANSWER)),
    "no content": ("messages.0.content", _row({"role": "user"}, ANSWER)),
    "content is null": ("messages.1.content", _row(ASKED, {"role": "assistant", "content": None})),
    "content is a number": ("messages.0.content", _row({"role": "user", "content": 3}, ANSWER)),
    "content is an object": ("messages.0.content", _row({"role": "user", "content": {"text": "q"}}, ANSWER)),
    "content is empty": ("messages.1.content", _row(ASKED, {"role": "assistant", "content": ""})),
    "content is blank": ("messages.1.content", _row(ASKED, {"role": "assistant", "content": " \n\t"})),
    "content is no parts": ("messages.0.content", _row({"role": "user", "content": []}, ANSWER)),
    "a part is a text": ("messages.0.content.0", _row({"role": "user", "content": ["q"]}, ANSWER)),
    "a part without text": ("messages.0.content.0", _row({"role": "user", "content": [{"type": "text"}]}, ANSWER)),
    "a part is a picture": (
        "messages.0.content.0.type",
        _row({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER),
    ),
    "no answer": ("messages", _row(ASKED)),
    "no question": ("messages", _row(ANSWER)),
    "only instructions": ("messages", _row({"role": "system", "content": "be kind"})),
    "the answer is first": ("messages", _row(ANSWER, ASKED)),
    "instructions at the end": ("messages", _row(ASKED, ANSWER, {"role": "system", "content": "be kind"})),
    "a weight of two": ("messages.1.weight", _row(ASKED, {**ANSWER, "weight": 2})),
    "a weight of the user's": ("messages.0.weight", _row({**ASKED, "weight": 1}, ANSWER)),
    "a name too long": ("messages.0.name", _row({**ASKED, "name": "n" * 65}, ANSWER)),
    "a result of no call": ("messages.1.tool_call_id", _row(ASKED, {"role": "tool", "content": "x"}, ANSWER)),
    "the user calls a tool": ("messages.0.tool_calls", _row({**ASKED, "tool_calls": [CALL]}, ANSWER)),
    "no calls": ("messages.1.tool_calls", _row(ASKED, {**ANSWER, "tool_calls": []})),
    "a call of nothing": ("messages.1.tool_calls.0", _row(ASKED, {**ANSWER, "tool_calls": [{"id": "c"}]})),
    "tools is a text": ("tools", _row(ASKED, ANSWER, tools="f")),
    "prompt and completion": ("messages", {"prompt": "q", "completion": "a"}),
    "text and label": ("messages", {"text": "q", "label": "a"}),
    "a preference": ("messages", {"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}),
    "too many messages": ("messages", _row(*[ASKED, ANSWER] * 1025)),
}
"""Rows that are whole JSON and no conversation: where more than one in ten is, the file is refused."""
PLACES = {"first": 0, "inside": 2, "last": 5}


def _lines() -> Iterator[Case]:
    for name, bad in LINES.items():
        for place, at in PLACES.items():
            good = [json.dumps(row).encode() for row in good_rows(6)]
            good[at] = bad
            yield Case(f"{name}, {place}", "/v1/files", form(b"\n".join(good)), FORM, "file", at + 1)


def _rows() -> Iterator[Case]:
    for name, (_, bad) in ROWS.items():
        for place, at in PLACES.items():
            good = good_rows(6)
            good[at] = bad
            ends = "\r\n" if at == 2 else "\n"  # lines of Windows are no fault, and hide none
            data = ends.join(json.dumps(row, ensure_ascii=False) for row in good).encode()
            yield Case(f"{name}, {place}", "/v1/files", form(data), FORM, "file", at + 1)


def _whole_files() -> Iterator[Case]:
    text = "\n".join(json.dumps(row) for row in good_rows(6)) + "\n"
    pretty = json.dumps(good_rows(1)[0], indent=2)
    whole: dict[str, bytes] = {
        "empty": b"", "one blank line": b"\n", "blank lines": b" \r\n\t\n\n",
        "a mark at the start": b"\xef\xbb\xbf" + text.encode(), "UTF-16": text.encode("utf-16"),
        "UTF-16 without a mark": text.encode("utf-16-le"), "UTF-16, big end first": b"\xfe\xff" + text.encode("utf-16-be"),
        "UTF-32": text.encode("utf-32"), "EBCDIC": text.encode("cp500"),
        "gzip": b"\x1f\x8b\x08\x00" + bytes(60), "zip": b"PK\x03\x04" + bytes(60), "Parquet": b"PAR1" + bytes(60),
        "a PDF": b"%PDF-1.7\n", "a picture": b"\x89PNG\r\n\x1a\n" + bytes(20), "a database": b"SQLite format 3\x00",
        "a table": b"question,answer\nq,a\n", "a table with tabs": b"question\tanswer\nq\ta\n",
        "a table with semicolons": b"question;answer\nq;a\n", "one array": json.dumps(good_rows(6)).encode(),
        "one array over lines": json.dumps(good_rows(2), indent=1).encode(), "objects over lines": pretty.encode(),
        "HTML": b"<!doctype html>\n<p>Sign in</p>\n", "YAML": b"messages:\n  - role: user\n",
        "carriage returns alone": text.replace("\n", "\r").encode(), "zeros": bytes(1000), "noise": bytes(range(128, 256)) * 9,
    }  # fmt: skip
    for name, data in whole.items():
        for purpose in ("fine-tune", "evals", "batch"):
            yield Case(f"{name}, as {purpose}", "/v1/files", form(data, purpose), FORM, "file", 1)


def _forms() -> Iterator[Case]:
    purpose, data = text_part("purpose", b"fine-tune"), json.dumps(good_rows(1)[0]).encode()
    file, life = file_part(data), text_part("expires_after[anchor]", b"created_at")
    named: Callable[[str], bytes] = lambda name: purpose + file_part(data, name) + end()  # noqa: E731
    lasts: Callable[[bytes], bytes] = (  # noqa: E731
        lambda seconds: purpose + life + text_part("expires_after[seconds]", seconds) + file + end()
    )
    forms = [
        ("no purpose", file + end(), "purpose"),
        ("an empty purpose", text_part("purpose", b"") + file + end(), "purpose"),
        ("an unknown purpose", text_part("purpose", b"training") + file + end(), "purpose"),
        ("a purpose of the service's", text_part("purpose", b"fine-tune-results") + file + end(), "purpose"),
        ("two purposes", purpose + purpose + file + end(), "purpose"),
        ("a purpose that is no UTF-8", text_part("purpose", b"\xff") + file + end(), "purpose"),
        ("a purpose of 1 MB", text_part("purpose", b"x" * MIB) + file + end(), "purpose"),
        ("no file", purpose + end(), "file"),
        ("a file as a text", purpose + text_part("file", data) + end(), "file"),
        ("a file without a name", named(""), "file"),
        ("a name too long", named("n" * 256), "file"),
        ("a name with NUL", named("a\x00b"), "file"),
        ("a name with an escape", named("a\x1b[31m"), "file"),
        ("two files", purpose + file + file + end(), "file"),
        ("a file of another name", purpose + file_part(data, field="upload") + end(), "upload"),
        ("no anchor", purpose + text_part("expires_after[seconds]", b"3600") + file + end(), "expires_after.anchor"),
        ("a wrong anchor", purpose + text_part("expires_after[anchor]", b"now") + file + end(), "expires_after.anchor"),
        ("no seconds", purpose + life + file + end(), "expires_after.seconds"),
        *((f"{seconds!r} seconds", lasts(seconds), "expires_after.seconds")
          for seconds in (b"0", b"3599", b"2592001", b"-3600", b"1e4", b"NaN", b"9" * 400, "٣٦٠٠".encode())),
        ("a hundred fields", b"".join(text_part(f"f{n}", b"x") for n in range(100)) + file + end(), "f"),
        ("cut short in the file", purpose + file[:-20], "file"),
        ("cut short before the end", purpose + file, "file"),
        ("cut short in a header", purpose + file[:40], "file"),
        ("no form at all", data, "file"),
        ("nothing", b"", "file"),
        ("a header too long", purpose + file_part(data, "n" * 9000) + end(), "file"),
    ]  # fmt: skip
    yield from (Case(f"form: {name}", "/v1/files", body, FORM, param) for name, body, param in forms)
    for kind in (
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/plain",
        "multipart/mixed; boundary=x",
    ):
        yield Case(f"form: sent as {kind}", "/v1/files", form(data), kind, "content-type")
    yield Case(
        "form: a boundary too long", "/v1/files", form(data), f"multipart/form-data; boundary={'b' * 300}", "file"
    )
    part = file_part(b"x" * 11, field="data") + end()
    yield Case("part: more than announced", "/v1/uploads/<upload>/parts", part, FORM, "data")
    yield Case("part: a text", "/v1/uploads/<upload>/parts", text_part("data", b"x") + end(), FORM, "data")
    yield Case("part: of no upload", f"/v1/uploads/upload-{'x' * 24}/parts", part, FORM, "upload_id")


JSON_ROUTES = {
    "upload": "/v1/uploads", "completing": "/v1/uploads/<upload>/complete", "key": "/api/keys",
    "project": "/api/projects/<project>", "job": "/v1/fine_tuning/jobs", "chat": "/v1/chat/completions",
}  # fmt: skip
BODIES: dict[str, bytes] = {
    "empty": b"", "not JSON": b"bytes=10", "cut short": b'{"bytes": 10, "filename": "a', "an array": b"[]", "a text": b'"x"',
    "null": b"null", "a number": b"1", "NaN": b'{"seed": NaN}', "a huge number": b'{"seed": 1e999}',
    "digits without end": b'{"seed": ' + b"9" * 6000 + b"}", "a doubled name": b'{"model": "a", "model": "b"}',
    "NUL": b'{"name": "a\\u0000"}', "half a surrogate": b'{"name": "\\ud800"}', "Latin-1": b'{"name": "caf\xe9"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"), "a mark at the start": b'\xef\xbb\xbf{"name": "a"}',
    "100 deep": b'{"x": ' + b"[" * 100 + b"]" * 100 + b"}", "200,000 open": b"[" * 200_000,
    "two objects": b'{"name": "a"}{"name": "b"}', "single quotes": b"{'name': 'a'}",
}  # fmt: skip


def _bodies() -> Iterator[Case]:
    for route, path in JSON_ROUTES.items():
        for name, body in BODIES.items():
            yield Case(f"{route}: {name}", path, body, "application/json", "body")
    large = b'{"name": "' + b"x" * (9 * MIB) + b'"}'
    yield Case("key: larger than a body may be", JSON_ROUTES["key"], large, "application/json", "body")


def _fields() -> Iterator[Case]:
    upload = {"bytes": 10, "filename": "a.jsonl", "purpose": "fine-tune", "mime_type": "text/jsonl"}
    key: dict[str, Any] = {"name": "a", "scopes": ["read"]}
    job: dict[str, Any] = {"model": "small-text-classifier", "training_file": "<good>"}
    tried: list[tuple[str, dict[str, Any], str, list[Any]]] = [
        ("upload", upload, "bytes", [0, -1, 2**80, 1.5, "x", None, [1]]),
        ("upload", upload, "filename", ["", "n" * 256, "a\u0007b", None, 5]),
        ("upload", upload, "purpose", ["", "training", None, 5]),
        ("upload", upload, "mime_type", [None, 5, "m" * 300]),
        ("upload", upload, "expires_after", [5, {}, {"anchor": "now", "seconds": 3600}, {"anchor": "created_at", "seconds": 1}]),
        ("completing", {}, "part_ids", [[], None, "x", ["part-x"], [1], ["x"] * 3000]),
        ("key", key, "name", ["", "n" * 101, "a\nb", None, 5]),
        ("key", key, "scopes", [[], ["root"], "read", None, [1]]),
        ("key", key, "expires_in_s", [0, -5, 10**12, "soon"]),
        ("key", key, "scope", [["read"]]),
        ("project", {}, "retention_days", [0, -1, 10**6, "x", 1.5]),
        ("project", {}, "trains_on_stored", ["perhaps", None, 7]),
        ("project", {}, "name", ["", None, "n" * 101, "a\x7f"]),
        ("project", {}, "retention", [3]),
        ("job", job, "training_file", [
            "<wrong-purpose>", "<foreign>", "<expired>", "<deleted>", "file-" + "x" * 24, "../../x", "", None, 5,
        ]),
        ("job", job, "model", ["", None, 5, "no such model", "../../x"]),
        ("job", job, "suffix", ["s" * 65, 5]),
        ("job", job, "seed", [-1, 2**40, "x"]),
        ("job", job, "metadata", [{"k" * 65: "v"}, {"k": "v" * 513}, {str(n): "v" for n in range(17)}, {"k": 5}, "x"]),
        ("job", job, "method", ["supervised", {"type": "magic"}]),
    ]  # fmt: skip
    for route, good, field, values in tried:
        for value in values:
            body = json.dumps({**good, field: value}).encode()
            told = f"{route}: {field} = {json.dumps(value)[:40]}"
            yield Case(told, JSON_ROUTES[route], body, "application/json", field)
        if field in good:
            left = json.dumps({name: value for name, value in good.items() if name != field}).encode()
            yield Case(f"{route}: no {field}", JSON_ROUTES[route], left, "application/json", field)
