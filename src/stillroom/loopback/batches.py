"""Files of requests that are answered together and cheaper: /v1/files and /v1/batches."""

from __future__ import annotations

import json
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

from stillroom.loopback import spec
from stillroom.loopback.chat import Refusal, as_json
from stillroom.loopback.http import Request, Response
from stillroom.loopback.minds import dice

Answer = Callable[[Any], tuple[int, dict[str, Any]]]
AT_ONCE = 200
"""Requests of a batch that are answered before the loop gets its turn."""
DAY_S = 86_400
ENDED = ("completed", "failed", "expired", "cancelled")


class Batches:
    """The files and batches of a server; they live as long as it does."""

    def __init__(self, knobs: spec.Batches, answer: Answer, loop: AbstractEventLoop) -> None:
        self._knobs, self._answer, self._loop = knobs, answer, loop
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    def route(self, method: str, path: str, request: Request) -> Response | None:
        """The response to a request for files or batches; None for another. Raises Refusal."""
        match [method, *path.strip("/").split("/")]:
            case ["POST", "v1", "files"]:
                fields = form_fields(request)
                return as_json(self._keep(fields.get("purpose", b"").decode(), fields.get("file", b"")))
            case ["GET", "v1", "files", name]:
                return as_json(self._file(name)[0])
            case ["GET", "v1", "files", name, "content"]:
                return Response(200, self._file(name)[1], kind="application/octet-stream")
            case ["DELETE", "v1", "files", name]:
                self._file(name)
                del self._files[name]
                return as_json({"id": name, "object": "file", "deleted": True})
            case ["POST", "v1", "batches"]:
                return as_json(self._create(request.body))
            case ["GET", "v1", "batches"]:
                newest = list(self._batches.values())[::-1]
                return as_json({"object": "list", "data": newest, "has_more": False})
            case ["GET", "v1", "batches", name]:
                return as_json(self._batch(name))
            case ["POST", "v1", "batches", name, "cancel"]:
                batch = self._batch(name)
                if batch["status"] not in ENDED:
                    batch |= {"status": "cancelling", "cancelling_at": int(time.time())}
                return as_json(batch)
        return None

    def _keep(self, purpose: str, content: bytes) -> dict[str, Any]:
        if not content:
            raise Refusal(400, "'file' is a required property", param="file")
        told: dict[str, Any] = {
            "id": f"file-{len(self._files) + 1:06d}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": "requests.jsonl" if purpose == "batch" else "answers.jsonl",
            "purpose": purpose,
            "status": "processed",
        }
        self._files[told["id"]] = (told, content)
        return told

    def _file(self, name: str) -> tuple[dict[str, Any], bytes]:
        if name not in self._files:
            raise Refusal(404, f"No such File object: {name}", param="id")
        return self._files[name]

    def _batch(self, name: str) -> dict[str, Any]:
        if name not in self._batches:
            raise Refusal(404, f"No batch found with id '{name}'.")
        return self._batches[name]

    def _create(self, given: bytes) -> dict[str, Any]:
        try:
            body = json.loads(given)
            name, endpoint = str(body["input_file_id"]), str(body["endpoint"])
        except (ValueError, KeyError, TypeError):
            raise Refusal(400, "input_file_id and endpoint are required") from None
        if endpoint != "/v1/chat/completions":
            raise Refusal(400, f"Invalid value for endpoint: {endpoint}", param="endpoint")
        content = self._file(name)[1]
        now = int(time.time())
        batch: dict[str, Any] = {
            "id": f"batch_{len(self._batches) + 1:06d}",
            "object": "batch",
            "endpoint": endpoint,
            "errors": None,
            "input_file_id": name,
            "completion_window": str(body.get("completion_window", "24h")),
            "status": "in_progress",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "in_progress_at": now,
            "expires_at": now + DAY_S,
            "metadata": body.get("metadata"),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        self._batches[batch["id"]] = batch
        lines = _lines_of(content)
        if isinstance(lines, str):
            told = {"object": "list", "data": [{"code": "invalid_json_line", "message": lines, "line": None}]}
            return batch.__ior__({"status": "failed", "failed_at": now, "errors": told})
        batch["request_counts"]["total"] = len(lines)
        self._loop.call_later(self._knobs.wait_s, Work(self, batch, lines).go_on)
        return batch


class Work:
    """A batch being answered, a few at a time."""

    def __init__(self, desk: Batches, batch: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        self._desk, self._batch, self._lines = desk, batch, lines
        self._answers: list[dict[str, Any]] = []
        self._errors: list[dict[str, Any]] = []
        self._done = 0

    def go_on(self) -> None:
        """Answer some more, or end."""
        knobs, batch = self._desk._knobs, self._batch
        last = len(self._lines) // 2 if knobs.expires else len(self._lines)
        if batch["status"] == "cancelling":
            self._end("cancelled", last=self._done)
        elif self._done >= last:
            self._end("expired" if knobs.expires else "completed", last)
        else:
            for line in self._lines[self._done : min(last, self._done + AT_ONCE)]:
                self._one(line)
            self._done = min(last, self._done + AT_ONCE)
            counts = {"completed": len(self._answers), "failed": len(self._errors)}
            batch["request_counts"] |= counts
            self._desk._loop.call_soon(self.go_on)

    def _one(self, line: dict[str, Any]) -> None:
        told = {"id": f"batch_req_{len(self._answers) + len(self._errors)}", "custom_id": line.get("custom_id")}
        if dice("lost", self._batch["id"], line.get("custom_id")).random() < self._desk._knobs.lost:
            status, body = 500, {"error": {"message": "The server had an error.", "type": "server_error", "code": None}}
        else:
            status, body = self._desk._answer(line.get("body"))
        response = {"status_code": status, "request_id": told["id"], "body": body}
        (self._answers if status == 200 else self._errors).append({**told, "response": response, "error": None})

    def _end(self, status: str, last: int) -> None:
        batch, now = self._batch, int(time.time())
        for line in self._lines[last:]:
            told = {"code": f"batch_{status}", "message": f"This request was not executed: the batch {status}."}
            self._errors.append({"custom_id": line.get("custom_id"), "response": None, "error": told})
        for name, rows in (("output_file_id", self._answers), ("error_file_id", self._errors)):
            if rows:
                text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
                batch[name] = self._desk._keep("batch_output", text.encode())["id"]
        batch["request_counts"] |= {"completed": len(self._answers), "failed": len(self._errors)}
        batch |= {"status": status, f"{status}_at": now}


def _lines_of(content: bytes) -> list[dict[str, Any]] | str:
    """The requests of a file; what is wrong with it, where it holds something else."""
    lines = []
    for number, text in enumerate(content.splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:
            return f"Line {number} is not parseable as JSON."
        if not isinstance(line, dict) or "custom_id" not in line or "body" not in line:
            return f"Line {number} has no custom_id or no body."
        lines.append(line)
    doubled = len(lines) - len({str(line["custom_id"]) for line in lines})
    return f"{doubled} custom_id values stand there twice." if doubled else lines or "The file is empty."


def form_fields(request: Request) -> dict[str, bytes]:
    """The fields of a form of several parts. Raises Refusal for another body."""
    kind = request.headers.get("content-type", "")
    _, found, boundary = kind.partition("boundary=")
    if not kind.startswith("multipart/form-data") or not found:
        raise Refusal(400, "A file comes as multipart/form-data.")
    fields: dict[str, bytes] = {}
    for part in (b"\r\n" + request.body).split(b"\r\n--" + boundary.strip('"').encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        _, _, rest = head.partition(b'name="')
        fields[rest.partition(b'"')[0].decode(errors="replace")] = content
    return fields
