"""The official `openai` client, at an OpenAI-compatible endpoint: one request, and its response or what went wrong.

The client's own retries are off, since each try is reserved and told by itself (api_calls.py), and it follows no redirect.
Of its ways to send a request this is the leanest: a body that is JSON already, and the response as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from stillroom.teachers import handed
from stillroom.teachers.addresses import has_proxy, is_local, is_openai
from stillroom.teachers.api_faults import Outcome, shortened
from stillroom.teachers.api_transport import Transport

UNTOLD: Any = {
    f"X-Stainless-{name}": openai.Omit()
    for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
}
"""What the client would tell of this machine: nobody's business, and a third of each request's headers."""
JSON_BODY: Any = {"headers": {name: openai.Omit() for name in ("X-Stainless-Retry-Count", "X-Stainless-Read-Timeout")}}
HIDDEN = "[key]"
"""Stands for the key in whatever a server says."""
SHORTEST_HIDDEN = 4
NO_KEY = "none"
"""Sent where there is no key: the client wants one, and servers that take any do not look at it."""


@dataclass(frozen=True)
class Came:
    """A response."""

    status: int
    headers: Mapping[str, str]
    text: str


class Wire:
    """Connections to one endpoint, kept open between requests; many threads may use one."""

    def __init__(self, address: str, key: str | None, timeout_s: float, connections: int) -> None:
        self.address, self._key, self._timeout_s, self._connections = address, key, timeout_s, connections
        # A proxy of the environment is for the world outside, and cannot reach this machine's own servers.
        proxied = not is_local(address) and has_proxy(address) and not handed.confines()
        self._transport = None if proxied else Transport()
        self._open()

    def _open(self) -> None:
        most = self._connections
        limits = httpx2.Limits(max_connections=most, max_keepalive_connections=most)
        self._inner = httpx2.Client(
            follow_redirects=False, timeout=self._timeout_s, limits=limits, trust_env=self._transport is None,
            transport=self._transport,
        )  # fmt: skip
        self.client = openai.OpenAI(
            api_key=self._key or NO_KEY,
            base_url=self.address,
            max_retries=0,
            timeout=self._timeout_s,
            http_client=self._inner,
            default_headers=UNTOLD,
        )
        if not is_openai(self.address):  # of the environment, and nobody else's business
            self.client.organization = self.client.project = None

    def post(self, path: str, body: bytes) -> Came | Outcome:
        """Send a body of JSON; what came back, or what to do where nothing did."""
        url = f"{self.address}/{path}"
        return self.sent(lambda: self.client.post(url, cast_to=httpx2.Response, content=body, options=JSON_BODY))

    def sent(self, send: Any) -> Came | Outcome:
        """What came of `send()`, which gives a response of the client's."""
        try:
            response = send()
        except openai.APIStatusError as error:
            response = error.response
        except openai.APITimeoutError as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                return self._absent("it takes no connection")
            cure = "Raise teacher.timeout_s, or try again later"
            return Outcome("again", f"no answer within {self._timeout_s:g} s", cure, lost=True)
        except openai.APIConnectionError as error:
            told = shortened(self._without_key(str(error.__cause__ or error)))
            if isinstance(error.__cause__, httpx2.ConnectError):
                return self._absent(told)
            return Outcome("again", f"the connection broke: {told}", "Check the network", lost=True)
        return Came(response.status_code, response.headers, self._without_key(response.text))

    def hang_up(self) -> None:
        """Close the connections; the next request opens one."""
        if self._transport is not None:
            self._transport.close()
        else:  # the client's own, behind a proxy, opens none once it is closed
            self._inner.close()
            self._open()

    def _without_key(self, text: str) -> str:
        hidden = self._key if self._key and len(self._key) >= SHORTEST_HIDDEN else None
        return text.replace(hidden, HIDDEN) if hidden else text

    def _absent(self, told: str) -> Outcome:
        cure = "Start the server, or check teacher.base_url"
        return Outcome(
            "again", f"nothing answers at {self.address}: {told}", cure, billed=False, lost=True, absent=True
        )
