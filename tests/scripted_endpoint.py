"""An OpenAI-shaped endpoint on this machine that answers as a test scripts it, and counts what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

MODEL = "a-model"


class Reply(NamedTuple):
    """What goes back, and how."""

    body: bytes | str | dict[str, Any]
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    wait_s: float = 0.0
    drip_s: float = 0.0
    """Between any two bytes of the body."""
    cut: bool = False
    """The connection ends in the body's middle."""
    hang_up: bool = False
    """The connection ends after the body, without a word."""


Script = Callable[[dict[str, Any], int], Reply]
"""Is given the JSON of a request, and how many came before it."""


def said(text: str, model: str = MODEL, tokens: tuple[int, int] | None = (20, 2), **more: Any) -> Reply:
    """An answer as it should be; `more` goes into its choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    body: dict[str, Any] = {"id": "one", "object": "chat.completion", "model": model, "choices": [choice]}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return Reply(body)


def failing(status: int, code: Any = None, message: str = "it failed", **headers: str) -> Reply:
    """An error in the interface's envelope."""
    return Reply({"error": {"message": message, "type": None, "code": code}}, status, headers)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # five, the library's own number, is too few for callers that all come at once


class Endpoint:
    """Serves while the block runs: `with Endpoint(script) as it: it.url`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        """Of each request, by their names in small letters."""
        self.now = self.most_at_once = 0
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def keys(self) -> list[str]:
        """What each request was authorized by."""
        return [one.get("authorization", "") for one in self.headers]

    @property
    def questions(self) -> Counter[str]:
        """How often each last message was asked."""
        return Counter(one["messages"][-1]["content"] for one in self.asked)

    def __enter__(self) -> Endpoint:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            self._reply(endpoint.script({}, len(endpoint.asked)))

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            body = json.loads(content) if content.startswith(b"{") else {}
            with endpoint.lock:
                number = len(endpoint.asked)
                endpoint.asked.append(body)
                endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                endpoint.now += 1
                endpoint.most_at_once = max(endpoint.most_at_once, endpoint.now)
            try:
                self._reply(endpoint.script(body, number))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with endpoint.lock:
                    endpoint.now -= 1

        def _reply(self, reply: Reply) -> None:
            time.sleep(reply.wait_s)
            body = reply.body if isinstance(reply.body, str | bytes) else json.dumps(reply.body)
            content = body.encode() if isinstance(body, str) else body
            self.send_response(reply.status)
            for name, value in {"content-type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if reply.cut:
                content, self.close_connection = content[: len(content) // 2], True
            self.close_connection = self.close_connection or reply.hang_up
            for start in range(0, len(content), 1 if reply.drip_s else len(content) or 1):
                self.wfile.write(content[start : start + (1 if reply.drip_s else len(content))])
                if reply.drip_s:
                    self.wfile.flush()
                    time.sleep(reply.drip_s)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            return

    return Handler
