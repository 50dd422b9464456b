"""Help that reads like a table of contents: commands by section, one whole line each, and options by section."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import click

from divkd.shared.errors import InputError

WIDEST = 10_000  # help is as wide as the terminal
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` name; refuses an option of one value that is given two."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, click.Group):
            once(command, rest)
        return name, command, rest

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


class Sectioned(click.Command):
    """A command whose help has its options by `sections`, {title: their names}, and what no section names under "Run".

    `lists`, {title: {term: meaning}}, stand before the options.
    """

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Sequence[str]],
        lists: Mapping[str, Mapping[str, str]] = {},
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections, self.lists = sections, lists

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lists, then the options by section."""
        for title, meanings in self.lists.items():
            with formatter.section(title):
                formatter.write_dl(list(meanings.items()))
        records = [
            (one.name, one.get_help_record(ctx)) for one in self.get_params(ctx) if isinstance(one, click.Option)
        ]
        named = {name for names in self.sections.values() for name in names}
        rest = [name for name, _ in records if name not in named]
        for title, names in (*self.sections.items(), ("Run", rest)):
            rows = [record for name, record in records if name in names and record is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def once(command: click.Command, args: Iterable[str]) -> None:
    """Raise `InputError` where `args` give an option of one value twice: the last would win without a word."""
    options = {name: one for one in command.params if isinstance(one, click.Option)
               for name in (*one.opts, *one.secondary_opts)}  # fmt: skip
    given: dict[click.Option, str] = {}
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return
        name, equals, value = arg.partition("=")
        option = options.get(name)
        if option is None:
            continue
        said = arg if option.is_flag else f"{name} {value if equals else next(rest, '')}".rstrip()
        before = given.get(option)
        # a flag that is repeated says the same again, --flip --no-flip does not
        if before is not None and not option.multiple and not (option.is_flag and said == before):
            raise InputError(f"{before} and {said} are both given; give one of the two")
        given[option] = said
