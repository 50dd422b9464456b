"""Docstrings for mkdocstrings: as Markdown, and the comment behind a field is what the field means."""

import re
from typing import Any

import griffe
from prose import prose

COMMENT = re.compile(r" # (?!type:|noqa|fmt:)(.+)$")


class Docstrings(griffe.Extension):
    """Called by griffe for everything that it reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn the docstring of anything into Markdown; give a field without one its comment."""
        if obj.is_attribute and obj.docstring is None and obj.lines and (found := COMMENT.search(obj.lines[-1])):
            obj.docstring = griffe.Docstring(found[1], parent=obj)
        if obj.docstring is not None:
            obj.docstring.value = prose(obj.docstring.value)
