"""Tables on the pages: their columns and first rows, whatever was uploaded, and distilling one by the column that is picked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet_files
import pytest
from sqlalchemy import select

import stillroom.tables
from service.pages.site import Site, send, token, upload
from stillroom.service.pages import tables
from stillroom.service.rows.tables import jobs


def test_a_table_is_distilled_by_its_column(site: Site) -> None:
    http = site.served.http()
    rows = "size,mood\n" + "".join(f"{n},{('good', 'bad')[n % 2]}\n" for n in range(40))
    place = upload(http, rows, "moods.csv", "user_data").headers["location"]
    source = f"table:{place.rpartition('/')[2]}"
    assert f'href="/new?source={source}"' in http.get(place).text
    for typed, words in (
        ("", "<strong>One more choice.</strong> Column to predict: Pick the column"),
        ("mod", "There is no column &#39;mod&#39; in moods.csv. Pick the column"),
    ):
        wrong = send(http, "/new", "/new", source=source, column=typed)
        assert wrong.status_code == 400
        assert words in wrong.text
        assert '<option value="mood">mood</option>' in wrong.text
        assert 'id="column-wrong"' in wrong.text
    made = send(http, "/new", "/new", source=source, column="mood", seeds="2", name="moods")
    assert made.status_code == 303, made.text
    job = http.get(f"/v1/fine_tuning/jobs/{made.headers['location'].rpartition('/')[2]}").json()
    assert job["distillation"]["asked"]["seeds"] == 2
    wanted = select(jobs.c.asked).where(jobs.c.id == job["id"])
    with site.served.rows.reading() as found:
        asked = found.execute(wanted).scalar_one()["distillation"]
    assert (asked["recipe"]["questions"]["label"], asked["hold"]) == ("mood", True)
    assert send(http, "/new", "/new", source="table:file-none", column="mood").status_code == 404


def test_white_space_is_a_part_of_a_columns_name(site: Site) -> None:
    http = site.served.http()
    rows = "size, mood ,place\n" + "".join(f"{n},{('good', 'bad')[n % 2]},x\n" for n in range(40))
    source = f"table:{upload(http, rows, 'moods.csv', 'user_data').headers['location'].rpartition('/')[2]}"
    shown = http.get("/new", params={"source": source}).text
    assert re.findall('<option value="([^"]*mood[^"]*)">', shown) == [" mood "], "a browser strips what has no value"
    made = send(http, "/new", "/new", source=source, column=" mood ")
    assert made.status_code == 303, made.text
    wanted = select(jobs.c.asked).where(jobs.c.id == made.headers["location"].rpartition("/")[2])
    with site.served.rows.reading() as found:
        assert found.execute(wanted).scalar_one()["distillation"]["recipe"]["questions"]["label"] == " mood "
    assert send(http, "/new", "/new", source=source, column=" size ").status_code == 303, (
        "typed around a name that has none"
    )


@pytest.mark.parametrize(
    ("name", "text", "columns", "first"),
    [
        ("a.tsv", "a\tb\n1\tx, y\n", ["a", "b"], [["1", "x, y"]]),
        ("a.csv", 'a,b\n1,"x\ny"\n', ["a", "b"], [["1", "x\ny"]]),
        ("a.jsonl", '{"a": 1}\n{"b": null, "a": 2}\n', ["a", "b"], [["1", ""], ["2", ""]]),
        ("a.jsonl", "[1]\n", [], []),
        ("a.jsonl", "{", [], []),
        ("a.parquet", "no", [], []),
        ("a.csv", "", [], []),
        ("a.csv", "a,b\n\udcff,1\n", [], []),
    ],
)
def test_columns_and_first_rows_of_a_table(
    tmp_path: Path, name: str, text: str, columns: list[str], first: list[list[str]]
) -> None:
    (tmp_path / "kept").write_bytes(text.encode(errors="surrogateescape"))
    assert tables.head(tmp_path / "kept", name) == (columns, first)


def parquet(footer: bytes) -> bytes:
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}\n"),
        ("a.jsonl", b'{"a\\udc00": "\\ud83d"}\n'),
        ("a.parquet", parquet(b"\x00" * 100)),
        ("a.parquet", parquet(b"\x00" * (tables.MOST_FOOTER_BYTES + 1))),
    ],
    ids=["deep", "half of a letter", "footer", "long footer"],
)
def test_a_table_that_cannot_be_read_has_a_page(site: Site, name: str, data: bytes) -> None:
    http = site.served.http()
    form = {"form_token": token(http, "/data"), "purpose": "user_data"}
    place = http.post("/data", data=form, files={"file": (name, data)}).headers["location"]
    source = f"table:{place.rpartition('/')[2]}"
    assert http.get(place).status_code == 200
    assert http.get("/new", params={"source": source}).status_code == 200
    answer = send(http, "/new", "/new", source=source, column="no such")
    assert answer.status_code in (303, 400), answer.text


def test_half_a_letter_is_shown_as_none(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text('{"a\\udc00": "x\\ud83d"}\n')
    assert tables.head(tmp_path / "kept", "a.jsonl") == (["a\ufffd"], [["x\ufffd"]])


def test_the_columns_of_a_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet_files.write_table(pa.table({"a": [1], " b ": ["x"]}), tmp_path / "kept")
    assert tables.head(tmp_path / "kept", "a.parquet") == (["a", " b "], [])

    def refuse(path: Path) -> None:
        raise pa.ArrowNotImplementedError("a type of columns")

    monkeypatch.setattr(parquet_files, "read_schema", refuse)
    assert tables.head(tmp_path / "kept", "a.parquet") == ([], [])
    (tmp_path / "kept").write_bytes(parquet(b"\x00" * (tables.MOST_FOOTER_BYTES + 1)))
    monkeypatch.setattr(parquet_files, "read_schema", lambda path: pytest.fail("it was read"))
    assert tables.head(tmp_path / "kept", "a.parquet") == ([], [])


def test_of_a_wide_table_some_columns_are_shown(site: Site) -> None:
    http = site.served.http()
    rows = "".join(json.dumps({f"{line}.{n}": n for n in range(3000)}) + "\n" for line in range(20))
    place = upload(http, rows, "wide.jsonl", "user_data").headers["location"]
    source = f"table:{place.rpartition('/')[2]}"
    shown = http.get(place).text
    assert "200 columns, and 59,800 more" in shown
    assert (shown.count("<th "), shown.count("<td>")) == (200, 4000)
    typed = http.get("/new", params={"source": source}).text
    assert '<input id="column"' in typed
    assert len(typed) < 200_000
    names, _ = tables.head(site.served.root / "files" / place.rpartition("/")[2], "wide.jsonl")
    assert tables.body({"id": "file-x", "filename": "wide.jsonl"}, names, "19.2999")["model"] == tables.MODEL
    assert "There is no column &#39;20.1&#39;" in send(http, "/new", "/new", source=source, column="20.1").text


def test_a_table_is_what_a_recipe_reads_as_one() -> None:
    assert tables.SUFFIXES == stillroom.tables.SUFFIXES


def test_of_a_long_table_whole_lines_are_shown(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a,b\n" + f"{'x' * 9000},{'é' * 900}\n" * 40)
    names, rows = tables.head(tmp_path / "kept", "long.csv")
    assert names == ["a", "b"]
    assert 2 <= len(rows) < 20
    assert {tuple(map(len, row)) for row in rows} == {(9000, 900)}
