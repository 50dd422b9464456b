"""What a part of an intermediate layer lacks, others have: after a talk of Allen-Zhu and Li on their paper.

A trained network F is cut in two behind its first (a) or second (b) group of blocks, F = U(L(x)). The C channels of
L(x) are split into n disjoint parts of C / n, drawn at random, and fresh networks are trained on labels,

    F_(n, m)(x) = U_(n, m)(L(x)[C_(m mod n)]),     m = 1, ..., M,     n = 1, 2, 4, ... up to M

each U as the rest of F's architecture, but that its first block takes C / n channels. Measured are each alone, all M of
an n together, and pairs: of networks on the same part, and on different parts.

What the talk leaves open is this here. L is that of one trained network a seed (its first), as trained: frozen, with
BatchNorm's statistics of training. Parts are disjoint and hold every channel once; those of 2n are halves of those of
n. An ensemble is the mean probability of M networks for every n, so that ensembles of all n are of one size: for n = M
a network on each part, below M / n on each, and for n = 1 M networks that see all channels. M is the greatest n, unless
it is no power of two, or the width ends the halving. Networks of all n have the students' schedule.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor, nn

from divkd.empirical.experiments.config import SplitChannelsConfig
from divkd.empirical.experiments.experiment import Experiment
from divkd.empirical.experiments.networks import (
    Row,
    Rows,
    answered,
    differences,
    network_job,
    summary,
    teacher_jobs,
)
from divkd.empirical.networks.cut import Parts, below, blocks_below, fresh_above, partition
from divkd.empirical.networks.names import channels_at
from divkd.empirical.training.distillation import finished, label_loss, teachers_of
from divkd.empirical.training.loop import train
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.work import Source
from divkd.shared.jobs import Job, Record
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.stats import paired

BY = ("model", "cut", "split")


def jobs(source: Source) -> list[Job]:
    """By seed the network that is cut, the networks above, and the measure of those of a cut and split."""
    config, made = cast(SplitChannelsConfig, source.config), list[Job]()
    images = sum(len(split) for split in source.data.splits.values())
    for seed in config.seeds:
        taught = teacher_jobs(source, seed)
        after = tuple(job.name for job in taught)
        made += [*taught, Job(f"seed{seed}-measure", partial(measure_whole, source, seed), after, cost=float(images))]
        for cut, split in kinds(config):
            uppers = []
            for member in range(config.members):
                call = partial(upper, source, seed, cut, split, member)
                name, passes = upper_name(seed, cut, split, member), 3 * config.student.epochs
                uppers.append(network_job(source, name, call, passes, after))
            ask, names = partial(measure, source, seed, cut, split), (*after, *(job.name for job in uppers))
            cost = float(config.members * images)
            made += [*uppers, Job(f"seed{seed}-measure-{cut}{split}-of{config.members}", ask, names, cost=cost)]
    return made


def kinds(config: SplitChannelsConfig) -> Iterator[tuple[str, int]]:
    """Every cut and split."""
    return ((cut, split) for cut in config.cuts for split in config.splits(cut))


def upper_name(seed: int, cut: str, split: int, member: int) -> str:
    """The name of an upper network's checkpoint."""
    return f"seed{seed}-upper-{cut}{split}-{member}"


def cut_network(seed_run: SeedRun) -> nn.Module:
    """The trained network F, in eval mode."""
    networks, _ = teachers_of(seed_run, 1)
    return networks.nets[0]


def parts(seed_run: SeedRun, cut: str, split: int, members: range) -> Parts:
    """Fresh networks `members` above the `cut`, each on its part of 1 / `split` of the channels."""
    config, data, network = seed_run.config, seed_run.data, seed_run.config.network
    device, width = torch.device(config.device), channels_at(network, cut)
    sets = channels(seed_run.seed, cut, width, split)
    uppers = [
        fresh_above(network, cut, width // split, data.classes, rng(seed_run.seed, "upper/init", member)).to(device)
        for member in members
    ]
    lower = below(cut_network(seed_run), blocks_below(network, cut))
    return Parts(lower, uppers, [sets[member % split].to(device) for member in members])


def channels(seed: int, cut: str, width: int, split: int) -> list[Tensor]:
    """The parts of a seed."""
    return partition(width, split, rng(seed, f"split-channels/{cut}"))


def upper(source: Source, seed: int, cut: str, split: int, member: int, run: Run, progress: Progress) -> Row:
    """Train one network above a cut on labels."""
    seed_run = SeedRun(source.config, source.data, seed, run, progress)
    net, name = parts(seed_run, cut, split, range(member, member + 1)), upper_name(seed, cut, split, member)
    return {"seconds": train(seed_run, net, label_loss, source.config.student, "upper", member, name)}


def measure_whole(source: Source, seed: int, run: Run, progress: Progress) -> Row:
    """The row of the network that is cut."""
    seed_run = SeedRun(source.config, source.data, seed, run, progress)
    networks, _ = teachers_of(seed_run, 1)
    return {"rows": [answered(seed_run, networks).row("network", [0], cut=None, split=None)]}


def measure(source: Source, seed: int, cut: str, split: int, run: Run, progress: Progress) -> Row:
    """The rows of the networks of a cut and split: each alone, in pairs, together."""
    config = source.config
    seed_run = SeedRun(config, source.data, seed, run, progress)
    together = parts(seed_run, cut, split, range(config.members))
    for member, net in enumerate(together.uppers):
        _finished(seed_run, together, net, upper_name(seed, cut, split, member))
    asked, names = answered(seed_run, together.eval()), dict[str, Any](cut=cut, split=split)
    found = [asked.row("part", [member], member, **names) for member in range(config.members)]
    found.append(asked.row("parts", range(config.members), **names))
    for model, pairs in pairs_of(split, config.members).items():
        found += [asked.row(model, pair, number, **names) for number, pair in enumerate(pairs)]
    return {"rows": found}


def _finished(seed_run: SeedRun, together: Parts, net: nn.Module, name: str) -> None:
    """Put the finished checkpoint `name` into `net`, which is one of those `together`."""
    alone = Parts(together.lower[0], [net], together.channels[:1])
    finished(alone, seed_run.config.student.epochs, name, seed_run.run)


def pairs_of(split: int, members: int) -> dict[str, list[tuple[int, int]]]:
    """Pairs of networks on the same part and on different parts: {"pair_same": [...], "pair_apart": [...]}, if any."""
    found: dict[str, list[tuple[int, int]]] = {}
    for one, other in combinations(range(members), 2):
        model = "pair_same" if one % split == other % split else "pair_apart"
        found.setdefault(model, []).append((one, other))
    return found if len(found) > 1 else {}  # where both are there, to compare


def results(config: Any, records: Mapping[str, Record]) -> dict[str, Any]:
    """rows, their summary over seeds, paired differences, and by how much more parts gain than whole layers.

    growth: (ensemble - one network) of a split less that of all channels, a paired difference over seeds.
    """
    found = [row for record in records.values() for row in record.get("rows", [])]
    pairs, growth = [], []
    for cut, split in kinds(config):
        pairs.append((("parts", cut, split), ("part", cut, split)))
        if split > 1:
            pairs += [((model, cut, split), (model, cut, 1)) for model in ("part", "parts")]
            wider, whole = (_gains(found, cut, one) for one in (split, 1))
            growth.append({"cut": cut, "split": split, "acc": paired(wider, whole)})
        if pairs_of(split, config.members):
            pairs.append((("pair_apart", cut, split), ("pair_same", cut, split)))
    return {
        "width": {cut: channels_at(config.network, cut) for cut in config.cuts},
        "rows": found,
        "summary": summary(found, BY),
        "differences": differences(found, pairs, BY),
        "growth": growth,
    }


def _gains(found: Rows, cut: str, split: int) -> list[float]:
    """By seed the accuracy of the ensemble less the mean of its networks."""
    gains = []
    for seed in dict.fromkeys(row["seed"] for row in found):
        of = [row for row in found if (row["seed"], row["cut"], row["split"]) == (seed, cut, split)]
        alone = [row["acc"] for row in of if row["model"] == "part"]
        gains += [row["acc"] - sum(alone) / len(alone) for row in of if row["model"] == "parts"]
    return gains


EXPERIMENT = Experiment("experiment split-channels", jobs, results)
