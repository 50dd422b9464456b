"""The help of a group of commands, read like a table of contents: by section, one whole line each."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import click

WIDTH = 100  # characters of a command's line: more than any needs, so that none ends in dots


class Contents(click.Group):
    """A group whose help lists `sections`, {title: names of commands in the usual order of work}.

    A name that the group does not have is passed over; a command that no section names is listed under "More".
    """

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the sections, then the others."""
        placed = [name for names in self.sections.values() for name in names if name in self.commands]
        return placed + [name for name in super().list_commands(ctx) if name not in placed]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section that holds a command, its lines aligned with those of the others."""
        commands = {name: self.commands[name] for name in self.list_commands(ctx)}
        lines = {name: command.get_short_help_str(WIDTH) for name, command in commands.items() if not command.hidden}
        placed = [name for names in self.sections.values() for name in names]
        more = [name for name in lines if name not in placed]
        widest = max(map(len, lines), default=0)
        for title, names in (*self.sections.items(), ("More", more)):
            rows = [(name.ljust(widest), lines[name]) for name in names if name in lines]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
