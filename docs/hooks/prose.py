"""Docstrings and help texts as Markdown: prose stays prose, formulas and aligned columns keep their form."""

import re

CODE = re.compile(r"(`+[^`]+`+)")
ARXIV = re.compile(r"\barXiv[: ](\d{4}\.\d{4,5})")
COLUMNS = re.compile(r"(\S.*?) {3,}(\S.*)")  # a name and, three or more spaces on, what it means
SPECIAL = {character: f"&#{ord(character)};" for character in "\\*_{}[]<>|#~^$"}


def prose(text: str) -> str:
    """The Markdown of a text whose paragraphs are prose, indented formulas, rows of `name   meaning`, or commands.

    Commands follow a line that holds \\b alone, as in click's help texts.
    """
    return "\n\n".join(paragraph(part) for part in re.split(r"\n\s*\n", text) if part.strip())


def paragraph(text: str) -> str:
    """The Markdown of one paragraph."""
    if text.startswith("\b"):
        return fence(text.strip("\b\n"), "sh")
    lines = text.rstrip().splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    lines = [line[indent:] for line in lines]
    starts = [line for line in lines if not line.startswith(" ")]
    if all(COLUMNS.fullmatch(line) for line in starts):
        return table(lines)
    return fence("\n".join(lines), "text") if indent else escape(" ".join(lines))


def table(lines: list[str]) -> str:
    """Rows `name   meaning` as a table; an indented line goes on with the row above it."""
    rows: list[list[str]] = []
    for line in lines:
        if found := COLUMNS.fullmatch(line) if not line.startswith(" ") else None:
            rows.append(list(found.groups()))
        else:
            rows[-1][1] += f" {line.strip()}"
    body = [f"| {escape(name)} | {escape(meaning)} |" for name, meaning in rows]
    return "\n".join(["| | |", "|---|---|", *body])


def fence(text: str, language: str) -> str:
    """`text` as it stands."""
    return f"```{language}\n{text}\n```"


def escape(text: str) -> str:
    """`text` on one line without anything that Markdown would read as markup; code stays code, papers become links."""
    parts = CODE.split(" ".join(text.split()))
    parts[::2] = ["".join(SPECIAL.get(character, character) for character in part) for part in parts[::2]]
    return ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", "".join(parts))
