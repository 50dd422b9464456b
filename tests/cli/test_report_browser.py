"""A page of `divkd report` in a browser: no complaint, nothing wider than the window."""

from pathlib import Path

import pytest
from browser import Browser, find
from report_pages import COMMITTED, changed, report

from divkd.report import page


@pytest.mark.skipif(find() is None, reason="no chromium, chromium-browser, google-chrome or chrome on this machine")
def test_a_browser_shows_it_at_any_width_without_a_complaint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "theory_beside_practice", lambda *_: None)
    drawn = page.figures
    monkeypatch.setattr(page, "figures", lambda run: drawn(run) if "cells" in run.results else [])
    changed(COMMITTED / "multiview-toy", Path("a-name-that-is-far-too-long-to-fit-" + 3 * "on-a-telephone-"), dict)
    names = ("cifar10-cpu", "multiview-default", "multiview-ablations")
    report(*(COMMITTED / name for name in names), next(Path().glob("a-name*")))
    papers: list[object] = []
    with Browser(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (400, False), (1280, True)):
            browser.open(Path("page.html"), width, dark=dark)
            assert browser.read("innerWidth") == width
            assert browser.read("document.documentElement.scrollWidth") <= width
            assert browser.read("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            assert browser.read("[...document.images].every(image => image.clientWidth <= innerWidth)")
            assert browser.complaints == []
            papers.append(browser.read("getComputedStyle(document.body).backgroundColor"))
        assert papers[0] == papers[1] != papers[2]
        assert browser.read("document.title").startswith("divkd: cifar10-cpu and 3 more runs")
        browser.open(Path("page.html"), 400)
        # a table that is wider than the page moves inside its own frame
        assert browser.read("[...document.querySelectorAll('.scroll')].some(one => one.scrollWidth > one.clientWidth)")
        # what a line is of stays in sight
        stays = """[...document.querySelectorAll('.scroll')].every(one => {
            one.scrollLeft = 200
            const name = one.querySelector('tbody th').getBoundingClientRect()
            return name.left - one.getBoundingClientRect().left < 1 && name.width < innerWidth / 2 })"""
        assert browser.read(stays)
        # on paper nothing is cut, and the configuration is open
        browser.open(Path("page.html"), 702)  # A4 less its margins
        hidden = "document.querySelector('details dl').getBoundingClientRect().height"
        browser.call("Emulation.setEmulatedMedia", {"media": "print"})
        assert float(str(browser.read(hidden))) > 100
        fits = (
            "[...document.querySelectorAll('table')].every(one => one.getBoundingClientRect().right <= innerWidth + 1)"
        )
        assert browser.read(fits)
        assert browser.read("document.documentElement.scrollWidth") <= 702
