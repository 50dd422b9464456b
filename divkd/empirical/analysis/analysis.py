"""Every analysis of a finished training run, network by network: the content of an analysis's results.json."""

import hashlib
import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from divkd.empirical.analysis import probes, shift
from divkd.empirical.analysis.cost import inference_cost, peak_training_bytes, training_passes
from divkd.empirical.analysis.shift import ImageSet
from divkd.empirical.data.cifar_c import read_published
from divkd.empirical.data.corrupt import FAMILIES, Corruptions, generated
from divkd.empirical.data.splits import ImageData, Split, to_float
from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.empirical.training.config import TrainConfig
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.seed_run import predict
from divkd.empirical.training.students import STUDENTS, rows_of
from divkd.empirical.use.restore import load_model, load_run
from divkd.shared.errors import InputError
from divkd.shared.jobs import Job, Workers
from divkd.shared.metrics.calibration import fit_temperature
from divkd.shared.metrics.diversity import agreement_matrix
from divkd.shared.metrics.evaluation import evaluate
from divkd.shared.progress import Progress
from divkd.shared.run import Run

BATCH = 128  # images, for throughput and memory


@dataclass(frozen=True)
class AnalysisConfig:
    """One `divkd analyse` run."""

    run: str  # the folder of the training run
    images: int  # of each set of images, the first so many; the test split's accuracies are of all
    ood: tuple[str, ...]  # sources of images of other classes
    shift: tuple[str, ...]  # sources of the run's classes, from elsewhere
    corruptions: str | None  # a folder of published arrays; None: our own generator
    device: str
    trained: TrainConfig  # how the networks were trained: another run in the same folder is another analysis
    data_dir: str | None = None  # where named sets lie; None: where the run's data does


@dataclass(frozen=True)
class Sets:
    """The images of an analysis beside the run's own."""

    ood: tuple[ImageSet, ...]
    shift: tuple[ImageSet, ...]
    corruptions: Corruptions

    def sha256(self, data: ImageData) -> str:
        """The sum of every byte of the run's `data` and of these sets, but for published corruptions."""
        sums = [data.facts()["sha256"], *(one["sha256"] for one in self.facts())]
        return hashlib.sha256("".join(sums).encode()).hexdigest()

    def facts(self) -> list[dict[str, Any]]:
        """Name, use, size and sum of every set."""
        rows = []
        for use, sets in (("ood", self.ood), ("shift", self.shift)):
            rows += [{"name": s.name, "use": use, "n": len(s.images), "sha256": s.sha256()} for s in sets]
        return rows


def read_sets(config: AnalysisConfig, data: ImageData) -> Sets:
    """The sets that `config` names, checked against the run's `data`.

    Raises `InputError`.
    """
    shape, where = tuple(data.test.images.shape[1:]), config.data_dir or config.trained.data_dir
    limit, size = config.images, config.trained.image_size

    def read(sources: tuple[str, ...], labelled: bool) -> tuple[ImageSet, ...]:
        return tuple(shift.read_set(one, shape, data.class_names, limit, where, labelled, size) for one in sources)

    ood, shifted = read(config.ood, labelled=False), read(config.shift, labelled=True)
    names = [one.name for one in (*ood, *shifted)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two sets are called {twice[0]}; rename one of the files or folders")
    if "test" in names:
        raise InputError("a set is called test, as the run's own test images are in the results; rename it")
    test = shift.first(data.test, config.images)
    if config.corruptions is None:
        made = generated(test.images.cpu(), test.labels.cpu(), seed=0)
    else:
        made = read_published(Path(config.corruptions), None)
        made = read_published(Path(config.corruptions), min(config.images, len(made)))
        given = tuple(made.images(made.kinds[0], 1).shape[1:])
        if given != shape or int(made.labels.max()) >= data.classes:
            raise InputError(
                f"{config.corruptions} holds images of shape {given} and labels up to {int(made.labels.max())}; the "
                f"run's are {shape} and 0 to {data.classes - 1}: give the corruptions of its own data set"
            )
    return Sets(ood, shifted, made)


def networks(config: TrainConfig) -> list[tuple[str, str]]:
    """(model, method) of what is analysed: the teachers and every student."""
    return [("deep_ensemble", "none"), *itertools.product(config.students, config.methods)]


def finished(config: TrainConfig, results: dict[str, Any]) -> bool:
    """Whether `results` has every network of `config`; not so where a finished run was extended and then killed."""
    held = {(row["model"], row["method"], row["members"], row["seed"]) for row in results["rows"]}
    asked = itertools.product(networks(config), config.seeds)
    return all(
        (model, method, config.networks if model == "deep_ensemble" else rows_of(model, config.members), seed) in held
        for (model, method), seed in asked
    )


def run_analysis(config: AnalysisConfig, data: ImageData, sets: Sets, out: Run, workers: Workers) -> dict[str, Any]:
    """Analyse every network of the run, or load what `out` holds already, and return the content of results.json.

    Each network is a job; what networks cost is measured when nothing else runs.
    """
    trained, source = config.trained, Source(config, data.to(torch.device(config.device)), sets)
    made = []
    for seed, (model, method) in itertools.product(trained.seeds, networks(trained)):
        memory = sum(len(one.images) * one.images[0].nbytes for one in (data.train, data.validation, data.test))
        made.append(
            Job(f"seed{seed}-{model}-{method}", partial(analyse, source, seed, model, method), memory=2 * memory)
        )
    names = tuple(job.name for job in made)
    records = workers.records([*made, Job("cost", partial(cost, source), names)], out)
    return {
        "command": "analyse",
        "preset": trained.preset,
        "dataset": data.name,
        "network": trained.network,
        "split": {"rule": data.rule, "train": len(data.train), "test": len(data.test)},
        "seeds": list(trained.seeds),
        "members": trained.members,
        "images": config.images,
        "sets": sets.facts(),
        "corruptions": {
            "source": sets.corruptions.source.split(" in ")[0],  # without a folder of this machine
            "kinds": list(sets.corruptions.kinds),
            "families": {kind: family for family, kinds in FAMILIES.items() for kind in kinds},
            "n": len(sets.corruptions),
        },
        "rows": [records[name] for name in names],
        **records["cost"],
    }


class Source:
    """What an analysis looks at, which travels to another process as the configuration alone."""

    def __init__(self, config: AnalysisConfig, data: ImageData, sets: Sets) -> None:
        self.config, self.data, self.sets = config, data, sets

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, (self.config,)

    @lru_cache(1)  # noqa: B019 (a process has one)
    def seed(self, seed: int) -> "SeedAnalysis":
        """The analysis of a seed, kept for the jobs of the same one."""
        return SeedAnalysis(self.config, self.data, self.sets, seed)


@lru_cache(1)
def _read(config: AnalysisConfig) -> Source:
    _, data = load_run(config.run)
    data = data.to(torch.device(config.device))
    return Source(config, data, read_sets(config, data))


def analyse(source: Source, seed: int, model: str, method: str, _: Run, __: Progress) -> dict[str, Any]:
    """The record of one network."""
    return source.seed(seed).analyse(model, method)


def cost(source: Source, _: Run, __: Progress) -> dict[str, Any]:
    """What the first seed's networks take to train and to answer."""
    first = source.seed(source.config.trained.seeds[0])
    return {"training_cost": first.training_cost(), "inference": first.inference()}


@dataclass(frozen=True)
class SeedAnalysis:
    """The analysis of one seed's networks, and what they share, made when the first of them needs it."""

    config: AnalysisConfig
    data: ImageData
    sets: Sets
    seed: int

    @cached_property
    def ladder(self) -> DeepEnsemble:
        """All networks of the deep ensemble."""
        return cast(DeepEnsemble, self.load("deep_ensemble", None, self.config.trained.networks))

    @cached_property
    def teachers(self) -> DeepEnsemble:
        """Those of the ladder that teach."""
        return DeepEnsemble(list(self.ladder.nets[: self.config.trained.members])).eval()

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The first images of each split."""
        named = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {name: shift.first(split, self.config.images) for name, split in named.items()}

    @cached_property
    def perturbed(self) -> dict[str, dict[str, list[Tensor]]]:
        """These, by split and kind of input, moved by the teachers."""
        step = self.config.trained.temperature, self.config.trained.step_size, self.seed
        return {name: probes.inputs(split.images, self.teachers, *step) for name, split in self.splits.items()}

    @cached_property
    def steps(self) -> dict[str, list[list[Tensor]]]:
        """By split, moved by an ODS step against each network of the ladder."""
        step = self.config.trained.temperature, self.config.trained.step_size, self.seed
        return {name: probes.steps(self.splits[name].images, self.ladder, *step) for name in ("train", "test")}

    @cached_property
    def corrupted(self) -> dict[tuple[str, int], Split]:
        """The corrupted images by kind and severity."""
        return shift.corrupted(self.sets.corruptions, torch.device(self.config.device))

    def load(self, model: str, method: str | None = None, members: int | None = None) -> Ensemble:
        """A network of the seed, by default by the run's last method."""
        return load_model(self.config.run, model, method, self.seed, self.config.device, members).net

    def analyse(self, model: str, method: str) -> dict[str, Any]:
        """Everything that is asked of one network, as one record of results.json."""
        data, config = self.data, self.config
        teaches = model == "deep_ensemble"
        net = self.ladder if teaches else self.load(model, method)
        validation, test = predict(net, data.validation), predict(net, data.test)
        val_labels, labels = data.validation.labels.cpu(), data.test.labels.cpu()
        record: dict[str, Any] = {"model": model, "method": method, "seed": self.seed}
        record["member_acc"] = (test.argmax(-1) == labels).double().mean(1).tolist()
        record["by_members"] = by_members(validation, val_labels, test, labels)
        record["agreement"] = agreement_matrix(test.argmax(-1)).tolist()

        net = self.teachers if teaches else net
        size = record["members"] = net.members
        temperature = fit_temperature(validation[:size], val_labels)
        limit, device = config.images, torch.device(config.device)
        own = test[:size, :limit]
        ood = {one.name: predict(net, one.split(device)) for one in self.sets.ood}
        record["ood"] = shift.out_of_distribution(own, ood)
        record["shift"] = {"test": shift.evaluated(own, labels[:limit], temperature)}
        for one in self.sets.shift:
            split = one.split(device)
            record["shift"][one.name] = shift.evaluated(predict(net, split), split.labels.cpu(), temperature)
        record["corruptions"] = shift.corruption_cells(net, self.corrupted, temperature)
        if size > 1:
            record["diversity"] = {
                name: probes.confidence_diversity(net, inputs, self.splits[name].labels.cpu())
                for name, inputs in self.perturbed.items()
            }
            record["transfer"] = {
                name: probes.transfer(net, self.perturbed[name]["clean"], steps) for name, steps in self.steps.items()
            }
        if not teaches:
            t = config.trained.temperature
            record["gradients"] = {
                name: probes.gradient_match(net, self.teachers, self.splits[name].images, t, self.seed)
                for name in ("train", "test")
            }
        return record

    def training_cost(self) -> list[dict[str, Any]]:
        """What a training step costs, by student and method (`divkd.empirical.analysis.cost`).

        `passes` of one network for each image, and `peak_bytes` of a `batch`, as it was trained: the deep ensemble's
        networks one after another.
        """
        trained, rows = self.config.trained, []
        for model, method in networks(trained):
            teaches = model == "deep_ensemble"
            net = DeepEnsemble([self.teachers.nets[0]]) if teaches else self.load(model, method)
            batch = shift.first(self.data.train, (trained.teacher if teaches else trained.student).batch_size)
            loss = student_loss(method, self.teachers, trained.temperature, trained.kd_weight, trained.step_size)
            peak = peak_training_bytes(net, loss, to_float(batch.images), batch.labels)
            row = {"model": model, "method": method, "passes": training_passes(model, method, trained.members)}
            rows.append({**row, "batch": len(batch), "peak_bytes": peak})
        return rows

    def inference(self) -> list[dict[str, Any]]:
        """What an answer costs: the deep ensemble, and by the last method each student, merged too where it can be.

        Whatever the weights, the arithmetic is the same, so one method stands for all. The first teacher is the plain
        network that the others are compared with where no single student was trained.
        """
        trained = self.config.trained
        nets: dict[str, nn.Module] = {"single": DeepEnsemble([self.teachers.nets[0]]), "deep_ensemble": self.teachers}
        for student in trained.students if trained.methods else ():
            for model in (student, "merged") if STUDENTS[student].merges else (student,):
                nets[model] = self.load(model)
        channels, height, width = self.data.test.images.shape[1:]
        return inference_cost(nets, (channels, height, width), BATCH, device=self.config.device, baseline="single")


def by_members(validation: Tensor, val_labels: Tensor, test: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """The quality of the first 1, 2, ..., M members together, each with a temperature of its own from validation."""
    rows = (evaluate(validation[:m], val_labels, test[:m], labels) for m in range(1, len(test) + 1))
    return [{"members": m, **shift.without_temperature(row)} for m, row in enumerate(rows, 1)]
