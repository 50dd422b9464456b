"""What was seen in a run, in sentences: true to its tables, with n and spread; what could not be told is said."""

from collections.abc import Callable, Iterable
from itertools import chain
from math import isfinite
from statistics import mean

from divkd.report.figures.analysis import TEACHERS, kinds, over_seeds
from divkd.report.figures.training import teachers
from divkd.report.record import Results, unique
from divkd.report.words import MEASURES, difference, number, span, spread, views_of
from divkd.shared.kinds import CLAIMS, METHODS, MODELS, PERTURBATIONS, STUDENTS
from divkd.shared.stats import show, summarise

Rows = dict[tuple[str, str, int], dict[int, Results]]  # rows by model, method and members, then by seed
STEPS = {"own": "one of the two", "sibling": "a sibling", "external": "a network that taught nobody"}
VIEWS = {
    "one_view_fraction": "A network knows just one view in a share of {} of the classes.",
    "distilled_views": "One that is distilled from the ensemble knows a share of {} of the views.",
}
DIGITS = 3  # of an error: what is shown is what is compared


def training(results: Results) -> list[str]:
    """The ensemble against one network, what students keep of its gain, and what measurably differs."""
    rows: Rows = {}
    for row in results["rows"]:
        rows.setdefault((row["model"], row["method"], row["members"]), {})[row["seed"]] = row
    size = teachers(results)
    one, ensemble = (rows.get(("deep_ensemble", "none", members), {}) for members in (1, size))
    sentences = []
    if one and size > 1:
        better = sum(ensemble[seed]["cal_nll"] < one[seed]["cal_nll"] for seed in one)
        sentences += [
            f"One network ({results['network']} on {results['dataset']}) has a test accuracy of {_over(one, 'acc')} "
            f"and a calibrated NLL of {_over(one, 'cal_nll')}; a deep ensemble of {size} has {_over(ensemble, 'acc')} "
            f"and {_over(ensemble, 'cal_nll')} ({spread(results)}), a better NLL in {better} of {len(one)}.",
            *_kept(rows, one, ensemble),
        ]
    return [*sentences, *_paired(results["differences"]), *_premise(results["teacher_diversity"])]


def _over(of_seeds: dict[int, Results], key: str) -> str:
    return show(summarise(row[key] for row in of_seeds.values()))


def _kept(rows: Rows, one: dict[int, Results], ensemble: dict[int, Results]) -> list[str]:
    """What share of the ensemble's gain each student has, (one - student) / (one - ensemble) of the same seed."""
    gains = {seed: one[seed]["cal_nll"] - ensemble[seed]["cal_nll"] for seed in one}
    if min(gains.values()) <= 0:
        return ["The ensemble does not gain in every seed, so that no share of its gain can be given."]
    parts = []
    for model, name in STUDENTS.items():
        of_model = []
        for (whose, method, _), own in rows.items():
            if whose == model:
                shares = [(one[seed]["cal_nll"] - own[seed]["cal_nll"]) / gains[seed] for seed in gains]
                ends = f" ({min(shares):.2f} to {max(shares):.2f})" if len(shares) > 1 else ""
                of_model.append(f"{METHODS[method]} {mean(shares):.2f}{ends}")
        parts += [f"{name}: {', '.join(of_model)}"] if of_model else []
    over = ", mean and range over seeds" if len(gains) > 1 else ""
    return [f"Of that gain in NLL students have, as a share{over}: {'; '.join(parts)}."] if parts else []


def _paired(rows: list[Results]) -> list[str]:
    """BatchEnsembles against single networks by the same method, and perturbed distillation against plain KD."""
    across = [row for row in rows if (row["model"], row["against_model"]) == ("batch_ensemble", "single")]
    sentences = _verdict("a BatchEnsemble and a single network by the same method", across)
    for model, name in STUDENTS.items():
        against = [
            row for row in rows if (row["model"], row["against_model"], row["against_method"]) == (model, model, "kd")
        ]
        perturbed = [row for row in against if row["method"] in PERTURBATIONS]
        sentences += _verdict(f"a {name} by perturbed distillation and one by plain KD", perturbed)
    return sentences


def _verdict(what: str, rows: list[Results]) -> list[str]:
    """Whether paired differences in NLL, first minus second, are measurable: their 95 % interval leaves out 0."""
    pairs = [(METHODS[row["method"]], row["cal_nll"]) for row in rows]
    if not pairs:
        return []
    if any(paired["low"] is None for _, paired in pairs):
        shown = ", ".join(f"{name} {difference(paired)}" for name, paired in pairs)
        return [f"In calibrated NLL {what} differ by {shown}; one seed cannot tell that from chance."]
    real = [f"{name} {difference(paired)}" for name, paired in pairs if not paired["low"] <= 0 <= paired["high"]]
    rest = [name for name, paired in pairs if paired["low"] <= 0 <= paired["high"]]
    count = f"95 % intervals of paired differences, n = {pairs[0][1]['n']}"
    if not real:
        return [f"In calibrated NLL {what} do not differ measurably: {', '.join(rest)} ({count})."]
    count = f"first minus second, {count}"
    others = f", and not measurably: {', '.join(rest)}" if rest else ""
    return [f"In calibrated NLL {what} differ: {', '.join(real)}{others} ({count})."]


def _premise(rows: list[Results]) -> list[str]:
    """How much an ODS step changes the teachers' disagreement, or that they do not fit."""
    void = [str(row["seed"]) for row in rows if row["void"]]
    if void:
        return [f"Teachers of seed {', '.join(void)} do not fit their training images: no test of the paper's premise."]
    times = [row["ods"] / row["clean"] for row in rows if row["clean"]]
    if not times:
        return []
    ends = unique(f"{end:.3g}" for end in (min(times), max(times)))
    return [f"On training images, an ODS step multiplies the teachers' disagreement by {' to '.join(ends)}."]


def multiview(results: Results) -> list[str]:
    """The claims in words, which bounds are met, and what networks know of the views."""
    claims = results["claims"]
    numbered = {name: claims[name] for name in CLAIMS if name in claims and CLAIMS[name].title[0].isdigit()}
    errors = []
    for name, claim in numbered.items():
        many = f" of {claim['members']}" if name == "ensemble" else ""
        errors.append(f"{CLAIMS[name].short}{many} {show(claim['single_view_error'], DIGITS)}")
    sentences = [f"Error on samples that show one view of their class: {', '.join(errors)} ({spread(results)})."]
    met: list[str] = []
    missed: list[str] = []
    for name, claim in numbered.items():
        if claim["bound"] is not None:
            low, high = claim["bound"]
            within = low <= round(claim["single_view_error"]["mean"], DIGITS) <= high
            (met if within else missed).append(f"{CLAIMS[name].short} ({low:g} to {high:g})")
    if met or missed:
        parts = [f"{verb} {', '.join(names)}" for verb, names in (("met for", met), ("missed for", missed)) if names]
        whose = "The theorem's bound" if views_of(results) == 2 else "What is expected of so many views"
        sentences.append(f"{whose} is {', and '.join(parts)}.")
    known = results["views"]["spread"]
    for key, words in VIEWS.items():
        if known.get(key, {}).get("mean") is not None and isfinite(known[key]["mean"]):
            sentences.append(words.format(show(known[key])))
    judged = results.get("judged", {}).get("summary", ())
    kl = {row["samples"]: show(row["pairwise_kl"], DIGITS) for row in judged
          if row["claim"] == "ensemble" and "pairwise_kl" in row}  # fmt: skip
    if kl:
        sentences.append(f"Members' pairwise KL is {kl['train']} nats on training samples, {kl['multi_view']} on fresh "
                         f"multi-view ones and {kl['single_view']} on single-view ones.")  # fmt: skip
    return sentences


def sweep(results: Results) -> list[str]:
    """In how many cells the ensemble errs less than one network, and distillation keeps that; which failed."""
    cells = [row for row in results["cells"] if row["failed"] is None]
    failed = [row["name"] for row in results["cells"] if row["failed"] is not None]
    counts = []
    for name in ("ensemble", "distilled", "self_distilled"):
        both = [(row["errors"][name]["mean"], row["errors"]["single"]["mean"]) for row in cells
                if {name, "single"} <= row["errors"].keys()]  # fmt: skip
        if both:
            counts.append(f"{CLAIMS[name].short} in {sum(low < high / 2 for low, high in both)} of {len(both)}")
    what = "Cells whose error on single-view samples is less than half of one network's"
    lines = [f"{what}: {', '.join(counts)} ({spread(results, 'means over')})."] if counts else []
    return [*lines, *([f"Cannot be trained: {', '.join(failed)}."] if failed else [])]


def plane(results: Results) -> list[str]:
    """The teachers' disagreement on training points and on those that steps make of them."""
    clean, gaussian, ods = (show(results["summary"][kind], 4) for kind in ("clean", "gaussian", "ods"))
    more = results["ods_minus_gaussian"]
    told = "one seed, no interval" if more["low"] is None else "with a 95 % interval"
    void = [str(row["seed"]) for row in results["rows"] if row["void"]]
    return [
        f"{results['config']['members']} teachers disagree by {clean} nats on their training points, {gaussian} where "
        f"Gaussian steps lead, {ods} where ODS steps do ({spread(results)}); ODS minus Gaussian, {told}: "
        f"{difference(more)}.",
        *([f"Teachers of seed {', '.join(void)} do not fit: no test of the premise."] if void else []),
    ]


def analysis(results: Results) -> list[str]:
    """Diversity before and after a step, whom a step moves, images from elsewhere: the teachers and their students."""
    lines = []
    if any("diversity" in row for row in over_seeds(results, TEACHERS)):
        pairs = []
        for split, name in (("train", "training"), ("test", "test")):
            moved = over_seeds(results, TEACHERS, "diversity", split)
            clean, ods = (_mean(part[kind]["pairwise_kl"] for part in moved) for kind in ("clean", "ods"))
            pairs.append(f"from {clean} to {ods} on {name} images")
        count = f"{results['images']:,} images of each set at most, {spread(results)}"
        lines.append(f"An ODS step takes the teachers' pairwise KL {' and '.join(pairs)} ({count}).")
        steps = over_seeds(results, TEACHERS, "transfer", "train")
        by_step = {words: _mean(part[step] for part in steps) for step, words in STEPS.items()}
        whose = ", ".join(f"{kl} if it was against {words}" for words, kl in by_step.items() if kl)
        lines.append(f"After such a step two teachers' KL on training images is {whose}.")
    for name in (one["name"] for one in results["sets"] if one["use"] == "ood"):
        what = f"AUROC of entropy, {name} against test images"
        lines.append(_range(results, what, lambda row, name=name: row["ood"][name]["scores"]["entropy"]["auroc"]))
    what = f"Mean accuracy on {len(results['corruptions']['kinds'])} kinds of corruption"
    lines.append(_range(results, what, lambda row: mean(chain(*row["corruptions"]["acc"].values()))))
    return lines


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return show(summarise(known)) if known else ""


def _range(results: Results, what: str, read: Callable[..., float]) -> str:
    """Of the deep ensemble, and from the lowest to the highest of its students: means over seeds."""
    means = {kind: summarise(map(read, over_seeds(results, kind))) for kind in kinds(results, singles=True)}
    parts = [f"{MODELS['deep_ensemble']} {show(means.pop(TEACHERS))}"] if TEACHERS in means else []
    if means:
        ends = unique(f"{end(one['mean'] for one in means.values()):.3f}" for end in (min, max))
        parts.append(f"{len(means)} {'student' if len(means) == 1 else 'students'} {' to '.join(ends)}")
    return f"{what}: {', '.join(parts)}."


def evaluation(results: Results) -> list[str]:
    """How good, how well calibrated and how diverse the predictions are; of several files, one after another."""
    if "models" in results:
        return [line for one in results["models"] for line in evaluation(one)]
    intervals = results.get("intervals", {})
    shown = {one.key: f"{one.label} {number(results[one.key])} {span(intervals.get(one.key))}".rstrip()
             for one in MEASURES if one.key in results and (results["members"] > 1 or not one.of_members)}  # fmt: skip
    first = [shown[key] for key in ("acc", "nll", "cal_nll", "ece", "cal_ece") if key in shown]
    members = [shown[key] for key in ("ensemble_gain", "pairwise_kl", "disagreement") if key in shown]
    drawn = f"; in brackets {intervals['level']:.0%} intervals over samples" if intervals else ""
    lines = [f"{results['file']}, {results['samples']:,} test samples: {', '.join(first)}{drawn}."]
    return [*lines, f"Its {results['members']} members: {', '.join(members)}."] if members else lines
