"""What a run is, what it was made with and how to make it again, as words."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Content = dict[str, Any]


def sentence(results: Content, config: Content) -> str:
    """What the run is, in one sentence; `config` is the content of its config.json, or empty."""
    command = results["command"]
    asked = config.get("config", {})
    if command == "evaluate":
        kind = "one model" if results["members"] == 1 else f"{results['members']} members"
        val, ood = results["validation_samples"], results["ood_samples"]
        rest = f"{results['samples']:,} test, {val:,} validation and {ood:,} foreign samples"
        return f"The predictions in {results['file']}, judged: {kind}, {results['classes']} classes, {rest}."
    seeds = seeds_of(results["seeds"])
    if command == "analyse":
        of = f" in {asked['run']}" if "run" in asked else ""
        return (
            f"An analysis of the training run{of}: {results['network']} on {results['dataset']}, "
            f"{results['members']} members, preset {results['preset']}, {seeds}; "
            f"at most {results['images']:,} images of each set."
        )
    if command == "train cifar":
        split = results["split"]
        parts = {"train": "training", "validation": "validation", "test": "test"}
        sizes = ", ".join(f"{split[part]:,} {word}" for part, word in parts.items() if part in split)
        members = max(row["members"] for row in results["summary"] if row["model"] == "deep_ensemble")
        return (
            f"Deep ensembles of up to {members} networks ({results['network']}) on {results['dataset']} and what is "
            f"distilled from them, preset {results['preset']}; {sizes} images; {seeds}."
        )
    if command == "simulate multiview":
        world = results["config"]
        return (
            f"A simulation of the multi-view theory, preset {results['preset']}, engine {world['engine']}: ensembles "
            f"of {world['members']} networks, {world['classes']} classes; {seeds}."
        )
    if command == "simulate plane":
        world = results["config"]
        return (
            f"The practice's premise in two dimensions: {world['members']} small teachers on {world['points']} points "
            f"of two moons, and those points moved by steps of {world['step_size']}; {seeds}."
        )
    what = "One parameter at a time is changed" if command == "simulate window" else "Ablations"
    members = f", ensembles of {asked['members']} networks" if "members" in asked else ""
    return (
        f"{what}, in the multi-view theory: {len(results['cells'])} cells around preset {results['preset']}{members}, "
        f"{results['base']['classes']} classes unless changed; {seeds}."
    )


def seeds_of(seeds: list[int]) -> str:
    """Seeds as words, e.g. ``seeds 0 to 4 (n = 5)``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]} (n = 1)"
    run = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    shown = f"{seeds[0]} to {seeds[-1]}" if run and len(seeds) > 2 else ", ".join(str(seed) for seed in seeds)
    return f"seeds {shown} (n = {len(seeds)})"


def made_with(results: Content, config: Content) -> list[tuple[str, str]]:
    """Hardware, versions and revision; what nobody wrote down is said to be unknown."""
    known = {**results, **config}
    threads = known.get("omp_num_threads")
    pairs = [
        ("hardware", known.get("device")),
        ("cores", known.get("cores")),
        ("OMP_NUM_THREADS", threads if threads is not None else "not set"),
        ("git revision", known.get("git_revision")),
        ("seconds", None if results.get("seconds") is None else f"{results['seconds']:,.1f} in all, wall-clock"),
    ]
    versions = known.get("versions") or {}
    pairs += [(package, version) for package, version in versions.items()]
    if not versions:
        pairs[2:3] = [("versions", None)]
    return [(name, "not recorded" if value is None else str(value)) for name, value in pairs]


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """The fields of a configuration, nested names joined by dots, values as JSON but text as it is."""
    if isinstance(value, Mapping) and value:
        return [pair for key, part in value.items() for pair in flat(part, f"{name}.{key}" if name else str(key))]
    return [(name, value if isinstance(value, str) else json.dumps(value))]


def again(results: Content, config: Content, run: Path) -> tuple[str, str]:
    """The command line that makes the run again, and a remark on it."""
    command, new = results["command"], f"{run.name or 'run'}-again"
    asked = config.get("config", {})
    if command == "evaluate":
        line = ["divkd", "evaluate", results["file"]]
        if "dee" in results and not results["dee"]["own_members"]:
            line += ["--ensemble", results["dee"]["ensemble"]]
        if "intervals" in results:
            line += ["--bootstrap", str(results["intervals"]["resamples"])]
        line += [part for seed in results["seeds"][:1] for part in ("--seed", str(seed))]
        return shlex.join([*line, "--out", new]), "The folder of the file was not recorded, only its name."
    if command == "analyse":
        line = ["divkd", "analyse", asked.get("run", "RUN"), "--images", str(results["images"])]
        line += [part for name in ("ood", "shift") for one in asked.get(name, []) for part in (f"--{name}", one)]
        line += [part for name in ("corruptions", "device") if asked.get(name) for part in (f"--{name}", asked[name])]
        remark = "" if asked else "RUN is the training run; without config.json its folder and the sets are not known."
        return shlex.join([*line, "--out", new]), remark
    remark = "" if asked else "config.json is not in the folder: without it only the preset and the seeds are known."
    line = ["divkd", *command.split()]
    if asked:
        line += ["--config", str(run / "config.json")]
    else:
        line += ["--preset", results["preset"], "--seeds", ",".join(str(seed) for seed in results["seeds"])]
    return shlex.join([*line, "--out", new]), remark
