"""The report of `divkd train`: deep ensembles and what is distilled from them, quality and cost."""

from divkd.report import summaries
from divkd.report.figures import known
from divkd.report.figures import training as figures
from divkd.report.published import beside, published_tables, split_table, views_tables
from divkd.report.record import Figure, Report, Results, Table, counted, has, unique
from divkd.report.words import (
    MEASURE,
    MEASURES,
    NETWORK,
    difference,
    equivalent,
    labels,
    learned,
    listed_seeds,
    network,
    one_seed,
    seeds,
    spread,
)
from divkd.shared.kinds import INPUTS, MODELS, PERTURBATIONS
from divkd.shared.stats import show

FIRST = ("acc", "cal_nll")  # the columns that no terminal is too narrow for
OTHERS = ("pairwise_kl", "cal_ece", "cal_brier", "nll", "brier", "ece", "train_acc", "temperature")
SINGLE = ("single", "merged")  # models of one member
PAGE_ONLY = ("brier", "ece", "cal_brier", "temperature")


def _sentence(results: Results, asked: Results) -> str:
    parts = {"train": "training", "validation": "validation", "test": "test"}
    sizes = ", ".join(f"{results['split'][part]:,} {word}" for part, word in parts.items() if part in results["split"])
    members = max(row["members"] for row in results["summary"] if row["model"] == "deep_ensemble")
    return (
        f"Deep ensembles of up to {members} networks ({results['network']}) on {results['dataset']} and what is "
        f"distilled from them, preset {results['preset']}; {sizes} images; {listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    """Quality and cost, paired differences, the ladder of the DEE, the teachers' diversity."""
    return [
        _quality(results),
        *_differences(results["differences"]),
        *_ladders(results["ladders"]),
        *_teachers(results["teacher_diversity"]),
        *_known(results.get("views")),
    ]


def _quality(results: Results) -> Table:
    split = results["split"]
    measured = any("dee" in row for row in results["summary"])
    more = [one.key for one in MEASURES if one.key in results["summary"][0] and one.key not in (*FIRST, *OTHERS)]
    lines = []
    for row in results["summary"]:
        first, others = ([_shown(row, key) for key in keys] for keys in (FIRST, (*OTHERS, *more)))
        if measured:
            dee = row.get("dee")
            first += [equivalent(dee), "" if dee is None else f"{dee['censored']:.0%} of {dee['n']}"]
        cost = [f"{row['params']['mean']:,.0f}", show(row["seconds"], 1), str(row["acc"]["n"])]
        lines.append([*network(row), *first, *others, *cost])
    dee_heads = ["DEE", "DEE censored"] if measured else []
    heads = [*NETWORK, *labels(*FIRST), *dee_heads, *labels(*OTHERS, *more), "parameters", "seconds", "seeds"]
    notes = ["NLL and KL in nats; seconds are wall-clock times."]
    if measured:
        notes.append("DEE: the deep ensemble equivalent; a censored one is beyond the ladder, so only a lower bound.")
    sizes = f"{split['train']:,} training and {split['test']:,} test images"
    caption = f"{results['dataset']}, {results['network']}, {sizes} ({spread(results)})"
    page_only = (*labels(*PAGE_ONLY, *more), "DEE censored", "seeds")
    return Table(caption, heads, lines, 3, tuple(notes), page_only=page_only)


def _shown(row: Results, key: str) -> str:
    if MEASURE[key].of_members and row["members"] == 1:
        return ""
    return equivalent(row.get(key)) if key == "dee" else show(row[key], MEASURE[key].digits)


def _differences(rows: list[Results]) -> list[Table]:
    keys = [key for key in (*FIRST, "views_missed", *OTHERS) if all(key in row for row in rows)]
    lines = [
        [MODELS[row["model"]], learned(row["method"]), _against(row)]
        + ["" if MEASURE[key].of_members and row["model"] in SINGLE else difference(row[key]) for key in keys]
        + [str(row[keys[0]]["n"])]
        for row in rows
    ]
    heads = ["model", "method", "minus", *labels(*keys), "seeds"]
    caption = "Paired differences over seeds, mean and 95 % interval (none where n is 1)"
    return [Table(caption, heads, lines, 3, page_only=(*labels("nll", "cal_brier"), "seeds"))] if rows else []


def _against(row: Results) -> str:
    """What a paired difference is from: the other model, the other method, or both."""
    model, method = MODELS[row["against_model"]], learned(row["against_method"])
    if row["against_model"] == row["model"]:
        return f"by {method}"
    return model if row["against_method"] == row["method"] else f"{model}, {method}"


def _ladders(ladders: list[Results]) -> list[Table]:
    heads = ["members", *(f"seed {ladder['seed']}" for ladder in ladders)]
    lines = [
        [str(rows[0]["members"]), *(f"{show(row)} (n = {row['n']})" for row in rows)]
        for rows in zip(*(ladder["curve"] for ladder in ladders), strict=True)
    ]
    caption = "The ladder of the DEE: calibrated NLL of deep ensembles, mean ± sd over subsets"
    return [Table(caption, heads, lines)] if ladders else []


def _teachers(rows: list[Results]) -> list[Table]:
    lines = []
    for row in rows:
        clean = row["clean"] or float("nan")  # equal teachers never disagree
        kl = [f"{row['clean']:.3g}", *(f"{row[kind] / clean:.3g}×" for kind in PERTURBATIONS)]
        lines.append([str(row["seed"]), f"{row['images']:.0f}", *kl, f"{row['train_acc']:.1%}"])
    heads = ["seed", "training images", f"{INPUTS['clean']}, nats", *PERTURBATIONS.values(), "teachers fit"]
    void = ", ".join(str(row["seed"]) for row in rows if row["void"])
    notes = (f"VOID as a test of the paper's premise: teachers of seed {void} do not fit their images.",)
    caption = "Teachers' pairwise KL on training images, and how much a step of each kind changes it"
    return [Table(caption, heads, lines, notes=notes if void else ())] if rows else []


def _known(views: Results | None) -> list[Table]:
    """What networks miss of the views of generated images, where the run has them."""
    lines = [
        [known.called(row), "alone" if row["alone"] else "together", str(row["networks"])]
        + [show(row[key]) for key in ("missed", "weaker", "stronger")]
        for row in (views or {"summary": ()})["summary"]
    ]
    heads = ["network", "members", "n", "classes with a view missed", "weaker view", "stronger view"]
    notes = (f"Accuracy on images that show one own view alone; missed: below {known.MISSED:g}. n counts networks.",)
    return [Table("Views known: single-view probes, mean ± sd over seeds", heads, lines, 2, notes)] if lines else []


def _published(results: Results) -> list[Table]:
    """Numbers of the papers on the same data set; what was measured is for the same model, method and members."""
    accuracy = {(row["model"], row["method"], row["members"]): row["acc"] for row in results["summary"]}
    keys = {
        "single_of_10": ("deep_ensemble", "none", 1),
        "ensemble_of_10": ("deep_ensemble", "none", 10),
        "distilled_from_ensemble": ("single", "kd", 1),
    }
    own = {name: accuracy[key] for name, key in keys.items() if key in accuracy}
    tables = [*published_tables(beside(results)), *views_tables(own, results["dataset"], (results["dataset"],))]
    return [*tables, split_table()] if results["dataset"] == "cifar100" else tables


def _comparison(labels: list[str], runs: list[Results]) -> list[Table]:
    """What several runs were trained on, and their networks by each of a few measures."""
    facts = [
        (run["dataset"], run["network"], f"{run['split']['train']:,}", f"{run['split']['test']:,}", len(run["seeds"]))
        for run in runs
    ]
    names = ("data set", "network", "training images", "test images", "seeds")
    lines = [[name, *map(str, of_runs)] for name, *of_runs in zip(names, *facts, strict=True)]
    tables = [Table("What was trained on what", ["", *labels], lines)]
    by_network = [{tuple(network(row)): row for row in run["summary"]} for run in runs]
    for key in ("acc", "cal_nll", "pairwise_kl", "cal_ece", "dee"):
        name = "deep ensemble equivalent" if key == "dee" else MEASURE[key].label
        rows = []
        for one in unique(one for rows_of in by_network for one in rows_of):
            cells = [_shown(rows_of[one], key) if one in rows_of else "" for rows_of in by_network]
            rows += [[*one, *cells]] if any(cells) else []
        if rows:
            caption = f"{name[0].upper()}{name[1:]}, mean ± sd over seeds"
            tables.append(Table(caption, [*NETWORK, *counted(labels, runs)], rows, 3))
    return tables


def test_images(results: Results) -> str:
    """What a figure of test images is of."""
    return f"{results['split']['test']:,} test images, {seeds(results)}"


FIGURES = (
    Figure("methods", figures.methods,
           "Test error and calibrated NLL of students by method, with the deep ensembles as lines", test_images,
           fits=lambda results: any(row["model"] != "deep_ensemble" for row in results["summary"])),
    Figure("fit", figures.fit, "Training against test accuracy of every network of the deep ensemble, and of the "
           "teachers' ensemble", test_images, has("networks")),
    Figure("teacher_diversity", figures.teacher_diversity,
           "Teachers' pairwise KL on training images, clean and moved, a mark a seed",
           fits=lambda results: bool(results["teacher_diversity"])),
    Figure("dee", figures.equivalents,
           "The ladder's calibrated NLL by members, and the deep ensemble equivalent of students", test_images,
           figures.has_equivalents),
    Figure("views_known", known.views_known,
           "Accuracy of every network on images that show one view of their class alone", one_seed, has("views")),
    Figure("views_missed", known.views_missed,
           "The share of classes of which networks, ensembles and students miss a view", test_images, has("views")),
)  # fmt: skip
REPORT = Report(
    ("train cifar",), _sentence, _tables, FIGURES, _comparison, summary=summaries.training, published=_published
)
