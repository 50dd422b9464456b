"""Entry point: the command tree, and how a command that fails ends.

Nothing heavy is imported here: ``divkd --help`` answers before torch would have been found.
"""

import sys
from typing import ClassVar

import click

from divkd import __version__
from divkd.cli import simulate
from divkd.cli.analyse import analyse
from divkd.cli.contents import Contents
from divkd.cli.evaluate import evaluate
from divkd.cli.figures import figures
from divkd.cli.report import report
from divkd.cli.train import train
from divkd.cli.use import export, predict
from divkd.shared.errors import InputError, RunError


class Divkd(Contents):
    """The whole of divkd, by what one wants to do; a command that is named nowhere is listed all the same."""

    sections: ClassVar = {
        "Theory": ("simulate",),
        "Practice": ("train", "predict", "export"),
        "Evaluate": ("evaluate", "analyse"),
        "Figures": ("figures", "report"),
    }


@click.group(cls=Divkd, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="divkd")
def cli() -> None:
    """Why do ensembles of neural networks work, and can one cheap network keep what they know?

    The theory is simulated, the practice is trained, and the two are set side by side. `divkd COMMAND --help` has the
    options of a command, and examples.
    """


for command in (simulate.group, train, analyse, evaluate, predict, export, figures, report):
    cli.add_command(command)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed while running, 2 bad input, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong is told in one line."""
    resumable = arguments[:1] in (["simulate"], ["train"], ["analyse"])
    try:
        cli.main(arguments, prog_name="divkd", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _end(error.format_message(), 2)
    except InputError as error:
        return _end(str(error), 2)
    except RunError as error:
        return _end(str(error), 1)
    except OSError as error:
        return _end(f"{error}; what is finished is kept: mend that, then --resume" if resumable else str(error), 1)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _end("interrupted; --resume goes on from here" if resumable else "interrupted", 130)
    except (MemoryError, RuntimeError) as error:
        # torch reports a full device or host as a RuntimeError; any other one is a bug and shows its traceback.
        full = "out of memory" in str(error) or "can't allocate memory" in str(error)
        if not isinstance(error, MemoryError) and not full:
            raise
        size = "--batch-size" if arguments[:1] == ["train"] else "--train-samples"
        mend = f"what is finished is kept: lower --members or {size}, then --resume"
        return _end(f"out of memory; {mend if resumable else 'give fewer samples or members'}", 1)
    return 0


def _end(message: str, code: int) -> int:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    return code
