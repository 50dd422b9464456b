"""Links that leave docs/ work on the site too: what they lead to is brought along, and every run gets a page."""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Pages that lie beside docs/, by their name on the site. The front page stands for the README.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root, one for every run under results/, and files that pages link to."""
    docs = Path(config.docs_dir)
    root = docs.parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / name).read_text(encoding="utf-8")))
    for results in sorted(docs.glob("results/*/results.json")):
        folder = results.parent
        files.append(File.generated(config, f"results/{folder.name}/index.md", content=run_page(folder)))
    for page in list(files.documentation_pages()):
        for _, link, _ in LINK.findall(page.content_string):
            target = outside(page.src_uri, link)
            if target and target not in PAGES and (root / target).is_file() and copied(target) not in files.src_uris:
                files.append(File.generated(config, copied(target), content=(root / target).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """The page with its links to files beside docs/ and to folders turned to where the site has them."""
    here = page.file.src_uri

    def turn(found: re.Match[str]) -> str:
        start, link, anchor = found[1], found[2], found[3] or ""
        target = outside(here, link)
        if target:
            link = posixpath.relpath(place(target), posixpath.dirname(here))
        elif link.endswith("/"):
            link += "index.md"
        return f"{start}{link}{anchor})"

    return LINK.sub(turn, markdown)


def outside(page: str, link: str) -> str | None:
    """The path from the repository's root that `link` on `page` leads to, where it is not below docs/."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if page in PAGES.values():  # written at the root
        path = posixpath.relpath(link, "docs")
    return path.removeprefix("../") if path.startswith("../") else None


def place(target: str) -> str:
    """Where the site has `target`, a path from the repository's root."""
    return "index.md" if target == "README.md" else PAGES.get(target, copied(target))


def copied(target: str) -> str:
    """The place of a file of the repository that is no page; of Markdown as text, as its own links lead nowhere."""
    return f"repository/{target}{'.txt' if target.endswith('.md') else ''}"


def run_page(folder: Path) -> str:
    """The page of a committed run: what made it, its two files, its pictures."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pictures = sorted(path.name for path in folder.glob("figures/*.png"))
    return "\n\n".join(
        [
            f"# {folder.name}",
            f"A run of `divkd {config['command']}`. [What it shows](../README.md).",
            "[config.json](config.json) holds its configuration, versions and hardware, "
            "[results.json](results.json) its numbers.",
            *(f"![{name}](figures/{name})" for name in pictures),
        ]
    )
