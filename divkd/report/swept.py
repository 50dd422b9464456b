"""The report of `divkd sweep`: cells of a grid of options, each a run, gathered into one table, figure and CSV."""

import csv
import io
import math
import shlex
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from divkd.report.figures.known import views_map
from divkd.report.record import Figure, Report, Results, Table, unique
from divkd.report.style import legend_below, look, one_scale, panels
from divkd.report.words import MEASURE, TRAINED, listed_seeds, span, spread
from divkd.report.words import MEASURES as PREDICTED
from divkd.shared.errors import InputError, unknown
from divkd.shared.kinds import ANSWERS, CLAIMS, INPUTS, METHODS, MODELS, PARTS
from divkd.shared.stats import interval, show

# Measures by command, what is drawn unasked first, and what a terminal has room for; of other commands all there are.
SHOWN = 4
_OF_NETWORKS = tuple(one.key for one in (*PREDICTED, *TRAINED))
MEASURES = {
    "train cifar": tuple(dict.fromkeys(("cal_nll", "acc", "pairwise_kl", "dee", *_OF_NETWORKS))),
    **dict.fromkeys(
        ("experiment mysteries", "experiment ensemble-over-kd", "experiment split-channels"),
        tuple(dict.fromkeys(("acc", "cal_nll", *(key for key in _OF_NETWORKS if key != "dee")))),
    ),
    "simulate multiview": tuple(f"{of}_error" for of in ("single_view", "multi_view", "test", "train")),
    "simulate plane": ("ods", *(kind for kind in INPUTS if kind != "ods"), *(f"apart.{kind}" for kind in INPUTS)),
}
WORDS = {
    "model": {**MODELS, **PARTS, **ANSWERS},
    "method": {"none": METHODS["none"]},
    "claim": {key: one.title for key, one in CLAIMS.items()},
}
# Of a row, with what may stand there.
COLUMNS: dict[str, Collection[str]] = {"model": {**MODELS, **PARTS, **ANSWERS}, "method": METHODS, "claim": CLAIMS}
NUMBERS = ("seed", "members")  # of a row, that say what it is of


def check_measure(command: str, measure: str | None) -> None:
    """Raise `InputError` where `measure` is none of the command's."""
    if measure is not None and command in MEASURES and measure not in MEASURES[command]:
        raise unknown("measure", measure, MEASURES[command])


def check_minus(minus: str, grid: Mapping[str, Collection[str]]) -> None:
    """Raise `InputError` where no number can have what `minus`, "name=value" of an option or a column, asks for."""
    name, equals, value = minus.partition("=")
    places: dict[str, Collection[str]] = {**COLUMNS, **grid}
    if name not in places:
        raise unknown("option of --vary, or column,", name, places)
    if not equals or value not in places[name]:
        raise unknown(name, value, places[name])


def gather(results: Results) -> list[Results]:
    """The rows of a run, flat: text and `NUMBERS` say what one is of, every other number is a measure.

    Of a command that keeps no rows by seed, what it keeps.
    """
    rows = results.get("rows") or results.get("cells")
    flat = [dict(_flat(row)) for row in rows or [results]]
    if not rows:
        return [{key: value for key, value in flat[0].items() if not isinstance(value, str)}]
    return _of_seeds(flat) if "number" in flat[0] else flat


def _of_seeds(rows: list[Results]) -> list[Results]:
    """The rows of an experiment, of a seed's networks of one kind, which differ in their `number`, the mean.

    What is no broken number says what a row is of; `networks` are the members behind its answer.
    """
    kinds: dict[tuple[Any, ...], list[Results]] = {}
    for row in rows:
        names = {key: value for key, value in row.items() if type(value) in (str, int) and key != "number"}
        kinds.setdefault(tuple(names.items()), []).append(row)
    found = []
    for of, same in kinds.items():
        line: Results = {"members" if key == "networks" else key: value if key in ("seed", "networks") else str(value)
                         for key, value in of}  # fmt: skip
        for key in (key for key in same[0] if key != "number" and key not in dict(of)):
            values = [row[key] for row in same]
            line[key] = None if None in values else sum(values) / len(values)
        found.append(line)
    return found


def _flat(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in row.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, (str, int, float)):
            pairs.append((f"{prefix}{key}".removesuffix(".value"), value))  # null is what JSON has for an infinity
    return pairs


def named(rows: Sequence[Results]) -> list[str]:
    """The columns that say what a row is of."""
    return [key for key in unique(key for row in rows for key in row) if key not in ("cell", "seed")
            and (key == "members" or any(isinstance(row.get(key), str) for row in rows))]  # fmt: skip


def measures(rows: Sequence[Results]) -> list[str]:
    """The columns that are measured."""
    return [key for key in unique(key for row in rows for key in row)
            if key not in ("cell", "seed", *named(rows)) and not key.startswith("changes.")]  # fmt: skip


def as_csv(results: Results) -> bytes:
    """sweep.csv: one line a cell, network and seed, with the cell's options and all measures; empty: not finite."""
    rows, options = results["rows"], list(results["vary"])
    text = io.StringIO()
    changes = {cell["name"]: [cell["changes"][name] for name in options] for cell in results["cells"]}
    columns = [*named(rows), "seed", *measures(rows)]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["cell", *options, *(f"measured_{key}" if key in options else key for key in columns)])
    for row in rows:
        table.writerow([row["cell"], *changes[row["cell"]], *(row.get(key) for key in columns)])
    return text.getvalue().encode()


def _options(results: Results) -> list[str]:
    """The options that tell points apart: seeds do not, but for where they alone are varied."""
    return [name for name in results["vary"] if name != "seeds"] or list(results["vary"])


Place = tuple[str, ...]  # the values of `_options`
Points = dict[tuple[Place, Place], list[Results]]


def points(results: Results) -> Points:
    """The rows of all seeds by the cell's values and by what they are of; of deep ensembles that which teaches.

    With `minus`, "name=value", the measures are differences: each row's less those of the row of its seed that differs
    from it in that option or column alone. Rows without such a one are left out.
    """
    cells = {cell["name"]: cell for cell in results["cells"]}
    names = [name for name in named(results["rows"]) if name != "members"]
    grouped: dict[tuple[Place, Place], list[Results]] = {}
    for row in results["rows"]:
        cell = cells[row["cell"]]
        if row.get("model") == "deep_ensemble" and row.get("members", cell["members"]) != cell["members"]:
            continue
        at = tuple(cell["changes"][name] for name in _options(results))
        grouped.setdefault((at, tuple(str(row.get(name, "")) for name in names)), []).append(row)
    return _less(results, grouped, names) if results.get("minus") else grouped


def _less(results: Results, grouped: Points, names: Sequence[str]) -> Points:
    """The differences that `minus` asks for; null where either number is missing or no more than a bound."""
    name, _, value = results["minus"].partition("=")
    keys, found = measures(results["rows"]), Points()

    def there(place: Place, of: Sequence[str]) -> Place:
        return tuple(value if key == name else one for key, one in zip(of, place, strict=True))

    for (at, of), rows in grouped.items():
        base = there(at, _options(results)), there(of, names)
        others = {row.get("seed"): row for row in grouped.get(base, ()) if base != (at, of)}
        pairs = [(row, others[row.get("seed")]) for row in rows if row.get("seed") in others]
        if pairs:
            found[at, of] = [{**row, **{key: _difference(key, row, other) for key in keys if key in row}}
                             for row, other in pairs]  # fmt: skip
    if grouped and not found:
        raise InputError(
            f"--minus {results['minus']}: no two numbers of a seed differ in {name} alone; give another, with --resume"
        )
    return found


def _difference(key: str, *rows: Results) -> float | None:
    known = not any(row.get(key) is None or row.get(f"{key}.censored") for row in rows)
    return float(rows[0][key]) - float(rows[1][key]) if known and not key.endswith(".censored") else None


def summary(rows: Sequence[Results], key: str) -> dict[str, Any]:
    """{mean, std, n, low, high} of a measure over the seeds of `rows`."""
    return interval(math.nan if row.get(key) is None else float(row[key]) for row in rows)


def _title(results: Results, of: Place) -> str:
    names = [name for name in named(results["rows"]) if name != "members"]
    words = (str(WORDS.get(name, {}).get(value, value)).strip() for name, value in zip(names, of, strict=True))
    return ", ".join(words)


def _label(measure: str) -> str:
    return MEASURE[measure].label if measure in MEASURE else measure.replace("_", " ")


def _less_what(results: Results) -> str:
    """What the numbers are less of, in words."""
    return f", less that of {results['minus'].replace('=', ' ')}, by seed" if results.get("minus") else ""


def _sentence(results: Results, asked: Results) -> str:
    grid = " x ".join(f"{name} {', '.join(values)}" for name, values in results["vary"].items())
    return (
        f"A sweep of divkd {shlex.join(results['line'])}: {len(results['cells'])} cells, {grid}; "
        f"{listed_seeds(results['seeds']) if results['seeds'] else 'no cell finished'}."
    )


def _over(results: Results, what: str) -> str:
    """What a mean and its spread are over."""
    by_seed = any("seed" in row for row in results["rows"])
    return spread(results, what) if by_seed else "as each run has them, over its seeds"


def _tables(results: Results) -> list[Table]:
    """A line a cell and network: the measure with its interval, then the other measures; which failed, and why."""
    first = results["measure"]
    known = MEASURES.get(results["of"], ())
    keys = [key for key in unique([first, *known, *measures(results["rows"])]) if key in measures(results["rows"])]
    names = [name for name in named(results["rows"]) if name != "members"]
    lines = []
    for (at, of), rows in points(results).items():
        low, high = (summary(rows, first)[end] for end in ("low", "high"))
        shown = [_shown(rows, key) for key in keys]
        words = [str(WORDS.get(name, {}).get(one, one)).strip() for name, one in zip(names, of, strict=True)]
        lines.append([*at, *words, shown[0], "" if low is None else span((low, high)), *shown[1:], str(len(rows))])
    failures = tuple(f"{cell['name']} failed: {cell['failed']}" for cell in results["cells"] if cell["failed"])
    if not lines:
        return [
            Table("No cell has finished", ["cell", "why"], [line.split(" failed: ", 1) for line in failures], words=1)
        ]
    labels = [f"measured {key}" if key in results["vary"] else _label(key) for key in keys]
    heads = [*_options(results), *names, *labels]
    place = len(_options(results)) + len(names) + 1
    heads[place:place] = ["95 % interval"]
    caption = f"divkd {shlex.join(results['line'])}{_less_what(results)} ({_over(results, 'mean ± sd over')})"
    return [Table(caption, [*heads, "n"], lines, place - 1, failures, page_only=tuple(labels[SHOWN:]))]


def _shown(rows: Sequence[Results], key: str) -> str:
    """Mean and sd of a measure; empty where the network has none."""
    alone = key in MEASURE and MEASURE[key].of_members and all(row.get("members") == 1 for row in rows)
    if alone or not all(key in row for row in rows):
        return ""
    bound = ">= " if any(row.get(f"{key}.censored") for row in rows) else ""
    return bound + show(summary(rows, key), MEASURE[key].digits if key in MEASURE else 4)


def picture(results: Results) -> Any:
    """A panel a network: the measure against one option, mean and 95 % interval over seeds, a line by the others."""
    measure, against, grouped = results["measure"], results["against"], points(results)
    options = _options(results)
    axis = options.index(against)
    values = [value for value in results["vary"][against] if any(at[axis] == value for at, _ in grouped)]
    others = unique(tuple(part for place, part in enumerate(at) if place != axis) for at, _ in grouped)
    series = [of for of in unique(of for _, of in grouped)
              if any(measure in row for (_, one), rows in grouped.items() if one == of for row in rows)]  # fmt: skip
    across = min(3, len(series))
    fig, axes = panels(len(series), across, max(2.7 * across, 5.2), 2.2, 1.1)
    for ax, of in zip(axes, series, strict=True):
        for index, other in enumerate(others):
            rows = {place: grouped[at, of] for at, one in grouped if one == of
                    for place, value in enumerate(values) if at == (*other[:axis], value, *other[axis:])}  # fmt: skip
            rows = dict(sorted(rows.items()))
            found = [summary(one, measure) for one in rows.values()]
            # beside each other, because lines may lie on each other
            at = [place + 0.07 * (index - (len(others) - 1) / 2) for place in rows]
            half = [0.0 if one["low"] is None else one["high"] - one["mean"] for one in found]
            names = (name for name in options if name != against)
            label = ", ".join(f"{name} {value}" for name, value in zip(names, other, strict=True))
            ax.errorbar(at, [one["mean"] for one in found], yerr=half, markersize=4, linewidth=1, capsize=2,
                        label=label, **look(index))  # fmt: skip
        ax.set_title(textwrap.fill(_title(results, of), 30), fontsize="small")
        ax.set_xticks(range(len(values)), values, fontsize="small")
        ax.set_xlim(-0.4, len(values) - 0.6)
        if results.get("minus"):
            ax.axhline(0, color="0.5", linewidth=0.8)
    one_scale(axes)
    for place, ax in enumerate(axes):
        if place % across == 0:
            ax.set_ylabel(MEASURE[measure].axis if measure in MEASURE else _label(measure))
        if place + across >= len(axes):
            ax.set_xlabel(against)
    if len(others) > 1:
        longest = max(len(label) for label in axes[0].get_legend_handles_labels()[1])
        columns = max(1, int(fig.get_figwidth() / (0.6 + 0.07 * longest)))  # inches of a name's mark and of a letter
        legend_below(fig, axes[:1], columns=min(4, columns, len(others)))
    over = f"against {against}; {_over(results, 'mean and 95 % interval over')}"
    less = f"{_less_what(results)}," if results.get("minus") else ""
    fig.suptitle(f"{_label(measure)}{less}\n{over}", fontsize="medium")  # one line has no room for it
    return fig


def _summary(results: Results) -> list[str]:
    """Between which means the measure lies, over cells and what answers in them."""
    means = [summary(rows, results["measure"])["mean"] for rows in points(results).values()] if results["rows"] else []
    known = [mean for mean in means if not math.isnan(mean)]
    failed = sum(cell["failed"] is not None for cell in results["cells"])
    lines = [f"{failed} of {len(results['cells'])} cells failed."] if failed else []
    if known:
        ends = " to ".join(f"{end:.4g}" for end in unique((min(known), max(known))))
        what = f"{_label(results['measure'])}{_less_what(results)}"
        lines.append(f"Means of {what}: {ends}, in {len(results['cells'])} cells ({_over(results, 'over')}).")
    return lines


def _again(results: Results, asked: Results, run: Path) -> tuple[list[str], str]:
    grid = (f"{name}={','.join(values)}" for name, values in results["vary"].items())
    chosen = ["--measure", results["measure"], "--against", results["against"]]
    chosen += ["--minus", results["minus"]] if results.get("minus") else []
    return ["divkd", "sweep", *(word for one in grid for word in ("--vary", one)), *chosen, "--", *results["line"]], ""


SHOWS = "The measure against an option, mean and 95 % interval over seeds, a panel a network and a line by the others"
FIGURES = (
    Figure("sweep", picture, SHOWS, fits=lambda results: bool(results["rows"])),
    Figure("views_map", views_map, "The share of classes of which networks, ensembles and students miss a view, by the "
           "options", fits=lambda results: any("views_missed_member" in row for row in results["rows"])),
)  # fmt: skip
REPORT = Report(("sweep",), _sentence, _tables, FIGURES, again=_again, vector=True, summary=_summary)
