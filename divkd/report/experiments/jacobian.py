"""The report of `divkd experiment jacobian`: the Taylor term, and students of moved images beside penalised ones."""

from typing import Any

from divkd.report.record import Figure, Report, Results, Table, unique
from divkd.report.style import COLOURS, MARKERS, beside, figure, legend_below, points
from divkd.report.words import MEASURE, Measure, difference, labels, listed_seeds, spread, trained_on
from divkd.shared.kinds import MATCHED, MOVES, STUDENTS
from divkd.shared.stats import show

MATCH = tuple(
    Measure(f"{split}_{key}", f"{label}, {split}ing" if split == "train" else label, digits=2)
    for split in ("test", "train")
    for key, label in (
        ("cosine", "cosine of gradients"),
        ("norm", "Jacobian's norm"),
        ("distance", "its distance"),
    )
)
QUALITY = ("acc", "cal_nll", "nll", "train_acc")
COMPARED = (*(MEASURE[key] for key in ("acc", "cal_nll", "nll")), *MATCH[:3])
NEAR = 0.1  # of the measured term, which its second order may miss where it is said to hold


def _sentence(results: Results, asked: Results) -> str:
    split = results["split"]
    return (
        f"Distillation from {results['members']} networks ({results['network']}) on {results['dataset']}, on moved "
        f"images and by KD with a Jacobian penalty; {split['train']:,} training, {split['validation']:,} validation, "
        f"{split['test']:,} test images; {listed_seeds(results['seeds'])}."
    )


def size(results: Results, times: float) -> str:
    """A step size, in pixels."""
    return f"{times * results['step_size']:.3g}" if times else ""


def _names(results: Results, row: Results) -> list[str]:
    """What learned, how, by which steps of which size."""
    return [STUDENTS.get(row["student"], ""), MATCHED[row["model"]], MOVES.get(row["step"], ""),
            size(results, row["times"])]  # fmt: skip


HEADS = ["student", "learns by", "steps", "size"]


def _tables(results: Results) -> list[Table]:
    return [_quality(results), _differences(results), _taylor(results)]


def _quality(results: Results) -> Table:
    lines = []
    for row in results["summary"]:
        cells = [show(row[key], MEASURE[key].digits) for key in QUALITY]
        cells += [show(row[one.key], one.digits) if one.key in row else "" for one in MATCH]
        lines.append([*_names(results, row), *cells])
    match = [one.label for one in MATCH]
    notes = (
        f"Cosine of the gradients of student and teacher, on {results['images']} images; norm and distance from the "
        "teachers' are relative to theirs, in the softmax's metric: the same is 1 and 0, a constant student 0 and 1.",
        "One teacher: the first, its Jacobian against those of the others.",
    )
    caption = f"{results['dataset']}, {results['network']}: test images ({spread(results)})"
    page_only = ("NLL", *match[3:])
    return Table(caption, [*HEADS, *labels(*QUALITY), *match], lines, 4, notes, page_only=page_only)


def _differences(results: Results) -> Table:
    lines = []
    for row in results["differences"]:
        against = (
            f"{MATCHED[row['against_model']]}, the same" if row["against_times"] else MATCHED[row["against_model"]]
        )
        lines.append([*_names(results, row), against, *(difference(row[one.key]) for one in COMPARED)])
    caption = "Paired differences over seeds, mean and 95 % interval (none where n is 1)"
    heads = [*HEADS, "minus", *(one.label for one in COMPARED)]
    return Table(caption, heads, lines, 5, page_only=("NLL", "Jacobian's norm"))


def _taylor(results: Results) -> Table:
    lines = []
    for row in _plain(results):
        share = row["jacobian"]["mean"] / row["second"]["mean"]
        cells = [show(row["kd"], 4), show(row["second"], 2), f"{share:.2f}", *(show(one, 2) for one in row["ratio"])]
        lines.append([STUDENTS[row["student"]], _images(row),
                      MOVES[row["along"]], *cells])  # fmt: skip
    sizes = [f"{one:.3g}" for one in results["measured"]]
    caption = (
        f"What moved images add to the KD term of students by KD, as a share of its second order, by size of the step "
        f"({results['images']} images, {results['draws']} steps each; {spread(results)})"
    )
    notes = (
        "KD in nats, t^2 KL; second order: what the square of the size multiplies; of it the Jacobian term's share. "
        "Measured and foreseen are of the same steps.",
    )
    heads = ["student", "images", "steps", "KD", "second order", "Jacobian's share", *sizes]
    return Table(caption, heads, lines, 3, notes, page_only=tuple(sizes[1:-1:2]))


def _images(row: Results) -> str:
    return "training" if row["split"] == "train" else "test"


def _plain(results: Results) -> list[Results]:
    return [row for row in results["taylor"] if row["model"] == "kd"]


def _summary(results: Results) -> list[str]:
    """Whether moved images and the penalty differ, and from which size on the second order misses the measured term."""
    lines = []
    for key, label in (("cal_nll", "calibrated NLL"), ("acc", "accuracy"), ("test_cosine", "cosine of gradients")):
        pairs = [row for row in results["differences"] if row["against_model"] == "penalty"]
        told = [row for row in pairs if row[key]["low"] is not None]
        if not told:
            continue
        apart = [
            f"{STUDENTS[row['student']]}, {MOVES[row['step']]}, {size(results, row['times'])} ({difference(row[key])})"
            for row in told
            if not row[key]["low"] <= 0 <= row[key]["high"]
        ]
        lines.append(
            f"In {label}, moved images minus penalty: {len(apart)} of {len(told)} pairs have a 95 % interval without 0"
            f"{': ' + '; '.join(apart) if apart else ''} (n = {told[0][key]['n']})."
        )
    for row in _plain(results):
        if row["along"] != "clipped":
            near = [f"{place:.3g}" for place, one in zip(results["measured"], row["ratio"], strict=True)
                    if abs(one["mean"] - 1) <= NEAR]  # fmt: skip
            lines.append(
                f"Around {_images(row)} images, of a {STUDENTS[row['student']]} by KD, along {MOVES[row['along']]} "
                f"steps, the second order is within {NEAR:.0%} of what is measured at {', '.join(near) or 'no size'} "
                f"({spread(results, 'mean over')})."
            )
    return lines


def taylor(results: Results) -> Any:
    """What a step adds to the KD term, measured and to second order, by size; and the ratio of both."""
    kept = [row for row in _plain(results) if row["student"] == results["taylor"][-1]["student"]]
    sizes = results["measured"]
    fig, axes = figure(9.4, 6.6, columns=2, rows=2, heights=(5, 4))
    for column, (split, name) in enumerate((("train", "training images"), ("test", "test images"))):
        above, below = axes[column], axes[2 + column]
        for place, (kind, label) in enumerate(MOVES.items()):
            for row in kept:
                if (row["split"], row["along"]) != (split, kind):
                    continue
                look: dict[str, Any] = {
                    "color": COLOURS[place + 1],
                    "fmt": MARKERS[place],
                    "markersize": 4.5,
                    "capsize": 2,
                }
                at = [one * 1.03 ** (place - 1) for one in sizes]
                if kind != "clipped":
                    foreseen = [one**2 * row["second"]["mean"] for one in sizes]
                    above.plot(sizes, foreseen, color=COLOURS[place + 1], linewidth=1, linestyle="--",
                               label=f"second order, {label}")  # fmt: skip
                points(above, at, row["extra"], label=f"measured, {label}", **look)
                if kind != "clipped":
                    points(below, at, row["ratio"], **look)
        above.set(xscale="log", yscale="log", title=f"{name}: KD(x + step) − KD(x)")
        below.set(xscale="log", xlabel="size of the steps, pixels in [0, 1]", title="measured / second order")
        below.axhline(1, color="0.35", linewidth=0.8)
    axes[0].set_ylabel("nats")
    axes[2].set_ylabel("ratio")
    legend_below(fig, axes[:1], columns=3)
    fig.suptitle(f"Students by KD: {trained_on(results)}; {spread(results)}", fontsize=9)
    return fig


PANELS = (MEASURE["cal_nll"], *MATCH[:3])


def matching(results: Results) -> Any:
    """Quality and match of Jacobians by size of the steps: moved images beside the penalty, and plain KD."""
    kinds = [kind for kind in unique(row["student"] for row in results["summary"]) if kind]
    fig, axes = figure(12.4, 0.9 + 3.2 * len(kinds), columns=len(PANELS), rows=len(kinds))
    for index, student in enumerate(kinds):
        kept = [row for row in results["summary"] if row["student"] == student]
        for ax, one in zip(axes[len(PANELS) * index :], PANELS, strict=False):
            _panel(ax, results, kept, one)
            ax.set(title=one.axis, xlabel="size of the steps")
        axes[len(PANELS) * index].set_ylabel(STUDENTS[student])
    legend_below(fig, axes[:1], columns=4)
    fig.suptitle(f"{trained_on(results)}; test images, {spread(results)}", fontsize=9)
    return fig


def _panel(ax: Any, results: Results, rows: list[Results], one: Measure) -> None:
    plain = next(row for row in rows if row["model"] == "kd")[one.key]
    ax.axhline(plain["mean"], color="0.2", linewidth=1, label="KD, mean and sd")
    ax.axhspan(plain["mean"] - (plain["std"] or 0), plain["mean"] + (plain["std"] or 0), color="0.9", zorder=0)
    steps = [step for step in unique(row["step"] for row in rows) if step]
    for place, step in enumerate(steps):
        for nth, (model, line) in enumerate((("noisy", "-"), ("penalty", "--"))):
            kept = [row for row in rows if (row["model"], row["step"]) == (model, step)]
            shift = beside(2 * place + nth, 2 * len(steps), 1.0)
            at = [row["times"] * results["step_size"] * 1.06**shift for row in kept]
            colour = COLOURS[place + 1]
            points(ax, at, [row[one.key] for row in kept], color=colour, marker=MARKERS[nth], linestyle=line,
                   linewidth=1, markersize=5, capsize=2, mfc=colour if model == "noisy" else "white",
                   label=f"{MATCHED[model]}, {MOVES[step]}")  # fmt: skip
    ax.set_xscale("log")
    sizes = [times * results["step_size"] for times in results["times"]]
    ax.set_xticks(sizes, [f"{one:.3g}" for one in sizes])
    ax.set_xticks([], minor=True)


SHOWN = (
    "What a step of an image adds to the KD term of students by KD, measured and foreseen by its second order, and the "
    "ratio of both, by size; clipped steps have a mean, so a first order; values below 0 are not shown"
)
REPORT = Report(
    ("experiment jacobian",), _sentence, _tables,
    (Figure("taylor", taylor, SHOWN),
     Figure("matching", matching, "Students of moved images beside those of KD with a Jacobian penalty, by step size")),
    summary=_summary,
)  # fmt: skip
