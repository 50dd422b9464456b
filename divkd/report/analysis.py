"""The report of `divkd analyse`: what the papers ask of a finished training run."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from divkd.report import summaries
from divkd.report.figures import analysis as figures
from divkd.report.figures.analysis import SPLITS, at, over_seeds
from divkd.report.published import published_tables
from divkd.report.record import Figure, Report, Results, Table, unique
from divkd.report.words import MEASURE, NETWORK, corruptions, labels, learned, listed_seeds, network, seeds, spread
from divkd.shared.kinds import INPUTS, MODELS, STEPS
from divkd.shared.stats import show, summarise

Columns = dict[str, Callable[[Any], Any]]  # headings, and what is read under each


def _sentence(results: Results, asked: Results) -> str:
    of = f" in {asked['run']}" if "run" in asked else ""
    return (
        f"An analysis of the training run{of}: {results['network']} on {results['dataset']}, "
        f"{results['members']} members, preset {results['preset']}, {listed_seeds(results['seeds'])}; "
        f"{_at_most(results)} set."
    )


def _at_most(results: Results) -> str:
    return f"at most {results['images']:,} images of each"


def _tables(results: Results) -> list[Table]:
    """Images of another distribution, shifted and corrupted ones, diversity, transfer, gradients, costs."""
    return [
        *_ood(results),
        _shifted(results),
        _corrupted(results),
        *_by_split(results, "diversity", INPUTS,
                   "Members' pairwise KL, nats, on images that are clean or moved", "pairwise_kl"),
        *_by_split(results, "transfer", STEPS,
                   "Pairwise KL, nats, of two members, clean, and after a step of an own, sibling or external teacher"),
        *_by_split(results, "gradients", ("own", "other", "teachers"),
                   "Cosine of a student's input gradient with its own teacher's, with another's, and of two teachers'"),
        _passes(results),
        _inference(results),
    ]  # fmt: skip


def _by_network(results: Results, part: str, columns: Columns, title: str, **more: Any) -> Table:
    """Mean and spread over seeds of what each column reads from the `part` of a row; empty where a value is missing."""
    lines = []
    for kind, cells in {(row["model"], row["method"]): network(row) for row in results["rows"] if part in row}.items():
        parts = over_seeds(results, kind, part)
        values = [[read(one) for one in parts] for read in columns.values()]
        lines.append(cells + ["" if None in of_seeds else show(summarise(of_seeds)) for of_seeds in values])
    return Table(f"{title} ({spread(results)})", [*NETWORK, *columns], lines, 3, **more)


def _ood(results: Results) -> list[Table]:
    names = [one["name"] for one in results["sets"] if one["use"] == "ood"]
    scores = unique(score for row in results["rows"] for name in names for score in row["ood"][name]["scores"])
    columns: Columns = {
        f"{name}: {score.replace('_', ' ')}": partial(_auroc, name, score) for name, score in product(names, scores)
    }
    title = f"AUROC of telling foreign images from test images, by score; {_at_most(results)}"
    page_only = tuple(head for head in columns if not head.endswith(": entropy"))
    return [_by_network(results, "ood", columns, title, page_only=page_only)] if names else []


def _auroc(name: str, score: str, part: Results) -> Any:
    return part[name]["scores"].get(score, {}).get("auroc")


def _shifted(results: Results) -> Table:
    sets = ["test", *(one["name"] for one in results["sets"] if one["use"] == "shift")]
    metrics = ("acc", "nll", "cal_nll", "cal_ece")
    columns = {f"{name}: {MEASURE[metric].label}": at(name, metric) for name in sets for metric in metrics}
    title = "Test images" + (" and images of the same classes from elsewhere" if len(sets) > 1 else "")
    page_only = tuple(f"{name}: {words}" for name in sets for words in labels("nll", "cal_ece"))
    return _by_network(results, "shift", columns, f"{title}; {_at_most(results)}", page_only=page_only)


def _corrupted(results: Results) -> Table:
    made = results["corruptions"]
    severities = len(results["rows"][0]["corruptions"]["acc"][made["kinds"][0]])
    metrics = ("acc", "nll", "ece", "cal_nll", "cal_ece")
    columns: Columns = {
        f"mean {MEASURE[metric].label}": partial(_over_kinds, metric, slice(None)) for metric in metrics
    }
    for place in range(severities):
        columns[f"accuracy, severity {place + 1}"] = partial(_over_kinds, "acc", slice(place, place + 1))
    title = f"Means over {len(made['kinds'])} kinds of corruption ({corruptions(made)}), {made['n']:,} images each"
    page_only = tuple(f"mean {words}" for words in labels("nll", "ece"))
    notes = (f"Kinds: {', '.join(made['kinds'])}.",)
    return _by_network(results, "corruptions", columns, title, notes=notes, page_only=page_only)


def _over_kinds(metric: str, severities: slice, part: Results) -> float:
    return float(mean(value for row in part[metric].values() for value in row[severities]))


def _by_split(results: Results, part: str, names: Iterable[str], title: str, *leaf: str) -> list[Table]:
    columns = {f"{split} images: {name}": at(split, name, *leaf) for split, name in product(SPLITS, names)}
    table = _by_network(results, part, columns, f"{title}; {_at_most(results)}")
    return [table] if table.lines else []


def _passes(results: Results) -> Table:
    lines = [[MODELS[row["model"]], learned(row["method"]), f"{row['passes']:g}", f"{row['peak_bytes'] / 1e6:.1f}"]
             for row in results["training_cost"]]  # fmt: skip
    caption = "Forward passes of one network for a training image and step (a backward pass: 2, to the input alone: 1)"
    batch = results["training_cost"][0]["batch"]
    return Table(caption, ["model", "method", "passes", f"peak MB of {batch} images"], lines, 2)


def _inference(results: Results) -> Table:
    lines = []
    for row in results["inference"]:
        ratios = [f"{row[f'{key}_ratio']:.2f}" for key in ("weight_bytes", "macs", "peak_activation_bytes")]
        times = [row[f"{key}_ratio"] for key in ("latency_s", "images_per_s")]
        spans = ["{:.2f} ({:.2f} to {:.2f})".format(one["median"], *one["quartiles"]) for one in times]
        names = [MODELS.get(row["name"], row["name"]), str(row["members"])]
        lines.append([*names, *ratios, *spans, str(times[0]["n"])])
    heads = ["network", "M", "weights", "arithmetic", "activations", "latency, 1 image", "images a second", "n"]
    first = results["inference"][0]
    caption = f"An answer, as a ratio to the single network's; times: median (quartiles) on {first['device']}"
    note = f"Batches of {first['batch']}, threads: {first['threads']}."
    return Table(caption, heads, lines, notes=(note,))


def _published(results: Results) -> list[Table]:
    return published_tables(results["published"])


def _again(results: Results, asked: Results, run: Path) -> tuple[list[str], str]:
    line = ["divkd", "analyse", asked.get("run", "RUN"), "--images", str(results["images"])]
    line += [part for name in ("ood", "shift") for one in asked.get(name, []) for part in (f"--{name}", one)]
    line += [part for name in ("corruptions", "device") if asked.get(name) for part in (f"--{name}", asked[name])]
    return line, "" if asked else "RUN is the training run; without config.json its folder and the sets are not known."


def images(results: Results) -> str:
    """What a figure of the images of each set is of."""
    return f"{_at_most(results)} set, {seeds(results)}"


def _some(part: str) -> Callable[[Results], bool]:
    """Whether a network was asked for that part."""
    return lambda results: any(part in row for row in results["rows"])


FIGURES = (
    Figure("by_members", figures.member_curve,
           "Test error and calibrated NLL of the first 1, 2, ... members, on all test images"),
    Figure("corruptions", figures.corruption_boxes,
           "Accuracy, NLL and ECE over kinds of corruption, by severity", images),
    Figure("diversity_by_confidence", figures.confidence_diversity,
           "Members' pairwise KL by confidence of the mean prediction; at the foot, the share of images in each bin",
           images, _some("diversity")),
    Figure("transfer", figures.transfer,
           "Members' pairwise KL after an ODS step of an own, a sibling, an external teacher", images,
           _some("diversity")),
    Figure("transfer_by_confidence", figures.transfer_by_confidence,
           "The same by confidence of the two members' mean prediction", images, figures.by_confidence),
    Figure("gradients", figures.gradients,
           "Cosine of students' input gradients with those of teachers", images, _some("gradients")),
    Figure("entropy", figures.entropies, "Entropy of the mean prediction on test and on foreign images", images,
           lambda results: any(one["use"] == "ood" for one in results["sets"])),
)  # fmt: skip
REPORT = Report(
    ("analyse",), _sentence, _tables, FIGURES, again=_again, summary=summaries.analysis, published=_published
)
