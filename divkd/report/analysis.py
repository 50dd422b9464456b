"""The report of `divkd analyse`: what the papers ask of a finished training run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from divkd.report.figures import analysis as figures
from divkd.report.figures.analysis import Kind, over_seeds
from divkd.report.published import published_tables
from divkd.report.record import Figure, Report, Results, Table, unique
from divkd.report.words import NETWORK, corruptions, labels, listed_seeds, network, seeds, spread
from divkd.shared.kinds import INPUTS, MODELS, STEPS
from divkd.shared.stats import show, summarise

SPLITS = ("train", "test")


def _sentence(results: Results, asked: Results) -> str:
    of = f" in {asked['run']}" if "run" in asked else ""
    return (
        f"An analysis of the training run{of}: {results['network']} on {results['dataset']}, "
        f"{results['members']} members, preset {results['preset']}, {listed_seeds(results['seeds'])}; "
        f"at most {results['images']:,} images of each set."
    )


def _tables(results: Results) -> list[Table]:
    """Images of another distribution, shifted and corrupted ones, diversity, transfer, gradients, costs, published."""
    return [
        *_ood(results),
        _shifted(results),
        _corrupted(results),
        *_by_split(results, "diversity", tuple(INPUTS), "pairwise_kl",
                   "Members' pairwise KL, nats, on images that are clean or moved"),
        *_by_split(results, "transfer", tuple(STEPS), None,
                   "Pairwise KL, nats, of two members, clean, and after a step of an own, sibling or external teacher"),
        *_by_split(results, "gradients", ("own", "other", "teachers"), None,
                   "Cosine of a student's input gradient with its own teacher's, with another's, and of two teachers'"),
        _passes(results),
        _inference(results),
        *published_tables(results["published"]),
    ]  # fmt: skip


def _kinds(results: Results, part: str) -> dict[Kind, list[str]]:
    """(model, method) of the networks that have a `part`, with the cells that name them."""
    return {(row["model"], row["method"]): network(row) for row in results["rows"] if part in row}


def _cell(values: list[Any]) -> str:
    """Mean and spread over seeds; empty where a value is missing."""
    return show(summarise(values)) if None not in values else ""


def _caption(results: Results, what: str) -> str:
    return f"{what}; at most {results['images']:,} images of each ({spread(results)})"


def _ood(results: Results) -> list[Table]:
    names = [one["name"] for one in results["sets"] if one["use"] == "ood"]
    scores = unique(score for row in results["rows"] for name in names for score in row["ood"][name]["scores"])
    heads = {(name, score): f"{name}: {score.replace('_', ' ')}" for name in names for score in scores}
    lines = []
    for kind, line in _kinds(results, "ood").items():
        by_set = {name: over_seeds(results, kind, "ood", name, "scores") for name in names}
        cells = [_cell([one.get(score, {}).get("auroc") for one in by_set[name]]) for name, score in heads]
        lines.append(line + cells)
    title = _caption(results, "AUROC of telling foreign images from test images, by score")
    page_only = tuple(head for (_, score), head in heads.items() if score != "entropy")
    return [Table(title, [*NETWORK, *heads.values()], lines, 3, page_only=page_only)] if names else []


def _shifted(results: Results) -> Table:
    sets = ["test", *(one["name"] for one in results["sets"] if one["use"] == "shift")]
    metrics = ("acc", "nll", "cal_nll", "cal_ece")
    heads = [*NETWORK, *(f"{name}: {words}" for name in sets for words in labels(*metrics))]
    lines = [
        line + [_cell(over_seeds(results, kind, "shift", name, metric)) for name in sets for metric in metrics]
        for kind, line in _kinds(results, "shift").items()
    ]
    title = "Test images" + (" and images of the same classes from elsewhere" if len(sets) > 1 else "")
    page_only = tuple(f"{name}: {words}" for name in sets for words in labels("nll", "cal_ece"))
    return Table(_caption(results, title), heads, lines, 3, page_only=page_only)


def _corrupted(results: Results) -> Table:
    made = results["corruptions"]
    metrics = ("acc", "nll", "ece", "cal_nll", "cal_ece")
    severities = range(len(results["rows"][0]["corruptions"]["acc"][made["kinds"][0]]))
    heads = [*NETWORK, *(f"mean {words}" for words in labels(*metrics))]
    heads += [f"accuracy, severity {severity + 1}" for severity in severities]
    lines = []
    for kind, line in _kinds(results, "corruptions").items():
        cells = []
        for metric in metrics:
            tables = over_seeds(results, kind, "corruptions", metric)
            cells.append(_cell([mean(value for row in table.values() for value in row) for table in tables]))
        tables = over_seeds(results, kind, "corruptions", "acc")
        cells += [_cell([mean(row[severity] for row in table.values()) for table in tables]) for severity in severities]
        lines.append(line + cells)
    title = f"Means over {len(made['kinds'])} kinds of corruption ({corruptions(made)}), {made['n']:,} images each"
    page_only = tuple(f"mean {words}" for words in labels("nll", "ece"))
    notes = (f"Kinds: {', '.join(made['kinds'])}.",)
    return Table(f"{title} ({spread(results)})", heads, lines, 3, notes, page_only=page_only)


def _by_split(results: Results, part: str, columns: tuple[str, ...], leaf: str | None, title: str) -> list[Table]:
    heads = [*NETWORK, *(f"{split} images: {column}" for split in SPLITS for column in columns)]
    lines = []
    for kind, line in _kinds(results, part).items():
        paths = [(part, split, column, *([leaf] if leaf else [])) for split in SPLITS for column in columns]
        lines.append(line + [_cell(over_seeds(results, kind, *path)) for path in paths])
    return [Table(_caption(results, title), heads, lines, 3)] if lines else []


def _passes(results: Results) -> Table:
    lines = [[MODELS[row["model"]], row["method"], f"{row['passes']:g}", f"{row['peak_bytes'] / 1e6:.1f}"]
             for row in results["training_cost"]]  # fmt: skip
    caption = "Forward passes of one network for a training image and step (a backward pass: 2, to the input alone: 1)"
    batch = results["training_cost"][0]["batch"]
    return Table(caption, ["model", "method", "passes", f"peak MB of {batch} images"], lines, 2)


def _inference(results: Results) -> Table:
    lines = []
    for row in results["inference"]:
        ratios = [f"{row[f'{key}_ratio']:.2f}" for key in ("weight_bytes", "macs", "peak_activation_bytes")]
        times = [row[f"{key}_ratio"] for key in ("latency_s", "images_per_s")]
        spans = [f"{one['median']:.2f} ({one['quartiles'][0]:.2f} to {one['quartiles'][1]:.2f})" for one in times]
        name = MODELS.get(row["name"], row["name"])
        lines.append([name, str(row["members"]), *ratios, *spans, str(times[0]["n"])])
    heads = ["network", "M", "weights", "arithmetic", "activations", "latency, 1 image", "images a second", "n"]
    first = results["inference"][0]
    caption = f"An answer, as a ratio to the single network's; times: median (quartiles) on {first['device']}"
    note = f"Batches of {first['batch']}, threads: {first['threads']}."
    return Table(caption, heads, lines, notes=(note,))


def _again(results: Results, asked: Results, run: Path) -> tuple[list[str], str]:
    line = ["divkd", "analyse", asked.get("run", "RUN"), "--images", str(results["images"])]
    line += [part for name in ("ood", "shift") for one in asked.get(name, []) for part in (f"--{name}", one)]
    line += [part for name in ("corruptions", "device") if asked.get(name) for part in (f"--{name}", asked[name])]
    return line, "" if asked else "RUN is the training run; without config.json its folder and the sets are not known."


def images(results: Results) -> str:
    """What a figure of the images of each set is of."""
    return f"at most {results['images']:,} images of each set, {seeds(results)}"


def _some(part: str) -> Callable[[Results], bool]:
    """Whether a network was asked for that part."""
    return lambda results: any(part in row for row in results["rows"])


_figure = partial(Figure, of=images)
FIGURES = (
    Figure(
        "by_members",
        figures.member_curve,
        "Test error and calibrated NLL of the first 1, 2, ... members, on all test images",
    ),
    _figure("corruptions", figures.corruption_boxes, "Accuracy, NLL and ECE over kinds of corruption, by severity"),
    _figure(
        "diversity_by_confidence",
        figures.confidence_diversity,
        "Members' pairwise KL by confidence of the mean prediction",
        fits=_some("diversity"),
    ),
    _figure(
        "transfer",
        figures.transfer,
        "Members' pairwise KL after an ODS step of an own, a sibling, an external teacher",
        fits=_some("diversity"),
    ),
    _figure(
        "gradients",
        figures.gradients,
        "Cosine of students' input gradients with those of teachers",
        fits=_some("gradients"),
    ),
    _figure(
        "entropy",
        figures.entropies,
        "Entropy of the mean prediction on test and on foreign images",
        fits=lambda results: any(one["use"] == "ood" for one in results["sets"]),
    ),
)
REPORT = Report(_sentence, _tables, FIGURES, again=_again)
