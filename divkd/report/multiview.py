"""The report of `divkd simulate multiview`: the theory's claims, its ensembles by members, what views are learned."""

import math

from divkd.report import summaries
from divkd.report.figures import claims, knowledge, views
from divkd.report.published import simulated_tables
from divkd.report.record import Figure, Report, Results, Table, counted, has
from divkd.report.words import equivalent, labels, listed_seeds, one_seed, spread, views_of
from divkd.shared.kinds import CLAIMS, VIEWS
from divkd.shared.stats import show, summarise
from divkd.shared.verdicts import TOLERANCE, verdicts

YES = {True: "yes", False: "no"}
POOLED = {"alone": "one network", "probabilities": "{} networks, mean of p", "outputs": "{} networks, sum of F"}
FIRST, REST = (
    ("acc", "nll", "cal_nll"),
    ("pairwise_kl", "disagreement", "brier", "ece", "cal_brier", "cal_ece", "temperature"),
)
TOLD = ("train", "multi_view", "single_view")
PAGE_ONLY = ("brier", "ece", "cal_brier", "cal_ece", "temperature")
SETS = {"single_view": "single-view test", "multi_view": "multi-view test", "test": "test", "train": "train"}


def _sentence(results: Results, asked: Results) -> str:
    world = results["config"]
    return (
        f"A simulation of the multi-view theory, preset {results['preset']}, engine {world['engine']}: ensembles "
        f"of {world['members']} networks, {world['classes']} classes{_of_views(results)}; "
        f"{listed_seeds(results['seeds'])}."
    )


def _of_views(results: Results) -> str:
    views = views_of(results)
    return "" if views == 2 else f" of {views} view{'s' * (views > 1)}"


def _tables(results: Results) -> list[Table]:
    """The claims, the ensemble by its members, and what was learned of the views."""
    what = spread(results)
    return [
        _claims(f"Errors on single-view test samples: the bound, and the prediction for these sizes ({what})", results),
        _by_members(f"Single-view test error of ensembles by members ({what})", results),
        Table(f"What networks know of the views ({what})", ["share", "value"], _shares(results["views"]["spread"])),
        *(judged(results) if "judged" in results else ()),
    ]


def judged(results: Results) -> list[Table]:
    """The networks by the practice's measures, on the samples where they err; the premise; the ladder."""
    rows, what = results["judged"]["summary"], spread(results)
    title = f"As the practice judges, on single-view test samples ({what})"
    hard = [row for row in rows if row["samples"] == "single_view"]
    hard.sort(key=lambda row: (list(CLAIMS).index(row["claim"]), row["pooled"] == "outputs"))
    lines = [
        [CLAIMS[row["claim"]].title, POOLED[row["pooled"]].format(row["members"]), *(show(row[key]) for key in FIRST),
         equivalent(row.get("dee")), *(show(row[key]) if key in row else "" for key in REST)]
        for row in hard
    ]  # fmt: skip
    notes = (
        "Networks alone: the mean over them. Calibrated on fresh single-view samples. DEE: by calibrated NLL on the "
        "ladder of the members.",
    )
    heads = ["claim", "answer", *labels(*FIRST, "dee", *REST)]
    tables = [Table(title, heads, lines, 2, notes, page_only=tuple(labels(*PAGE_ONLY)))]
    sets = [[row for row in rows if row["samples"] == of and row["claim"] in ("single", "ensemble")] for of in TOLD]
    pairs = [
        [SETS[one["samples"]], *(show(row[key]) for key in ("acc", "nll") for row in (one, many)),
         *(show(many[key]) for key in ("pairwise_kl", "disagreement"))]
        for one, many, _ in (part for part in sets if len(part) > 1)
    ]  # fmt: skip
    if pairs:
        title = f"Do members agree on training samples and differ on others? Probabilities averaged ({what})"
        heads = [f"{one}, {whose}" for one in labels("acc", "nll") for whose in ("one network", "ensemble")]
        tables.append(Table(title, ["samples", *heads, *labels("pairwise_kl", "disagreement")], pairs))
    ladders = results["judged"]["ladders"]
    steps = zip(*(one["curve"] for one in ladders), strict=True)
    curve = [[str(step[0]["members"]), show(summarise(row["mean"] for row in step))] for step in steps]
    title = f"The ladder of the DEE: calibrated NLL of ensembles on single-view test samples ({what})"
    return [*tables, Table(title, ["members", *labels("cal_nll")], curve)]


def _claims(caption: str, results: Results) -> Table:
    """Every claim with two verdicts: on its bound, and on the prediction."""
    said = {name: verdicts(name, results["claims"][name]) for name in CLAIMS if name in results["claims"]}
    lotteries = any("by_lotteries" in claim for claim in results["claims"].values())
    lines = []
    for name, verdict in said.items():
        claim = results["claims"][name]
        title = CLAIMS[name].title + (f" of {claim['members']}" if name == "ensemble" else "")
        single, *errors = (show(claim[f"{kind}_error"]) for kind in SETS)
        bound, within = "none", ""
        if claim["bound"] is not None:
            whose = "theorem:" if verdict["theorem"] else "expected:"
            bound = f"{whose} " + " to ".join(f"{edge:g}" for edge in claim["bound"])
            within = ": ".join(filter(None, (YES[verdict["bound"]], verdict["why"])))
        line = [title, single, bound, within, f"{claim['predicted']:.3f}", YES[verdict["prediction"]]]
        line += [show(claim["by_lotteries"]) if "by_lotteries" in claim else ""] * lotteries
        lines.append([*line, *errors, YES[verdict["accepted"]], claim["accepted"]])
    first, *others = (f"{words} error" for words in SETS.values())
    heads = [
        "claim",
        first,
        "bound",
        "within it?",
        "predicted here",
        "as predicted?",
        *["by lotteries alone"] * lotteries,
        *others,
        "accepted?",
        "accepted where",
    ]
    notes = [
        f"Within it: the error as shown lies in the bound. As predicted: within {TOLERANCE} of the prediction, about "
        "two standard errors of 2,000 test samples."
    ]
    if lotteries:
        notes.append("By lotteries alone: whatever teachers knew, with the standard deviation of a seed by chance.")
    if any(verdict["theorem"] for verdict in said.values()):
        notes.append("The theorems are about the limit of many classes, and of many members.")
    if any(verdict["why"] for verdict in said.values()):
        notes.append("Too few members: for so many, the prediction is itself above the bound.")
    if any(verdict["bound"] is not None and not verdict["theorem"] for verdict in said.values()):
        notes.append(
            "Expected: a control, of which no theorem speaks; it should do as one network, or as what it is of."
            if views_of(results) == 2
            else "Expected: the theorems are of two views; of V, one network should miss (V - 1)/V, two its square."
        )
    # what is accepted is the last word where there is no bound
    page_only = heads[-2:] if any(claim["bound"] is not None for claim in results["claims"].values()) else []
    return Table(caption, heads, lines, notes=tuple(notes), words=1, page_only=tuple(page_only))


def _by_members(caption: str, results: Results) -> Table:
    heads = ["members", "measured", "predicted here", "predicted, given the views learned", "asymptotic"]
    lines = [
        [str(row["members"]), show({"mean": row["single_view_error"], "std": row["std"]}, 4)]
        + [f"{row[key]:.4f}" for key in ("predicted", "predicted_from_views", "asymptotic")]
        for row in results["claims"]["ensemble"]["by_members"]
    ]
    return Table(caption, heads, lines)


def _shares(known: Results) -> list[list[str]]:
    # null, or NaN, where no network could be measured
    known = {key: one for key, one in known.items() if one["mean"] is not None and math.isfinite(one["mean"])}
    return [[words.title, show(known[key])] for key, words in VIEWS.items() if key in known]


def _comparison(labels: list[str], runs: list[Results]) -> list[Table]:
    """The claims of several runs."""
    lines = []
    for name, words in CLAIMS.items():
        of_runs = [run["claims"].get(name) for run in runs]
        if any(of_runs):
            lines.append([words.title, *("" if claim is None else _claim(name, claim) for claim in of_runs)])
    caption = "Error on single-view test samples, mean ± sd over seeds (what was predicted), and what it misses"
    return [Table(caption, ["claim", *counted(labels, runs)], lines)]


def _claim(name: str, claim: Results) -> str:
    missed = claims.misses(name, claim)
    return f"{show(claim['single_view_error'])} ({claim['predicted']:.3f}){missed and f': {missed}'}"


FIGURES = (
    Figure("view_strengths", views.view_strengths,
           "Strength of every class's views through flow time, a line a class and view", one_seed),
    Figure("memorisation", views.memorisation,
           "Probability of the right class on training samples through flow time", one_seed),
    Figure("error_by_members", claims.error_by_members,
           "Error on single-view test samples by the ensemble's members, with the predictions"),
    Figure("claims", claims.claims_bars, "Error on single-view test samples of every claim, with bound and prediction"),
    Figure("views_learned", views.views_learned,
           "Which views of each class each network knows, before and after distillation", one_seed, has("learned")),
    Figure("diversity", knowledge.simulated_confidence,
           "Members' pairwise KL by confidence of their mean prediction, on training samples and on fresh ones",
           fits=lambda results: any("single" in one for one in results.get("judged", {}).get("diversity", ()))),
    Figure("drawn_sample", views.drawn_sample,
           "A multi-view and a single-view sample: which feature sits in which patch", one_seed),
    Figure("soft_labels", views.soft_labels,
           "What teachers say of the multi-view sample, class by class", one_seed),
)  # fmt: skip
REPORT = Report(
    ("simulate multiview",),
    _sentence,
    _tables,
    FIGURES,
    _comparison,
    summary=summaries.multiview,
    published=simulated_tables,
)
