"""Figures that set theory beside practice: one run of each, the same words on the axes."""

from pathlib import Path
from typing import Any

from divkd.shared.report.ensembles import MODEL_NAMES, spread
from divkd.shared.report.style import COLOURS, MARKERS, figure, save
from divkd.shared.stats import summarise


def ensemble_gain(theory: dict[str, Any], practice: dict[str, Any], path: Path) -> Path:
    """Test error as a share of one network's, against the number of members: simulated left, real images right.

    The share is 1 - (ensemble gain in accuracy) / (one network's error). Left: the single-view test samples, the ones
    on which a network that knows one view of each class fails, with the finite-size prediction. Right: the test images,
    each share taken of the same seed's first network, with every student. Raises ValueError where one simulated network
    makes no error, as there is no share of it.
    """
    fig, (left, right) = figure(8.6, 3.9, columns=2)
    rows = theory["claims"]["ensemble"]["by_members"]
    members = [row["members"] for row in rows]
    base, predicted_base = rows[0]["single_view_error"], rows[0]["predicted"]
    if not base or not predicted_base:
        raise ValueError("one simulated network makes no error")
    left.errorbar(
        members,
        [row["single_view_error"] / base for row in rows],
        yerr=[(row.get("std") or 0) / base for row in rows],
        color=COLOURS[1], marker="o", capsize=3, label="measured",
    )  # fmt: skip
    left.plot(
        members,
        [row["predicted"] / predicted_base for row in rows],
        color=COLOURS[0], linestyle="--", linewidth=1, label="predicted, finite size",
    )  # fmt: skip
    left.set_title(
        f"Theory: multi-view data, single-view samples\none network errs on {base:.1%}; {spread(theory)}", fontsize=9
    )

    shares = practice_shares(practice)
    sizes = sorted(size for model, _, size in shares if model == "deep_ensemble")
    ladder = [summarise(shares["deep_ensemble", "none", size]) for size in sizes]
    right.errorbar(
        sizes,
        [point["mean"] for point in ladder],
        yerr=[point["std"] or 0 for point in ladder],
        color=COLOURS[1], marker="o", capsize=3, label="deep ensemble",
    )  # fmt: skip
    for index, model in enumerate(("batch_ensemble", "single")):
        students = {key: summarise(value) for key, value in shares.items() if key[0] == model}
        for offset, (key, point) in enumerate(students.items()):
            right.errorbar(
                key[2] + 0.09 * (offset - (len(students) - 1) / 2),
                point["mean"],
                yerr=point["std"] or 0,
                fmt=MARKERS[index + 1],
                color=COLOURS[index + 2],
                markersize=5,
                capsize=2,
                label=f"{MODEL_NAMES[model]}, each method" if not offset else None,
            )
    error = summarise(
        1 - row["acc"] for row in practice["rows"] if row["model"] == "deep_ensemble" and row["members"] == 1
    )
    right.set_title(
        f"Practice: {practice['dataset']}, {practice['network']}, {practice['split']['train']} training images\n"
        f"one network errs on {error['mean']:.1%}; {spread(practice)}",
        fontsize=9,
    )
    right.axhline(1, color="0.35", linewidth=0.8, linestyle=":")
    left.axhline(1, color="0.35", linewidth=0.8, linestyle=":")
    for ax in (left, right):
        ax.set_xlabel("members of the ensemble")
        ax.set_ylabel("test error, as a share of one network's")
        ax.legend(frameon=False, fontsize=8)
        ax.set_ylim(bottom=0)
    left.set_xticks(members)
    right.set_xticks(sizes)
    return save(fig, path)


def practice_shares(practice: dict[str, Any]) -> dict[tuple[str, str, int], list[float]]:
    """Test error over the error of the same seed's first teacher, one number a seed, by (model, method, members)."""
    first = {
        row["seed"]: 1 - row["acc"]
        for row in practice["rows"]
        if row["model"] == "deep_ensemble" and row["members"] == 1
    }
    shares: dict[tuple[str, str, int], list[float]] = {}
    for row in practice["rows"]:
        share = (1 - row["acc"]) / first[row["seed"]] if first[row["seed"]] else 1.0
        shares.setdefault((row["model"], row["method"], row["members"]), []).append(share)
    return shares
