"""Every command that the documentation shows is one that the command line takes, and those of five pages are run."""

import contextlib
import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import click
import numpy as np
import pytest
from PIL import Image

from divkd.cli.contents import Contents
from divkd.cli.main import cli, run
from divkd.empirical.analysis import analysis
from divkd.empirical.data import datasets
from divkd.empirical.experiments import config as experiments
from divkd.empirical.training import config as training
from divkd.shared.errors import InputError
from divkd.theory import config as theory
from divkd.theory import sweep

pytestmark = pytest.mark.usefixtures("figures_undrawn")

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^(\w+):", MAKEFILE, re.M))


def shell_lines(text: str) -> list[str]:
    """The lines of a page's sh blocks, a line that ends in a backslash with the next."""
    blocks = re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", text, re.M | re.S)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def named(text: str) -> list[str]:
    """The commands that stand in the sentences of a page, but for those with dots in them."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return [span for span in spans if span.startswith("divkd ") and "..." not in span]


def split(line: str) -> list[str]:
    """The words of the command in a shell line, without settings before it, a comment, a pipe or where output goes."""
    if found := re.fullmatch(r'eval "\$\((.*)\)"', line):
        line = found[1]
    words = re.split(r"\s[|>]\s", line)[0]
    return [word for word in shlex.split(words, comments=True) if not re.match(r"_?[A-Z_]+=", word)]


def parse(words: list[str]) -> None:
    """Hand `words` to the command line as it is, but for commands that do nothing."""
    with contextlib.ExitStack() as stack:
        for _, command in tree(cli):
            if not isinstance(command, click.Group):
                stack.enter_context(mock.patch.object(command, "callback", return_value=None))
        cli.main(words, prog_name="divkd", standalone_mode=False)


def check_name(words: list[str]) -> None:
    """Fail unless the command that a sentence names, and the options that it names, are there."""
    command: click.Command = cli
    for word in words:
        if word.startswith("-"):
            known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            assert word.split("=")[0] in known | {"--help", "-h"}, f"{word} is no option of {command.name}"
        elif word == "COMMAND":
            return  # any
        elif isinstance(command, click.Group):
            assert word in command.commands, f"{word} is no command of {command.name}"
            command = command.commands[word]


def check(line: str) -> None:
    """Fail unless `line` is a command that is known to work: one of divkd, a target of make, or how to install."""
    words = split(line)
    if not words:
        return  # a comment
    program = words[0].removeprefix(".venv/bin/")
    if program == "divkd":
        if words[1:]:
            parse(words[1:])
    elif program == "make":
        assert set(words[1:]) <= TARGETS
    elif program in ("pip", "mkdocs", "source", "python3", "python"):
        known = ("pip install -c constraints.txt -e .", "python3 -m venv .venv", "source .venv/bin/activate")
        assert " ".join([program, *words[1:]]) in known
    else:
        raise AssertionError(f"a command that no test knows: {line}")


@pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES])
def test_the_commands_that_a_page_shows_are_taken(page):
    text = page.read_text(encoding="utf-8")
    for line in shell_lines(text):
        check(line)
    for span in named(text):
        check_name(span.split()[1:])


@pytest.mark.parametrize("line", re.findall(r"\$\(BIN\)/(divkd .*)", MAKEFILE))
def test_a_command_of_the_makefile_is_taken(line):
    check(line)


def tree(command: click.Command, path: str = "divkd"):
    """Every command by what one types for it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from tree(below, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), list(tree(cli)), ids=[path for path, _ in tree(cli)])
def test_an_example_in_a_help_text_is_taken(path, command):
    examples = [line.strip() for line in (command.help or "").splitlines() if line.strip().startswith("divkd ")]
    for line in examples:
        check(line)
    assert examples or isinstance(command, click.Group)


@pytest.mark.parametrize(
    "line",
    ["divkd train cifar --epoch-number 3", "divkd evaluat x.npz", "divkd evaluate", "divkd train digits --members two",
     "divkd simulate multiview extra", "divkd predict runs/x", "make everything", "pip install divkd", "rm -r runs"],
)  # fmt: skip
def test_a_command_that_is_not_taken_is_found(line):
    with pytest.raises((click.ClickException, InputError, AssertionError)):
        check(line)


@pytest.mark.parametrize("words", ["simulate multivew", "train DATA --epoch", "evaluate --outt", "trian"])
def test_a_name_that_is_none_is_found(words):
    with pytest.raises(AssertionError):
        check_name(words.split())


# Pages whose commands run in their order, each in a folder of its own, and what comes before. Those of use.md and
# evaluate.md run in test_docs.py; all others are parsed above.
RUN = {
    "README.md": [],
    "docs/start.md": [],
    "docs/analyse.md": ["divkd train cifar10 --preset cpu --data-dir data --out runs/cifar10"],  # a run to analyse
    "docs/theory.md": [],
    "docs/commands.md": [],
}


@pytest.fixture
def small_world(monkeypatch, tmp_path):
    """Fewer samples and epochs in every preset, digits in place of CIFAR-10 and SVHN, files of one's own."""
    monkeypatch.chdir(tmp_path)
    world = {"classes": 3, "patches": 12, "expected_others": 1.0, "train_samples": 60, "test_samples": 40, "members": 2}
    world |= {"soft_steps": 20, "students": 1, "seeds": (0,)}
    quick = theory.PRESETS["quick"]
    monkeypatch.setitem(theory.PRESETS, "default", dataclasses.replace(quick, **world))
    monkeypatch.setitem(theory.PRESETS, "quick", dataclasses.replace(quick, **{**world, "students": quick.students}))
    monkeypatch.setattr(sweep, "ABLATIONS", dict(list(sweep.ABLATIONS.items())[:2]))
    for name in ("smoke", "cpu"):
        preset = training.PRESETS[name]
        short = dataclasses.replace(preset.teacher, epochs=1, batch_size=32)
        changes = {"teacher": short, "student": short, "members": 2, "ladder": 2, "train_images": 64}
        monkeypatch.setitem(training.PRESETS, name, dataclasses.replace(preset, **changes, methods=("kd",)))
    changes = {"teacher": short, "student": short, "members": 2, "train_images": 64, "network": "resnet8w4"}
    for name in ("MYSTERIES", "OVER_KD", "SPLIT_CHANNELS", "FEATURE_MAP", "JACOBIAN"):
        presets = getattr(experiments, name)
        less = {"sizes": 1, "images": 4} if name == "JACOBIAN" else {}
        monkeypatch.setitem(presets, "smoke", dataclasses.replace(presets["smoke"], **changes, **less))
    monkeypatch.setattr(analysis, "BATCH", 2)  # of images whose time is measured
    load = datasets.load
    stand_in = ("cifar10", "svhn")
    monkeypatch.setattr(datasets, "load", lambda name, *rest: load("digits" if name in stand_in else name, *rest))
    draw = np.random.default_rng(0)
    for folder, count in (("photos/train/one", 12), ("photos/train/two", 12), ("photos/test/one", 2),
                          ("photos/test/two", 2), ("scans", 2)):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
        for number in range(count):
            size = (8, 8) if folder == "scans" else (40, 48, 3)
            pixels = draw.integers(0, 256, size, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    images = draw.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    np.savez("cinic10.npz", images=images, labels=np.arange(6))
    np.savez("cifar100.npz", x=images)
    logits, labels = draw.standard_normal((3, 60, 4)), draw.integers(0, 4, 60)
    arrays = {"logits": logits, "labels": labels, "val_logits": logits + 1, "val_labels": labels}
    np.savez("predictions.npz", **arrays)
    np.savez("teachers.npz", **arrays)
    np.savez("student.npz", **{key: value[:1] if "logits" in key else value for key, value in arrays.items()})


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run_in_their_order(page, small_world, capsys):
    lines = [*RUN[page], *shell_lines((ROOT / page).read_text(encoding="utf-8"))]
    if page == "docs/commands.md":
        howto = shell_lines((ROOT / "docs/evaluate.md").read_text(encoding="utf-8"))
        lines += [line for line in howto if "--ensemble" in line]
    for line in lines:
        words = split(line)
        if words[1:] and words[0].removeprefix(".venv/bin/") == "divkd":
            if words[1:3] == ["simulate", "plane"]:
                words += ["--epochs", "2", "--points", "20"]
            if words[1:3] == ["simulate", "gaussian"]:
                words += ["--epochs", "1", "--train-samples", "100", "--seeds", "0", "--members", "2"]
            if words[1:3] == ["simulate", "ntk"]:
                words += ["--train-samples", "60", "--seeds", "0"]
            if words[1:3] == ["simulate", "convergence"]:
                words += ["--dimension", "320", "--train-samples", "40", "--members", "1", "--distill-time", "0"]
            if words[1:3] == ["simulate", "students"]:
                words += ["--train-samples", "30", "--classes", "2", "--expected-others", "1", "--test-samples", "40"]
                words += [
                    "--distill-time",
                    "100",
                    "--max-steps",
                    "5",
                    "--seeds",
                    "0",
                    "--members",
                    "2",
                    "--scan-seeds",
                    "0",
                ]
            if words[1:3] == ["experiment", "jacobian"]:
                words += ["--images", "4", "--sizes", "1", "--step", "gaussian"]
            if words[1] == "analyse":
                given = words.index("--images") if "--images" in words else len(words)
                words[given:] = ["--images", "6", *words[given + 2 :]]
            assert run(words[1:]) == 0, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_gives_a_script(shell):
    assert f"_DIVKD_COMPLETE={shell}_source" in (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    found = completion(_DIVKD_COMPLETE=f"{shell}_source")
    assert "_divkd_completion" in found
    assert f"{shell}_complete" in found


def test_completion_knows_commands_and_loads_nothing_heavy():
    heavy = "{'torch', 'torchvision', 'numba', 'numpy', 'matplotlib', 'sklearn', 'scipy'}"
    check = f"import atexit; atexit.register(lambda: print('heavy', *({heavy} & set(sys.modules))))"
    words = {"COMP_WORDS": "divkd simulate m", "COMP_CWORD": "2"}
    assert completion(check, _DIVKD_COMPLETE="bash_complete", **words).split() == ["plain,multiview", "heavy"]
    words = {"COMP_WORDS": "divkd e", "COMP_CWORD": "1"}
    found = completion(check, _DIVKD_COMPLETE="bash_complete", **words).split()
    assert {"plain,evaluate", "plain,export"} <= set(found)
    assert found[-1] == "heavy"


def completion(first: str = "", **variables: str) -> str:
    """What a fresh `divkd` answers to the shell."""
    code = f"import sys; {first}\nfrom divkd.cli.main import cli; cli.main([], prog_name='divkd')"
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert result.stderr == ""
    return result.stdout


def test_help_is_a_table_of_contents(capsys):
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    titles = re.findall(r"^(\w+):", out, re.M)
    assert titles[:5] == ["Usage", "Options", "Theory", "Practice", "Evaluate"]
    named = re.findall(r"^  (\w+)  +\S.*$", out, re.M)
    assert sorted(named) == sorted(cli.commands)
    assert "..." not in out.split("Theory:")[1]


def test_a_command_without_a_section_is_listed_under_more():
    class Small(Contents):
        sections = {"First": ("two", "absent"), "Empty": ("absent",)}  # noqa: RUF012

    commands = [click.Command(name, help=f"{name} does it.") for name in ("one", "two")]
    commands.append(click.Command("hidden", hidden=True))
    group = Small("small", commands={command.name: command for command in commands})
    text = group.get_help(click.Context(group))
    assert text.endswith("\n\nFirst:\n  two  two does it.\n\nMore:\n  one  one does it.")
    assert group.list_commands(click.Context(group)) == ["two", "hidden", "one"]


@pytest.mark.parametrize(
    ("line", "mend"),
    [("evaluat x.npz", "evaluate"), ("simulate multivew", "multiview"), ("evaluate x.npz --bootstrp 3", "--bootstrap"),
     ("train digits --ephocs 3", "--epochs")],
)  # fmt: skip
def test_an_unknown_name_is_one_line_with_the_nearest(line, mend, capsys):
    assert run(line.split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert mend in err


def test_the_reference_of_the_site_has_every_command_and_option(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs/hooks"))
    import commands

    text = commands.on_page_markdown((ROOT / "docs/commands.md").read_text(encoding="utf-8"))
    for path, command in list(tree(cli))[1:]:
        assert f"# {path}\n" in text
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert set(parameter.opts) <= set(re.findall(r"--[\w-]+", text))
    assert commands.PLACE not in text
