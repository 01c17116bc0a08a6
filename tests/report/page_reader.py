"""Reads a report as a browser would, and checks what holds for every page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """What a reader gets: the words outside scripts and styles, every tag, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def check_page(text: str) -> Page:
    """What holds for every page whatever it shows."""
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.open == []
    assert not re.search(r"\b(nan|None|null|inf|undefined)\b", page.text)
    assert "Markup(" not in text
    for _, attrs in page.tags:
        for key in ("src", "href", "xlink:href", "action", "srcset"):
            address = attrs.get(key)
            assert address is None or address.startswith(("data:", "#")), address
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    idents = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(idents) == len(set(idents))
    for _, attrs in page.tags:
        assert set((attrs.get("aria-labelledby") or "").split()) <= set(idents)
    assert len(page.all("script")) == 1
    return page


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    return [path] if items is None else [leaf for key, value in items for leaf in leaves(value, (*path, key))]


def put(tree: Any, path: tuple[Any, ...], value: object) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value
