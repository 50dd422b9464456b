"""``divkd report``: one page about finished runs, in one file."""

from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill

import click

from divkd.cli.options import PATH, check_file
from divkd.shared.errors import InputError
from divkd.shared.files import write_bytes


@click.command(short_help="Write one HTML page about finished runs, to read and to send.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option("--out", type=PATH, default=Path("report.html"), show_default=True, metavar="FILE.html")
@click.option("--title", metavar="TEXT", help="Heading of the page. [default: the names of the runs]")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
def report(runs: tuple[Path, ...], out: Path, title: str | None, overwrite: bool) -> None:
    """Write one HTML page about finished runs: tables, figures, configuration, how to repeat them.

    RUN is a folder that holds results.json, of any command; several are set side by side. The page needs no network
    and no JavaScript: figures are drawn from the numbers and lie in the file. What was seen
    stands on it first and is printed, in words.

    \b
    divkd report runs/theory runs/digits runs/digits-analysis --out report.html
    """
    check_file(out, overwrite, ".html", ".htm")

    from divkd.report.commands import REPORTS
    from divkd.report.page import page
    from divkd.report.sources import read_sources

    sources = read_sources(runs, REPORTS)
    names = [source.name for source in sources]
    shown = ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more runs"
    content = page(sources, title or f"divkd: {shown}")
    try:
        write_bytes(out, content)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror}); give a file you can write to") from error
    width = max(40, get_terminal_size().columns - 1)
    for source in sources:
        sentences = REPORTS[source.results["command"]].summary(source.results)
        if sentences:
            click.echo(f"{source.name}:")
        for sentence in sentences:
            click.echo(
                fill(
                    sentence,
                    width,
                    initial_indent="  ",
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
    click.echo(f"{out}: {len(names)} {'run' if len(names) == 1 else 'runs'}, {len(content) / 1e6:.1f} MB")
