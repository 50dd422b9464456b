"""The jobs of a training run: a teacher, the deep ensemble of a seed, a student; each by one call in any process."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from divkd.empirical.data.datasets import load
from divkd.empirical.data.splits import ImageData, Split, to_float
from divkd.empirical.networks.build import parameters
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training import known, ranks
from divkd.empirical.training.clock import profiling
from divkd.empirical.training.config import FITTED, NetworksConfig, TrainConfig
from divkd.empirical.training.distillation import merged, teachers_of, train_student, train_teacher
from divkd.empirical.training.perturb import perturbed
from divkd.empirical.training.seed_run import EVALUATION_BATCH, SeedRun, log_probs
from divkd.empirical.training.students import STUDENTS, rows_of
from divkd.shared.machine import one_thread
from divkd.shared.metrics.dee import equivalent_curve
from divkd.shared.metrics.evaluation import evaluate
from divkd.shared.metrics.quality import accuracy, pairwise_kl
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.storage import Place, mapped, placed


class Source:
    """A run's configuration and images, which travel to another process as files that it maps.

    On another machine, where they are not, the data are read anew, once for all jobs that a process gets.
    """

    def __init__(self, config: NetworksConfig, data: ImageData, profile: bool = False) -> None:
        self.config, self.data, self.profile = config, data.to(torch.device(config.device)), profile

    @functools.cached_property
    def places(self) -> dict[str, Place]:
        """Where the images of each split lie, put there if they do not."""
        return {name: placed(split.images.cpu().numpy()) for name, split in self.data.splits.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        bare = self.data.each(lambda _, split: Split(split.images[:0].cpu().clone(), split.labels.cpu()))
        return _arrived, (self.config, bare, self.places, self.profile)


def _arrived(config: NetworksConfig, bare: ImageData, places: Mapping[str, Place], profile: bool) -> Source:
    if all(Path(place.path).exists() for place in places.values()):
        data = bare.each(lambda name, split: Split(torch.from_numpy(mapped(places[name])), split.labels))
    else:
        data = _read(config)
    return Source(config, data, profile)


@functools.lru_cache(1)
def _read(config: NetworksConfig) -> ImageData:
    place = config.dataset, config.data_dir, False
    return load(*place, config.train_images, config.image_size, config.split, config.views)


def teacher(source: Source, seed: int, member: int, run: Run, progress: Progress) -> dict[str, Any]:
    """Train one network of the deep ensemble."""
    ranks.tell("teacher", str(run.path.absolute()), seed, member)
    with profiling(source.profile):
        return {"seconds": train_teacher(SeedRun(source.config, source.data, seed, run, progress), member)}


def ensemble(source: Source, seed: int, run: Run, progress: Progress) -> dict[str, Any]:
    """Measure a seed's deep ensembles of the first 1, 2, ... networks, each one alone, and the teachers' premise."""
    config, seed_run = source.config, SeedRun(source.config, source.data, seed, run, progress)
    networks, seconds = teachers_of(seed_run, config.networks)
    predictions, labels = seed_run.predictions(networks), labels_of(source.data)
    probed, views = known.answers(seed_run, networks), list[dict[str, Any]]()
    each, rows = parameters(networks) // config.networks, []
    for size in range(1, config.networks + 1):
        found = scores([answers[:size] for answers in predictions], labels)
        names = {"model": "deep_ensemble", "method": "none", "members": size, "seed": seed}
        rows.append({**names, **found})
        rows[-1] |= {"params": each * size, "seconds": sum(seconds[:size])}
        if config.views and probed is not None:
            views.append(together := known.row(probed[:, :size], config.views, names))
            if size > 1:
                views.append(known.row(probed, config.views, {**names, "members": 1}, size - 1))
            rows[-1] |= known.measures(together, [row for row in views if row["members"] == 1])
    alone = []
    for number in range(config.networks):
        train, test = (accuracy(predictions[part][number : number + 1], labels[part]) for part in (2, 1))
        alone.append({"seed": seed, "network": number, "train_acc": train, "acc": test})
    taught = DeepEnsemble(list(networks.nets[: config.members])).eval()
    return {
        "rows": rows,
        "curve": equivalent_curve(predictions[0], labels[0], predictions[1], labels[1]),
        "networks": alone,
        "views": views,
        "diversity": {"seed": seed, **perturbed_diversity(seed_run, taught)} if config.members > 1 else None,
        "seconds": sum(seconds),
    }


def student(source: Source, seed: int, kind: str, method: str, run: Run, progress: Progress) -> dict[str, Any]:
    """Train one student and measure it, merged too where its kind merges."""
    ranks.tell("student", str(run.path.absolute()), seed, kind, method)
    config, data = cast(TrainConfig, source.config), source.data
    seed_run = SeedRun(config, data, seed, run, progress)
    teachers, _ = teachers_of(seed_run, config.members)
    with profiling(source.profile):
        net, taken = train_student(seed_run, teachers, kind, method)
    if not ranks.leads():
        return {}
    rows, views = [], []
    for model, one in {kind: net, **({"merged": merged(net, data)} if STUDENTS[kind].merges else {})}.items():
        names = {"model": model, "method": method, "members": rows_of(model, config.members), "seed": seed}
        rows.append({**names, **scores(seed_run.predictions(one), labels_of(data))})
        rows[-1] |= {"params": parameters(one), "seconds": taken}
        probed = known.answers(seed_run, one)
        if config.views and probed is not None:
            together = known.row(probed, config.views, names)
            alone = [known.row(probed, config.views, names, m) for m in range(one.members) if one.members > 1]
            views += [together, *alone]
            rows[-1] |= known.measures(together, alone or [together])
        run.log(event="row", **rows[-1])
    return {"rows": rows, "views": views, "seconds": taken}


def follow(source: Source) -> None:
    """Train with the first process of torchrun what it trains, until all is done."""
    with one_thread():
        while what := ranks.told():
            kind, path, *names = what
            work: Any = teacher if kind == "teacher" else student
            work(source, *names, ranks.Silent(Path(path)), Progress(quiet=True))


def perturbed_diversity(seed_run: SeedRun, teachers: DeepEnsemble) -> dict[str, float]:
    """The teachers' mean pairwise KL on training images, clean and moved by each perturbation (one draw an image).

    The paper's premise in one row: teachers that fit their training data agree on it, and an ODS step makes them
    disagree. At most the first 1,000 training images, no crop, no flip, temperature 1; a teacher is drawn for each
    500. `train_acc` is the teachers' mean accuracy on them: below `FITTED` the ratios are `void`, as the paper is about
    teachers that fit their images.
    """
    config, train = cast(TrainConfig, seed_run.config), seed_run.data.train
    images, labels = train.images[:1000], train.labels[:1000].cpu()
    blocks = [to_float(block) for block in images.split(EVALUATION_BATCH)]
    step = config.temperature, config.step_size
    row = {"images": float(len(images))}
    for kind, parts in perturbed(blocks, teachers, *step, lambda _: rng(seed_run.seed, "diversity/perturb")).items():
        answers = log_probs(teachers, parts)
        row[kind] = pairwise_kl(answers)
        if kind == "clean":
            row["train_acc"] = float((answers.argmax(-1) == labels).double().mean())
            row["void"] = row["train_acc"] < FITTED
    return row


def labels_of(data: ImageData) -> list[Tensor]:
    """The labels of the validation, the test and the training images."""
    return [split.labels.cpu() for split in (data.validation, data.test, data.train)]


def scores(predictions: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Any]:
    """What a row says of predictions of the validation, the test and the training images."""
    found = evaluate(predictions[0], labels[0], predictions[1], labels[1])
    return {**found, "train_acc": accuracy(predictions[2], labels[2])}
