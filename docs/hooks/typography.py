"""Formulas as MathML, made when the manual is built; numbers and options that stay on one line."""

import re
from typing import Any

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"\$`([^`]+)`\$")
OUTSIDE = re.compile(r"(<pre.*?</pre>|<math.*?</math>|<[^>]*>)", re.S)  # in HTML: what is no text
NUMBER = r"[-+−]?\d[\d.,]*(?:e-?\d+)?"
JOINED = re.compile(rf"(?<=\d) ± (?=\d)|(?<=\d) to (?={NUMBER})|(?<=\d) (?=%)")
WORD = re.compile(r"(?<![\w-])-{1,2}\w[\w-]*|\w+(?:-\w+)+")  # in code: an option, a name with hyphens
CODE = re.compile(r"(<pre.*?</pre>)|(?<=<code>)([^<]+)(?=</code>)", re.S)
CELL = re.compile(rf"(?<=<td>){NUMBER}(?:, {NUMBER})+(?=</td>)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with MathML for its blocks ```math and, in its sentences, for $`...`$ (called by mkdocs)."""
    end, parts = 0, []
    for fence in FENCE.finditer(markdown):
        parts.append(INLINE.sub(inline, markdown[end : fence.start()]))
        parts.append(f'<div class="formula">{mathml(fence[2], "block")}</div>' if fence[1] == "math" else fence[0])
        end = fence.end()
    return "".join([*parts, INLINE.sub(inline, markdown[end:])])


def on_page_content(html: str, **_: Any) -> str:
    """The page with a mean and its spread, the ends of an interval, numbers of a cell and options on one line each."""
    html = CODE.sub(lambda code: code[1] or WORD.sub(r'<span class="word">\g<0></span>', code[2]), html)
    html = CELL.sub(lambda cell: cell[0].replace(" ", "\N{NO-BREAK SPACE}"), html)
    parts = OUTSIDE.split(html)
    parts[::2] = [JOINED.sub(lambda gap: gap[0].replace(" ", "\N{NO-BREAK SPACE}"), text) for text in parts[::2]]
    return "".join(parts)


def inline(formula: re.Match[str]) -> str:
    """The MathML of a formula in a sentence; in a span, as a line that begins with <math> is a block."""
    return f"<span>{mathml(formula[1], 'inline')}</span>"


def mathml(formula: str, display: str) -> str:
    """The MathML of a formula in TeX, on one line."""
    from latex2mathml.converter import convert

    return convert(" ".join(formula.split()), display=display)
