"""Tables, figures and pages made from results.json files alone, of either world or of both."""

from pathlib import Path
from typing import Any


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write every figure that `results`, the content of a results.json, has the numbers for into `folder`."""
    from divkd.report import commands

    return commands.draw(results, folder)
