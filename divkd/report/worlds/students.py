"""The report of `divkd simulate students`: which views the practice's students learn in the theory's world."""

from typing import Any

from divkd.report.record import Figure, Report, Results, Table
from divkd.report.style import COLOURS, beside, figure, legend_below, look, panels, points
from divkd.report.words import difference, learned, listed_seeds, one_seed, spread
from divkd.shared.kinds import METHODS, MODELS, PERTURBATIONS, STUDENTS
from divkd.shared.stats import show

TEACHERS = "deep_ensemble"
COLUMNS = {
    "known_own": "own teacher's views", "known_rest": "views of others", "apart": "views apart",
    "alone_error": "error alone", "error": "error together", "cal_nll_alone": "cal. NLL alone",
    "cal_nll": "cal. NLL together", "pairwise_kl": "pairwise KL", "disagreement": "disagreement",
}  # fmt: skip
MORE = {"train_kl": "KL on training samples", "train_error": "training error",
        "arrival_own": "own teacher's views since", "arrival_rest": "views of others since"}  # fmt: skip
MOVED = {"own_known": "own view, known", "own_unknown": "own view, unknown", "other_known": "other class, known",
         "other_unknown": "other class, unknown", "rest": "feature not there",
         "memorised": "share in memorised noise"}  # fmt: skip
AXES = {"step_size": "step size", "factors": "factors", "distill_time": "flow time", "temperature": "temperature",
        "teacher_time": "teachers' extra flow time", "train_samples": "training samples"}  # fmt: skip
SCANNED = ("known_own", "known_rest", "apart", "alone_error", "error", "pairwise_kl")


def _text(summary: Any, digits: int = 3) -> str:
    return "" if summary is None else show(summary, digits)


def _name(row: dict[str, Any]) -> list[str]:
    return ["teachers" if row["model"] == TEACHERS else MODELS[row["model"]], learned(row["method"])]


def _sentence(results: Results, asked: Results) -> str:
    world = results["config"]
    return (
        f"Students of {world['members']} members of the multi-view world: {world['classes']} classes, "
        f"{world['train_samples']:,} training samples, rule {world['rule']}, {world['factors']} factors, steps of "
        f"{world['step_size']:g}; {listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    """Views, errors and diversity; fit and arrival; teachers' answers and what steps move; the scan."""
    rows, of = results["summary"], spread(results)
    heads = ["model", "learned by"]
    notes = (
        "Views: shares that members know of their own teacher's, and of those that only other teachers know (a single "
        "network: means over teachers); apart, the share of (class, view) that one of two members knows alone. Errors, "
        "NLL, KL and disagreement on fresh single-view samples.",
        *(_against(row) for row in results["differences"] if row["method"] in PERTURBATIONS),
    )
    tables = [
        Table(f"What students know, and how their members differ ({of})", [*heads, *COLUMNS.values()],
              [[*_name(row), *(_text(row[key]) for key in COLUMNS)] for row in rows], names=2, notes=notes),
        Table(f"Fit, and the flow time from which views are known ({of})", [*heads, *MORE.values()],
              [[*_name(row), *(_text(row[key], 0 if "arrival" in key else 4) for key in MORE)] for row in rows], 2),
        Table(f"Pairwise KL of the teachers' soft answers on training samples ({of})", ["samples", "KL"],
              [[name, show(value, 4)] for name, value in results["soft"].items()]),
        Table(f"What a step adds to the features of a sample, mean size ({of})", ["step", *MOVED.values()],
              [[METHODS[method], *(show(of_kinds[key], 4) for key in MOVED)]
               for method, of_kinds in results["moves"].items()]),
    ]  # fmt: skip
    for axis, cells in results["scan"].items():
        lines = [
            [cell["name"], learned(method), *(_text(one[key]) for key in SCANNED),
             show(cell["soft"]["clean" if method == "kd" else method], 4)]
            for cell in cells for method, one in cell["methods"].items()
        ]  # fmt: skip
        seeds = f"{results['config']['scan_seeds']} seeds" if len(results["seeds"]) > 1 else "one seed"
        title = f"BatchEnsembles by {AXES[axis]} (mean ± sd over {seeds}, flow time {results['config']['scan_time']:g})"
        columns = [COLUMNS[key] for key in SCANNED]
        tables.append(Table(title, ["cell", "learned by", *columns, "teachers' soft KL"], lines, names=2))
    return tables


def _against(row: dict[str, Any]) -> str:
    """Paired differences of a perturbation against kd, and of a BatchEnsemble against the single network."""
    named, apart, over = f"{MODELS[row['model']]}, {learned(row['method'])} minus kd", "", ""
    if row["model"] != "single":
        apart = f"views apart {difference(row['apart'])}, "
        over = f"; minus the single network's error by the same method {difference(row['over_single']['error'])}"
    return f"{named}: {apart}error {difference(row['error'])}{over}."


def _summary(results: Results) -> list[str]:
    """What perturbed answers do for views and diversity, against the clean ones and the single control."""
    rows = {(row["model"], row["method"]): row for row in results["summary"]}
    parts = [
        f"{learned(method)}: {_text(row['known_own'])} of its own teacher's views and {_text(row['known_rest'])} of "
        f"the others', {_text(row['apart'])} apart, error {_text(row['alone_error'])} alone, "
        f"{_text(row['error'])} together"
        for (model, method), row in rows.items()
        if model == "batch_ensemble"
    ]
    singles = [f"{learned(method)} {_text(row['error'])}" for (model, method), row in rows.items() if model == "single"]
    return [
        f"Members of a BatchEnsemble know by {'; '.join(parts)}; teachers are {_text(rows[TEACHERS, 'none']['apart'])} "
        f"apart ({spread(results)}).",
        f"Single networks err on {', '.join(singles)} of the single-view samples.",
    ]


def views(results: Results) -> Any:
    """Which of all (class, view) each member knows, in the first seed: teachers above students, a panel a method."""
    seed = results["seeds"][0]
    rows = {(row["model"], row["method"]): row for row in results["rows"] if row["seed"] == seed}
    classes, members = results["config"]["classes"], results["config"]["members"]
    fig, axes = figure(11, 3.6, columns=len(METHODS))
    for ax, method in zip(axes, METHODS, strict=True):
        of = [rows[TEACHERS, "none"], *(rows[model, method] for model in STUDENTS)]
        cells = [[known for views in member for known in views] for row in of for member in row["learned"]]
        shade = [[known * (0.45 if at < members else 0.75 if at < 2 * members else 1.0) for known in member]
                 for at, member in enumerate(cells)]  # fmt: skip
        ax.imshow(shade, cmap="Greys", vmin=0, vmax=1.1, aspect="auto")
        for line in (members - 0.5, 2 * members - 0.5):
            ax.axhline(line, color=COLOURS[2], linewidth=1.5)
        for line in range(1, classes):
            ax.axvline(2 * line - 0.5, color="0.8", linewidth=0.8)
        ax.grid(False)
        ax.set_xticks([2 * i + 0.5 for i in range(classes)], [str(i) for i in range(classes)])
        ax.set_yticks(range(len(cells)), [])
        ax.set_title(learned(method), fontsize=9)
        ax.set_xlabel("class, two views each", fontsize=8)
    names = [f"{'teacher' if at < members else 'member'} {at % members + 1}" for at in range(2 * members)]
    axes[0].set_yticks(range(2 * members + 1), [*names, "single network"], fontsize=8)
    fig.suptitle(f"Views that networks know (dark), teachers above students; seed {seed}", fontsize=9)
    return fig


def diversity(results: Results) -> Any:
    """Views apart, pairwise KL and single-view errors by method, of BatchEnsembles, with the teachers' as a line."""
    rows = {(row["model"], row["method"]): row for row in results["summary"]}
    fig, axes = figure(10.5, 3.8, columns=3)
    at = range(len(METHODS))
    for ax, key, title in zip(axes, ("apart", "pairwise_kl", "error"),
                              ("views that members know apart", "pairwise KL, nats", "single-view test error"),
                              strict=True):  # fmt: skip
        shown = [("batch_ensemble", key, "BatchEnsemble, together")]
        if key == "error":
            shown += [("batch_ensemble", "alone_error", "its members, alone"), ("single", "error", "single network")]
        for place, (model, what, label) in enumerate(shown):
            places, values = [x + beside(place, len(shown), 0.2) for x in at], [rows[model, of][what] for of in METHODS]
            points(ax, places, values, linestyle="", capsize=2, label=label, **look(place + 1))
        ax.axhline(rows[TEACHERS, "none"][key]["mean"], color=COLOURS[0], linestyle=":", linewidth=1,
                   label="teachers, together")  # fmt: skip
        ax.set_xticks(list(at), [learned(method) for method in METHODS], fontsize=8)
        ax.set_ylim(bottom=0)
        ax.set_title(title, fontsize=9)
    legend_below(fig, axes, columns=5)
    fig.suptitle(f"Students of the multi-view world's members; {spread(results, 'mean ± 1 sd over')}", fontsize=9)
    return fig


def scan(results: Results) -> Any:
    """Views that a BatchEnsemble's members know apart, by what is scanned, for KD and ODS."""
    fig, axes = panels(len(results["scan"]), 3, 10.5, 2.8, 0.6)
    for ax, (axis, cells) in zip(axes, results["scan"].items(), strict=True):
        for place, method in enumerate(cells[0]["methods"]):
            for key, style in (("apart", "-"), ("known_own", ":")):
                places = [at + beside(place, 2, 0.1) for at in range(len(cells))]
                label = f"{learned(method)}, {'views apart' if key == 'apart' else 'own views known'}"
                points(ax, places, [cell["methods"][method][key] for cell in cells], capsize=2, markersize=4,
                       linewidth=1, linestyle=style, label=label, **look(place + 1))  # fmt: skip
        words = [cell["name"].split()[-1].replace("_", "\n") for cell in cells]
        ax.set_xticks(range(len(cells)), words, fontsize=7)
        ax.set_ylim(-0.03, 1.05)
        ax.set_title(AXES[axis], fontsize=9)
    legend_below(fig, axes, columns=4)
    fig.suptitle("BatchEnsembles: shares of views known, mean ± 1 sd over seeds", fontsize=9)
    return fig


FIGURES = (
    Figure("views", views, "Views that teachers, a BatchEnsemble's members and a single network know", one_seed),
    Figure("diversity", diversity, "Views apart, pairwise KL and single-view error of students by method"),
    Figure("scan", scan, "Views that members know, by step size, factors, time, temperature and samples",
           lambda results: f"n = {results['config']['scan_seeds']} of {len(results['seeds'])} seeds",
           lambda results: bool(results["scan"])),
)  # fmt: skip
REPORT = Report(("simulate students",), _sentence, _tables, FIGURES, summary=_summary)
