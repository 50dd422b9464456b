"""The report of `divkd simulate multiview`: the theory's claims, its ensembles by members, what views are learned."""

import math

from divkd.report import summaries
from divkd.report.figures import claims, views
from divkd.report.published import simulated_tables
from divkd.report.record import Figure, Report, Results, Table, counted, has
from divkd.report.words import listed_seeds, one_seed, spread
from divkd.shared.kinds import CLAIMS, VIEWS
from divkd.shared.stats import show

SETS = {"single_view": "single-view test", "multi_view": "multi-view test", "test": "test", "train": "train"}


def _sentence(results: Results, asked: Results) -> str:
    world = results["config"]
    return (
        f"A simulation of the multi-view theory, preset {results['preset']}, engine {world['engine']}: ensembles "
        f"of {world['members']} networks, {world['classes']} classes; {listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    """The claims, the ensemble by its members, and what was learned of the views."""
    lines = []
    for name in (name for name in CLAIMS if name in results["claims"]):
        claim = results["claims"][name]
        title = CLAIMS[name].title + (f" of {claim['members']}" if name == "ensemble" else "")
        single, *errors = (show(claim[f"{kind}_error"]) for kind in SETS)
        theory = f"{claim['predicted']:.3f}", " to ".join(f"{edge:g}" for edge in claim["bound"] or ())
        lines.append([title, "yes" if claim["holds"] else "no", single, *theory, *errors, claim["accepted"]])
    first, *others = (f"{words} error" for words in SETS.values())
    heads = ["claim", "holds", first, "predicted here", "theorem's bound", *others, "accepted where"]
    caption = "Measured error rates, the finite-size prediction and the theorem's bound for single-view samples"
    note = "The bound is of the limit of many classes; the prediction is for the sizes that were simulated."
    what = spread(results)
    claimed = Table(f"{caption} ({what})", heads, lines, notes=(note,), words=1, page_only=(heads[-1],))
    heads = ["members", "measured", "predicted here", "predicted, given the views learned", "asymptotic"]
    lines = [
        [str(row["members"]), show({"mean": row["single_view_error"], "std": row["std"]}, 4)]
        + [f"{row[key]:.4f}" for key in ("predicted", "predicted_from_views", "asymptotic")]
        for row in results["claims"]["ensemble"]["by_members"]
    ]
    by_members = Table(f"Single-view test error of ensembles by members ({what})", heads, lines)
    known = results["views"]["spread"]  # null, or NaN, where no network could be measured
    known = {key: one for key, one in known.items() if one["mean"] is not None and math.isfinite(one["mean"])}
    lines = [[words.title, show(known[key])] for key, words in VIEWS.items() if key in known]
    return [claimed, by_members, Table(f"What networks know of the views ({what})", ["share", "value"], lines)]


def _comparison(labels: list[str], runs: list[Results]) -> list[Table]:
    """The claims of several runs."""
    lines = []
    for name, words in CLAIMS.items():
        of_runs = [_claim(run["claims"].get(name)) for run in runs]
        lines += [[words.title, *of_runs]] if any(of_runs) else []
    caption = "Error on single-view test samples, mean ± sd over seeds; in brackets what was predicted"
    return [Table(caption, ["claim", *counted(labels, runs)], lines)]


def _claim(claim: Results | None) -> str:
    if claim is None:
        return ""
    return f"{show(claim['single_view_error'])} ({claim['predicted']:.3f}) {'' if claim['holds'] else 'does not hold'}"


FIGURES = (
    Figure("view_strengths", views.view_strengths,
           "Strength of every class's two views through flow time, a line a class and view", one_seed),
    Figure("memorisation", views.memorisation,
           "Probability of the right class on training samples through flow time", one_seed),
    Figure("error_by_members", claims.error_by_members,
           "Error on single-view test samples by the ensemble's members, with the predictions"),
    Figure("claims", claims.claims_bars, "Error on single-view test samples of every claim, with bound and prediction"),
    Figure("views_learned", views.views_learned,
           "Which views of each class each network knows, before and after distillation", one_seed, has("learned")),
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
