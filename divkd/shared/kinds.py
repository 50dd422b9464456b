"""The closed sets of names that configurations, results.json and tables share: each name once, with what it is called.

A key is the one spelling, in files and in code; where a person types or wrote it, hyphens stand for underscores
(`divkd.shared.config`). What a kind does is a record of its own world, under the same name: `theory.claims.CLAIMS`,
`empirical.training.perturb.PERTURBATIONS`, `empirical.training.students.STUDENTS`. Imports nothing heavy: ``--help``
and the report read this module.
"""

from typing import NamedTuple

# How an input moves: nothing is drawn for "clean".
PERTURBATIONS = {"gaussian": "Gaussian", "ods": "ODS", "confods": "ConfODS"}
INPUTS = {"clean": "clean", **PERTURBATIONS}

# How a student learns: from labels alone, from its teachers' answers to clean images, or to moved ones.
METHODS = {"none": "labels", "kd": "KD", **PERTURBATIONS}

# Whose ODS step moves an image, seen from two members: `empirical.analysis.probes.transfer`.
STEPS = {"clean": "no step", "own": "own teacher", "sibling": "sibling's teacher", "external": "external network"}

# What learns from teachers, and every model whose row results.json holds.
STUDENTS = {"batch_ensemble": "BatchEnsemble", "single": "single network"}
MODELS = {"deep_ensemble": "deep ensemble", **STUDENTS, "merged": "BatchEnsemble merged into one"}

ENGINES = {"limit": "d to infinity, exact, on the CPU", "dense": "finite d"}


# What answers in `divkd experiment mysteries` and `ensemble-over-kd`: the rows of their results.json.
ANSWERS = {
    "network": "one network",
    "ensemble": "their ensemble",
    "pair": "ensemble of the first two",
    "average": "their average, trained as one",
    "distilled": "distilled from the ensemble, at a temperature",
    "distilled_mixed": "distilled from the ensemble, t CE + (1 - t) H",
    "self_distilled": "self-distilled, at a temperature",
    "self_distilled_mixed": "self-distilled, t CE + (1 - t) H",
    "ensemble_over_kd": "ensemble of the distilled",
}

# What answers in `divkd experiment split-channels`.
PARTS = {
    "network": "the network that is cut",
    "part": "one network",
    "parts": "their ensemble",
    "pair_same": "two on the same part",
    "pair_apart": "two on different parts",
}
# Who is set beside whom in `divkd experiment jacobian`, and how images move where its Taylor term is measured.
MATCHED = {
    "network": "one teacher",
    "ensemble": "teachers together",
    "kd": "KD",
    "noisy": "KD on moved images",
    "penalty": "KD + Jacobian penalty",
}
MOVES = {"clipped": "Gaussian, clipped to [0, 1]", **PERTURBATIONS}

LINKS = 3  # of a chain of self-distillation at most: S_1 is a fresh network taught by one, S_2 one taught by S_1, ...


class Claim(NamedTuple):
    """A claim of the theory or a control: how tables call it, and figures, where there is less room."""

    title: str
    short: str
    theorem: bool = False  # whether a theorem of Allen-Zhu and Li bounds it


CLAIMS = {
    "single": Claim("1 single network", "one network", theorem=True),
    "ensemble": Claim("2 ensemble", "ensemble", theorem=True),
    "trained_jointly": Claim("  trained jointly, outputs summed", "trained jointly (sum)"),
    "trained_jointly_average": Claim("  trained jointly, true average", "trained jointly (average)"),
    "distilled": Claim("3 distilled, clipped rule", "distilled", theorem=True),
    "ensemble_of_distilled": Claim("  ensemble of distilled", "ensemble of distilled"),
    "distilled_without_others": Claim(
        "  without other classes' features", "distilled without\nother classes' features"
    ),
    "distilled_temperature": Claim("  distilled at temperature T", "distilled at\ntemperature T"),
    "distilled_mixed": Claim("  distilled by t CE + (1 - t) H", "distilled by\nt CE + (1 - t) H"),
    "self_distilled": Claim("4 self-distilled", "self-distilled", theorem=True),
    **{
        f"chain_{link}": Claim(
            f"  S_{link}: fresh, from {f'S_{link - 1}' if link > 1 else 'one network'}",
            f"S_{link}: fresh,\nfrom {f'S_{link - 1}' if link > 1 else 'one network'}",
        )
        for link in range(1, LINKS + 1)
    },
    "labels_only": Claim("  same flow time, labels only", "labels only,\nsame flow time"),
}

# Shares of views that networks know, with their name in a sentence and at the head of a column.
VIEWS = {
    "one_view_fraction": Claim("share of classes with one view learned", "one view"),
    "lottery_accuracy": Claim("share of winners that the lottery names", "lottery right"),
    "distilled_views": Claim("share of views that students of the ensemble know", "views distilled"),
    "learned_inside_union": Claim(
        "share that the self-distilled know of the union of both networks' views", "inside union"
    ),
    "learned_outside_union": Claim("share that they know of the views outside it", "outside union"),
    "chain_kept": Claim("share that the fresh self-distilled, S_1 to S_n, know of their teachers' views", "kept"),
    "chain_found": Claim("share that they know of the others", "found"),
}
