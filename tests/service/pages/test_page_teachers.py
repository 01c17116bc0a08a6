"""A teacher is changed on a page of its own: what is typed counts, what is wrong stands by its field, its key stays unseen."""

from __future__ import annotations

import html
import re
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from service.pages.site import Site, send
from stillroom.service.door.vault import Vault
from stillroom.service.rows.tables import teachers
from stillroom.service.teachers.teacher_rows import key_of

KEY, OTHER_KEY = "sk-first-canary-4242", "sk-second-canary-1717"
TERMS = {"who": "Ann", "when": "2026-01-31", "url": "https://example.com/terms", "version": "3"}
PLACE = "https://93.184.215.14/v1"


def made(http: httpx2.Client, name: str, **more: Any) -> dict[str, Any]:
    body = {"name": name, "base_url": PLACE, "model": "m-1", "key": KEY, "price": {"input": 0.15, "output": 2}}
    answer = http.post("/api/teachers", json={**body, "licence": "MIT", "accepted_terms": TERMS, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def now(http: httpx2.Client, teacher: dict[str, Any]) -> dict[str, Any]:
    return dict(http.get(f"/api/teachers/{teacher['id']}").json())


def typed(text: str) -> dict[str, str]:
    """What stands in the form of a page, as a browser would send it."""
    fields = (dict(re.findall(r'([\w-]+)="([^"]*)"', one)) for one in re.findall("<input [^>]*>", text))
    boxes = {one.get("name"): one for one in fields if one.get("type") != "hidden"}
    return {str(name): html.unescape(one.get("value", "")) for name, one in boxes.items() if name != "not_distillable"}


def sealed_key(site: Site, teacher: dict[str, Any]) -> str | None:
    with site.served.rows.reading() as rows:
        row = rows.execute(select(teachers).where(teachers.c.id == teacher["id"])).mappings().one()
    return key_of(SimpleNamespace(vault=Vault(site.served.root)), row)


def test_a_form_sent_as_it_came_changes_nothing(site: Site) -> None:
    http = site.served.http()
    teacher = made(http, "as-it-was")
    at = f"/teachers/{teacher['id']}"
    assert f'href="{at}"' in http.get("/teachers").text
    text = http.get(at).text
    assert KEY not in text
    fields = typed(text)
    assert fields == {
        "name": "as-it-was", "base_url": PLACE, "model": "m-1", "key": "", "price_input": "0.15", "price_output": "2",
        "licence": "MIT", **{f"terms_{name}": said for name, said in TERMS.items()},
    }  # fmt: skip
    answer = send(http, at, at, **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/teachers?changed=as-it-was")
    assert "The teacher as-it-was was changed." in http.get(answer.headers["location"]).text
    assert now(http, teacher) == teacher
    assert sealed_key(site, teacher) == KEY


def test_what_is_typed_counts_and_an_emptied_field_is_empty(site: Site) -> None:
    http = site.served.http()
    teacher = made(http, "to-be-another")
    at = f"/teachers/{teacher['id']}"
    fields = typed(http.get(at).text)
    wanted = {**fields, "name": "another", "price_input": "1", "price_output": "", "key": OTHER_KEY}
    answer = send(http, at, at, **wanted, not_distillable="yes")
    assert answer.status_code == 303, answer.text
    expected = {
        **teacher,
        "name": "another",
        "price": {"input": 1, "output": 0},
        "key": "...1717",
        "distillable": False,
    }
    assert now(http, teacher) == expected
    assert sealed_key(site, teacher) == OTHER_KEY
    text = http.get(at).text
    assert re.search('name="not_distillable" value="yes" checked', text)
    assert not any(key in text + site.served.told() for key in (KEY, OTHER_KEY))
    kept = {name: typed(text)[name] for name in ("name", "base_url", "model")}
    assert send(http, at, at, **kept).status_code == 303
    gone = {"price": None, "licence": None, "accepted_terms": None, "distillable": True}
    assert now(http, teacher) == {**expected, **gone}
    assert sealed_key(site, teacher) == OTHER_KEY


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"name": "a:b"}, "name", "name: should begin with a letter or digit"),
        ({"name": "taken"}, "name", "There is a teacher named"),
        ({"base_url": "http://10.0.0.1/v1", "key": OTHER_KEY}, "base_url", "This address cannot be a teacher"),
        ({"base_url": "https://93.184.215.15/v1"}, "key", "give the key for this one too"),
        ({"model": ""}, "model", "at least 1 character"),
        ({"key": f"{OTHER_KEY} more"}, "key", "without spaces"),
        ({"price_output": "much"}, "price_output", "price.output: should be a number"),
        ({"licence": "x" * 1001}, "licence", "at most 1000 characters"),
        ({"terms_when": "yesterday"}, "terms_when", "should match pattern"),
        ({"terms_who": ""}, "terms_who", "at least 1 character"),
    ],
)
def test_what_is_wrong_stands_by_its_field_and_nothing_changes(
    site: Site, change: dict[str, str], field: str, words: str
) -> None:
    http = site.served.http()
    teacher = made(http, f"wrong-{field}-{len(words)}")
    if change.get("name") == "taken":
        made(http, "taken")
    at = f"/teachers/{teacher['id']}"
    fields = {**typed(http.get(at).text), "model": "another", **change}
    answer = send(http, at, at, **fields)
    assert answer.status_code == (409 if change.get("name") == "taken" else 400)
    told = re.findall(r'<span class="wrong" id="(\w+)-wrong">([^<]*)</span>', answer.text)
    assert [name for name, _ in told] == [field]
    assert words in html.unescape(told[0][1])
    marked = re.findall(
        r'<input id="(\w+)"[^>]*aria-describedby="(?:\w+-hint)? (\w+)-wrong" aria-invalid="true"', answer.text
    )
    assert marked == [(field, field)]
    assert typed(answer.text) == {**fields, "key": ""}, "what was typed is there to be mended, but no key"
    assert not any(key in answer.text for key in (KEY, OTHER_KEY))
    assert now(http, teacher) == teacher
    assert sealed_key(site, teacher) == KEY


def test_a_new_teachers_wrong_field_is_marked_too(site: Site) -> None:
    answer = send(site.served.http(), "/teachers", name="new", base_url=PLACE, model="m", terms_who="Ann")
    assert answer.status_code == 400
    assert re.findall(r'<span class="wrong" id="(\w+)-wrong">', answer.text) == ["terms_when"]


def test_another_address_takes_its_key_with_it(site: Site) -> None:
    http = site.served.http()
    teacher = made(http, "moving")
    at = f"/teachers/{teacher['id']}"
    moved = {**typed(http.get(at).text), "base_url": "https://93.184.215.15/v1/", "key": OTHER_KEY}
    assert send(http, at, at, **moved).status_code == 303
    assert now(http, teacher) == {**teacher, "base_url": "https://93.184.215.15/v1", "key": "...1717"}


def test_an_address_that_nobody_could_add_any_more_hinders_no_other_change(site: Site) -> None:
    http = site.served.http()
    teacher = made(http, "no-more-allowed")
    with site.served.rows.writing() as rows:
        rows.execute(update(teachers).where(teachers.c.id == teacher["id"]).values(base_url="http://10.0.0.1/v1"))
    at = f"/teachers/{teacher['id']}"
    answer = send(http, at, at, **{**typed(http.get(at).text), "licence": ""})
    assert answer.status_code == 303, answer.text
    assert now(http, teacher)["licence"] is None


def test_only_those_who_may_set_teachers_see_and_change_one(site: Site) -> None:
    http = site.served.http()
    teacher = made(http, "not-theirs")
    at = f"/teachers/{teacher['id']}"
    reader = site.served.http(site.served.key("looks at teachers", ("read", "write")))
    stranger = site.served.http(site.served.key("a stranger", project=site.served.project("elsewhere")))
    for other, status in ((reader, 403), (stranger, 404)):
        for answer in (other.get(at), send(other, at, name="theirs", base_url=PLACE, model="m")):
            assert answer.status_code == status
            assert "m-1" not in answer.text
    assert at not in reader.get("/teachers").text
    assert now(http, teacher) == teacher
