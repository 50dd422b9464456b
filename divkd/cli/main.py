"""Entry point: the command tree, and how a command that fails ends.

Nothing heavy is imported here: ``divkd --help`` answers before torch would have been found.
"""

import os
import signal
import sys
from typing import ClassVar

import click

from divkd import __version__
from divkd.cli import simulate
from divkd.cli.analyse import analyse
from divkd.cli.contents import WIDEST, Contents
from divkd.cli.evaluate import evaluate
from divkd.cli.experiments import experiment
from divkd.cli.figures import figures
from divkd.cli.report import report
from divkd.cli.sweep import sweep
from divkd.cli.train import train
from divkd.cli.use import export, predict
from divkd.shared.errors import InputError, RunError
from divkd.shared.machine import launched


class Divkd(Contents):
    """The whole of divkd, by what one wants to do; a command that is named nowhere is listed all the same."""

    sections: ClassVar = {
        "Theory": ("simulate",),
        "Practice": ("train", "experiment", "predict", "export"),
        "Evaluate": ("evaluate", "analyse"),
        "Both": ("sweep",),
        "Figures": ("figures", "report"),
    }


@click.group(cls=Divkd, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST})
@click.version_option(__version__, prog_name="divkd")
def cli() -> None:
    """Why do ensembles of neural networks work, and can one cheap network keep what they know?

    The theory is simulated, the practice is trained, and the two are set side by side. `divkd COMMAND --help` has the
    options of a command, and examples.
    """


for command in (simulate.group, train, experiment, analyse, evaluate, sweep, predict, export, figures, report):
    cli.add_command(command)


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which systems and schedulers end a process: it stops as by Ctrl-C, with an exit code of its own."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted, 143 terminated."""
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing would catch what it raises now
    if launched()[1] > 1 and sys.argv[1:2] == ["train"]:
        # A thread of gloo that lets go of a tensor while Python ends can abort the process, after all is written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _terminate(*_: object) -> None:
    raise Terminated


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong is told in one line."""
    try:
        cli.main(arguments, prog_name="divkd", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.BadParameter as error:
        return _end(f"{error.format_message().removesuffix('.')}{_allowed(error.param)}", 2)
    except click.ClickException as error:
        return _end(error.format_message(), 2)
    except InputError as error:
        return _end(str(error), 2)
    except RunError as error:
        return _end(str(error), 1)
    except OSError as error:
        again = _again(error)
        if isinstance(error, PermissionError) and not again:  # of what was given, before anything was made
            return _end(f"{error.filename or 'a file'}: {error.strerror}; give what you may read and write", 2)
        return _end(f"{error}; what is finished is kept: mend that, then {again} goes on" if again else str(error), 1)
    except (KeyboardInterrupt, click.exceptions.Abort) as error:
        again = _again(error)
        how, code = ("terminated", 143) if isinstance(error.__cause__ or error, Terminated) else ("interrupted", 130)
        return _end(f"{how}; {again} goes on from here" if again else how, code)
    except (MemoryError, RuntimeError) as error:
        # torch reports a full device or host as a RuntimeError; any other one is a bug and shows its traceback.
        full = "out of memory" in str(error) or "can't allocate memory" in str(error)
        if not isinstance(error, MemoryError) and not full:
            raise
        # A resumed run keeps its sizes, so that a smaller one is another run.
        mend = SMALLER.get(arguments[0], "give fewer samples or members")
        return _end(f"out of memory; {mend}{' and a new --out' if _again(error) else ''}", 1)
    return 0


# What takes less memory, by command.
SMALLER = {
    "train": "give a lower --batch-size or fewer --members",
    "experiment": "give a lower --batch-size or fewer --members",
    "simulate": "give fewer --members, or fewer samples",
    "analyse": "give fewer --images",
}


def _allowed(given: click.Parameter | None) -> str:
    """What an option that is a number may be; click itself names the type that it has for it."""
    kind = given.type if given else None
    if not isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return ""
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    range_of = f" from {low:g} to {high:g}" if low is not None and high is not None else ""
    return f"; give a {'whole number' if kind.name.startswith('integer') else 'number'}{range_of}"


def _again(error: BaseException) -> str:
    """The command that goes on with the run that `error` stopped, as `carry_out` noted it; empty where none began."""
    # click turns a KeyboardInterrupt into an Abort that it causes
    return str(getattr(error.__cause__ or error, "__notes__", [""])[-1])


def _end(message: str, code: int) -> int:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    return code
