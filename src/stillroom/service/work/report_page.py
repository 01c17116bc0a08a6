"""A run's report as the service shows it: in a sandbox of its own, where it can reach neither this service nor its cookie."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi.responses import HTMLResponse

SCRIPT = re.compile(rb"script-src '(sha256-[A-Za-z0-9+/=]{44})'")


def served(path: Path) -> HTMLResponse:
    """A report.html, allowed to run its own script, by the script's digest, and nothing else."""
    found = path.read_bytes()
    script = SCRIPT.search(found[:4096])
    runs = f"'{script[1].decode()}'" if script else "'none'"
    policy = (
        f"sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {runs}; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return HTMLResponse(found, headers={"content-security-policy": policy})
