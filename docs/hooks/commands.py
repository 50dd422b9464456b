"""The command reference, made from the commands themselves whenever the manual is built."""

import inspect
from collections.abc import Iterator
from typing import Any

import click
from prose import escape, prose

from divkd.cli.main import cli

PLACE = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with the reference in the place that is kept for it (called by mkdocs)."""
    return markdown.replace(PLACE, "\n".join(reference())) if PLACE in markdown else markdown


def reference() -> Iterator[str]:
    """The lines of the reference: every command with its usage, help, and options."""
    with click.Context(cli, info_name="divkd", **cli.context_settings) as root:
        for name in cli.list_commands(root):
            yield from section(cli.commands[name], name, root, 2)


def section(command: click.Command, name: str, parent: click.Context, level: int) -> Iterator[str]:
    """The lines of one command, and of those below it."""
    with click.Context(command, info_name=name, parent=parent) as context:
        path = context.command_path
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"\n{'#' * level} {path}\n\n```text\n{path} {usage}\n```\n"
        yield prose(inspect.cleandoc(command.help or "")) + "\n"
        records = [option.get_help_record(context) for option in command.get_params(context)]
        rows = [record for record in records if record and record[0] != "-h, --help"]
        if rows:
            yield "| option | |\n|---|---|"
            yield from (f"| `{option}` | {escape(meaning)} |" for option, meaning in rows)
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                yield from section(command.commands[below], below, context, level + 1)
