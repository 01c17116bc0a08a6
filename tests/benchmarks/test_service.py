"""The service bench in its smallest size: blocks are found, and see what they are there to see."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import pytest
from benchmarks.results import Finished, read_bars
from benchmarks.service_attacks import STUDENT, path_attacks
from benchmarks.service_kill_lanes import _run, _spread, _told
from benchmarks.service_kills import Tally
from benchmarks.service_process import Served
from benchmarks.service_sizes import PRESETS, Sizes
from benchmarks.service_streams import _wrong

from benchmarks import (
    service,
    service_addresses,
    service_kills,
    service_load,
    service_pages,
    service_serving,
    service_streams,
    service_students,
    service_uploads,
)
from service.attacks import AddressAttack, Canary

SIZES = replace(
    PRESETS["smoke"],
    load_s=2,
    load_rate=10,
    jobs=10,
    events=100,
    upload_mib=2,
    streams=3,
    reconnects=3,
    stream_events=20,
)


def test_every_block_can_be_found_and_depends_on_its_sizes() -> None:
    assert len(read_bars("service")) == 11
    for block in service.BLOCKS.values():
        module, _, function = block.run.partition(".")
        assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), function))
    assert len({service.BENCH.settings_of(name, SIZES) for name in service.BLOCKS}) == len(service.BLOCKS)
    assert service.BENCH.settings_of("kills", SIZES) != service.BENCH.settings_of(
        "kills", replace(SIZES, random_kills=9)
    )
    named = {name for block in service.BLOCKS.values() for name in block.depends}
    assert named == {field.name for field in fields(Sizes)}


def test_attacks_are_so_many_and_none_twice() -> None:
    every = list(path_attacks())
    assert len(every) == len(set(map(repr, every))) == 400
    assert {"/v1/uploads/%2e/cancel", "/api/lineage/sources/%2e", f"/models/{STUDENT}/files/%2e"} <= {
        one.target for one in every
    }


def test_commit_points_are_spread_evenly() -> None:
    assert _spread(5, None) == [1, 2, 3, 4, 5]
    assert _spread(100, 3) == [1, 51, 100]
    assert _spread(2, 9) == [1, 2]
    assert _spread(7, 1) == [1]


def test_lost_doubled_and_misplaced_events_are_seen() -> None:
    written = ["a", "b", "c"]
    assert _wrong(written, written) == 0
    assert _wrong(["a", "c"], written) == 1
    assert _wrong(["a", "b", "b", "c"], written) == 1
    assert _wrong(["b", "a", "c"], written) > 0


def test_load_counts_every_request(tmp_path: Path) -> None:
    row = service_load.load(SIZES, tmp_path)
    assert all(row.bars[f"service-{kind}-p99-ms"].value > 0 for kind in ("read", "write"))  # type: ignore[operator]
    counts = {(one[0], one[1]): (one[2], one[3]) for one in row.tables["load"].rows}
    assert counts["two busy processes", "read"] == (16, 0)
    assert counts["two busy processes", "write"] == (4, 0)


def test_uploads_and_streams(tmp_path: Path) -> None:
    grown = service_uploads.upload(SIZES, tmp_path).bars["service-upload-mib"].value
    assert grown is not None
    assert -1 < grown < 64
    row = service_streams.streams(SIZES, tmp_path)
    assert row.bars["service-streams-lost"].value == 0
    streams, cuts, written, seen, wrong = row.tables["streams"].rows[0]
    assert (streams, cuts, wrong) == (3, 3, 0)
    assert seen == streams * written


def test_kills_are_struck_in_lanes_and_none_is_lost_by_a_failure(tmp_path: Path) -> None:
    finished, struck = Finished(tmp_path / "kills.jsonl", "these settings"), list[Path]()

    def strike(lane: Path) -> Tally:
        struck.append(lane)
        return Tally(kills=1, jobs=1, right=1)

    def fails(lane: Path) -> Tally:
        raise RuntimeError("no server")

    lanes = [tmp_path / "one", tmp_path / "another"]
    with pytest.raises(RuntimeError, match="no server"):
        _run({("trainer", 1): strike, ("trainer", 2): fails, ("trainer", 3): strike}, lanes, finished)
    assert set(finished.read()) == {("trainer", 1), ("trainer", 3)}
    assert len(struck) == 2
    assert set(struck) <= set(lanes)


def test_a_kill_that_did_not_happen_is_not_counted_and_a_job_that_went_wrong_is(tmp_path: Path) -> None:
    right, missed = Tally(kills=1, jobs=1, right=1), Tally(missed=1, jobs=1, right=1)
    points = {"server": 1, "worker": 1, "trainer": 2}
    found = {("trainer", 1): right, ("trainer", 2): missed, ("random", 0): Tally(kills=3, jobs=2, right=2)}
    whole = _told(points, found).bars["service-kills"]
    assert (whole.value, whole.n) == (1.0, "4 kills, 4 jobs")
    found["random", 0] = Tally(kills=3, jobs=2, right=1, why=["random: failed"])
    assert _told(points, found).bars["service-kills"].value == 0.75
    found["random", 0] = Tally(kills=3, jobs=2, right=2, orphans=1)
    assert _told(points, found).bars["service-kills"].value == 0.8


def test_the_overhead_of_a_classifier_stands_beside_that_of_the_language_student_which_is_the_figure() -> None:
    found = {
        "language": {"rounds": [1.0, 1.1, 1.2], "served_ms": 220.0, "bare_ms": 200.0},
        "classifier": {"rounds": [7.0, 8.0, 9.0], "served_ms": 40.0, "bare_ms": 5.0},
    }
    row = service_serving._told(found, 3)
    assert row.bars["service-overhead"].value == 1.1
    table = row.tables["overhead"]
    assert [line[:4] for line in table.rows] == [["language", 220.0, 200.0, 1.1], ["classifier", 40.0, 5.0, 8.0]]
    assert "5 ms of the bare model are 40 ms served, 8 times as long" in table.note


def test_students_take_turns_in_each_round() -> None:
    called: list[str] = []

    def says(name: str) -> Callable[[], None]:
        return lambda: called.append(name)

    pairs = {name: (says(f"{name} served"), says(f"{name} bare")) for name in ("a", "b")}
    found = service_students.overheads(pairs, rounds=2, calls=1)
    assert called[4:] == ["a bare", "a served", "b bare", "b served", "a served", "a bare", "b served", "b bare"]
    assert all(len(one["rounds"]) == 2 for one in found.values())


def test_idle_memory_is_that_of_all_processes_and_the_page_says_whether_the_promise_is_met(tmp_path: Path) -> None:
    assert "met" in service_pages._idle([(1.0, 90.0, 130.0, 180.0)])
    assert "**missed**" in service_pages._idle([(1.0, 90.0, 130.0, 180.0), (1.0, 90.0, 150.0, 180.0)])
    took_s, server, together, doubled = service_pages._start(tmp_path)
    assert took_s > 0
    assert 0 < server < doubled
    assert 0 < together < doubled


def test_what_is_refused_is_slower_than_every_answer() -> None:
    found = service_load._figures([1.0] * 98, 2, 60_000.0)
    assert (found["count"], found["failed"], found["p99"]) == (100, 2, 60_000.0)
    assert service_load._figures([1.0] * 100, 0, 60_000.0)["p99"] == 1.0


def test_a_run_with_refusals_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"count": 1000, "failed": 1, "p50": 1.0, "p99": 2.0, "most": 2000.0}
    found = {"read": few, "write": {**few, "failed": 2}}
    monkeypatch.setattr(service_load, "once", lambda *_: found)
    bars = service_load.load(SIZES, tmp_path).bars
    assert bars["service-read-p99-ms"].value == 2.0
    assert bars["service-write-p99-ms"].value == 2000.0
    assert "2 of 1000 requests of a run were refused" in bars["service-write-p99-ms"].why


def test_an_event_is_seen_at_the_blank_line_that_ends_it() -> None:
    whole = b"HTTP/1.1 200 OK\r\n\r\nid: ftevent-1\ndata: {}\n\n"

    async def seen(told: bytes) -> list[str]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(told)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            follower = service_streams.Follower("", "", "")
            follower.host, follower.port = server.sockets[0].getsockname()[:2]
            with suppress(asyncio.IncompleteReadError):
                await follower._read()
            return follower.seen

    for cut in (b"id: ftevent-2\n", b"id: ftevent-2\ndata: {}\n"):
        assert asyncio.run(seen(whole + cut)) == ["ftevent-1"]
    assert asyncio.run(seen(whole + b"id: ftevent-2\ndata: {}\n\nevent: end\ndata: {}\n\n")) == [
        "ftevent-1",
        "ftevent-2",
    ]


def test_events_of_a_killed_job_are_in_order_and_end_once() -> None:
    def told(*events: tuple[int, str]) -> str:
        return service_kills.wrong_events([{"id": f"ftevent-{number}", "message": text} for number, text in events])

    assert told((1, "begun"), (3, service_kills.SUCCEEDED)) == ""
    assert "out of order" in told((2, "begun"), (2, service_kills.SUCCEEDED))
    assert "2 of its events" in told((1, service_kills.SUCCEEDED), (2, service_kills.SUCCEEDED))
    assert "0 of its events" in told((1, "begun"))


@pytest.mark.parametrize("ended_before", [True, False])
def test_a_kill_of_a_job_that_has_ended_is_not_counted(ended_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        def has_ended(self, job: str) -> bool:
            return ended_before

    killed: list[int] = []
    for name, stands in {"of_role": lambda *_: [7], "below": lambda _: [], "gone_within": lambda _: []}.items():
        monkeypatch.setattr(service_kills, name, stands)
    monkeypatch.setattr(service_kills.os, "kill", lambda pid, _: killed.append(pid))
    tally = Tally()
    service_kills._strike(Ended(), "worker", tally, "ftjob-x")  # type: ignore[arg-type]
    assert killed == [7]
    assert (tally.kills, tally.of_roles) == ((0, {}) if ended_before else (1, {"worker": 1}))


def test_kills_at_random_moments_are_told_by_role() -> None:
    found = {("random", n): Tally(kills=2, jobs=1, right=1, of_roles={"server": 1, "trainer": 1}) for n in range(2)}
    table = _told({"server": 1, "worker": 1, "trainer": 1}, found).tables["random-kills"]
    assert table.rows == [["server", 2], ["worker", 0], ["trainer", 2]]


def test_addresses_are_tried_over_http_and_each_by_a_name_of_its_own() -> None:
    every = list(service_addresses.ways())
    assert len(every) > 500
    assert {way.how for way in every} == {"set", "asked"}
    named = [way.attack.url for way in every if way.attack.name.startswith("a name of ")]
    assert len(named) == len(set(named)) > 100


def test_no_address_gets_through_and_one_that_is_let_in_is_seen(tmp_path: Path) -> None:
    some = ("a name of 127.0.0.1", "a name of ::1 too", "rebinding to 10.0.0.1", "plain: 10.0.0.1", "plain: 127.0.0.1",
            "redirect 307 to http://127.0.0.1:{port}/inside")  # fmt: skip
    assert service_addresses.attacked_by_address(tmp_path / "shut", lambda way: way.attack.name in some) == (10, [])
    with Canary() as inside, Served(tmp_path / "open", "--allow-teacher", f"127.0.0.1:{inside.port}") as opened:
        attack = AddressAttack("let in", f"http://127.0.0.1:{inside.port}/v1")
        tried = [service_addresses.Way(attack, how, ()) for how in ("set", "asked")]
        how = {
            way.how: service_addresses._led(opened, opened.http(), way, number, inside, None)
            for number, way in enumerate(tried)
        }
        with Canary(attack.url, 307) as unasked:
            seen = service_addresses._led(opened, opened.http(), tried[1], 2, inside, unasked)
    assert how == {"set": "set: 200", "asked": "asked: 200 None"}
    assert seen == "what redirects was asked 0 times"
    assert inside.hits == 1
