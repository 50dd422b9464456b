"""The walls of the house: who may import whom, and how large a room may be."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import divkd

ROOT = Path(divkd.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ROOMS = {"shared", "report", "theory", "empirical", "cli"}
MAY_IMPORT = {
    "": {"shared", "empirical"},  # the package itself: its face, imported when it is asked
    "shared": {"shared"},
    "report": {"shared", "report"},
    "theory": {"shared", "theory"},
    "empirical": {"shared", "empirical"},
    "cli": ROOMS,
}


def imported_rooms(source: str, path: str) -> set[str]:
    """The subpackages of divkd that `source`, a file at `path` below divkd/, imports anywhere, by any form.

    Import statements wherever they stand (also in functions and under TYPE_CHECKING), relative ones resolved, and
    calls of import_module or __import__ with a literal name.
    """
    package = ("divkd", *Path(path).parts[:-1])
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = [*above, *([node.module] if node.module else [])]
            names += [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                names.append(str(node.args[0].value))
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "divkd" and len(part) > 1} & ROOMS


def room(path: str) -> str:
    if path == "__main__.py":
        return "cli"  # the command under another name
    return Path(path).parts[0] if len(Path(path).parts) > 1 else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_file_imports_only_what_it_may(file: Path) -> None:
    path = file.relative_to(ROOT).as_posix()
    forbidden = imported_rooms(file.read_text(encoding="utf-8"), path) - MAY_IMPORT[room(path)]
    assert not forbidden, f"divkd/{path} imports {', '.join(sorted(forbidden))}"


def test_no_file_is_longer_than_320_lines() -> None:
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > 320} == {}


def test_no_folder_has_more_than_16_modules() -> None:
    folders = Counter(file.parent.relative_to(ROOT).as_posix() for file in FILES if file.name != "__init__.py")
    assert {folder: count for folder, count in folders.items() if count > 16} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_function_has_more_than_8_positional_parameters(file: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.Lambda)
    ]
    counts = {getattr(node, "name", "lambda"): len(node.args.posonlyargs + node.args.args) for node in functions}
    assert {name: count for name, count in counts.items() if count > 8} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import divkd.theory.data as d", {"theory"}),
        ("from divkd import theory, __version__", {"theory"}),
        ("from divkd.cli.main import main", {"cli"}),
        ("def f():\n    from ..theory import data", {"theory"}),
        ("from .. import empirical", {"empirical"}),
        ("from . import stats\nfrom .metrics import quality", {"shared"}),
        ("import importlib\nimportlib.import_module('divkd.theory')", {"theory"}),
        ("import divkd\nimport torch.cli\nfrom theory import x", set()),
    ],
)
def test_every_form_of_import_is_seen(source: str, found: set[str]) -> None:
    assert imported_rooms(source, "shared/metrics.py") == found
