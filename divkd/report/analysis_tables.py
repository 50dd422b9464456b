"""The tables of an analysis, as text, from the content of its results.json."""

from statistics import mean
from typing import Any

from divkd.report.analysis import over_seeds
from divkd.report.ensembles import MODEL_NAMES, spread
from divkd.report.tables import NETWORK, Results, Table, network, published, unique
from divkd.shared.stats import show, summarise

SPLITS = ("train", "test")
Kind = tuple[str, str]


def analysis(results: Results) -> list[Table]:
    """Foreign, shifted and corrupted images, diversity, transfer, gradients, costs, published numbers."""
    return [
        *_foreign(results),
        _shifted(results),
        _corrupted(results),
        *_by_split(results, "diversity", ("clean", "gaussian", "ods", "confods"), "pairwise_kl",
                   "Members' pairwise KL, nats, on images that are clean or moved"),
        *_by_split(results, "transfer", ("clean", "own", "sibling", "external"), None,
                   "Pairwise KL, nats, of two members, clean, and after a step of an own, sibling or external teacher"),
        *_by_split(results, "gradients", ("own", "other", "teachers"), None,
                   "Cosine of a student's input gradient with its own teacher's, with another's, and of two teachers'"),
        _passes(results),
        _inference(results),
        *published(results["published"]),
    ]  # fmt: skip


def _kinds(results: Results, part: str) -> dict[Kind, list[str]]:
    """(model, method) of the networks that have a `part`, with the cells that name them."""
    return {(row["model"], row["method"]): network(row) for row in results["rows"] if part in row}


def _cell(values: list[Any]) -> str:
    """Mean and spread over seeds; empty where a value is missing."""
    return show(summarise(values)) if None not in values else ""


def _caption(results: Results, what: str) -> str:
    return f"{what}; at most {results['images']:,} images of each ({spread(results)})"


def _foreign(results: Results) -> list[Table]:
    names = [one["name"] for one in results["sets"] if one["use"] == "ood"]
    scores = unique(score for row in results["rows"] for name in names for score in row["ood"][name]["scores"])
    heads = [*NETWORK, *(f"{name}: {score.replace('_', ' ')}" for name in names for score in scores)]
    lines = []
    for kind, line in _kinds(results, "ood").items():
        found = [over_seeds(results, kind, "ood", name, "scores") for name in names]
        shown = [_cell([one.get(score, {}).get("auroc") for one in seeds]) for seeds in found for score in scores]
        lines.append(line + shown)
    title = _caption(results, "AUROC of telling foreign images from test images, by score")
    page_only = tuple(f"{name}: {score.replace('_', ' ')}" for name in names for score in scores if score != "entropy")
    return [Table(title, heads, lines, 3, page_only=page_only)] if names else []


def _shifted(results: Results) -> Table:
    sets = ["test", *(one["name"] for one in results["sets"] if one["use"] == "shift")]
    metrics = {"acc": "accuracy", "nll": "NLL", "cal_nll": "calibrated NLL", "cal_ece": "calibrated ECE"}
    heads = [*NETWORK, *(f"{name}: {words}" for name in sets for words in metrics.values())]
    lines = [
        line + [_cell(over_seeds(results, kind, "shift", name, metric)) for name in sets for metric in metrics]
        for kind, line in _kinds(results, "shift").items()
    ]
    title = "Test images" + (" and images of the same classes from elsewhere" if len(sets) > 1 else "")
    page_only = tuple(f"{name}: {metrics[metric]}" for name in sets for metric in ("nll", "cal_ece"))
    return Table(_caption(results, title), heads, lines, 3, page_only=page_only)


def _corrupted(results: Results) -> Table:
    made = results["corruptions"]
    metrics = {"acc": "accuracy", "nll": "NLL", "ece": "ECE", "cal_nll": "calibrated NLL", "cal_ece": "calibrated ECE"}
    severities = range(len(results["rows"][0]["corruptions"]["acc"][made["kinds"][0]]))
    heads = [*NETWORK, *(f"mean {words}" for words in metrics.values())]
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
    source = "our own generator, not CIFAR-10-C" if made["source"].startswith("own") else made["source"]
    title = f"Means over {len(made['kinds'])} kinds of corruption ({source}), {made['n']:,} images each"
    page_only = ("mean NLL", "mean ECE")
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
    lines = [[MODEL_NAMES[row["model"]], row["method"], f"{row['passes']:g}", f"{row['peak_bytes'] / 1e6:.1f}"]
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
        name = MODEL_NAMES.get(row["name"], row["name"])
        lines.append([name, str(row["members"]), *ratios, *spans, str(times[0]["n"])])
    heads = ["network", "M", "weights", "arithmetic", "activations", "latency, 1 image", "images a second", "n"]
    first = results["inference"][0]
    caption = f"An answer, as a ratio to the single network's; times: median (quartiles) on {first['device']}"
    note = f"Batches of {first['batch']}, threads: {first['threads']}."
    return Table(caption, heads, lines, notes=(note,))
