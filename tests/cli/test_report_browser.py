"""A page of `divkd report` in a browser: no complaint, nothing wider than the window."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

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


@pytest.mark.skipif(find() is None, reason="no chromium, chromium-browser, google-chrome or chrome on this machine")
def test_a_hostile_run_runs_nothing_and_fetches_nothing(tmp_path, monkeypatch):
    """Whatever stands in a run's files is text: no script, no image, no link of theirs is met by the browser."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "figures", lambda run: [])  # pictures of long names, which matplotlib warns of
    monkeypatch.setattr(page, "theory_beside_practice", lambda *_: None)
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        hostile = (
            f"\"'></td></style></title><script src={here}/script></script><script>document.title = 'taken'</script>"
            f"<img src={here}/image onerror=\"document.title = 'taken'\"><link rel=stylesheet href={here}/style>"
            f"<iframe src={here}/frame></iframe><meta http-equiv=refresh content='0;url={here}/away'>"
            f"<svg onload=\"document.title = 'taken'\"><style>@import url({here}/import);</style>"
        )

        def training(results):
            results["dataset"] = results["network"] = hostile
            results["summary"][-1]["method"] = hostile

        def cells(results):
            results["cells"][0]["failed"] = results["cells"][1]["name"] = hostile

        made = [changed(COMMITTED / "cifar10-cpu", Path("training"), training)]
        made.append(changed(COMMITTED / "multiview-window", Path("<script>window"), cells))
        for folder in made:
            content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            facts = {key: hostile if isinstance(value, str) and key != "command" else value
                     for key, value in content.items()}  # fmt: skip
            (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")
        text = report(*made, "--title", hostile).text
        assert "".join(text).count("taken") > 10
        with Browser(tmp_path / "profile") as browser:
            browser.open(Path("page.html"), 1280)
            assert str(browser.read("document.title")).startswith("\"'></td>")
            foreign = "script, iframe, svg, [http-equiv=refresh], link:not([href^='data:'])"
            assert browser.read(f'document.querySelectorAll("{foreign}").length') == 0
            assert browser.read("document.images.length") == 0
            assert str(browser.read("location.href")).endswith("page.html")
            assert browser.complaints == []
        server.shutdown()
    assert asked == []
