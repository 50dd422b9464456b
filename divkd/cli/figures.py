"""``divkd figures``: theory beside practice, from finished runs alone."""

from pathlib import Path

import click

from divkd.shared.errors import InputError
from divkd.shared.files import read_json


@click.command(short_help="Draw theory beside practice, from two finished runs.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="RUN RUN")
@click.option("--out", type=click.Path(path_type=Path), default=Path("figures"), show_default=True, metavar="FOLDER")
def figures(runs: tuple[Path, ...], out: Path) -> None:
    """Set theory beside practice: a run of `simulate multiview` and a run of `train cifar`, in any order.

    Draws FOLDER/ensemble_gain.png: the error that is left, as a share of one network's, against the number of members.

    \b
    divkd figures runs/theory runs/digits --out figures
    """
    found = {}
    for run in runs:
        results = read_json(run / "results.json") if run.is_dir() else None
        if not isinstance(results, dict) or results.get("command") not in ("simulate multiview", "train cifar"):
            raise InputError(f"{run} is no finished run of divkd; give a folder that holds results.json")
        if results["command"] in found:
            raise InputError(f"{run} is a second run of '{results['command']}'; give one of each kind")
        found[results["command"]] = results
    for command in ("simulate multiview", "train cifar"):
        if command not in found:
            raise InputError(
                f"no run of '{command}' was given; make one with divkd {command} --out RUN and name it too"
            )

    from divkd.shared.report.beside import ensemble_gain

    try:
        click.echo(ensemble_gain(found["simulate multiview"], found["train cifar"], out / "ensemble_gain.png"))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"a results.json is incomplete ({error!r}); make the run again with --overwrite") from error
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror}); give a folder you can write to") from error
