"""Figures made from results.json files alone, of either world or of both."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

_MODULES = {
    "simulate multiview": "multiview", "simulate window": "sweep", "simulate ablations": "sweep",
    "simulate plane": "plane", "train cifar": "ensembles", "analyse": "analysis", "evaluate": "evaluation",
}  # fmt: skip


def draw(results: Mapping[str, Any], folder: Path) -> None:
    """Draw the figures of a run into `folder`."""
    import_module(f"divkd.report.{_MODULES[results['command']]}").draw(results, folder)
