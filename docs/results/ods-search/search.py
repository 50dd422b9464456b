"""The search for where ODS pays, beside `divkd sweep`: its data, its rule, its table and its figure; see PLAN.md.

python search.py data --data-dir FOLDER     explore.npz and confirm.npz from CIFAR-10
python search.py choose RUN...              the candidates of stage 1, lowest difference first
python search.py show                       the table of all differences, and search.png
python search.py temperatures RUN           the hypotheses of PLAN-3.md, of the seeds whose four students are whole
python search.py factors                    the mean over the cells of PLAN-4.md, and the training accuracies of each
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from divkd.report.style import figure, look, rendered
from divkd.report.swept import points, summary
from divkd.report.words import difference
from divkd.shared.kinds import MODELS

CELL = tuple[tuple[str, ...], tuple[str, ...]]
HERE = Path(__file__).parent
STEP, EDGE = "0.0039", 0.15  # 1 of 255, that of the runs before; where the figure ends, in nats
BEFORE = {  # committed runs, whose step is 1/255: what they are of, in the figure
    "cifar10-cpu": "CIFAR-10, 1,000 images, 50 epochs, t = 4, M = 4",
    "cifar10-cpu-long": "CIFAR-10, 1,000 images, 100 epochs, t = 4, M = 4",
    "views": "views, 1,000 images, 25 epochs, t = 4, M = 5",
}
MEASURES = ("cal_nll", "acc", "pairwise_kl")


def halved(images: np.ndarray) -> np.ndarray:
    """(N, 3, 32, 32) -> (N, 3, 16, 16), uint8: means of 2 x 2 pixels."""
    blocks = images.reshape(len(images), 3, 16, 2, 16, 2)
    return np.asarray(blocks.astype(np.float32).mean((3, 5)).round(), np.uint8)


def data(folder: str) -> None:
    """Write explore.npz and confirm.npz: the same images to learn from and to calibrate on, others to measure on."""
    from divkd.empirical.data.datasets import load

    whole = load("cifar10", folder, False, None)
    train, last, test = (
        (one.images.numpy(), one.labels.numpy()) for one in (whole.train, whole.validation, whole.test)
    )
    assert len(train[0]) == 45_000
    assert len(last[0]) == 5_000
    parts = {"train": [one[:10_000] for one in train], "val": [one[:1_000] for one in last]}
    for name, measured in (
        ("explore", [one[40_000:44_000] for one in train]),
        ("confirm", [one[:4_000] for one in test]),
    ):
        arrays = {}
        for part, (images, labels) in {**parts, "test": measured}.items():
            arrays |= {f"x_{part}": halved(images).transpose(0, 2, 3, 1), f"y_{part}": labels}
        np.savez(f"{name}.npz", **arrays)


def read(folder: str) -> dict[str, Any]:
    """The results of a sweep."""
    found: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    return found


def choose(folders: list[str]) -> None:
    """Print ods - kd in calibrated NLL of every candidate, lowest first."""
    found: list[tuple[float, str, CELL]] = []
    for folder in folders:
        for cell, rows in points({**read(folder), "minus": "method=kd"}).items():
            if cell[1][0] != "merged":  # of a student that is a candidate itself
                found.append((float(summary(rows, "cal_nll")["mean"]), folder, cell))
    for value, folder, (at, of) in sorted(found):
        print(f"{value:+.4f}  {folder}  {', '.join(at)}  {', '.join(of)}")


def temperatures(folder: str) -> None:
    """Print what students of two temperatures have, by seed in the mean, and their differences with two intervals."""
    students: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for path in sorted(Path(folder).glob("seeds=*/results.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        temperature = path.parent.name.partition("temperature=")[2]
        for row in results["rows"]:
            place = f"teachers, {row['members']}", ""
            if row["model"] == "batch_ensemble":
                place = row["method"], temperature
            if row["model"] != "merged":
                students.setdefault(place, {})[row["seed"]] = row
    asked = [(method, temperature) for method in ("kd", "ods") for temperature in ("1", "4")]
    seeds = sorted(set.intersection(*(set(students[place]) for place in asked)))
    for place, found in students.items():
        values = [[found[seed][key] for seed in seeds] for key in (*MEASURES, "train_acc")]
        print(*place, *(f"{np.mean(of):.3f} ± {np.std(of, ddof=1):.3f}" for of in values), f"n = {len(seeds)}")
    pairs = [(asked[3], asked[1]), (asked[2], asked[1]), (asked[1], asked[0]), (asked[2], asked[0])]
    for one, other in pairs:
        for key in MEASURES:
            by_seed = np.array([students[one][seed][key] - students[other][seed][key] for seed in seeds])
            mean, error = by_seed.mean(), by_seed.std(ddof=1) / len(seeds) ** 0.5
            ends = [mean + stdtrit(len(seeds) - 1, q) * error for q in (0.025, 0.975, 0.0125, 0.9875)]
            print(*one, "minus", *other, key, f"{mean:+.3f}", *(f"{end:+.3f}" for end in ends), by_seed.round(3))


def factors() -> None:
    """Print the mean of ods - kd over the cells of the fourth plan with its interval, and how well each cell fits."""
    means = [row["cal_nll"]["mean"] for row in differences() if row["what"].startswith("fourth plan")]
    half = stdtrit(len(means) - 1, 0.975) * np.std(means, ddof=1) / len(means) ** 0.5
    print(f"{np.mean(means):+.3f} ({np.mean(means) - half:+.3f} to {np.mean(means) + half:+.3f}), {len(means)} cells")
    for path in sorted(HERE.glob("factors/*/results.json")):
        rows = [row for row in read(str(path.parent))["rows"] if row["model"] != "merged"]
        for of in dict.fromkeys((row["cell"], row["model"], row["method"], row["members"]) for row in rows):
            own = [row for row in rows if (row["cell"], row["model"], row["method"], row["members"]) == of]
            values = [[row[key] for row in own] for key in (*MEASURES[:2], "train_acc")]
            shown = (f"{np.mean(one):.3f} ± {np.std(one, ddof=1):.3f}" for one in values)
            print(path.parent.name, *of, *shown, f"n = {len(own)}")


def option(line: list[str], name: str, preset: str = "") -> str:
    """The value of an option in a command line."""
    return line[line.index(name) + 1] if name in line else preset


def differences() -> list[dict[str, Any]]:
    """ods - kd of all that was run, a record a student and cell: what it is of, its step, and {mean, low, high, n}."""
    found: list[dict[str, Any]] = []
    for name, what in BEFORE.items():
        found += [
            {"what": what, "model": row["model"], "step": STEP, "run": name, **row}
            for row in read(str(HERE.parent / name))["differences"]
            if (row["method"], row["against_method"]) == ("ods", "kd") and row["model"] != "merged"
        ]
    for folder in sorted(path.parent for path in HERE.rglob("results.json")):
        results = read(str(folder))
        line = results["line"]
        for (at, (model, method)), rows in points({**results, "minus": "method=kd"}).items():
            if model == "merged" or method != "ods":
                continue
            cell = dict(zip((name for name in results["vary"] if name != "seeds"), at, strict=True))
            stage = "stage 1" if "explore.npz" in line else "stage 2"
            stage = "third plan" if folder.name == "temperatures" else stage
            stage = "fourth plan" if folder.parent.name == "factors" else stage
            data = "views" if line[1] == "views" else "CIFAR-10 at 16 x 16"
            of = f"{stage}: {data}, {int(option(line, '--train-images', '1000')):,} images"
            t = cell.get("temperature", option(line, "--temperature", "4"))
            epochs = cell.get("student_epochs", option(line, "--student-epochs", "25"))
            deeper = ", ResNet-14" if "resnet14" in line else ""
            found.append({
                "what": f"{of}, {epochs} epochs, t = {t}, M = 2{deeper}", "model": model,
                "step": cell.get("step_size", option(line, "--step-size")),
                "run": folder.name, **{key: summary(rows, key) for key in MEASURES},
            })  # fmt: skip
    return found


def show() -> None:
    """Print the table and draw the figure."""
    rows = differences()
    print(
        "| regime | student | step | n | calibrated NLL | accuracy | pairwise KL |",
        "|---|---|---|---|---|---|---|",
        sep="\n",
    )
    for row in rows:
        of = row["what"], MODELS[row["model"]], f"{round(float(row['step']) * 255)}/255", str(row["cal_nll"]["n"])
        alone = row["model"] == "single"  # which has no pairs
        shown = ("" if alone and key == "pairwise_kl" else difference(row[key]) for key in MEASURES)
        print(f"| {' | '.join((*of, *shown))} |")
    fig, (ax,) = figure(9.6, 1.4 + 0.24 * len(rows), columns=1)
    ax.axvline(0, color="0.5", linewidth=0.8)
    for place, row in enumerate(rows):
        found = row["cal_nll"]
        half = found["high"] - found["mean"] if found["n"] > 2 else 0.0
        filled = {} if found["n"] > 2 else {"markerfacecolor": "none"}
        shown = look(row["model"] == "batch_ensemble")
        ax.errorbar(found["mean"], place, xerr=half, linestyle="none", markersize=5, capsize=2, **shown, **filled)
        if found["mean"] > EDGE:
            beyond = f"{difference(found)} nats \N{RIGHTWARDS ARROW} "
            ax.text(EDGE, place, beyond, ha="right", va="center", fontsize="x-small")
    for number, model in enumerate(("single", "batch_ensemble")):
        ax.plot([], [], linestyle="none", label=MODELS[model].strip(), **look(number))
    names = [f"{row['what']}, {round(float(row['step']) * 255)}/255, n = {row['cal_nll']['n']}" for row in rows]
    ax.set_yticks(range(len(rows)), names, fontsize="x-small")
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(-EDGE, EDGE)
    ax.set_xlabel("ODS minus KD, calibrated NLL, nats")
    ax.legend(loc="lower right", fontsize="x-small")
    ax.set_title("Below 0: ODS pays. Bars: 95 % over seeds; hollow: one or two seeds, no evidence", fontsize="small")
    (HERE / "search.png").write_bytes(rendered(fig))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data").add_argument("--data-dir", required=True)
    commands.add_parser("choose").add_argument("runs", nargs="+")
    commands.add_parser("show")
    commands.add_parser("factors")
    commands.add_parser("temperatures").add_argument("run")
    asked = parser.parse_args()
    if asked.command == "data":
        data(asked.data_dir)
    elif asked.command == "choose":
        choose(asked.runs)
    elif asked.command == "factors":
        factors()
    elif asked.command == "temperatures":
        temperatures(asked.run)
    else:
        show()
