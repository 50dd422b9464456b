"""A cell of a sweep: a command with the values of one place of the grid, checked first and run later."""

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from divkd.shared.errors import InputError, RunError
from divkd.shared.files import read_json
from divkd.shared.manifest import begun, existing

if TYPE_CHECKING:
    from divkd.shared.run import Run


class Cell:
    """A run of `command` with `words`, for its `carry_out`, which asks whether it `goes_on` and lets it `borrow`."""

    def __init__(
        self, context: click.Context, command: click.Command, words: list[str], changes: dict[str, str]
    ) -> None:
        self.context, self.command, self.words, self.changes = context, command, words, changes
        joined = ",".join(f"{name}={value}" for name, value in changes.items())
        self.name = "".join(letter if letter.isalnum() or letter in "._=,:+-" else "_" for letter in joined)
        self.options: dict[str, Any] = {}
        self.known: dict[str, Any] = {}  # what makes it this run
        self.plan: tuple[str, ...] = ()
        self.shareable: Mapping[str, str] = {}
        self.asking, self.resumed = True, False
        self.cells: Sequence[Cell] = ()
        self.kept = False  # whether it is finished already
        self.failed: str | None = None

    @property
    def asked(self) -> str:
        """The command, as results.json names it."""
        return str(self.known["command"])

    def ask(self, out: Path | None, *, resume: bool, replaced: bool) -> None:
        """Have the command check all that it is given, and the folder unless it is `replaced`; nothing is written."""
        # a cell that was killed as it began may have no config.json yet
        there = out is not None and (bool(existing(out / self.name)) or begun(out / self.name))
        self.resumed = resume
        self.options = {"out": out and out / self.name, "resume": resume and there, "overwrite": replaced}
        self._call()
        if not self.known:
            raise InputError(f"{self.context.command_path}: '{self.command.name}' makes no run; give one that does")

    def carry_out(self, out: Path, cells: "Sequence[Cell]") -> None:
        """Run the cell, one of `cells`, unless it is finished; where it fails while running, keep why."""
        self.asking, self.cells = False, cells
        self.options["out"] = out / self.name
        try:
            self._call()
        except RunError as error:
            self.failed = " ".join(str(error).split())
            click.echo(f"divkd: {self.name} failed: {self.failed}", err=True)

    def _call(self) -> None:
        assert self.command.callback is not None
        # what a command warns of it says when it runs
        quiet = redirect_stderr(io.StringIO()) if self.asking else nullcontext()
        with quiet, self.command.make_context(self.command.name, list(self.words), parent=self.context) as inner:
            inner.invoke(self.command.callback, **{**inner.params, **self.options, "cell": self})

    def goes_on(
        self, command: str, config: dict[str, Any], plan: Sequence[str], shareable: Mapping[str, str],
        known: Mapping[str, Any],
    ) -> bool:  # fmt: skip
        """Whether to run it now; where it is only asked, take down what is going to be run."""
        if self.asking:
            from divkd.shared.run import check_run

            self.known, self.plan, self.shareable = {"command": command, "config": config}, tuple(plan), shareable
            self.known["data"] = (known.get("data") or {}).get("sha256")
            if self.options["out"] is not None:
                flags = {"resume": self.options["resume"], "overwrite": self.options["overwrite"]}
                check_run(self.options["out"], command, config, **flags, **known)
                self.kept = self.options["resume"] and self._finished(self.options["out"])
        return not (self.asking or self.kept)

    def _finished(self, path: Path) -> bool:
        """Whether the folder holds this very run, and its last sitting ended it."""
        with suppress(ValueError, OSError, InputError, AttributeError):
            read_json(path / "results.json")
            last = (path / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1:]
            same = existing(path)["config"] == self.known["config"]
            return same and bool(json.loads("".join(last)).get("event") == "finished")
        return False

    def borrow(self, run: "Run") -> None:
        """Take what other cells have made that is the same here: checkpoints with their records.

        As links where the disk has them: files are replaced whole and never written into, so that each folder stays
        whole whatever becomes of the other.
        """
        for name, value in self.shareable.items():
            # where nothing is resumed, what a cell to come holds is what it is going to delete
            for other in [one for one in self.cells if self.resumed or not one.asking]:
                path = run.path.parent / other.name
                files = [path / "checkpoints" / f"{name}.safetensors", path / "jobs" / f"{name}.json"]
                if other.shareable.get(name) == value and all(map(Path.exists, files)) and not self._holds(run, name):
                    for file in files:
                        target = run.path / file.relative_to(path)
                        run.manifest.add(str(file.relative_to(path)))
                        target.unlink(missing_ok=True)
                        try:
                            os.link(file, target)
                        except OSError:
                            shutil.copyfile(file, target)

    @staticmethod
    def _holds(run: "Run", name: str) -> bool:
        """Whether the job is done in `run`."""
        with suppress(InputError):
            return run.kept(name) is not None
        return False

    def said(self, before: "Sequence[Cell]") -> list[str]:
        """What the cell trains, and what of it cells `before` it have."""
        if self.kept:
            return [f"{self.name}: finished, and kept"]
        first = [next((other.name for other in before if other.shareable.get(name) == value), None)
                 for name, value in self.shareable.items()]  # fmt: skip
        trained = [line for line in self.plan if "trained" in line]
        lines = [f"{self.name}: {'; '.join(trained) or self.asked}"]
        return lines + [
            f"  but {count} of them are those of {name}" for name, count in Counter(filter(None, first)).items()
        ]
