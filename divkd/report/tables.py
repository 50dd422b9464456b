"""The tables of a page and of a terminal, as text, from a results.json of any command but `analyse`."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from divkd.report.ensembles import MODEL_NAMES, spread
from divkd.report.published import COLUMNS, beside
from divkd.report.sweep import columns, failures
from divkd.report.words import (
    CLAIMS,
    DIVERSE,
    EVALUATED,
    SHARES,
    bound_of,
    claim_of,
    difference,
    equivalent,
    number,
    remarks,
    span,
)
from divkd.shared.stats import show

Results = dict[str, Any]
NETWORK = ["model", "method", "M"]


@dataclass(frozen=True)
class Table:
    """A caption, headings, and lines: the first `names` cells say what the line is of, the last `words` are text.

    `page_only` are the headings of columns for which a terminal has no room.
    """

    caption: str
    heads: list[str]
    lines: list[list[str]]
    names: int = 1
    notes: tuple[str, ...] = ()
    words: int = 0
    page_only: tuple[str, ...] = ()


def multiview(results: Results) -> list[Table]:
    """The claims, the ensemble by its members, and what was learned of the views."""
    claims = results["claims"]
    kinds = {"single_view": "single-view test", "multi_view": "multi-view test", "test": "test", "train": "train"}
    lines = []
    for name in CLAIMS:
        if name in claims:
            claim = claims[name]
            errors = [show(claim[f"{kind}_error"]) for kind in kinds]
            holds = "yes" if claim["holds"] else "no"
            prediction = f"{claim['predicted']:.3f}"
            lines.append([claim_of(name, claim), holds, errors[0], prediction, bound_of(claim), *errors[1:],
                          claim["accepted"]])  # fmt: skip
    heads = ["claim", "holds", "single-view test error", "predicted here", "theorem's bound"]
    heads += [f"{kind} error" for kind in list(kinds.values())[1:]]
    tables = [
        Table(
            f"Measured error rates, the finite-size prediction and the theorem's bound for single-view samples "
            f"({spread(results)})",
            [*heads, "accepted where"],
            lines,
            notes=("The bound is of the limit of many classes; the prediction is for the sizes that were simulated.",),
            words=1,
            page_only=("accepted where",),
        )
    ]
    rows = claims["ensemble"]["by_members"]
    tables.append(
        Table(
            f"Single-view test error of ensembles by members ({spread(results)})",
            ["members", "measured", "predicted here", "predicted, given the views learned", "asymptotic"],
            [
                [str(row["members"]), show({"mean": row["single_view_error"], "std": row["std"]}, 4)]
                + [f"{row[key]:.4f}" for key in ("predicted", "predicted_from_views", "asymptotic")]
                for row in rows
            ],
        )
    )
    views = results["views"]["spread"]
    shown = [[words, show(views[key])] for key, words in SHARES.items() if key in views and _known(views[key])]
    return [*tables, Table(f"What networks know of the views ({spread(results)})", ["share", "value"], shown)]


def cells(results: Results) -> list[Table]:
    """Every cell of a map or of the ablations."""
    heads, lines = columns(results)
    caption = f"Errors on single-view test samples and shares of views ({spread(results)})"
    return [Table(caption, heads, lines, notes=tuple(failures(results)))]


def plane(results: Results) -> list[Table]:
    """The teachers' pairwise KL by kind of point, what ODS adds to Gaussian steps, and how well the teachers fit."""
    config, rows, summary = results["config"], results["rows"], results["summary"]
    lines = []
    for kind, found in summary.items():
        bases = [summary[base]["mean"] for base in ("clean", "gaussian")]
        ratios = [f"{found['mean'] / base:.2f}" if base else "" for base in bases]
        apart = f"{sum(row['apart'][kind] for row in rows)} of {config['points'] * len(rows)}"
        lines.append([kind, show(found, 4), *ratios, apart])
    heads = ["points", "pairwise KL", "times clean", "times Gaussian", f"above {results['apart_above']:g} nats"]
    void = [row["seed"] for row in rows if row["void"]]
    more = results["ods_minus_gaussian"]
    interval = "one seed" if more["low"] is None else "with a 95 % interval over seeds"
    notes = (
        f"ODS minus Gaussian, {interval}: {difference(more)} nats.",
        f"Lowest training accuracy of a teacher: {min(min(row['train_acc']) for row in rows):.3f}"
        + (f"; VOID for seeds {void}, whose teachers do not fit." if void else "."),
    )
    size = f"{config['members']} teachers, {config['points']} points"
    return [Table(f"Teachers' pairwise KL on two moons, nats ({size}, {spread(results)})", heads, lines, notes=notes)]


METRICS = (
    ("acc", "accuracy", 3),
    ("cal_nll", "calibrated NLL", 3),
    ("pairwise_kl", "pairwise KL", 3),
    ("cal_ece", "calibrated ECE", 4),
    ("cal_brier", "calibrated Brier", 3),
    ("nll", "NLL", 3),
    ("brier", "Brier", 3),
    ("ece", "ECE", 4),
    ("train_acc", "train accuracy", 3),
    ("temperature", "temperature", 2),
)


def training(results: Results) -> list[Table]:
    """Quality and cost, paired differences, the ladder of the DEE, the teachers' diversity, published numbers."""
    split = results["split"]
    sizes = f"{split['train']:,} training and {split['test']:,} test images"
    measured = any("dee" in row for row in results["summary"])
    names = [name for _, name, _ in METRICS]
    heads = [*NETWORK, *names[:2], *(["DEE", "DEE censored"] if measured else []), *names[2:]]
    lines = []
    for row in results["summary"]:
        shown = [show(row[key], digits) for key, _, digits in METRICS]
        if measured:
            dee = row.get("dee")
            shown[2:2] = [equivalent(dee), "" if dee is None else f"{dee['censored']:.0%} of {dee['n']}"]
        cost = [f"{row['params']['mean']:,.0f}", show(row["seconds"], 1), str(row["acc"]["n"])]
        lines.append([*network(row), *shown, *cost])
    notes = ["NLL and KL in nats; seconds are wall-clock times."]
    if measured:
        notes.append("DEE: the deep ensemble equivalent; a censored one is beyond the ladder, so only a lower bound.")
    caption = f"{results['dataset']}, {results['network']}, {sizes} ({spread(results)})"
    heads += ["parameters", "seconds", "seeds"]
    page_only = ("Brier", "ECE", "calibrated Brier", "temperature", "DEE censored", "seeds")
    tables = [Table(caption, heads, lines, 3, tuple(notes), page_only=page_only)]
    tables += _differences(results) + _ladders(results)
    if results["teacher_diversity"]:
        tables.append(_teachers(results))
    rows = beside(results)
    return tables + (published(rows) if any(row["measured"] for row in rows) else [])


def _differences(results: Results) -> list[Table]:
    rows = results.get("differences", [])  # runs of earlier versions have none
    if not rows:
        return []
    kept = [(key, name) for key, name, _ in METRICS if all(key in row for row in rows)]
    lines = [
        [MODEL_NAMES[row["model"]], row["method"], f"{MODEL_NAMES[row['against_model']]}, {row['against_method']}"]
        + [difference(row[key]) for key, _ in kept]
        + [str(row[kept[0][0]]["n"])]
        for row in rows
    ]
    heads = ["model", "method", "minus", *(name for _, name in kept), "seeds"]
    caption = "Paired differences over seeds, mean and 95 % interval (none where n is 1)"
    return [Table(caption, heads, lines, 3, page_only=("NLL", "calibrated Brier", "seeds"))]


def _ladders(results: Results) -> list[Table]:
    ladders = results.get("ladders", [])
    if not ladders:
        return []
    heads = ["members", *(f"seed {ladder['seed']}" for ladder in ladders)]
    lines = [
        [str(rows[0]["members"]), *(f"{show(row)} (n = {row['n']})" for row in rows)]
        for rows in zip(*(ladder["curve"] for ladder in ladders), strict=True)
    ]
    return [Table("The ladder of the DEE: calibrated NLL of deep ensembles, mean ± sd over subsets", heads, lines)]


def _teachers(results: Results) -> Table:
    lines = []
    for found in results["teacher_diversity"]:
        clean = found["clean"] or float("nan")  # equal teachers never disagree
        ratios = [f"{found[kind] / clean:.3g}×" for kind in ("gaussian", "ods", "confods")]
        fit = f"{found['train_acc']:.1%}" if "train_acc" in found else "not recorded"
        lines.append([str(found["seed"]), f"{found['images']:.0f}", f"{found['clean']:.3g}", *ratios, fit])
    heads = ["seed", "training images", "clean, nats", "Gaussian", "ODS", "ConfODS", "teachers fit"]
    void = [str(found["seed"]) for found in results["teacher_diversity"] if found.get("void")]
    notes = (f"VOID as a test of the paper's premise: teachers of seed {', '.join(void)} do not fit their images.",)
    caption = "Teachers' pairwise KL on training images, and how much a step of each kind changes it"
    return Table(caption, heads, lines, notes=notes if void else ())


def published(rows: list[Results]) -> list[Table]:
    """Published numbers (Nam et al. 2021) beside measured ones, two lines a network; nothing where there are none."""
    lines = []
    for row in rows:
        own = row["measured"] or {}
        for who, found, net in (("published", row, row["network"]), ("measured here", own, own.get("network", ""))):
            values = [found.get(key) for key in COLUMNS]
            images = f"{own['train_images']:,}" if found is own and own else ""
            numbers = ["" if one is None or one["mean"] is None else show(one) for one in values]
            lines.append([*network(row), who, net, images, *numbers])
    heads = [*NETWORK, "whose", "network", "training images", "accuracy", "calibrated NLL", "calibrated Brier"]
    heads += ["calibrated ECE", "DEE"]
    note = "Another network or fewer images make this a comparison of methods within each, not of numbers."
    caption = "Published (Nam et al. 2021, arXiv:2110.14149) beside measured, mean ± sd"
    return [Table(caption, heads, lines, 4, (note,), page_only=tuple(heads))] if rows else []


def evaluation(results: Results) -> list[Table]:
    """Quality, calibrated quality and diversity, foreign samples, and the curve of the DEE."""
    intervals = results.get("intervals", {})
    heads = ["measure", "value"]
    if intervals:
        heads.append(f"{intervals['level']:.0%} interval ({intervals['resamples']:,} draws)")
    lines = [
        [name, number(results[key]), *([span(intervals.get(key))] if intervals else [])]
        for key, name in EVALUATED
        if key in results and (results["members"] > 1 or key not in DIVERSE)
    ]
    kind = "one model" if results["members"] == 1 else f"{results['members']} members"
    caption = f"{results['file']}: {kind}, {results['samples']:,} test samples, {results['classes']} classes"
    tables = [Table(caption, heads, lines, notes=tuple(remarks(results)))]
    if "ood" in results:
        keys = ("auroc", "aupr", "fpr95")
        spans = intervals.get("ood", {})
        foreign = [
            [score.replace("_", " ")]
            + [f"{number(row[key])} {span(spans.get(score, {}).get(key))}".rstrip() for key in keys]
            for score, row in results["ood"].items()
        ]
        title = f"{results['ood_samples']:,} samples of another distribution, which are the positive class"
        tables.append(Table(title, ["score", "AUROC", "AUPR", "FPR at 95 % TPR"], foreign))
    return tables


def network(row: Results) -> list[str]:
    """Model, method and members of a row, as words."""
    return [MODEL_NAMES[row["model"]], row["method"], str(row["members"])]


def unique(names: Iterable[Any]) -> list[Any]:
    """`names` in order, each once."""
    return list(dict.fromkeys(names))


def _known(summary: Results) -> bool:
    return summary["mean"] is not None and math.isfinite(summary["mean"])


TABLES: dict[str, Callable[[Results], list[Table]]] = {
    "simulate multiview": multiview,
    "simulate window": cells,
    "simulate ablations": cells,
    "simulate plane": plane,
    "train cifar": training,
    "evaluate": evaluation,
}
