"""Attacks with addresses through a real server: a teacher is set with each over HTTP, and one that is there already is asked.

A name server of the bench's own stands behind the server's process: it says of each attack's name what that attack has it
say, in turn. One got through if a teacher with that address was accepted, if asking it was not refused for its address, or
if a listener on loopback, to which redirects lead, heard of it. A teacher that redirects must have been asked, once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from sqlalchemy import insert

from benchmarks.service_process import SOURCE, Served
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.tables import teachers

if TYPE_CHECKING:
    from tests.service.attacks import AddressAttack, Canary

REFUSED, REDIRECTS = "address_not_allowed", "teacher_redirects"
LOOPBACK = "127.0.0.1"
PUBLIC_NAME, CONTROL = "teacher.example", "control.teacher.example"
NAME_SERVER = """
import json, os, socket
told, asked, ask = json.load(open(os.environ["STILLROOM_BENCH_NAMES"])), {}, socket.getaddrinfo
def getaddrinfo(host, port, *more, **named):
    if host not in told:
        return ask(host, port, *more, **named)
    asked[host] = asked.get(host, 0) + 1
    turn = told[host][min(asked[host], len(told[host])) - 1]
    return [(socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in turn]
socket.getaddrinfo = getaddrinfo
"""
"""What Python reads before anything else, as sitecustomize.py."""


@dataclass(frozen=True)
class Way:
    """An attack, and how it is led: `set` over HTTP, or `asked` where it is set already."""

    attack: AddressAttack
    how: str
    answers: tuple[tuple[str, ...], ...]


def ways() -> Iterator[Way]:
    """Each attack set and asked; each under a name of its own."""
    from tests.service.attacks import address_attacks

    number = 0
    for attack in address_attacks():
        # What changes its mind is public when it is set; what redirects is a teacher that the operator named.
        for how in ("set", "asked") if attack.kind == "address" else ("asked",):
            number += 1
            url = attack.url.replace(PUBLIC_NAME, f"a{number}.{PUBLIC_NAME}")
            answers = attack.answers[1:] if attack.kind == "rebinding" else attack.answers
            yield Way(replace(attack, url=url), how, answers)


def attacked_by_address(
    folder: Path, wanted: Callable[[Way], bool] = lambda way: True
) -> tuple[int, list[tuple[str, str]]]:
    """How many there were, and of those that got through the attack and how."""
    from tests.service.attacks import PUBLIC, Canary

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(NAME_SERVER)
    with ExitStack() as stack:
        inside = stack.enter_context(Canary())
        tried = list(filter(wanted, ways()))
        leading = {
            way: stack.enter_context(Canary(way.attack.url.format(port=inside.port), int(way.attack.kind.split()[1])))
            for way in tried
            if way.attack.kind.startswith("redirect")
        }
        names: dict[str, Any] = {CONTROL: [[PUBLIC]]}
        names |= {host: way.answers for way in tried if way.answers and (host := _name(way.attack.url))}
        names.pop(LOOPBACK, None)  # where what redirects stands: an address has no name
        (folder / "names.json").write_text(json.dumps(names))
        env = {"PYTHONPATH": f"{folder}:{SOURCE}", "STILLROOM_BENCH_NAMES": str(folder / "names.json")}
        words = [word for one in leading.values() for word in ("--allow-teacher", f"{LOOPBACK}:{one.port}")]
        words += ["--requests-per-minute", "10000000"]
        service = stack.enter_context(Served(folder / "served", *words, env=env))
        http = service.http()
        if http.post("/api/teachers", json=_teacher("public", f"https://{CONTROL}/v1")).status_code != httpx2.codes.OK:
            raise RuntimeError("a public name was refused: the name server is not the bench's")
        return len(tried), [
            (f"{way.how}: {way.attack.name}", how)
            for number, way in enumerate(tried)
            if (how := _led(service, http, way, number, inside, leading.get(way)))
        ]


def _led(service: Served, http: httpx2.Client, way: Way, number: int, inside: Canary, leads: Canary | None) -> str:
    """How one got through; empty where it did not."""
    before = inside.hits
    if way.how == "set":
        answer = http.post("/api/teachers", json=_teacher(f"t{number}", way.attack.url))
        told = "" if answer.status_code == httpx2.codes.BAD_REQUEST else f"set: {answer.status_code}"
    else:
        url = f"http://{LOOPBACK}:{leads.port}/v1" if leads else way.attack.url
        _put(service, f"t{number}", url)
        said = [{"role": "user", "content": "a"}]
        answer = http.post("/v1/chat/completions", json={"model": f"t{number}", "messages": said})
        code = (answer.json().get("error") or {}).get("code")
        expected = REDIRECTS if leads else REFUSED
        told = "" if code == expected else f"asked: {answer.status_code} {code}"
        if leads and leads.hits != 1:
            told = f"what redirects was asked {leads.hits} times"
    return told or ("heard inside" if inside.hits > before else "")


def _teacher(name: str, url: str) -> dict[str, Any]:
    return {"name": name, "base_url": url, "model": "m"}


def _put(service: Served, name: str, url: str) -> None:
    """As if it had been let in once."""
    row = {**_teacher(name, url), "id": new_id("teacher"), "project_id": service.first_project()}
    with service.rows.writing() as rows:
        rows.execute(insert(teachers).values(**row, created_at=int(time.time()), distillable=True))


def _name(url: str) -> str:
    """The host, where it is plainly written; what is odd is asked of nobody."""
    return url.removeprefix("https://").partition("/")[0]
