"""Schemathesis against a real server: every operation of the document is asked, in every way that the document allows.

Two runs of the program, so that a slow machine never costs an operation: the cases that follow from the document alone,
all of them whatever the time; then chance, and calls that use what other calls gave, for so many seconds. All of its
checks are on; generated.toml says where one is off, and why.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.service_process import Served, environment

from yardstick import slowness

CONFIG = Path(__file__).with_name("generated.toml")
DOCUMENT = "/api/openapi.json"
CHANCE_S = 15
"""For chance and sequences together; the covering run takes some 20 s of one core."""
AT_MOST_S = 600
CHECKED = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "negative_data_rejection", "positive_data_acceptance", "missing_required_header",
    "unsupported_method", "allow_header_conformance", "use_after_free", "ensure_resource_availability", "ignored_auth",
)  # fmt: skip


@dataclass
class Open:
    """A server that others could reach, since only there a request without a key is a wrong one; and a key."""

    url: str
    key: str
    folder: Path

    def get(self, path: str) -> httpx2.Response:
        """Ask with the key."""
        return httpx2.get(self.url + path, headers={"authorization": f"Bearer {self.key}"})

    def operations(self) -> set[str]:
        """Every operation of the document as it is served: GET /v1/files, and so on."""
        paths = self.get(DOCUMENT).json()["paths"]
        return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


@pytest.fixture(scope="module")
def open_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("open")
    command = [sys.executable, "-m", "stillroom", "serve", "--root", str(folder / "service"), "--new-key", "generated"]
    key = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.strip()
    with Served(folder, "--host", "0.0.0.0", "--allow-host", "127.0.0.1") as service:
        yield Open(service.url.replace("0.0.0.0", "127.0.0.1"), key, folder)


def generated(served: Open, *words: str) -> list[dict[str, Any]]:
    """Run the program with all its checks, hold that it found nothing, and read what it recorded: a part of it each."""
    program, report = Path(sys.executable).with_name("schemathesis"), served.folder / "report.ndjson"
    report.unlink(missing_ok=True)
    command = [
        str(program), "--config-file", str(CONFIG), "--no-color", "run", served.url + DOCUMENT,
        "--header", f"Authorization: Bearer {served.key}", "--seed", "1", "--request-timeout", "30",
        "--generation-database", "none", "--warnings", "off", "--continue-on-failure", "--report", "ndjson",
        "--report-ndjson-path", str(report), *words,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=served.folder, env=environment(), capture_output=True, text=True, timeout=AT_MOST_S
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert served.get("/v1/files").status_code == 200, "the key was revoked on the way, so what followed showed nothing"
    told = [json.loads(line).get("ScenarioFinished") for line in report.read_text("utf-8").splitlines()]
    return [one["recorder"] for one in told if one and one["recorder"].get("cases")]


def asked(parts: list[dict[str, Any]]) -> Counter[str]:
    """How often each operation was asked and answered."""
    return Counter(
        f"{one['cases'][case]['value']['method']} {one['cases'][case]['value']['path']}"
        for one in parts
        for case, answer in one.get("interactions", {}).items()
        if answer.get("response")
    )


def checked(parts: list[dict[str, Any]]) -> set[str]:
    """The checks that looked at an answer."""
    return {check["name"] for one in parts for checks in one.get("checks", {}).values() for check in checks}


def test_every_operation_is_asked_in_every_way_the_document_allows(open_served: Open) -> None:
    parts = generated(open_served, "--phases", "examples,coverage")
    counted, expected = asked(parts), open_served.operations()
    assert len(expected) >= 55
    assert expected - set(counted) == set(), "operations that were never asked"
    assert min(counted[one] for one in expected) >= 2  # with the key, and without
    assert set(CHECKED) <= checked(parts)


def test_chance_and_what_other_calls_gave(open_served: Open) -> None:
    """Streams are left out: a job that waits has one that does not end. test_schema.py holds one against the document."""
    parts = generated(
        open_served, "--phases", "fuzzing,stateful", "--max-examples", "6", "--max-time", str(round(CHANCE_S * slowness())),
        "--exclude-path-regex", "/events/stream$",
    )  # fmt: skip
    phases = Counter(
        case["value"]["meta"]["phase"]["name"]
        for one in parts
        for case in one["cases"].values()
        if "meta" in case["value"]
    )
    assert phases["fuzzing"] > 50, phases
    assert phases["stateful"] > 0, phases
    assert any(case["is_transition_applied"] for one in parts for case in one["cases"].values()), (
        "no call used another's"
    )
    assert open_served.get("/healthz").status_code == 200
