"""Pages that `divkd report` writes, taken apart; and runs to write them of."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

from divkd.cli.main import run

COMMITTED = Path(__file__).parents[2] / "docs" / "results"
EMPTY = {"br", "hr", "img", "link", "meta"}


class Page(HTMLParser):
    """What a page holds: elements in order, the text of each table's cells, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # every element is closed, in order

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def lines(self):
        return [line for table in self.tables for line in table]


def report(*arguments) -> Page:
    assert run(["report", *map(str, arguments), "--out", "page.html"]) == 0
    return Page(Path("page.html").read_text(encoding="utf-8"))


def read(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def changed(source, target, change):
    """A copy of a run whose results.json `change` has edited."""
    target.mkdir()
    shutil.copy(source / "config.json", target)
    results = read(source)
    change(results)
    (target / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return target
