"""Links that leave docs/ work on the site too: what they lead to is brought along."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Pages that lie beside docs/, by their name on the site. The front page stands for the README.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root, and files that pages link to."""
    root = Path(config.docs_dir).parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / name).read_text(encoding="utf-8")))
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
            link += "README.md"
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
