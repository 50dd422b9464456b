"""The table of an analysis for the terminal, from the content of its results.json."""

from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from divkd.cli.tables import console_of
from divkd.shared.report.ensembles import spread
from divkd.shared.stats import show, summarise


def print_analysis(results: dict[str, Any], folder: Path) -> None:
    """Students and teachers on foreign, shifted and corrupted images, their diversity and gradients, and the costs."""
    console = console_of(170)
    keys = list(dict.fromkeys((row["model"], row["method"], row["members"]) for row in results["rows"]))
    sets = [(one["use"], one["name"]) for one in results["sets"]]
    table = Table(title=f"{results['dataset']}, {results['network']}: other images ({spread(results)})")
    for column in ("model", "method", "M"):
        table.add_column(column)
    for use, name in sets:
        table.add_column(f"{name} AUROC" if use == "ood" else f"{name} acc", justify="right")
    for column in ("corrupted acc", "corrupted cal. NLL", "train KL", "with ODS", "gradient, own", "other"):
        table.add_column(column, justify="right")
    for model, method, members in keys:
        rows = [row for row in results["rows"] if (row["model"], row["method"]) == (model, method)]
        cells = [model, method, str(members)]
        for use, name in sets:
            values = [row[use][name]["scores"]["entropy"]["auroc"] if use == "ood" else row[use][name]["acc"]
                      for row in rows]  # fmt: skip
            cells.append(show(summarise(values)))
        for metric in ("acc", "cal_nll"):
            tables = [row["corruptions"][metric] for row in rows]
            cells.append(show(summarise(mean(v for kind in one.values() for v in kind) for one in tables)))
        for kind in ("clean", "ods"):
            found = [row["diversity"]["train"][kind]["pairwise_kl"] for row in rows if "diversity" in row]
            cells.append(show(summarise(found)) if found else "")
        for part in ("own", "other"):
            found = [row["gradients"]["train"][part] for row in rows if "gradients" in row]
            cells.append(show(summarise(found)) if found and None not in found else "")
        table.add_row(*cells)
    console.print(table)
    cost = Table(title="An answer, as a ratio to the single network's (medians)")
    for column in ("network", "M", "weights", "arithmetic", "activations", "latency, 1 image", "images a second"):
        cost.add_column(column, justify="right" if column != "network" else "left")
    for row in results["inference"]:
        ratios = [row[f"{key}_ratio"] for key in ("weight_bytes", "macs", "peak_activation_bytes")]
        times = [row[f"{key}_ratio"]["median"] for key in ("latency_s", "images_per_s")]
        cost.add_row(row["name"], str(row["members"]), *(f"{value:.2f}" for value in (*ratios, *times)))
    console.print(cost)
    console.print(f"{results['inference'][0]['device']}; written to {folder}", highlight=False)
